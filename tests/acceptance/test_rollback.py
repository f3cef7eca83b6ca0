"""The way back: to the release before or any earlier one, as a flip or from new instances."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import sample
from tests.support.tide import App, Tide, wait_for
from tests.support.users import Users

pytestmark = [pytest.mark.real, pytest.mark.slow]

_names = itertools.count(1)


@pytest.fixture
def make(shared: Tide) -> Callable[..., App]:
    """Makes apps with one public service of two instances, each on a host of its own."""

    def made(**production: Any) -> App:
        name = f"back{next(_names)}"
        web = sample.service("web", route=f"{name}.test", instances=2)
        app = shared.app(
            name,
            services={"web": web},
            environments={"production": {"strategy": "switch", "keep_warm": "1m", **production}},
        )
        app.host = f"{name}.test"
        return app

    return made


def test_rollback_inside_keep_warm_is_a_flip(make: Callable[..., App]) -> None:
    """While the old release is warm, going back takes over its very processes and drops nothing."""
    app = make()
    app.open()
    first = app.pids(1)
    app.open()
    with Users(app.tide.port, host=app.host) as users:
        wait_for(lambda: users.asked)
        done = app.ok("rollback", "--why", "prices are wrong")
        wait_for(lambda: users.asked[-1].release == "r1")
    assert "r1 is live" in done.out
    assert app.pids(1) == first
    assert not users.failures, users.summary()
    newest = app.history()[0]
    assert (newest["kind"], newest["why"], newest["strategy"]) == ("rollback", "prices are wrong", "switch")
    starts = [line for line in app.journal() if line[0] == "starting"]
    assert len(starts) == 4


def test_rollback_after_keep_warm_starts_new_instances(make: Callable[..., App]) -> None:
    """When the old release has been stopped, going back starts it anew, from the package that was kept."""
    app = make(keep_warm="500ms")
    app.open()
    first = app.pids(1)
    app.open()
    wait_for(lambda: not app.pids(1))
    assert app.get().release == "r2"
    app.ok("rollback")
    assert app.get().release == "r1"
    assert app.pids(1)
    assert not app.pids(1) & first


def test_rollback_to_any_earlier_release_brings_its_configuration(make: Callable[..., App]) -> None:
    """`--to` goes back over several releases, with the configuration as it was then."""
    app = make(config={"COLOUR": "blue"})
    app.open()
    app.manifest["environments"]["production"]["config"] = {"COLOUR": "red"}
    app.open()
    app.open()
    assert app.get("/env").json["COLOUR"] == "red"
    app.ok("rollback", "--to", "r1")
    assert app.get("/env").json["COLOUR"] == "blue"
    assert app.look()["live"] == 1


def test_rollback_can_be_rolled_back(make: Callable[..., App]) -> None:
    """A rollback is a rollout: rolling back from it returns to the release that it left."""
    app = make()
    app.open()
    app.open()
    app.ok("rollback")
    app.ok("rollback")
    assert app.get().release == "r2"
    assert [rollout["release"] for rollout in app.history()] == [2, 1, 2, 1]


def test_rollback_can_be_a_canary(make: Callable[..., App]) -> None:
    """With --canary the way back takes the release's own strategy."""
    app = make(strategy=sample.canary("30%", every="500ms"))
    app.open()
    app.open()
    app.ok("rollback", "--canary")
    shares = [event["exposure_bps"] for event in app.events() if event["release"] == 1]
    assert [share for share in shares if share] == [10000, 10000, 3000, 10000, 10000]


def test_nothing_to_go_back_to_is_refused(make: Callable[..., App]) -> None:
    """With a single release ever live, and for one that never was, rollback says so and changes nothing."""
    app = make()
    app.open()
    only = app.run("rollback")
    never = app.run("rollback", "--to", "r7")
    assert (only.status, never.status) == (2, 2)
    assert "No other release was ever live" in only.err
    assert "r7 was never live" in never.err
    assert len(app.history()) == 1

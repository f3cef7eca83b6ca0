"""The main job: releases come in by switch or canary, are steered on the way, and are refused clearly."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import sample
from tests.support.tide import App, Tide, finished, wait_for
from tests.support.users import Users

pytestmark = [pytest.mark.real, pytest.mark.slow]

_names = itertools.count(1)


@pytest.fixture
def make(shared: Tide) -> Callable[..., App]:
    """Makes apps with one public service of two instances, each on a host of its own."""

    def made(strategy: Any = "switch", keep_warm: str = "1m", **keys: Any) -> App:
        name = f"story{next(_names)}"
        web = sample.service("web", route=f"{name}.test", instances=2, **keys)
        production = {"strategy": strategy, "keep_warm": keep_warm}
        app = shared.app(name, services={"web": web}, environments={"production": production})
        app.host = f"{name}.test"
        return app

    return made


def test_first_release_is_served_to_everybody(make: Callable[..., App]) -> None:
    """A first deploy opens the route, with nothing to compare with."""
    app = make(strategy=sample.canary("1%", every="1h"))
    done = app.deploy("--why", "the shop opens")
    assert "r1 is live" in done.out
    assert [app.get().release for _ in range(5)] == ["r1"] * 5
    (first,) = app.history()
    assert first["strategy"] == "switch"
    assert first["why"] == "the shop opens"


def test_canary_grows_in_steps_until_everybody_has_it(make: Callable[..., App]) -> None:
    """A canary exposes more users at each step, never sends one back, drops nothing, and ends live."""
    app = make(strategy=sample.canary("20%", "60%"))
    app.deploy()
    with Users(app.tide.port, host=app.host, count=40) as users:
        done = app.deploy()
        wait_for(lambda: users.asked[-1].release == "r2")
    assert "r2 is live" in done.out
    shares = [event["exposure_bps"] for event in app.events() if event["release"] == 2]
    assert [share for share in shares if share] == [2000, 6000, 10000, 10000]
    assert not users.failures, users.summary()
    assert not users.went_back(["r1", "r2"])
    assert users.releases() == {"r1", "r2"}


def test_same_release_again_is_nothing_to_do(make: Callable[..., App]) -> None:
    """Deploying what is live already changes nothing, says so, and is no failure."""
    app = make()
    app.open()
    pids = app.pids(1)
    done = app.ok("deploy")
    assert "r1 is live" in done.out
    assert "nothing to do" in done.out
    assert len(app.history()) == 1
    assert app.pids(1) == pids


def test_deploy_during_a_rollout_is_refused(make: Callable[..., App]) -> None:
    """Who deploys while another rollout is in progress is told whose, and nothing changes."""
    app = make(strategy=sample.HELD)
    app.open()
    seen = app.hold()
    refused = app.refused_deploy()
    assert refused.status == 2
    assert f"Rollout #{seen['rollout']['id']} of r2 by root for ada is in progress" in refused.err
    assert "--supersede" in refused.err
    assert app.look()["rollout"]["id"] == seen["rollout"]["id"]
    assert app.exposure() == 5000


def test_superseding_deploy_wins(make: Callable[..., App]) -> None:
    """With --supersede the rollout in progress goes home first and the newer one takes over."""
    app = make(strategy=sample.HELD)
    app.open()
    app.write({"made": "second"})
    waiting = app.begin("deploy")
    app.wait_phase("holding")
    app.write({"made": "third"}, environments={"production": {"strategy": "switch"}})
    done = app.ok("deploy", "--supersede")
    assert "r3 is live" in done.out
    newest, superseded, _ = app.history()
    assert (newest["release"], newest["phase"]) == (3, "succeeded")
    assert (superseded["release"], superseded["phase"], superseded["reason"]) == (2, "aborted", "superseded")
    assert app.get().release == "r3"
    told = finished(waiting)
    assert told.status == 1
    assert "Rollout #3 of r2 was aborted (superseded)" in told.err
    assert "superseded by r3" in told.err


def test_paused_rollout_stays_until_it_is_resumed(make: Callable[..., App]) -> None:
    """No time of a stage passes while a rollout is paused, and it goes on after resume."""
    app = make(strategy=sample.canary("10%", every="30s"))
    app.open()
    app.hold()
    assert "paused" in app.ok("pause").out
    before = app.look()
    wait_for(lambda: app.look()["observed_at"] > before["observed_at"] + 1.5)
    after = app.look()
    assert (after["rollout"]["paused"], after["rollout"]["held_s"]) == (True, before["rollout"]["held_s"])
    assert "already paused" in app.ok("pause").out
    app.ok("resume")
    wait_for(lambda: app.look()["rollout"]["held_s"] > before["rollout"]["held_s"])
    assert app.look()["rollout"]["paused"] is False


def test_promote_ends_a_stage(make: Callable[..., App]) -> None:
    """Each promote goes one stage further; --full goes to everybody at once."""
    app = make(strategy=sample.canary("1%", "10%", "20%", every="manual"))
    app.open()
    app.hold()
    app.ok("promote")
    wait_for(lambda: app.exposure() == 1000)
    app.wait_phase("holding")
    app.ok("promote", "--full")
    assert app.wait_ended()["live"] == 2
    shares = [event["exposure_bps"] for event in app.events() if event["release"] == 2]
    assert [share for share in shares if share] == [100, 1000, 10000, 10000]


def test_abort_sends_everybody_home(make: Callable[..., App]) -> None:
    """After an abort every user has the old release, whose processes were never touched."""
    app = make(strategy=sample.HELD)
    app.open()
    pids = app.pids(1)
    with Users(app.tide.port, host=app.host) as users:
        app.hold()
        wait_for(lambda: "r2" in users.releases())
        assert "back home" in app.ok("abort").out
        ended = app.look()
    assert not users.failures, users.summary()
    assert (ended["live"], ended["rollout"], ended["last"]["reason"]) == (1, None, "aborted-by-user")
    assert {app.get().release for _ in range(10)} == {"r1"}
    assert app.pids(1) == pids
    wait_for(lambda: not app.pids(2))


def test_abort_while_instances_start(make: Callable[..., App]) -> None:
    """A rollout can be aborted before anybody was exposed, and its instances go away."""
    app = make()
    app.open()
    app.bring(never_ready=True)
    app.wait_phase("starting")
    wait_for(lambda: app.pids(2))
    app.ok("abort")
    assert app.look()["last"]["exposure_reached_bps"] == 0
    wait_for(lambda: not app.pids(2))
    assert app.get().release == "r1"

"""Releases that are bad, late or in a hurry: out by themselves, never further than their stage."""

from __future__ import annotations

import threading
import time
from typing import Any, Self

import pytest

from tests.support import sample
from tests.support.tide import App, Tide, wait_for
from tests.support.users import Users
from tidegate.client import Json

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.uncounted]


def _shop(tide: Tide, name: str, strategy: Any, **production: Any) -> App:
    web = sample.service("web", route=f"{name}.test", instances=2)
    app = tide.app(
        name,
        services={"web": web},
        environments={"production": {"strategy": strategy, "keep_warm": "1m", **production}},
    )
    app.host = f"{name}.test"
    app.open()
    wait_for(lambda: app.exposure() == 0, why="the first rollout's 100 % are still in the router")
    return app


class Watched:
    """The exposure that HAProxy holds, looked at as often as possible."""

    def __init__(self, app: App) -> None:
        self.app, self.most, self.stop = app, 0, threading.Event()
        self.thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()

    def _look(self) -> None:
        while not self.stop.wait(0.02):
            self.most = max(self.most, self.app.exposure())


def test_release_that_crashes_under_traffic_goes_back_by_itself(shared: Tide) -> None:
    """A release whose instances die of requests is aborted by itself, and never exceeds its stage."""
    app = _shop(shared, "crashes", sample.canary("30%", "60%", every="30s"))
    with Users(shared.port, host=app.host, count=40, think_s=0.3) as users, Watched(app) as watched:
        wait_for(lambda: len(users.asked) > 40)
        done = app.refused_deploy(crash_on_request=True)
        ended_at_s = time.monotonic()
        asked = len(users.asked)
        wait_for(lambda: len(users.asked) > asked + 100)
    assert done.status == 1
    assert any(f"aborted ({reason})" in done.err for reason in ("worse", "crash-loop", "all-unready")), (
        done.err
    )
    assert "about to fail under traffic" in done.err
    assert "At most 30 % of users" in done.err, done.err
    assert watched.most == 3000
    ended = app.look()
    assert (ended["live"], ended["last"]["exposure_reached_bps"]) == (1, 3000)
    assert not [one for one in users.failures if one.sent_at_s > ended_at_s]
    harmed = {one.user for one in users.failures}
    assert len(harmed) < 30, "only exposed users may have seen it: some 12 of 40"
    begun, over = users.failures[0].sent_at_s, users.failures[-1].sent_at_s
    between = [one for one in users.asked if begun < one.sent_at_s < over]
    assert not harmed & {one.user for one in between if one.release == "r1"}, "an exposed user stays exposed"


def test_release_that_crashes_after_its_success_is_rolled_back(shared: Tide) -> None:
    """Within keep_warm a crash loop of the live release sends everybody back to the one before."""
    app = _shop(shared, "later", "switch")
    first = app.pids(1)
    app.open()
    with Users(shared.port, host=app.host) as users:
        app.mark("die.r2")
        wait_for(lambda: app.look()["live"] == 1, seconds=30)
        app.wait_ended()
        back_at_s = time.monotonic()
        asked = len(users.asked)
        wait_for(lambda: len(users.asked) > asked + 60)
    newest: Json = app.history()[0]
    assert (newest["kind"], newest["release"], newest["by"]) == ("rollback", 1, "tidegate")
    assert "crash-loop-after-success" in newest["why"]
    assert app.pids(1) == first
    assert not [one for one in users.failures if one.sent_at_s > back_at_s], users.summary()


def test_one_crash_is_not_a_loop(shared: Tide) -> None:
    """A single crash of an instance of a canary is repaired, and the rollout goes on."""
    app = _shop(shared, "once", sample.HELD)
    seen = app.hold()
    incoming = seen["placements"][-1]["services"][0]["instances"][0]
    with Users(shared.port, host=app.host) as users:
        wait_for(lambda: users.asked)
        app.tide.kill_instance(incoming["pid"])
        wait_for(lambda: app.look()["placements"][-1]["services"][0]["instances"][0]["ready"])
    assert app.look()["rollout"]["phase"] == "holding"
    assert not users.failures, users.summary()


def test_fix_goes_out_when_stable_is_broken(shared: Tide) -> None:
    """When no instance of the live release is ready, its successor goes to everybody at once."""
    app = _shop(shared, "broken", sample.canary("1%", every="1h"))
    app.mark("sick.r1")
    wait_for(lambda: app.get().status == 503)
    app.bring()
    ended = app.wait_ended()
    assert (ended["live"], ended["last"]["phase"]) == (2, "succeeded")
    assert "stable-is-down" in {event["reason"] for event in app.events()}
    assert app.get().release == "r2"


def test_canary_does_not_answer_for_an_outage_of_both(shared: Tide) -> None:
    """When both releases fail at once it is nobody's verdict: the canary is neither promoted nor aborted."""
    app = _shop(shared, "both", sample.canary("50%", every="6s"))
    app.hold()
    marks = [app.mark("sick.r1"), app.mark("sick.r2")]
    wait_for(lambda: app.get().status == 503)
    began = app.look()["observed_at"]
    wait_for(lambda: app.look()["observed_at"] > began + 4.5)
    assert app.look()["rollout"]["phase"] == "holding"
    for mark in marks:
        mark.unlink()
    assert app.wait_ended()["live"] == 2

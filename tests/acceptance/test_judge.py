"""A canary that is worse for its users goes back by itself, found from the traffic; a good one gets through.

Real processes and HAProxy: about 100 requests a second of 500 users, of whom the canary is given 5 %. Users
bring the cookie of an earlier visit, so it can be computed who is exposed: nobody else may notice anything.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, Final, Self

import pytest

from tests.support import sample
from tests.support.tide import App, Tide, finished, kill, wait_for
from tests.support.users import Asked, Users
from tidegate.core.judge import JudgeState
from tidegate.store import codec

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.uncounted]

USERS: Final = 500
#: Each user asks every five seconds, 100 requests a second together: those who wait for ever are few of them.
THINK_S: Final = 5.0
EXPOSURE_BPS: Final = 500
#: What is three times slower than this is slower than a busy machine.
STABLE_S: Final = 0.02
#: Held for so long that only the judge can end it.
CANARY: Final = sample.canary("5%", "50%", every="10m")
#: Longest that what a busy machine decides may be older than the decision.
LOOK_AGE_S: Final = 2.0
GOOD_RELEASES: Final = int(os.environ.get("GOOD_RELEASES", "5"))


@dataclass(frozen=True, slots=True)
class Bad:
    """A way to be bad."""

    conduct: dict[str, Any]
    says: tuple[str, ...]
    """The judge's sentence begins with one of these, or another rule's."""
    harmed_max: int | None = None
    """Most requests that may go wrong, where it does not depend on chance."""


MORE_ERRORS: Final = "The canary fails more requests: "
KINDS: Final = {
    "fails": Bad({"fail_share": 1.0}, (MORE_ERRORS,), harmed_max=15),
    "fifth-fails": Bad({"fail_share": 0.2}, (MORE_ERRORS,)),
    "twentieth-fails": Bad({"fail_share": 0.05}, (MORE_ERRORS,)),
    "slower": Bad({"slow_s": 3 * STABLE_S}, ("The canary is slower than the stable release. ",)),
    "hangs": Bad({"hang": True}, ("The canary leaves requests without an answer: ",)),
    # Whichever comes first: the third crash of an instance, or users who found none of both alive.
    "crashes": Bad({"crash_after_s": 2.0}, ("instance ", MORE_ERRORS)),
}


class Watch:
    """The exposure that HAProxy holds, looked at as often as possible. Times are monotonic seconds."""

    def __init__(self, app: App) -> None:
        self.app, self.most_bps, self.salt, self.first_s, self.last_s = app, 0, "", 0.0, 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.02):
            route = self.app.route().split(":")
            if len(route) > 4 and route[2] != "-":
                self.most_bps, self.salt = max(self.most_bps, int(route[3])), route[4]
                self.last_s = time.monotonic()
                self.first_s = self.first_s or self.last_s

    @property
    def seconds(self) -> float:
        """From the first exposure to its end."""
        return self.last_s - self.first_s


def _shop(tide: Tide, name: str, strategy: Any = CANARY) -> App:
    """An app whose first release is live, and good."""
    web = sample.service("web", route=f"{name}.test", instances=2)
    app = tide.app(name, services={"web": web}, environments={"production": {"strategy": strategy}})
    app.host = f"{name}.test"
    app.open(slow_s=STABLE_S)
    wait_for(lambda: app.exposure() == 0, why="the first rollout's 100 % are still in the router")
    return app


@contextmanager
def _busy(app: App) -> Iterator[Users]:
    """The app under load, before and after."""
    with Users(app.tide.port, host=app.host, count=USERS, think_s=THINK_S, returning=True) as users:
        wait_for(lambda: len(users.asked) > 100)
        yield users


def _told(capsys: pytest.CaptureFixture[str], line: str) -> None:
    with capsys.disabled():
        print(f"\n{line}", end=" ")  # noqa: T201 - figures for whoever reads the log


@pytest.mark.timeout(150)
@pytest.mark.parametrize("kind", KINDS)
def test_bad_canary_goes_back_by_itself(shared: Tide, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """However a release is bad for its users, it leaves them by itself, says why, and met no other user."""
    bad, app = KINDS[kind], _shop(shared, kind)
    app.write({"slow_s": STABLE_S, **bad.conduct})
    with _busy(app) as users, Watch(app) as watch:
        done = finished(app.begin("deploy"), seconds=120)
        ended_s, asked = time.monotonic(), len(users.asked)
        wait_for(lambda: len(users.asked) > asked + 100)
    harmed = [one for one in users.asked if one.failure or (kind == "slower" and one.release == "r2")]
    hit = {one.user for one in harmed}
    _told(capsys, f"{kind}: {len(harmed)} requests, {len(hit)} users, {watch.seconds:.1f} s")

    last = app.look()["last"]
    assert done.status == 1
    assert last["reason"] in ("worse", "crash-loop")
    assert last["detail"].startswith(bad.says)
    assert last["detail"] in done.err
    assert "Everybody is served by r1" in done.err
    assert (app.exposure(), watch.most_bps) == (0, EXPOSURE_BPS)
    assert not [one for one in users.asked if one.sent_at_s > ended_s and _noticed(one)]
    exposed = users.exposed(watch.salt, EXPOSURE_BPS)
    assert {one.user for one in users.asked if _noticed(one)} <= exposed, users.summary()
    assert bad.harmed_max is None or len(harmed) <= bad.harmed_max, users.summary()


def _noticed(one: Asked) -> bool:
    """It was not simply served by the live release."""
    return bool(one.failure) or one.release != "r1"


@pytest.mark.timeout(60 + 20 * GOOD_RELEASES)
def test_good_canaries_are_let_through(shared: Tide, capsys: pytest.CaptureFixture[str]) -> None:
    """Releases as good as the one before get to everybody, one after the other, and nobody notices."""
    app = _shop(shared, "good", sample.canary("5%", "25%", "50%", every="1s"))
    with _busy(app) as users:
        for _ in range(GOOD_RELEASES):
            app.bring(slow_s=STABLE_S)
            app.wait_ended()
    history = app.history()
    _told(capsys, f"{GOOD_RELEASES} good releases: {users.summary()}")
    assert [rollout["phase"] for rollout in history] == ["succeeded"] * (1 + GOOD_RELEASES)
    assert app.look()["live"] == 1 + GOOD_RELEASES
    assert not users.failures, users.summary()
    assert not users.went_back([f"r{number}" for number in range(1, 2 + GOOD_RELEASES)])


@pytest.mark.timeout(150)
def test_bad_canary_goes_back_although_the_control_plane_was_killed(
    tide: Tide, capsys: pytest.CaptureFixture[str]
) -> None:
    """The evidence from before and after kill -9 is one, with each request once; between, exposure stands."""
    app = _shop(tide, "killed")
    with _busy(app) as users, Watch(app) as watch:
        app.bring(slow_s=STABLE_S, fail_share=0.05)
        _wait_for_answers_of_canary(users, 10)
        kill(tide.pid)
        _wait_for_answers_of_canary(users, 5)
        assert app.exposure() == EXPOSURE_BPS
        tide.up()
        ended = app.wait_ended(seconds=80)
    aborted_s = next(event["at"] for event in app.events() if event["phase"] == "aborting")
    aborted_s += time.monotonic() - time.time()
    canary = ended["last"]["evidence"]["canary"]
    answered = [one for one in users.asked if one.release == "r2"]
    _told(capsys, f"killed: {len(users.failures)} requests, {watch.seconds:.1f} s, evidence of {canary}")

    assert (ended["live"], ended["last"]["reason"], app.exposure()) == (1, "worse", 0)
    assert ended["last"]["detail"].startswith(MORE_ERRORS)
    assert {one.user for one in users.asked if _noticed(one)} <= users.exposed(watch.salt, EXPOSURE_BPS)
    for asked, counted in (
        (answered, canary["requests"]),
        ([one for one in answered if one.failure], canary["errors"]),
    ):
        # The last look was shortly before the abort, and saw nothing of what was sent after it.
        over = sum(one.ended_at_s < aborted_s - LOOK_AGE_S for one in asked)
        assert over <= counted <= sum(one.sent_at_s < aborted_s for one in asked)


def test_killed_control_plane_counts_each_request_once(tide: Tide) -> None:
    """However often it is killed in the middle of a canary, its evidence is what the users saw of it."""
    app = _shop(tide, "counted")
    with _busy(app) as users:
        app.bring(slow_s=STABLE_S)
        for _ in range(3):
            _wait_for_answers_of_canary(users, 4)
            kill(tide.pid)
            _wait_for_answers_of_canary(users, 4)
            tide.up()
        _wait_for_answers_of_canary(users, 4)
    began = app.look()["observed_at"]
    wait_for(lambda: app.look()["observed_at"] > began + 0.5)
    judge = _judge(app)
    assert judge.canary.requests + judge.waiting.canary.requests == _answers_of_canary(users)
    assert not users.failures, users.summary()


def _answers_of_canary(users: Users) -> int:
    return sum(one.release == "r2" for one in users.asked)


def _wait_for_answers_of_canary(users: Users, count: int) -> None:
    before = _answers_of_canary(users)
    wait_for(lambda: _answers_of_canary(users) >= before + count)


def _judge(app: App) -> JudgeState:
    """What is committed of the canary in progress."""
    with closing(sqlite3.connect(f"file:{app.tide.home}/state/tidegate.db?mode=ro", uri=True)) as database:
        ((text,),) = database.execute("select state from environments where app = ?", (app.name,)).fetchall()
    rollout = codec.STATE.decode(text).rollout
    assert rollout is not None
    assert rollout.analysis is not None
    return rollout.analysis.judge

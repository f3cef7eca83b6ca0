"""The control plane dies at the worst moments; apps and users do not notice, and each rollout ends right.

The wall clock's jumps are covered by the simulation (tests/simulation): a real clock cannot be turned without
turning it for the whole machine.
"""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.support import sample
from tests.support.tide import App, Tide, kill, wait_for
from tests.support.users import Users

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.uncounted]

#: The full run is 200; in CI a sample of it.
KILLS = int(os.environ.get("KILLS", "10"))


def _shop(tide: Tide, **production: object) -> App:
    """Two instances with traffic and a worker, which keeps a rollout in `finishing` for a second."""
    app = tide.app(
        "shop",
        services={
            "web": sample.service("web", route="*", instances=2),
            "mailer": sample.service("mailer", health=None),
        },
        environments={"production": {"keep_warm": "1s", **production}},
    )
    app.open()
    return app


@pytest.fixture(scope="module")
def mortal() -> Iterator[App]:
    """A control plane that is killed again and again, with a release that is live."""
    tide = Tide()
    try:
        tide.up()
        yield _shop(tide, strategy=sample.canary("30%", "60%", every="1s"))
    finally:
        tide.close()


def _starts(app: App) -> Counter[str]:
    """How often an instance of each release was started."""
    return Counter(release for what, _, release, *_ in app.journal() if what == "starting")


MOMENTS = [("starting", 0), ("holding", 0), ("holding", 1), ("finishing", 2)]


@pytest.mark.parametrize(("phase", "stage"), MOMENTS, ids=[f"{phase}-{stage}" for phase, stage in MOMENTS])
def test_killed_control_plane_carries_on_in_every_phase(mortal: App, phase: str, stage: int) -> None:
    """After kill -9 and `tide up` the rollout ends right, with nothing done twice and no request lost."""
    before = mortal.look()["live"]

    def there() -> bool:
        rollout = mortal.look()["rollout"]
        return rollout is not None and (rollout["phase"], rollout["stage"]) == (phase, stage)

    newest = max(rollout["release"] for rollout in mortal.history())
    # Instances that are ready at once leave nobody the time to kill anything before.
    sick = mortal.mark(f"sick.r{newest + 1}") if phase == "starting" else None
    with Users(mortal.tide.port) as users:
        mortal.bring()
        wait_for(there)
        kill(mortal.tide.pid)
        share = mortal.exposure()
        asked = len(users.asked)
        wait_for(lambda: len(users.asked) > asked + 60)
        assert mortal.exposure() == share
        mortal.tide.up()
        if sick:
            sick.unlink()
        ended = mortal.wait_ended()
    release = ended["last"]["release"]
    assert (ended["live"], ended["last"]["phase"]) == (release, "succeeded")
    assert release > before
    assert _starts(mortal)[f"r{release}"] == 3
    assert not users.failures, users.summary()
    assert not users.went_back([f"r{before}", f"r{release}"])


def test_killed_control_plane_carries_on_with_an_abort(mortal: App) -> None:
    """An abort that was accepted is carried out after kill -9, even if nothing of it had been done."""
    before = mortal.look()["live"]
    with Users(mortal.tide.port) as users:
        mortal.hold()
        pid = mortal.tide.pid
        mortal.act("abort")
        kill(pid)
        mortal.tide.up()
        ended = mortal.wait_ended()
        wait_for(lambda: mortal.exposure() == 0)
    assert (ended["live"], ended["last"]["reason"]) == (before, "aborted-by-user")
    assert not users.failures, users.summary()


@pytest.mark.timeout(60 + 10 * KILLS)
def test_random_kills_lose_nothing(tide: Tide, capsys: pytest.CaptureFixture[str]) -> None:
    """Whenever the control plane is killed, rollouts end right, once each, and no request fails."""
    app = _shop(tide, strategy=sample.canary("30%", "60%", every="400ms"))
    chance = random.Random(20)
    phases: Counter[str] = Counter()
    with Users(tide.port, count=10) as users:
        for _ in range(KILLS):
            seen = app.look()
            if seen["rollout"] is None:
                app.bring()
            threading.Event().wait(chance.uniform(0.0, 1.5))
            rollout = app.look()["rollout"]
            phases[rollout["phase"] if rollout else "idle"] += 1
            kill(tide.pid)
            tide.up()
        ended = app.wait_ended()
    history = app.history()
    with capsys.disabled():
        print(f"\n{KILLS} kills, in {dict(phases)}; {len(history)} rollouts; {users.summary()}")  # noqa: T201
    assert {rollout["phase"] for rollout in history} == {"succeeded"}
    assert ended["live"] == len(history)
    assert _starts(app) == {f"r{number}": 3 for number in range(1, len(history) + 1)}
    assert not users.failures, users.summary()


def test_locked_database_only_delays(tide: Tide) -> None:
    """While a stranger holds the database, nothing is done and nobody notices; then the rollout goes on."""
    app = _shop(tide, strategy=sample.canary("50%", every="1s"))
    with Users(tide.port) as users:
        app.hold()
        with closing(sqlite3.connect(tide.home / "state" / "tidegate.db", isolation_level=None)) as stranger:
            stranger.execute("begin immediate")
            wait_for(lambda: app.look()["failures"], seconds=20)
            assert app.exposure() == 5000
            (failure,) = app.look()["failures"]
        assert "lock" in failure
        ended = app.wait_ended()
        wait_for(lambda: not app.look()["failures"])
    assert (ended["live"], ended["last"]["phase"]) == (2, "succeeded")
    assert not users.failures, users.summary()


def test_frozen_control_plane_is_not_missed(tide: Tide) -> None:
    """While the control plane is stopped users are served as before, and it goes on when it wakes."""
    app = _shop(tide, strategy=sample.HELD)
    with Users(tide.port) as users:
        app.hold()
        pid = tide.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            asked = len(users.asked)
            wait_for(lambda: len(users.asked) > asked + 200)
        finally:
            os.kill(pid, signal.SIGCONT)
        app.act("promote")
        ended = app.wait_ended()
    assert ended["live"] == 2
    assert not users.failures, users.summary()

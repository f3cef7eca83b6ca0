"""The thread that steps: it goes on through trouble, tells it, and stops at a lost lease."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from tests.support.builders import KEY, environment, going, perfect
from tests.unit.engine.world import TTL_S, Plant
from tidegate import errors
from tidegate.core import model
from tidegate.core.model import EnvironmentKey, Phase
from tidegate.engine import loop
from tidegate.engine.noise import Noise
from tidegate.engine.series import RETRY_S, Recorder
from tidegate.engine.watch import Watch
from tidegate.testing.series import MemorySeries

EARLIER = EnvironmentKey(app="aardvark", environment="test")
DEADLINE_S = 10.0


def eventually(true: Callable[[], object]) -> None:
    """Bounded: a thread needs a moment."""
    end = time.monotonic() + DEADLINE_S
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)


class Breaking(loop.Controller):
    """One environment cannot be stepped."""

    broken: Exception | None = None

    def step(self, key: EnvironmentKey) -> loop.View:
        if key == EARLIER and self.broken is not None:
            raise self.broken
        return super().step(key)


class Watched:
    """A watch over a plant with a breaking controller."""

    def __init__(self) -> None:
        self.plant = Plant()
        adapters = self.plant.controller._adapters
        self.controller = Breaking(adapters, self.plant.lease, renewed_at=self.plant.world.monotonic())
        self.watch = Watch(self.controller, self.plant.store, self.plant.world)
        self.lost = threading.Event()
        self.watch.on_lost = self.lost.set


@pytest.fixture
def watched() -> Iterator[Watched]:
    one = Watched()
    yield one
    if one.watch._thread.is_alive():
        one.watch.stop()


def test_watch_carries_a_rollout_on_by_itself(watched: Watched) -> None:
    """Each look shows whether the last step came through, until everything is done."""
    watched.plant.holds(environment().live("r1").incoming("r2", phase=Phase.STARTING))
    watched.watch.start()
    eventually(lambda: going(watched.plant.state).phase is Phase.SHIFTING)
    watched.plant.world.observed = perfect(watched.plant.state, revision=2)
    watched.watch.wake()
    eventually(lambda: going(watched.watch.view(KEY).state).phase is Phase.HOLDING)
    assert watched.watch.view(KEY).failures == ()


@pytest.mark.parametrize(
    "broken",
    [errors.StorageError("cannot be read"), errors.ConflictError("busy"), RuntimeError("a defect")],
    ids=["unreadable", "conflict", "defect"],
)
def test_environment_in_trouble_holds_up_no_other(watched: Watched, broken: Exception) -> None:
    """A damaged record of one app must not leave the canary of another without its watch."""
    watched.plant.holds(environment().live("r1"), EARLIER)
    watched.plant.holds(environment().live("r1").incoming("r2", phase=Phase.STARTING))
    watched.controller.broken = broken
    watched.watch.start()
    eventually(lambda: going(watched.plant.state).phase is Phase.SHIFTING)
    (failure,) = watched.watch.view(EARLIER).failures
    assert failure.key == f"loop:{EARLIER}"
    assert "defect" not in str(failure.error), "an unexpected error is named by its type only"
    watched.controller.broken = None
    watched.plant.world.observed = perfect(watched.plant.store.load(EARLIER).state, revision=2)

    def healed() -> bool:
        watched.watch.wake()
        return watched.watch.view(EARLIER).failures == ()

    eventually(healed)


def test_lost_lease_ends_the_watch(watched: Watched) -> None:
    """Another control plane has taken over: stop at once, and say so."""
    watched.plant.holds(environment().live("r1").incoming("r2", phase=Phase.STARTING))
    watched.plant.store.acquire("one", ttl_s=TTL_S)
    watched.watch.start()
    assert watched.lost.wait(DEADLINE_S)
    eventually(lambda: not watched.watch._thread.is_alive())
    assert watched.plant.effects == []


def test_view_before_the_first_look_is_blind(watched: Watched) -> None:
    """What was not looked at yet is shown as that, with the committed state."""
    state = watched.plant.holds(environment().live("r1"))
    view = watched.watch.view(KEY)
    assert (view.state, view.observed) == (state, model.Observation(runtime=None, routes=None))


def test_view_of_an_unknown_environment_is_not_found(watched: Watched) -> None:
    """Never deployed is no empty answer."""
    with pytest.raises(errors.NotFoundError, match="Nothing was ever deployed"):
        watched.watch.view(replace(KEY, environment="nowhere"))


def test_watch_hands_each_look_to_the_recorder_and_shows_its_trouble(watched: Watched) -> None:
    """What cannot be recorded is seen in the view, and the loop goes on."""
    kept = MemorySeries()
    recorder = Recorder(kept, watched.plant.world, Noise(kept, watched.plant.world))
    watch = Watch(watched.controller, watched.plant.store, watched.plant.world, recorder)
    watched.plant.holds(environment().live("r1"))
    watch._round()
    kept.failing = errors.StorageError("The disk is full.")
    recorder.write()
    (failure,) = watch.view(KEY).failures
    assert (failure.key, str(failure.error)) == ("series", "The disk is full.")
    watched.plant.world.time_s += RETRY_S
    kept.failing = None
    watch._round()
    recorder.write()
    assert watch.view(KEY).failures == ()
    watch._round()
    recorder.write()
    assert kept.marks(KEY) == ()

"""The loop: commit before effect, nothing without the lease, failures as values."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.builders import (
    KEY,
    blind_router,
    environment,
    going,
    perfect,
    placed,
    request,
    with_routes,
    without_groups,
)
from tests.unit.engine.world import TTL_S, Plant
from tidegate import errors
from tidegate.core import model, requests
from tidegate.core.model import Phase
from tidegate.engine import loop


def test_step_commits_what_was_decided_and_then_does_it() -> None:
    """The exposure is committed before the router hears of it."""
    order: list[str] = []
    plant = Plant()
    state = plant.holds(environment().live("r1").incoming("r2", phase=Phase.STARTING))
    plant.world.calls = order
    plant.on_commit = lambda: order.append("commit")
    view = plant.controller.step(KEY)
    assert order == [
        "observe-runtime",
        "observe-router",
        "commit",
        f"route routes:{KEY}:{state.route.fence + 1}",
    ]
    assert view.state == plant.state
    assert plant.state.route.exposure_bps == 500
    assert (view.changed, view.at) == (True, plant.world.now())


def test_failed_commit_does_nothing_to_the_world() -> None:
    """Only committed state justifies an effect."""
    plant = Plant()
    plant.holds(environment().live("r1").incoming("r2", phase=Phase.STARTING))
    other = plant.store.acquire("one", ttl_s=TTL_S)
    with pytest.raises(errors.FencedError):
        plant.controller.step(KEY)
    assert plant.effects == []
    plant.another(other).step(KEY)
    assert len(plant.effects) == 1


def test_storage_that_is_full_does_nothing_to_the_world() -> None:
    """Without a commit there is no effect, and the error reaches the caller."""
    plant = Plant()
    plant.holds(environment().live("r1").incoming("r2", phase=Phase.STARTING))

    def full() -> None:
        raise errors.StorageError("disk full")

    plant.on_commit = full
    with pytest.raises(errors.StorageError, match="disk full"):
        plant.controller.step(KEY)
    assert plant.effects == []


def test_request_between_look_and_commit_is_a_conflict() -> None:
    """Who committed first wins; the step did nothing and can be called again."""
    plant = Plant()
    plant.holds(environment().live("r1").incoming("r2", phase=Phase.STARTING))
    meddling(plant, 1)
    with pytest.raises(errors.ConflictError):
        plant.controller.step(KEY)
    assert plant.effects == []


def test_world_at_rest_is_neither_written_nor_touched() -> None:
    """A look whose only news is its revision costs no commit."""
    plant = Plant()
    state = plant.holds(environment().live("r1", live_s=600.0))
    version = plant.store.load(KEY).version
    plant.world.observed = perfect(state, revision=9)
    view = plant.controller.step(KEY)
    assert (view.changed, view.failures, plant.effects) == (False, (), [])
    assert plant.store.load(KEY).version == version


def test_counters_are_committed_but_are_no_change() -> None:
    """Hold time is state, or a restart would give a bad canary a second first impression."""
    plant = Plant()
    plant.holds(environment().live("r1").incoming("r2"))
    plant.controller.step(KEY)
    plant.world.time_s += 0.5
    view = plant.controller.step(KEY)
    assert (view.changed, going(plant.state).held_s) == (False, 0.5)


def test_time_counts_from_the_first_look_of_this_process() -> None:
    """Downtime of the control plane adds nothing, however long it was."""
    plant = Plant()
    plant.holds(environment().live("r1").incoming("r2"))
    plant.world.time_s += 5.0
    plant.controller.step(KEY)
    assert going(plant.state).held_s == 0.0


def test_times_of_environments_are_their_own() -> None:
    """A look at one environment is no look at another."""
    plant = Plant()
    other = model.EnvironmentKey(app="shop", environment="test")
    plant.holds(environment().live("r1").incoming("r2"), other)
    plant.holds(environment().live("r1").incoming("r2"))
    plant.controller.step(KEY)
    plant.world.time_s += 0.75
    plant.world.observed = perfect(plant.store.load(other).state)
    plant.controller.step(other)
    assert going(plant.store.load(other).state).held_s == 0.0


@pytest.mark.parametrize("blind", ["runtime", "routes"])
def test_look_that_failed_is_none_and_is_told(blind: str) -> None:
    """Could not look is never empty, and the failure names what could not be asked."""
    plant = Plant()
    state = plant.holds(environment().live("r1"))
    plant.world.observed = replace(perfect(state), **{blind: None})
    view = plant.controller.step(KEY)
    assert getattr(view.observed, blind) is None
    name = {"runtime": "runtime", "routes": "router"}[blind]
    assert [failure.key for failure in view.failures] == [f"observe-{name}:{KEY}"]


def test_machine_that_cannot_look_is_blind_too() -> None:
    """A full disk or a missing program under an adapter is a failed look, not the end of the loop."""
    plant = Plant()
    plant.holds(environment().live("r1"))
    plant.world.failing = {
        "observe-runtime": errors.StorageError("full"),
        "observe-router": errors.MissingProgramError("gone"),
    }
    view = plant.controller.step(KEY)
    assert (view.observed.runtime, view.observed.routes) == (None, None)
    assert len(view.failures) == 2


def test_effect_that_fails_does_not_hold_up_the_next() -> None:
    """Each failure is told by its key, and the loop will ask again."""
    plant = Plant()
    state = plant.holds(environment().live("r1"))
    plant.world.observed = without_groups(with_routes(perfect(state), current=False), placed(state, "r1"))
    plant.world.failing = {"route": errors.StaleRouteError("late"), "apply": errors.PortTakenError("taken")}
    view = plant.controller.step(KEY)
    assert [failure.key for failure in view.failures] == [
        f"routes:{KEY}:{state.route.fence}",
        "apply:shop.production.1.web",
    ]
    assert [str(failure.error) for failure in view.failures] == ["late", "taken"]


def test_old_look_is_not_acted_upon() -> None:
    """A view from before the newest one neither decides nor stops anything."""
    plant = Plant()
    scene = environment().live("r2").retiring("r1", cleared=("web",)).having(seen_runtime=9, seen_router=9)
    state = plant.holds(scene)
    uncleared = state.with_placement(replace(placed(state, "r1"), cleared=()))
    old = perfect(uncleared, revision=3)
    plant.world.observed = replace(old, routes=perfect(state, revision=3).routes)
    plant.controller.step(KEY)
    assert [effect for effect in plant.effects if effect.startswith("remove")] == []


def test_look_that_was_committed_is_not_counted_again() -> None:
    """Who starts anew and is shown the last look of the one before adds no time for it, and says why."""
    plant = Plant()
    plant.holds(environment().live("r1").incoming("r2"))
    plant.controller.step(KEY)
    plant.world.time_s += 0.5
    plant.controller.step(KEY)
    successor = plant.another(plant.store.acquire("one", ttl_s=TTL_S))
    for looks in (0, 2):  # as at the first step, then as at the second one
        plant.world.looks = looks
        plant.world.time_s += 0.5
        view = successor.step(KEY)
        assert view.observed == model.Observation(runtime=None, routes=None, jobs=())
        assert [failure.key for failure in view.failures] == [
            f"outdated-runtime:{KEY}",
            f"outdated-router:{KEY}",
        ]
    assert going(plant.state).held_s == 0.5
    plant.world.time_s += 0.5
    successor.step(KEY)
    assert going(plant.state).held_s == 1.0


# --- lease -----------------------------------------------------------------------------------------


def test_lease_is_renewed_after_a_third_of_its_time() -> None:
    """Not at every step, and early enough that two failed attempts are survived."""
    plant = Plant()
    plant.world.time_s += TTL_S / 3 - 0.1
    plant.controller.renew_if_due()
    plant.world.time_s += TTL_S * 2 / 3
    plant.controller.renew_if_due()
    plant.world.time_s += TTL_S / 2
    with pytest.raises(errors.LeaseHeldError):
        plant.store.acquire("two", ttl_s=TTL_S)


def test_lost_lease_is_noticed_at_its_renewal() -> None:
    """Another holder means: stop at once."""
    plant = Plant()
    plant.world.time_s += TTL_S + 1
    plant.store.acquire("two", ttl_s=TTL_S)
    with pytest.raises(errors.FencedError):
        plant.controller.renew_if_due()


def test_no_effect_is_sent_near_the_end_of_the_lease() -> None:
    """By our own clock: a slow last effect must still end within the lease."""
    plant = Plant()
    state = plant.holds(environment().live("r1", live_s=600.0))
    plant.world.observed = blind_router(perfect(state))
    plant.world.time_s += TTL_S * (1 - loop.LEASE_MARGIN)
    plant.controller.step(KEY)
    assert len(plant.effects) == 1
    plant.world.time_s += 0.01
    with pytest.raises(errors.FencedError):
        plant.controller.step(KEY)
    assert len(plant.effects) == 1


def test_slow_effects_use_up_the_lease() -> None:
    """The margin is asked before each effect, not once per step."""
    plant = Plant()
    state = plant.holds(environment().live("r1", live_s=600.0))
    plant.world.observed = without_groups(with_routes(perfect(state), current=False), placed(state, "r1"))
    plant.world.slow_s = TTL_S * 0.8
    with pytest.raises(errors.FencedError):
        plant.controller.step(KEY)
    assert plant.effects == [f"route routes:{KEY}:{state.route.fence}"]


# --- requests --------------------------------------------------------------------------------------


def test_accepted_request_is_committed_with_its_events() -> None:
    """Only then is it answered."""
    plant = Plant()
    plant.holds(environment().live("r1"))
    decision = plant.controller.request(KEY, lambda state: requests.start(state, request("r2")))
    assert plant.state == decision.state
    assert [record.event for record in plant.store.events(KEY)] == list(decision.events)
    assert plant.world.calls == []


def test_no_op_commits_nothing() -> None:
    """What is so already leaves no trace."""
    plant = Plant()
    plant.holds(environment().live("r1"))
    version = plant.store.load(KEY).version
    assert plant.controller.request(KEY, lambda state: requests.start(state, request("r1"))).no_op
    assert plant.store.load(KEY).version == version


def test_refused_request_commits_nothing() -> None:
    """The refusal reaches the caller unchanged."""
    plant = Plant()
    plant.holds(environment().live("r1"))
    version = plant.store.load(KEY).version
    with pytest.raises(errors.RefusedError):
        plant.controller.request(KEY, lambda state: requests.abort(state, by="ada"))
    assert plant.store.load(KEY).version == version


def meddling(plant: Plant, times: int) -> None:
    """Somebody else commits just before each of the next so many commits."""
    left = iter(range(times))

    def commit() -> None:
        if next(left, None) is None:
            return
        plant.on_commit = lambda: None
        versioned = plant.store.load(KEY)
        seen = replace(versioned.state, seen_router=versioned.state.seen_router + 1)
        plant.store.commit(plant.lease, versioned, seen, (), at=0.0)
        plant.on_commit = commit

    plant.on_commit = commit


def test_request_is_decided_again_when_the_loop_was_faster() -> None:
    """On the newest state each time, until it is committed."""
    plant = Plant()
    plant.holds(environment().live("r1"))
    meddling(plant, loop.REQUEST_ATTEMPTS - 1)
    decided_on: list[int] = []

    def decide(state: model.EnvironmentState) -> requests.Decision:
        decided_on.append(state.seen_router)
        return requests.start(state, request("r2"))

    plant.controller.request(KEY, decide)
    assert decided_on == list(range(loop.REQUEST_ATTEMPTS))
    assert going(plant.state).request.release == 2


def test_request_that_never_gets_through_is_a_conflict() -> None:
    """After many attempts the caller is told, and nothing was changed."""
    plant = Plant()
    plant.holds(environment().live("r1"))
    meddling(plant, loop.REQUEST_ATTEMPTS)
    with pytest.raises(errors.ConflictError, match="nothing was done"):
        plant.controller.request(KEY, lambda state: requests.start(state, request("r2")))
    assert plant.state.rollout is None


def test_request_to_a_deposed_control_plane_is_fenced() -> None:
    """Another one decides now."""
    plant = Plant()
    plant.holds(environment().live("r1"))
    plant.store.acquire("one", ttl_s=TTL_S)
    with pytest.raises(errors.FencedError):
        plant.controller.request(KEY, lambda state: requests.start(state, request("r2")))
    assert plant.state.rollout is None

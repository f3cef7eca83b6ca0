"""What one look at the world may and may not do to a state: freshness, time, halting, correcting."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support.builders import (
    blind_router,
    blind_runtime,
    environment,
    going,
    group,
    perfect,
    placed,
    with_groups,
    with_instances,
    with_routes,
    without_groups,
)
from tidegate.core import advance
from tidegate.core.model import Endpoint, Observation, Phase, Reason, Role, Route, RuntimeState

NOTHING_SEEN = Observation(runtime=None, routes=None)


def test_newest_revisions_are_remembered_and_kept_while_blind() -> None:
    """What was seen last stays the mark that older looks are measured against."""
    state = environment().live("r1").state
    seen = advance.advance(state, perfect(state, revision=7), 1.0).state
    assert (seen.seen_runtime, seen.seen_router) == (7, 7)
    blind = advance.advance(seen, NOTHING_SEEN, 1.0).state
    assert (blind.seen_runtime, blind.seen_router) == (7, 7)


def test_look_that_goes_back_in_time_is_dropped() -> None:
    """An older view counts as no view: it neither decides nor moves the mark back."""
    state = environment().live("r1").incoming("r2", phase=Phase.SHIFTING).state
    state = replace(state, seen_runtime=7, seen_router=7)
    after = advance.advance(state, perfect(state, revision=6), 1.0).state
    assert going(after).phase is Phase.SHIFTING
    assert (after.seen_runtime, after.seen_router) == (7, 7)
    assert going(advance.advance(state, perfect(state, revision=7), 1.0).state).phase is Phase.HOLDING


@pytest.mark.parametrize(("dt_s", "counted_s"), [(0.25, 0.25), (-5.0, 0.0), (3600.0, advance.TICK_MAX_S)])
def test_one_tick_adds_at_most_its_limit_to_a_counter(dt_s: float, counted_s: float) -> None:
    """Clock jumps and downtime of the control plane neither end a hold nor hit a deadline."""
    state = environment().live("r1").incoming("r2").state
    after = going(advance.advance(state, perfect(state), dt_s).state)
    assert (after.phase_s, after.held_s) == (counted_s, counted_s)


def test_nothing_seen_decides_nothing() -> None:
    """A blind tick gives no event and changes nothing but the time that a deadline has run."""
    state = environment().live("r1").standby("r0").incoming("r2").state
    outcome = advance.advance(state, NOTHING_SEEN, 1.0)
    assert outcome.events == ()
    assert replace(outcome.state, rollout=replace(going(outcome.state), phase_s=0.0)) == state


def test_placement_that_was_never_given_out_halts() -> None:
    """Instances from the state's future mean a restored backup: stop, say why, call a person."""
    state = environment().live("r1").incoming("r2").state
    stranger = group(
        state, replace(placed(state, "r2"), id=state.next_id), placed(state, "r2").spec.services[0]
    )
    outcome = advance.advance(state, with_groups(perfect(state), stranger), 1.0)
    assert f"placement {state.next_id}" in outcome.state.halted
    assert [event.reason for event in outcome.events] == [Reason.WENT_BACK_IN_TIME]
    assert replace(outcome.state, halted="", foreign_id=0) == state
    again = advance.advance(outcome.state, with_groups(perfect(state), stranger), 1.0)
    assert again == advance.Outcome(state=outcome.state)


def test_halted_state_stays_as_it_is_while_nothing_is_seen() -> None:
    """A person has to end what is unknown; that it cannot be looked at ends nothing."""
    state = environment().live("r1").incoming("r2").having(halted="a backup was restored").state
    assert advance.advance(state, NOTHING_SEEN, 1.0) == advance.Outcome(state=state)


def test_halted_state_goes_on_when_the_unknown_is_gone() -> None:
    """Without the unknown instances there is nothing to harm; their ids are never given out again."""
    state = environment().live("r1").having(halted="a backup was restored", foreign_id=41).state
    outcome = advance.advance(state, perfect(state), 1.0)
    assert (outcome.state.halted, outcome.state.next_id) == ("", 42)
    assert [event.reason for event in outcome.events] == [Reason.RESUMED]


def test_ready_instance_gives_its_address_to_the_router() -> None:
    """From its first readiness on the router may know an instance."""
    state = environment().incoming("r1", phase=Phase.STARTING).state
    fresh = state.with_placement(replace(placed(state, "r1"), endpoints=()))
    after = advance.advance(fresh, perfect(state), 0.0).state
    assert placed(after, "r1").endpoints == placed(state, "r1").endpoints


def test_unready_instance_gives_no_address() -> None:
    """What was never ready stays unknown to the router."""
    state = environment().incoming("r1", phase=Phase.STARTING).state
    fresh = state.with_placement(replace(placed(state, "r1"), endpoints=()))
    seen = with_instances(perfect(state), placed(state, "r1"), "web", ready=False)
    assert placed(advance.advance(fresh, seen, 0.0).state, "r1").endpoints == ()


def test_retiring_placement_gets_no_new_addresses() -> None:
    """What is on its way out must not come back into the router."""
    state = environment().live("r2").retiring("r1", endpoints=()).state
    retiring = placed(state, "r1")
    running = group(state, replace(retiring, role=Role.STANDBY), retiring.spec.services[0])
    seen = with_groups(perfect(state), running)
    assert placed(advance.advance(state, seen, 0.0).state, "r1").endpoints == ()


def test_route_changed_from_outside_is_put_back_above_its_fence() -> None:
    """Somebody's hand in the router is corrected, and the history says what was there."""
    state = environment().live("r1").incoming("r2").state
    theirs = replace(state.route, exposure_bps=10_000, fence=state.route.fence + 5)
    outcome = advance.advance(state, with_routes(perfect(state), route=theirs), 1.0)
    assert outcome.state.route == replace(state.route, fence=theirs.fence + 1)
    (event,) = outcome.events
    assert event.reason is Reason.CORRECTED
    assert event.rollout == going(state).id
    assert "canary 1 at 100 %" in event.detail
    assert "canary 1 at 5 %" in event.detail


def test_correction_outside_a_rollout_names_no_rollout() -> None:
    """The history line of a quiet environment has no rollout to point at."""
    state = environment().live("r1").state
    theirs = Route(stable=3, fence=state.route.fence)
    (event,) = advance.advance(state, with_routes(perfect(state), route=theirs), 1.0).events
    assert (event.reason, event.rollout) == (Reason.CORRECTED, None)


def test_route_that_is_only_behind_is_left_to_the_mechanism() -> None:
    """A router that has not taken the newest route yet was not changed by anybody."""
    state = environment().live("r1").incoming("r2").state
    behind = replace(state.route, exposure_bps=0, fence=state.route.fence - 1)
    outcome = advance.advance(state, with_routes(perfect(state), route=behind), 1.0)
    assert (outcome.state.route, outcome.events) == (state.route, ())


def test_route_is_not_corrected_while_the_runtime_is_unseen() -> None:
    """A greater fence can also mean a restored backup, and only the runtime can tell: wait for it."""
    state = environment().live("r1").state
    theirs = replace(state.route, stable=2, fence=state.route.fence + 5)
    seen = blind_runtime(with_routes(perfect(state), route=theirs))
    outcome = advance.advance(state, seen, 1.0)
    assert (outcome.state.route, outcome.events) == (state.route, ())


def test_unseen_router_is_not_corrected() -> None:
    """Not looked at is not wrong."""
    state = environment().live("r1").state
    assert advance.advance(state, blind_router(perfect(state)), 1.0).state.route == state.route


def test_instance_that_moved_replaces_its_address() -> None:
    """After a boot of the host an instance may listen elsewhere; its old server is forgotten."""
    state = environment().live("r1").state
    seen = with_instances(perfect(state), placed(state, "r1"), "web", port=4711)
    (endpoint,) = placed(advance.advance(state, seen, 0.0).state, "r1").endpoints
    assert endpoint == Endpoint(service="web", index=0, host="127.0.0.1", port=4711)


def test_address_that_an_instance_has_left_is_forgotten_before_the_new_one_is_ready() -> None:
    """Somebody else may listen there next: its users must not reach them."""
    state = environment().live("r1").state
    seen = with_instances(perfect(state), placed(state, "r1"), "web", port=4711, ready=False)
    assert placed(advance.advance(state, seen, 0.0).state, "r1").endpoints == ()


def test_instance_that_is_down_keeps_its_address() -> None:
    """It comes back at the same place, and the router's own checks keep requests away until then."""
    state = environment().live("r1").state
    for seen in (
        with_instances(perfect(state), placed(state, "r1"), "web", ready=False),
        with_instances(perfect(state), placed(state, "r1"), "web", ready=None, port=None),
        replace(perfect(state), runtime=RuntimeState(revision=1, groups=())),
    ):
        assert advance.advance(state, seen, 0.0).state.placements == state.placements


def test_no_name_of_an_unknown_placement_is_given_out_again() -> None:
    """When several were seen and have ended, new ids begin above the greatest of them."""
    state = environment().live("r1").state
    (first,) = state.placements
    strangers = [group(state, replace(first, id=number), first.spec.services[0]) for number in (5, 9, 7)]
    halted = advance.advance(state, with_groups(perfect(state), *strangers), 1.0).state
    assert halted.halted
    assert advance.advance(halted, perfect(state), 1.0).state.next_id == 10


def test_greater_fence_that_serves_stays_until_the_live_release_can_serve() -> None:
    """A restored backup must not send users from instances that answer to some that do not run."""
    state = environment().live("r1").incoming("r2").state
    seen = perfect(state)
    assert seen.routes is not None
    fence = state.route.fence + 5
    newer = replace(seen, routes=replace(seen.routes, route=replace(state.route, fence=fence)))
    down = with_instances(newer, placed(state, "r1"), "web", ready=False)
    assert advance.advance(state, down, 1.0).state.route == state.route
    assert advance.advance(state, newer, 1.0).state.route.fence == fence + 1


def test_state_older_than_the_route_forgets_the_addresses_of_what_does_not_run() -> None:
    """Since a backup was made others may have been given them; in daily life what is down keeps its own."""
    state = environment().live("r1").incoming("r2").state
    seen = without_groups(perfect(state), placed(state, "r2"))
    newer = with_routes(seen, route=replace(state.route, fence=state.route.fence + 5))
    after = advance.advance(state, newer, 0.0).state
    assert placed(after, "r2").endpoints == ()
    assert placed(after, "r1").endpoints == placed(state, "r1").endpoints
    assert advance.advance(state, seen, 0.0).state.placements == state.placements


def test_state_older_than_the_route_keeps_the_addresses_of_what_runs_there() -> None:
    """An instance that is between two starts has no port to show, and comes back at the same place."""
    state = environment().live("r1").retiring("r0").state
    theirs = replace(state.route, fence=state.route.fence + 5)
    seen = with_routes(perfect(state), route=theirs)
    between = with_instances(seen, placed(state, "r1"), "web", ready=None, port=None)
    assert advance.advance(state, between, 0.0).state.placements == state.placements
    moved = with_instances(seen, placed(state, "r0"), "web", port=4711)
    assert placed(advance.advance(state, moved, 0.0).state, "r0").endpoints == ()

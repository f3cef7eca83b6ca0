"""What must never happen in a step of the core, whatever the world looks like, and that it comes to rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from hypothesis import given, note, settings

from tests.properties.core.journeys import Asked, Steps, Tick, steps, travel
from tests.support.builders import perfect
from tidegate.core import advance, model, placements, reconcile, requests, routing
from tidegate.core.effects import ApplyGroup, RemoveGroup
from tidegate.core.lifecycle import TRANSITIONS
from tidegate.core.model import SLOTS, EnvironmentState, Observation, Phase, Reason, Role, Route

Travelled = list[Tick | Asked]
SOME = settings(max_examples=40, deadline=None)


def ticks(travelled: Travelled) -> list[Tick]:
    """The steps of a journey that were looks."""
    return [step for step in travelled if isinstance(step, Tick)]


def fresh(tick: Tick) -> Observation:
    """What of a look is not older than what was seen before."""
    seen, before = tick.seen, tick.before
    runtime = seen.runtime if seen.runtime and seen.runtime.revision >= before.seen_runtime else None
    routes = seen.routes if seen.routes and seen.routes.revision >= before.seen_router else None
    return Observation(runtime=runtime, routes=routes)


# --- rules -----------------------------------------------------------------------------------------


def a_group_is_never_stopped_while_a_router_may_send_to_it(travelled: Travelled) -> None:
    """Neither by its slot nor by its address, neither in the running router nor in its boot files."""
    for tick in ticks(travelled):
        state, routes = tick.outcome.state, tick.seen.routes
        for effect in tick.effects:
            if not isinstance(effect, RemoveGroup):
                continue
            assert routes is not None
            assert tick.seen.groups is not None
            seen = next(g for g in tick.seen.groups if g.id == effect.group_id)
            addresses = {(i.host, i.port) for i in seen.instances}
            boot = routes.boot.backends if routes.boot else ()
            held = {(s.host, s.port) for s in routes.servers}
            held |= {(s.host, s.port) for backend in boot for s in backend.servers}
            assert not addresses & held
            placement = state.placement(seen.placement)
            if placement is not None:
                assert placement.slot not in routing.routed_slots(state.route) or not serves(placement, seen)
                assert placement.role is Role.RETIRING or not serves(placement, seen)


def serves(placement: model.Placement, seen: model.GroupStatus) -> bool:
    """Whether the group is one of a service with traffic."""
    service = placement.spec.service(seen.service)
    return service is not None and service.serves


def began_to_abort(before: EnvironmentState, after: EnvironmentState) -> bool:
    """Whether this step decided to go home."""
    was, rollout = before.rollout, after.rollout
    aborting = rollout is not None and rollout.phase is Phase.ABORTING
    return aborting and (was is None or was.phase is not Phase.ABORTING)


def what_was_not_seen_starts_and_stops_nothing(travelled: Travelled) -> None:
    """None is not empty: no start without the runtime, no stop without both, old looks count as none."""
    for tick in ticks(travelled):
        seen = fresh(tick)
        if seen.groups is None:
            assert not any(isinstance(effect, ApplyGroup | RemoveGroup) for effect in tick.effects)
        if seen.routes is None:
            assert not any(isinstance(effect, RemoveGroup) for effect in tick.effects)


def what_serves_is_drained_before_it_is_stopped(travelled: Travelled) -> None:
    """It is cleared when it was seen unreachable and without connections, or had its time; then it stops."""
    for tick in ticks(travelled):
        seen, after = fresh(tick), tick.after
        for placement in after.in_role(Role.RETIRING):
            before = tick.before.placement(placement.id)
            assert before is not None
            for name in set(placement.cleared) - set(before.cleared):
                service = placement.spec.service(name)
                assert seen.groups is not None
                assert seen.routes is not None
                assert placement.slot not in routing.routed_slots(seen.routes.route)
                assert not any(
                    name in dependent.needs and placements.group(placement, dependent.name, seen.groups)
                    for dependent in placement.spec.services
                )
                assert service is not None
                open_ = [
                    s.sessions for s in seen.routes.servers if (s.service, s.slot) == (name, placement.slot)
                ]
                assert (
                    not service.serves
                    or placement.idle_s >= service.drain_s
                    or not any(sessions != 0 for sessions in open_)
                )
        for effect in tick.effects:
            stopped = isinstance(effect, RemoveGroup) and owner(after, effect.group_id)
            if stopped and stopped[1].serves:
                assert stopped[1].name in stopped[0].cleared


def owner(state: EnvironmentState, group_id: str) -> tuple[model.Placement, model.ServiceSpec] | None:
    """Whose group that is, if the state knows it."""
    for placement in state.placements:
        for service in placement.spec.services:
            if model.group_id(state.key, placement.id, service.name) == group_id:
                return placement, service
    return None


def every_end_was_seen_in_force(travelled: Travelled) -> None:
    """A rollout ends, well or not, only when the router was seen to hold its last route."""
    for tick in ticks(travelled):
        was, last = tick.before.rollout, tick.after.last
        if was is None or last is None or last.id != was.id or was.phase.ended:
            continue
        routes = fresh(tick).routes
        assert routes is not None
        assert routing.in_force(tick.before.route, routes)


def nothing_is_ended_unseen(travelled: Travelled) -> None:
    """A placement leaves the state only when runtime and router were both seen without it."""
    for tick in ticks(travelled):
        seen = fresh(tick)
        kept = [placement.id for placement in tick.outcome.state.placements]
        for placement in tick.before.placements:
            if placement.id in kept:
                continue
            assert seen.groups is not None
            assert seen.routes is not None
            assert not any(g.placement == placement.id for g in seen.groups)
            assert not any(s.slot == placement.slot for s in seen.routes.servers)
            assert placement.slot not in routing.routed_slots(tick.outcome.state.route)


def the_fence_only_grows_and_grows_with_every_change(travelled: Travelled) -> None:
    """Every other route or server, and every abort, comes behind a fence of its own."""
    for step in travelled:
        before, after = step.before, step.after
        assert after.route.fence >= before.route.fence
        if replace(after.route, fence=0) != replace(before.route, fence=0):
            assert after.route.fence > before.route.fence
        if began_to_abort(before, after):
            assert after.route.fence > before.route.fence


def nobody_is_exposed_beyond_the_committed_stage(travelled: Travelled) -> None:
    """The route shows exactly the stage's share during a rollout, and no canary before or after."""
    for tick in ticks(travelled):
        route, rollout = tick.outcome.state.route, tick.outcome.state.rollout
        if rollout is None or rollout.phase in (Phase.QUEUED, Phase.STARTING, Phase.ABORTING):
            assert (route.canary, route.exposure_bps) == (None, 0)
        else:
            assert route.exposure_bps == rollout.current_stage.exposure_bps
            incoming = tick.outcome.state.incoming
            assert incoming is not None
            assert route.canary == incoming.slot


def exposure_grows_by_one_stage_that_was_earned(travelled: Travelled) -> None:
    """Only a fast forward skips stages; only a hold that was seen healthy to its end leads to the next."""
    for tick in ticks(travelled):
        was, rollout = tick.before.rollout, tick.outcome.state.rollout
        if was is None or rollout is None or was.id != rollout.id or rollout.phase is Phase.ABORTING:
            continue
        if rollout.stage == was.stage:
            continue
        if rollout.reason is Reason.FAST_FORWARD:
            assert not was.paused
            assert serving_at_all(tick)
            continue
        assert rollout.stage == was.stage + 1
        hold_s = was.current_stage.hold_s
        assert hold_s is not None
        assert was.held_s + min(max(tick.look.dt_s, 0.0), advance.TICK_MAX_S) >= hold_s


def serving_at_all(tick: Tick) -> bool:
    """Runtime and router were both seen with the incoming release at work."""
    seen, incoming = fresh(tick), tick.before.incoming
    return incoming is not None and placements.serves_at_all(incoming, seen)


def only_healthy_seen_unpaused_time_is_held(travelled: Travelled) -> None:
    """A blind, paused, unhealthy or stale tick adds nothing to a hold, and none adds more than its limit."""
    for tick in ticks(travelled):
        was, rollout = tick.before.rollout, tick.outcome.state.rollout
        if was is None or rollout is None or was.id != rollout.id or rollout.held_s <= was.held_s:
            continue
        assert was.phase is Phase.HOLDING
        assert not was.paused
        assert rollout.held_s - was.held_s <= min(max(tick.look.dt_s, 0.0), advance.TICK_MAX_S) + 1e-9
        seen = fresh(tick)
        incoming = tick.before.incoming
        assert incoming is not None
        assert placements.ready_to_serve(incoming, seen)
        assert seen.routes is not None
        assert routing.in_force(tick.before.route, seen.routes)


def paused_rollout_moves_only_home(travelled: Travelled) -> None:
    """In a pause neither counters nor stages move; an abort may."""
    for tick in ticks(travelled):
        was, rollout = tick.before.rollout, tick.outcome.state.rollout
        if was is None or not was.paused or was.phase is Phase.ABORTING:
            continue
        assert rollout is not None
        assert rollout.phase in (was.phase, Phase.ABORTING)
        if rollout.phase is was.phase:
            counted = (rollout.phase_s, rollout.held_s, rollout.stage)
            assert counted == (was.phase_s, was.held_s, was.stage)


def a_rollout_takes_one_step_of_the_table_at_a_time(travelled: Travelled) -> None:
    """From one look to the next, phases follow the state machine, and ends are kept as the last rollout."""
    edges = {(source, target) for (source, _), target in TRANSITIONS.items()}
    for tick in ticks(travelled):
        was, state = tick.before.rollout, tick.outcome.state
        if was is None:
            continue
        now = state.rollout if state.rollout and state.rollout.id == was.id else state.last
        assert now is not None
        assert now.id == was.id
        assert now.phase is was.phase or (was.phase, now.phase) in edges


def every_state_on_the_way_is_in_order(travelled: Travelled) -> None:
    """Ids are never used again, slots hold one placement each, and roles fit the rollout."""
    given_out: set[int] = set()
    for tick in ticks(travelled):
        state = tick.outcome.state
        ids = [placement.id for placement in state.placements]
        slots = [placement.slot for placement in state.placements]
        assert len(set(ids)) == len(ids)
        assert len(set(slots)) == len(slots) <= SLOTS
        assert state.next_id >= tick.before.next_id
        fresh = set(ids) - {placement.id for placement in tick.before.placements}
        assert not fresh & given_out
        given_out |= set(ids)
        assert len(state.in_role(Role.LIVE)) <= 1
        incoming = [placement.id for placement in state.in_role(Role.INCOMING)]
        placed = state.rollout.placement if state.rollout else None
        assert incoming == ([] if placed is None else [placed])
        assert state.pending is None or state.rollout is not None
        live = state.live
        assert state.route.stable == (live.slot if live else None)


def the_live_release_changes_only_by_success(travelled: Travelled) -> None:
    """Nothing but the end of a finished rollout replaces what answers by default."""
    for tick in ticks(travelled):
        before, after = tick.before.live, tick.outcome.state.live
        if (before and before.id) == (after and after.id):
            continue
        last = tick.outcome.state.last
        assert last is not None
        assert last.phase is Phase.SUCCEEDED
        assert after is not None
        assert last.placement == after.id


#: Each is asked of every journey.
RULES: Final[tuple[Callable[[Travelled], None], ...]] = (
    a_group_is_never_stopped_while_a_router_may_send_to_it,
    what_was_not_seen_starts_and_stops_nothing,
    what_serves_is_drained_before_it_is_stopped,
    every_end_was_seen_in_force,
    nothing_is_ended_unseen,
    the_fence_only_grows_and_grows_with_every_change,
    nobody_is_exposed_beyond_the_committed_stage,
    exposure_grows_by_one_stage_that_was_earned,
    only_healthy_seen_unpaused_time_is_held,
    paused_rollout_moves_only_home,
    a_rollout_takes_one_step_of_the_table_at_a_time,
    every_state_on_the_way_is_in_order,
    the_live_release_changes_only_by_success,
)


@settings(max_examples=200, deadline=None)
@given(steps())
def test_no_rule_is_ever_broken(journey: Steps) -> None:
    """Whatever is asked and seen, in whatever order, every rule above holds at every step."""
    travelled = travel(journey)
    for step in travelled:
        if isinstance(step, Tick):
            note(f"{step.look}\n    -> {[effect.key for effect in step.effects]}")
        else:
            note(f"{step.ask}\n    -> {'accepted' if step.decision else 'refused'}")
    for rule in RULES:
        note(f"rule: {rule.__doc__}")
        rule(travelled)


# --- whole journeys --------------------------------------------------------------------------------


@SOME
@given(steps())
def test_a_step_is_a_function_of_what_it_is_given(journey: Steps) -> None:
    """The same state and look give the same outcome and effects, in the same order."""
    for tick in ticks(travel(journey)):
        again = advance.advance(tick.before, tick.seen, tick.look.dt_s)
        assert again == tick.outcome
        assert reconcile.reconcile(again.state, tick.seen) == tick.effects


@SOME
@given(steps())
def test_without_time_a_steady_world_changes_nothing_more(journey: Steps) -> None:
    """Looking again and again without time passing ends at a state that stays."""
    state = ticks(travel(journey))[-1].outcome.state if ticks(travel(journey)) else None
    if state is None:
        return
    for _ in range(20):
        state = advance.advance(state, perfect(state, revision=99), 0.0).state
    seen = perfect(state, revision=99)
    assert advance.advance(state, seen, 0.0) == advance.Outcome(state=state)


@SOME
@given(steps())
def test_when_the_faults_stop_everything_comes_to_rest(journey: Steps) -> None:
    """From every state: the rollout ends, what is on its way out is gone, the world is as committed."""
    travelled = ticks(travel(journey))
    if not travelled or travelled[-1].outcome.state.halted:
        return
    state = travelled[-1].outcome.state
    for number in range(200):
        rollout = state.rollout
        if rollout is not None and rollout.paused:
            state = requests.resume(state, by="ada").state
        elif rollout is not None and rollout.phase is Phase.HOLDING and rollout.current_stage.hold_s is None:
            state = requests.promote(state, by="ada").state
        state = advance.advance(state, perfect(state, revision=100 + number), 1.0).state
    assert (state.rollout, state.pending) == (None, None)
    assert state.in_role(Role.RETIRING) == ()
    assert reconcile.reconcile(state, perfect(state, revision=999)) == ()


@SOME
@given(steps())
def test_a_route_that_was_taken_is_agreed_upon(journey: Steps) -> None:
    """What the core asks of the router is what it then finds right: table and comparison fit together."""
    for tick in ticks(travel(journey)):
        state = tick.outcome.state
        routes = perfect(state).routes
        assert routes is not None
        if routes.boot is None:
            continue
        assert routing.agrees(routing.route_table(state), routes)
        assert routing.in_force(state.route, routes)
        assert not routing.agrees(routing.route_table(state), replace(routes, route=Route(fence=-1)))


@SOME
@given(steps())
def test_a_halted_state_asks_for_nothing_and_ends_only_by_sight(journey: Steps) -> None:
    """Observe only: no effect at all, and no decision but to go on when nothing unknown is seen."""
    for tick in ticks(travel(journey)):
        halted = replace(tick.before, halted="restored")
        assert reconcile.reconcile(halted, tick.seen) == ()
        blind = replace(tick.seen, runtime=None)
        assert advance.advance(halted, blind, tick.look.dt_s) == advance.Outcome(state=halted)
        after = advance.advance(halted, tick.seen, tick.look.dt_s).state
        assert replace(after, halted="", next_id=0, foreign_id=0) == replace(
            halted, halted="", next_id=0, foreign_id=0
        )

"""Policy: from a committed state and one look at the world to the next state. Pure.

    advance(state, observed, dt_s) -> Outcome(state, events)

The rules (reliability.md 2.3), each with a mutant in tests/simulation that must be caught:

- Forward and destructive steps wait until their precondition was *observed*; going home waits for nothing.
- `None` in the observation is not empty: what could not be looked at gives no decision.
- Observations that go back in time are dropped, by the revision last seen.
- Time is observed time: hold times grow only in ticks that saw a healthy step, deadlines only while not
  paused, neither by more than `TICK_MAX_S` a tick: clock jumps and downtime of the control plane add nothing.
- An abort raises the fence even if the route looks right: a late command must not come in behind it.
- No forward gate depends on the health of the stable release; a dead one lets the fix go out at once.
- A rollout's target is a placement id in the state, never a role name.
- A group whose placement id the state has never given out means that the state is older than the world:
  halt, touch nothing, call a person.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tidegate.core import (
    analysis,
    correction,
    home,
    lifecycle,
    migrating,
    outcome,
    placements,
    readying,
    routing,
    upkeep,
    verdicts,
)
from tidegate.core.lifecycle import Trigger
from tidegate.core.model import (
    FULL_EXPOSURE,
    Analysis,
    EnvironmentState,
    Event,
    Observation,
    Phase,
    Placement,
    Reason,
    Role,
    Rollout,
    RolloutKind,
    RolloutRequest,
)
from tidegate.core.policy import LittleEvidence
from tidegate.core.verdicts import VerdictKind

Outcome = outcome.Outcome
abort = home.abort
event_of = outcome.event_of

#: Longest time that one tick may add to any counter.
TICK_MAX_S: Final = 1.0
#: Crashes of one instance of the incoming release, since it was created, that abort a rollout.
CRASH_LIMIT: Final = 3
#: How long all instances of an incoming service may be unready before the rollout is aborted.
UNREADY_LIMIT_S: Final = 3.0
#: How long a service of the stable release must have had no ready instance before the fix may go to all.
#: One that starts without having crashed (the host has booted) gets its whole `ready_timeout_s`: a canary
#: that is up first must not win everybody by that.
STABLE_DOWN_LIMIT_S: Final = 3.0
#: Part of its healthy time that a stage may spend unseen or unhealthy on top of that: in a hold of a day,
#: looks that fail now and then add up to more than any fixed limit.
STUCK_SHARE: Final = 0.1


def advance(state: EnvironmentState, observed: Observation, dt_s: float) -> Outcome:
    """One tick. `dt_s`: monotonic seconds since the last one."""
    observed = placements.fresh(state, observed)
    unknown = _placement_from_the_future(state, observed)
    if state.halted or unknown:
        return _halted(state, observed, unknown)
    dt_s = min(max(dt_s, 0.0), TICK_MAX_S)
    return (
        Outcome(state=_with_revisions(state, observed))
        .then(lambda s: Outcome(state=placements.with_endpoints(s, observed)))
        .then(lambda s: Outcome(state=placements.with_crash_baselines(s, observed)))
        .then(lambda s: correction.correct_route(s, observed))
        .then(lambda s: _advance_rollout(s, observed, dt_s))
        .then(lambda s: upkeep.advance_placements(s, observed, dt_s))
        .then(lambda s: migrating.settle(s, observed, dt_s))
        .then(_start_pending)
        .then(lambda s: _roll_back_crash_loop(s, observed))
        .then(lambda s: Outcome(state=routing.fenced(state, s)))
    )


# --- looking ---------------------------------------------------------------------------------------


def _with_revisions(state: EnvironmentState, observed: Observation) -> EnvironmentState:
    return replace(
        state,
        seen_runtime=state.seen_runtime if observed.runtime is None else observed.runtime.revision,
        seen_router=state.seen_router if observed.routes is None else observed.routes.revision,
    )


def _placement_from_the_future(state: EnvironmentState, observed: Observation) -> int | None:
    known = [group.placement for group in observed.groups or ()]
    return max((placement for placement in known if placement >= state.next_id), default=None)


def _halted(state: EnvironmentState, observed: Observation, unknown: int | None) -> Outcome:
    """Observe only while such instances run; when a person has ended them, go on with names of our own."""
    if unknown is not None:
        foreign_id = max(state.foreign_id, unknown)
        if state.halted:
            return Outcome(state=replace(state, foreign_id=foreign_id))
        why = f"instances of placement {unknown} run, unknown to this state; was a backup restored?"
        return Outcome(
            state=replace(state, halted=why, foreign_id=foreign_id),
            events=(Event(reason=Reason.WENT_BACK_IN_TIME, detail=why),),
        )
    if observed.groups is None:
        return Outcome(state=state)
    resumed = replace(state, halted="", next_id=max(state.next_id, state.foreign_id + 1))
    event = Event(reason=Reason.RESUMED, detail="the instances that were unknown to this state are gone")
    return Outcome(state=resumed, events=(event,))


# --- the rollout -----------------------------------------------------------------------------------


def begin(state: EnvironmentState, request: RolloutRequest) -> Outcome:
    """Open a rollout; it waits for a slot in its first tick."""
    live = state.live
    rollout = Rollout(
        id=state.next_id,
        request=request,
        phase=Phase.QUEUED,
        previous_release=live.release if live else None,
    )
    opened = replace(state, next_id=state.next_id + 1, rollout=rollout, schema=None)
    return Outcome(state=opened, events=(event_of(rollout, request.why or request.kind.value),))


def _advance_rollout(state: EnvironmentState, observed: Observation, dt_s: float) -> Outcome:
    state = _with_analysis(state, observed, dt_s).state
    rollout = state.rollout
    if rollout is None:
        return Outcome(state=state)
    if rollout.paused and rollout.phase is not Phase.ABORTING:
        return _abort_if_unfit(state, rollout, observed, dt_s)
    rollout = replace(rollout, phase_s=rollout.phase_s + dt_s)
    state = replace(state, rollout=rollout)
    if rollout.phase is Phase.ABORTING:
        return home.go_home(state, rollout, observed, dt_s)
    if rollout.phase is Phase.QUEUED:
        return _place(state, rollout, observed)
    unfit = _abort_if_unfit(state, rollout, observed, dt_s)
    current = unfit.state.rollout
    if current is None or current.phase is Phase.ABORTING:
        return unfit
    steps = {
        Phase.MIGRATING: readying.advance_schema,
        Phase.STARTING: _starting,
        Phase.VERIFYING: _verifying,
        Phase.SHIFTING: _shifting,
        Phase.HOLDING: _holding,
        Phase.FINISHING: _finishing,
    }
    return unfit.then(lambda s: steps[current.phase](s, current, observed, dt_s))


def _with_analysis(state: EnvironmentState, observed: Observation, dt_s: float) -> Outcome:
    """With what this look shows of the canary's traffic; begun before the first user can be exposed."""
    if state.rollout is None:
        return Outcome(state=state)
    so_far = analysis.watched(state, state.rollout, observed.routes, dt_s)
    return Outcome(state=replace(state, rollout=replace(state.rollout, analysis=so_far)))


def _place(state: EnvironmentState, rollout: Rollout, observed: Observation) -> Outcome:
    """Take over a warm placement, or make one in a free slot, or make room."""
    warm = placements.warm(state, rollout.request)
    if warm is not None:
        if observed.groups is None:
            return Outcome(state=state)  # its crashes up to now cannot be counted, and must not count later
        placed = lifecycle.fire(replace(rollout, placement=warm.id, created_placement=False), Trigger.PLACED)
        baseline = placements.crashes(warm, observed.groups)
        woken = replace(
            warm,
            role=Role.INCOMING,
            idle_s=0.0,
            crash_baseline=baseline,
            admission=rollout.request.admission,
            emergency=rollout.request.emergency,
        )
        return Outcome(state=replace(state.with_placement(woken), rollout=placed))
    slot = placements.free_slot(state)
    if slot is None:
        return _make_room(state, rollout)
    request = rollout.request
    placement = Placement(
        id=state.next_id,
        release=request.release,
        digest=request.digest,
        slot=slot,
        role=Role.INCOMING,
        spec=request.spec,
        links=tuple(link for link in request.links if link.slot == slot),
        foreign=request.foreign,
        secrets=request.secrets,
        admission=request.admission,
        emergency=request.emergency,
        starts_ahead=request.starts_ahead,
    )
    state = replace(state, next_id=state.next_id + 1, placements=(*state.placements, placement))
    rollout = replace(rollout, placement=placement.id, created_placement=True)
    if migrating.source(state, placement) is None:
        return Outcome(state=replace(state, rollout=lifecycle.fire(rollout, Trigger.PLACED)))
    return Outcome(
        state=migrating.begin(replace(state, rollout=lifecycle.fire(rollout, Trigger.MIGRATE)), placement)
    )


def _make_room(state: EnvironmentState, rollout: Rollout) -> Outcome:
    """Wait for a placement that is on its way out, but not for ever; else send the coldest standby there."""
    retiring = state.in_role(Role.RETIRING)
    if retiring:
        limit_s = home.STUCK_LIMIT_S + max(placements.end_limit_s(placement) for placement in retiring)
        if rollout.phase_s <= limit_s:
            return Outcome(state=state)
        names = ", ".join(f"r{placement.release}" for placement in retiring)
        detail = f"no slot is free after {limit_s:g} s: {names} cannot end"
        return home.abort(state, rollout, Reason.STUCK, detail)
    coldest = max(state.in_role(Role.STANDBY), key=lambda placement: placement.idle_s, default=None)
    if coldest is None:
        return Outcome(state=state)
    retired = state.with_placement(replace(coldest, role=Role.RETIRING))
    event = Event(reason=Reason.EVICTED, release=coldest.release, rollout=rollout.id)
    return Outcome(state=retired, events=(event,))


def _starting(state: EnvironmentState, rollout: Rollout, observed: Observation, _dt_s: float) -> Outcome:
    incoming = state.incoming
    if incoming is None or observed.groups is None or observed.routes is None:
        return Outcome(state=state)
    if placements.ready_to_serve(incoming, observed):
        if placements.is_to_verify(incoming, rollout):
            return _begin_to_verify(state, rollout, incoming)
        return _expose(state, rollout, observed, Reason.READY, "all instances are ready")
    ready = placements.ready_services(incoming, observed.groups)
    if ready > rollout.ready_services:
        rollout = replace(rollout, ready_services=ready, phase_s=0.0)
    return Outcome(state=replace(state, rollout=rollout))


def _expose(
    state: EnvironmentState, rollout: Rollout, observed: Observation, reason: Reason, detail: str
) -> Outcome:
    exposed = go_to_stage(state, rollout, 0, reason, detail)
    return exposed.then(lambda s: _with_analysis(s, observed, 0.0))


def _begin_to_verify(state: EnvironmentState, rollout: Rollout, incoming: Placement) -> Outcome:
    """From here on the bearer of the preview token reaches the release, and nobody else does."""
    detail = "all instances are ready; its own checks begin"
    verifying = lifecycle.fire(replace(rollout, reason=Reason.VERIFYING, detail=detail), Trigger.VERIFY)
    shown = routing.moved(
        replace(state, rollout=verifying),
        canary=incoming.slot,
        exposure_bps=0,
        salt=rollout.request.salt,
        preview=rollout.request.preview,
    )
    return Outcome(state=shown, events=(event_of(verifying, detail, 0),))


def _verifying(state: EnvironmentState, rollout: Rollout, observed: Observation, _dt_s: float) -> Outcome:
    """Exposed only when the checks were seen to have passed, by instances that are ready still."""
    incoming = state.incoming
    if incoming is None or observed.groups is None or observed.routes is None:
        return Outcome(state=state)
    job = placements.verify_job(incoming, observed.groups)
    if job is None or job.ready is None:
        return Outcome(state=state)
    if not job.ready:
        return home.abort(state, rollout, Reason.VERIFY_FAILED, f"its own checks failed: {job.exit}")
    if not placements.ready_to_serve(incoming, observed):
        return Outcome(state=state)
    return _expose(state, rollout, observed, Reason.VERIFIED, "its own checks have passed")


def go_to_stage(
    state: EnvironmentState, rollout: Rollout, stage: int, reason: Reason, detail: str
) -> Outcome:
    """Commit the exposure of a stage; it is then brought into the router and waited for."""
    unexposed = (Phase.STARTING, Phase.VERIFYING)
    trigger = Trigger.READY if rollout.phase in unexposed else Trigger.NEXT_STAGE
    so_far = replace(rollout.analysis, asked=False) if rollout.analysis else None
    shifting = lifecycle.fire(
        replace(rollout, stage=stage, reason=reason, detail=detail, paused=False, analysis=so_far), trigger
    )
    incoming = state.placement(rollout.placement)
    if incoming is None:
        raise ValueError(f"rollout {rollout.id} has no placement to expose")
    exposure_bps = shifting.current_stage.exposure_bps
    stable = state.live
    if migrating.cannot_share(state, rollout.migration):
        stable = incoming  # who was live cannot answer any more, not even other apps
    shifted = routing.moved(
        replace(state, rollout=shifting),
        stable=stable.slot if stable else None,
        canary=incoming.slot,
        exposure_bps=exposure_bps,
        salt=rollout.request.salt,
        preview=rollout.request.preview,
        hold_s=0,
    )
    return Outcome(state=shifted, events=(event_of(shifting, detail, exposure_bps),))


def _shifting(state: EnvironmentState, rollout: Rollout, observed: Observation, _dt_s: float) -> Outcome:
    if observed.routes is None or not routing.in_force(state.route, observed.routes):
        return Outcome(state=state)
    reached = replace(rollout, exposure_reached_bps=state.route.exposure_bps)
    full = state.route.exposure_bps == FULL_EXPOSURE
    exposed = lifecycle.fire(reached, Trigger.FULLY_EXPOSED if full else Trigger.EXPOSED)
    return Outcome(state=replace(state, rollout=exposed))


def _holding(state: EnvironmentState, rollout: Rollout, observed: Observation, dt_s: float) -> Outcome:
    """Hold time grows only in ticks that saw the exposure in force and the incoming release serving."""
    incoming = state.incoming
    if incoming is None or observed.groups is None or observed.routes is None:
        return Outcome(state=state)
    in_force = routing.in_force(state.route, observed.routes)
    if not in_force or not placements.ready_to_serve(incoming, observed):
        return Outcome(state=state)
    held = replace(rollout, held_s=rollout.held_s + dt_s)
    hold_s = held.current_stage.hold_s
    if hold_s is None:
        return Outcome(state=replace(state, rollout=held))
    policy, found = held.request.spec.analysis, analysis.verdict(held)
    if found is not None and verdicts.may_end_early(found, policy, held_s=held.held_s):
        return go_to_stage(state, held, held.stage + 1, Reason.NO_WORSE, found.sentence)
    if held.held_s < hold_s:
        return Outcome(state=replace(state, rollout=held))
    for_s = f"held for {held.held_s:.0f} s"
    if found is None:
        return go_to_stage(state, held, held.stage + 1, Reason.HELD, for_s)
    match verdicts.at_hold_end(found, policy):
        case LittleEvidence.WAIT:
            return Outcome(state=replace(state, rollout=held))
        case LittleEvidence.ASK if held.analysis is not None and not held.analysis.asked:
            return _asked(state, held, held.analysis, f"{for_s}. {found.sentence}")
        case _:
            return go_to_stage(state, held, held.stage + 1, Reason.HELD, f"{for_s}. {found.sentence}")


def _asked(state: EnvironmentState, rollout: Rollout, so_far: Analysis, detail: str) -> Outcome:
    """Wait for a person: `tide resume` or `tide promote` goes on, `tide abort` goes back."""
    paused = replace(
        rollout,
        paused=True,
        reason=Reason.LITTLE_EVIDENCE,
        detail=detail,
        analysis=replace(so_far, asked=True),
    )
    return Outcome(state=replace(state, rollout=paused), events=(event_of(paused, detail),))


def _finishing(state: EnvironmentState, rollout: Rollout, observed: Observation, _dt_s: float) -> Outcome:
    """Everybody is exposed; when the workers run too, the release is live and the old one keeps warm."""
    incoming = state.incoming
    if incoming is None or observed.groups is None or observed.routes is None:
        return Outcome(state=state)
    if not routing.in_force(state.route, observed.routes) or not placements.all_ready(
        incoming, observed.groups
    ):
        return Outcome(state=state)
    succeeded = lifecycle.fire(replace(rollout, reason=Reason.COMPLETE, detail=""), Trigger.FINISHED)
    replaced = state.live if rollout.request.kind is RolloutKind.DEPLOY else None
    live = replace(
        incoming,
        role=Role.LIVE,
        idle_s=0.0,
        live_s=0.0,
        crash_baseline=placements.crashes(incoming, observed.groups),
        predecessor=replaced.id if replaced else None,
        settled=False,
    )
    after = Role.STANDBY if not migrating.cannot_stay(state, rollout.migration) else Role.RETIRING
    old = tuple(replace(p, role=after, idle_s=0.0) if p.role is Role.LIVE else p for p in state.placements)
    settled = replace(state, placements=old, rollout=None, last=succeeded).with_placement(live)
    settled = routing.moved(settled, stable=live.slot, canary=None, exposure_bps=0, preview="")
    return Outcome(state=settled, events=(event_of(succeeded, f"r{live.release} is live", FULL_EXPOSURE),))


# --- what sends it home ----------------------------------------------------------------------------


def _abort_if_unfit(state: EnvironmentState, rollout: Rollout, observed: Observation, dt_s: float) -> Outcome:
    """Crash loops, worse answers, instances not (or no longer) ready, steps that do not come through."""
    incoming = state.placement(rollout.placement)
    if incoming is None:
        return Outcome(state=state)
    if observed.groups is not None:
        crash = placements.crash_loop(incoming, observed.groups, limit=CRASH_LIMIT, recent_only=False)
        if crash:
            return home.abort(state, rollout, Reason.CRASH_LOOP, crash)
    found = analysis.verdict(rollout)
    if found is not None and found.kind is VerdictKind.ABORT:
        return home.abort(state, rollout, Reason.WORSE, found.sentence)
    if not rollout.paused:
        late = _overdue(state, rollout, incoming, observed)
        if late is not None:
            return home.abort(state, rollout, *late)
    if rollout.phase in (Phase.MIGRATING, Phase.STARTING):
        return Outcome(state=state)
    return _watch_readiness(state, rollout, incoming, observed, dt_s)


def _overdue(
    state: EnvironmentState, rollout: Rollout, incoming: Placement, observed: Observation
) -> tuple[Reason, str] | None:
    waiting_limit_s = placements.waiting_limit_s(state, incoming, observed)
    if rollout.phase is Phase.STARTING and rollout.phase_s > waiting_limit_s:
        waiting = placements.not_ready(state, incoming, observed)
        return Reason.NEVER_READY, f"not ready after {waiting_limit_s:g} s: {waiting}"
    verify = incoming.spec.verify
    if rollout.phase is Phase.VERIFYING and verify is not None and rollout.phase_s > verify.timeout_s:
        return Reason.VERIFY_FAILED, f"its own checks did not end within {verify.timeout_s:g} s"
    if rollout.phase is Phase.SHIFTING and rollout.phase_s > home.STUCK_LIMIT_S:
        exposure = state.route.exposure_bps / 100
        return Reason.STUCK, f"the router does not show {exposure:g} % after {home.STUCK_LIMIT_S:g} s"
    limit_s = home.STUCK_LIMIT_S + placements.start_limit_s(incoming)
    if rollout.phase is Phase.FINISHING and rollout.phase_s > limit_s:
        return (
            Reason.NEVER_READY,
            f"not finished after {limit_s:g} s: {placements.not_ready(state, incoming, observed)}",
        )
    hold_s = rollout.current_stage.hold_s
    healthy_gap_s = rollout.phase_s - rollout.held_s
    gap_limit_s = limit_s + STUCK_SHARE * rollout.held_s
    if rollout.phase is Phase.HOLDING and hold_s is not None and healthy_gap_s > gap_limit_s:
        return Reason.STUCK, f"{healthy_gap_s:.0f} s of this stage could not be observed healthy"
    return None


def _watch_readiness(
    state: EnvironmentState, rollout: Rollout, incoming: Placement, observed: Observation, dt_s: float
) -> Outcome:
    """Compare with stable: an outage of both is nobody's verdict, a dead stable lets the fix out."""
    groups, live = observed.groups, state.live
    if groups is None:
        return Outcome(state=state)
    unready = placements.service_without_ready(incoming, groups)
    dead = placements.service_without_ready(live, groups) if live else None
    watched = replace(
        rollout,
        unready_s=rollout.unready_s + dt_s if unready and not dead else 0.0,
        stable_down_s=rollout.stable_down_s + dt_s if dead and not unready else 0.0,
    )
    state = replace(state, rollout=watched)
    if unready and watched.unready_s >= UNREADY_LIMIT_S:
        detail = f"no instance of {unready.name} has been ready for {watched.unready_s:.0f} s"
        return home.abort(state, watched, Reason.ALL_UNREADY, detail)
    if live is None or dead is None or rollout.phase is not Phase.HOLDING or rollout.paused:
        return Outcome(state=state)
    limit_s = max(STABLE_DOWN_LIMIT_S, placements.boot_limit_s(live, dead, groups))
    if watched.stable_down_s < limit_s or not placements.serves_at_all(incoming, observed):
        return Outcome(state=state)
    detail = f"no instance of {dead.name} at r{live.release} is ready, r{incoming.release} is"
    return go_to_stage(state, watched, len(watched.strategy.stages) - 1, Reason.FAST_FORWARD, detail)


# --- without a rollout -----------------------------------------------------------------------------


def _start_pending(state: EnvironmentState) -> Outcome:
    if state.pending is None or state.rollout is not None:
        return Outcome(state=state)
    waiting = replace(state, pending=None)
    if placements.is_live(state, state.pending):
        return Outcome(state=waiting)  # the rollout that it waited for has gone back to just this
    return begin(waiting, state.pending)


def _roll_back_crash_loop(state: EnvironmentState, observed: Observation) -> Outcome:
    """A release that loops soon after its success goes back by itself, while its predecessor is warm.

    To the very placement that it replaced, not to whichever is a standby: that may be a release that was
    rolled back from.
    """
    live, groups = state.live, observed.groups
    if live is None or groups is None or state.rollout is not None or live.live_s >= live.spec.keep_warm_s:
        return Outcome(state=state)
    if state.last is not None and state.last.request.automatic:
        return Outcome(state=state)  # the way back loops as well: going to and fro would help nobody
    detail = placements.crash_loop(live, groups, limit=CRASH_LIMIT, recent_only=True)
    predecessor = state.placement(live.predecessor)
    if not detail or predecessor is None or predecessor.role is not Role.STANDBY:
        return Outcome(state=state)
    if placements.service_without_ready(predecessor, groups):
        return Outcome(state=state)
    return begin(state, placements.flip_back(state, predecessor, detail))

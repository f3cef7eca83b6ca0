"""The phase of a rollout in which the schema is made ready for its release. Pure.

Neighbours: `advance` calls it in every tick of that phase, `migrating` says what is wanted of the database.
"""

from __future__ import annotations

from dataclasses import replace

from tidegate.core import home, lifecycle, migrating, placements, routing, strategy
from tidegate.core.lifecycle import Trigger
from tidegate.core.model import EnvironmentState, Observation, Placement, Reason, Role, Rollout
from tidegate.core.outcome import Outcome, event_of
from tidegate.core.schemas import JobState, Part, SchemaWork, Study


def advance_schema(state: EnvironmentState, rollout: Rollout, observed: Observation, dt_s: float) -> Outcome:
    """The schema first: nothing of the release runs before it fits."""
    work, incoming = state.schema, state.incoming
    if work is None or incoming is None:
        return home.abort(state, rollout, Reason.STUCK, "nobody works on the schema")
    if not migrating.may_run(work):
        return _clear_the_way(state, rollout, work, observed, dt_s)
    found = migrating.status(work, observed)
    if found is None:
        unseen_s = 0.0 if migrating.runs(work, observed) else rollout.unready_s + dt_s
        watched = replace(rollout, unready_s=unseen_s)
        if unseen_s > home.STUCK_LIMIT_S:
            detail = f"the migrator has shown nothing of its job for {unseen_s:.0f} s"
            return home.abort(state, watched, Reason.STUCK, detail)
        return Outcome(state=replace(state, rollout=watched))
    if found.state is JobState.FAILED or found.study is None:
        return home.abort(state, rollout, Reason.MIGRATION_FAILED, migrating.told(found))
    if migrating.late(work, found.study):
        return Outcome(state=migrating.again(migrating.above(state, found.study), work, ""))
    if work.part is Part.STUDY:
        return _planned(state, rollout, incoming, found.study)
    return _migrated(state, rollout, "the schema is ready for it")


def _planned(state: EnvironmentState, rollout: Rollout, incoming: Placement, study: Study) -> Outcome:
    """Commit the way through the database, or refuse it before anything is touched."""
    request, work, live = rollout.request, state.schema, state.live
    plan = migrating.forward(state, request, study)
    refusal = migrating.refusal(request, plan, study)
    if refusal or work is None:
        return home.abort(state, rollout, Reason.MIGRATION_REFUSED, refusal)
    if migrating.cannot_share(state, plan):  # no canary
        request = replace(request, strategy=strategy.SWITCH)
    detail = migrating.described(plan)
    planned = replace(rollout, request=request, migration=plan, reason=Reason.MIGRATING, detail=detail)
    known = replace(incoming, migrations=tuple(one.id for one in study.offered))
    state = replace(state, rollout=planned).with_placement(known)
    if not plan.before and not plan.held:
        return _migrated(state, planned, detail)
    alone = migrating.needs_alone(plan, study)
    only = (live.release if live else incoming.release,) if alone else ()
    part = Part.HELD if plan.held else Part.BEFORE
    following = replace(work, part=part, plan=plan, ready=not alone, only=only, waited_s=0.0)
    if live is not None:
        state = state.with_placement(replace(live, settled=False))
    state = replace(migrating.cleared(state) if alone else state, schema=following)
    return Outcome(state=state, events=(event_of(planned, detail),))


def _clear_the_way(
    state: EnvironmentState, rollout: Rollout, work: SchemaWork, observed: Observation, dt_s: float
) -> Outcome:
    """Wait until nobody is left who could not live on what comes; then, if it has to be, hold requests."""
    live, incoming = state.live, state.incoming
    if not migrating.others_gone(state, *(p.id for p in (live, incoming) if p)):
        retiring = state.in_role(Role.RETIRING)
        limit_s = home.STUCK_LIMIT_S + max((placements.end_limit_s(one) for one in retiring), default=0.0)
        if rollout.phase_s <= limit_s:
            return Outcome(state=state)
        names = ", ".join(f"r{one.release}" for one in retiring)
        detail = f"{names} cannot end, and cannot live on the new schema"
        return home.abort(state, rollout, Reason.STUCK, detail)
    paused = state.route.hold_s > 0
    if work.part is not Part.HELD or live is None or (paused and migrating.quiet(state, live, observed)):
        return Outcome(state=replace(state, schema=replace(work, ready=True)))
    if not paused:
        held = replace(rollout, reason=Reason.REQUESTS_HELD)
        hold_s = migrating.hold_s(state)
        detail = f"at most {hold_s} s each"
        moved = routing.moved(replace(state, rollout=held), hold_s=hold_s)
        return Outcome(state=moved, events=(event_of(held, detail),))
    waited = replace(work, waited_s=work.waited_s + dt_s)
    if waited.waited_s > state.route.hold_s:
        detail = f"requests or workers that were under way did not end within {state.route.hold_s} s"
        return home.abort(state, rollout, Reason.STUCK, detail)
    return Outcome(state=replace(state, schema=waited))


def _migrated(state: EnvironmentState, rollout: Rollout, detail: str) -> Outcome:
    migrated = lifecycle.fire(replace(rollout, reason=Reason.MIGRATED, detail=detail), Trigger.MIGRATED)
    return Outcome(state=replace(state, rollout=migrated, schema=None), events=(event_of(migrated, detail),))

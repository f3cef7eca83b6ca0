"""Bringing the schema of a database to a release: which job is wanted, what follows from its answer. Pure.

Three aims, one way of working: study, plan, run the parts of the plan one after the other.

    forward   a rollout whose release has to start waits until the schema fits it (`Phase.MIGRATING`)
    home      a rollout that changed the schema under held requests is aborted: changed back, then released
    settling  no rollout, and nobody else left: contracts after their time, reverts of what was gone back from

What holds it together: *a placement that is kept warm can live on the schema as it is*. Whatever it could not
live on waits until it is gone. So going back to a warm release asks no database: traffic goes first.

Neighbours: `advance` and `upkeep` call this, `reconcile` asks for the job, `migrations` plans.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from tidegate.core import migrations, model, placements, routing, schemas
from tidegate.core.migrations import Direction, Migration, MigrationPhase, Plan, Revert, Target, Way
from tidegate.core.model import (
    EnvironmentState,
    Event,
    Observation,
    Placement,
    Reason,
    Role,
    RolloutKind,
    RolloutRequest,
)
from tidegate.core.outcome import Outcome
from tidegate.core.schemas import JobState, JobStatus, MigrationJob, Part, SchemaWork, Study

#: Between two tries of what has to be done in the end: after a failure at home, and of settling.
AGAIN_HOME_S: Final = 5.0
AGAIN_SETTLING_S: Final = 60.0


# --- the job ---------------------------------------------------------------------------------------


def source(state: EnvironmentState, placement: Placement) -> tuple[schemas.MigrationsUse, Placement] | None:
    """How a release's database is reached, and whose variables say where it is; None: it has none.

    A release from before the first migration says nothing of it: then it is reached as its successor does.
    """
    use = placement.spec.migrations
    if use is not None:
        return use, placement
    others = (state.live, *reversed(state.placements))
    for other in others:
        if other is not None and other.spec.migrations is not None:
            return other.spec.migrations, other
    return None


def wanted_job(state: EnvironmentState) -> MigrationJob | None:
    """What the migrator shall do now; None: nothing."""
    work = state.schema
    placement = state.placement(work.placement) if work is not None else None
    if work is None or placement is None or not may_run(work):
        return None
    job = job_of(state, placement)
    asked = state.rollout.request.by if state.rollout else ""
    if job is None:
        return None
    return replace(
        job, id=work.job, steps=_steps(work), only=work.only, fence=work.id, by=asked or "tidegate"
    )


def job_of(state: EnvironmentState, placement: Placement) -> MigrationJob | None:
    """A study of a release's database that nobody waits for; None: it has none."""
    reached = source(state, placement)
    if reached is None:
        return None
    use, owner = reached
    return MigrationJob(
        id="study",
        app=state.key.app,
        environment=state.key.environment,
        release=owner.release,
        digest=owner.digest,
        use=use,
        offers=owner == placement,
        config=owner.spec.config,
        secrets=owner.secrets,
        admission=owner.admission,
    )


def may_run(work: SchemaWork) -> bool:
    """Nothing is in the way of its job."""
    return work.ready or (work.part is Part.STUDY and work.waited_s >= work.again_s)


def _steps(work: SchemaWork) -> tuple[migrations.Step, ...]:
    if work.plan is None:
        return ()
    return {
        Part.STUDY: (),
        Part.BEFORE: work.plan.before,
        Part.HELD: work.plan.held,
        Part.AFTER: (*work.plan.before, *work.plan.held, *work.plan.after),
    }[work.part]


def begin(state: EnvironmentState, placement: Placement) -> EnvironmentState:
    """Work of its own, with a name that was never used, for this placement's release."""
    work = SchemaWork(id=state.next_id, placement=placement.id)
    return replace(state, next_id=state.next_id + 1, schema=work)


def again(state: EnvironmentState, work: SchemaWork, failure: str, again_s: float = 0.0) -> EnvironmentState:
    """From the start, as nobody knows what the work that failed has done."""
    following = SchemaWork(id=state.next_id, placement=work.placement, failure=failure, again_s=again_s)
    return replace(state, next_id=state.next_id + 1, schema=following)


def status(work: SchemaWork, observed: Observation) -> JobStatus | None:
    """Of the job that is wanted, once it has ended; None: it has not, or could not be looked at."""
    found = next((job for job in observed.jobs or () if job.id == work.job), None)
    return found if found is not None and found.state is not JobState.RUNNING else None


def runs(work: SchemaWork, observed: Observation) -> bool:
    """The job that is wanted was seen to be at work."""
    return any(job.id == work.job and job.state is JobState.RUNNING for job in observed.jobs or ())


def told(found: JobStatus) -> str:
    """A failure for people."""
    return f"{found.failure} {found.hint}".strip() or "the migrator does not say why"


def late(work: SchemaWork, study: Study) -> bool:
    """The database has seen work with a greater name: this state is older than the database."""
    return study.fence > work.id


def above(state: EnvironmentState, study: Study) -> EnvironmentState:
    """The state with names that the database has not seen."""
    return replace(state, next_id=max(state.next_id, study.fence + 1))


# --- plans -----------------------------------------------------------------------------------------


def forward(state: EnvironmentState, request: RolloutRequest, study: Study) -> Plan:
    """The way to the release of a request, which runs nowhere yet."""
    live = state.live
    target = Target(
        release=request.release, migrations=study.offered, starts_ahead=request.starts_ahead, warm=False
    )
    return migrations.plan(study.applied, target, live=live.migrations if live else ())


def to_live(live: Placement, study: Study) -> Plan:
    """What the schema lacks for the release that is live, once nobody else is there."""
    target = Target(release=live.release, migrations=study.offered, starts_ahead=live.starts_ahead, warm=True)
    return migrations.plan(study.applied, target)


def refusal(request: RolloutRequest, plan: Plan, study: Study) -> str:
    """Why the way is closed, and what to do; empty: it is open."""
    name = f"r{request.release}"
    if plan.foreign:
        one = plan.foreign[-1]
        return (
            f"{one.id} of r{one.release} is applied, and {name}, which is newer, does not know it. "
            f"Build {name} again on top of r{one.release}, or go back from r{one.release} first."
        )
    if plan.blocked:
        return _blocked(name, plan.blocked)
    hopeless = [one for one in study.offered if not one.applies]
    if hopeless:
        return f"{hopeless[0].id} of {name}: {hopeless[0].why}"
    lossy = [id_ for id_ in plan.lossy if id_ not in request.accepted]
    if lossy and request.kind is RolloutKind.ROLLBACK:
        options = " ".join(f"--accept-loss {id_}" for id_ in lossy)
        return f"reverting {', '.join(lossy)} loses rows. To agree: tide rollback {options}."
    if request.automatic and not plan.automatic:
        return f"the way to {name} is {plan.way}, which Tidegate does not go by itself"
    unproved = _unproved(request, plan, study)
    if unproved:
        listed = "; ".join(f"{one.id} ({one.revert}: {one.why})" for one in unproved)
        options = " ".join(f"--accept-irreversible {one.id}" for one in unproved)
        return f"there is no exact way back from {listed}. To agree: tide deploy {options}."
    return ""


def _blocked(name: str, blocked: Sequence[Migration]) -> str:
    listed = "; ".join(f"{one.id} of r{one.release} ({one.revert}: {one.why})" for one in blocked)
    nearest = max(one.release for one in blocked)
    return (
        f"the way to {name} needs reverts that do not work: {listed}. "
        f"The oldest release that can be reached is r{nearest}."
    )


def _unproved(request: RolloutRequest, plan: Plan, study: Study) -> list[Migration]:
    """What would be applied for the first time without an exact way back, and nobody has agreed to."""
    if request.kind is RolloutKind.ROLLBACK:
        return []
    steps = (*plan.before, *plan.held, *plan.after)
    ups = {step.id for step in steps if step.direction is Direction.UP}
    return [
        one
        for one in study.offered
        if one.id in ups and one.revert is not Revert.EXACT and one.id not in request.accepted
    ]


def needs_alone(plan: Plan, study: Study) -> bool:
    """Whether something runs before the first user that a release that is kept warm might not live on."""
    by_id = {one.id: one for one in (*study.applied, *study.offered)}
    return bool(plan.held) or any(
        (by_id[step.id].phase is MigrationPhase.EXPAND) is (step.direction is Direction.DOWN)
        for step in plan.before
    )


def described(plan: Plan) -> str:
    """The steps for people, e.g. `before traffic: up 0007_a; when the old release is gone: up 0008_b`."""
    parts = (
        ("before traffic", plan.before),
        ("while requests are held", plan.held),
        ("when the old release is gone", plan.after),
    )
    said = [f"{when}: {', '.join(f'{s.direction} {s.id}' for s in steps)}" for when, steps in parts if steps]
    ahead = [f"stays applied: {', '.join(plan.ahead)}"] if plan.ahead else []
    return "; ".join([*said, *ahead]) or "nothing to do on the database"


# --- who is in the way -------------------------------------------------------------------------------


def others_gone(state: EnvironmentState, *kept: int | None) -> bool:
    """No other placement is left, nor anything of it in the world."""
    return all(placement.id in kept for placement in state.placements)


def cleared(state: EnvironmentState) -> EnvironmentState:
    """With all standbys on their way out: they could not live on what comes now."""
    for placement in state.in_role(Role.STANDBY):
        state = state.with_placement(replace(placement, role=Role.RETIRING))
    return state


def quiet(state: EnvironmentState, placement: Placement | None, observed: Observation) -> bool:
    """New requests were seen to be held, those that a release was at have ended, and so have its workers."""
    routes, groups = observed.routes, observed.groups
    if routes is None or groups is None or not routing.in_force(state.route, routes):
        return False
    if placement is None:
        return True
    sessions = [server.sessions for server in routes.servers if server.slot == placement.slot]
    workers = [service.name for service in placement.spec.services if not service.serves]
    gone = all(placements.group(placement, name, groups) is None for name in workers)
    return gone and all(count == 0 for count in sessions)


def cannot_share(state: EnvironmentState, plan: Plan | None) -> bool:
    """Whether the release that is live and the next one cannot live on one schema."""
    stranded = state.live is not None and state.live.stranded
    return stranded or (plan is not None and bool(plan.held))


def cannot_stay(state: EnvironmentState, plan: Plan | None) -> bool:
    """Whether the release that was replaced cannot be kept warm after this plan."""
    return cannot_share(state, plan) or (plan is not None and plan.way is Way.FLIP_THEN_REVERT)


# --- changing back ---------------------------------------------------------------------------------


def touched(state: EnvironmentState, rollout: model.Rollout) -> bool:
    """The schema may not be what the release that is live needs: its users cannot just be sent back."""
    plan, work = rollout.migration, state.schema
    if plan is None or not plan.held or state.live is None:
        return False
    return rollout.phase is not model.Phase.MIGRATING or (work is not None and work.ready)


def change_back(
    state: EnvironmentState, work: SchemaWork, observed: Observation, dt_s: float
) -> tuple[EnvironmentState, str]:
    """One step on the way home of the schema, and what people should hear of it; `schema` is None at its end.

    Nothing else brings the users back, so it is tried until it comes through. If there is no way, requests
    stay held: better no answer than wrong ones.
    """
    live, incoming = state.live, state.incoming
    if live is None:
        return replace(state, schema=None), ""
    if not may_run(work):
        waited = replace(work, waited_s=work.waited_s + dt_s)
        hold_s = state.route.hold_s
        if work.part is not Part.STUDY and (quiet(state, incoming, observed) or waited.waited_s >= hold_s):
            waited = replace(waited, ready=True)
        return replace(state, schema=waited), ""
    found = status(work, observed)
    if found is None:
        return state, ""
    if found.state is JobState.FAILED or found.study is None:
        return again(state, work, told(found), AGAIN_HOME_S), told(found) if not work.failure else ""
    if late(work, found.study):
        return again(above(state, found.study), work, ""), ""
    plan = to_live(live, found.study)
    if work.part is Part.STUDY and plan.way is Way.REFUSED:
        closed = _blocked(f"r{live.release}", plan.blocked)
        stranded = state.with_placement(replace(live, stranded=True))
        return replace(stranded, schema=None), f"{closed} Requests stay held: deploy a release that fits."
    if work.part is Part.STUDY and _all(plan):
        return replace(state, schema=replace(work, part=Part.AFTER, plan=plan, waited_s=0.0)), ""
    return routing.moved(replace(state, schema=None), hold_s=0), ""


def _all(plan: Plan) -> tuple[migrations.Step, ...]:
    return (*plan.before, *plan.held, *plan.after)


# --- settling --------------------------------------------------------------------------------------


def settle(state: EnvironmentState, observed: Observation, dt_s: float) -> Outcome:
    """One step of letting the schema follow, while no rollout is under way and only one release is left."""
    live, work = state.live, state.schema
    if state.rollout is not None or state.pending is not None or live is None or live.settled:
        return Outcome(state=state)
    if source(state, live) is None or not others_gone(state, live.id):
        return Outcome(state=state)
    if work is None or work.placement != live.id:
        return Outcome(state=begin(state, live))
    if not may_run(work):
        return Outcome(state=_waited(state, live, work, dt_s))
    found = status(work, observed)
    if found is None:
        return Outcome(state=state)
    if found.state is JobState.FAILED or found.study is None:
        failure = told(found)
        failed = again(state, work, failure, AGAIN_SETTLING_S)
        events = () if failure == work.failure else (_event(live, Reason.MIGRATION_FAILED, failure),)
        return Outcome(state=failed, events=events)
    if late(work, found.study):
        return Outcome(state=again(above(state, found.study), work, ""))
    if work.part is not Part.STUDY:
        return _settled(state, live, Reason.SETTLED, described(work.plan) if work.plan else "")
    return _to_settle(state, live, work, found.study)


def _to_settle(state: EnvironmentState, live: Placement, work: SchemaWork, study: Study) -> Outcome:
    plan = to_live(live, study)
    if plan.way is Way.REFUSED or plan.lossy:
        left = plan.lossy or tuple(one.id for one in (*plan.blocked, *plan.foreign))
        detail = f"reverting {', '.join(left)} would lose rows, or does not work"
        return _settled(state, live, Reason.LEFT_AHEAD, detail)
    if not _all(plan):
        return _settled(state, live, None, "")
    waits = any(step.direction is Direction.UP for step in _all(plan))
    following = replace(work, part=Part.AFTER, plan=plan, ready=not waits, only=(live.release,), waited_s=0.0)
    return Outcome(state=replace(state, schema=following))


def _waited(state: EnvironmentState, live: Placement, work: SchemaWork, dt_s: float) -> EnvironmentState:
    """Contracts wait until the release has been live for their time, everything else after a failure."""
    if work.part is Part.STUDY:
        return replace(state, schema=replace(work, waited_s=work.waited_s + dt_s))
    ready = live.live_s >= contract_after_s(live)
    return replace(state, schema=replace(work, ready=ready))


def hold_s(state: EnvironmentState) -> int:
    """Longest time that a request may wait, by whoever says something of the database."""
    uses = [p.spec.migrations for p in (state.incoming, state.live, *state.placements) if p]
    return next((use.hold_s for use in uses if use is not None), schemas.HOLD_S)


def contract_after_s(placement: Placement) -> float:
    """How long it has to be live before a contract runs; 0 without migrations."""
    use = placement.spec.migrations
    return use.contract_after_s if use is not None else 0.0


def _settled(state: EnvironmentState, live: Placement, reason: Reason | None, detail: str) -> Outcome:
    stranded = live.stranded and reason is Reason.LEFT_AHEAD
    settled = replace(live, settled=True, stranded=stranded)
    done = replace(state, schema=None).with_placement(settled)
    if live.stranded and not stranded:
        done = routing.moved(done, hold_s=0)
    return Outcome(state=done, events=(_event(live, reason, detail),) if reason else ())


def _event(live: Placement, reason: Reason, detail: str) -> Event:
    return Event(reason=reason, release=live.release, detail=detail)

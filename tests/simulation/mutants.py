"""The rules of the core, each switched off once: a mutant that no checker catches is a rule without proof.

A mutant replaces functions of the real modules while its context is open. `MUTANTS` names the profile in
which it must be caught, and within how many seeds; `SURVIVORS` says of those that live why they may.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from tidegate import ports
from tidegate.core import advance, analysis, home, lifecycle, migrating, model, placements, reconcile, routing
from tidegate.core.effects import ApplyGroup
from tidegate.core.lifecycle import Trigger
from tidegate.core.model import EnvironmentState, Observation, Phase, Placement, Role, Rollout
from tidegate.engine import execute, loop
from tidegate.testing import fake_migrator, fake_router
from tidegate.testing.store import MemoryStore

Patch = tuple[object, str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One rule switched off."""

    name: str
    patches: Callable[[], list[Patch]]
    profile: str = "swarm"
    seeds: int = 100
    """It must be caught within these."""
    caught_by: tuple[str, ...] = field(default=())
    """Names of the violations that prove the rule; empty: any."""
    survives_because: str = ""
    """Which other rule does its work. Empty: it must be caught."""


@contextmanager
def switched_off(mutant: Mutant) -> Iterator[None]:
    """Run with the rule switched off."""
    with ExitStack() as stack:
        for owner, name, replacement in mutant.patches():
            original = getattr(owner, name)
            stack.callback(setattr, owner, name, original)
            setattr(owner, name, replacement)
        yield


# --- the loop ------------------------------------------------------------------------------------------


def _effect_before_commit() -> list[Patch]:
    def step(self: Any, key: model.EnvironmentKey) -> loop.View:
        adapters = self._adapters
        versioned = adapters.store.load(key)
        observed, _ = self._observe(versioned.state)
        outcome = advance.advance(versioned.state, observed, self._elapsed_s(key))
        effects = reconcile.reconcile(outcome.state, observed)
        for effect in effects:
            execute.execute(
                effect, runtime=adapters.runtime, router=adapters.router, migrator=adapters.migrator
            )
        if outcome.state != versioned.state:
            adapters.store.commit(self._lease, versioned, outcome.state, outcome.events, at=0.0)
        return loop.View(state=outcome.state, observed=observed, changed=bool(effects))

    return [(loop.Controller, "step", step)]


def _edge_triggered() -> list[Patch]:
    original = reconcile.reconcile
    last: dict[model.EnvironmentKey, object] = {}

    def edge(state: EnvironmentState, observed: Observation) -> tuple[Any, ...]:
        phase = (state.rollout and (state.rollout.id, state.rollout.phase), state.route)
        changed = last.get(state.key) != phase
        last[state.key] = phase
        return original(state, observed) if changed else ()

    return [(reconcile, "reconcile", edge)]


def _commits_not_fenced() -> list[Patch]:
    original = MemoryStore.commit

    def commit(
        self: Any, lease: ports.Lease, versioned: ports.Versioned, *rest: Any, at: float
    ) -> ports.Versioned:
        current = self.load(versioned.state.key)
        tables = self._tables
        ours = replace(lease, holder=tables.holder, epoch=tables.epoch)
        return original(self, ours, replace(versioned, version=current.version), *rest, at=at)

    return [(MemoryStore, "commit", commit)]


def _epoch_ignored() -> list[Patch]:
    return [(MemoryStore, "_check_lease", lambda self, lease: None)]


def _raw_time() -> list[Patch]:
    return [(advance, "TICK_MAX_S", 1e9)]


def _wall_clock() -> list[Patch]:
    def elapsed_s(self: Any, key: model.EnvironmentKey) -> float:
        now = self._adapters.clock.now()
        before = self._stepped_at.get(key, now)
        self._stepped_at[key] = now
        return float(now - before)

    return [(advance, "TICK_MAX_S", 1e9), (loop.Controller, "_elapsed_s", elapsed_s)]


# --- looking -------------------------------------------------------------------------------------------


def _stale_accepted() -> list[Patch]:
    return [
        (placements, "fresh", lambda state, observed: observed),
        (loop.Controller, "_is_new", lambda self, key, source, revision, committed: True),
    ]


def _look_counted_twice() -> list[Patch]:
    def is_new(self: Any, key: model.EnvironmentKey, source: str, revision: int, committed: int) -> bool:
        newest = max(self._newest.get((key, source), 0), committed)
        self._newest[key, source] = max(newest, revision)
        return bool(revision >= newest)

    return [(loop.Controller, "_is_new", is_new)]


def _blind_is_empty() -> list[Patch]:
    def fresh(state: EnvironmentState, observed: Observation) -> Observation:
        runtime, routes = observed.runtime, observed.routes
        if runtime is None:
            runtime = model.RuntimeState(revision=state.seen_runtime, groups=())
        if routes is None:
            routes = model.RouteState(revision=state.seen_router, boot=None, route=None, servers=())
        return Observation(runtime=runtime, routes=routes)

    return [(placements, "fresh", fresh)]


def _names_change() -> list[Patch]:
    count = iter(range(1_000_000))

    def group_id(key: model.EnvironmentKey, placement: int, service: str) -> str:
        return f"{key.app}.{key.environment}.{placement}.{service}-{next(count)}"

    return [(model, "group_id", group_id)]


def _went_back_ignored() -> list[Patch]:
    return [(advance, "_placement_from_the_future", lambda state, observed: None)]


# --- the way there -------------------------------------------------------------------------------------


def _stage_skipped() -> list[Patch]:
    original = advance.go_to_stage

    def go_to_stage(state: EnvironmentState, rollout: Rollout, stage: int, *rest: Any) -> Any:
        last = len(rollout.strategy.stages) - 1
        return original(state, rollout, min(stage + 1, last), *rest)

    return [(advance, "go_to_stage", go_to_stage)]


def _salt_per_stage() -> list[Patch]:
    original = advance.go_to_stage

    def go_to_stage(state: EnvironmentState, rollout: Rollout, stage: int, *rest: Any) -> Any:
        outcome = original(state, rollout, stage, *rest)
        route = replace(outcome.state.route, salt=f"{outcome.state.route.salt}/{stage}")
        return replace(outcome, state=replace(outcome.state, route=route))

    return [(advance, "go_to_stage", go_to_stage)]


def _share_sinks() -> list[Patch]:
    original = advance.go_to_stage

    def go_to_stage(state: EnvironmentState, rollout: Rollout, stage: int, *rest: Any) -> Any:
        outcome = original(state, rollout, stage, *rest)
        route = outcome.state.route
        if 0 < route.exposure_bps < model.FULL_EXPOSURE:
            route = replace(route, exposure_bps=model.FULL_EXPOSURE // 2 - route.exposure_bps // 2)
        return replace(outcome, state=replace(outcome.state, route=route))

    return [(advance, "go_to_stage", go_to_stage)]


def _hold_unseen() -> list[Patch]:
    return [(placements, "ready_to_serve", lambda placement, observed: True)]


def _hold_without_a_look() -> list[Patch]:
    original = advance._holding

    def holding(state: EnvironmentState, rollout: Rollout, observed: Observation, dt_s: float) -> Any:
        held = replace(rollout, held_s=rollout.held_s + dt_s)
        hold_s = held.current_stage.hold_s
        if hold_s is not None and held.held_s >= hold_s:
            return advance.go_to_stage(state, held, held.stage + 1, model.Reason.HELD, "held")
        if observed.groups is not None and observed.routes is not None:
            return original(state, rollout, observed, dt_s)
        return advance.Outcome(state=replace(state, rollout=held))

    return [(advance, "_holding", holding)]


def _starts_out_of_order() -> list[Patch]:
    return [(placements, "needs_are_ready", lambda placement, service, observed: True)]


def _crash_limit_ignored() -> list[Patch]:
    return [(placements, "crash_loop", lambda *args, **kwargs: "")]


def _deadline_counts_while_paused() -> list[Patch]:
    original = advance._advance_rollout

    def advance_rollout(state: EnvironmentState, observed: Observation, dt_s: float) -> Any:
        rollout, incoming = state.rollout, state.incoming
        if rollout is None or incoming is None or not rollout.paused or rollout.phase is Phase.ABORTING:
            return original(state, observed, dt_s)
        counted = replace(rollout, phase_s=rollout.phase_s + dt_s)
        state = replace(state, rollout=counted)
        late = advance._overdue(state, counted, incoming, observed)
        return advance.abort(state, counted, *late) if late else original(state, observed, dt_s)

    return [(advance, "_advance_rollout", advance_rollout)]


def _marks_forgotten() -> list[Patch]:
    original = analysis.watched

    def watched(state: EnvironmentState, rollout: Rollout, *rest: Any) -> Any:
        after = original(state, rollout, *rest)
        if after is None or rollout.analysis is None:
            return after
        return replace(after, counted=rollout.analysis.counted)

    return [(analysis, "watched", watched)]


def _evidence_per_stage() -> list[Patch]:
    original = advance.go_to_stage

    def go_to_stage(state: EnvironmentState, rollout: Rollout, stage: int, *rest: Any) -> Any:
        outcome = original(state, rollout, stage, *rest)
        anew = replace(outcome.state.rollout, analysis=None) if outcome.state.rollout else None
        return replace(outcome, state=replace(outcome.state, rollout=anew))

    return [(advance, "go_to_stage", go_to_stage)]


def _verdict_ignored() -> list[Patch]:
    """Ignored by the decision; the checker has the function itself."""
    return [(advance, "analysis", _Ignorant)]


class _Ignorant:
    """The module, but nothing is ever found."""

    watched = staticmethod(analysis.watched)
    verdict = staticmethod(lambda rollout: None)


# --- the way home --------------------------------------------------------------------------------------


def _no_fence_at_abort() -> list[Patch]:
    original = advance.abort

    def abort(state: EnvironmentState, rollout: Rollout, *rest: Any) -> Any:
        outcome = original(state, rollout, *rest)
        route = replace(outcome.state.route, fence=state.route.fence)
        return replace(outcome, state=replace(outcome.state, route=route))

    return [(home, "abort", abort), (advance, "abort", abort)]


def _abort_leaves_at_once() -> list[Patch]:
    original = home.go_home

    def go_home(state: EnvironmentState, rollout: Rollout, observed: Observation, dt_s: float) -> Any:
        with_in_force = routing.in_force
        routing.in_force = lambda route, routes: True
        try:
            return original(state, rollout, observed, dt_s)
        finally:
            routing.in_force = with_in_force

    return [(home, "go_home", go_home)]


def _table_changes_behind_the_fence() -> list[Patch]:
    return [(routing, "fenced", lambda before, after: after)]


def _scale_down_first() -> list[Patch]:
    original = reconcile._may_stop

    def may_stop(state: EnvironmentState, seen: Any, observed: Observation, routes: Any) -> bool:
        rollout = state.rollout
        if rollout is not None and rollout.phase is Phase.ABORTING and rollout.placement == seen.placement:
            return True
        return original(state, seen, observed, routes)

    return [(reconcile, "_may_stop", may_stop)]


def _removal_not_gated() -> list[Patch]:
    return [
        (placements, "out_of_router", lambda placement, service, routes: True),
        (placements, "with_cleared", lambda placement, observed: placement),
        (reconcile, "_may_stop", _stop_when_retiring),
    ]


def _stop_when_retiring(state: EnvironmentState, seen: Any, observed: Observation, routes: Any) -> bool:
    placement = state.placement(seen.placement)
    return placement is not None and placement.role is Role.RETIRING


def _boot_not_in_the_gate() -> list[Patch]:
    def out_of_router(placement: model.Placement, service: str, routes: model.RouteState) -> bool:
        return not any(s.service == service and s.slot == placement.slot for s in routes.servers)

    return [(placements, "out_of_router", out_of_router)]


def _boot_ignored() -> list[Patch]:
    original = routing.agrees

    def agrees(table: model.RouteTable, routes: model.RouteState) -> bool:
        return original(table, replace(routes, boot=table))

    def in_force(route: model.Route, routes: model.RouteState) -> bool:
        return routes.route == route

    def write_boot(self: Any, table: model.RouteTable) -> None:
        held = self._running.get(table.key)
        if held is None or fake_router._structure(held.table) != fake_router._structure(table):
            self._boot[table.key] = table

    return [
        (routing, "agrees", agrees),
        (routing, "in_force", in_force),
        (fake_router.FakeRouter, "_write_boot", write_boot),
    ]


def _sessions_ignored() -> list[Patch]:
    return [(placements, "_connections_ended", lambda placement, service, routes: True)]


def _old_workers_ignored() -> list[Patch]:
    def count(self: Any, key: model.EnvironmentKey, name: Any) -> int:
        return sum(
            1
            for session in self.sessions
            if session.key == key and session.server == name and session.generation == self._generation
        )

    return [(fake_router.FakeRouter, "_session_count", count)]


def _stops_out_of_order() -> list[Patch]:
    return [(placements, "dependents_gone", lambda placement, service, groups: True)]


def _no_fence_check() -> list[Patch]:
    return [(fake_router.FakeRouter, "_refuse_stale", lambda self, table: None)]


def _paused_shift() -> list[Patch]:
    original = advance._shifting

    def shifting(state: EnvironmentState, rollout: Rollout, observed: Observation, dt_s: float) -> Any:
        full = state.route.exposure_bps == model.FULL_EXPOSURE
        trigger = Trigger.FULLY_EXPOSED if full else Trigger.EXPOSED
        if observed.routes is None:
            return original(state, rollout, observed, dt_s)
        return advance.Outcome(state=replace(state, rollout=lifecycle.fire(rollout, trigger)))

    return [(advance, "_shifting", shifting)]


# --- checks of its own ---------------------------------------------------------------------------------


def _exposed_without_checks() -> list[Patch]:
    def verifying(state: EnvironmentState, rollout: Rollout, observed: Observation, dt_s: float) -> Any:
        incoming = state.incoming
        if incoming is None or not placements.ready_to_serve(incoming, observed):
            return advance.Outcome(state=state)
        return advance._expose(state, rollout, observed, model.Reason.VERIFIED, "not waited for")

    return [(advance, "_verifying", verifying)]


def _failed_checks_pass() -> list[Patch]:
    original = placements.verify_job

    def verify_job(placement: model.Placement, groups: Any) -> Any:
        job = original(placement, groups)
        return replace(job, ready=True) if job is not None and job.ready is False else job

    return [(placements, "verify_job", verify_job)]


def _checks_before_the_route() -> list[Patch]:
    def jobs(state: EnvironmentState, observed: Observation) -> tuple[Any, ...]:
        incoming = reconcile._verified(state)
        if incoming is None or placements.verify_job(incoming, observed.groups or ()) is not None:
            return ()
        return (ApplyGroup(group=reconcile.verify_group(state, incoming)),)

    return [(reconcile, "_jobs", jobs)]


def _checks_without_a_limit() -> list[Patch]:
    original = advance._overdue

    def overdue(state: EnvironmentState, rollout: Rollout, *rest: Any) -> Any:
        return None if rollout.phase is Phase.VERIFYING else original(state, rollout, *rest)

    return [(advance, "_overdue", overdue)]


def _checks_go_on_for_ever() -> list[Patch]:
    return [(reconcile, "_verified", lambda state: state.incoming)]


# --- the schema ----------------------------------------------------------------------------------------


def _standby_kept() -> list[Patch]:
    return [
        (migrating, "cleared", lambda state: state),
        (migrating, "others_gone", lambda state, *kept: True),
    ]


def _requests_under_way_ignored() -> list[Patch]:
    return [(migrating, "quiet", lambda state, placement, observed: True)]


def _schema_not_changed_back() -> list[Patch]:
    return [(migrating, "touched", lambda state, rollout: False)]


def _started_before_the_schema() -> list[Patch]:
    def wanted(state: EnvironmentState, placement: Placement) -> tuple[Any, ...]:
        return tuple(service for service in placement.spec.services if service.serves)

    return [(placements, "wanted_services", wanted)]


def _replaced_kept_warm() -> list[Patch]:
    return [(migrating, "cannot_stay", lambda state, plan: False)]


def _database_not_remembered() -> list[Patch]:
    """A migrator whose databases let late jobs change them."""
    original = fake_migrator.FakeMigrator._advance

    def advance_job(self: Any, database: Any, one: Any) -> None:
        database.fence = 0
        original(self, database, one)

    return [(fake_migrator.FakeMigrator, "_advance", advance_job)]


MUTANTS: Final = (
    Mutant(name="standby-kept", patches=_standby_kept, profile="migrations"),
    Mutant(name="requests-under-way-ignored", patches=_requests_under_way_ignored, profile="migrations"),
    Mutant(
        name="schema-not-changed-back",
        patches=_schema_not_changed_back,
        profile="migrations-fail",
        caught_by=("LACKS-SCHEMA",),
    ),
    Mutant(
        name="started-before-the-schema",
        patches=_started_before_the_schema,
        profile="migrations",
        caught_by=("LACKS-SCHEMA",),
    ),
    Mutant(name="replaced-kept-warm", patches=_replaced_kept_warm, profile="migrations"),
    Mutant(
        name="database-not-remembered", patches=_database_not_remembered, profile="migrations-late", seeds=150
    ),
    Mutant(name="effect-before-commit", patches=_effect_before_commit, profile="crash"),
    Mutant(name="names-change", patches=_names_change),
    Mutant(name="boot-ignored", patches=_boot_ignored, profile="reload"),
    Mutant(name="edge-triggered", patches=_edge_triggered),
    Mutant(name="commits-not-fenced", patches=_commits_not_fenced, profile="deposed"),
    Mutant(name="epoch-ignored", patches=_epoch_ignored, profile="deposed"),
    Mutant(name="raw-time", patches=_raw_time, profile="clock"),
    Mutant(name="wall-clock", patches=_wall_clock, profile="clock"),
    Mutant(name="stale-accepted", patches=_stale_accepted, profile="stale"),
    Mutant(
        name="look-counted-twice",
        patches=_look_counted_twice,
        profile="stale",
        caught_by=("EXPOSED-UNREADY", "BAKE-TIME"),
    ),
    Mutant(name="blind-is-empty", patches=_blind_is_empty, profile="blind"),
    Mutant(name="went-back-ignored", patches=_went_back_ignored, profile="restore"),
    Mutant(name="stage-skipped", patches=_stage_skipped),
    Mutant(name="salt-per-stage", patches=_salt_per_stage),
    Mutant(name="share-sinks", patches=_share_sinks),
    Mutant(name="hold-unseen", patches=_hold_unseen, profile="instances"),
    Mutant(name="hold-without-a-look", patches=_hold_without_a_look, profile="blind"),
    Mutant(name="starts-out-of-order", patches=_starts_out_of_order),
    Mutant(name="crash-limit-ignored", patches=_crash_limit_ignored, profile="loops"),
    Mutant(name="deadline-counts-while-paused", patches=_deadline_counts_while_paused, profile="buttons"),
    Mutant(name="marks-forgotten", patches=_marks_forgotten, caught_by=("COUNTED-TWICE",)),
    Mutant(name="evidence-per-stage", patches=_evidence_per_stage, caught_by=("NOT-COUNTED",)),
    Mutant(name="verdict-ignored", patches=_verdict_ignored, caught_by=("VERDICT-IGNORED",)),
    Mutant(name="no-fence-at-abort", patches=_no_fence_at_abort, profile="late"),
    Mutant(name="abort-leaves-at-once", patches=_abort_leaves_at_once, profile="late"),
    Mutant(
        name="table-changes-behind-the-fence",
        patches=_table_changes_behind_the_fence,
        profile="late",
        seeds=1_000,
    ),
    Mutant(name="scale-down-first", patches=_scale_down_first),
    Mutant(name="removal-not-gated", patches=_removal_not_gated),
    Mutant(
        name="boot-not-in-the-gate",
        patches=_boot_not_in_the_gate,
        survives_because="a router writes its boot files before it changes what runs, so a server that is"
        " gone from the running process is gone from the boot files too; the gate is for routers that do not",
    ),
    Mutant(name="sessions-ignored", patches=_sessions_ignored),
    Mutant(name="old-workers-ignored", patches=_old_workers_ignored, profile="reload"),
    Mutant(name="stops-out-of-order", patches=_stops_out_of_order),
    Mutant(name="no-fence-check", patches=_no_fence_check, profile="late"),
    Mutant(
        name="exposed-without-checks",
        patches=_exposed_without_checks,
        profile="checks",
        caught_by=("EXPOSED-UNVERIFIED",),
    ),
    Mutant(
        name="failed-checks-pass",
        patches=_failed_checks_pass,
        profile="checks",
        caught_by=("EXPOSED-UNVERIFIED",),
    ),
    Mutant(
        name="checks-before-the-route",
        patches=_checks_before_the_route,
        profile="checks",
        caught_by=("JOB-EARLY",),
    ),
    Mutant(name="checks-without-a-limit", patches=_checks_without_a_limit, profile="checks"),
    Mutant(
        name="checks-go-on-for-ever",
        patches=_checks_go_on_for_ever,
        profile="checks",
        caught_by=("JOB-STRAY",),
    ),
    Mutant(
        name="shift-not-awaited",
        patches=_paused_shift,
        profile="late",
        survives_because="holding and finishing ask themselves, in every tick, whether the route is in force;"
        " the phase tells people what is waited for",
    ),
)

CAUGHT: Final = tuple(mutant for mutant in MUTANTS if not mutant.survives_because)
SURVIVORS: Final = tuple(mutant for mutant in MUTANTS if mutant.survives_because)


def by_name(name: str) -> Mutant:
    """Raises StopIteration for a name that is not in MUTANTS."""
    return next(mutant for mutant in MUTANTS if mutant.name == name)

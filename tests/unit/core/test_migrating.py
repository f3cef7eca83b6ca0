"""The schema is made ready for a release, changed back with it, and follows when the old one has gone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from tests.support.builders import (
    CANARY,
    KEY,
    WEB,
    digest,
    environment,
    going,
    group,
    perfect,
    placed,
    request,
    spec,
    with_groups,
    with_servers,
    without_groups,
    worker,
)
from tidegate import errors
from tidegate.core import advance, migrating, reconcile, requests
from tidegate.core.effects import ApplyGroup, RunMigration, StopMigration
from tidegate.core.migrations import Direction, Migration, MigrationPhase, Revert, Step, Way
from tidegate.core.model import EnvironmentState, Observation, Phase, Reason, Role, RolloutKind, Strategy
from tidegate.core.schemas import JobState, JobStatus, MigrationJob, MigrationsUse, Part
from tidegate.testing.fakes import Database, FakeMigrator, ManualClock

EXPAND, CONTRACT, BREAKING = MigrationPhase.EXPAND, MigrationPhase.CONTRACT, MigrationPhase.BREAKING
USE = MigrationsUse(path="migrations/", database="DATABASE_URL", contract_after_s=30.0, hold_s=10)
USING = spec(migrations=USE, keep_warm_s=5.0)


def one(number: int, phase: MigrationPhase, revert: Revert = Revert.EXACT, **changes: Any) -> Migration:
    """Of release r<number>."""
    fields: dict[str, Any] = {"why": "so it is", "release": number}
    return Migration(id=f"{number:04d}_m", phase=phase, revert=revert, **(fields | changes))


@dataclass
class Town:
    """A state, a database, and a world in which everything comes through at once."""

    state: EnvironmentState
    applied: list[Migration] = field(default_factory=list)
    brings: dict[int, tuple[Migration, ...]] = field(default_factory=dict)
    fails: Callable[[MigrationJob], str] = lambda _job: ""
    look: Callable[[Observation], Observation] = lambda seen: seen
    done: list[str] = field(default_factory=list)
    told: list[tuple[Reason, str]] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    jobs: list[MigrationJob] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = ManualClock()
        self.database = Database(applied=self.applied, on_step=self._landed)
        self.migrator = FakeMigrator(
            clock=self.clock,
            databases={KEY: self.database},
            offered={f"sha256:{release:064x}": brought for release, brought in self.brings.items()},
            lasts_s=lambda _job: 0.0,
            fails=self._failure,
        )

    def _failure(self, job: MigrationJob) -> str:
        return self.fails(job)

    def _landed(self, step: Step) -> None:
        self.done.append(f"{step.direction} {step.id}")

    def tick(self, *, dt_s: float = 1.0, blind: bool = False) -> EnvironmentState:
        """One look and what follows from it."""
        jobs = None if blind else self.migrator.observe(KEY)
        seen = self.look(replace(perfect(self.state, revision=self.state.seen_runtime + 1), jobs=jobs))
        outcome = advance.advance(self.state, seen, dt_s)
        self.state = outcome.state
        self.told += [(event.reason, event.detail) for event in outcome.events]
        for effect in reconcile.reconcile(self.state, seen):
            if isinstance(effect, RunMigration):
                self.jobs.append(effect.job)
                self.migrator.apply(effect.job)
            elif isinstance(effect, StopMigration):
                self.migrator.remove(effect.environment, effect.job_id)
            elif isinstance(effect, ApplyGroup):
                self.started.append(effect.group.id)
        self.clock.advance(1.0)
        return self.state

    def until(self, phase: Phase) -> EnvironmentState:
        """Until the rollout stands there, or has ended so."""
        for _ in range(200):
            rollout = self.state.rollout or self.state.last
            if rollout is not None and rollout.phase is phase:
                return self.state
            self.tick()
        raise AssertionError(f"never {phase}: {self.state.rollout or self.state.last}\n{self.told}")

    def rest(self, ticks: int = 40) -> EnvironmentState:
        """Let time pass."""
        for _ in range(ticks):
            self.tick()
        return self.state

    @property
    def reasons(self) -> list[Reason]:
        return [reason for reason, _ in self.told]


def town(*ours: Migration, theirs: tuple[Migration, ...] = (), **changes: Any) -> Town:
    """r1 is live and knows `ours`; r2 is on its way, and brings `theirs` too. `changes`: of the request."""
    known = tuple(m.id for m in ours)
    scene = environment().live("r1", USING, migrations=known, settled=True, **changes.pop("live", {}))
    fields = {"starts_ahead": True} | changes
    asked = request("r2", changes.pop("wanted", USING), **{k: v for k, v in fields.items() if k != "wanted"})
    begun = advance.begin(scene.state, asked).state
    return Town(begun, applied=list(ours), brings={1: ours, 2: (*ours, *theirs)})


# --- forward ---------------------------------------------------------------------------------------


def test_release_starts_when_the_schema_fits_it() -> None:
    """Study, run, start, in this order; what was done is in the history and in the rollout."""
    made = town(one(1, EXPAND), theirs=(one(2, EXPAND),))
    made.tick()
    while going(made.state).phase is Phase.MIGRATING:
        assert made.started == []
        made.tick()
    state = made.state
    assert made.done == ["up 0002_m"]
    assert placed(state, "r2").migrations == ("0001_m", "0002_m")
    assert going(state).migration is not None
    assert (Reason.MIGRATING, "before traffic: up 0002_m") in made.told
    assert made.until(Phase.SUCCEEDED).live == replace(placed(made.state, "r2"))
    assert made.state.in_role(Role.STANDBY)


def test_job_says_whose_database_and_on_whose_behalf() -> None:
    """All that the migrator has to know is in the job."""
    made = town(theirs=(one(2, EXPAND),), by="ada", admission="sealed")
    made.until(Phase.STARTING)
    study, run = made.jobs
    assert (study.studies, run.studies) == (True, False)
    assert (run.app, run.environment, run.release, run.digest) == ("shop", "production", 2, digest("r2"))
    assert (run.use, run.by, run.admission, run.offers) == (USE, "ada", "sealed", True)
    assert run.fence == study.fence == int(study.id.partition("-")[0])


def test_first_release_needs_nobody_to_be_gone() -> None:
    """There is nothing to hold, and nobody to wait for."""
    begun = advance.begin(environment().state, request("r1", USING)).state
    made = Town(begun, brings={1: (one(1, BREAKING),)})
    assert made.until(Phase.SUCCEEDED).live is not None
    assert made.done == ["up 0001_m"]


def test_warm_release_asks_no_database() -> None:
    """The way back to what still runs is a matter of traffic."""
    scene = environment().standby("r1", USING).live("r2", USING, settled=True)
    back = request("r1", USING, kind=RolloutKind.ROLLBACK)
    made = Town(advance.begin(scene.state, back).state, applied=[one(1, EXPAND)])
    assert made.until(Phase.FINISHING).schema is None
    assert made.jobs == []


def test_failure_ends_the_rollout_before_anything_of_it_runs() -> None:
    """With the reason and what to do; the release that is live was never touched."""
    made = town(theirs=(one(2, EXPAND),))
    made.fails = lambda job: "0002_m, line 3: no such table." if job.steps else ""
    assert made.until(Phase.ABORTED).rollout is None
    assert made.started == []
    assert (Reason.MIGRATION_FAILED, "0002_m, line 3: no such table.") in made.told


def test_migrator_that_is_never_seen_at_work_ends_the_rollout() -> None:
    """Nobody waits for ever for a process that is not there."""
    made = town(theirs=(one(2, EXPAND),))
    made.tick()
    for _ in range(70):
        made.tick(blind=True)
    assert made.state.last is not None
    assert made.state.last.reason is Reason.STUCK


def test_work_that_is_missing_from_the_state_ends_the_rollout() -> None:
    """A state that somebody has cut is not waited on."""
    made = town()
    made.tick()
    made.state = replace(made.state, schema=None)
    assert going(made.tick()).reason is Reason.STUCK


def test_job_that_runs_is_waited_for() -> None:
    """However long a script takes."""
    made = town(theirs=(one(2, EXPAND),))
    made.migrator._lasts_s = lambda _job: 1000.0
    made.rest(100)
    assert going(made.state).phase is Phase.MIGRATING
    assert going(made.state).unready_s == 0


def test_job_of_somebody_else_ends_first() -> None:
    """At most one at a database: what is no longer wanted is stopped before the next begins."""
    made = town(theirs=(one(2, EXPAND),))
    job = MigrationJob(id="old", app="shop", environment="production", release=1, digest="d", use=USE)
    made.migrator._lasts_s = lambda _job: 1000.0
    made.migrator.apply(job)
    made.tick()
    assert made.jobs == []
    made.tick()
    assert [j.id for j in made.jobs] == [made.state.schema.job if made.state.schema else ""]


def test_state_older_than_the_database_goes_above_it() -> None:
    """A restored backup hands out numbers again; the database remembers."""
    made = town(theirs=(one(2, EXPAND),))
    made.database.fence = 1000
    made.until(Phase.STARTING)
    assert made.jobs[-1].fence > 1000


def test_nothing_to_do_is_not_done() -> None:
    """A release that brings no migration starts after the look."""
    made = town(one(1, EXPAND))
    made.until(Phase.STARTING)
    assert (len(made.jobs), made.done) == (1, [])


# --- refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("revert", "word"), [(r, r.value) for r in Revert if r is not Revert.EXACT], ids=str)
def test_what_cannot_be_taken_back_exactly_has_to_be_agreed_to(revert: Revert, word: str) -> None:
    """Named, with what the trial has found and how to agree; agreed to, it goes on."""
    bad = one(2, EXPAND, revert)
    made = town(theirs=(bad,))
    made.until(Phase.ABORTED)
    ((_, detail), *_) = [told for told in made.told if told[0] is Reason.MIGRATION_REFUSED]
    assert f"0002_m ({word}: so it is)" in detail
    assert "--accept-irreversible 0002_m" in detail
    assert made.done == []
    agreed = town(theirs=(bad,), accepted=("0002_m",))
    agreed.until(Phase.STARTING)
    assert agreed.done == ["up 0002_m"]


def test_what_cannot_be_applied_is_refused_whoever_agrees() -> None:
    """The trial has shown that it fails."""
    made = town(theirs=(one(2, EXPAND, Revert.BROKEN, applies=False),), accepted=("0002_m",))
    made.until(Phase.ABORTED)
    assert (Reason.MIGRATION_REFUSED, "0002_m of r2: so it is") in made.told


def test_release_made_beside_what_is_applied_is_refused() -> None:
    """A newer release that does not know an applied migration was built on another line."""
    made = town(one(1, EXPAND))
    made.migrator.offered = {}  # type: ignore[misc]
    made.until(Phase.ABORTED)
    assert "does not know it" in dict(made.told)[Reason.MIGRATION_REFUSED]


def back_to_r1(*later: Migration, **changes: Any) -> Town:
    """r2 is live with `later`, nothing is warm, and somebody goes back to r1, which knows 0001_m."""
    first = one(1, EXPAND)
    known = tuple(m.id for m in (first, *later))
    scene = environment().live("r2", USING, migrations=known, settled=True)
    asked = request("r1", USING, kind=RolloutKind.ROLLBACK, **({"starts_ahead": True} | changes))
    begun = advance.begin(scene.state, asked).state
    return Town(begun, applied=[first, *later], brings={1: (first,), 2: (first, *later)})


def test_way_back_that_does_not_exist_is_refused_before_anything_is_touched() -> None:
    """With the migration, the release that brought it, and the nearest release that can be reached."""
    made = back_to_r1(one(2, CONTRACT, Revert.NONE))
    made.until(Phase.ABORTED)
    detail = dict(made.told)[Reason.MIGRATION_REFUSED]
    assert "0002_m of r2 (none: so it is)" in detail
    assert "The oldest release that can be reached is r2." in detail
    assert made.done == []


def test_revert_that_loses_rows_has_to_be_agreed_to() -> None:
    """By name, in the command that goes back."""
    made = back_to_r1(one(2, CONTRACT, Revert.LOSSY))
    made.until(Phase.ABORTED)
    assert "tide rollback --accept-loss 0002_m" in dict(made.told)[Reason.MIGRATION_REFUSED]
    agreed = back_to_r1(one(2, CONTRACT, Revert.LOSSY), accepted=("0002_m",))
    agreed.until(Phase.STARTING)
    assert agreed.done == ["down 0002_m"]


def test_tidegate_itself_goes_no_way_on_which_people_wait() -> None:
    """An automatic way back holds no requests."""
    made = back_to_r1(one(2, BREAKING), automatic=True)
    made.until(Phase.ABORTED)
    assert "does not go by itself" in dict(made.told)[Reason.MIGRATION_REFUSED]


def test_contract_is_reverted_before_the_older_release_starts_and_the_newer_stays_warm() -> None:
    """A revert of a contract only adds."""
    made = back_to_r1(one(2, CONTRACT))
    made.until(Phase.SUCCEEDED)
    assert made.done == ["down 0002_m"]
    assert [p.release for p in made.state.in_role(Role.STANDBY)] == [2]


# --- nobody who could not live on it ----------------------------------------------------------------


def test_warm_release_goes_before_what_it_could_not_live_on() -> None:
    """A contract that the live release knows is made up for, when the standby has gone."""
    late, new = one(2, CONTRACT), one(3, EXPAND)
    first = one(1, EXPAND)
    scene = environment().standby("r1", USING, migrations=("0001_m",))
    scene = scene.live("r2", USING, migrations=("0001_m", "0002_m"))
    begun = advance.begin(scene.state, request("r3", USING, starts_ahead=True)).state
    made = Town(begun, applied=[first], brings={3: (first, late, new)})
    made.until(Phase.STARTING)
    assert made.done == ["up 0002_m", "up 0003_m"]
    assert made.reasons.index(Reason.GONE) < made.reasons.index(Reason.MIGRATED)
    assert made.jobs[-1].only == (2,)


def test_release_that_cannot_end_keeps_the_schema_as_it_is() -> None:
    """It is not waited for without end."""
    made = town(one(1, EXPAND), theirs=(one(2, BREAKING),))
    old = replace(placed(environment().retiring("r9").state, "r9"), id=77, slot=2)
    made.state = replace(made.state, placements=(*made.state.placements, old), next_id=100)
    stays = group(made.state, old, WEB)
    made.look = lambda seen: with_groups(without_groups(seen, old), stays)
    made.until(Phase.ABORTED)
    assert made.done == []
    assert dict(made.told)[Reason.STUCK] == "r9 cannot end, and cannot live on the new schema"


# --- held ------------------------------------------------------------------------------------------


def test_breaking_migration_runs_while_requests_are_held() -> None:
    """Held, at rest, changed, started, and everybody at once to the new release: no canary."""
    made = town(one(1, EXPAND), theirs=(one(2, BREAKING),))
    made.until(Phase.STARTING)
    assert made.state.route.hold_s == USE.hold_s
    assert made.done == ["up 0002_m"]
    assert made.reasons.index(Reason.REQUESTS_HELD) < made.reasons.index(Reason.MIGRATED)
    made.until(Phase.FINISHING)
    route, slot = made.state.route, placed(made.state, "r2").slot
    assert (route.hold_s, route.stable, route.canary, route.exposure_bps) == (0, slot, slot, 10_000)
    assert len(going(made.state).strategy.stages) == 1
    made.until(Phase.SUCCEEDED)
    assert not made.state.in_role(Role.STANDBY)


def test_workers_of_the_old_release_end_before_the_schema_breaks() -> None:
    """They are behind no router."""
    using = spec(WEB, worker(), migrations=USE)
    scene = environment().live("r1", using, migrations=("0001_m",))
    begun = advance.begin(scene.state, request("r2", using, starts_ahead=True)).state
    first, second = one(1, EXPAND), one(2, BREAKING)
    made = Town(begun, applied=[first], brings={2: (first, second)})
    mailer = perfect(begun).runtime
    assert mailer is not None
    stays = [g for g in mailer.groups if g.service == "mailer"]

    def still_there(seen: Observation) -> Observation:
        assert seen.runtime is not None
        rest = tuple(g for g in seen.runtime.groups if g.service != "mailer" or g.placement != 1)
        return replace(seen, runtime=replace(seen.runtime, groups=(*rest, *stays)))

    made.look = still_there
    made.rest(6)
    assert made.done == []
    made.look = lambda seen: seen
    made.until(Phase.STARTING)
    assert made.done == ["up 0002_m"]


def test_requests_that_do_not_end_send_the_rollout_home_and_everybody_goes_on() -> None:
    """Nothing was changed yet."""
    made = town(one(1, EXPAND), theirs=(one(2, BREAKING),))
    slot = placed(made.state, "r1").slot
    made.look = lambda seen: with_servers(seen, slot, sessions=1)
    made.until(Phase.ABORTED)
    assert "did not end within 10 s" in dict(made.told)[Reason.STUCK]
    assert (made.done, made.state.route.hold_s) == ([], 0)


def test_rollout_that_holds_requests_cannot_be_paused() -> None:
    """Users wait meanwhile."""
    made = town(one(1, EXPAND), theirs=(one(2, BREAKING),))
    made.until(Phase.STARTING)
    with pytest.raises(errors.RefusedError, match="holds the users' requests"):
        requests.pause(made.state, by="ada")


def test_nobody_promotes_what_migrates() -> None:
    """No stage has begun."""
    made = town()
    made.tick()
    with pytest.raises(errors.RefusedError, match="still migrating"):
        requests.promote(made.state, by="ada")


# --- home ------------------------------------------------------------------------------------------


def broken_and_held(revert: Revert = Revert.EXACT) -> Town:
    """A breaking migration was applied, its release starts, and requests are held."""
    made = town(one(1, EXPAND), theirs=(one(2, BREAKING, revert),), accepted=("0002_m",))
    made.until(Phase.STARTING)
    return made


def abort(made: Town) -> None:
    """Somebody does."""
    made.state = requests.abort(made.state, by="ada").state


def test_schema_is_changed_back_before_users_are_sent_back() -> None:
    """They wait until the release that is live can answer again."""
    made = broken_and_held()
    abort(made)
    assert made.state.route.hold_s == USE.hold_s
    while made.state.route.hold_s:
        assert "down 0002_m" not in made.done or made.state.schema is not None
        made.tick()
    assert made.done == ["up 0002_m", "down 0002_m"]
    made.until(Phase.ABORTED)
    assert (made.state.route.hold_s, made.state.schema) == (0, None)
    assert all(not group.startswith("shop.production.3.") for group in made.started[1:])


def test_abort_after_everybody_was_let_through_holds_them_again() -> None:
    """The release that was live cannot answer on the new schema."""
    made = broken_and_held()
    made.until(Phase.SHIFTING)
    abort(made)
    assert made.state.route.hold_s == USE.hold_s
    made.until(Phase.ABORTED)
    assert made.done == ["up 0002_m", "down 0002_m"]


def test_abort_before_the_job_may_run_lets_everybody_go_on_at_once() -> None:
    """Nothing was changed."""
    made = town(one(1, EXPAND), theirs=(one(2, BREAKING),))
    slot = placed(made.state, "r1").slot
    made.look = lambda seen: with_servers(seen, slot, sessions=1)
    while not made.state.route.hold_s:
        made.tick()
    abort(made)
    assert (made.state.route.hold_s, made.state.schema) == (0, None)


def test_failure_on_the_way_home_is_tried_again_until_it_comes_through() -> None:
    """Nothing else brings the users back; people hear of it once."""
    made = broken_and_held()
    failures = [3]

    def fails(job: MigrationJob) -> str:
        failures[0] -= 1
        return "no time" if failures[0] >= 0 else ""

    made.fails = fails
    abort(made)
    made.until(Phase.ABORTED)
    assert made.done == ["up 0002_m", "down 0002_m"]
    assert [detail for reason, detail in made.told if reason is Reason.MIGRATION_FAILED] == ["no time"]


def test_database_that_has_seen_more_is_gone_above_on_the_way_home() -> None:
    """As on the way forward."""
    made = broken_and_held()
    made.database.fence = 5000
    abort(made)
    made.until(Phase.ABORTED)
    assert made.done == ["up 0002_m", "down 0002_m"]


def test_without_a_way_back_requests_stay_held_until_a_release_fits() -> None:
    """No answer is better than wrong ones; the next release lets them through."""
    made = broken_and_held(Revert.NONE)
    abort(made)
    made.until(Phase.ABORTED)
    live = made.state.live
    assert live is not None
    assert live.stranded
    assert made.state.route.hold_s == USE.hold_s
    assert "Requests stay held" in dict(made.told)[Reason.MIGRATION_FAILED]
    made.rest(10)
    assert (made.state.route.hold_s, made.state.schema) == (USE.hold_s, None)
    made.migrator.offered = {f"sha256:{3:064x}": (one(1, EXPAND), one(2, BREAKING))}  # type: ignore[misc]
    made.state = advance.begin(made.state, request("r3", USING, starts_ahead=True)).state
    made.until(Phase.SUCCEEDED)
    assert (made.state.route.hold_s, made.state.in_role(Role.STANDBY)) == (0, ())


def test_stranded_release_answers_again_when_somebody_has_repaired_the_schema() -> None:
    """The next look finds that nothing is in its way."""
    made = broken_and_held(Revert.NONE)
    abort(made)
    made.until(Phase.ABORTED)
    made.rest(10)
    made.applied.pop()
    live = made.state.live
    assert live is not None
    made.state = made.state.with_placement(replace(live, settled=False))
    made.rest(5)
    assert (made.state.route.hold_s, made.state.live and made.state.live.stranded) == (0, False)


def test_release_that_is_gone_meanwhile_needs_no_way_home() -> None:
    """A state without a live release is not waited on."""
    made = broken_and_held()
    abort(made)
    work = made.state.schema
    assert work is not None
    alone = replace(made.state, placements=tuple(p for p in made.state.placements if p.role is not Role.LIVE))
    assert migrating.change_back(alone, work, perfect(alone), 1.0)[0].schema is None


# --- settling --------------------------------------------------------------------------------------


def settled_town(*brought: Migration, applied: int, **live: Any) -> Town:
    """r2 is live alone and brings these; the first `applied` of them are."""
    fields = {"migrations": tuple(m.id for m in brought), "starts_ahead": True} | live
    scene = environment().live("r2", USING, **fields)
    return Town(scene.state, applied=list(brought[:applied]), brings={2: brought})


def test_contract_runs_when_the_release_was_live_for_its_time() -> None:
    """Not before, and with nobody else connected."""
    made = settled_town(one(1, EXPAND), one(2, CONTRACT), applied=1)
    made.rest(25)
    assert made.done == []
    made.rest(20)
    assert made.done == ["up 0002_m"]
    assert made.jobs[-1].only == (2,)
    assert made.state.live is not None
    assert made.state.live.settled
    assert (Reason.SETTLED, "when the old release is gone: up 0002_m") in made.told


def test_nothing_settles_while_another_release_is_kept_warm() -> None:
    """It might not live on what comes."""
    scene = environment().standby("r1", USING).live("r2", USING, migrations=("0001_m",))
    made = Town(scene.state, brings={2: (one(1, CONTRACT),)})
    made.tick()
    made.tick()
    assert made.jobs == []


def test_schema_that_fits_is_looked_at_once() -> None:
    """Then the release is settled, and nobody asks the database again."""
    made = settled_town(one(1, EXPAND), applied=1)
    made.rest(10)
    assert (len(made.jobs), made.done, made.told) == (1, [], [])


def test_expand_of_a_release_that_went_back_stays_or_goes_with_what_was_proved() -> None:
    """It stays under a release that starts on more than it knows, and goes under one that does not."""
    for ahead, done in ((True, []), (False, ["down 0002_m"])):
        made = settled_town(one(1, EXPAND), applied=1, starts_ahead=ahead)
        made.applied.append(one(2, EXPAND, release=3))
        made.rest(10)
        assert made.done == done


def test_revert_that_loses_rows_is_left_to_people() -> None:
    """The schema stays ahead, and the history says so."""
    made = settled_town(one(1, EXPAND), applied=1, starts_ahead=False)
    made.applied.append(one(2, EXPAND, Revert.LOSSY, release=3))
    made.rest(10)
    assert made.done == []
    assert made.reasons == [Reason.LEFT_AHEAD]


def test_settling_that_fails_is_tried_again_later_and_told_once() -> None:
    """Somebody of the old release may still be connected."""
    made = settled_town(one(1, EXPAND), one(2, CONTRACT), applied=1)

    def fails(job: MigrationJob) -> str:
        made.applied[:] = made.applied[:1]
        return "Still connected: r1." if job.steps else ""

    made.fails = fails
    made.rest(300)
    assert made.told.count((Reason.MIGRATION_FAILED, "Still connected: r1.")) == 1
    assert 2 < sum(1 for job in made.jobs if job.steps) < 6
    made.fails = lambda _job: ""
    made.rest(100)
    assert made.state.live is not None
    assert made.state.live.settled


def test_settling_goes_above_a_database_that_has_seen_more() -> None:
    """As everywhere."""
    made = settled_town(one(1, EXPAND), one(2, CONTRACT), applied=1)
    made.database.fence = 900
    made.rest(45)
    assert made.done == ["up 0002_m"]


def test_new_rollout_ends_what_settles() -> None:
    """Its own work begins from a study of what is there then."""
    made = settled_town(one(1, EXPAND), one(2, CONTRACT), applied=1)
    made.rest(5)
    assert made.state.schema is not None
    begun = advance.begin(made.state, request("r3", USING))
    assert begun.state.schema is None


# --- releases without migrations of their own --------------------------------------------------------


def test_release_from_before_the_first_migration_is_reached_as_its_successor_does() -> None:
    """What was taken away since comes back, by the address that the successor knows."""
    plain = spec(keep_warm_s=5.0)
    scene = environment().live("r2", USING, migrations=("0002_m",), settled=True, admission="of r2")
    asked = request("r1", plain, kind=RolloutKind.ROLLBACK, starts_ahead=True)
    made = Town(advance.begin(scene.state, asked).state, applied=[one(2, CONTRACT)], brings={})
    made.until(Phase.STARTING)
    assert made.done == ["down 0002_m"]
    assert (made.jobs[0].offers, made.jobs[0].release, made.jobs[0].admission) == (False, 2, "of r2")


def test_app_without_migrations_has_nobody_to_ask() -> None:
    """Nothing of all this concerns it."""
    state = environment().live("r1").state
    live = state.live
    assert live is not None
    assert migrating.source(state, live) is None
    assert migrating.contract_after_s(live) == 0
    assert migrating.wanted_job(migrating.begin(state, live)) is None
    assert migrating.wanted_job(replace(migrating.begin(state, live), placements=())) is None


def test_failure_without_a_word_is_told_all_the_same() -> None:
    """A migrator that does not know why."""
    assert "does not say" in migrating.told(JobStatus(id="1-study", state=JobState.FAILED))


def test_plan_without_steps_says_so() -> None:
    """For people."""
    made = town(one(1, EXPAND))
    state = made.until(Phase.STARTING)
    plan = going(state).migration
    assert plan is not None
    assert migrating.described(plan) == "nothing to do on the database"
    assert migrating.described(replace(plan, ahead=("0009_x",))) == "stays applied: 0009_x"
    assert not migrating.cannot_stay(state, None)
    assert migrating.cannot_stay(state, replace(plan, way=Way.FLIP_THEN_REVERT))


def test_connections_are_named_after_the_release() -> None:
    """So that the database shows who is left; only where there is a database."""
    state = environment().live("r1", USING).state
    live = state.live
    assert live is not None
    group = reconcile.instance_group(state, live, WEB)
    assert ("PGAPPNAME", "shop.production.r1") in group.environment
    assert group.connection_name == "shop.production.r1"


def test_parts_of_a_plan_are_run_by_their_names() -> None:
    """The last part is all that is left to do."""
    made = town(one(1, EXPAND), theirs=(one(2, EXPAND), one(3, CONTRACT)))
    made.until(Phase.STARTING)
    assert made.jobs[-1].id.endswith(Part.BEFORE)
    assert made.jobs[-1].steps == (Step(id="0002_m", direction=Direction.UP),)
    assert isinstance(CANARY, Strategy)

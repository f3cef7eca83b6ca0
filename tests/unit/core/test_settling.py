"""The schema goes home with a rollout, and follows when the old release has gone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tests.support.builders import (
    KEY,
    WEB,
    blind_router,
    environment,
    going,
    perfect,
    placed,
    request,
    spec,
    with_servers,
)
from tests.unit.core.town import BREAKING, CONTRACT, EXPAND, USE, USING, Town, one, town
from tidegate.core import advance, migrating, reconcile, requests
from tidegate.core.effects import RunMigration, StopMigration
from tidegate.core.migrations import Direction, Migration, Revert, Step, Way
from tidegate.core.model import Phase, Reason, Role, RolloutKind
from tidegate.core.schemas import JobState, JobStatus, MigrationJob, Part

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


def test_live_release_looks_again_when_somebody_has_said_something_of_the_schema() -> None:
    """Only one that had settled; nothing is to be looked at where nobody is live."""
    settled = settled_town(one(1, EXPAND), applied=1, settled=True).state
    asked = requests.look_at_schema(settled)
    assert asked.state.live is not None
    assert not asked.state.live.settled
    assert requests.look_at_schema(asked.state).no_op
    assert requests.look_at_schema(environment().state).no_op


def test_steps_that_were_planned_before_the_state_was_cut_are_none() -> None:
    """A part without a plan runs nothing."""
    made = settled_town(one(1, EXPAND), applied=1)
    made.tick()
    work = made.state.schema
    assert work is not None
    cut = replace(made.state, schema=replace(work, part=Part.AFTER, ready=True))
    job = migrating.wanted_job(cut)
    assert job is not None
    assert job.steps == ()


def test_effects_on_databases_are_named_and_told() -> None:
    """In words that `tide plan` can print."""
    made = settled_town(one(1, EXPAND), one(2, CONTRACT), applied=1)
    made.rest(45)
    study, run = made.jobs
    begin, do = (RunMigration(environment=KEY, job=job) for job in (study, run))
    stop = StopMigration(environment=KEY, job_id=run.id)
    assert begin.key == f"migrate:shop/production:{study.id}"
    assert begin.describe() == "see what r2 in shop/production needs of its database"
    assert do.describe() == "up 0002_m for r2 in shop/production"
    assert stop.key == f"stop-migration:shop/production:{run.id}"
    assert stop.describe() == f"end job {run.id} on the database of shop/production"


def test_nothing_is_quiet_that_was_not_looked_at() -> None:
    """And where there was nobody, nobody is waited for."""
    state = environment().live("r1", USING).state
    assert not migrating.quiet(state, state.live, blind_router(perfect(state)))
    assert migrating.quiet(state, None, perfect(state))


def test_job_of_settling_is_waited_for() -> None:
    """However long it takes."""
    made = settled_town(one(1, EXPAND), applied=1)
    made.migrator._lasts_s = lambda _job: 1000.0
    made.rest(20)
    assert len(made.jobs) == 1

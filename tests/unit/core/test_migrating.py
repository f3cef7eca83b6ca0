"""The schema is made ready for a release, under held requests where it has to be; or it is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support.builders import (
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
from tests.unit.core.town import BREAKING, CONTRACT, EXPAND, USE, USING, Town, one, town
from tidegate import errors
from tidegate.core import advance, requests
from tidegate.core.migrations import Migration, Revert
from tidegate.core.model import Observation, Phase, Reason, Role, RolloutKind
from tidegate.core.schemas import MigrationJob

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

"""Jobs on real databases, each a process: what they do, say and leave behind, and how they end."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from tests.integration.migrators.conftest import Database
from tests.support.migrations import write
from tests.support.tide import wait_for
from tidegate import errors
from tidegate.core.migrations import Direction, MigrationPhase, Revert, Step
from tidegate.core.model import EnvironmentKey
from tidegate.core.schemas import JobState, JobStatus, MigrationJob, MigrationsUse, Proof
from tidegate.migrators.processes import ProcessMigrator, Surroundings

pytestmark = pytest.mark.real

KEY = EnvironmentKey(app="shop", environment="test")
USERS = ("users", "CREATE TABLE users (id integer PRIMARY KEY);", "DROP TABLE users;")
EMAIL = ("email", "ALTER TABLE users ADD COLUMN email text;", "ALTER TABLE users DROP COLUMN email;")


@dataclass
class Kept:
    """Proofs in memory."""

    proofs: dict[tuple[str, str, str], Proof] = field(default_factory=dict)

    def known(self) -> tuple[Proof, ...]:
        return tuple(self.proofs.values())

    def keep(self, proofs: Sequence[Proof]) -> None:
        self.proofs |= {proof.key: proof for proof in proofs}


@dataclass
class Place:
    """A migrator, its packages and its database."""

    database: Database
    folder: Path
    kept: Kept = field(default_factory=Kept)
    values: Callable[[MigrationJob], Mapping[str, str]] | None = None

    def __post_init__(self) -> None:
        self.migrator = ProcessMigrator(
            Surroundings(
                content=lambda job: self.folder / job.digest,
                values=self._values,
                account=lambda _key: None,
                proofs=self.kept,
            )
        )

    def _values(self, job: MigrationJob) -> Mapping[str, str]:
        return self.values(job) if self.values else {"DATABASE_URL": self.database.url}

    def package(self, name: str, *migrations: tuple[str, str, str]) -> None:
        write(self.folder / name / "m", *migrations)

    def job(self, id_: str, *steps: str, **changes: Any) -> MigrationJob:
        """Of the package `two`; steps as `up 0001_users`."""
        words = [step.split() for step in steps]
        base = MigrationJob(
            id=id_,
            app="shop",
            environment="test",
            release=2,
            digest="two",
            use=MigrationsUse(path="m", database="DATABASE_URL"),
            steps=tuple(Step(id=name, direction=Direction(direction)) for direction, name in words),
        )
        return replace(base, **changes)

    def status(self, id_: str) -> JobStatus:
        return next(one for one in self.migrator.observe(KEY) if one.id == id_)

    def done(self, job: MigrationJob) -> JobStatus:
        """Run it to its end."""
        self.migrator.apply(job)
        return self.waited(job.id)

    def waited(self, id_: str) -> JobStatus:
        """When it has ended."""
        found = wait_for(lambda: self.ended(id_), seconds=60)
        assert found is not None
        return found

    def ended(self, id_: str) -> JobStatus | None:
        found = self.status(id_)
        return found if found.state is not JobState.RUNNING else None

    def running(self) -> int:
        """Process id of the job that runs."""
        (work,) = [one for one in self.migrator._works[KEY].values() if not one.ended]
        assert work.process is not None
        return work.process.pid


@pytest.fixture
def place(database: Database, tmp_path: Path) -> Iterator[Place]:
    made = Place(database, tmp_path)
    made.package("one", USERS)
    made.package("two", USERS, EMAIL)
    yield made
    made.migrator.close()


def test_study_tries_out_what_nobody_has_tried_and_a_run_does_the_steps_once(place: Place) -> None:
    """Way back and phase are known before anything runs, and stand in the ledger after it."""
    studied = place.done(place.job("1-study"))
    assert studied.study is not None
    assert [(m.id, m.phase, m.revert) for m in studied.study.offered] == [
        ("0001_users", MigrationPhase.EXPAND, Revert.EXACT),
        ("0002_email", MigrationPhase.EXPAND, Revert.EXACT),
    ]
    assert (studied.study.applied, len(place.kept.proofs)) == ((), 2)
    ran = place.done(place.job("1-before", "up 0001_users", "up 0002_email"))
    assert ran.study is not None
    assert [(m.id, m.revert, m.release) for m in ran.study.applied] == [
        ("0001_users", Revert.EXACT, 2),
        ("0002_email", Revert.EXACT, 2),
    ]
    again = place.done(place.job("2-before", "up 0001_users", "up 0002_email"))
    assert again.study == ran.study
    back = place.done(place.job("3-before", "down 0002_email", digest="one", release=1))
    assert back.study is not None
    assert [m.id for m in back.study.applied] == ["0001_users"]


def test_what_was_tried_once_is_not_tried_again(place: Place) -> None:
    """The proofs of before are enough, on the same schema."""
    first = place.done(place.job("1-study"))
    kept = place.kept.proofs
    marked = {key: replace(proof, why="from before") for key, proof in kept.items()}
    kept |= marked
    second = place.done(place.job("2-study"))
    assert first.study is not None
    assert second.study is not None
    assert [m.why for m in second.study.offered] == ["from before"] * 2


def test_release_without_migrations_is_studied_by_another_ones_way(place: Place) -> None:
    """It offers none; what is applied is seen all the same."""
    place.done(place.job("1-before", "up 0001_users"))
    found = place.done(place.job("2-study", offers=False))
    assert found.study is not None
    assert (found.study.offered, [m.id for m in found.study.applied]) == ((), ["0001_users"])


def test_job_that_comes_late_changes_nothing(place: Place) -> None:
    """The database has seen a newer one."""
    assert place.done(place.job("9-study", fence=9)).state is JobState.DONE
    late = place.done(place.job("5-before", "up 0001_users", fence=5))
    assert (late.state, late.failure.startswith("A newer rollout")) == (JobState.FAILED, True)
    study = place.done(place.job("6-study", fence=6)).study
    assert study is not None
    assert (study.fence, study.applied) == (9, ())


def test_failure_says_where_and_leaves_what_was_before_it(place: Place) -> None:
    """Script, line and reason, without the address of the database."""
    place.package("two", USERS, ("email", "SELECT 1;\nINSERT INTO nowhere VALUES (1);", "SELECT 1;"))
    failed = place.done(place.job("1-before", "up 0001_users", "up 0002_email"))
    assert failed.state is JobState.FAILED
    assert failed.failure.startswith("0002_email, line 2: ")
    assert place.database.url not in failed.failure + failed.hint
    studied = place.done(place.job("2-study"))
    assert studied.study is not None
    assert [m.id for m in studied.study.applied] == ["0001_users"]
    assert [m.applies for m in studied.study.offered] == [True, False]


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"digest": "nothing"}, "The package of r2 has no folder m."),
        ({"use": MigrationsUse(path="m", database="OTHER_URL")}, "shop/test has no OTHER_URL"),
        ({"environment": "test", "config": (("DATABASE_URL", "gopher://x"),)}, "begins with gopher"),
    ],
)
def test_job_that_cannot_begin_says_why(place: Place, changes: dict[str, Any], why: str) -> None:
    """And whose fault it is."""
    if "config" in changes:
        place.values = lambda _job: {}
    failed = place.done(place.job("1-study", **changes))
    assert (failed.state, why in failed.failure) == (JobState.FAILED, True)


def test_password_is_in_no_message(place: Place) -> None:
    """Not even of a library that cannot make sense of the address."""
    place.values = lambda _job: {"DATABASE_URL": "postgresql://u:hunter2@127.0.0.1:hunter2/x"}
    failed = place.done(place.job("1-study"))
    assert failed.state is JobState.FAILED
    assert "hunter2" not in failed.failure + failed.hint


def test_value_that_does_not_open_fails_the_job(place: Place) -> None:
    """What the surroundings have against it is told."""

    def refused(_job: MigrationJob) -> Mapping[str, str]:
        raise errors.SealError("Somebody changed the database.", hint="Restore it.")

    place.values = refused
    failed = place.done(place.job("1-study"))
    assert (failed.failure, failed.hint) == ("Somebody changed the database.", "Restore it.")


def test_one_job_at_a_time_and_what_is_removed_is_killed(place: Place) -> None:
    """A second is not begun; the process of a job that is not wanted any more ends, and so does the job."""
    with closing(place.database.open()):
        place.migrator.apply(place.job("1-study"))
        place.migrator.apply(place.job("2-study"))
        assert [one.id for one in place.migrator.observe(KEY)] == ["1-study"]
        place.migrator.remove(KEY, "1-study")
        wait_for(lambda: not place.migrator.observe(KEY))
    place.migrator.remove(KEY, "1-study")
    assert place.done(place.job("2-study")).state is JobState.DONE
    place.migrator.remove(KEY, "2-study")
    assert place.migrator.observe(KEY) == ()


def test_killed_process_is_told_with_what_to_do(place: Place) -> None:
    """It can be run again."""
    place.package("two", USERS, ("slow", "SELECT 1;", "SELECT 1;"))
    place.migrator.apply(place.job("1-study"))
    os.kill(place.running(), signal.SIGKILL)
    failed = place.waited("1-study")
    assert failed.failure == "The process that ran it was ended by SIGKILL."
    assert "safe to run it again" in failed.hint


def test_jobs_end_with_the_migrator(place: Place) -> None:
    """A control plane that stops leaves nobody behind."""
    place.migrator.apply(place.job("1-study"))
    pid = place.running()
    place.migrator.close()
    wait_for(lambda: not Path(f"/proc/{pid}/cmdline").exists() or place.ended("1-study"))


def test_questions_are_answered_beside_jobs(place: Place) -> None:
    """What stands, what is pending, what happened, and whether somebody else has changed it."""
    place.done(place.job("1-before", "up 0001_users"))
    found = place.migrator.ask(place.job("study"), action="look")
    assert [row["id"] for row in found["rows"]] == ["0001_users"]
    assert (found["pending"], found["drifted"]) == (["0002_email"], False)
    with closing(place.database.open()) as session:
        session.rows("CREATE TABLE byhand (id integer)")
    assert place.migrator.ask(place.job("study"), action="look")["drifted"]
    failed = place.done(place.job("2-study"))
    assert "somebody else has changed it" in failed.failure
    adopted = place.migrator.ask(place.job("study", by="ada"), action="adopt", why="a report")
    assert (adopted["drifted"], adopted["events"][0]["what"]) == (False, "adopted")
    with pytest.raises(errors.SchemaError, match="No statement of 0001_users is in doubt"):
        place.migrator.ask(place.job("study"), action="resolve", id="0001_users", finished=True)


def test_question_about_another_release_reads_its_scripts_and_tries_nothing(place: Place) -> None:
    """What was never tried is not known."""
    place.done(place.job("1-before", "up 0001_users", digest="one"))
    brings = {"digest": "two", "path": "m"}
    found = place.migrator.ask(place.job("study", digest="one"), brings=brings, tries=False)
    assert [one["id"] for one in found["study"]["offered"]] == ["0001_users", "0002_email"]
    assert found["study"]["offered"][1]["why"].startswith("not tried on this schema yet")
    assert len(place.kept.proofs) == 0


def test_others_on_the_database_keep_a_contract_away(pg: Database, tmp_path: Path) -> None:
    """Connections of another release of the app are named; those of this one are not in the way."""
    assert pg.server is not None
    place = Place(pg, tmp_path)
    place.package("two", USERS)
    name = pg.url.rpartition("@/")[2].partition("?")[0]
    with pg.server.connect(name) as other:
        other.execute("SET application_name = 'shop.test.r1'")
        failed = place.done(place.job("1-after", "up 0001_users", only=(2,)))
        assert failed.failure == "Still connected to the database: r1 (1 connections)."
        assert place.done(place.job("2-after", "up 0001_users", only=(1, 2))).state is JobState.DONE

"""A migrator in memory: honest, in virtual time.

A database is a value of its own, so that a migrator can die, and another one, which knows nothing of its
jobs, can find what it has left. Jobs on one database take turns; each step lands once, and none of a job that
comes too late. Nothing moves but by the clock. Neighbours: `fakes` names it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from tidegate.core import model
from tidegate.core.migrations import Direction, Migration, Step
from tidegate.core.schemas import JobState, JobStatus, MigrationJob, Study
from tidegate.testing.clock import ManualClock


def _nobody(_step: Step) -> None:
    """Nobody looks."""


@dataclass(slots=True, kw_only=True)
class Database:
    """What is applied, oldest first, and who is at it."""

    applied: list[Migration] = field(default_factory=list)
    fence: int = 0
    holder: object = None
    """The job that has the lock."""
    on_step: Callable[[Step], None] = _nobody
    """Called when a step has landed."""

    def can(self, step: Step, offered: tuple[Migration, ...]) -> bool:
        """Whether there is a script for it, or nothing to do."""
        known = {one.id for one in (*self.applied, *offered)}
        return step.direction is Direction.DOWN or step.id in known

    def do(self, step: Step, offered: tuple[Migration, ...]) -> None:
        """Exactly once: what is so already is no step."""
        there = next((one for one in self.applied if one.id == step.id), None)
        if step.direction is Direction.DOWN and there is not None:
            self.applied.remove(there)
        elif step.direction is Direction.UP and there is None:
            self.applied.append(next(one for one in offered if one.id == step.id))
        else:
            return
        self.on_step(step)


@dataclass(slots=True, kw_only=True)
class _Job:
    job: MigrationJob
    began_s: float
    lasts_s: float
    done: int = 0
    state: JobState = JobState.RUNNING
    failure: str = ""
    study: Study | None = None


def _second(_job: MigrationJob) -> float:
    return 1.0


def _well(_job: MigrationJob) -> str:
    return ""


class FakeMigrator:
    """`ports.Migrator` without a database server."""

    def __init__(
        self,
        *,
        clock: ManualClock | None = None,
        databases: dict[model.EnvironmentKey, Database] | None = None,
        offered: Mapping[str, tuple[Migration, ...]] | None = None,
        lasts_s: Callable[[MigrationJob], float] = _second,
        fails: Callable[[MigrationJob], str] = _well,
    ) -> None:
        """Make one that knows no job.

        `offered`: what each artifact brings, by digest. `fails`: why a job fails at its end; empty: it does
        not.
        """
        self.clock: Final = clock if clock is not None else ManualClock()
        self.databases: Final = databases if databases is not None else {}
        self.offered: Final = offered if offered is not None else {}
        self._lasts_s = lasts_s
        self._fails = fails
        self._jobs: dict[model.EnvironmentKey, dict[str, _Job]] = {}

    def database(self, key: model.EnvironmentKey) -> Database:
        """Of an environment; an empty one if it was never used."""
        return self.databases.setdefault(key, Database())

    def apply(self, job: MigrationJob) -> None:
        """Begin a job that it does not know; not while another one runs."""
        key = model.EnvironmentKey(app=job.app, environment=job.environment)
        self.advance()
        known = self._jobs.setdefault(key, {})
        if job.id in known or any(one.state is JobState.RUNNING for one in known.values()):
            return
        known[job.id] = _Job(job=job, began_s=self.clock.monotonic(), lasts_s=self._lasts_s(job))

    def observe(self, key: model.EnvironmentKey) -> tuple[JobStatus, ...]:
        """Those that it knows."""
        self.advance()
        return tuple(
            JobStatus(id=one.job.id, state=one.state, study=one.study, failure=one.failure)
            for one in self._jobs.get(key, {}).values()
        )

    def remove(self, key: model.EnvironmentKey, job_id: str) -> None:
        """Kill it where it stands, and forget it."""
        self.advance()
        found = self._jobs.get(key, {}).pop(job_id, None)
        if found is not None:
            self._release(key, found)

    def die(self) -> None:
        """The process ends, and with it all of its jobs, where they stand."""
        self.advance()
        for key, jobs in self._jobs.items():
            for one in jobs.values():
                self._release(key, one)
        self._jobs.clear()

    def advance(self) -> None:
        """Let the jobs do what they have had time for."""
        for key, jobs in self._jobs.items():
            for one in jobs.values():
                if one.state is JobState.RUNNING:
                    self._advance(self.database(key), one)

    def _advance(self, database: Database, one: _Job) -> None:
        if database.holder not in (None, one):
            one.began_s = self.clock.monotonic()
            return
        database.holder = one
        steps, now_s = one.job.steps, self.clock.monotonic()
        piece_s = one.lasts_s / (len(steps) + 1)
        offered = self._offered(database, one.job)
        while one.state is JobState.RUNNING and now_s - one.began_s >= piece_s * (one.done + 1):
            if database.fence > one.job.fence and steps:
                self._end(database, one, "a newer job was at this database")
            elif one.done < len(steps) and not database.can(steps[one.done], offered):
                self._end(database, one, f"The release has no migration {steps[one.done].id}.")
            elif one.done == len(steps):
                self._end(database, one, self._fails(one.job))
            else:
                database.fence = one.job.fence
                database.do(steps[one.done], offered)
                one.done += 1

    def _end(self, database: Database, one: _Job, failure: str) -> None:
        database.holder = None
        if failure:
            one.state, one.failure = JobState.FAILED, failure
            return
        database.fence = max(database.fence, one.job.fence)
        offered = self._offered(database, one.job)
        one.study = Study(applied=tuple(database.applied), offered=offered, fence=database.fence)
        one.state = JobState.DONE

    def _offered(self, database: Database, job: MigrationJob) -> tuple[Migration, ...]:
        """What is applied as the ledger has it, what is not as the artifact has it."""
        applied = {one.id: one for one in database.applied}
        brought = self.offered.get(job.digest, ()) if job.offers else ()
        return tuple(applied.get(one.id) or replace(one, release=job.release) for one in brought)

    def _release(self, key: model.EnvironmentKey, one: _Job) -> None:
        database = self.database(key)
        if database.holder is one:
            database.holder = None

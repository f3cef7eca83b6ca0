"""Tries migrations out on a scratch database: up, down, up again, looking at schema and rows each time.

Neighbours: `scratch` makes the database, `seeds` fills it, `runner` runs the scripts as it would in
production, `core.trials` says what follows from what was seen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from tidegate import errors, ports
from tidegate.core import trials
from tidegate.core.migrations import Revert
from tidegate.core.trials import Moment, Trial, TrialResult
from tidegate.migrators import seeds
from tidegate.migrators.runner import Author, Runner
from tidegate.migrators.scratch import copied
from tidegate.migrators.scripts import SqlMigration
from tidegate.migrators.session import Session

APP = "trial"
ENVIRONMENT = "scratch"
AUTHOR = Author(by="trial")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What is known of a migration after its trial."""

    id: str
    result: TrialResult
    fp_before: str
    fp_after: str
    """Of the schema before and after it; empty: it cannot be applied."""
    empty: tuple[str, ...] = ()
    """Tables in which there were no rows to lose, each with the reason."""
    refuses_nulls: str = ""
    """It cannot be applied where a column that allows it holds NULL: what it says then."""


@dataclass(slots=True, kw_only=True)
class _Round:
    """The migrations on their way through copies of one schema."""

    original: Session
    url: str
    clock: ports.Clock
    jitter: Callable[[], float]
    todo: list[SqlMigration]
    done: list[SqlMigration] = field(default_factory=list)
    found: list[Tried] = field(default_factory=list)
    refused_nulls: str = ""
    """By the next one, which is tried again without them."""

    def on_a_copy(self) -> None:
        """Try one after the other, until one leaves the copy as the next must not find it."""
        with copied(self.original, self.url, self.clock) as session:
            runner = Runner(
                session=session, app=APP, environment=ENVIRONMENT, clock=self.clock, jitter=self.jitter
            )
            runner.open()
            for one in self.done:
                runner.up(one, AUTHOR)
            while self.todo and self._next(runner, self.todo[0]):
                pass

    def _next(self, runner: Runner, migration: SqlMigration) -> bool:
        """Whether the copy is fit for another."""
        empty = seeds.sow(runner.session, nulls=not self.refused_nulls)
        trial = _trial(runner, migration)
        result = trials.judge(trial)
        if not result.applies and not self.refused_nulls:
            self.refused_nulls = trial.failure
            return False
        tried = Tried(
            id=migration.id,
            # Who knows more may be stricter than what was seen; milder is an error when it runs.
            result=replace(result, phase=migration.phase or result.phase),
            fp_before=trial.before.catalog.fingerprint,
            fp_after=trial.applied.catalog.fingerprint if trial.applied else "",
            empty=empty,
            refuses_nulls=self.refused_nulls if result.applies else "",
        )
        self.found.append(tried)
        self.done.append(self.todo.pop(0))
        fit = not self.refused_nulls and result.revert not in (Revert.FAKE, Revert.BROKEN)
        self.refused_nulls = ""
        if not result.applies:
            self.todo.clear()
        return fit


def tried(
    original: Session,
    url: str,
    migrations: Sequence[SqlMigration],
    clock: ports.Clock,
    jitter: Callable[[], float],
) -> tuple[Tried, ...]:
    """Each in turn, on a copy of the schema as it is now; after one that cannot be applied no more.

    `url`: of the original, which is only read. Raises DatabaseError, SchemaError, MissingProgramError.
    """
    round_ = _Round(original=original, url=url, clock=clock, jitter=jitter, todo=list(migrations))
    while round_.todo:
        round_.on_a_copy()
    return tuple(round_.found)


def _moment(session: Session) -> Moment:
    return Moment(catalog=session.catalog(), contents=session.contents())


def _trial(runner: Runner, migration: SqlMigration) -> Trial:
    """Up, down and up, as far as it goes."""
    trial = Trial(before=_moment(runner.session), no_way_back=migration.no_way_back)
    try:
        runner.up(migration, AUTHOR)
        trial = replace(trial, applied=_moment(runner.session))
        if migration.down is not None:
            runner.down(migration.id, AUTHOR)
            trial = replace(trial, reverted=_moment(runner.session))
            runner.up(migration, AUTHOR)
            trial = replace(trial, again=_moment(runner.session))
    except errors.LostDatabaseError:
        raise
    except (errors.DatabaseError, errors.SchemaError) as error:
        trial = replace(trial, failure=error.message)
    return trial

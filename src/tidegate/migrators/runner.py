"""Runs scripts against a database, each exactly once, and writes down what came of it.

A script and its row in the ledger are one transaction, so that whoever is killed, wherever, leaves either
both or nothing. Scripts that cannot run in one (`-- transaction: off`) go statement by statement: each that
can has a transaction of its own with the count of what is finished; of one that cannot (CREATE INDEX
CONCURRENTLY) the ledger says first that it is about to run, and after a crash the schema shows what became of
it. What the schema does not show, the verify script or a person says; nothing is forced.

Whoever waits for a lock inside of a transaction makes everybody behind them wait too. So the first tries are
very short, and who holds locks for long (a report, a backup) is waited for outside of any transaction.

Neighbours: `session` (the connection), `ledger` (the rows), `core.ledgers` (what follows from them).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from tidegate import errors, ports
from tidegate.core import catalogs, ledgers
from tidegate.core.ledgers import Doubt, LedgerRow, Offered, RowState
from tidegate.core.migrations import MigrationPhase, Revert
from tidegate.core.schemas import Proof
from tidegate.migrators import scripts
from tidegate.migrators.ledger import Ledger, LedgerEvent, Opened
from tidegate.migrators.scripts import Script, SqlMigration
from tidegate.migrators.session import LOCK_TIMEOUT_S, STATEMENT_TIMEOUT_S, Limits, Session
from tidegate.migrators.statements import Statement

LOCK_WAIT_S: Final = 60.0
"""A script gives up when its locks were not to be had for so long; nothing of it has happened then."""
LOCK_FIRST_S: Final = 0.01
"""Of the first try; each has twice as long as the one before, up to what the script allows."""
PAUSE_MIN_S: Final = 0.1
PAUSE_MAX_S: Final = 2.0
LET_PASS_S: Final = 10.0
"""Who holds locks for longer may hold others than those that are needed."""
LOOK_S: Final = 0.05
"""Between two looks at who holds locks for long."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """On whose behalf scripts run."""

    release: int = 0
    digest: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a script is."""

    id: str
    statement: int
    """From 1."""
    statements: int
    waits: str = ""
    """For which lock, if it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a database says of itself."""

    opened: Opened
    applied: tuple[LedgerRow, ...]
    """Of the app, oldest first, unfinished ones included."""
    fingerprint: str
    """Of the schema as it is."""

    @property
    def drifted(self) -> bool:
        """Somebody else has changed the schema since Tidegate did; not known while there is a doubt."""
        doubtful = any(row.doubtful for row in self.opened.rows)
        return not doubtful and self.fingerprint != self.opened.fingerprint


def _quiet(progress: Progress) -> None:
    """Nobody watches."""


@dataclass(kw_only=True)
class Runner:
    """For one app in one environment."""

    session: Session
    app: str
    environment: str
    clock: ports.Clock
    jitter: Callable[[], float]
    """A number from 0 to 1, another one each time: so that those who wait do not come back together."""
    lock_wait_s: float = LOCK_WAIT_S
    fence: int = 0
    """Of the job; a database that has seen a greater one is not touched."""
    proofs: Mapping[str, Proof] = field(default_factory=dict)
    """What is known of migrations that are applied, by id."""
    tell: Callable[[Progress], None] = _quiet
    _ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self._ledger = Ledger(self.session)

    def open(self) -> Standing:
        """Make the ledger if there is none, and look.

        Raises SchemaError: it is another environment's, was edited, or is a newer Tidegate's; DatabaseError.
        """
        self._patiently(lambda _: self._ledger.make(self.app, self.environment))
        return self.look()

    def look(self) -> Standing:
        """What is applied. Raises like `open`."""
        opened = self._ledger.read()
        broken = ledgers.edited(opened.rows)
        if broken:
            names = ", ".join(f"{row.id} (row {row.seq})" for row in broken[:3])
            raise errors.SchemaError(
                f"Somebody has edited the ledger of the database by hand: {names}.",
                hint="Restore the ledger's tables from a backup of the database.",
            )
        mine = tuple(row for row in ledgers.standing(opened.rows) if row.app == self.app)
        return Standing(opened=opened, applied=mine, fingerprint=self.session.catalog().fingerprint)

    def check(self, migrations: Iterable[SqlMigration]) -> None:
        """Whether a release's migrations follow on what is applied. Raises MigrationError."""
        rows = [row for row in self.look().opened.rows if row.app == self.app]
        offered = [
            Offered(id=one.id, number=one.number, up=one.up.body, replaces=one.replaces) for one in migrations
        ]
        found = ledgers.mismatches(offered, rows)
        if found:
            raise errors.MigrationError(tuple(errors.Problem(one.id, one.what, one.todo) for one in found))

    def events(self, count: int = 50) -> tuple[LedgerEvent, ...]:
        """What happened to the schema, the newest first."""
        return self._ledger.events(count)

    # --- up and down -------------------------------------------------------------------------------

    def up(self, migration: SqlMigration, author: Author) -> bool:
        """Apply a migration; whether anything was done: it may be applied already.

        Raises DatabaseError: a statement failed, or its locks were not to be had, and nothing of the script
        stays (without a transaction: nothing of that statement); SchemaError: the schema is not as Tidegate
        left it, the script was edited, a statement is in doubt, or it did more than its phase allows.
        """
        action = self._up_at_once if migration.up.transaction else self._up_stepwise
        return self._watched(migration.id, author, lambda wait_s: action(migration, author, wait_s))

    def _up_at_once(self, migration: SqlMigration, author: Author, wait_s: float) -> bool:
        began = self.clock.monotonic()
        with self._changing(_limits(migration.up, wait_s)):
            row = self._row(migration.id)
            if row is not None:
                _refuse_half(row)
                return False
            if self._replaced(migration, author):
                return True
            before = self._undrifted()
            self._run(migration.id, migration.up.statements)
            after = self.session.catalog()
            self._ledger.add(
                replace(
                    self._row_of(migration, author),
                    phase=_phase(migration, before, after),
                    done=len(migration.up.statements),
                    fp_before=before.fingerprint,
                    fp_now=after.fingerprint,
                    took_s=self.clock.monotonic() - began,
                )
            )
            self._ledger.leave(after.fingerprint)
            self._tell(migration.id, "applied", author)
        return True

    def down(self, id_: str, author: Author) -> bool:
        """Revert a migration by the script in the ledger; whether anything was done. Raises like `up`."""
        row = self._row(id_)
        if row is None:
            return False
        if not row.down:
            raise errors.SchemaError(
                f"{id_} cannot be reverted: {row.no_way_back}.", hint=f"r{row.release} brought it."
            )
        script = scripts.script_of(f"{id_}.down.sql", row.down)
        action = self._down_at_once if script.transaction else self._down_stepwise
        return self._watched(id_, author, lambda wait_s: action((id_, script), author, wait_s))

    def _down_at_once(self, revert: tuple[str, Script], author: Author, wait_s: float) -> bool:
        began, (id_, script) = self.clock.monotonic(), revert
        with self._changing(_limits(script, wait_s)):
            row = self._row(id_)
            if row is None:
                return False
            _refuse_half(row)
            self._undrifted()
            self._run(id_, script.statements)
            self._reverted(row, author, began)
        return True

    def _reverted(self, row: LedgerRow, author: Author, began: float) -> None:
        after = self.session.catalog().fingerprint
        took_s = self.clock.monotonic() - began
        reverted = replace(row, state=RowState.REVERTED, fp_now=after, by=author.by, took_s=took_s)
        self._ledger.change(replace(reverted, at=self.clock.now()))
        self._ledger.leave(after)
        self._tell(row.id, "reverted", author)

    # --- statement by statement --------------------------------------------------------------------
    # Each piece looks at the row again in its own transaction: on SQLite others may be at it too.

    def _up_stepwise(self, migration: SqlMigration, author: Author, wait_s: float) -> bool:
        began = self.clock.monotonic()
        with self._changing(Limits()):
            row = self._row(migration.id)
            if row is not None and row.state is RowState.APPLIED:
                return False
            if row is None:
                before = self._undrifted().fingerprint
                begun = replace(self._row_of(migration, author), state=RowState.APPLYING)
                row = self._ledger.add(replace(begun, fp_before=before, fp_now=before))
            elif row.state is RowState.REVERTING:
                _refuse_half(row)
            self._edited_on(row, migration)
        self._steps(migration.id, migration.up, migration.verify, wait_s)
        with self._changing(Limits()):
            row = self._row(migration.id)
            if row is None or row.state is not RowState.APPLYING:
                return False
            took_s = self.clock.monotonic() - began
            self._ledger.change(replace(row, state=RowState.APPLIED, at=self.clock.now(), took_s=took_s))
            self._tell(migration.id, "applied", author)
        return True

    def _edited_on(self, row: LedgerRow, migration: SqlMigration) -> None:
        """Take the script as it is now: what is finished must stand in it as it ran."""
        if ledgers.normalized(row.up) == ledgers.normalized(migration.up.body):
            return
        old = [one.text for one in scripts.script_of(migration.id, row.up).statements]
        if not ledgers.goes_on(row, old, [one.text for one in migration.up.statements]):
            raise errors.SchemaError(
                f"{migration.id} is half applied, and its first {row.done} statements are not what ran.",
                hint="Change only what comes after them.",
            )
        down = migration.down.body if migration.down else ""
        self._ledger.change(replace(row, up=migration.up.body, down=down))

    def _down_stepwise(self, revert: tuple[str, Script], author: Author, wait_s: float) -> bool:
        began, (id_, script) = self.clock.monotonic(), revert
        with self._changing(Limits()):
            row = self._row(id_)
            if row is None:
                return False
            if row.state is RowState.APPLYING:
                _refuse_half(row)
            if row.state is RowState.APPLIED:
                fingerprint = self._undrifted().fingerprint
                self._ledger.change(replace(row, state=RowState.REVERTING, done=0, fp_now=fingerprint))
        self._steps(id_, script, None, wait_s)
        with self._changing(Limits()):
            row = self._row(id_)
            if row is None or row.state is not RowState.REVERTING:
                return False
            self._reverted(row, author, began)
        return True

    def _steps(self, id_: str, script: Script, verify: Script | None, wait_s: float) -> None:
        """The statements of a script that are not finished, one after the other."""
        while (row := self._row(id_)) is not None and row.unfinished and row.done < len(script.statements):
            statement = script.statements[row.done]
            self._show(id_, row.done, script.statements)
            if row.doubtful:
                self._settle(row, statement, verify)
            else:
                self._step(row, statement, _limits(script, wait_s))

    def _step(self, row: LedgerRow, statement: Statement, limits: Limits) -> None:
        try:
            with self._changing(limits):
                if self._row(row.id) == row:
                    with _located(row.id, statement):
                        self.session.run(statement.text)
                    self._finished(row)
                return
        except errors.DatabaseError as error:
            if not self.session.needs_none(error):
                raise
        with self._changing(Limits()):
            row = self._ledger.change(replace(row, doubtful=True))
        try:
            with _located(row.id, statement):
                self.session.run_alone(statement.text, _alone(statement, limits))
        except errors.LostDatabaseError:
            raise
        except errors.DatabaseError:
            self._clean(row)
            raise
        with self._changing(Limits()):
            self._finished(row)

    def _finished(self, row: LedgerRow) -> None:
        now = self.session.catalog().fingerprint
        self._ledger.change(replace(row, done=row.done + 1, doubtful=False, fp_now=now))
        self._ledger.leave(now)

    def _clean(self, row: LedgerRow) -> None:
        """After a statement that failed outside of a transaction: what it has left goes, the doubt too."""
        index = ledgers.leftover(self.session.catalog(), row.fp_now)
        if index is not None:
            self.session.run_alone(f"DROP INDEX CONCURRENTLY {_index(index)}", Limits())
        with self.session.transaction(Limits()):
            self._ledger.change(replace(row, doubtful=False))

    def _settle(self, row: LedgerRow, statement: Statement, verify: Script | None) -> None:
        """Find out what became of a statement whose end nobody saw."""
        catalog = self.session.catalog()
        if ledgers.leftover(catalog, row.fp_now) is not None:
            self._clean(row)
            return
        found = ledgers.doubt(row, statement.words, catalog.fingerprint)
        if found is Doubt.ASK and verify is not None:
            found = Doubt.DONE if self._verified(verify) else Doubt.AGAIN
        if found is Doubt.ASK:
            raise errors.SchemaError(
                f"{row.id}, line {statement.line}: nobody saw whether this statement ended, and the schema "
                "does not show it.",
                hint=f"Look at the data, then say it: tide migrate resolve {row.id} --done or --not-done.",
            )
        with self.session.transaction(Limits()):
            if found is Doubt.DONE:
                self._finished(row)
            else:
                self._ledger.change(replace(row, doubtful=False))

    def _verified(self, verify: Script) -> bool:
        """None of its statements fails, and the last one gives rows."""
        try:
            with self.session.transaction(_limits(verify, LOCK_TIMEOUT_S)):
                *first, last = verify.statements
                for one in first:
                    self.session.run(one.text)
                return bool(self.session.rows(last.text))
        except errors.LostDatabaseError:
            raise
        except errors.DatabaseError:
            return False

    # --- what people say ---------------------------------------------------------------------------

    def resolve(self, id_: str, author: Author, *, done: bool) -> None:
        """Say what became of the statement that is in doubt. Raises SchemaError: none is."""
        with self.session.transaction(Limits()):
            row = self._row(id_)
            if row is None or not row.doubtful:
                raise errors.SchemaError(
                    f"No statement of {id_} is in doubt.",
                    hint="`tide migrate status` shows what is.",
                )
            if done:
                self._finished(row)
            else:
                self._ledger.change(replace(row, doubtful=False))
            self._tell(id_, "resolved", author, "done" if done else "not done")

    def adopt(self, author: Author, why: str) -> None:
        """Take the schema as it is, although somebody else has changed it."""
        with self.session.transaction(Limits()):
            fingerprint = self.session.catalog().fingerprint
            self._ledger.leave(fingerprint)
            self._tell("", "adopted", author, why)

    def baseline(self, migrations: Sequence[SqlMigration], author: Author) -> None:
        """Take migrations as applied that another tool has applied. Raises SchemaError: there are some."""
        with self.session.transaction(Limits()):
            if self.look().applied:
                raise errors.SchemaError(
                    "The ledger knows migrations of this app already.",
                    hint="A baseline is for a database that another tool has kept so far.",
                )
            fingerprint = self.session.catalog().fingerprint
            for one in migrations:
                row = self._row_of(one, author)
                self._ledger.add(replace(row, done=len(one.up.statements), fp_now=fingerprint))
                self._tell(one.id, "baseline", author)

    # --- pieces ------------------------------------------------------------------------------------

    def _row(self, id_: str) -> LedgerRow | None:
        return self._ledger.row(self.app, id_)

    @contextmanager
    def _changing(self, limits: Limits) -> Iterator[None]:
        """A transaction of a job that has not come too late."""
        with self.session.transaction(limits):
            self.refuse_late()
            yield

    def refuse_late(self) -> None:
        """Raises SchemaError: a newer job has been at this database."""
        if self._ledger.fence(self.app, self.fence) > self.fence:
            raise errors.SchemaError(
                "A newer rollout has been at this database since this job was asked for: it changes nothing.",
                hint="`tide migrate status` shows what is applied.",
            )

    def fenced(self) -> int:
        """The greatest fence that the database has seen, this one included."""
        with self.session.transaction(Limits()):
            return self._ledger.fence(self.app, self.fence)

    def _row_of(self, migration: SqlMigration, author: Author) -> LedgerRow:
        proof = self.proofs.get(migration.id)
        return LedgerRow(
            seq=0,
            app=self.app,
            id=migration.id,
            state=RowState.APPLIED,
            phase=migration.phase or MigrationPhase.EXPAND,
            up=migration.up.body,
            down=migration.down.body if migration.down else "",
            verify=migration.verify.body if migration.verify else "",
            no_way_back=migration.no_way_back,
            revert=proof.revert if proof else Revert.NONE,
            why=proof.why if proof else "it was never tried",
            release=author.release,
            digest=author.digest,
            by=author.by,
            at=self.clock.now(),
        )

    def _replaced(self, migration: SqlMigration, author: Author) -> bool:
        """Take a migration as applied whose parts are."""
        parts = [row for row in (self._row(id_) for id_ in migration.replaces) if row is not None]
        if not parts or len(parts) < len(migration.replaces):
            return False
        for row in parts:
            _refuse_half(row)
            self._ledger.change(replace(row, state=RowState.REPLACED, at=self.clock.now(), by=author.by))
        fingerprint = self.session.catalog().fingerprint
        row = replace(self._row_of(migration, author), done=len(migration.up.statements))
        strictest = parts[0].phase
        for part in parts:
            strictest = catalogs.stricter(strictest, part.phase)
        self._ledger.add(replace(row, phase=strictest, fp_before=parts[0].fp_before, fp_now=fingerprint))
        self._tell(migration.id, "applied", author, f"replaces {', '.join(migration.replaces)}")
        return True

    def _undrifted(self) -> catalogs.Catalog:
        """The schema, which has to be as Tidegate left it."""
        catalog = self.session.catalog()
        if catalog.fingerprint != self._ledger.fingerprint():
            raise errors.SchemaError(
                "The schema is not as Tidegate left it: somebody else has changed it.",
                hint="Undo the change, or take the schema as it is: tide migrate adopt.",
            )
        return catalog

    def _run(self, id_: str, found: Sequence[Statement]) -> None:
        for at, statement in enumerate(found):
            self._show(id_, at, found)
            with _located(id_, statement):
                self.session.run(statement.text)

    def _show(self, id_: str, at: int, found: Sequence[Statement]) -> None:
        self.tell(Progress(id=id_, statement=at + 1, statements=len(found)))

    def _tell(self, id_: str, what: str, author: Author, detail: str = "") -> None:
        self._ledger.tell(
            LedgerEvent(app=self.app, id=id_, what=what, detail=detail, by=author.by, at=self.clock.now())
        )

    def _watched(self, id_: str, author: Author, action: Callable[[float], bool]) -> bool:
        """With patience; and write down that a script failed, if the database still listens."""
        try:
            return self._patiently(action, id_)
        except errors.LostDatabaseError:
            raise
        except (errors.DatabaseError, errors.SchemaError) as error:
            with contextlib.suppress(errors.DatabaseError), self.session.transaction(Limits()):
                self._tell(id_, "failed", author, error.message)
            raise

    def _patiently(self, action: Callable[[float], Result], id_: str = "") -> Result:
        """Again and again while somebody holds a lock that it needs; `action` is told how long it may wait.

        Raises BusyDatabaseError: not in all the time.
        """
        deadline = self.clock.monotonic() + self.lock_wait_s
        wait_s, pause_s = LOCK_FIRST_S, PAUSE_MIN_S
        while True:
            try:
                return action(wait_s)
            except errors.BusyDatabaseError as error:
                if self.clock.monotonic() >= deadline:
                    raise errors.BusyDatabaseError(
                        f"{error.message} It was tried for {self.lock_wait_s:.0f} s.",
                        hint=_suspects(self.session.blockers()),
                    ) from error
                self.tell(Progress(id=id_, statement=0, statements=0, waits=error.message))
            self.clock.sleep(pause_s * (0.5 + self.jitter()))
            self._let_pass(id_, min(deadline, self.clock.monotonic() + LET_PASS_S))
            wait_s, pause_s = wait_s * 2, min(pause_s * 2, PAUSE_MAX_S)

    def _let_pass(self, id_: str, deadline: float) -> None:
        """Wait until nobody holds locks for long any more: a try before that would only hold up others."""
        told: tuple[str, ...] = ()
        while (found := self.session.blockers()) and self.clock.monotonic() < deadline:
            if not told:
                self.tell(Progress(id=id_, statement=0, statements=0, waits=", ".join(found)))
            told = found
            self.clock.sleep(LOOK_S)


def _limits(script: Script, wait_s: float) -> Limits:
    """`wait_s`: for a lock in this try, if the script allows as much."""
    return Limits(
        lock_s=min(script.lock_timeout_s or LOCK_TIMEOUT_S, wait_s),
        statement_s=script.statement_timeout_s or STATEMENT_TIMEOUT_S,
    )


def _suspects(blockers: tuple[str, ...]) -> str:
    if not blockers:
        return "Nothing of it has happened. Try again when the database has less to do."
    return f"Nothing of it has happened. Long in a transaction: {', '.join(blockers)}."


def _alone(statement: Statement, limits: Limits) -> Limits:
    """What runs CONCURRENTLY holds up nobody while it waits, and has much to undo when it gives up."""
    return replace(limits, lock_s=limits.statement_s) if "CONCURRENTLY" in statement.words else limits


def _phase(migration: SqlMigration, before: catalogs.Catalog, after: catalogs.Catalog) -> MigrationPhase:
    """As observed and declared. Raises SchemaError: it did more than it says."""
    observed = catalogs.phase(before, after)
    declared = migration.phase or observed
    if catalogs.stricter(declared, observed) is not declared:
        why = "; ".join(str(one) for one in catalogs.findings(before, after) if one.phase is observed)
        raise errors.SchemaError(
            f"{migration.id} says that it is {declared}, but it is {observed}: {why}.",
            hint=f"Say `-- phase: {observed}`, or change what it does. Nothing of it stays.",
        )
    return declared


def _refuse_half(row: LedgerRow) -> None:
    if row.unfinished:
        raise errors.SchemaError(
            f"{row.id} is half way: {row.done} of its statements are done ({row.state}).",
            hint="A rollout that goes in the same direction goes on where it stopped.",
        )


def _index(key: catalogs.EntryKey) -> str:
    schema = key.owner.rpartition(".")[0] or "public"
    return ".".join('"' + part.replace('"', '""') + '"' for part in (schema, key.name))


@contextmanager
def _located(id_: str, statement: Statement) -> Iterator[None]:
    """Say in which script and line."""
    try:
        yield
    except errors.DatabaseError as error:
        where = f"{id_}, line {statement.line}: {error.message}"
        raise type(error)(where, hint=error.hint) from error

"""`Session` of a SQLite database: a file on this machine.

Two writers cannot be at once: a transaction begins with the lock (BEGIN IMMEDIATE), so that what was read in
it still holds when it is written. Foreign keys are not enforced while a script runs, as the manual asks for
("Making Other Kinds Of Table Schema Changes"): enforced, the rebuilding of a table would delete the rows that
refer to it. Instead they are checked before the commit.

Neighbours: `sqlite_catalog` reads the schema.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tidegate import errors
from tidegate.core.catalogs import Catalog, EntryKind
from tidegate.core.trials import Contents, Rows
from tidegate.migrators import sqlite_catalog
from tidegate.migrators.session import LOCK_TIMEOUT_S, Limits, Row

_BUSY: Final = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_STEPS: Final = 10_000
"""Of SQLite's machine between two looks at the clock: some tenth of a millisecond."""


class SqliteSession:
    """`Session`."""

    engine: Final = "sqlite"

    def __init__(self, file: Path) -> None:
        """Raises DatabaseError: it cannot be opened, or is no database. A file that is not there is made."""
        self._until: float | None = None
        self._deadline: float | None = None
        with _told():
            self._connection = sqlite3.connect(file, isolation_level=None, timeout=LOCK_TIMEOUT_S)
            self._connection.set_progress_handler(self._is_late, _STEPS)
            self._connection.execute("PRAGMA foreign_keys = OFF")
            self._connection.execute("SELECT count(*) FROM sqlite_schema")

    @contextmanager
    def transaction(self, limits: Limits) -> Iterator[None]:
        with _told():
            self._limited(limits)
            self._connection.execute("BEGIN IMMEDIATE")
            broken = self._violations()
        try:
            yield
            self._deadline = None
            with _told():
                self._check(self._violations() - broken)
                self._connection.execute("COMMIT")
        except BaseException:
            self._deadline = None
            if self._connection.in_transaction:
                with _told():
                    self._connection.execute("ROLLBACK")
            raise
        finally:
            self._limited(None)

    def rows(self, sql: str, values: Mapping[str, object] | None = None) -> list[Row]:
        with _told():
            return self._connection.execute(sql, dict(values or {})).fetchall()

    def run(self, statement: str) -> None:
        self._deadline = self._until
        try:
            with _told():
                self._connection.execute(statement).fetchall()
        finally:
            self._deadline = None

    def run_alone(self, statement: str, limits: Limits) -> None:
        self._limited(limits)
        try:
            self.run(statement)
        finally:
            self._limited(None)

    def needs_none(self, error: BaseException | None) -> bool:
        while isinstance(error, errors.DatabaseError):
            error = error.__cause__
        return isinstance(error, sqlite3.OperationalError) and "within a transaction" in str(error)

    def catalog(self) -> Catalog:
        with _told():
            return sqlite_catalog.read(self._connection)

    def blockers(self) -> tuple[str, ...]:
        return ()  # SQLite does not tell

    def connected(self) -> tuple[str, ...]:
        return ()  # nor who has the file open

    def contents(self) -> Contents:
        found = self.catalog()
        tables = sorted(key.name for key in found.entries if key.kind is EntryKind.TABLE)
        with _told():
            return {table: self._rows_of(table, found.orders[table]) for table in tables}

    def close(self) -> None:
        self._connection.close()

    def _rows_of(self, table: str, columns: tuple[str, ...]) -> Rows:
        names = sorted(columns)
        listed = ", ".join(_quoted(name) for name in names)
        total, each, count = 0, [0] * len(names), 0
        for row in self._connection.execute(f"SELECT {listed} FROM {_quoted(table)}"):  # noqa: S608 - quoted
            count += 1
            total += _hashed(row)
            each = [known + _hashed(value) for known, value in zip(each, row, strict=True)]
        columns_told = {name: f"{one:x}" for name, one in zip(names, each, strict=True)}
        return Rows(count=count, digest=f"{total:x}", columns=columns_told)

    def _violations(self) -> set[Row]:
        return set(self._connection.execute("PRAGMA foreign_key_check").fetchall())

    @staticmethod
    def _check(violations: set[Row]) -> None:
        if violations:
            table, _, parent, _ = min(violations, key=str)
            raise errors.DatabaseError(
                f"{len(violations)} rows refer to others that are not there any more, the first from {table} "
                f"to {parent}.",
                hint="The script deletes or renames what foreign keys point to.",
            )

    def _limited(self, limits: Limits | None) -> None:
        lock_s = limits.lock_s if limits else LOCK_TIMEOUT_S
        self._connection.execute(f"PRAGMA busy_timeout = {round(lock_s * 1000)}")
        self._until = time.monotonic() + limits.statement_s if limits else None

    def _is_late(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _hashed(value: object) -> int:
    return int.from_bytes(hashlib.blake2b(repr(value).encode(), digest_size=16).digest())


@contextmanager
def _told() -> Iterator[None]:
    """What SQLite raises, as errors of Tidegate's."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _BUSY:
            raise errors.BusyDatabaseError(f"The database is locked by somebody else: {error}.") from error
        if code == sqlite3.SQLITE_INTERRUPT:
            raise errors.DatabaseError("A statement took longer than it may.") from error
        raise errors.DatabaseError(f"SQLite: {error}.") from error

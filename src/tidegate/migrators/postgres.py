"""`Session` of a PostgreSQL database, over psycopg, which `pip install 'tidegate[postgres]'` brings.

One runner at a time holds a session advisory lock on the very connection that runs the scripts: if the
connection dies, lock and open transaction go together, and nobody has to break a lock by hand. The lock is
polled: a session that waits inside pg_advisory_lock has a snapshot open, on which CREATE INDEX CONCURRENTLY
waits in turn (measured: a deadlock). Behind a pooler that hands out another server connection with each
transaction such a lock is none, so poolers are found and refused.

Neighbours: `postgres_catalog` reads the schema.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import psycopg
from psycopg import sql as composed
from psycopg.errors import (
    ActiveSqlTransaction,
    DeadlockDetected,
    InvalidTransactionTermination,
    LockNotAvailable,
    QueryCanceled,
)

from tidegate import errors, ports
from tidegate.core.catalogs import Catalog, EntryKind
from tidegate.core.trials import Contents, Rows
from tidegate.migrators import postgres_catalog
from tidegate.migrators.session import Limits, Row

CONNECT_TIMEOUT_S: Final = 10
POLL_S: Final = 0.25
_KEY: Final = int.from_bytes(hashlib.sha256(b"tidegate migrations").digest()[:8], signed=True)
"""Of the advisory lock, which counts in one database: apps that share it share its schema too."""
_PROBES: Final = 5
_LOST: Final = ("08", "57P")
"""Classes of SQLSTATE (PostgreSQL manual, appendix A): connection exceptions, the server going down."""
_SCHEME: Final = re.compile(r"^[a-z0-9]+(\+[a-z0-9_]+)?://")
LONG_S: Final = 0.5
"""A transaction of an app is over by then; a report, a backup, a forgotten console are not."""
_BLOCKERS: Final = """
    SELECT a.pid, a.application_name,
           pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - a.xact_start)
    FROM pg_catalog.pg_stat_activity a
    WHERE a.datname = pg_catalog.current_database() AND a.pid <> pg_catalog.pg_backend_pid()
    AND a.xact_start < pg_catalog.clock_timestamp() - pg_catalog.make_interval(secs => %s)
    AND EXISTS (
        SELECT FROM pg_catalog.pg_locks l
        WHERE l.pid = a.pid AND l.granted AND l.locktype = 'relation' AND l.relation >= 16384
    )
    ORDER BY a.xact_start
"""
"""Relations below 16384 are the server's own (FirstNormalObjectId in its access/transam.h)."""
_NAMED: Final = re.compile(r":([a-z_]+)")


_CONNECTED: Final = """
    SELECT application_name FROM pg_catalog.pg_stat_activity
    WHERE datname = pg_catalog.current_database() AND pid <> pg_catalog.pg_backend_pid()
    AND application_name <> ''
"""


class PostgresSession:
    """`Session`."""

    engine: Final = "postgresql"

    def __init__(self, url: str, *, clock: ports.Clock, wait_s: float) -> None:
        """Connects, and waits for the lock.

        Raises DatabaseError: no such server, database or role; a pooler; BusyDatabaseError: somebody else had
        the lock for all of `wait_s` seconds.
        """
        with _told():
            self._connection = psycopg.connect(
                url,
                autocommit=True,
                connect_timeout=CONNECT_TIMEOUT_S,
                application_name="tidegate migrations",
                prepare_threshold=None,
            )
        try:
            self._refuse_poolers()
            self._lock(clock, wait_s)
        except BaseException:
            self.close()
            raise

    @contextmanager
    def transaction(self, limits: Limits) -> Iterator[None]:
        try:
            with _told():
                self._execute("BEGIN")
                self._limit("LOCAL", limits)
            yield
            with _told():
                self._execute("COMMIT")
        except BaseException:
            if not self._connection.closed:
                with _told():
                    self._execute("ROLLBACK")
            raise

    def rows(self, sql: str, values: Mapping[str, object] | None = None) -> list[Row]:
        with _told():
            text = _NAMED.sub(r"%(\1)s", sql.replace("%", "%%")) if values else sql
            cursor = self._connection.execute(text.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def run(self, statement: str) -> None:
        with _told():
            self._execute(statement)

    def run_alone(self, statement: str, limits: Limits) -> None:
        with _told():
            self._limit("SESSION", limits)
            try:
                self._execute(statement)
            finally:
                if not self._connection.closed:
                    self._execute("RESET lock_timeout")
                    self._execute("RESET statement_timeout")

    def needs_none(self, error: BaseException | None) -> bool:
        while isinstance(error, errors.DatabaseError):
            error = error.__cause__
        return isinstance(error, (ActiveSqlTransaction, InvalidTransactionTermination))

    def catalog(self) -> Catalog:
        with _told(), self._bare_search_path():
            return postgres_catalog.read(self._ask)

    def blockers(self) -> tuple[str, ...]:
        with _told():
            found = self._connection.execute(_BLOCKERS, (LONG_S,)).fetchall()
        return tuple(f"{name or 'somebody'} (process {pid}, for {round(s)} s)" for pid, name, s in found)

    def connected(self) -> tuple[str, ...]:
        with _told():
            return tuple(sorted(name for (name,) in self._ask(_CONNECTED)))

    def contents(self) -> Contents:
        found = self.catalog()
        tables = sorted(key.name for key in found.entries if key.kind is EntryKind.TABLE)
        with _told(), self._bare_search_path():
            held = {table: self._rows_of(table, found.orders.get(table, ())) for table in tables}
            sequences = sorted(key.name for key in found.entries if key.kind is EntryKind.SEQUENCE)
            return held | {name: self._position_of(name) for name in sequences}

    def close(self) -> None:
        self._connection.close()

    # --- the lock ----------------------------------------------------------------------------------

    def _refuse_poolers(self) -> None:
        """Transactions of one client that run on several server connections, or share one with another's."""
        with _told():
            seen = {self._connection.execute("SELECT pg_backend_pid()").fetchone() for _ in range(_PROBES)}
        if seen != {(self._connection.info.backend_pid,)}:
            raise errors.DatabaseError(
                "The address leads to a connection pooler, which cannot keep a lock.",
                hint="Give migrations the address of PostgreSQL itself; the app may go on using the pooler.",
            )

    def _lock(self, clock: ports.Clock, wait_s: float) -> None:
        deadline = clock.monotonic() + wait_s
        while True:
            with _told():
                (got,) = self._connection.execute("SELECT pg_try_advisory_lock(%s)", (_KEY,)).fetchone() or (
                    0,
                )
            if got:
                return
            if clock.monotonic() >= deadline:
                raise errors.BusyDatabaseError(
                    f"Somebody else has been running migrations on this database for {wait_s:.0f} s.",
                    hint="Wait for them; `tide migrate status` shows what they do.",
                )
            clock.sleep(POLL_S)

    # --- statements --------------------------------------------------------------------------------

    def _execute(self, statement: str) -> None:
        self._connection.execute(statement.encode())

    def _ask(self, query: str) -> list[Row]:
        return self._connection.execute(query.encode()).fetchall()

    def _limit(self, scope: str, limits: Limits) -> None:
        self._execute(f"SET {scope} lock_timeout = {round(limits.lock_s * 1000)}")
        self._execute(f"SET {scope} statement_timeout = {round(limits.statement_s * 1000)}")

    @contextmanager
    def _bare_search_path(self) -> Iterator[None]:
        """Inside a failed transaction nothing can be restored, nor has to be: it is rolled back."""
        ((before,),) = self._ask("SELECT pg_catalog.current_setting('search_path')")
        self._execute("SELECT pg_catalog.set_config('search_path', '', false)")
        try:
            yield
        finally:
            if self._connection.info.transaction_status != psycopg.pq.TransactionStatus.INERROR:
                self._connection.execute("SELECT pg_catalog.set_config('search_path', %s, false)", (before,))

    # --- contents ----------------------------------------------------------------------------------

    def _rows_of(self, table: str, columns: tuple[str, ...]) -> Rows:
        names = sorted(columns)
        one = composed.SQL(
            "pg_catalog.sum(pg_catalog.hashtextextended(pg_catalog.quote_nullable({}::text), 0)::numeric)"
        )
        whole = composed.SQL("pg_catalog.sum(pg_catalog.hashtextextended(ROW({})::text, 0)::numeric)")
        fields = [composed.Identifier(name) for name in names]
        listed = [composed.SQL("pg_catalog.count(*)"), whole.format(composed.SQL(", ").join(fields))]
        listed += [one.format(field) for field in fields]
        query = composed.SQL("SELECT {} FROM {}").format(composed.SQL(", ").join(listed), _identifier(table))
        count, total, *each = self._connection.execute(query).fetchone() or (0, None)
        return Rows(count=count, digest=str(total), columns=dict(zip(names, map(str, each), strict=True)))

    def _position_of(self, sequence: str) -> Rows:
        query = composed.SQL("SELECT last_value, is_called FROM {}").format(_identifier(sequence))
        last, called = self._connection.execute(query).fetchone() or (0, False)
        return Rows(count=1, digest="", position=2 * int(last) + int(called))


def variables_of(url: str) -> dict[str, str]:
    """The address as environment variables of libpq, for its programs."""
    options = psycopg.pq.Conninfo.parse(_SCHEME.sub("postgresql://", url).encode())
    return {one.envvar.decode(): one.val.decode() for one in options if one.envvar and one.val}


def _identifier(name: str) -> composed.Identifier:
    schema, dot, rest = name.partition(".")
    return composed.Identifier(schema, rest) if dot else composed.Identifier("public", name)


@contextmanager
def _told() -> Iterator[None]:
    """What psycopg raises, as errors of Tidegate's; never with the address, which may hold a password."""
    try:
        yield
    except (LockNotAvailable, DeadlockDetected) as error:
        raise errors.BusyDatabaseError(f"PostgreSQL: {_first_line(error)}.") from error
    except QueryCanceled as error:
        raise errors.DatabaseError(f"PostgreSQL: {_first_line(error)}.") from error
    except psycopg.Error as error:
        if isinstance(error, psycopg.OperationalError) and (error.sqlstate or "08").startswith(_LOST):
            raise errors.LostDatabaseError(f"PostgreSQL: {_first_line(error)}.") from error
        raise errors.DatabaseError(
            f"PostgreSQL: {_first_line(error)}{_code(error)}.", hint=error.diag.message_hint
        ) from error


def _first_line(error: psycopg.Error) -> str:
    lines: list[str] = (error.diag.message_primary or str(error) or type(error).__name__).splitlines()
    return lines[0].rstrip(".")


def _code(error: psycopg.Error) -> str:
    return f" ({error.sqlstate})" if error.sqlstate else ""

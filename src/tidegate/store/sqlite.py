"""The store on SQLite: one file, one control plane, one connection that writes.

Hides transactions, connections, SQLite's settings and its errors. Invariants:

- every write is one `begin immediate` transaction that first checks the lease: what it does not
  acknowledge has not happened, what it does survives a power cut (write-ahead log, synchronous=FULL);
- no more than one connection writes or checkpoints, ever: the API's threads and the loop share it under a
  lock, and the lock file keeps a second process out. That also rules out the WAL-reset bug of SQLite before
  3.51.3, which needs two;
- readers have read-only connections of their own, and never wait for the writer;
- a lease found at the opening is nobody's, whatever its time says: the lock file proves that its holder
  has ended. So a control plane that was killed is followed at once, and times of another boot never count;
- an error of SQLite leaves this module as one of `tidegate.errors`.

Neighbours: `sql` (statements), `codec` (records), `schema` (upgrades, copies), `files` (folder, lock,
ballast), `outbox` and `links` (what is written, decided on values), `failures` and `doctor` (sentences).
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from tidegate import errors, ports
from tidegate.core import model
from tidegate.store import codec, doctor, failures, files, links, outbox, schema, sql

#: Enough for hundreds of commits: an abort needs a few.
BALLAST_BYTES: Final = 16 * 1024 * 1024

#: The log is cut back to this after a checkpoint, so that one long reader does not fill the disk for good.
LOG_BYTES_MAX: Final = 64 * 1024 * 1024

#: Of the database's name: the files that are the store's own.
OWN_SUFFIXES: Final = ("", "-wal", "-shm", "-journal", ".lock", ".ballast")

Row = tuple[Any, ...]


def boot_seconds() -> float:
    """Seconds since the machine was started, suspended time included: the same in all its processes."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SqliteStore:
    """`ports.Store` in a file. Threads may share it; close it at the end."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Callable[[], float] = boot_seconds,
        busy_timeout_s: float = 5.0,
        ballast_bytes: int = BALLAST_BYTES,
    ) -> None:
        """Open the database, or make it. `clock`, of the lease: seconds that only grow, asleep or not.

        Raises LeaseHeldError if another process has it open, NewerStateError, StorageError, and StoreError
        if a program of another kind keeps it locked for longer than `busy_timeout_s`.
        """
        self._path: Final = path
        self._clock: Final = clock
        self._busy_timeout_s: Final = busy_timeout_s
        self._ballast: Final = files.Ballast(
            path=path.with_name(f"{path.name}.ballast"), size_bytes=ballast_bytes
        )
        self._turn: Final = threading.Lock()
        self._idle_readers: Final[list[sqlite3.Connection]] = []
        self._dead_epoch = 0
        self._closed = False
        files.prepare(path.parent)
        self._file_lock: Final = files.Lock(path.with_name(f"{path.name}.lock"))
        try:
            self._writer: Final = self._opened()
        except BaseException:
            self._file_lock.close()
            raise
        self._ballast.ensure()

    def close(self) -> None:
        """Close the file and let another process have it. Reads and writes fail afterwards."""
        with self._turn:
            if self._closed:
                return
            self._closed = True
            while self._idle_readers:
                self._idle_readers.pop().close()
            self._writer.close()
            self._file_lock.close()

    # --- lease ------------------------------------------------------------------------------------

    def acquire(self, holder: str, *, ttl_s: float) -> ports.Lease:
        with self.transaction(None) as connection:
            now = self._clock()
            values = {"holder": holder, "now": now, "expires": now + ttl_s}
            row = _one(connection, sql.TAKE_LEASE, {**values, "dead_epoch": self._dead_epoch})
            if row is None:
                other, _, expires = _one(connection, sql.READ_LEASE, {}) or ("another", 0, now)
                raise errors.LeaseHeldError(
                    f"The state is in use by {other} for another {max(expires - now, 0):.0f} s.",
                    hint="It ends by itself if that control plane has ended.",
                )
            return ports.Lease(holder=holder, epoch=row[0], ttl_s=ttl_s)

    def renew(self, lease: ports.Lease) -> None:
        with self.transaction(lease) as connection:
            expires = self._clock() + lease.ttl_s
            connection.execute(sql.RENEW_LEASE, {**_named(lease), "expires": expires})

    def release_lease(self, lease: ports.Lease) -> None:
        with self.transaction(None) as connection:
            connection.execute(sql.GIVE_LEASE_BACK, _named(lease))

    # --- states -----------------------------------------------------------------------------------

    def environments(self) -> tuple[model.EnvironmentKey, ...]:
        rows = self.rows(sql.ENVIRONMENTS, {})
        return tuple(model.EnvironmentKey(app=app, environment=environment) for app, environment in rows)

    def load(self, key: model.EnvironmentKey) -> ports.Versioned:
        for version, text in self.rows(sql.LOAD_STATE, _place(key)):
            return ports.Versioned(version=version, state=codec.STATE.decode(text))
        return ports.Versioned(version=0, state=model.EnvironmentState(key=key))

    def commit(
        self,
        lease: ports.Lease,
        versioned: ports.Versioned,
        state: model.EnvironmentState,
        events: tuple[model.Event, ...],
        *,
        at: float,
    ) -> ports.Versioned:
        key = versioned.state.key
        if state.key != key:
            raise errors.StoreError(f"The state of {state.key} cannot replace that of {key}.")
        place = _place(key)
        row = {
            **place,
            "version": versioned.version,
            "schema": codec.SCHEMA,
            "state": codec.STATE.encode(state),
        }
        rollouts = [_rollout_row(key, rollout, at) for rollout in (state.last, state.rollout) if rollout]
        messages = [
            message
            for rollout in (state.last, state.rollout)
            if rollout
            for message in outbox.messages(key, rollout)
        ]
        records = [{**place, "at": at, "record": codec.EVENT.encode(event)} for event in events]
        with self.transaction(lease) as connection:
            statement = sql.REPLACE_STATE if versioned.version else sql.INSERT_STATE
            if _one(connection, statement, row) is None:
                raise errors.ConflictError(
                    f"The state of {key} has changed since version {versioned.version}."
                )
            connection.executemany(sql.RECORD_ROLLOUT, rollouts)
            connection.executemany(sql.ADD_EVENT, records)
            connection.executemany(sql.ADD_MESSAGE, [_message_row(message, at) for message in messages])
        return ports.Versioned(version=versioned.version + 1, state=state)

    # --- releases ---------------------------------------------------------------------------------

    def add_release(self, lease: ports.Lease, release: model.Release) -> model.Release:
        row = {
            "app": release.app,
            "digest": release.digest,
            "spec": codec.RELEASE.encode(release.environments),
            "revision": release.revision,
            "created_at": release.created_at,
            "created_by": release.created_by,
        }
        with self.transaction(lease) as connection:
            for stored in connection.execute(sql.RELEASES_OF_DIGEST, row).fetchall():
                # Compared as values: the text of an older schema is another one.
                other = _release(release.app, stored)
                if other.environments == release.environments:
                    return other
            (number,) = _one(connection, sql.ADD_RELEASE, row) or (0,)
        return replace(release, number=number)

    def releases(self, app: str, *, limit: int = 50) -> tuple[model.Release, ...]:
        rows = self.rows(sql.RELEASES, {"app": app, "limit": max(limit, 0)})
        return tuple(_release(app, row) for row in rows)

    def release(self, app: str, number: int) -> model.Release | None:
        rows = self.rows(sql.RELEASE, {"app": app, "number": number})
        return _release(app, rows[0]) if rows else None

    # --- history ----------------------------------------------------------------------------------

    def history(self, key: model.EnvironmentKey, *, limit: int = 50) -> tuple[ports.RolloutRecord, ...]:
        rows = self.rows(sql.HISTORY, {**_place(key), "limit": max(limit, 0)})
        return tuple(_rollout_record(key, row) for row in rows)

    def rollout_by_request_key(
        self, key: model.EnvironmentKey, request_key: str
    ) -> ports.RolloutRecord | None:
        rows = self.rows(sql.ROLLOUT_BY_REQUEST_KEY, {**_place(key), "request_key": request_key})
        return _rollout_record(key, rows[0]) if rows else None

    def events(
        self, key: model.EnvironmentKey, *, after: int = 0, limit: int = 500
    ) -> tuple[ports.EventRecord, ...]:
        rows = self.rows(sql.EVENTS, {**_place(key), "after": after, "limit": max(limit, 0)})
        return tuple(
            ports.EventRecord(sequence=sequence, at=at, key=key, event=codec.EVENT.decode(text))
            for sequence, at, text in rows
        )

    def outbox(self, *, limit: int = 100) -> tuple[outbox.OutboxRecord, ...]:
        """Messages not delivered yet, oldest first. Raises StorageError, StoreError."""
        return tuple(
            outbox.OutboxRecord(
                sequence=sequence, at=at, message=outbox.Message(key=key, topic=topic, payload=payload)
            )
            for sequence, at, key, topic, payload in self.rows(sql.OUTBOX, {"limit": max(limit, 0)})
        )

    def delivered(self, lease: ports.Lease, sequence: int) -> None:
        """The message has arrived: do not show it again. No error if it was marked before.

        Raises FencedError, StorageError.
        """
        with self.transaction(lease) as connection:
            connection.execute(sql.MARK_DELIVERED, {"sequence": sequence, "at": time.time()})

    # --- links ------------------------------------------------------------------------------------

    def reserve_link_ports(
        self,
        lease: ports.Lease,
        key: model.EnvironmentKey,
        services: tuple[str, ...],
        available: tuple[int, ...],
    ) -> tuple[model.Link, ...]:
        with self.transaction(lease) as connection:
            rows = connection.execute(sql.LINK_PORTS).fetchall()
            ours = (key.app, key.environment)
            held = {(service, slot): port for port, *owner, service, slot in rows if tuple(owner) == ours}
            allotted = links.allot(held, {port for port, *_ in rows}, services, available)
            for link in allotted:
                values = {"port": link.port, "service": link.service, "slot": link.slot}
                connection.execute(sql.RESERVE_LINK_PORT, {**_place(key), **values})
            return allotted

    # --- upkeep -----------------------------------------------------------------------------------

    def backup(self, path: Path) -> None:
        """Copy the whole state to a new private file, checked and durable; readers and the writer go on.

        Replaces a file of that name. Raises StorageError, and RequestError if it is the database's own.
        """
        target = path.absolute()
        own = [self._path.with_name(f"{self._path.name}{suffix}").resolve() for suffix in OWN_SUFFIXES]
        if target.resolve() in own:
            raise errors.RequestError(f"{path} belongs to the state itself: choose another name.")
        with failures.translated(self._path), closing(self._connected("ro")) as connection:
            try:
                schema.copy(connection, target)
            except (sqlite3.Error, OSError) as error:
                raise errors.StorageError(
                    f"The backup {path} could not be written: {error}. The state itself is untouched.",
                    hint="The folder must exist, be writable, and have room for a whole copy.",
                ) from error

    def check(self) -> tuple[ports.Finding, ...]:
        """What on this machine would keep the state from being safe, for `tide doctor`.

        Raises StoreError if it is locked or closed.
        """
        with self._turn, failures.translated(self._path):
            settings = {name: _pragma(self._writer, name) for name in doctor.SETTINGS}
        with self._reading() as connection:
            soundness = _pragma(connection, "quick_check(1)")
        return doctor.findings(self._path, self._ballast, settings, soundness)

    # --- connections ------------------------------------------------------------------------------

    def _opened(self) -> sqlite3.Connection:
        with failures.translated(self._path):
            try:
                return self._open()
            except sqlite3.Error as error:
                if not (failures.is_full(error) and self._ballast.release()):
                    raise
                return self._open()

    def _open(self) -> sqlite3.Connection:
        files.create(self._path)
        connection = self._connected("rw")
        try:
            if schema.version(connection, sql.STEPS, self._path):
                _refuse_newer(connection)
            # The answers are not looked at: `check` judges them, and a database that keeps another journal
            # (because its file system has no shared memory) is as durable.
            connection.execute("pragma journal_mode = wal").fetchall()
            connection.execute("pragma synchronous = full")
            connection.execute(f"pragma journal_size_limit = {LOG_BYTES_MAX}").fetchall()
            schema.upgrade(connection, sql.STEPS, self._path)
            self._dead_epoch = connection.execute(sql.READ_LEASE).fetchone()[1]
        except BaseException:
            connection.close()
            raise
        return connection

    def _connected(self, mode: str) -> sqlite3.Connection:
        connection = sqlite3.connect(
            f"{self._path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=self._busy_timeout_s,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute("pragma foreign_keys = on")
        connection.execute("pragma trusted_schema = off")
        return connection

    @contextmanager
    def transaction(self, lease: ports.Lease | None) -> Iterator[sqlite3.Connection]:
        """One transaction, of the lease's holder if one is given: all of the block, or nothing of it.

        For the modules of this package that keep tables of their own in the same file. Raises FencedError,
        StorageError, StoreError.
        """
        if not self._turn.acquire(timeout=self._busy_timeout_s):
            raise errors.StoreError("The state is busy with other writes. Nothing was changed; try again.")
        try:
            with failures.translated(self._path, self._ballast):
                self._writer.execute("begin immediate")
                try:
                    _check(self._writer, lease)
                    yield self._writer
                    self._writer.execute("commit")
                except BaseException:
                    # After a full disk SQLite has rolled back by itself.
                    with suppress(sqlite3.Error):
                        self._writer.execute("rollback")
                    raise
            self._ballast.ensure()
        finally:
            self._turn.release()

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """A connection that cannot write, of this block alone."""
        with failures.translated(self._path):
            connection = self._reader()
            try:
                yield connection
            finally:
                self._give_back(connection)

    def _reader(self) -> sqlite3.Connection:
        if self._closed:
            raise errors.StoreError("The state was closed: the control plane is stopping.")
        with suppress(IndexError):
            return self._idle_readers.pop()
        connection = self._connected("ro")
        connection.execute("pragma query_only = on")
        return connection

    def _give_back(self, connection: sqlite3.Connection) -> None:
        if self._closed:
            connection.close()
        else:
            self._idle_readers.append(connection)

    def rows(self, statement: str, values: dict[str, Any]) -> list[Row]:
        """What a statement that only reads finds; for the same modules. Raises StorageError, StoreError."""
        with self._reading() as connection:
            return connection.execute(statement, values).fetchall()


def _one(connection: sqlite3.Connection, statement: str, values: dict[str, Any]) -> Row | None:
    """The only row; read to the end, or SQLite would leave the statement running."""
    rows = connection.execute(statement, values).fetchall()
    return rows[0] if rows else None


def _pragma(connection: sqlite3.Connection, name: str) -> str:
    return str(connection.execute(f"pragma {name}").fetchone()[0])


def _check(connection: sqlite3.Connection, lease: ports.Lease | None) -> None:
    if lease is not None and _one(connection, sql.CHECK_LEASE, _named(lease)) is None:
        raise errors.FencedError


def _refuse_newer(connection: sqlite3.Connection) -> None:
    newest = connection.execute(sql.NEWEST_SCHEMA).fetchone()[0]
    if newest > codec.SCHEMA:
        raise errors.NewerStateError(
            f"The state has records of schema {newest}, and this Tidegate reads up to {codec.SCHEMA}: a "
            "newer Tidegate wrote them. Nothing was touched.",
            hint="Upgrade this Tidegate, or restore the backup from before the upgrade.",
        )


def _place(key: model.EnvironmentKey) -> dict[str, Any]:
    return {"app": key.app, "environment": key.environment}


def _named(lease: ports.Lease) -> dict[str, Any]:
    return {"holder": lease.holder, "epoch": lease.epoch}


def _rollout_row(key: model.EnvironmentKey, rollout: model.Rollout, at: float) -> dict[str, Any]:
    return {
        **_place(key),
        "id": rollout.id,
        "request_key": rollout.request.key,
        "record": codec.ROLLOUT.encode(rollout),
        "at": at,
        "ended_at": at if rollout.phase.ended else None,
    }


def _rollout_record(key: model.EnvironmentKey, row: Row) -> ports.RolloutRecord:
    text, started_at, ended_at = row
    return ports.RolloutRecord(
        key=key, rollout=codec.ROLLOUT.decode(text), started_at=started_at, ended_at=ended_at
    )


def _message_row(message: outbox.Message, at: float) -> dict[str, Any]:
    return {"at": at, "key": message.key, "topic": message.topic, "payload": message.payload}


def _release(app: str, row: Row) -> model.Release:
    number, digest, text, revision, created_at, created_by = row
    return model.Release(
        app=app,
        number=number,
        digest=digest,
        environments=codec.RELEASE.decode(text),
        revision=revision,
        created_at=created_at,
        created_by=created_by,
    )

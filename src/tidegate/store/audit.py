"""The audit log in the store's own file, and the checkpoint beside its key.

Hides rows, their chain and the file of the checkpoint. Invariants:

- an entry is durable when `append` returns, and follows the newest row in the same transaction: neither two
  threads nor two control planes can make two rows of one number;
- the checkpoint is written after each entry. It may lag behind by what a power cut took, never run ahead: a
  log that ends before its checkpoint was cut;
- a log that ends before what this process has written, or before the checkpoint, is said in the next row:
  to go on does not hide it.

Neighbours: `audit_chain` binds rows together, `audit_sql` has the statements, `sqlite` the transactions.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

from tidegate import ports
from tidegate.store import audit_chain, audit_sql
from tidegate.store.audit_chain import Link
from tidegate.store.sqlite import Row, SqliteStore

#: Of the checkpoint's file: always as many, so that it can be written where it lies, also on a full disk.
CHECKPOINT_BYTES: Final = 256
#: Rows that are read at once.
CHUNK: Final = 2000

Checkpoint = ports.AuditCheckpoint


class SqliteAudit:
    """`ports.AuditLog` over a store. Threads may share it."""

    def __init__(
        self,
        store: SqliteStore,
        lease: ports.Lease,
        *,
        key: bytes,
        checkpoint: Path,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`checkpoint`: a file beside the key. Raises StorageError."""
        self._store: Final = store
        self._lease: Final = lease
        self._key: Final = key
        self._now: Final = now
        self._file: Final = _CheckpointFile(checkpoint, key)
        self._turn: Final = threading.Lock()
        self._seen: Checkpoint | None = self._file.read()

    # --- writing ----------------------------------------------------------------------------------

    def append(self, entry: ports.AuditEntry) -> int:
        with self._turn:
            with self._store.transaction(self._lease) as connection:
                last = self._last(connection)
                cut = self._cut(connection, last)
                if cut:
                    last = self._add(connection, last, self._noted(cut))
                last = self._add(connection, last, entry)
            self._seen = last
            # What cannot be written to the checkpoint only lags behind: the entry itself is there.
            with contextlib.suppress(OSError):
                self._file.write(last)
            return last.count

    def _last(self, connection: sqlite3.Connection) -> Checkpoint:
        rows = connection.execute(audit_sql.LAST).fetchall()
        return _checkpoint(*rows[0]) if rows else _checkpoint(0, audit_chain.NOTHING)

    def _add(self, connection: sqlite3.Connection, before: Checkpoint, entry: ports.AuditEntry) -> Checkpoint:
        sequence = before.count + 1
        row = _row(entry)
        mac = audit_chain.code(self._key, bytes.fromhex(before.head), sequence, tuple(row.values()))
        connection.execute(audit_sql.APPEND, {"sequence": sequence, **row, "mac": mac})
        return _checkpoint(sequence, mac)

    def _cut(self, connection: sqlite3.Connection, last: Checkpoint) -> str:
        """What is wrong with the end of the log; empty: nothing."""
        seen = self._seen
        if seen is None or seen == last:
            return ""
        if last.count < seen.count:
            return f"the log went on to entry {seen.count}, and now ends with entry {last.count}"
        rows = connection.execute(audit_sql.MAC, {"sequence": seen.count}).fetchall()
        if seen.count and (not rows or _hex(rows[0][0]) != seen.head):
            return f"entry {seen.count} is not the one that was written last"
        return ""

    def _noted(self, cut: str) -> ports.AuditEntry:
        return ports.AuditEntry(
            at=self._now(),
            by="tidegate",
            role="",
            action=NOTED,
            outcome="found",
            reason="cut",
            detail=f"The audit log was changed: {cut}.",
        )

    # --- reading ----------------------------------------------------------------------------------

    def records(self, wanted: ports.AuditWanted, *, limit: int) -> tuple[ports.AuditRecord, ...]:
        values = {
            "app": wanted.app,
            "environment": wanted.environment,
            "asker": wanted.by,
            "outcome": wanted.outcome,
            "before": wanted.before,
            "limit": max(limit, 0),
        }
        return tuple(_record(row) for row in self._store.rows(audit_sql.ENTRIES, values))

    def checkpoint(self) -> Checkpoint:
        rows = self._store.rows(audit_sql.LAST, {})
        return _checkpoint(*rows[0]) if rows else _checkpoint(0, audit_chain.NOTHING)

    def verify(self, *, after: int = 0, known: Checkpoint | None = None) -> ports.AuditProof:
        # Before the walk: what is written while it goes on comes after both.
        with self._turn:
            kept = self._file.read()
        chain = audit_chain.Chain(key=self._key, near=self._near)
        noted: list[ports.AuditFault] = []
        at = 0
        while rows := self._store.rows(audit_sql.CHAIN, {"after": at, "limit": CHUNK}):
            chain.walk(Link(row[0], row[1:-1], _mac(row[-1])) for row in rows)
            noted += [_note(row) for row in rows if row[5] == NOTED.encode()]
            if rows[-1][0] <= at:  # a damaged index may lead in a circle
                break
            at = rows[-1][0]
        faults = [*audit_chain.together(chain.faults), *noted]
        faults += self._unlike(kept, chain, "the checkpoint beside the key", needed=bool(at))
        faults += self._unlike(known, chain, "the checkpoint that was given", needed=False)
        return ports.AuditProof(
            checkpoint=_checkpoint(chain.last, chain.mac),
            faults=tuple(fault for fault in faults if fault.last > after),
        )

    def _near(self, first: int, last: int) -> list[tuple[int, bytes]]:
        rows = self._store.rows(audit_sql.MACS, {"first": first, "last": last})
        return [(sequence, _mac(mac)) for sequence, mac in rows]

    def _unlike(
        self, kept: Checkpoint | None, chain: audit_chain.Chain, name: str, *, needed: bool
    ) -> list[ports.AuditFault]:
        if kept is None:
            if not needed:
                return []
            detail = f"{name} is missing, or is not the control plane's: nobody knows whether the end was cut"
            return [ports.AuditFault(first=chain.last, last=chain.last, what="checkpoint", detail=detail)]
        if kept.count > chain.last:
            detail = f"{name} has seen {kept.count} entries"
            return [ports.AuditFault(first=chain.last + 1, last=kept.count, what="cut", detail=detail)]
        rows = self._near(kept.count, kept.count)
        if kept.count and (not rows or rows[0][1].hex() != kept.head):
            detail = f"{name} has seen another entry"
            return [ports.AuditFault(first=kept.count, last=kept.count, what="checkpoint", detail=detail)]
        return []


#: The action of an entry that says that the log itself was changed.
NOTED: Final = "audit log"


class _CheckpointFile:
    """How far the log went, proved by a code of its own: a copy of the database does not have it."""

    def __init__(self, path: Path, key: bytes) -> None:
        self._path: Final = path
        self._key: Final = key

    def read(self) -> Checkpoint | None:
        """None: there is none, or it is not ours."""
        try:
            kept = json.loads(self._path.read_text("utf-8"))
            count, head, proof = int(kept["count"]), bytes.fromhex(kept["head"]), bytes.fromhex(kept["proof"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        if count < 0 or proof != audit_chain.checkpoint_code(self._key, count, head):
            return None
        return _checkpoint(count, head)

    def write(self, checkpoint: Checkpoint) -> None:
        """In one piece, over the one before. Raises OSError."""
        proof = audit_chain.checkpoint_code(self._key, checkpoint.count, bytes.fromhex(checkpoint.head))
        text = json.dumps({"count": checkpoint.count, "head": checkpoint.head, "proof": proof.hex()})
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self._path, flags, 0o600)
        try:
            os.pwrite(descriptor, text.ljust(CHECKPOINT_BYTES - 1).encode() + b"\n", 0)
        finally:
            os.close(descriptor)


def _checkpoint(count: int, mac: Any) -> Checkpoint:
    return Checkpoint(count=count, head=_hex(mac))


def _hex(mac: Any) -> str:
    return _mac(mac).hex()


def _mac(value: Any) -> bytes:
    """As it is, unless somebody has made something else of it."""
    return value if isinstance(value, bytes) else b""


def _row(entry: ports.AuditEntry) -> dict[str, audit_chain.Value]:
    """The columns between number and code, in the order in which they are bound together."""
    return {
        "at": float(entry.at),
        "asker": _text(entry.by),
        "role": _text(entry.role),
        "token": entry.token,
        "action": _text(entry.action),
        "app": _text(entry.app),
        "environment": _text(entry.environment),
        "release": entry.release,
        "outcome": _text(entry.outcome),
        "reason": _text(entry.reason),
        "detail": _text(entry.detail),
        "answers": entry.of,
    }


def _text(text: str) -> str:
    """What SQLite gives back as it was: no zero, nothing that has no UTF-8."""
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def _record(row: Row) -> ports.AuditRecord:
    sequence, at, by, role, token, action, app, environment, release, outcome, reason, detail, of = row
    return ports.AuditRecord(
        sequence=sequence,
        entry=ports.AuditEntry(
            at=at,
            by=by,
            role=role,
            token=token,
            action=action,
            app=app,
            environment=environment,
            release=release,
            outcome=cast("ports.AuditOutcome", outcome),
            reason=reason,
            detail=detail,
            of=of,
        ),
    )


def _note(row: Row) -> ports.AuditFault:
    detail = bytes(row[11] or b"").decode("utf-8", "replace")
    return ports.AuditFault(first=row[0], last=row[0], what="noted", detail=detail)

"""Routes that read the audit log, and the thread that writes its checkpoint into the control plane's log.

Invariant: who may see some environments only sees what happened in those. Neighbours: `gate` writes the
entries, `store.audit` keeps and checks them.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Annotated, Final, Literal

from fastapi import FastAPI, Query
from pydantic import BaseModel, ConfigDict, Field

from tidegate import errors, ports, telemetry
from tidegate.core.roles import Asker
from tidegate.web import schemas
from tidegate.web.identity import Asking

#: How much of the log can be cut off unseen by whoever keeps a copy of the control plane's log elsewhere.
EVERY_S: Final = 3600.0
#: Entries that are looked through for those that somebody may see.
SEARCHED_MAX: Final = 50_000
_CHUNK: Final = 1000


class Wanted(BaseModel):
    """Which entries, and how many."""

    model_config = ConfigDict(extra="forbid")

    app: str = Field(default="", max_length=100)
    environment: str = Field(default="", max_length=100)
    by: str = Field(default="", max_length=100)
    outcome: Literal["", "asked", "accepted", "refused", "found"] = ""
    before: int = Field(default=2**62, ge=1, le=2**62)
    limit: int = Field(default=50, ge=1, le=1000)


def add(app: FastAPI, log: ports.AuditLog) -> None:
    """Put the routes into the application."""

    @app.get("/v1/audit")
    def entries(asker: Asking, query: Annotated[Wanted, Query()]) -> list[schemas.AuditEntry]:
        wanted = ports.AuditWanted(**query.model_dump(exclude={"limit"}))
        return [_shown(record) for record in _seen_by(log, asker, wanted, limit=query.limit)]

    @app.get("/v1/audit/verify")
    def verify(
        after: Annotated[int, Query(ge=0, le=2**62)] = 0,
        count: Annotated[int | None, Query(ge=0, le=2**62)] = None,
        head: Annotated[str, Query(pattern=r"^([0-9a-f]{64})?$")] = "",
    ) -> schemas.AuditProof:
        if (count is None) != (not head):
            raise errors.RequestError("A checkpoint is a count and a head: send both.")
        known = None if count is None else ports.AuditCheckpoint(count=count, head=head)
        proof = log.verify(after=after, known=known)
        return schemas.AuditProof(
            ok=not proof.faults,
            count=proof.checkpoint.count,
            head=proof.checkpoint.head,
            faults=[
                schemas.AuditFault(first=fault.first, last=fault.last, what=fault.what, detail=fault.detail)
                for fault in proof.faults
            ],
        )


class Checkpoints:
    """Says in the control plane's log how far the audit log goes: at the start, every hour, at the end."""

    def __init__(self, log: ports.AuditLog, *, every_s: float = EVERY_S) -> None:
        self._log: Final = log
        self._every_s: Final = every_s
        self._over: Final = threading.Event()
        self._thread: Final = threading.Thread(target=self._run, name="audit checkpoints", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Say it once more, and end."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        said = telemetry.logger("audit")
        while True:
            try:
                checkpoint = self._log.checkpoint()
            except errors.TidegateError as error:
                said.error("audit checkpoint not known", detail=str(error))
            else:
                said.info("audit checkpoint", count=checkpoint.count, head=checkpoint.head)
            if self._over.is_set():
                return
            self._over.wait(self._every_s)


def _seen_by(
    log: ports.AuditLog, asker: Asker, wanted: ports.AuditWanted, *, limit: int
) -> list[ports.AuditRecord]:
    """The newest that the asker may see."""
    if asker.everywhere:
        return list(log.records(wanted, limit=limit))
    found: list[ports.AuditRecord] = []
    for _ in range(SEARCHED_MAX // _CHUNK):
        records = log.records(wanted, limit=_CHUNK)
        found += [
            r for r in records if r.entry.app and asker.reaches(r.entry.app, r.entry.environment or None)
        ]
        if len(found) >= limit or len(records) < _CHUNK:
            break
        wanted = replace(wanted, before=records[-1].sequence)
    return found[:limit]


def _shown(record: ports.AuditRecord) -> schemas.AuditEntry:
    entry = record.entry
    return schemas.AuditEntry(
        sequence=record.sequence,
        at=entry.at,
        by=entry.by,
        role=entry.role,
        token=entry.token,
        action=entry.action,
        app=entry.app,
        environment=entry.environment,
        release=entry.release,
        outcome=entry.outcome,
        reason=entry.reason,
        detail=entry.detail,
    )

"""The one gate before every route: who asks is proved, whether they may is decided, and it is written down.

Hides how a request is watched on its way. Invariants:

- a change is in the audit log before its handler runs, and how it ended before it is answered. If it cannot
  be written down it is refused, but for what leads home (`roles.ALWAYS`): that is written down later;
- every refusal is in the log, of those who only look too. Refusals of nobody in particular are counted when
  there are too many, so that a flood of them does not fill the disk;
- what only looks costs nothing here but the question who asks;
- an entry holds names, numbers and the sentence of a refusal: no body, no header, no token.

Neighbours: `identity` knows askers and rules, `ports.Audit` keeps the entries, `api` puts this in front.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tidegate import errors, ports, telemetry
from tidegate.core import roles
from tidegate.web import identity, peer

#: Refusals of nobody in particular that are written down in a minute.
UNKNOWN_A_MINUTE: Final = 30
#: Entries that wait for room on the disk; an operator who aborts more often than this has other troubles.
OWED_MAX: Final = 1000
DETAIL_MAX: Final = 500
NAME_MAX: Final = 40
#: While an answer goes on, as followed logs do, whoever asked is proved again after so many seconds.
PROVED_S: Final = 5.0
PROBLEM: Final = "application/problem+json"
_REFUSED: Final = 400
_FAILED: Final = 500
_NOT_ALLOWED: Final = (401, 403)


def answer(error: errors.TidegateError) -> JSONResponse:
    """The error as a problem object. A token that was sent where a name belongs does not come back in it."""
    problem = {
        name: roles.redacted(value) if isinstance(value, str) else value
        for name, value in errors.problem(error).items()
    }
    return JSONResponse(problem, status_code=error.http_status, media_type=PROBLEM)


@dataclass(slots=True)
class _Flood:
    """Lets a few a minute through, and counts the others."""

    now: Callable[[], float]
    minute: int = 0
    seen: int = 0

    def count(self) -> int | None:
        """How many were left out before this one; None: this one is left out too."""
        minute = int(self.now() // 60)
        left_out = 0
        if minute != self.minute:
            left_out = max(self.seen - UNKNOWN_A_MINUTE, 0)
            self.minute, self.seen = minute, 0
        self.seen += 1
        return left_out if self.seen <= UNKNOWN_A_MINUTE else None


class _NoLongerProvedError(Exception):
    """In the middle of an answer; a sentence would come too late."""


class Book:
    """Writes entries, and those first that found no room before. Threads may share it."""

    def __init__(self, audit: ports.Audit) -> None:
        self._audit: Final = audit
        self._owed: Final[collections.deque[ports.AuditEntry]] = collections.deque(maxlen=OWED_MAX)
        self._turn: Final = threading.Lock()
        self._log: Final = telemetry.logger("audit")

    def write(self, entry: ports.AuditEntry) -> int:
        """Its number. Raises AuditError: then it is not there."""
        with self._turn:
            try:
                while self._owed:
                    late = self._owed[0]
                    self._audit.append(replace(late, detail=f"{late.detail} (written down later)".strip()))
                    self._owed.popleft()
                return self._audit.append(entry)
            except errors.TidegateError as error:
                raise errors.AuditError(
                    f"The audit log cannot be written, so nothing was changed: {error.message}",
                    hint=f"{error.hint or 'Look at `tide doctor`.'} Abort and rollback work all the same.",
                ) from error

    def owe(self, entry: ports.AuditEntry) -> int | None:
        """The same; if it cannot be written now, it goes to the control plane's log, and down later."""
        try:
            return self.write(entry)
        except errors.AuditError as error:
            about = {"by": entry.by, "what": entry.action, "outcome": entry.outcome, "app": entry.app}
            self._log.error("not in the audit log yet", **about, detail=error.message)
            with self._turn:
                self._owed.append(entry)
            return None


class Gate:
    """ASGI middleware."""

    def __init__(self, app: ASGIApp, *, trust: identity.Trust, audit: ports.Audit) -> None:
        self._app: Final = app
        self._trust: Final = trust
        self._book: Final = Book(audit)
        self._unknown: Final = _Flood(trust.now)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return  # no WebSockets here, and the daemon has no lifespan
        request = _Request(scope=scope, at=self._trust.now())
        try:
            await self._let_in(request)
        except errors.TidegateError as error:
            await self._refuse(request, error)
            await answer(error)(scope, receive, send)
            return
        await self._go(request, receive, send)

    async def _let_in(self, request: _Request) -> None:
        request.found = identity.find(request.scope["method"], request.scope["path"])
        request.asker = asker = await run_in_threadpool(self._prove, request)
        if request.found is None:
            raise errors.NotFoundError(
                "The control plane has nothing at this address.",
                hint="The command and the control plane may be of different versions.",
            )
        request.found.allow(asker)
        request.scope[identity.KEY] = request.asked = identity.Asked(asker=asker, note=request.note)
        if not request.changes:
            return
        entry = request.entry("asked")
        if request.found.rule.action in roles.ALWAYS:
            request.number = await run_in_threadpool(self._book.owe, entry)
        else:
            request.number = await run_in_threadpool(self._book.write, entry)

    def _prove(self, request: _Request) -> roles.Asker:
        return self._trust.prove(request.scope["headers"], peer.of(request.scope))

    async def _refuse(self, request: _Request, error: errors.TidegateError) -> None:
        if isinstance(error, errors.AuditError):
            return
        if request.found is None and request.asker is not None:
            return  # nothing is at that address: nobody was kept from anything
        left_out: int | None = 0
        if request.asker is None:
            left_out = self._unknown.count()
            if left_out is None:
                return
        entry = request.entry("refused", errors.problem(error))
        if left_out:
            entry = replace(entry, detail=f"{entry.detail} ({left_out} more like this a moment before)")
        await run_in_threadpool(self._book.owe, entry)

    async def _go(self, request: _Request, receive: Receive, send: Send) -> None:
        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                await self._end(request, message["status"])
            elif message.get("more_body"):
                await self._prove_again(request)
            await send(message)

        try:
            await self._app(request.scope, receive, sending)
        except _NoLongerProvedError:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        except Exception:
            await self._end(request, _FAILED)
            raise

    async def _end(self, request: _Request, status: int) -> None:
        """Write down how it ended, once."""
        if request.ended:
            return
        request.ended = True
        refused = status >= _REFUSED
        if request.changes or status in _NOT_ALLOWED:
            problem = (request.asked.problem if request.asked else None) or {"type": f"status-{status}"}
            entry = request.entry("refused", problem) if refused else request.entry("accepted")
            await run_in_threadpool(self._book.owe, entry)

    async def _prove_again(self, request: _Request) -> None:
        """A token that was revoked or has expired in the meantime gets no more of the answer."""
        now = self._trust.now()
        if now - request.proved_at < PROVED_S:
            return
        request.proved_at = now
        try:
            await run_in_threadpool(self._prove, request)
        except errors.RequestError as error:
            raise _NoLongerProvedError from error


@dataclass(slots=True, kw_only=True)
class _Request:
    """A request on its way through the gate."""

    scope: Scope
    at: float
    asker: roles.Asker | None = None
    found: identity.Found | None = None
    asked: identity.Asked | None = None
    note: identity.Note = field(default_factory=identity.Note)
    number: int | None = None
    ended: bool = False
    proved_at: float = 0.0

    def __post_init__(self) -> None:
        self.proved_at = self.at

    @property
    def changes(self) -> bool:
        if self.found is None or self.scope["method"] in ("GET", "HEAD"):
            return False
        return self.found.rule.action not in roles.LOOKING

    def entry(
        self, outcome: ports.AuditOutcome, problem: Mapping[str, Any] | None = None
    ) -> ports.AuditEntry:
        """As it stands now."""
        about = problem or {}
        action = self.found.rule.action.value if self.found else "unknown"
        title = str(about.get("title") or "")
        return ports.AuditEntry(
            at=self.at,
            by=self.asker.by if self.asker else "",
            role=self.asker.role.value if self.asker else "",
            token=self.asker.token_id if self.asker else None,
            action=action,
            app=_short(self.note.app or (self.found.app if self.found else None)),
            environment=_short(self.note.environment or (self.found.environment if self.found else None)),
            release=self.note.release,
            outcome=outcome,
            reason=str(about.get("reason") or about.get("type") or ""),
            detail=roles.redacted(title or self.note.detail)[:DETAIL_MAX],
            of=self.number,
        )


def _short(name: str | None) -> str:
    """A name from a path, which nobody has checked yet."""
    return roles.redacted(name or "")[:NAME_MAX]

"""Webhooks: an application of its own, on a port of its own, for requests that anybody may send.

Written for ASGI without a framework, so that a request of a stranger costs next to nothing. Invariants: a
body is read only when there is a signature to check, never further than `BODY_BYTES_MAX`, and not for longer
than `BODY_S`; nothing of it is parsed before the signature is right; strangers get 401 or 404 and no more,
whether an app is there or not; too many at once get 429 before any work is done. Neighbours: `sources.forges`
knows the forges, `sources.arrivals` what a webhook is good for; a proxy with TLS stands before the port.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from fastapi.concurrency import run_in_threadpool
from starlette.types import Receive, Scope, Send

from tidegate import errors
from tidegate.pushes import Forge, Source
from tidegate.sources import forges

BODY_BYTES_MAX: Final = 1024 * 1024
#: From the first byte to the last; a forge sends its few kilobytes at once.
BODY_S: Final = 10.0
#: Requests that may come at once, and how many more may come each second.
STRANGERS: Final = (200.0, 50.0)
SIGNED: Final = (60.0, 2.0)
#: Wrong signatures that are written down: a flood of them must not fill the disk.
WRITTEN_DOWN: Final = (30.0, 0.5)

_PATH: Final = re.compile(r"/hooks/([a-z][a-z0-9-]{0,39})", re.ASCII)
#: Compared with where there is nothing to compare with, so that it takes as long.
_NOBODY: Final = (b"nobody knows this one",)


@dataclass(slots=True)
class Bucket:
    """Lets a number of requests through at once, and then so many a second."""

    size: float
    per_second: float
    left: float = field(default=-1.0)
    at: float = 0.0

    def take(self, now: float) -> bool:
        """Whether one more may come."""
        if self.left < 0:
            self.left = self.size
        else:
            self.left = min(self.size, self.left + (now - self.at) * self.per_second)
        self.at = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Everything that is used."""

    source: Callable[[str], Source | None]
    keys: Callable[[str], tuple[bytes, ...]]
    hear: Callable[[Source, forges.Told], bool]
    refused: Callable[[str, str, str], None]
    """Told of what was refused: app (or nothing), stable reason, sentence."""
    monotonic: Callable[[], float]


class _AnswerError(Exception):
    """Ends a request with this answer."""

    def __init__(self, status: int, said: str, *, close: bool = False) -> None:
        self.status, self.said, self.close = status, said, close
        super().__init__(said)


class Hooks:
    """The application."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._strangers = Bucket(*STRANGERS)
        self._written_down = Bucket(*WRITTEN_DOWN)
        self._signed: dict[str, Bucket] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            status, said, close = 202, await self._answer(scope, receive), False
        except _AnswerError as answer:
            status, said, close = answer.status, answer.said, answer.close
        body = f"{said}\n".encode()
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            (b"content-length", str(len(body)).encode()),
        ]
        if close:  # what was not read is not waited for
            headers.append((b"connection", b"close"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> str:
        if not self._strangers.take(self._context.monotonic()):
            raise _AnswerError(429, "Too many requests.", close=True)
        path = _PATH.fullmatch(scope["path"])
        if path is None or scope["method"] != "POST":
            raise _AnswerError(404, "There is nothing here.", close=True)
        headers = _headers(scope)
        if not any(forges.is_signed(forge, headers) for forge in Forge):
            raise _AnswerError(401, "Not signed.", close=True)
        app = path[1]
        body = await _body(headers, receive)
        source, keys = await run_in_threadpool(self._known, app)
        forge = source.hook if source is not None and source.hook is not None else Forge.GITHUB
        if not forges.is_believed(forge, headers, body, keys or _NOBODY) or source is None or not keys:
            if self._written_down.take(self._context.monotonic()):
                about = (app if source else "", "bad-signature", "a webhook with a wrong signature")
                await run_in_threadpool(self._context.refused, *about)
            raise _AnswerError(401, "Not signed.")
        if not self._signed.setdefault(app, Bucket(*SIGNED)).take(self._context.monotonic()):
            raise _AnswerError(429, "Too many webhooks.")
        return await run_in_threadpool(self._heard, source, headers, body)

    def _known(self, app: str) -> tuple[Source | None, tuple[bytes, ...]]:
        try:
            source = self._context.source(app)
            return (source, self._context.keys(app)) if source and source.hook else (None, ())
        except errors.TidegateError as error:
            raise _AnswerError(503, "Try again later.") from error

    def _heard(self, source: Source, headers: forges.Headers, body: bytes) -> str:
        """From here on the sender is known, and may be told what is wrong."""
        assert source.hook is not None  # noqa: S101  # `_known` gives no other
        try:
            told = forges.told(source.hook, headers, body)
            if told is None:
                return "Nothing to do."
            if not self._context.hear(source, told):
                raise _AnswerError(409, "This webhook was sent before.")
        except errors.RequestError as error:
            raise _AnswerError(400, str(error)) from error
        except errors.TidegateError as error:
            raise _AnswerError(503, "Try again later.") from error
        return "Heard."


def _headers(scope: Scope) -> dict[str, str]:
    """By name; one that was sent twice means nothing."""
    found: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name = raw_name.decode("latin-1")
        found[name] = "" if name in found else raw_value.decode("latin-1")
    return found


async def _body(headers: forges.Headers, receive: Receive) -> bytes:
    length = headers.get("content-length", "")
    if length and not (length.isascii() and length.isdigit() and int(length[:12]) <= BODY_BYTES_MAX):
        raise _AnswerError(413, "Too large.", close=True)
    try:
        async with asyncio.timeout(BODY_S):
            return await _read(receive)
    except TimeoutError:
        raise _AnswerError(408, "Too slow.", close=True) from None


async def _read(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message: Any = await receive()
        if message["type"] != "http.request":
            raise _AnswerError(400, "Broken off.", close=True)
        part = message.get("body", b"")
        size += len(part)
        if size > BODY_BYTES_MAX:
            raise _AnswerError(413, "Too large.", close=True)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)

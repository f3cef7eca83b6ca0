"""Users: many at once, each with an own cookie, an own connection and time to think, at a steady rate.

Hides an HTTP/1.1 client of its own, as small as it can be: one thread and a few percent of a core, because
router and app need the rest. It knows `Content-Length` and nothing chunked.

Invariants: a user sends the next request only after the last has ended; nothing is sent twice: whatever goes
wrong after a request was begun is a failure, also where a browser would silently try again. A slow answer
leads to fewer requests, never to a burst.
Neighbours: `samples` adds up what users saw; `story` starts and stops them.
"""

from __future__ import annotations

import asyncio
import random
import re
import threading
import time
from dataclasses import dataclass, field
from typing import Final

from tidegate.demo.samples import Failure, Sample

#: Every so many-th user opens a connection for each request, as simple clients do.
HASTY_EVERY: Final = 10
#: Time to think varies by so much around its mean, so that users do not march in step.
THINK_SPREAD: Final = 0.3
SERVER_ERROR: Final = 500
OK: Final = 200

_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2}) ")
_RELEASE = re.compile(r"r([1-9][0-9]{0,8})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How much traffic, and where to."""

    port: int
    host: str = "127.0.0.1"
    path: str = "/"
    users: int = 200
    requests_per_second: float = 150.0
    timeout_s: float = 10.0

    @property
    def think_s(self) -> float:
        """From one request of a user to the next, on average."""
        return self.users / self.requests_per_second


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, as far as it matters."""

    status: int
    release: int | None
    mixed: bool


class NotHttpError(Exception):
    """What came back is not an answer that this client can read."""


@dataclass(slots=True)
class User:
    """One user, with cookies and a connection."""

    number: int
    load: Load
    cookies: dict[str, str] = field(default_factory=dict)
    _reader: asyncio.StreamReader | None = None
    _writer: asyncio.StreamWriter | None = None

    async def ask(self) -> Sample:
        """Send one request, and see what comes back."""
        sent_at_s = time.monotonic()
        answer: Answer | None = None
        failure: Failure | None = None
        try:
            async with asyncio.timeout(self.load.timeout_s):
                answer = await self._ask()
        except TimeoutError:
            failure = Failure.TIMEOUT
        except ConnectionRefusedError:
            failure = Failure.CONNECT
        except (OSError, EOFError):
            failure = Failure.CONNECT if self._writer is None else Failure.RESET
        except (NotHttpError, ValueError, asyncio.LimitOverrunError):
            failure = Failure.GARBLED
        if answer is None or self.number % HASTY_EVERY == 0:
            self.hang_up()
        return Sample(
            user=self.number,
            sent_at_s=sent_at_s,
            ended_at_s=time.monotonic(),
            release=answer.release if answer else None,
            failure=failure if answer is None else _failure(answer),
            mixed=answer.mixed if answer else False,
        )

    def hang_up(self) -> None:
        """End the connection, if there is one."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    async def _ask(self) -> Answer:
        reader, writer = await self._connected()
        writer.write(self._request())
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        status, headers = self._understood(head)
        length = headers.get("content-length")
        if length is None:
            raise NotHttpError("an answer without a length")
        await reader.readexactly(int(length))
        if headers.get("connection", "").lower() == "close":
            self.hang_up()
        release, other = _release(headers.get("x-release")), _release(headers.get("x-api-release"))
        return Answer(status, release, mixed=None not in (release, other) and release != other)

    async def _connected(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._reader is not None and self._reader.at_eof():
            self.hang_up()  # the router closed an idle connection: nothing was under way, nobody noticed
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection(self.load.host, self.load.port)
        return self._reader, self._writer

    def _request(self) -> bytes:
        lines = [f"GET {self.load.path} HTTP/1.1", f"Host: {self.load.host}:{self.load.port}"]
        if self.cookies:
            lines.append("Cookie: " + "; ".join(f"{name}={value}" for name, value in self.cookies.items()))
        if self.number % HASTY_EVERY == 0:
            lines.append("Connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def _understood(self, head: bytes) -> tuple[int, dict[str, str]]:
        """Status and headers; cookies are kept."""
        first, *lines = head.split(b"\r\n")
        status = _STATUS.match(first)
        if status is None:
            raise NotHttpError("an answer without a status")
        headers: dict[str, str] = {}
        for line in lines:
            name, _, value = line.decode("latin-1").partition(":")
            if name.lower() == "set-cookie":
                cookie, _, text = value.partition(";")[0].partition("=")
                self.cookies[cookie.strip()] = text.strip()
            else:
                headers[name.lower()] = value.strip()
        return int(status.group(1)), headers


def _release(value: str | None) -> int | None:
    found = _RELEASE.fullmatch(value or "")
    return int(found.group(1)) if found else None


def _failure(answer: Answer) -> Failure | None:
    if answer.status >= SERVER_ERROR:
        return Failure.SERVER_ERROR
    if answer.status != OK:
        return Failure.STATUS
    return None if answer.release is not None else Failure.GARBLED


class Traffic:
    """All users, in a thread of their own, from `start` to `stop`."""

    def __init__(self, load: Load, *, seed: int = 1) -> None:
        """`seed`: of the time to think; the same users then ask at the same moments."""
        self._load = load
        self._random = random.Random(seed)
        self._samples: list[Sample] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="demo-users", daemon=True)

    @property
    def samples(self) -> tuple[Sample, ...]:
        """All requests that have ended so far, in the order of their end."""
        return tuple(self._samples)

    def start(self) -> None:
        """Let the users begin, spread over one time to think."""
        self._thread.start()

    def stop(self) -> tuple[Sample, ...]:
        """Let the users end what they have begun; all samples. May be called again."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        return self.samples

    def _run(self) -> None:
        asyncio.run(self._everybody())

    async def _everybody(self) -> None:
        stop = asyncio.Event()
        watcher = asyncio.create_task(self._pass_on(stop))
        begun_s = time.monotonic()
        async with asyncio.TaskGroup() as users:
            for number in range(self._load.users):
                first_s = begun_s + self._load.think_s * number / self._load.users
                users.create_task(self._one(User(number, self._load), first_s, stop))
        await watcher

    async def _pass_on(self, stop: asyncio.Event) -> None:
        """From the other threads' event to the loop's."""
        await asyncio.to_thread(self._stop.wait)
        stop.set()

    async def _one(self, user: User, due_s: float, stop: asyncio.Event) -> None:
        while not await _stopped_before(due_s, stop):
            self._samples.append(await user.ask())
            think_s = self._load.think_s * self._random.uniform(1 - THINK_SPREAD, 1 + THINK_SPREAD)
            due_s = max(due_s + think_s, time.monotonic())
        user.hang_up()


async def _stopped_before(due_s: float, stop: asyncio.Event) -> bool:
    """Wait until then; at once when it is over."""
    try:
        async with asyncio.timeout(max(0.0, due_s - time.monotonic())):
            await stop.wait()
    except TimeoutError:
        return False
    return True

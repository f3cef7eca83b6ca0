"""Many users at once in the background, and everything that went wrong for them.

    with Users(tide.port) as users:
        ...
    assert not users.failures

Every second user keeps a connection alive, the others open one for each request, as simple clients do. Users
keep the cookies that were set; those who are `returning` bring that of an earlier visit, so that one can say
who is exposed. The rate is steady: who has waited for an answer thinks that much less, and who waits for ever
is one of many. Invariants: nothing is sent twice, and whatever goes wrong after a request was
begun is a failure, also where a browser would silently try again; only a connection that was closed while it
was idle is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from tests.support import buckets

_RELEASE = re.compile(rb"\r\nX-Release: (r[0-9]+)", re.IGNORECASE)
_API_RELEASE = re.compile(rb"\r\nX-Api-Release: (r[0-9]+)", re.IGNORECASE)
_LENGTH = re.compile(rb"\r\nContent-Length: ([0-9]+)", re.IGNORECASE)
_COOKIE = re.compile(rb"\r\nSet-Cookie: ([^;\r]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Asked:
    """One request and what became of it."""

    user: int
    sent_at_s: float
    ended_at_s: float
    release: str = ""
    api_release: str = ""
    failure: str = ""
    """Empty: answered with 200."""


@dataclass(slots=True)
class _User:
    number: int
    port: int
    path: str
    host: str
    timeout_s: float
    cookie: bytes = b""
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self) -> Asked:
        sent_at_s = time.monotonic()
        head, failure = b"", ""
        try:
            async with asyncio.timeout(self.timeout_s):
                head = await self._exchange()
            status = head.split(b" ", 2)[1]
            failure = "" if status == b"200" else f"answered {status.decode()}"
        except TimeoutError:
            failure = f"no answer in {self.timeout_s:g} s"
        except (OSError, EOFError, IndexError, ValueError) as error:
            failure = f"{type(error).__name__}: {error}"
        if failure or self.number % 2:
            self.hang_up()
        return Asked(
            user=self.number,
            sent_at_s=sent_at_s,
            ended_at_s=time.monotonic(),
            release=_found(_RELEASE, head),
            api_release=_found(_API_RELEASE, head),
            failure=failure,
        )

    async def _exchange(self) -> bytes:
        if self.streams is not None and self.streams[0].at_eof():
            self.hang_up()  # closed while idle: nothing was under way
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.port)
        reader, writer = self.streams
        close = "Connection: close\r\n" if self.number % 2 else ""
        cookie = f"Cookie: {self.cookie.decode()}\r\n" if self.cookie else ""
        writer.write(f"GET {self.path} HTTP/1.1\r\nHost: {self.host}\r\n{cookie}{close}\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        await _read_body(reader, head)
        cookie_set = _COOKIE.search(head)
        if cookie_set:
            self.cookie = cookie_set.group(1)
        if b"\r\nconnection: close" in head.lower():
            self.hang_up()
        return head

    def hang_up(self) -> None:
        if self.streams is not None:
            self.streams[1].close()
        self.streams = None


async def _is_set_before(due_s: float, stop: asyncio.Event) -> bool:
    """Wait until then; at once when it is set."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, due_s - time.monotonic())):
            return await stop.wait()
    return False


async def _read_body(reader: asyncio.StreamReader, head: bytes) -> None:
    """The whole body, by its length or in chunks; EOFError when it ends too early."""
    length = _LENGTH.search(head)
    size = int(length.group(1)) if length else 0
    if b"\r\ntransfer-encoding: chunked" not in head.lower():
        await reader.readexactly(size)
        return
    while size := int(await reader.readuntil(b"\r\n"), 16):
        await reader.readexactly(size + 2)
    await reader.readuntil(b"\r\n")


def _found(pattern: re.Pattern[bytes], head: bytes) -> str:
    match = pattern.search(head)
    return match.group(1).decode() if match else ""


def _name(number: int) -> str:
    return f"user-{number}"


@dataclass
class Users:
    """The background load: `count` users, each with a request every `think_s`; late ones do not catch up."""

    port: int
    path: str = "/"
    host: str = "localhost"
    count: int = 20
    think_s: float = 0.15
    timeout_s: float = 15.0
    returning: bool = False
    asked: list[Asked] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._everybody()), daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    async def _everybody(self) -> None:
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pass_on(stop))
            for number in range(self.count):
                user = _User(number, self.port, self.path, self.host, self.timeout_s)
                user.cookie = f"tidegate_user={_name(number)}".encode() if self.returning else b""
                group.create_task(self._one(user, self.think_s * number / self.count, stop))

    async def _pass_on(self, stop: asyncio.Event) -> None:
        """From the test's event to the loop's."""
        await asyncio.to_thread(self._stop.wait)
        stop.set()

    async def _one(self, user: _User, first_s: float, stop: asyncio.Event) -> None:
        due_s = time.monotonic() + first_s
        while not await _is_set_before(due_s, stop):
            self.asked.append(await user.ask())
            due_s = max(due_s + self.think_s, time.monotonic())
        user.hang_up()

    @property
    def failures(self) -> list[Asked]:
        """Requests that somebody noticed."""
        return [one for one in self.asked if one.failure]

    def exposed(self, salt: str, exposure_bps: int) -> set[int]:
        """Which of the returning users a canary is given to."""
        return {n for n in range(self.count) if buckets.bucket(salt, _name(n)) < exposure_bps}

    def summary(self) -> str:
        """Counts for people: requests, failures by kind, answers by release."""
        kinds = dict(Counter(one.failure for one in self.failures))
        releases = dict(sorted(Counter(one.release for one in self.asked if not one.failure).items()))
        return f"{len(self.asked)} requests, {len(self.failures)} failed {kinds}, by release {releases}"

    def releases(self) -> set[str]:
        """Who answered anybody."""
        return {one.release for one in self.asked if not one.failure}

    def went_back(self, order: list[str]) -> list[tuple[Asked, Asked]]:
        """Pairs of a user's answers of which the later is of an earlier release of the order."""
        place = {release: index for index, release in enumerate(order)}
        pairs = []
        for user in range(self.count):
            own = [one for one in self.asked if one.user == user and not one.failure]
            for before, after in itertools.pairwise(own):
                if place.get(after.release, 0) < place.get(before.release, 0):
                    pairs.append((before, after))
        return pairs

"""Many users at once over HTTP/1.1 on raw sockets, and an exact account of what they got.

    with Load(Plan(port=8080, host="shop.example.com", users=20)) as load:
        ...                                     # deploy, flip, kill
    tally = load.tally                          # complete: the users have finished their last request
    assert tally.failed == Counter(), tally     # e.g. {"status 503": 2, "reset": 1}
    tally.by_app                                # {"blue": 4711, "green": 812}, by the answer's X-App

`ask_all` is for questions about single users: it sends prepared requests pipelined over few connections and
returns which app answered each, at some ten thousand a second.

What counts as failed: an answer of 500 or more (or not in `Plan.good`), a connection refused, reset or
closed before the whole answer was there, and an answer later than `timeout_s`. Nothing is tried again, also
not on a connection that was kept and is found closed: a proxy that closes it at a bad moment is counted.

Invariants: one thread with one event loop per `Load`; users are independent; every request that is begun
is counted once.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

#: Requests that are under way at once on one connection of `ask_all`.
_PIPELINE: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What each of the users does, again and again until `stop`."""

    port: int
    host: str
    """Host header."""
    users: int = 8
    keep_alive: bool = True
    """False: a connection per request."""
    cookies: bool = False
    """Keep `Set-Cookie` and send it back, as a browser does: each user is one user."""
    method: str = "GET"
    path: str = "/"
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    think_s: float = 0.0
    """Pause between a user's requests."""
    timeout_s: float = 10.0
    good: frozenset[int] = frozenset(range(100, 500))


@dataclass(slots=True)
class Tally:
    """What all users got."""

    ok: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    """By kind: `status N`, `refused`, `reset`, `closed`, `timeout`."""
    by_app: Counter[str] = field(default_factory=Counter)
    """Good answers by X-App."""
    slowest_s: float = 0.0
    """Of good answers."""
    elapsed_s: float = 0.0

    @property
    def requests(self) -> int:
        return self.ok + self.failed.total()


class Load:
    """The users at work, in a thread, from `start` to `stop`; also a context manager."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.tally = Tally()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._users()), daemon=True)

    def start(self) -> Self:
        self._thread.start()
        return self

    def stop(self) -> Tally:
        """Let each user finish the request it is at; the complete account."""
        self._stopping.set()
        self._thread.join(self.plan.timeout_s + 10)
        return self.tally

    def wait_for(self, requests: int, *, timeout_s: float = 20.0) -> None:
        """Return when so many further requests have been answered or have failed."""
        goal, deadline = self.tally.requests + requests, time.monotonic() + timeout_s
        while self.tally.requests < goal:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{goal - self.tally.requests} requests missing: {self.tally}")
            time.sleep(0.002)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def _users(self) -> None:
        begun = time.monotonic()
        await asyncio.gather(
            *(_User(self.plan, self.tally).live(self._stopping) for _ in range(self.plan.users))
        )
        self.tally.elapsed_s = time.monotonic() - begun


class _User:
    """One user: at most one connection, one request at a time, its own cookies."""

    def __init__(self, plan: Plan, tally: Tally) -> None:
        self.plan = plan
        self.tally = tally
        self.cookies: dict[str, str] = {}
        self.streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def live(self, stopping: threading.Event) -> None:
        while not stopping.is_set():
            begun = time.monotonic()
            problem = await self._problem()
            if problem:
                self._hang_up()
                self.tally.failed[problem] += 1
                await asyncio.sleep(0.001)  # a refused connection must not become a busy loop
            else:
                self.tally.ok += 1
                self.tally.slowest_s = max(self.tally.slowest_s, time.monotonic() - begun)
            await asyncio.sleep(self.plan.think_s)
        self._hang_up()

    async def _problem(self) -> str:
        """One request; empty, or what went wrong."""
        try:
            async with asyncio.timeout(self.plan.timeout_s):
                return await self._request()
        except TimeoutError:
            return "timeout"
        except ConnectionRefusedError:
            return "refused"
        except (asyncio.IncompleteReadError, EOFError):
            return "closed"
        except OSError:
            return "reset"

    async def _request(self) -> str:
        if self.streams is None:
            self.streams = await asyncio.open_connection("127.0.0.1", self.plan.port)
        reader, writer = self.streams
        writer.write(self._text())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split(" ", 2)[1])
        headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])
        }
        await reader.readexactly(int(headers.get("content-length", "0")))
        if self.plan.cookies and "set-cookie" in headers:
            name, _, value = headers["set-cookie"].partition(";")[0].partition("=")
            self.cookies[name] = value
        if not self.plan.keep_alive or headers.get("connection", "").lower() == "close":
            self._hang_up()
        if status not in self.plan.good:
            return f"status {status}"
        self.tally.by_app[headers.get("x-app", "")] += 1
        return ""

    def _text(self) -> bytes:
        plan = self.plan
        lines = [f"{plan.method} {plan.path} HTTP/1.1", f"Host: {plan.host}"]
        lines += [f"{name}: {value}" for name, value in plan.headers]
        if self.cookies:
            lines.append("Cookie: " + "; ".join(f"{name}={value}" for name, value in self.cookies.items()))
        if plan.body or plan.method in ("POST", "PUT", "PATCH"):
            lines.append(f"Content-Length: {len(plan.body)}")
        if not plan.keep_alive:
            lines.append("Connection: close")
        return "\r\n".join([*lines, "", ""]).encode() + plan.body

    def _hang_up(self) -> None:
        if self.streams is not None:
            self.streams[1].close()
            self.streams = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One whole answer."""

    status: int
    headers: dict[str, str]
    """Lower-case names; a repeated one keeps the last value."""
    body: bytes

    @property
    def app(self) -> str:
        return self.headers.get("x-app", "")


def ask(port: int, host: str, path: str = "/", *, method: str = "GET", headers: Sequence[str] = ()) -> Answer:
    """One request on a connection of its own; `headers`: whole lines. Raises OSError, EOFError."""
    text = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n" + "".join(f"{line}\r\n" for line in headers)
    return exchange(port, [f"{text}Connection: close\r\n\r\n".encode()])[0]


def ask_all(port: int, host: str, headers: Sequence[str], *, connections: int = 4) -> list[str]:
    """Which app answered, for one request per header line (e.g. `Cookie: tidegate_user=u17`), in order."""
    answers: list[str] = [""] * len(headers)
    chunks = [range(begin, len(headers), connections) for begin in range(connections)]

    def work(chunk: range) -> None:
        requests = [f"GET / HTTP/1.1\r\nHost: {host}\r\n{headers[i]}\r\n\r\n".encode() for i in chunk]
        for i, answer in zip(chunk, exchange(port, requests), strict=True):
            answers[i] = answer.app if answer.status == 200 else f"status {answer.status}"

    threads = [threading.Thread(target=work, args=(chunk,)) for chunk in chunks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def exchange(port: int, requests: Sequence[bytes], *, timeout_s: float = 10.0) -> list[Answer]:
    """Whole requests over one connection, pipelined; their answers in order. Raises OSError, EOFError."""
    answers: list[Answer] = []
    with socket.create_connection(("127.0.0.1", port), timeout_s) as client, client.makefile("rb") as file:
        for begin in range(0, len(requests), _PIPELINE):
            batch = requests[begin : begin + _PIPELINE]
            client.sendall(b"".join(batch))
            for _ in batch:
                status = file.readline().split(b" ", 2)
                if len(status) < 2:
                    raise EOFError("the connection was closed before the answer")
                headers: dict[str, str] = {}
                while (line := file.readline().decode("latin-1").rstrip("\r\n")) != "":
                    name, _, value = line.partition(":")
                    headers[name.lower()] = value.strip()
                body = file.read(int(headers.get("content-length", "0")))
                answers.append(Answer(status=int(status[1]), headers=headers, body=body))
    return answers

"""Many clients at once, in a process of their own; they look at every answer.

`wrk` is faster, but cannot say which release answered what, and when. Hides sockets and HTTP/1.1.

Invariants: a connection has one request under way; nothing is sent twice: whatever goes wrong after a
connection was asked for is a failure, also where a browser would silently try again. A connection that the
router closes between two requests is no failure. At the end, requests under way are waited for.

The parent starts `python -m bench.load` with a plan as its argument, and ends it by closing its input; the
answer is one line of JSON and, if asked for, the samples in binary. Times are CLOCK_MONOTONIC: the same in
all processes. Neighbours: `rollouts`, `flip` and `kills` read `Seen`.
"""

from __future__ import annotations

import array
import errno
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any, Final, Self

#: A request that takes longer has failed.
TIMEOUT_S: Final = 10.0
#: After a failure a client waits so long before it asks again.
RETRY_S: Final = 0.005
#: How long requests under way may take at the end.
END_S: Final = 5.0
#: Answers are compared whole with those seen before: the app has few.
KNOWN_MAX: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to send, and where to."""

    port: int
    host: str = "127.0.0.1"
    keeping: int = 16
    """Connections that are kept."""
    closing: int = 16
    """Clients that open a connection for each request."""
    pause_s: float = 0.0
    """From an answer to the client's next request."""
    record: bool = False
    """Keep the time and release of every answer."""
    core: int | None = None
    """Processor to stay on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A request that failed, as its client saw it. Monotonic seconds."""

    sent_at_s: float
    ended_at_s: float
    kind: str
    kept: bool
    """On a connection that was kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the clients saw."""

    kept: int
    """Requests on kept connections that were answered by 200."""
    closed: int
    """The same, each on a connection of its own."""
    failures: tuple[Failure, ...]
    seconds: float
    releases: dict[int, int] = field(default_factory=dict)
    """Answers per release; 0: it did not say."""
    sent_at_s: array.array[float] = field(default_factory=lambda: array.array("d"))
    ended_at_s: array.array[float] = field(default_factory=lambda: array.array("d"))
    release: array.array[int] = field(default_factory=lambda: array.array("h"))
    """Three columns, one row per answer, in the order of their end; empty unless recorded."""

    @property
    def answered(self) -> int:
        return self.kept + self.closed

    @property
    def sent(self) -> int:
        return self.answered + len(self.failures)


class Load:
    """A process full of clients; they ask from entering the block until `stop`."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.load", json.dumps(asdict(self._plan))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        if self._process.stdout is None or self._process.stdout.readline() != b"begun\n":
            self._process.kill()
            raise RuntimeError("the load did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
        if self._process is not None:
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    stream.close()

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the load was not started")
        return self._process.pid

    def stop(self) -> Seen:
        """Let the clients end what they have begun; what they saw."""
        if self._process is None:
            raise RuntimeError("the load was not started")
        output, _ = self._process.communicate(timeout=END_S + TIMEOUT_S + 60)
        return seen_from(output)


def seen_from(output: bytes) -> Seen:
    """What the process has printed."""
    line, _, samples = output.partition(b"\n")
    told = json.loads(line)
    rows = told.pop("rows")
    sent, ended, release = array.array("d"), array.array("d"), array.array("h")
    times = rows * sent.itemsize
    sent.frombytes(samples[:times])
    ended.frombytes(samples[times : 2 * times])
    release.frombytes(samples[2 * times :])
    told["failures"] = tuple(Failure(**failure) for failure in told["failures"])
    told["releases"] = {int(release): count for release, count in told["releases"].items()}
    return Seen(**told, sent_at_s=sent, ended_at_s=ended, release=release)


# --- the process -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, as far as it matters."""

    status: int
    release: int
    closes: bool
    cookie: bytes


def understood(data: bytes) -> Answer | None:
    """The answer, if it is whole. Raises ValueError for what is no answer, or has no length."""
    head, end, body = data.partition(b"\r\n\r\n")
    if not end:
        return None
    first, *lines = head.split(b"\r\n")
    words = first.split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1."):
        raise ValueError("no HTTP")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    if len(body) < int(headers[b"content-length"]):
        return None
    return Answer(
        status=int(words[1]),
        release=int(headers.get(b"x-release", b"r0")[1:]),
        closes=headers.get(b"connection", b"").lower() == b"close",
        cookie=headers.get(b"set-cookie", b"").partition(b";")[0],
    )


class Line:
    """One client and its connection."""

    __slots__ = ("client", "connecting", "kept", "received", "request", "sent_at_s")

    def __init__(self, *, kept: bool) -> None:
        self.kept = kept
        self.client: socket.socket | None = None
        self.connecting = False
        self.received = b""
        self.request = b""
        self.sent_at_s = 0.0
        """0: nothing is under way."""


class Clients:
    """All clients of a plan, in one loop."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.address = ("127.0.0.1", plan.port)
        self.epoll = select.epoll()
        self.lines = [Line(kept=True) for _ in range(plan.keeping)]
        self.lines += [Line(kept=False) for _ in range(plan.closing)]
        self.by_descriptor: dict[int, Line] = {}
        self.due: deque[tuple[float, Line]] = deque()
        self.retries: deque[tuple[float, Line]] = deque()
        self.known: dict[bytes, Answer] = {}
        self.counts = {True: 0, False: 0}
        self.releases: Counter[int] = Counter()
        self.failures: list[Failure] = []
        self.sent_at_s, self.ended_at_s = array.array("d"), array.array("d")
        self.release = array.array("h")
        self.ending = False

    def run(self) -> None:
        """Until the input is closed, and what is under way has ended."""
        begun_s = time.monotonic()
        self.epoll.register(0, select.EPOLLIN | select.EPOLLHUP)
        for place, line in enumerate(self.lines):
            line.request = self._request(line, b"")
            self.due.append((begun_s + self.plan.pause_s * place / len(self.lines), line))
        end_s, checked_s = float("inf"), begun_s
        sys.stdout.write("begun\n")
        sys.stdout.flush()
        while not self.ending or (self._under_way() and time.monotonic() < end_s):
            now_s = time.monotonic()
            self._send_due(now_s)
            self._serve(self.epoll.poll(self._wait_s(now_s)))
            if self.ending and end_s == float("inf"):
                end_s = time.monotonic() + END_S
            if now_s - checked_s > 1:
                checked_s = now_s
                self._give_up(now_s - TIMEOUT_S)
        self._give_up(float("inf"))
        self._tell(time.monotonic() - begun_s)

    def _under_way(self) -> bool:
        return any(line.sent_at_s for line in self.lines)

    def _wait_s(self, now_s: float) -> float:
        due_s = [queue[0][0] for queue in (self.due, self.retries) if queue and not self.ending]
        return max(0.0, min([0.2, *(moment - now_s for moment in due_s)]))

    def _send_due(self, now_s: float) -> None:
        if self.ending:
            return
        for queue in (self.due, self.retries):
            while queue and queue[0][0] <= now_s:
                self._ask(queue.popleft()[1])

    def _serve(self, events: list[tuple[int, int]]) -> None:
        for descriptor, _ in events:
            line = self.by_descriptor.get(descriptor)
            if line is not None:
                self._connected(line) if line.connecting else self._receive(line)
            elif descriptor == 0:
                self.epoll.unregister(0)
                self.ending = True

    def _request(self, line: Line, cookie: bytes) -> bytes:
        head = b"GET / HTTP/1.1\r\nHost: " + self.plan.host.encode()
        head += b"\r\nCookie: " + cookie if cookie else b""
        return head + (b"\r\n\r\n" if line.kept else b"\r\nConnection: close\r\n\r\n")

    def _ask(self, line: Line) -> None:
        line.received = b""
        line.sent_at_s = time.monotonic()
        try:
            if line.client is None:
                self._connect(line)
            elif not line.connecting:
                line.client.send(line.request)
        except OSError as error:
            self._failed(line, error)

    def _connect(self, line: Line) -> None:
        client = line.client = socket.socket()
        client.settimeout(0)
        answer = client.connect_ex(self.address)
        _raise_for(answer, errno.EINPROGRESS)
        self.by_descriptor[client.fileno()] = line
        line.connecting = answer != 0
        self.epoll.register(client.fileno(), select.EPOLLOUT if line.connecting else select.EPOLLIN)
        if not line.connecting:
            client.send(line.request)

    def _connected(self, line: Line) -> None:
        if line.client is None:
            return
        try:
            line.connecting = False
            _raise_for(line.client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            self.epoll.modify(line.client.fileno(), select.EPOLLIN)
            line.client.send(line.request)
        except OSError as error:
            self._failed(line, error)

    def _receive(self, line: Line) -> None:
        if line.client is None:
            return
        try:
            data = line.client.recv(65_536)
        except OSError as error:
            self._failed(line, error)
            return
        if not line.sent_at_s:
            self._hang_up(line)  # closed between two requests: nothing was under way
            return
        if not data:
            self._failed(line, EOFError("closed"))
            return
        line.received = line.received + data if line.received else data
        answer = self.known.get(line.received)
        if answer is None:
            try:
                answer = understood(line.received)
            except (ValueError, KeyError) as error:
                self._failed(line, error)
                return
            if answer is None:
                return
            if not answer.cookie and len(self.known) < KNOWN_MAX:
                self.known[line.received] = answer
        self._answered(line, answer)

    def _answered(self, line: Line, answer: Answer) -> None:
        now_s = time.monotonic()
        if answer.cookie:
            line.request = self._request(line, answer.cookie)
        if answer.status != 200:
            self._failed(line, ValueError(f"status {answer.status}"))
            return
        self.counts[line.kept] += 1
        self.releases[answer.release] += 1
        if self.plan.record:
            self.sent_at_s.append(line.sent_at_s)
            self.ended_at_s.append(now_s)
            self.release.append(answer.release)
        line.sent_at_s = 0.0
        if answer.closes or not line.kept:
            self._hang_up(line)
        if self.plan.pause_s:
            self.due.append((now_s + self.plan.pause_s, line))
        elif not self.ending:
            self._ask(line)

    def _failed(self, line: Line, error: Exception) -> None:
        now_s = time.monotonic()
        if line.sent_at_s:
            kind = f"{type(error).__name__}: {error}"
            self.failures.append(
                Failure(sent_at_s=line.sent_at_s, ended_at_s=now_s, kind=kind, kept=line.kept)
            )
        was_under_way = line.sent_at_s
        line.sent_at_s = 0.0
        self._hang_up(line)
        if was_under_way:
            self.retries.append((now_s + RETRY_S, line))

    def _hang_up(self, line: Line) -> None:
        if line.client is not None:
            self.by_descriptor.pop(line.client.fileno(), None)
            line.client.close()
        line.client = None
        line.connecting = False

    def _give_up(self, before_s: float) -> None:
        for line in self.lines:
            if line.sent_at_s and line.sent_at_s < before_s:
                self._failed(line, TimeoutError("no answer"))

    def _tell(self, seconds: float) -> None:
        told: dict[str, Any] = {
            "kept": self.counts[True],
            "closed": self.counts[False],
            "failures": [asdict(failure) for failure in self.failures],
            "seconds": seconds,
            "releases": self.releases,
            "rows": len(self.sent_at_s),
        }
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        for column in (self.sent_at_s, self.ended_at_s, self.release):
            sys.stdout.buffer.write(column.tobytes())


def _raise_for(number: int, harmless: int = 0) -> None:
    if number not in (0, harmless):
        raise OSError(number, os.strerror(number))


def main(text: str) -> None:
    """The whole life of the process; `text`: a plan as JSON."""
    plan = Plan(**json.loads(text))
    if plan.core is not None and plan.core in os.sched_getaffinity(0):
        os.sched_setaffinity(0, {plan.core})
    Clients(plan).run()


if __name__ == "__main__":
    main(sys.argv[1])

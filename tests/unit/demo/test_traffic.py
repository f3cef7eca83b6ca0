"""Users of the demo, against real sockets."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import pytest

from tidegate.demo.samples import Failure, Sample
from tidegate.demo.traffic import HASTY_EVERY, Load, Traffic, User

Answering = Callable[[bytes], bytes | None]


@dataclass
class Served:
    """A server on a free port, and what it was sent: one list of requests for each connection."""

    port: int = 0
    connections: list[list[bytes]] = field(default_factory=list)


def page(*headers: str, status: str = "200 OK", body: bytes = b"hello") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def asked(
    answering: Answering, questions: int = 1, *, number: int = 1, timeout_s: float = 5.0
) -> tuple[Served, list[Sample]]:
    """One user's requests to a server that answers so; None: it ends the connection."""
    served = Served()

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests: list[bytes] = []
        served.connections.append(requests)
        try:
            while True:
                requests.append(await reader.readuntil(b"\r\n\r\n"))
                answer = answering(requests[-1])
                if answer is None:
                    break
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def ask() -> list[Sample]:
        server = await asyncio.start_server(on_connection, "127.0.0.1", 0)
        served.port = server.sockets[0].getsockname()[1]
        user = User(number, Load(port=served.port, timeout_s=timeout_s))
        found = [await user.ask() for _ in range(questions)]
        user.hang_up()
        server.close()
        await _settled()
        return found

    return served, asyncio.run(ask())


async def _settled() -> None:
    """Let connections that were closed find out."""
    for _ in range(20):
        await asyncio.sleep(0)


@contextmanager
def server(answering: Callable[[bytes], bytes], *, keep: bool) -> Iterator[int]:
    """The port of a server in a thread; `keep`: it answers more than one request on a connection."""
    running: list[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = []
    ready = threading.Event()

    async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while not writer.is_closing():
                writer.write(answering(await reader.readuntil(b"\r\n\r\n")))
                if not keep:
                    break
        writer.close()

    async def serve() -> None:
        stop = asyncio.Event()
        listening = await asyncio.start_server(on_connection, "127.0.0.1", 0)
        running.append((listening.sockets[0].getsockname()[1], asyncio.get_running_loop(), stop))
        ready.set()
        await stop.wait()
        listening.close()
        await _settled()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(10)
    port, loop, stop = running[0]
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


def test_user_keeps_cookie_and_connection() -> None:
    """What the router sets in the first answer comes with the next request, over the same connection."""
    served, _ = asked(lambda _: page("X-Release: r7", "Set-Cookie: tidegate_user=abc; Path=/; HttpOnly"), 2)
    (requests,) = served.connections
    assert b"Cookie" not in requests[0]
    assert b"Cookie: tidegate_user=abc\r\n" in requests[1]


def test_hasty_user_opens_a_connection_each_time() -> None:
    """Some users have no keep-alive, and keep their cookie all the same."""
    served, seen = asked(lambda _: page("X-Release: r7", "Set-Cookie: a=b"), 2, number=HASTY_EVERY)
    assert len(served.connections) == 2
    assert b"Connection: close\r\n" in served.connections[0][0]
    assert b"Cookie: a=b\r\n" in served.connections[1][0]
    assert [sample.failure for sample in seen] == [None, None]


def test_answer_says_its_release() -> None:
    """The release is read from the answer, and a page of two releases is noticed."""
    _, (same,) = asked(lambda _: page("X-Release: r12", "X-Api-Release: r12"))
    _, (mixed,) = asked(lambda _: page("X-Release: r12", "X-Api-Release: r11"))
    assert (same.release, same.failure, same.mixed) == (12, None, False)
    assert (mixed.release, mixed.mixed) == (12, True)
    assert 0 < same.latency_ms < 5000


@pytest.mark.parametrize(
    ("answer", "failure", "release"),
    [
        (page(status="503 Service Unavailable"), Failure.SERVER_ERROR, None),
        (page("X-Release: r3", status="500 Oh"), Failure.SERVER_ERROR, 3),
        (page(status="404 Not Found"), Failure.STATUS, None),
        (page(), Failure.GARBLED, None),
        (b"HTTP/1.1 200 OK\r\nX-Release: r1\r\n\r\n", Failure.GARBLED, None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\n", Failure.GARBLED, None),
        (b"SSH-2.0-OpenSSH\r\n\r\n", Failure.GARBLED, None),
        (None, Failure.RESET, None),
    ],
)
def test_failure_has_its_kind(answer: bytes | None, failure: Failure, release: int | None) -> None:
    """Whatever is not a signed 200 is a failure, and says of which kind."""
    _, (seen,) = asked(lambda _: answer)
    assert (seen.failure, seen.release) == (failure, release)


def test_half_an_answer_is_a_failure() -> None:
    """A connection that ends within the body is a reset, whatever the status said."""
    with server(lambda _: page("X-Release: r1")[:-1], keep=False) as port:
        seen = asyncio.run(User(1, Load(port=port, timeout_s=5)).ask())
    assert seen.failure is Failure.RESET


def test_silence_is_a_timeout() -> None:
    """An answer that does not come in time is a failure, and the connection is not used again."""
    served, seen = asked(lambda _: b"", 2, timeout_s=0.05)
    assert [sample.failure for sample in seen] == [Failure.TIMEOUT] * 2
    assert len(served.connections) == 2


def test_nobody_listening_is_a_connect_failure() -> None:
    """A refused connection is told apart from one that broke."""
    served, _ = asked(lambda _: page("X-Release: r1"))
    seen = asyncio.run(User(1, Load(port=served.port)).ask())
    assert seen.failure is Failure.CONNECT


def test_connection_closed_between_requests_is_no_failure() -> None:
    """The router may end an idle connection: the next request opens another one."""
    served, seen = asked(lambda _: page("X-Release: r1", "Connection: close"), 2)
    assert [sample.failure for sample in seen] == [None, None]
    assert len(served.connections) == 2


def test_traffic_has_many_users_at_a_steady_rate() -> None:
    """All users take part, spread over the time to think, until they are stopped; none loses a request."""
    with server(lambda _: page("X-Release: r1"), keep=True) as port:
        traffic = Traffic(Load(port=port, users=20, requests_per_second=200, timeout_s=5))
        traffic.start()
        begun_s = time.monotonic()
        while len(traffic.samples) < 60 and time.monotonic() - begun_s < 20:
            time.sleep(0.01)
        seen = traffic.stop()
        assert traffic.stop() == seen
    assert {sample.user for sample in seen} == set(range(20))
    assert [sample.failure for sample in seen] == [None] * len(seen)
    assert all(a.ended_at_s <= b.sent_at_s for user in range(20) for a, b in _pairs(seen, user))
    span_s = seen[-1].sent_at_s - seen[0].sent_at_s
    assert len(seen) <= 200 * span_s * 1.5 + 20  # never faster than asked for, busy machine or not


def _pairs(seen: tuple[Sample, ...], user: int) -> Iterator[tuple[Sample, Sample]]:
    own = sorted((s for s in seen if s.user == user), key=lambda s: s.sent_at_s)
    return itertools.pairwise(own)


def test_stopping_traffic_that_never_began_is_harmless() -> None:
    """A story that ends before its users came has no samples."""
    assert Traffic(Load(port=1)).stop() == ()

"""A small web service for tests: HTTP with keep-alive, and WebSockets; only the standard library.

In a test:    with WebApp("blue") as app: ... app.port ... app.healthy = False ... app.requests
As a program: PORT=8000 NAME=blue python web_app.py        (SIGTERM ends it at once)

    GET /            200, the name
    GET /healthz     200; 503 while `healthy` is False
    GET /headers     200, the request's headers as a JSON object (a repeated one joined by commas)
    GET /slow?ms=N   200 after N milliseconds
    GET /status/N    N
    GET /reset       the connection is reset without an answer
    GET /half        200, half of an answer, then the connection is closed
    GET /ws          WebSocket; answers each text with "<name>:<text>"
    any other path, any method with a body: 200, the name

Every answer carries `X-App: <name>`. Invariants: one thread, one event loop; `stop` cuts what is open.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import signal
import socket
import struct
import threading
from collections import Counter
from types import TracebackType
from typing import Any, Final, Self

_WEBSOCKET_GUID: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_OP_CLOSE: Final = 8

Headers = dict[str, str]


class _Connection(asyncio.StreamReaderProtocol):
    """A connection that its app knows from its first moment to its last."""

    def __init__(self, app: WebApp) -> None:
        super().__init__(asyncio.StreamReader(), app.serve)
        self._app = app

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport_of_app = transport
        self._app.connections.add(transport)
        super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._app.connections.discard(self._transport_of_app)
        super().connection_lost(exc)


class WebApp:
    """The service in a thread of its own, from construction to `stop`."""

    def __init__(self, name: str, *, port: int = 0) -> None:
        """Listens on loopback when it returns; port 0: any free one."""
        self.name = name
        self.healthy = True
        self.health_delay_s = 0.0
        """How long an answer to /healthz takes."""
        self.requests: Counter[str] = Counter()
        """By path, without the query; health checks included."""
        self._socket = socket.create_server(("127.0.0.1", port), backlog=1024)
        self.port: int = self._socket.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(lambda *_: None)  # clients that vanish are no news
        self.connections: set[asyncio.BaseTransport] = set()
        self._thread = threading.Thread(target=self._run, name=f"web app {name}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End at once, as a crash would: open connections are cut. Safe to repeat."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        listening = self._loop.create_server(lambda: _Connection(self), sock=self._socket)
        server = self._loop.run_until_complete(listening)
        self._loop.run_forever()
        # A server that is closed while it takes a connection leaves that connection open: take none first.
        self._loop.remove_reader(self._socket)
        self._loop.run_until_complete(self._cut())
        server.close()
        self._loop.close()

    async def _cut(self) -> None:
        """Cut every connection, those included that were accepted a moment ago."""
        before: set[asyncio.Task[Any]] = set()
        for _ in range(100):
            await asyncio.sleep(0.01)
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            if not self.connections and not tasks:
                break
            for transport in tuple(self.connections):
                if isinstance(transport, asyncio.WriteTransport):
                    transport.abort()
            for task in tasks & before:  # one that has not begun would never close its connection
                task.cancel()
            await asyncio.gather(*(tasks & before), return_exceptions=True)
            before = tasks
        await asyncio.sleep(0.02)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until the client closes it."""
        try:
            while await self._answer(reader, writer):
                pass
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # the client is gone, or speaks something else, or `stop` was called
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection may be used again."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        _, target, _ = head[0].split(" ", 2)
        headers = _headers(head[1:-2])
        await reader.readexactly(int(headers.get("content-length", "0")))
        path, _, query = target.partition("?")
        self.requests[path] += 1
        if headers.get("upgrade", "").lower() == "websocket":
            await self._websocket(reader, writer, headers)
            return False
        if path == "/reset":
            writer.transport.abort()
            return False
        if path == "/half":
            writer.write(f"HTTP/1.1 200 -\r\nContent-Length: 8\r\nX-App: {self.name}\r\n\r\nhalf".encode())
            await writer.drain()
            return False
        if path == "/healthz":
            await asyncio.sleep(self.health_delay_s)
        if path == "/slow":
            await asyncio.sleep(int(query.partition("=")[2]) / 1000)
        keep = headers.get("connection", "").lower() != "close"
        status, body = self._content(path, headers)
        writer.write(
            f"HTTP/1.1 {status} -\r\nContent-Length: {len(body)}\r\nX-App: {self.name}\r\n"
            f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n".encode()
            + body
        )
        await writer.drain()
        return keep

    def _content(self, path: str, headers: Headers) -> tuple[int, bytes]:
        if path == "/healthz":
            return (200 if self.healthy else 503), b""
        if path == "/headers":
            return 200, json.dumps(headers).encode()
        if path.startswith("/status/"):
            return int(path.rpartition("/")[2]), b""
        return 200, self.name.encode()

    async def _websocket(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: Headers
    ) -> None:
        digest = hashlib.sha1(
            (headers["sec-websocket-key"] + _WEBSOCKET_GUID).encode(), usedforsecurity=False
        )
        accept = base64.b64encode(digest.digest()).decode()
        writer.write(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Accept: {accept}\r\nX-App: {self.name}\r\n\r\n".encode()
        )
        while True:
            first, second = await reader.readexactly(2)
            length = second & 0x7F
            if length == 126:
                length = struct.unpack(">H", await reader.readexactly(2))[0]
            mask = await reader.readexactly(4)
            text = bytes(byte ^ mask[i % 4] for i, byte in enumerate(await reader.readexactly(length)))
            if first & 0x0F == _OP_CLOSE:
                return
            answer = self.name.encode() + b":" + text
            writer.write(bytes([0x81]) + _length(len(answer)) + answer)
            await writer.drain()


def _length(length: int) -> bytes:
    return bytes([length]) if length < 126 else struct.pack(">BH", 126, length)


def _headers(lines: list[str]) -> Headers:
    headers: Headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        name, value = name.strip().lower(), value.strip()
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers


class WebSocket:
    """A WebSocket client; short text messages, blocking."""

    def __init__(self, port: int, *, host: str, headers: str = "", timeout_s: float = 5.0) -> None:
        """Connects to loopback and asks for `/ws` of `host`; `headers`: further lines, each ended by CRLF."""
        self._socket = socket.create_connection(("127.0.0.1", port), timeout_s)
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET /ws HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n{headers}\r\n".encode()
        )
        self._file = self._socket.makefile("rb")
        status = self._file.readline()
        if not status.startswith(b"HTTP/1.1 101"):
            self.close()
            raise ConnectionError(status.decode())
        while self._file.readline() not in (b"\r\n", b""):
            pass

    def ask(self, text: str) -> str:
        """Send a text, return the answer. Raises OSError when the connection is gone."""
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(text.encode()))
        self._socket.sendall(bytes([0x81, 0x80 | len(masked)]) + mask + masked)
        head = self._file.read(2)
        if len(head) < 2:
            raise ConnectionError("the WebSocket was closed")
        return self._file.read(head[1] & 0x7F).decode()

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


async def _main() -> None:
    app = WebApp(os.environ.get("NAME", "app"), port=int(os.environ["PORT"]))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    app.stop()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main())

"""A web service as small as it can be: its release in a header, and WebSockets that send back what they get.

Hides asyncio; the standard library only, since it runs from a package of its own. Invariants: an answer never
depends on the one before; SIGTERM ends it at once, with all connections, so that draining is not its merit.
Neighbours: `plane` packs it; `load` and `sockets` are its users, always through the router.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import signal
from pathlib import Path

#: RFC 6455, section 1.3.
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
RELEASE = Path(__file__).with_name("release.txt").read_text().strip().encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nX-Release: %b\r\n\r\nok\n" % RELEASE
#: Operation of a WebSocket frame. Frames are whole and at most 125 bytes long here.
CLOSE = 0x8


class Web(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.received = b""
        self.upgraded = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.upgraded:
            self._echo()
            return
        head, end, rest = self.received.partition(b"\r\n\r\n")
        if not end:
            return
        self.received = rest
        self._answer(head)

    def _answer(self, head: bytes) -> None:
        if self.transport is None:
            return
        lower = head.lower()
        key = lower.find(b"\r\nsec-websocket-key: ")
        if key < 0:
            self.transport.write(ANSWER)
            if b"\r\nconnection: close" in lower:
                self.transport.close()
            return
        secret = head[key + 21 :].partition(b"\r\n")[0]
        accept = base64.b64encode(hashlib.sha1(secret + GUID).digest())  # noqa: S324 - the protocol's hash
        self.transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\nX-Release: %b\r\n\r\n" % (accept, RELEASE)
        )
        self.upgraded = True

    def _echo(self) -> None:
        while len(self.received) >= 6 and self.transport is not None:
            size = self.received[1] & 0x7F
            if len(self.received) < 6 + size:
                return
            mask, masked = self.received[2:6], self.received[6 : 6 + size]
            operation = self.received[0] & 0x0F
            self.received = self.received[6 + size :]
            text = bytes(byte ^ mask[place % 4] for place, byte in enumerate(masked))
            self.transport.write(bytes((0x80 | operation, size)) + text)
            if operation == CLOSE:
                self.transport.close()


async def main() -> None:
    """Serve until SIGTERM."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(Web, "127.0.0.1", int(os.environ["PORT"]), backlog=1024)
    await stop.wait()
    server.close()


if __name__ == "__main__":
    asyncio.run(main())

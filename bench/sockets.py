"""WebSockets that are held open and say a word every second, while releases come and go behind the router.

Hides the protocol (RFC 6455, short text frames only). When a WebSocket ends, whoever held it opens the next
one. Every one leaves a `Life`. Neighbours: `rollouts` compares the ends with the rollouts' times.
"""

from __future__ import annotations

import asyncio
import base64
import os
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

PAUSE_S: Final = 1.0
ANSWER_LIMIT_S: Final = 10.0
TEXT: Final = 0x81


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One WebSocket, from its opening to its end. Unix seconds, as the history of rollouts has them."""

    release: int
    opened_at: float
    ended_at: float
    words: int
    how: str
    """`stopped` by the bench, else what ended it."""


class Sockets:
    """So many WebSockets to one host, in a thread of their own, while the block lasts."""

    def __init__(self, *, port: int, host: str, count: int) -> None:
        self._port, self._host, self._count = port, host, count
        self._thread = threading.Thread(target=lambda: asyncio.run(self._everybody()), daemon=True)
        self._stop = threading.Event()
        self.lives: list[Life] = []
        self.refused: list[str] = []
        """WebSockets that could not be opened."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> tuple[Life, ...]:
        """Close all; every WebSocket that there was. May be called again."""
        self._stop.set()
        self._thread.join()
        return tuple(self.lives)

    async def _everybody(self) -> None:
        async with asyncio.TaskGroup() as holders:
            for _ in range(self._count):
                holders.create_task(self._hold())

    async def _hold(self) -> None:
        while not self._stop.is_set():
            try:
                reader, writer, release = await asyncio.wait_for(self._open(), ANSWER_LIMIT_S)
            except (OSError, EOFError, ValueError, TimeoutError) as error:
                self.refused.append(f"{type(error).__name__}: {error}")
                await asyncio.sleep(PAUSE_S)
                continue
            self.lives.append(await self._live(reader, writer, release))
            writer.close()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, int]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            f"GET /socket HTTP/1.1\r\nHost: {self._host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if b" 101 " not in head.partition(b"\r\n")[0]:
            writer.close()
            raise ValueError(head.partition(b"\r\n")[0].decode("latin-1"))
        return reader, writer, int(head.partition(b"x-release: r")[2].partition(b"\r\n")[0])

    async def _live(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, release: int) -> Life:
        opened_at, words, how = time.time(), 0, "stopped"
        try:
            while not self._stop.is_set():
                await self._say(reader, writer, f"{words}".encode())
                words += 1
                await self._rest(reader)
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            how = f"{type(error).__name__}: {error}"
        return Life(release=release, opened_at=opened_at, ended_at=time.time(), words=words, how=how)

    async def _say(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, word: bytes) -> None:
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(word))
        writer.write(bytes((TEXT, 0x80 | len(word))) + mask + masked)
        answer = await asyncio.wait_for(reader.readexactly(2 + len(word)), ANSWER_LIMIT_S)
        if answer[2:] != word:
            raise ValueError(f"sent {word!r}, got {answer!r}")

    async def _rest(self, reader: asyncio.StreamReader) -> None:
        """A pause that ends at once when the other side does."""
        until_s = time.monotonic() + PAUSE_S
        while time.monotonic() < until_s and not self._stop.is_set():
            try:
                await asyncio.wait_for(reader.readexactly(1), 0.1)
            except TimeoutError:
                continue
            raise ValueError("a word that nobody asked for")

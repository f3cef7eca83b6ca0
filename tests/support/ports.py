"""Ports that no other test on this machine has."""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import Final

#: Below the range of instances (from 20 000).
FIRST_PORT, LAST_PORT = 10_000, 19_000
#: Public and internal ports of one control plane, side by side.
EACH: Final = 33

_COUNT: Final = (LAST_PORT - FIRST_PORT) // EACH


class Ports:
    """A block of ports that nobody listens on, and that no other test on this machine gets until `close`.

    To find ports free is not enough: two tests side by side find the same ones before either listens.
    """

    _next = random.randrange(_COUNT)

    def __init__(self) -> None:
        for _ in range(_COUNT):
            Ports._next = (Ports._next + 1) % _COUNT
            first = FIRST_PORT + Ports._next * EACH
            # Kept open: closing it gives the block back, and so does the end of this process.
            self._lock = (Path(tempfile.gettempdir()) / f"tide-ports-{os.geteuid()}-{first}.lock").open("w")
            self.block = range(first, first + EACH)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if all(is_free(port) for port in self.block):
                    return
            self._lock.close()
        raise AssertionError("no free ports on this machine")

    def close(self) -> None:
        self._lock.close()


def is_free(port: int) -> bool:
    """Whether nobody listens there on loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return True
    return False

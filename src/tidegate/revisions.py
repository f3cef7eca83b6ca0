"""Numbers for looks at the world, which never go back.

Hides how they outlive a crash without a write for each: a block of numbers is taken by one durable write, in
place, so that a full disk does not prevent it; what is left of a block is skipped after a restart. A first
block begins at the milliseconds of the wall clock, so that a lost file does not start again from little.

Neighbours: every adapter that looks at the world numbers its looks with one of these.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from tidegate import errors

#: A look a second uses up a block in twelve days.
_BLOCK = 1_000_000
_DIGITS = 20


class Revisions:
    """One sequence, shared by threads; of two processes with the same file the later one counts higher."""

    def __init__(self, path: Path) -> None:
        """Takes a block at once. Call it under the runtime's lock. Raises StorageError."""
        self._path = path
        self._lock = threading.Lock()
        self._last, self._end = 0, 0
        self._take_block()

    def next(self) -> int:
        """A larger number than any before. Raises StorageError when a new block cannot be written down."""
        with self._lock:
            if self._last + 1 >= self._end:
                self._take_block()
            self._last += 1
            return self._last

    def _take_block(self) -> None:
        try:
            begin = int(self._path.read_text(encoding="ascii"))
        except (OSError, ValueError):
            begin = int(time.time() * 1_000)
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(handle, f"{begin + _BLOCK:0{_DIGITS}d}".encode(), 0)
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            raise errors.StorageError(f"{self._path} cannot be written: {error.strerror}.") from error
        self._last, self._end = begin, begin + _BLOCK

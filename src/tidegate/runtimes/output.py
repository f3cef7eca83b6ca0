"""The output of an instance: one file that the app appends to, turned over by copy and truncate.

Hides how lines are found in files that are cut off while they are read. The app writes straight into the
file, so that it never waits for anybody and outlives its shim. Where the file system can cut off a file's
beginning in one step (ext4, XFS) nothing is lost when the file is turned over; elsewhere it is copied and
truncated, and what the app writes between these two (microseconds) is lost.

Invariant: `<file>.1` gets a new inode only after the file itself was cut off by as many bytes as `<file>.1`
is long, so that a reader who sees the new inode knows where its position is now.

Standard library only, the shim uses it. Neighbours: shim.py (writes), process.py (reads).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator

_BLOCK = 1 << 16

#: A longer line is handed on in pieces, so that an app without line ends cannot fill our memory.
LINE_BYTES = 1 << 16


def open_for_append(path: str) -> int:
    """Open, make if needed, an output file that only its owner may read; returns the descriptor."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def turn_over(path: str, *, limit: int, files: int) -> bool:
    """If the file is larger than `limit` bytes, move its content to `<path>.1` and older ones up.

    `files`: how many are kept, the current one included. OSError when the disk is full: nothing is lost then.
    """
    if os.stat(path).st_size <= limit:
        return False
    if files <= 1:
        os.truncate(path, 0)
        return True
    copy = f"{path}.new"
    try:
        _move_content(path, copy)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(copy)
        raise
    for number in range(files - 1, 1, -1):
        with contextlib.suppress(FileNotFoundError):
            os.replace(f"{path}.{number - 1}", f"{path}.{number}")
    os.replace(copy, f"{path}.1")
    return True


def _move_content(path: str, copy: str) -> None:
    """Copy the file's beginning, and cut off what was copied while others append to it."""
    source = os.open(path, os.O_RDWR)
    target = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        status = os.fstat(source)
        whole_blocks = (status.st_size - 1) // status.st_blksize * status.st_blksize
        _copy(source, target, whole_blocks)
        if not _collapse(source, whole_blocks):
            _copy(source, target, None)
            os.ftruncate(source, 0)
    finally:
        os.close(source)
        os.close(target)


def _copy(source: int, target: int, size: int | None) -> None:
    """Append up to `size` bytes, or all that there is, from where the source stands."""
    while size is None or size > 0:
        block = os.read(source, _BLOCK if size is None else min(size, _BLOCK))
        if not block:
            return
        size = None if size is None else size - len(block)
        while block:
            block = block[os.write(target, block) :]


def _collapse(handle: int, size: int) -> bool:
    """Cut the first `size` bytes off the file in one step; False where the file system cannot."""
    collapse_range = 0x08
    offset, length = ctypes.c_longlong(0), ctypes.c_longlong(size)
    return size > 0 and ctypes.CDLL(None).fallocate(handle, collapse_range, offset, length) == 0


def generations(path: str) -> list[str]:
    """The file and its older parts that are there, newest first."""
    found = []
    for number in range(1_000):
        name = path if number == 0 else f"{path}.{number}"
        if os.path.exists(name):
            found.append(name)
        elif number > 0:
            break
    return found


def last_lines(path: str, count: int) -> list[str]:
    """The last `count` lines of the file and its older parts, oldest first. OSError if unreadable."""
    content = b""
    for name in generations(path):
        with open(name, "rb") as file:
            position = file.seek(0, os.SEEK_END)
            while position > 0 and content.count(b"\n") <= count:
                size = min(_BLOCK, position)
                position -= size
                file.seek(position)
                content = file.read(size) + content
    lines = content.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    return [decode(line) for line in lines[-count:]] if count > 0 else []


def decode(line: bytes) -> str:
    """A line as text, whatever the app wrote."""
    return line.removesuffix(b"\r").decode("utf-8", errors="replace")


class Follower:
    """Reads what is appended to one output file, across turning over, removal and renaming."""

    def __init__(self, path: str) -> None:
        """Starts at the present end. OSError if the file cannot be read."""
        self._path = path
        self._file = open(path, "rb")  # noqa: SIM115 - closed by `close`
        self._older = _inode(f"{path}.1")
        self._position = self._file.seek(0, os.SEEK_END)
        self._rest = b""

    def close(self) -> None:
        self._file.close()

    def new_lines(self) -> Iterator[str]:
        """Lines that were completed since the last call."""
        for name in self._turned_over():
            with contextlib.suppress(OSError), open(name, "rb") as file:
                file.seek(self._position)
                yield from self._lines(file.read())
                self._position = max(0, self._position - os.fstat(file.fileno()).st_size)
        if os.fstat(self._file.fileno()).st_size < self._position:
            return  # it is being turned over just now
        self._file.seek(self._position)
        while block := self._file.read(_BLOCK):
            self._position += len(block)
            yield from self._lines(block)

    def _turned_over(self) -> list[str]:
        """Parts that came to be since the last call, oldest first: those before the one that was known."""
        found = []
        for name in generations(self._path)[1:]:
            if _inode(name) == self._older:
                break
            found.append(name)
        if found:
            self._older = _inode(found[0])
        return found[::-1]

    def last(self) -> Iterator[str]:
        """What is left, a line without its end included: nothing more will be written."""
        yield from self.new_lines()
        if self._rest:
            yield decode(self._rest)
        self._rest = b""

    def _lines(self, block: bytes) -> Iterator[str]:
        *whole, self._rest = (self._rest + block).split(b"\n")
        if len(self._rest) > LINE_BYTES:
            whole.append(self._rest)
            self._rest = b""
        for line in whole:
            yield decode(line)


def _inode(path: str) -> int | None:
    try:
        return os.stat(path).st_ino
    except OSError:
        return None

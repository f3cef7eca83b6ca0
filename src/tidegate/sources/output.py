"""What builds print, a file a push: bounded, without what could drive a terminal, to be followed as it grows.

Invariants: a file never holds more than `BYTES_MAX` and one sentence; its first line says which attempt
printed it, so that who follows a build that was begun again knows to begin again too; a line is whole or not
there yet. Neighbours: `engine.builds` writes, `web.sources` reads.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from tidegate import errors

#: A long build's log; who needs more lets the build write a file.
BYTES_MAX: Final = 8 * 1024 * 1024
#: Newest pushes, of all apps, whose output is kept.
KEPT: Final = 500
CUT: Final = "... more was printed than is kept"

_ESCAPE: Final = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[@-Z\\-_])")


def plain(line: str) -> str:
    """The line without escape sequences, control characters and what turns the direction of text."""
    line = _ESCAPE.sub("", line.rpartition("\r")[2] if "\r" in line.rstrip("\r") else line.rstrip("\r"))
    return "".join(letter if letter.isprintable() or letter == "\t" else "?" for letter in line)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of a build's output."""

    attempt: int
    number: int
    """Of the attempt's lines; 1 is the first."""
    text: str


class Writer:
    """Takes down what one attempt prints. Safe to call from any thread."""

    def __init__(self, file: IO[bytes], attempt: int) -> None:
        self._file = file
        self._left = BYTES_MAX
        self._lock = threading.Lock()
        self._put(f"{attempt}\n".encode())

    def __call__(self, line: str) -> None:
        """Add a line. A full disk loses output, and ends no build."""
        data = f"{plain(line)}\n".encode("utf-8", "replace")
        with self._lock:
            if self._left <= 0:
                return
            if len(data) > self._left:
                data, self._left = f"{CUT}\n".encode(), 0
            self._left -= len(data)
            self._put(data)

    def close(self) -> None:
        with self._lock:
            self._left = 0
            self._file.close()

    def _put(self, data: bytes) -> None:
        try:
            self._file.write(data)
            self._file.flush()
        except OSError:
            self._left = 0


@dataclass(frozen=True, slots=True)
class Outputs:
    """The output of all pushes, in one folder."""

    root: Path

    def begin(self, push: int, attempt: int) -> Writer:
        """The file of a new attempt, in place of an older one's. Raises StorageError."""
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._path(push)
            path.unlink(missing_ok=True)
            writer = Writer(path.open("xb"), attempt)
        except OSError as error:
            raise errors.StorageError(
                f"The output of push #{push} cannot be written: {error.strerror}."
            ) from error
        self._path(push - KEPT).unlink(missing_ok=True)
        return writer

    def read(self, push: int, *, attempt: int = 0, after: int = 0) -> Iterator[Line]:
        """Whole lines that are there now, behind line `after` of that attempt; all of another attempt."""
        try:
            with self._path(push).open("rb") as file:
                first = file.readline()
                current = int(first) if first.endswith(b"\n") else 0
                skipped = after if current == attempt else 0
                for number, line in enumerate(file, 1):
                    if not line.endswith(b"\n"):
                        return
                    if number > skipped:
                        text = line[:-1].decode("utf-8", "replace")
                        yield Line(attempt=current, number=number, text=text)
        except (FileNotFoundError, ValueError):
            return

    def _path(self, push: int) -> Path:
        return self.root / f"{push}.log"

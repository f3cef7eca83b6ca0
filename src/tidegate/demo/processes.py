"""Which processes belong to the demo's control plane, found in /proc by the folder that only they use.

Hides what each kind can be told by: shims and the router are started with an empty environment, apps have
their own. Only Tidegate's and the sample app's programs count (Python and HAProxy); somebody who reads the
control plane's log, or looks on with `tide`, is not one of them.
Neighbours: `control` asks when it stops, and kills what should not be there any more.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
PROGRAMS: Final = ("python", "haproxy")
ONLOOKER: Final = "tide"
KILL_LIMIT_S: Final = 10.0


def of(home: Path) -> tuple[int, ...]:
    """Process ids, in order."""
    numbers = (int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit())
    return tuple(sorted(number for number in numbers if number != os.getpid() and _belongs(number, home)))


def kill(home: Path) -> tuple[int, ...]:
    """Kill all of them, also what they start meanwhile, for `KILL_LIMIT_S` at most; those that were found."""
    killed: list[int] = []
    deadline = time.monotonic() + KILL_LIMIT_S
    while (found := of(home)) and time.monotonic() < deadline:
        for number in found:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(number, signal.SIGKILL)
        killed += [number for number in found if number not in killed]
        time.sleep(0.05)
    return tuple(killed)


def has_ended(pid: int) -> bool:
    """Whether it runs no more; if it was our child, it is then forgotten."""
    with suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return _state(pid) in ("", "Z", "X")


def _belongs(number: int, home: Path) -> bool:
    folder = PROC / str(number)
    arguments = _read(folder / "cmdline").split(b"\0")
    names = [os.fsdecode(argument) for argument in arguments]
    if not Path(names[0]).name.startswith(PROGRAMS) or ONLOOKER in [Path(name).name for name in names]:
        return False
    if _state(number) in ("", "Z", "X"):
        return False
    return any(Path(place).is_relative_to(home) for place in (*names, *_places(folder)))


def _places(folder: Path) -> Iterator[str]:
    """Where the process works, and which files it has open."""
    variables = dict(entry.partition(b"=")[::2] for entry in _read(folder / "environ").split(b"\0"))
    yield os.fsdecode(variables.get(b"TMPDIR", b""))
    with suppress(OSError):
        yield os.readlink(folder / "cwd")  # noqa: PTH115 - a text to compare, not a path to follow
    with suppress(OSError):
        for entry in (folder / "fd").iterdir():
            with suppress(OSError):
                yield os.readlink(entry)  # noqa: PTH115 - as above


def _state(number: int) -> str:
    """The kernel's letter; empty: there is no such process."""
    words = _read(PROC / str(number) / "stat").rpartition(b")")[2].split()
    return words[0].decode("ascii") if words else ""


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""

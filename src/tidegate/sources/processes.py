"""Finds and ends what a build has started, wherever it went.

A build's processes carry a mark in their environment that everything they start inherits. A process group is
not enough: a build may leave it, and who was killed cannot end it. Invariant: a process is named by its pid
and its start time, so that no stranger who was given the same pid is ended. Neighbours: `engine.workshop`
ends each build with it, `engine.builds` what a killed control plane has left.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

MARK: Final = "TIDEGATE_BUILD"
#: A killed process is gone within moments; one that hangs in a dead file system is not waited for.
LIMIT_S: Final = 5.0
_PAUSE_S: Final = 0.01


def mark(home: Path, push: int | None) -> str:
    """Value of the mark; None: what those of all pushes begin with."""
    return f"{home}:{'' if push is None else push}"


def end(value: str, *, whole: bool = True) -> int:
    """Kill all processes that carry this mark, or one that begins so; how many were found.

    Looks again until there is none: a process may have started another meanwhile.
    """
    wanted = f"{MARK}={value}".encode()
    return _end(lambda: _marked(wanted, whole=whole))


def _end(look: Callable[[], set[tuple[int, int]]]) -> int:
    ended: set[tuple[int, int]] = set()
    deadline = time.monotonic() + LIMIT_S
    while found := look():
        for pid, started in found - ended:
            _kill(pid, started)
        ended |= found
        if time.monotonic() > deadline:
            break
        time.sleep(_PAUSE_S)
    return len(ended)


def end_user(user: int) -> int:
    """Kill everything that a user runs who does nothing else: also what has thrown its mark away."""
    return _end(lambda: _of_user(user))


def _of_user(user: int) -> set[tuple[int, int]]:
    found = set()
    for name in os.listdir("/proc"):  # noqa: PTH208 - names only, thousands of them
        with contextlib.suppress(OSError):
            if name.isdigit() and os.stat(f"/proc/{name}").st_uid == user:  # noqa: PTH116 - as above
                started = _started(int(name))
                if started is not None:
                    found.add((int(name), started))
    return found


def _marked(wanted: bytes, *, whole: bool) -> set[tuple[int, int]]:
    found = set()
    for name in os.listdir("/proc"):  # noqa: PTH208 - names only, thousands of them
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            variables = Path(f"/proc/{name}/environ").read_bytes().split(b"\0")
            if any(v == wanted if whole else v.startswith(wanted) for v in variables):
                started = _started(int(name))
                if started is not None:
                    found.add((int(name), started))
    return found


def _started(pid: int) -> int | None:
    """Kernel start time in ticks; None: it is gone, or dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
        return None if fields[0] in (b"Z", b"X", b"x") else int(fields[19])
    except (OSError, IndexError):
        return None


def _kill(pid: int, started: int) -> None:
    with contextlib.suppress(OSError):
        handle = os.pidfd_open(pid)
        try:  # the handle is of whoever has the pid now: compare before the signal
            if _started(pid) == started:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)

"""What the kernel says of processes: who lives, since when, whose child it is, how much it is marked as ours.

A process is named by its pid *and* the kernel's start time in clock ticks since boot: a pid alone may have
been given to somebody else. Standard library only and without any import from Tidegate, because the shim
(`shim.py`), which runs without the package, reads this file too.

Neighbours: shim.py (in the instance's own process), instances.py (in the control plane).
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterable
from typing import NamedTuple

TICKS_PER_S = os.sysconf("SC_CLK_TCK")

#: Place of the start time among the fields that follow the program's name.
_START_FIELD = 19

#: Set for readiness commands, which carry an instance's environment and are not the instance.
CHECK_MARK = "TIDEGATE_CHECK"


class Identity(NamedTuple):
    """One process, for as long as the machine is up."""

    pid: int
    start: int
    """Kernel start time, in ticks since boot."""


class Stat(NamedTuple):
    """The part of /proc/<pid>/stat that is used here."""

    identity: Identity
    parent: int
    group: int
    session: int
    zombie: bool


def boot_id() -> str:
    """Name of this boot of the kernel; pids and boot-time stamps of another one mean nothing."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def stat(pid: int) -> Stat | None:
    """What /proc says of the process now; None: there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b") ")[2].split()
    except OSError:
        return None
    if len(fields) <= _START_FIELD:  # the process ended while the file was read
        return None
    return Stat(
        identity=Identity(pid, int(fields[_START_FIELD])),
        parent=int(fields[1]),
        group=int(fields[2]),
        session=int(fields[3]),
        zombie=fields[0] in {b"Z", b"X", b"x"},
    )


def alive(identity: Identity) -> bool:
    """Whether exactly this process runs. A zombie is dead, also where pid 1 does not bury it."""
    now = stat(identity.pid)
    return now is not None and now.identity == identity and not now.zombie


def every() -> list[Stat]:
    """All processes that are not dead, by pid."""
    found = (stat(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return [one for one in found if one is not None and not one.zombie]


def owner(pid: int) -> int | None:
    """Real user id of the process; None: it is gone."""
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("Uid:")), None)
    except OSError:
        return None


def owners() -> set[int]:
    """Effective user ids of all processes."""
    found = set()
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                found.add(os.stat(f"/proc/{name}").st_uid)
    return found


def environment(pid: int) -> dict[str, str]:
    """The environment with which the process was started; empty if it may not be read."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            entries = file.read().split(b"\0")
    except OSError:
        return {}
    pairs = (os.fsdecode(entry).partition("=") for entry in entries if b"=" in entry)
    return {name: value for name, _, value in pairs}


def marked(processes: Iterable[Stat], marks: dict[str, str]) -> list[Stat]:
    """Those started with all of these environment variables, readiness commands left out."""

    def ours(process: Stat) -> bool:
        found = environment(process.identity.pid)
        return CHECK_MARK not in found and all(found.get(name) == value for name, value in marks.items())

    return [process for process in processes if ours(process)]


def first_leader(processes: Iterable[Stat]) -> Identity | None:
    """The oldest of them that leads a session, as an app does that a shim has started."""
    leaders = [one.identity for one in processes if one.identity.pid == one.session]
    return min(leaders, key=lambda one: one.start, default=None)


def descendants(processes: Iterable[Stat], root: int) -> list[Stat]:
    """All below the process `root`, itself left out."""
    children: dict[int, list[Stat]] = {}
    for process in processes:
        children.setdefault(process.parent, []).append(process)
    found: list[Stat] = []
    open_ends = [root]
    while open_ends:
        below = children.pop(open_ends.pop(), [])
        found.extend(below)
        open_ends.extend(process.identity.pid for process in below)
    return found


def send(identity: Identity, number: signal.Signals, *, confirm: Callable[[], bool] | None = None) -> bool:
    """Signal exactly this process; False if it is gone.

    The pidfd is opened before the start time is looked at: from then on it names that process only, so the
    signal cannot reach a stranger that got the pid in between. `confirm` is asked instead of the start
    time, where something better is known.
    """
    try:
        handle = os.pidfd_open(identity.pid)
    except OSError:
        return False
    try:
        if not (confirm() if confirm else alive(identity)):
            return False
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, number)
            return True
        return False
    finally:
        os.close(handle)

"""What control plane and shim tell each other: the plan (in memory) and the state (in a file).

The *plan* holds secrets, because the instance's environment does. It is handed over as an anonymous file in
memory (`memfd`) that is the shim's standard input for as long as it lives: never on a disk, in an argument
or in an environment, and still there for a control plane that was started later.
The *state* is written by the shim alone, whole or not at all.

Standard library only: the shim runs without the package's dependencies. Neighbours: shim.py, start.py,
instances.py.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Final, TypedDict, cast

from tidegate.runtimes import procfs

#: The plan's format. A shim of another release of Tidegate refuses a plan that it might misread.
VERSION: Final = 2
_FIRST_VERSION = 1

LOCK: Final = "lock"
STATE: Final = "state.json"
STOP: Final = "stop"
OUTPUT: Final = "output.log"

#: The state file is filled up to this size, so that it can be written again in place on a full disk.
STATE_BYTES: Final = 4096

#: Crashes are remembered one by one for this long, and never more than so many (they fit the state file).
RECENT_S: Final = 300.0
RECENT_MAX: Final = 64

#: Environment variables that mark a process as one of an instance; TMPDIR is unique on the machine.
MARKS: Final = ("TIDEGATE_INSTANCE", "TMPDIR")


class ControlGroup(TypedDict):
    """One control group to make for the instance."""

    path: str
    values: dict[str, str]
    """File name -> content, e.g. `memory.max` -> `268435456`."""


class SmokeCheck(TypedDict):
    """A path to ask before a job's command runs."""

    service: str
    port: int | None
    """Where it answers on the loopback; None: it has no address."""
    path: str
    status: int | None
    """None: any 2xx or 3xx."""


class Job(TypedDict):
    """What makes an instance a job: it runs once, and how it ended is its outcome."""

    smoke: list[SmokeCheck]
    timeout_s: float
    """Of all of it; longer has failed."""


class Plan(TypedDict):
    """All that a shim must know to run one instance."""

    version: int
    name: str
    folder: str
    """Instance folder: lock, state, stop mark, output."""
    arguments: list[str]
    environment: dict[str, str]
    hidden: list[str]
    """Variables that hold secrets: never filled into an argument, which the whole machine can read."""
    secret_folder: str | None
    """Made of `secret_files` before each start, removed at the end."""
    secret_files: dict[str, str]
    """File name -> content."""
    job: Job | None
    """None: it shall run for ever."""
    working_folder: str
    user: int | None
    """Numeric user of the instance; None: the same as the shim's."""
    group: int | None
    grace_s: float
    open_files: int | None
    control_groups: list[ControlGroup]
    log_bytes: int
    log_files: int


def readable(content: bytes) -> Plan | None:
    """The plan that a shim of this version or an earlier one was given; None: of another, or damaged.

    What runs goes on over an upgrade, and is asked on whether it is ready: the first version knew neither
    secrets nor jobs.
    """
    try:
        found = json.loads(content)
        version = found["version"]
    except (ValueError, TypeError, KeyError):
        return None
    if version == _FIRST_VERSION:
        nothing: dict[str, object] = {"hidden": [], "secret_folder": None, "secret_files": {}, "job": None}
        found, version = {**found, **nothing, "version": VERSION}, VERSION
    return cast("Plan", found) if version == VERSION else None


class State(TypedDict):
    """What the shim last knew."""

    boot: str
    pid: int | None
    """Process id of the app; None: it does not run now."""
    start: int
    """Its kernel start time in ticks."""
    crashes: int
    recent: list[float]
    """Boot-time seconds of the latest crashes, oldest first."""
    streak: int
    """Crashes in a row, for the back-off."""
    exit: str
    """How it ended last; empty: it never has."""
    passed: bool | None
    """Of a job that has ended; it is never run again."""


def fresh_state(boot: str) -> State:
    """The state of an instance that was never started."""
    return State(boot=boot, pid=None, start=0, crashes=0, recent=[], streak=0, exit="", passed=None)


def read_state(folder: str) -> State | None:
    """What the shim wrote last; None: nothing, or nothing that can be read."""
    try:
        with open(f"{folder}/{STATE}", "rb") as file:
            found = json.load(file)
        return State(
            boot=str(found["boot"]),
            pid=None if found["pid"] is None else int(found["pid"]),
            start=int(found["start"]),
            crashes=int(found["crashes"]),
            recent=[float(at) for at in found["recent"]],
            streak=int(found["streak"]),
            exit=str(found["exit"]),
            passed=passed if isinstance(passed := found.get("passed"), bool) else None,
        )
    except (OSError, ValueError, TypeError, KeyError):
        return None


def write_state(folder: str, state: State) -> None:
    """Replace the state file atomically; on a full disk in place, where it needs no new space.

    OSError if neither can be done.
    """
    content = json.dumps(state).encode().ljust(STATE_BYTES)
    temporary = f"{folder}/{STATE}.new"
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
        os.replace(temporary, f"{folder}/{STATE}")
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        with open(f"{folder}/{STATE}", "r+b") as file:
            file.write(content)


def app_of(state: State, boot: str) -> procfs.Identity | None:
    """The process that the state names, dead or alive; None: none, or one of another boot."""
    if state["pid"] is None or state["boot"] != boot:
        return None
    return procfs.Identity(state["pid"], state["start"])


def crashes_since(state: State, boot: str, now: float) -> int:
    """How many crashes of this boot lie within the last five minutes; `now`: boot-time seconds."""
    return sum(1 for at in state["recent"] if state["boot"] == boot and now - at <= RECENT_S)

"""What on this machine would keep local processes from working, and what is not enforced here.

Hides how each is found out: by running a shim, by looking at folders, control groups and the kernel's ports.
Only looks. Neighbours: process.py (asks, and refuses early by `barrier`), cgroups.py, accounts.py.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from tidegate import ports
from tidegate.core import model
from tidegate.runtimes import accounts, cgroups, launching

#: Fewer free ports than this are worth a word in `tide doctor`.
_FEW_PORTS = 100


def check_shim() -> ports.Finding:
    """Whether a shim can be run at all."""
    name = "process runtime: shim"
    try:
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(launching.SHIM), "check"],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False, env={},
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return ports.Finding(name=name, ok=False, detail=f"{sys.executable} cannot be run: {error}")
    if done.returncode == 0:
        return ports.Finding(name=name, ok=True, detail=f"runs by {sys.executable}")
    words = done.stderr.decode(errors="replace").strip().splitlines()
    return ports.Finding(
        name=name,
        ok=False,
        detail=words[-1] if words else "it does not run",
        hint="Install Tidegate again.",
    )


def check_users(run_as: str, data: Path) -> ports.Finding:
    """Whether apps are kept apart, and reach what is theirs."""
    name = "process runtime: users"
    if not accounts.separates(run_as):
        return ports.Finding(
            name=name,
            ok=True,
            detail="apps run as Tidegate's own user: not kept from its data nor from one another's",
            hint="Start `tide up` as root with run_as set to auto, and each app gets a user of its own.",
        )
    probe = accounts.Account(user=accounts.FIRST_USER, group=accounts.FIRST_USER)
    bar = barrier(data, probe)
    if bar is not None:
        return ports.Finding(
            name=name,
            ok=False,
            detail=f"the apps' users may not pass through {bar} to {data}",
            hint=f"chmod o+x {bar}, or put Tidegate's data elsewhere.",
        )
    detail = (
        "each app and environment has a user of its own"
        if run_as == accounts.AUTO
        else f"apps run as {run_as}"
    )
    return ports.Finding(name=name, ok=True, detail=detail)


def check_ports(candidates: range, taken: frozenset[int]) -> ports.Finding:
    """Whether ports are left, and only ours."""
    name = "process runtime: ports"
    left = len(frozenset(candidates) - taken)
    first, last = _ephemeral_ports()
    span = f"{candidates[0]} to {candidates[-1]}" if candidates else "none"
    if left < _FEW_PORTS:
        return ports.Finding(name=name, ok=left > 0, detail=f"{left} left ({span})", hint="Widen the range.")
    if candidates[-1] >= first and candidates[0] <= last:
        return ports.Finding(
            name=name,
            ok=False,
            detail=f"{span} overlaps the kernel's ephemeral ports {first} to {last}",
            hint="Choose a range outside of them: any outgoing connection may take one.",
        )
    return ports.Finding(name=name, ok=True, detail=f"{left} left ({span})")


def check_limits() -> ports.Finding:
    """Which limits the kernel keeps here."""
    name = "process runtime: limits"
    missing = cgroups.detect().unenforced(model.Limits(memory_bytes=1, cpus=1.0, processes=1))
    if not missing:
        return ports.Finding(name=name, ok=True, detail="memory, CPU and number of processes are enforced")
    return ports.Finding(
        name=name,
        ok=False,
        detail=f"limits on {', '.join(missing)} are not enforced: no control group may be made for them",
        hint="Start `tide up` as root, or as a systemd service with Delegate=yes.",
    )


def check_secrets(places: Iterable[str]) -> ports.Finding:
    """Whether secrets can be files: only in memory, where one of these places lets us."""
    name = "process runtime: secrets as files"
    place = next((place for place in places if os.access(place, os.W_OK | os.X_OK)), None)
    if place is not None:
        return ports.Finding(name=name, ok=True, detail=f"in memory, below {place}")
    return ports.Finding(
        name=name,
        ok=True,
        detail="not possible: no folder in memory may be written to; as variables they are",
        hint="Mount a tmpfs at /dev/shm.",
    )


def barrier(target: Path, account: accounts.Account) -> Path | None:
    """The first folder on the way to (and including) `target` that the account may not pass; None: none."""
    for folder in [*reversed(target.parents), target]:
        with contextlib.suppress(OSError):
            found = folder.stat()
            shift = 6 if found.st_uid == account.user else 3 if found.st_gid == account.group else 0
            if not found.st_mode >> shift & 0o1:
                return folder
    return None


def _ephemeral_ports() -> tuple[int, int]:
    text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii")
    first, last = text.split()
    return int(first), int(last)

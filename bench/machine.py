"""The machine: processors, processes and their CPU time, ports, programs that may be installed.

Hides /proc. Invariant: whatever is started here is ended here, by its process id, however the block ends.
Neighbours: every part of the bench.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
#: Below the ports of instances (20000 on) and of outgoing connections (32768 on).
PORTS: Final = range(10_000, 19_900)
END_LIMIT_S: Final = 10.0

#: Debian's packages of the programs that the bench compares with or uses when they are there.
DEBIAN_PACKAGES: Final = {"wrk": "wrk", "nginx": "nginx-light", "caddy": "caddy"}


class BenchError(Exception):
    """A measurement could not be made; the text says why."""


def program(name: str) -> str | None:
    """Path of an installed program, also of those that only root has on the path."""
    return shutil.which(name, path=os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin")))


def missing() -> tuple[str, ...]:
    """Debian packages of programs that are not installed."""
    return tuple(package for name, package in DEBIAN_PACKAGES.items() if program(name) is None)


def described() -> str:
    """The machine in one line, with how busy it was before the bench began."""
    return (
        f"{_processor()}, {os.cpu_count()} processors, Linux {platform.release().partition('-')[0]}, "
        f"Python {platform.python_version()}, load average of the last minutes {os.getloadavg()[1]:.1f}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


# --- CPU -------------------------------------------------------------------------------------------


def cpu_s_of(stat: str) -> float:
    """User and system seconds from the text of /proc/<pid>/stat; the name in it may hold anything."""
    words = stat.rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / TICKS_PER_S


def cpu_s(pids: Iterable[int]) -> float:
    """CPU seconds that these processes have used; one that has ended counts as nothing."""
    total = 0.0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += _scheduled_s(pid) or cpu_s_of(Path(f"/proc/{pid}/stat").read_text())
    return total


def _scheduled_s(pid: int) -> float:
    """The same to the nanosecond, from all threads; 0 where the kernel does not tell."""
    nanoseconds = 0
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            nanoseconds += int((thread / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9


def children_of(pid: int) -> tuple[int, ...]:
    """Processes that this one has started, and that they have started, and so on."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in (thread / "children").read_text().split():
                found += [int(child), *children_of(int(child))]
    return tuple(found)


def pin(pids: Iterable[int], core: int) -> None:
    """Keep processes, with all their threads, on one processor; nothing happens where there is only one."""
    if core not in os.sched_getaffinity(0):
        return
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})


# --- processes -------------------------------------------------------------------------------------


@contextlib.contextmanager
def running(arguments: Sequence[str], *, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program in the foreground; ended, and killed if that does not help.

    In a session of its own, as Tidegate's router is: on a busy machine Linux shares processors out by session
    (sched_autogroup), and a proxy in the bench's session would get a part of the bench's share.
    """
    with (folder / "output.log").open("ab") as log:
        process = subprocess.Popen(
            arguments,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environment(folder),
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(END_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _environment(folder: Path) -> dict[str, str]:
    """Nothing of ours; caches go into the folder."""
    return {"PATH": "/usr/bin:/bin:/usr/sbin", "HOME": str(folder), "XDG_DATA_HOME": str(folder)}


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    """A temporary folder that other users may pass through; removed, with read-only files in it."""
    root = Path(tempfile.mkdtemp(prefix="tidegate-bench-")).resolve()
    try:
        root.chmod(0o711)
        yield root
    finally:
        for place, _, _ in os.walk(root):
            with contextlib.suppress(OSError):
                Path(place).chmod(0o700)
        shutil.rmtree(root, ignore_errors=True)


def wait_for(what: str, met: Callable[[], bool], *, limit_s: float = 15.0, every_s: float = 0.01) -> None:
    """Return when it is so. Raises BenchError after the limit."""
    deadline = time.monotonic() + limit_s
    while not met():
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: not within {limit_s:g} s")
        time.sleep(every_s)


# --- ports -----------------------------------------------------------------------------------------


_given: set[int] = set()


def free_ports(count: int) -> tuple[int, ...]:
    """Loopback ports in a row that nobody listens on now, and never the same twice. Raises BenchError."""
    begin = PORTS.start + os.getpid() * 37 % (len(PORTS) // 2)
    for first in range(begin, PORTS.stop - count, count):
        ports = tuple(range(first, first + count))
        if _given.isdisjoint(ports) and all(_is_free(port) for port in ports):
            _given.update(ports)
            return ports
    raise BenchError(f"no {count} ports in a row are free between {begin} and {PORTS.stop}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def answers(port: int, *, host: str = "127.0.0.1") -> bool:
    """Whether an HTTP server there says 200 to `/` of this host."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as client:
            client.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            return client.recv(64).split(b" ", 2)[1:2] == [b"200"]
    except OSError:
        return False

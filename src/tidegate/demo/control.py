"""A control plane of the demo's own: in a temporary folder, on free ports, started as a user would start it.

Hides what it takes to leave nothing behind, however the story ends: everything is stopped by the control
plane itself; whatever does not obey is killed and reported; then the folder is removed.
Neighbours: `story` plays on it; `launcher` starts it; `processes` finds what is left.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tidegate import client, errors, launcher, paths
from tidegate.demo import processes

#: Below the ports that instances are given (20000 on) and those of outgoing connections (32768 on).
PORTS: Final = range(10_000, 19_900)
#: For calls from `web` to `api`: one per slot of the router.
LINK_PORTS: Final = 8
#: Somebody else may take a port between our look and our start.
START_TRIES: Final = 3
STOP_LIMIT_S: Final = 30.0
INTERRUPTIONS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
OTHERS_MAY_ENTER: Final = 0o001
OTHERS_MAY_RUN: Final = 0o005


@dataclass(slots=True, kw_only=True)
class Control:
    """The demo's control plane, and where its users' requests go."""

    home: paths.Home
    work: Path
    """For copies of the sample app."""
    port: int = 0
    keep: bool = False
    """Leave everything running."""
    left_behind: list[int] = field(default_factory=list)
    """Processes that did not end when they were told to, and were killed."""

    def connect(self) -> client.Client:
        """A client, to be used as a context manager."""
        return client.Client(self.home.socket, on_behalf_of="tide demo")


@contextmanager
def temporary() -> Iterator[Control]:
    """A control plane that runs; stopped and removed at the end, unless `keep` was set by then.

    Raises TidegateError if it cannot be started.
    """
    root = Path(tempfile.mkdtemp(prefix="tidegate-demo-")).resolve()
    control = Control(home=paths.Home(root / "home"), work=root / "releases")
    try:
        root.chmod(0o711)  # the apps' user passes through, to its package
        control.work.mkdir()
        _start(control)
        yield control
    except BaseException:
        control.keep = False
        raise
    finally:
        if not control.keep:
            with _undisturbed():
                _stop(control)
                _remove(control, root)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Cleaning up takes a second or two and is not interrupted: a second Ctrl-C would leave half of it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in INTERRUPTIONS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(control: Control) -> None:
    run_as = "auto" if others_can_use(control.home.root.parent) else "same"
    for attempt in range(1, START_TRIES + 1):
        control.port, *link_ports = free_ports(1 + LINK_PORTS)
        settings = launcher.Settings(
            port=control.port, link_ports=(link_ports[0], link_ports[-1] + 1), run_as=run_as
        )
        try:
            with _own_python_on_path():
                launcher.start_detached(control.home, settings)
        except errors.ReportedError as error:
            if error.reported.get("type") != "port-taken" or attempt == START_TRIES:
                raise
        else:
            return


def free_ports(count: int) -> tuple[int, ...]:
    """Loopback ports in a row that nobody listens on now. Raises PortTakenError."""
    starts = list(range(PORTS.start, PORTS.stop - count, count))
    random.shuffle(starts)
    for start in starts:
        if all(_is_free(port) for port in range(start, start + count)):
            return tuple(range(start, start + count))
    raise errors.PortTakenError(f"No {count} ports in a row are free between {PORTS.start} and {PORTS.stop}.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@contextmanager
def _own_python_on_path() -> Iterator[None]:
    """The sample app is started as `python3`: where there is no other, by the one that runs us."""
    before = os.environ.get("PATH", os.defpath)
    os.environ["PATH"] = os.pathsep.join((before, str(Path(sys.executable).parent)))
    try:
        yield
    finally:
        os.environ["PATH"] = before


def others_can_use(folder: Path) -> bool:
    """Whether an app could run as a user of its own: it must reach its package and a Python."""
    if os.geteuid() != 0:
        return True  # nobody can switch users, so the question does not arise
    found = (Path(entry) / "python3" for entry in os.environ.get("PATH", os.defpath).split(os.pathsep))
    return _others_reach(folder) and any(
        candidate.exists() and _others_run(candidate) and _others_run(candidate.resolve())
        for candidate in found
    )


def _others_run(program: Path) -> bool:
    return _others_reach(program.parent) and program.stat().st_mode & OTHERS_MAY_RUN == OTHERS_MAY_RUN


def _others_reach(folder: Path) -> bool:
    return all(place.stat().st_mode & OTHERS_MAY_ENTER for place in (folder, *folder.parents))


def _stop(control: Control) -> None:
    """In order, then by force."""
    with suppress(errors.TidegateError), control.connect() as connection:
        pid = int(connection.status()["pid"])
        connection.shutdown(apps=True)
        deadline = time.monotonic() + STOP_LIMIT_S
        while not processes.has_ended(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
    control.left_behind += processes.kill(control.home.root)


def _remove(control: Control, root: Path) -> None:
    if control.home.socket.parent != control.home.root:
        shutil.rmtree(control.home.socket.parent, ignore_errors=True)
    for folder, _, _ in os.walk(root):  # packages are read-only
        with suppress(OSError):
            Path(folder).chmod(0o700)
    shutil.rmtree(root, ignore_errors=True)
    if root.exists():
        raise errors.StorageError(f"The folder {root} could not be removed.", hint="Remove it by hand.")

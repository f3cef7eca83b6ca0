"""Keeps HAProxy running, also while the control plane is down.

Run as a script, `python -I -S supervisor.py FOLDER`; only the standard library, so that no upgrade of a
package can break it. Hides how HAProxy is started, restarted, found again and stopped. Neighbours:
`process` starts and stops this program, `config` writes what HAProxy reads.

Invariants:
- This process opens the listening sockets and never closes them while it serves: HAProxy gets them at its
  start by its own hand-over protocol (`-x`, `_getsocks`). When HAProxy dies, new connections wait in the
  kernel until the next one, tens of milliseconds later, accepts them: only those in flight are lost.
- It may itself die at any time (kill -9): HAProxy goes on, and the next supervisor fetches the sockets
  from it by the same protocol. Nothing is closed in between.
- Who is who is never told by a bare process id: the supervisor is the holder of the lock, HAProxy is
  who listens on `master.sock` in the folder, and signals go through process file descriptors.
- All paths are relative to the folder, which is the working directory: the length limit of Unix socket
  names does not depend on where the folder is.
"""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any, Final

LOCK: Final = "supervisor.lock"
NOTE: Final = "supervisor.note"
SETTINGS: Final = "supervisor.json"
MASTER_SOCKET: Final = "master.sock"
ADMIN_SOCKET: Final = "admin.sock"
FEED_SOCKET: Final = "feed.sock"
#: Between HAProxy's own processes; see base.cfg.
SUCCESSOR_SOCKETS: Final = ("public.sock", "links.sock")
LOG: Final = "haproxy.log"
BASE: Final = "base.cfg"
ENVIRONMENTS: Final = "environments"

#: Backlog of the listening sockets: what waits here while HAProxy restarts is not lost.
BACKLOG: Final = 4096
#: Sockets per message of the hand-over protocol (HAProxy's MAX_SEND_FD; the kernel allows 253).
SOCKETS_PER_MESSAGE: Final = 252
#: HAProxy waits one second for each answer of the hand-over protocol; so do we.
HANDOVER_TIMEOUT_S: Final = 1.0
#: A program that lived shorter than this is restarted with a growing pause.
SHORT_LIFE_S: Final = 1.0
PAUSE_MAX_S: Final = 5.0
LOCK_PATIENCE_S: Final = 1.0
#: The log is cut to this at each start: HAProxy writes only warnings and state changes to it.
LOG_BYTES_MAX: Final = 1_000_000

Address = tuple[str, int]


def main(arguments: list[str]) -> int:
    """Detach, take the lock, serve until SIGTERM. Prints one JSON object when HAProxy has been started."""
    os.chdir(arguments[1])
    read_end, write_end = os.pipe()
    if os.fork():
        os.close(write_end)
        with os.fdopen(read_end) as answers:
            answer = answers.read()
        sys.stdout.write(answer or '{"error": "died"}')
        return 0
    os.close(read_end)
    os.setsid()
    detach_output()
    supervise(write_end)
    return 0


def supervise(report_to: int) -> None:
    """The whole life of the supervisor; `report_to` is a pipe to the program that started it."""
    try:
        lock = take_lock()
        if lock is None:
            report(report_to, {"ok": True, "held": True})
            return
        supervisor = Supervisor(json.loads(Path(SETTINGS).read_text()), lock)
        supervisor.begin()
    except PortTaken as taken:
        host, port = taken.address
        report(report_to, {"error": "port", "host": host, "port": port, "detail": str(taken)})
        return
    except (OSError, ValueError, KeyError) as error:
        report(report_to, {"error": "failed", "detail": str(error)})
        return
    report(report_to, {"ok": True})
    supervisor.serve()


class PortTaken(Exception):
    """A socket could not be bound."""

    def __init__(self, address: Address, error: OSError) -> None:
        self.address = address
        super().__init__(error.strerror)


class Supervisor:
    """Owns the listening sockets and one HAProxy master process."""

    def __init__(self, settings: dict[str, Any], lock: int) -> None:
        self.settings = settings
        self.lock = lock
        self.sockets: dict[Address, socket.socket] = {}
        self.process: int | None = None
        """File descriptor of HAProxy's master process."""
        self.started_at = 0.0
        self.pause_s = 0.0
        self.wake, wake_writer = os.pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(wake_writer, False)
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for ignored in (signal.SIGHUP, signal.SIGINT, signal.SIGPIPE):
            signal.signal(ignored, signal.SIG_IGN)
        self.feed = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)

    def begin(self) -> None:
        """Adopt the HAProxy that runs, or start one. Raises PortTaken, OSError."""
        self.note("serving")
        listen = [(str(host), int(port)) for host, port in self.settings["listen"]]
        self.adopt(listen)
        for address in listen:
            if address not in self.sockets:
                self.sockets[address] = bound(address)
        Path(FEED_SOCKET).unlink(missing_ok=True)
        self.feed.bind(FEED_SOCKET)
        Path(FEED_SOCKET).chmod(0o600)
        self.feed.listen(8)
        if self.process is None:
            self.start()

    def adopt(self, listen: list[Address]) -> None:
        """Take over the HAProxy of an earlier supervisor; one that does not answer is ended."""
        process = running_master()
        if process is None:
            return
        try:
            found = fetch_sockets()
        except (OSError, ValueError):
            found = {}
        self.sockets = {address: found.pop(address) for address in listen if address in found}
        for foreign in found.values():
            foreign.close()
        if len(self.sockets) == len(set(listen)):
            self.process = process
            self.started_at = time.monotonic()
            return
        signal.pidfd_send_signal(process, signal.SIGKILL)
        wait_for_end(process, 5.0)
        os.close(process)

    def start(self) -> None:
        """Start HAProxy in the foreground mode of master and worker."""
        arguments = [
            str(self.settings["binary"]), "-W",
            "-S", f"unix@{MASTER_SOCKET},mode,600,level,admin",
            "-x", FEED_SOCKET,
            "-f", BASE, "-f", ENVIRONMENTS,
        ]  # fmt: skip
        with contextlib.suppress(OSError):
            if Path(LOG).stat().st_size > LOG_BYTES_MAX:
                os.truncate(LOG, 0)
        log = os.open(LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            child = os.posix_spawn(
                arguments[0],
                arguments,
                {"PATH": "/usr/bin:/bin"},
                file_actions=[(os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)],
                setsigmask=[],
                setsigdef=[signal.SIGPIPE, signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGCHLD],
            )
        finally:
            os.close(log)
        self.process = os.pidfd_open(child)
        self.started_at = time.monotonic()

    def serve(self) -> None:
        """Restart HAProxy whenever it ends, until asked to stop."""
        while True:
            readable = self.wait()
            if self.wake in readable and self.asked_to_stop():
                self.stop()
                return
            if self.feed.fileno() in readable:
                with contextlib.suppress(OSError):
                    feed_sockets(self.feed, list(self.sockets.values()))
            if self.process is not None and self.process in readable:
                self.bury()
            if self.process is None:
                self.restart()

    def wait(self) -> list[int]:
        watched = [self.wake, self.feed.fileno()]
        if self.process is not None:
            watched.append(self.process)
        timeout_s = None if self.process is not None else self.pause_s
        return select.select(watched, [], [], timeout_s)[0]

    def asked_to_stop(self) -> bool:
        """Whether SIGTERM was among the signals that came in."""
        with contextlib.suppress(BlockingIOError):
            return signal.SIGTERM in os.read(self.wake, 4096)
        return False

    def bury(self) -> None:
        """HAProxy has ended: collect it, and choose the pause before the next start."""
        assert self.process is not None  # noqa: S101 - the caller watched it
        collect_children()
        os.close(self.process)
        self.process = None
        lived_s = time.monotonic() - self.started_at
        self.pause_s = 0.0 if lived_s > SHORT_LIFE_S else min(PAUSE_MAX_S, max(0.05, self.pause_s * 2))

    def restart(self) -> None:
        """Start HAProxy again when the pause is over; a machine without memory is asked again later."""
        if time.monotonic() - self.started_at < self.pause_s:
            return
        try:
            self.start()
        except OSError:
            self.started_at = time.monotonic()
            self.pause_s = PAUSE_MAX_S

    def stop(self) -> None:
        """Take no more connections, let HAProxy end those it has, end it at the limit."""
        self.note("stopping")
        limit_s = float(json.loads(Path(SETTINGS).read_text()).get("drain_s", 0))
        for listening in self.sockets.values():
            listening.close()
        self.feed.close()
        if self.process is not None:
            endings = ((signal.SIGUSR1, limit_s), (signal.SIGTERM, 1.0), (signal.SIGKILL, 5.0))
            for ending, patience_s in endings if limit_s > 0 else endings[1:]:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self.process, ending)
                if wait_for_end(self.process, patience_s):
                    break
            collect_children()
        for leftover in (FEED_SOCKET, MASTER_SOCKET, ADMIN_SOCKET, *SUCCESSOR_SOCKETS):
            Path(leftover).unlink(missing_ok=True)
        self.note("stopped")

    def note(self, state: str) -> None:
        """Write down who holds the lock, so that signals reach this process and no other."""
        text = json.dumps({**identity(os.getpid()), "state": state, "settings": self.settings})
        write_private(Path(NOTE), text)


# --- processes -------------------------------------------------------------------------------------


def identity(pid: int) -> dict[str, Any]:
    """What tells this process from a later one with the same id. Raises OSError if it does not live."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    if fields[0] in "ZX":  # ended, and not collected by its parent yet
        raise ProcessLookupError(errno.ESRCH, "has ended")
    start_ticks = int(fields[19])
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return {"pid": pid, "start_ticks": start_ticks, "boot": boot}


def running_master() -> int | None:
    """Process file descriptor of the HAProxy that listens on `master.sock`; None: nobody does."""
    first = listener(MASTER_SOCKET)
    if first is None:
        return None
    try:
        process = os.pidfd_open(first)
    except ProcessLookupError:
        return None
    # Asked again: had the process ended before it was opened, its id could be somebody else's by now.
    if listener(MASTER_SOCKET) == first:
        return process
    os.close(process)
    return None


def listener(path: str) -> int | None:
    """Process id of who listens on the Unix socket, as the kernel knows it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(HANDOVER_TIMEOUT_S)
        try:
            client.connect(path)
        except OSError:
            return None
        credentials = array.array("i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return credentials[0]


def write_private(path: Path, text: str) -> None:
    """Replace a file, all at once, by one that only we may read. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)


def wait_for_end(process: int, timeout_s: float) -> bool:
    """Whether the process ended within the time."""
    poll = select.poll()
    poll.register(process, select.POLLIN)
    deadline = time.monotonic() + timeout_s
    while True:
        left_s = deadline - time.monotonic()
        if poll.poll(max(0.0, left_s) * 1000):
            return True
        if left_s <= 0:
            return False


def collect_children() -> None:
    """Collect the exit status of every child that has ended."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def take_lock() -> int | None:
    """File descriptor of the held lock; None: another supervisor serves this folder.

    Asked for a while, since one that has just stopped holds it until its very end.
    """
    lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(lock)
                return None
            time.sleep(0.01)
        else:
            return lock


def detach_output() -> None:
    """Let go of the terminal; take the limits that HAProxy shall inherit."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.suppress(OSError):  # root only
        Path("/proc/self/oom_score_adj").write_text("-500")


def report(pipe: int, answer: dict[str, Any]) -> None:
    """Tell the program that started us how it went. It may be gone: that is no reason to stop."""
    with contextlib.suppress(OSError):
        os.write(pipe, json.dumps(answer).encode())
    os.close(pipe)


# --- listening sockets -----------------------------------------------------------------------------


def bound(address: Address) -> socket.socket:
    """A new listening socket. Raises PortTaken."""
    listening = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES, errno.EADDRNOTAVAIL, errno.EPERM):
            raise PortTaken(address, error) from error
        raise
    listening.settimeout(0)
    return listening


def feed_sockets(feed: socket.socket, sockets: list[socket.socket]) -> None:
    """Answer one `_getsocks` of HAProxy: the count, then batches of sockets, each acknowledged.

    With each socket go an empty namespace, an empty interface (one length byte each) and four unused bytes.
    """
    client, _ = feed.accept()
    with client:
        client.settimeout(HANDOVER_TIMEOUT_S)
        client.recv(64)
        client.sendall(array.array("i", [len(sockets)]).tobytes())
        for begin in range(0, len(sockets), SOCKETS_PER_MESSAGE):
            batch = sockets[begin : begin + SOCKETS_PER_MESSAGE]
            socket.send_fds(client, [bytes(6 * len(batch))], [one.fileno() for one in batch])
            client.recv(4)


def fetch_sockets() -> dict[Address, socket.socket]:
    """The listening sockets of the HAProxy that runs, by address. Raises OSError, ValueError."""
    found: dict[Address, socket.socket] = {}
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(HANDOVER_TIMEOUT_S)
        client.connect(ADMIN_SOCKET)
        client.sendall(b"_getsocks\n")
        count = array.array("i", client.recv(4))[0]
        received = 0
        while received < count:
            _, descriptors, _, _ = socket.recv_fds(client, 1 << 20, SOCKETS_PER_MESSAGE)
            if not descriptors:
                raise OSError(errno.EPIPE, "HAProxy handed over fewer sockets than it announced")
            received += len(descriptors)
            client.sendall(array.array("i", [received]).tobytes())
            for descriptor in descriptors:
                keep(found, socket.socket(fileno=descriptor))
    return found


def keep(found: dict[Address, socket.socket], listening: socket.socket) -> None:
    """Keep a socket of the network; HAProxy's own Unix socket comes along and is let go."""
    address = listening.getsockname()
    if listening.family in (socket.AF_INET, socket.AF_INET6):
        listening.settimeout(0)
        found[(address[0], address[1])] = listening
    else:
        listening.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv))

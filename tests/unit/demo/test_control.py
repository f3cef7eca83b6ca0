"""Where the demo finds room on a machine, and which processes it takes for its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tidegate.demo import control, processes

SLEEP = "import sys, time; print('ready', flush=True); time.sleep(60)"


@pytest.fixture
def python() -> Iterator[Callable[..., int]]:
    """Starts Python processes that do nothing for a while; their pids."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, program: str = SLEEP, **options: object) -> int:
        process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdout=subprocess.PIPE,
            **options,  # type: ignore[call-overload]
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        return int(process.pid)

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_ports_are_free_and_in_a_row() -> None:
    """Somebody could listen on every port that is proposed."""
    found = control.free_ports(5)
    assert [port - found[0] for port in found] == [0, 1, 2, 3, 4]
    for port in found:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", port))


def test_taken_ports_are_not_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row with a port in it that is taken is passed over."""
    first, *_ = control.free_ports(4)
    monkeypatch.setattr(control, "PORTS", range(first, first + 5))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", first + 1))
        assert control.free_ports(2) == (first + 2, first + 3)


@pytest.mark.parametrize("told_by", ["argument", "working folder", "open file", "temporary folder"])
def test_process_is_known_by_what_it_uses(tmp_path: Path, python: Callable[..., int], told_by: str) -> None:
    """Control plane, router, shim and app each give away the folder in a way of their own."""
    (tmp_path / "lock").touch()
    with (tmp_path / "lock").open("rb") as lock:
        pid = {
            "argument": lambda: python(str(tmp_path)),
            "working folder": lambda: python(cwd=tmp_path),
            "open file": lambda: python(pass_fds=(lock.fileno(),)),
            "temporary folder": lambda: python(env={"TMPDIR": str(tmp_path / "tmp" / "web.0")}),
        }[told_by]()
        assert processes.of(tmp_path) == (pid,)


def test_onlookers_and_strangers_are_left_alone(tmp_path: Path, python: Callable[..., int]) -> None:
    """Who reads the log, looks on with `tide`, or uses a folder of a similar name, is not ours."""
    (tmp_path / "log").touch()
    python(str(tmp_path) + "-other")
    python("/usr/bin/tide", "--home", str(tmp_path))
    reader = subprocess.Popen(["tail", "-f", str(tmp_path / "log")], stdout=subprocess.DEVNULL)
    try:
        assert processes.kill(tmp_path) == ()
        assert reader.poll() is None
    finally:
        reader.kill()
        reader.wait()


def test_killing_ends_all_of_them(tmp_path: Path, python: Callable[..., int]) -> None:
    """A process that ignores every polite signal ends, too, and is reported."""
    stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP
    pids = {python(str(tmp_path), program=stubborn), python(str(tmp_path))}
    assert set(processes.kill(tmp_path)) == pids
    assert processes.of(tmp_path) == ()


def test_ended_child_counts_as_ended() -> None:
    """A control plane that we started is a zombie until somebody asks: asking is enough."""
    pid = os.posix_spawn("/bin/true", ["true"], {})
    deadline = time.monotonic() + 10
    while not processes.has_ended(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert processes.has_ended(pid)
    assert not processes.has_ended(os.getpid())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run apps as other users")
def test_apps_get_users_of_their_own_only_where_those_can_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind a private folder, or with a private Python only, apps run as the demo's own user."""
    private = tmp_path / "private"
    (private / "bin").mkdir(parents=True)
    python3 = private / "bin" / "python3"
    python3.touch(0o755)
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    private.chmod(0o700)
    assert not control.others_can_use(private / "bin")
    monkeypatch.setenv("PATH", str(private / "bin"))
    assert not control.others_can_use(Path("/"))

"""What a build has left running is found by its mark and ended, wherever it went."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tide import is_alive, wait_for
from tidegate.sources import processes

pytestmark = pytest.mark.real
#: Leaves its process group and its parent, as a daemon does.
STRAY = """
import os, sys, time
if os.fork(): sys.exit()
os.setsid()
print(os.getpid(), flush=True)
time.sleep(60)
"""


def stray(mark: str) -> int:
    """Pid of a process that has left everything behind but its environment."""
    done = subprocess.Popen(
        [sys.executable, "-I", "-c", STRAY], env={processes.MARK: mark}, stdout=subprocess.PIPE, text=True
    )
    assert done.stdout is not None
    with done.stdout:
        pid = int(done.stdout.readline())
    done.wait(10)
    return pid


def test_stray_process_is_ended(tmp_path: Path) -> None:
    """A process that left its group is ended with its build, and another build's is not."""
    ours, other = stray(processes.mark(tmp_path, 1)), stray(processes.mark(tmp_path, 12))
    try:
        assert processes.end(processes.mark(tmp_path, 1)) == 1
        wait_for(lambda: not is_alive(ours))
        assert is_alive(other)
    finally:
        assert processes.end(processes.mark(tmp_path, None), whole=False) == 1
    wait_for(lambda: not is_alive(other))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives builds a user of their own")
def test_process_that_threw_its_mark_away_is_ended_with_its_user() -> None:
    """A build's user does nothing else: everything of it goes, and nothing of anybody else."""
    nobody = 65_501
    other = stray("kept")
    process = subprocess.Popen(["/bin/sleep", "60"], env={}, user=nobody, group=nobody, extra_groups=[])
    try:
        assert processes.end_user(nobody) == 1
        assert process.wait(10) == -9
        assert is_alive(other)
    finally:
        processes.end("kept")


def test_process_of_another_control_plane_is_left_alone(tmp_path: Path) -> None:
    """Another home's builds are not ours, and neither are we."""
    other = stray(processes.mark(tmp_path / "other", 1))
    try:
        assert processes.end(processes.mark(tmp_path, None), whole=False) == 0
        assert is_alive(other)
        assert is_alive(os.getpid())
    finally:
        processes.end(processes.mark(tmp_path / "other", 1))

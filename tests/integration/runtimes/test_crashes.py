"""Ends that nobody asked for, shims that are killed, and processes that will not go."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.integration.runtimes.world import PYTHON, World, alive, wait_for
from tidegate.core import model
from tidegate.core.model import InstanceState
from tidegate.runtimes import cgroups, instances, procfs

pytestmark = pytest.mark.real


@pytest.mark.parametrize(
    ("request_path", "words"),
    [
        ("/end?status=3", "exit status 3"),
        ("/end?status=0", "exit status 0"),
        ("/die?signal=11", "killed by SIGSEGV"),
    ],
)
def test_app_that_ends_is_started_again_on_its_port(world: World, request_path: str, words: str) -> None:
    """An unasked end is counted, described, and answered by a new process at the same address."""
    group = world.group()
    before = world.start(group)
    world.ask(request_path)
    wait_for(lambda: world.instance().pid not in {None, before.pid} and world.ready(group))
    after = world.instance()
    assert (after.port, after.crashes, after.recent_crashes, after.exit) == (before.port, 1, 1, words)


def test_app_that_is_down_is_not_ready_at_once(world: World) -> None:
    """A dead process is unready in the very next look, whatever its last answer was."""
    group = world.group()
    before = world.start(group)
    assert before.pid is not None
    os.kill(before.pid, signal.SIGKILL)
    wait_for(lambda: not alive(before.pid or 0))
    seen = world.instance()
    assert seen.ready is not True
    assert seen.pid != before.pid


def test_crash_loop_is_counted_and_slows_down(world: World) -> None:
    """Each failed start counts; between them the wait doubles, so that a loop costs little."""
    world.runtime.apply(world.worker("raise SystemExit(9)"), key="k")
    wait_for(lambda: world.instance().crashes >= 3)
    wait_for(lambda: world.instance().state is InstanceState.BACKOFF)
    seen = world.instance()
    assert seen.recent_crashes == seen.crashes
    assert (seen.ready, seen.pid, seen.exit) == (False, None, "exit status 9")
    state = json.loads((world.instance_folder(world.group()) / "state.json").read_bytes())
    pauses = [after - before for before, after in zip(state["recent"], state["recent"][1:], strict=False)]
    assert pauses[1] > pauses[0] > 0.2


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (("./bin/missing",), "cannot start ./bin/missing: no such file in the package"),
        (("no-such-program-anywhere",), "cannot start no-such-program-anywhere: no such program on PATH"),
        (("./plain.txt",), "may not execute it"),
        (("./no-interpreter",), "the interpreter that its first line names is not on this machine"),
        (("./no-program",), "it has no #! line"),
    ],
)
def test_app_that_cannot_be_started_says_why(world: World, run: tuple[str, ...], words: str) -> None:
    """A command that the kernel refuses is told in words, in the state and in the output."""
    world.add("plain.txt", "#!/bin/sh\n")
    world.add("no-interpreter", "#!/no/such/interpreter\n", mode=0o755)
    world.add("no-program", "hello\n", mode=0o755)
    group = world.worker("", run=run)
    world.runtime.apply(group, key="k")
    seen = world.instance()
    assert words in seen.exit
    assert seen.crashes >= 1
    assert any(words in line for line in world.runtime.last_output(group.id))


def test_app_that_ignores_sigterm_is_killed_after_its_grace(world: World) -> None:
    """SIGKILL comes when the grace is over, and not before."""
    group = world.group(environment=(("IGNORE_TERM", "1"),), grace_s=0.6)
    pid = world.start(group).pid
    assert pid is not None
    begun = time.monotonic()
    world.runtime.remove(group.id, key="k")
    wait_for(lambda: not alive(pid))
    assert 0.5 <= time.monotonic() - begun < 5
    wait_for(world.gone)


@pytest.mark.parametrize("bare", ["", "&bare=1"])
@pytest.mark.parametrize("how", ["remove", "crash"])
def test_daemonised_grandchildren_go_with_the_app(world: World, how: str, bare: str) -> None:
    """What left the app's session is killed too, when it is stopped and before it is started again."""
    group = world.group()
    before = world.start(group)
    grandchild = world.ask(f"/daemonise?x=1{bare}")
    assert alive(grandchild)
    if how == "remove":
        world.runtime.remove(group.id, key="k")
        wait_for(world.gone)
    else:
        world.ask("/end?status=1")
        wait_for(lambda: world.instance().pid not in {None, before.pid})
    assert not alive(grandchild)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1])
def test_signal_to_the_shim_alone_stops_nothing(world: World, number: signal.Signals) -> None:
    """Only a `stop` mark stops an app; a stray signal to its shim does not."""
    group = world.group()
    before = world.start(group)
    shim = world.shim(group)
    assert shim is not None
    os.kill(shim, number)
    time.sleep(0.2)  # what must not happen has no end to wait for
    assert world.shim(group) == shim
    assert world.instance().pid == before.pid


# --- the shim is killed ---------------------------------------------------------------------------------


def test_app_goes_on_without_its_shim_and_is_adopted(world: World) -> None:
    """The app of a killed shim is seen and serves; apply gives it a new shim, which restarts it later."""
    group = world.group()
    before = world.start(group)
    world.kill_shim(group)
    seen = world.instance()
    assert (seen.pid, seen.ready, seen.state) == (before.pid, True, InstanceState.RUNNING)
    assert world.shim(group) is None

    world.runtime.apply(group, key="adopt")
    assert world.shim(group) is not None
    assert world.instance().pid == before.pid
    world.ask("/end?status=1")
    wait_for(lambda: world.instance().pid not in {None, before.pid} and world.ready(group))
    after = world.instance()
    assert (after.port, after.crashes) == (before.port, 1)
    assert "how is unknown" in after.exit


def test_app_without_a_shim_is_removed(world: World) -> None:
    """Remove stops the app and what it left in other sessions, also when its shim was killed."""
    group = world.group()
    before = world.start(group)
    grandchild = world.ask("/daemonise")
    world.kill_shim(group)
    world.runtime.remove(group.id, key="k")
    wait_for(world.gone)
    assert not alive(before.pid or 0)
    assert not alive(grandchild)


def test_control_groups_of_a_killed_shim_are_removed_with_the_instance(world: World) -> None:
    """Nothing is left in the kernel of an instance whose shim had no time to clear up."""
    group = world.group()
    before = world.start(group)
    world.kill_shim(group)
    os.kill(before.pid or 0, signal.SIGKILL)
    wait_for(lambda: not alive(before.pid or 0))
    world.runtime.remove(group.id, key="k")
    wait_for(world.gone)
    made = cgroups.detect().groups(f"{world.runtime._layout.mark}.{group.id}.0", model.Limits())
    assert [one["path"] for one in made if Path(one["path"]).exists()] == []


def test_app_that_ended_without_a_shim_is_known_dead_and_started_again(world: World) -> None:
    """With shim and app gone the instance is EXITED, so that somebody applies; the end is counted then."""
    group = world.group()
    before = world.start(group)
    world.kill_shim(group)
    os.kill(before.pid or 0, signal.SIGKILL)
    wait_for(lambda: world.instance().state is InstanceState.EXITED)
    after = world.start(group)
    assert (after.port, after.crashes) == (before.port, 1)


def test_app_is_found_by_its_marks_when_the_state_is_damaged(world: World) -> None:
    """Without a readable state file and without a shim, the environment of the process tells whose it is."""
    group = world.group()
    before = world.start(group)
    world.kill_shim(group)
    (world.instance_folder(group) / "state.json").write_bytes(b"{")
    assert world.instance().pid == before.pid
    world.runtime.apply(group, key="adopt")
    assert world.instance().pid == before.pid
    world.runtime.remove(group.id, key="k")
    wait_for(world.gone)
    assert not alive(before.pid or 0)


def test_app_of_a_damaged_spec_is_adopted_at_its_port(world: World) -> None:
    """The port that is written down again is the one that the living app has."""
    group = world.group()
    before = world.start(group)
    world.kill_shim(group)
    (world.instance_folder(group) / "spec.json").write_bytes(b"{")
    world.runtime.apply(group, key="adopt")
    wait_for(lambda: world.ready(group))
    assert (world.instance().pid, world.instance().port) == (before.pid, before.port)


def test_empty_command_is_told(world: World) -> None:
    """A group without a command is an instance that cannot start, with the reason."""
    world.runtime.apply(world.worker("", run=()), key="k")
    assert "the command is empty" in world.instance().exit


def test_stranger_with_the_pid_is_neither_taken_for_ours_nor_killed(world: World) -> None:
    """A pid that was given to another process is told apart by its start time, whatever is done then."""
    group = world.group()
    before = world.start(group)
    world.kill_shim(group)
    os.kill(before.pid or 0, signal.SIGKILL)
    wait_for(lambda: not alive(before.pid or 0))
    with subprocess.Popen([PYTHON, "-c", "import time; time.sleep(300)"], start_new_session=True) as stranger:
        try:
            path = world.instance_folder(group) / "state.json"
            path.write_text(json.dumps({**json.loads(path.read_bytes()), "pid": stranger.pid}))
            assert world.instance().state is InstanceState.EXITED
            after = world.start(group)
            assert after.pid != stranger.pid
            world.kill_shim(group)
            path.write_text(json.dumps({**json.loads(path.read_bytes()), "pid": stranger.pid}))
            world.runtime.remove(group.id, key="k")
            wait_for(lambda: not list(world.runtime._layout.indexes(group.id)) or world.gone())
            assert stranger.poll() is None
        finally:
            stranger.kill()
            os.kill(after.pid or 0, signal.SIGKILL)
            wait_for(lambda: not alive(after.pid or 0))
            cgroups.detect().remove(f"{world.runtime._layout.mark}.{group.id}.0")


def test_shim_dies_between_fork_and_exec_without_leaving_an_app(world: World) -> None:
    """There is never an app that no state file names: two shims in quick succession yield one process."""
    group = world.group()
    world.runtime.apply(group, key="k")
    for _ in range(3):
        world.kill_shim(group)
        world.runtime.apply(group, key="again")
    wait_for(lambda: world.ready(group))
    marks = {"TIDEGATE_INSTANCE": f"{group.id}.0", "TMPDIR": world.ask("/env")["TMPDIR"]}
    leaders = [one for one in procfs.marked(procfs.every(), marks) if one.session == one.identity.pid]
    assert [one.identity.pid for one in leaders] == [world.instance().pid]


def test_shim_ends_with_its_folder(world: World) -> None:
    """An instance whose folder was deleted is not left running without anybody who could stop it."""
    group = world.worker("import time; time.sleep(300)")
    before = world.start(group)
    shim = world.shim(group)
    folder = world.instance_folder(group)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    wait_for(lambda: not alive(before.pid or 0) and not alive(shim or 0))
    assert instances.look(world.runtime._layout, group.id, 0) is None

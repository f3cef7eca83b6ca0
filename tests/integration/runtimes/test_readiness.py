"""How instances are asked whether they are ready."""

from __future__ import annotations

import time

import pytest

from tests.integration.runtimes.world import KEY, PYTHON, World, wait_for
from tidegate.core import model
from tidegate.core.model import CheckKind, InstanceState

pytestmark = pytest.mark.real


def test_start_is_noticed_quickly(world: World) -> None:
    """An instance is asked in quick succession until it is ready, whatever its interval."""
    check = model.Check(kind=CheckKind.HTTP, interval_s=60.0)
    begun = time.monotonic()
    world.start(world.group(check=check))
    assert time.monotonic() - begun < 10


def test_http_answer_other_than_2xx_and_3xx_is_not_ready(world: World) -> None:
    """503 makes an instance unready, 302 ready again; the process is left alone."""
    group = world.group()
    pid = world.start(group).pid
    world.ask("/health?status=503")
    wait_for(lambda: world.instance().ready is False)
    assert world.instance().state is InstanceState.RUNNING
    world.ask("/health?status=302")
    wait_for(lambda: world.instance().ready)
    assert (world.instance().pid, world.instance().crashes) == (pid, 0)


def test_hanging_check_delays_nobody(world: World) -> None:
    """An instance that does not answer is unready after its time, and observe does not wait for it."""
    check = model.Check(kind=CheckKind.HTTP, interval_s=0.2, timeout_s=1.0)
    world.start(world.group(check=check, instances=2))
    world.ask("/health?status=0", index=0)
    slowest = 0.0

    def unready() -> bool:
        nonlocal slowest
        begun = time.monotonic()
        answer = world.instance(0).ready
        slowest = max(slowest, time.monotonic() - begun)
        return answer is False

    wait_for(unready)
    assert slowest < 0.5
    assert world.instance(1).ready is True


def test_instance_that_listens_late_is_starting_until_then(world: World) -> None:
    """A living process that has not been ready yet is STARTING."""
    group = world.worker("import time; time.sleep(300)", serves=True, check=model.Check(kind=CheckKind.TCP))
    world.runtime.apply(group, key="k")
    wait_for(lambda: world.instance().ready is False)
    seen = world.instance()
    assert (seen.state, seen.crashes) == (InstanceState.STARTING, 0)


def test_tcp_check_is_ready_when_somebody_accepts(world: World) -> None:
    """A connection is enough."""
    world.start(world.group(check=model.Check(kind=CheckKind.TCP)))


def test_command_check_runs_as_the_instance(world: World) -> None:
    """A readiness command has the instance's environment and folder; its exit status decides."""
    world.add(
        "probe.py",
        "import os, sys\n"
        "same = sys.argv[1] == os.environ['PORT'] and os.environ['COLOUR'] == 'blue'\n"
        "sys.exit(not (same and os.path.exists('server.py') and not os.path.exists('broken')))\n",
    )
    check = model.Check(
        kind=CheckKind.COMMAND, command=(PYTHON, "probe.py", "$PORT"), interval_s=0.2, timeout_s=5.0
    )
    world.start(world.group(check=check))
    world.add("broken", "")
    wait_for(lambda: world.instance().ready is False)


def test_command_check_still_runs_after_control_plane_and_shim_were_lost(world: World) -> None:
    """Nothing that a check needs is only in the memory of the process that started the instance."""
    check = model.Check(kind=CheckKind.COMMAND, command=(PYTHON, "-c", "pass"), timeout_s=5.0)
    group = world.group(check=check)
    world.start(group)
    again = world.new_runtime()
    assert again.observe(KEY).groups[0].instances[0].ready is True
    world.kill_shim(group)
    last = world.new_runtime()
    assert last.observe(KEY).groups[0].instances[0].ready is True


def test_command_check_that_hangs_is_killed(world: World) -> None:
    """A command that takes longer than its time is not ready, and leaves no process behind."""
    check = model.Check(kind=CheckKind.COMMAND, command=("sleep", "298.5"), interval_s=0.2, timeout_s=0.5)
    world.runtime.apply(world.group(check=check), key="k")
    wait_for(lambda: world.instance().ready is False)
    world.runtime.close()
    assert world.instance().crashes == 0


def test_worker_is_ready_when_it_has_run_for_a_while(world: World) -> None:
    """ALIVE: not ready before `settle_s`, ready after."""
    check = model.Check(kind=CheckKind.ALIVE, settle_s=0.8)
    begun = time.monotonic()
    group = world.worker("import time; time.sleep(300)", check=check)
    world.runtime.apply(group, key="k")
    assert world.instance().ready is False
    wait_for(lambda: world.ready(group))
    assert time.monotonic() - begun >= 0.75
    assert world.instance().port is None

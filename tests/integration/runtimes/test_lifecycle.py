"""Groups come, scale, outlive the control plane and go."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from tests.integration.runtimes.world import KEY, World, alive, start_control_plane, wait_for
from tidegate import errors
from tidegate.core import model
from tidegate.core.model import InstanceState

pytestmark = pytest.mark.real


def test_group_becomes_ready_and_is_gone_after_remove(world: World) -> None:
    """A group is started, asked until it is ready, and leaves neither process nor folder behind."""
    group = world.group(instances=2)
    world.start(group)
    (seen,) = world.groups()
    pids = [one.pid for one in seen.instances]
    ports = [one.port for one in seen.instances]
    assert (seen.id, seen.placement, seen.service) == ("shop.production.7.api", 7, "api")
    assert all(one.state is InstanceState.RUNNING and one.crashes == 0 for one in seen.instances)
    assert len(set(ports)) == 2
    shims = [world.shim(group, index) for index in (0, 1)]

    world.runtime.remove(group.id, key="remove")
    wait_for(world.gone)
    assert not any(alive(pid) for pid in [*pids, *shims] if pid)
    assert not (world.folder / "instances" / group.id).exists()
    assert list((world.folder / "tmp").iterdir()) == []


def test_apply_again_changes_nothing(world: World) -> None:
    """Apply is safe to repeat: the same processes go on."""
    group = world.group(instances=2)
    world.start(group)
    before = [(one.pid, one.port) for one in world.groups()[0].instances]
    for _ in range(3):
        world.runtime.apply(group, key="again")
    assert [(one.pid, one.port) for one in world.groups()[0].instances] == before


def test_simultaneous_applies_start_each_instance_once(world: World) -> None:
    """Several threads and another process that apply the same group end up with one copy of each instance."""
    group = world.group(instances=2)
    other = start_control_plane(world, count=2)
    threads = [
        threading.Thread(target=world.runtime.apply, args=(group,), kwargs={"key": "k"}) for _ in range(3)
    ]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert other.stdout is not None
        assert other.stdout.readline() == b"applied\n"
    finally:
        other.kill()
        other.communicate()
    wait_for(lambda: world.ready(group))
    starts = [line.text for line in world.runtime.logs(group.id, tail=100) if line]
    assert len(starts) == 2
    assert all(one.crashes == 0 for one in world.groups()[0].instances)


def test_group_scales_up_and_down(world: World) -> None:
    """Another count of the same group starts what is missing and stops what is too many."""
    world.start(world.group(instances=1))
    first = world.instance().pid
    world.start(world.group(instances=3))
    assert world.instance().pid == first
    world.runtime.apply(world.group(instances=1), key="down")
    wait_for(lambda: len(world.groups()[0].instances) == 1)
    assert world.instance().pid == first
    assert world.ready(world.group(instances=1))


def test_group_that_is_stopping_is_shown_until_the_last_instance_is_gone(world: World) -> None:
    """Remove returns at once; the group is STOPPING and not ready as long as a process is there."""
    group = world.group(environment=(("IGNORE_TERM", "1"),), grace_s=0.7)
    pid = world.start(group).pid
    world.runtime.remove(group.id, key="remove")
    seen = world.instance()
    assert (seen.state, seen.ready, seen.pid) == (InstanceState.STOPPING, False, pid)
    world.runtime.remove(group.id, key="again")
    world.runtime.apply(group, key="too late")
    assert world.instance().pid == pid
    wait_for(world.gone)


@pytest.mark.parametrize("group_id", ["shop.production.9.api", "../../etc", "", "a/b.c.1.d", "x.y.z"])
def test_remove_and_logs_of_an_unknown_group_do_nothing(world: World, group_id: str) -> None:
    """An id that nobody knows, or that is none, is no error and no path."""
    world.runtime.remove(group_id, key="remove")
    assert list(world.runtime.logs(group_id, tail=5, follow=True)) == []


def test_environments_are_seen_apart(world: World) -> None:
    """Observe shows the groups of the environment that is asked for, and no others."""
    world.start(world.worker("import time; time.sleep(300)"))
    other = model.EnvironmentKey(app="shop", environment="staging")
    assert world.runtime.observe(other).groups == ()
    assert len(world.runtime.observe(KEY).groups) == 1


def test_instances_outlive_the_control_plane(world: World) -> None:
    """After kill -9 of the process that started them, a new runtime finds the same pids, ready at once."""
    other = start_control_plane(world, count=2)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"applied\n"
        wait_for(lambda: world.ready(world.group(instances=2)))
        before = [(one.pid, one.port) for one in world.groups()[0].instances]
    finally:
        other.send_signal(signal.SIGKILL)
        other.communicate()
    again = world.new_runtime()
    (seen,) = again.observe(KEY).groups
    assert [(one.pid, one.port) for one in seen.instances] == before
    assert all(one.ready for one in seen.instances)
    again.apply(world.group(instances=2), key="again")
    assert [(one.pid, one.port) for one in again.observe(KEY).groups[0].instances] == before


def test_revision_grows_over_restarts(world: World) -> None:
    """Every look has a larger number than any before, those of former control planes included."""
    numbers = [world.runtime.observe(KEY).revision, world.runtime.observe(KEY).revision]
    numbers.append(world.new_runtime().observe(KEY).revision)
    assert numbers == sorted(set(numbers))


def test_unreadable_folder_is_an_error_and_never_an_empty_answer(world: World) -> None:
    """If the folder cannot be listed, observe says so."""
    instances = world.folder / "instances"
    instances.rename(world.folder / "away")
    try:
        with pytest.raises(errors.RuntimeAdapterError, match="cannot be read"):
            world.runtime.observe(KEY)
    finally:
        (world.folder / "away").rename(instances)


def test_after_a_reboot_instances_are_known_dead_and_start_again(world: World) -> None:
    """A state of another boot names no process of this one; counters are kept, and so is a free port."""
    group = world.group()
    before = world.start(group)
    folder = world.instance_folder(group)
    world.kill_shim(group)
    assert before.pid is not None
    signal.pidfd_send_signal(os.pidfd_open(before.pid), signal.SIGKILL)
    wait_for(lambda: not alive(before.pid or 0))
    state = json.loads((folder / "state.json").read_bytes())
    state |= {"boot": "another", "crashes": 3, "recent": [1.0, 2.0]}
    (folder / "state.json").write_text(json.dumps(state))

    seen = world.instance()
    assert (seen.state, seen.pid, seen.ready) == (InstanceState.EXITED, None, False)
    assert seen.exit == "the machine was restarted"
    after = world.start(group)
    assert (after.port, after.crashes, after.recent_crashes) == (before.port, 3, 0)


def test_port_that_somebody_took_meanwhile_is_replaced(world: World) -> None:
    """An instance that is dead gets another port if a stranger listens on its own now."""
    group = world.group()
    before = world.start(group)
    world.kill_shim(group)
    signal.pidfd_send_signal(os.pidfd_open(before.pid or 0), signal.SIGKILL)
    wait_for(lambda: not alive(before.pid or 0))
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", before.port or 0))
        stranger.listen()
        after = world.start(group)
        assert after.port != before.port


def test_ports_run_out_with_a_sentence(world: World) -> None:
    """When the range is used up, apply says so and what to do."""
    first = world.settings().first_port
    runtime = world.new_runtime(first_port=first, last_port=first + 1, reserved_ports=frozenset({first}))
    with pytest.raises(errors.PortTakenError, match="larger range"):
        runtime.apply(world.group(instances=2), key="k")


def test_damaged_package_is_refused_before_anything_starts(world: World) -> None:
    """What the content callback raises comes out as an error, and no instance is made."""

    def damaged(group: model.InstanceGroup) -> Path:
        raise ValueError("checksum of bin/api differs")

    runtime = world.new_runtime()
    runtime._content = damaged
    with pytest.raises(errors.RuntimeAdapterError, match="checksum of bin/api differs"):
        runtime.apply(world.group(), key="k")
    assert world.gone()


def test_group_that_may_not_run_its_package_is_refused_before_anything_starts(world: World) -> None:
    """Who gives out packages sees the whole group, its admission too, and its own refusal comes out."""

    def guarded(group: model.InstanceGroup) -> Path:
        if group.admission != "sealed":
            raise errors.ArtifactError("r42 was never admitted to production.")
        return world.package

    runtime = world.new_runtime()
    runtime._content = guarded
    with pytest.raises(errors.ArtifactError, match="never admitted"):
        runtime.apply(world.group(), key="k")
    assert world.gone()
    runtime.apply(world.group(admission="sealed"), key="k")
    assert not world.gone()

"""What an app is given, and what it cannot do."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.runtimes.world import DIGEST, World, alive, wait_for
from tidegate import errors
from tidegate.core import model
from tidegate.runtimes import accounts, cgroups, machine

pytestmark = pytest.mark.real


def test_environment_is_ours_then_the_configuration_then_who_and_where_it_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Few of our own variables pass; configuration cannot replace an instance's identity."""
    monkeypatch.setenv("OUR_OWN_TOKEN", "nobody's business")
    monkeypatch.setenv("LC_TIME", "C")
    world.start(
        world.group(environment=(("COLOUR", "blue"), ("TIDEGATE_APP", "forged"), ("LANG", "C.UTF-8")))
    )
    found = world.ask("/env")
    data = str(world.folder / "data" / "shop.production")
    expected = {
        "COLOUR": "blue",
        "HOST": "127.0.0.1",
        "HOME": data,
        "LANG": "C.UTF-8",
        "LC_TIME": "C",
        "PORT": str(world.instance().port),
        "TIDEGATE_APP": "shop",
        "TIDEGATE_DATA": data,
        "TIDEGATE_DIGEST": DIGEST,
        "TIDEGATE_ENVIRONMENT": "production",
        "TIDEGATE_INSTANCE": "shop.production.7.api.0",
        "TIDEGATE_RELEASE": "r42",
        "TIDEGATE_SERVICE": "api",
    }
    assert expected.items() <= found.items()
    assert "OUR_OWN_TOKEN" not in found
    assert Path(found["TMPDIR"]).is_dir()
    assert Path(found["TMPDIR"]).stat().st_mode & 0o777 == 0o700


def test_app_starts_clean(world: World) -> None:
    """No inherited descriptor, no core dumps, a plain umask, a session of its own, first to go for memory."""
    world.start(world.group())
    found = world.ask("/who")
    assert found["cwd"] == str(world.package)
    assert found["umask"] == 0o022
    assert found["oom"].strip() == "500"
    assert found["session"] == world.instance().pid
    assert found["stdin"] == "/dev/null"
    assert set(found["files"]) <= {"0", "1", "2", "3", "4", "5"}  # listening, the request, the listing
    assert re.search(r"Max core file size +0 +0", found["limits"])
    assert re.search(r"NoNewPrivs:\s*1", found["status"])
    assert _signals(found["status"], "SigIgn") == {signal.SIGPIPE, signal.SIGXFSZ}  # Python's own
    assert _signals(found["status"], "SigBlk") == set()


def _signals(status: str, mask: str) -> set[int]:
    """The signals in a mask of /proc/PID/status, without the two that the C library keeps for itself."""
    found = re.search(rf"{mask}:\s*([0-9a-f]+)", status)
    assert found
    bits = int(found[1], 16)
    return {number for number in signal.valid_signals() if bits >> (number - 1) & 1}


def test_data_survives_releases_and_temporary_files_do_not(world: World) -> None:
    """The data folder belongs to app and environment, the temporary one to the instance."""
    program = (
        "import os,time; [open(os.environ[n]+'/f','a').close() for n in ('TMPDIR','HOME')]; time.sleep(300)"
    )
    for placement in (1, 2):
        group = world.worker(program, placement=placement)
        world.start(group)
        wait_for(lambda: list((world.folder / "tmp").glob("*/f")))
        world.runtime.remove(group.id, key="k")
        wait_for(world.gone)
    assert (world.folder / "data" / "shop.production" / "f").exists()
    assert list((world.folder / "tmp").iterdir()) == []


def test_secrets_are_in_no_file_and_no_argument(world: World) -> None:
    """A configured value is found neither on the disk nor on a command line, of the shim or of the app."""
    group = world.group()
    world.start(group)
    world.kill_shim(group)
    world.runtime.apply(group, key="k")
    for path in world.folder.rglob("*"):
        assert not path.is_file() or b"hunter2-canary" not in path.read_bytes(), path
    for pid in world.processes():
        assert b"hunter2-canary" not in Path(f"/proc/{pid}/cmdline").read_bytes()
    assert b"hunter2-canary" not in Path(f"/proc/{world.shim(group)}/environ").read_bytes()
    assert (world.instance_folder(group) / "spec.json").stat().st_mode & 0o777 == 0o600
    assert (world.folder / "instances").stat().st_mode & 0o777 == 0o700


# --- users ----------------------------------------------------------------------------------------------


def test_app_runs_as_a_user_of_its_own_without_rights(separated: World) -> None:
    """An unprivileged number, no groups, no capability; it can write its own folders and read no other's."""
    group = separated.group()
    groups = os.getgroups()
    os.setgroups([*groups, 4242])
    try:
        separated.start(group)
    finally:
        os.setgroups(groups)
    found = separated.ask("/who")
    user = int(re.search(r"Uid:\s*(\d+)\s+\1\s+\1\s+\1", found["status"])[1])  # type: ignore[index]
    assert accounts.FIRST_USER <= user <= accounts.LAST_USER
    assert found["groups"] == []
    assert re.search(r"CapEff:\s*0{16}", found["status"])
    other = separated.folder / "data" / "other.production"
    other.mkdir(mode=0o700)
    data = separated.ask("/env")["TIDEGATE_DATA"]
    assert separated.ask(f"/open?mode=w&path={data}/own") == "open"
    folder = separated.instance_folder(group)
    for path in (
        folder / "spec.json",
        folder / "stop",
        folder / "output.log",
        other / "x",
        separated.folder / "logs/x",
    ):
        for mode in ("r", "a"):
            assert separated.ask(f"/open?mode={mode}&path={path}") == "PermissionError", path
    shim = separated.shim(group)
    assert separated.ask(f"/open?path=/proc/{shim}/environ") == "PermissionError"
    assert separated.ask(f"/open?path=/proc/{shim}/fd/0") == "PermissionError"


def test_each_app_and_environment_has_another_user(separated: World) -> None:
    """Staging runs as another user than production, and each as the same one every time."""
    separated.start(separated.group())
    key = model.EnvironmentKey(app="shop", environment="staging")
    register = separated.folder / "instances" / ".users.json"
    first = accounts.account("auto", key, register)
    assert first != accounts.account("auto", separated.group().key, register)
    assert first == accounts.account("auto", key, register)


def test_instances_of_another_user_are_adopted_and_stopped(separated: World) -> None:
    """Also across users a lost shim is replaced, and a readiness command runs as the app's user."""
    check = model.Check(
        kind=model.CheckKind.COMMAND, command=("sh", "-c", "test $(id -u) -ge 61184"), timeout_s=5.0
    )
    group = separated.group(check=check)
    before = separated.start(group)
    separated.kill_shim(group)
    separated.runtime.apply(group, key="k")
    assert separated.instance().pid == before.pid
    separated.kill_shim(group)
    separated.runtime.remove(group.id, key="k")
    wait_for(separated.gone)
    assert not alive(before.pid or 0)


def test_app_of_a_former_user_is_adopted_and_stopped(separated: World) -> None:
    """After a change of `run_as` an instance goes on as who it was, and is stopped all the same."""
    group = separated.group()
    before = separated.start(group)
    separated.kill_shim(group)
    separated.runtime = separated.new_runtime(run_as="same")
    separated.runtime.apply(group, key="k")
    assert separated.instance().pid == before.pid
    separated.runtime.remove(group.id, key="k")
    wait_for(separated.gone)
    assert not alive(before.pid or 0)


def test_file_that_the_user_may_not_execute_is_named(separated: World) -> None:
    """The refusal says which user it is about."""
    separated.add("secret", "#!/bin/sh\n", mode=0o700)
    group = separated.worker("", run=("./secret",))
    separated.runtime.apply(group, key="k")
    assert re.search(r"cannot start \./secret: user 6\d{4} may not execute it", separated.instance().exit)


def test_folder_that_bars_the_way_is_named_before_anything_starts(separated: World) -> None:
    """A package that its user cannot reach is refused with the folder to open."""
    separated.folder.chmod(0o700)
    try:
        with pytest.raises(errors.MachineError, match=f"may not pass through {separated.folder} "):
            separated.runtime.apply(separated.group(), key="k")
        assert any(not one.ok and "users" in one.name for one in separated.runtime.check())
    finally:
        separated.folder.chmod(0o711)
    assert separated.gone()


# --- limits ---------------------------------------------------------------------------------------------


def enforced() -> frozenset[str]:
    return cgroups.detect().enforced


def test_open_files_are_limited(world: World) -> None:
    """The limit is in force, hard and soft; more than the machine allows becomes what it allows."""
    world.start(world.group(limits=model.Limits(open_files=256)))
    assert re.search(r"Max open files +256 +256 ", world.ask("/who")["limits"])
    world.runtime.remove(world.group().id, key="k")
    wait_for(world.gone)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    world.start(world.group(placement=8, limits=model.Limits(open_files=2**40)))
    assert re.search(rf"Max open files +(?!256)\d+ +{hard} ", world.ask("/who")["limits"])


@pytest.mark.skipif("memory" not in enforced(), reason="no control group for memory may be made here")
def test_app_that_takes_too_much_memory_is_killed_and_it_is_told_why(world: World) -> None:
    """The kill for lack of memory is recognised, and the app is started again."""
    group = world.group(limits=model.Limits(memory_bytes=64 * 1024 * 1024))
    before = world.start(group)
    with pytest.raises(OSError, match=r".*"):
        world.ask("/allocate?bytes=200000000")
    wait_for(lambda: world.instance().pid not in {None, before.pid})
    assert world.instance().exit == "killed by SIGKILL (out of memory)"


@pytest.mark.skipif("pids" not in enforced(), reason="no control group for processes may be made here")
def test_number_of_processes_is_limited(world: World) -> None:
    """A fork bomb ends at the limit, and all of it goes with the app."""
    group = world.group(limits=model.Limits(processes=20))
    world.start(group)
    assert world.ask("/forks?count=50") < 20
    world.runtime.remove(group.id, key="k")
    wait_for(world.gone)
    assert list(world.processes()) == []


@pytest.mark.skipif("cpu" not in enforced(), reason="no control group for processor time may be made here")
def test_control_groups_are_set_and_removed(world: World) -> None:
    """The quota is in force while the instance lives, and no group is left when it is gone."""
    group = world.group(limits=model.Limits(cpus=0.5))
    world.start(group)
    made = cgroups.detect().groups(f"{world.runtime._layout.mark}.{group.id}.0", group.limits)
    quota = [
        Path(one["path"]) / name
        for one in made
        for name in one["values"]
        if name in {"cpu.max", "cpu.cfs_quota_us"}
    ]
    assert [path.read_text().split()[0] for path in quota] == ["50000"]
    world.runtime.remove(group.id, key="k")
    wait_for(world.gone)
    wait_for(lambda: not any(Path(one["path"]).exists() for one in made))


# --- the disk -------------------------------------------------------------------------------------------


def test_full_disk_is_told_and_stops_nothing(small_disk: Callable[[], World]) -> None:
    """Apply says that the disk is full; what runs goes on, is restarted, and can be removed."""
    world = small_disk()
    group = world.group()
    before = world.start(group)
    ballast = world.folder / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    with pytest.raises(errors.StorageError, match="disk is full"):
        world.runtime.apply(world.group(placement=8), key="k")
    assert world.instance().pid == before.pid
    world.ask("/end?status=1")
    wait_for(lambda: (one := world.instance()).pid not in {None, before.pid} and one.ready)
    assert world.instance().crashes == 1
    ballast.unlink()
    world.runtime.remove(group.id, key="k")
    world.runtime.remove(world.group(placement=8).id, key="k")
    wait_for(world.gone)


# --- the self-check ---------------------------------------------------------------------------------------


def test_self_check_says_what_is_enforced(world: World) -> None:
    """Every part has a finding; the shim runs here, and one user for all is said to be no separation."""
    found = {one.name.removeprefix("process runtime: "): one for one in world.runtime.check()}
    assert list(found) == ["shim", "users", "limits", "ports", "secrets as files"]
    assert found["shim"].ok
    assert "not kept from" in found["users"].detail
    assert found["limits"].ok is (enforced() == frozenset({"memory", "cpu", "pids"}))


def test_self_check_says_where_secrets_can_be_files(tmp_path: Path) -> None:
    """Below the first folder in memory that lets us; where there is none, what would help is said."""
    found = machine.check_secrets([str(tmp_path / "missing"), str(tmp_path)])
    assert (found.ok, found.detail) == (True, f"in memory, below {tmp_path}")
    nowhere = machine.check_secrets([str(tmp_path / "missing")])
    assert nowhere.detail.startswith("not possible")
    assert "tmpfs" in nowhere.hint


def test_self_check_warns_of_ports_that_connections_may_take(world: World) -> None:
    """A range inside the kernel's ephemeral ports is a finding."""
    runtime = world.new_runtime(first_port=40_000, last_port=41_000)
    (found,) = [one for one in runtime.check() if one.name.endswith("ports")]
    assert not found.ok
    assert "ephemeral" in found.detail

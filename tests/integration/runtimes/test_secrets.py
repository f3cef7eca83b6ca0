"""Secrets reach the app, as variables or as files in memory, and nothing and nobody else."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.integration.runtimes.world import PYTHON, World, alive, wait_for
from tidegate import errors
from tidegate.core import model
from tidegate.runtimes import procfs, secret_files

pytestmark = pytest.mark.real

PASSWORD = "hunter2-canary-variable"
KEY = "-----BEGIN hunter2-canary-file-----\nü\n"
USES = (
    model.SecretVersion(name="DATABASE_URL", version=3),
    model.SecretVersion(name="TLS_KEY", version=1, as_file=True),
)


def secretive(world: World, **changes: object) -> model.InstanceGroup:
    """A group with a secret of each kind."""
    world.secrets = {"DATABASE_URL": PASSWORD, "TLS_KEY": KEY}
    plain = (("COLOUR", "blue"),)
    return world.group(**({"secrets": USES, "environment": plain} | changes))


def path_of(world: World) -> Path:
    return Path(world.ask("/env")["TLS_KEY_FILE"])


def leaks(world: World) -> list[str]:
    """Where a value is found: files of the world, command lines and environments of all but the apps."""
    needles = (b"hunter2-canary-variable", b"hunter2-canary-file")
    found = [
        str(path)
        for path in world.folder.rglob("*")
        if path.is_file() and any(needle in path.read_bytes() for needle in needles)
    ]
    for one in procfs.every():
        pid = one.identity.pid
        for name in ("cmdline", "environ"):
            try:
                content = Path(f"/proc/{pid}/{name}").read_bytes()
            except OSError:
                continue
            is_app = b"TIDEGATE_INSTANCE=" in content
            if any(needle in content for needle in needles) and not is_app:
                found.append(f"{name} of {pid}")
    return found


def test_variables_and_files_reach_the_app(world: World) -> None:
    """A variable has the value, a file has it byte for byte, and its path is in a variable."""
    world.start(secretive(world))
    seen = world.ask("/env")
    assert (seen["DATABASE_URL"], seen["COLOUR"]) == (PASSWORD, "blue")
    assert "TLS_KEY" not in seen
    assert path_of(world).read_bytes() == KEY.encode()


def test_values_are_found_nowhere_else(world: World) -> None:
    """Not on the disk, not in an argument, only in the app's environment; with a shim and without."""
    world.add("check.py", "import os, sys; sys.exit(os.environ['DATABASE_URL'] != open('value').read())")
    world.add("value", PASSWORD)
    check = model.Check(
        kind=model.CheckKind.COMMAND, command=(PYTHON, "check.py", "$DATABASE_URL"), interval_s=0.1
    )
    group = secretive(world, check=check, run=(PYTHON, "server.py", "--url=$DATABASE_URL", "$TLS_KEY_FILE"))
    world.start(group)
    (world.package / "value").unlink()
    before = world.instance()
    world.ask("/end?status=3")
    wait_for(lambda: world.instance().pid not in {None, before.pid} and world.answers())
    world.kill_shim(group)
    world.runtime = world.new_runtime()
    world.groups()
    assert leaks(world) == []
    world.runtime.apply(group, key="again")
    assert leaks(world) == []
    arguments = Path(f"/proc/{world.instance().pid}/cmdline").read_bytes().split(b"\0")
    assert arguments[2:4] == [b"--url=$DATABASE_URL", os.fsencode(path_of(world))]
    world.runtime.remove(group.id, key="k")
    wait_for(world.gone)
    assert leaks(world) == []


def test_files_live_as_long_as_the_instance(world: World) -> None:
    """They are there after a crash, even if the app has removed its own; with the instance they are gone."""
    group = secretive(world)
    before = world.start(group)
    path = path_of(world)
    path.unlink()
    world.ask("/end?status=3")
    wait_for(lambda: world.instance().pid not in {None, before.pid} and world.ready(group))
    assert path_of(world) == path
    assert path.read_text() == KEY
    world.runtime.remove(group.id, key="k")
    wait_for(world.gone)
    assert not path.parent.exists()


def test_files_of_an_app_without_a_shim_stay_and_go(world: World) -> None:
    """An app whose shim was killed reads on; when nothing is left to remove them, the runtime does."""
    group = secretive(world)
    app = world.start(group)
    path = path_of(world)
    world.kill_shim(group)
    assert path.read_text() == KEY
    assert app.pid is not None
    os.kill(app.pid, signal.SIGKILL)
    wait_for(lambda: not alive(app.pid or 0))
    world.runtime.remove(group.id, key="k")
    wait_for(world.gone)
    assert not path.parent.exists()


def test_files_go_with_an_app_that_a_second_shim_stops(world: World) -> None:
    """The shim that comes only to stop it removes them, too."""
    group = secretive(world)
    world.start(group)
    path = path_of(world)
    world.kill_shim(group)
    world.runtime.remove(group.id, key="k")
    wait_for(world.gone)
    assert not path.parent.exists()


def test_jobs_have_the_secrets_of_their_release(world: World) -> None:
    """A job is given them like a service, and its files go with its end."""
    text = "import os; print(open(os.environ['TLS_KEY_FILE']).read() == os.environ['WANTED'], flush=True)"
    world.add("job.py", text)
    run = (PYTHON, "job.py")
    group = secretive(
        world,
        run=run,
        serves=False,
        service=model.VERIFY_SERVICE,
        verify=model.Verify(run=run),
        secrets=(*USES, model.SecretVersion(name="WANTED", version=1)),
    )
    world.secrets["WANTED"] = KEY
    world.runtime.apply(group, key="k")
    wait_for(lambda: world.instance().ready)
    lines = [line.text for line in world.runtime.logs(group.id, tail=9) if line is not None]
    assert lines == ["True", "tidegate: ended: exit status 0"]
    wait_for(lambda: world.shim(group) is None)
    assert leaks(world) == []
    assert world.secret_folders() == []


def test_file_belongs_to_the_apps_user_alone(separated: World) -> None:
    """Only that user reads it, and nobody but us can put another in its place."""
    separated.start(secretive(separated))
    path = path_of(separated)
    user = int(separated.ask("/who")["status"].split("Uid:\t")[1].split()[0])
    seen, folder = path.stat(), path.parent.stat()
    assert (seen.st_uid, seen.st_mode & 0o777) == (user, 0o400)
    assert (folder.st_uid, folder.st_gid, folder.st_mode & 0o777) == (os.geteuid(), user, 0o710)
    assert separated.ask(f"/open?path={path}") == "open"
    other = model.EnvironmentKey(app="shop", environment="staging")
    separated.runtime.remove(separated.group().id, key="k")
    wait_for(separated.gone)
    separated.start(secretive(separated))
    stranger = separated.group(key=other, secrets=(), service="api")
    separated.runtime.apply(stranger, key="k")
    (seen_group,) = wait_for(
        lambda: [one for one in separated.groups_of(other) if one.ready_count == stranger.instances]
    )
    port = seen_group.instances[0].port
    assert separated.ask_port(port or 0, f"/open?path={path_of(separated)}") == "PermissionError"
    separated.runtime.remove(stranger.id, key="k")
    wait_for(lambda: separated.groups_of(other) == ())


def test_secret_without_a_value_starts_nothing(world: World) -> None:
    """Its name is told, and no instance is made."""
    group = secretive(world)
    del world.secrets["TLS_KEY"]
    with pytest.raises(errors.RuntimeAdapterError, match="nobody knows the value of TLS_KEY"):
        world.runtime.apply(group, key="k")
    assert world.gone()


def test_refusal_of_the_vault_comes_out_as_it_is(world: World) -> None:
    """What the callable raises is the reason, and no instance is made."""

    def sealed(group: model.InstanceGroup) -> dict[str, str]:
        raise errors.SealError("DATABASE_URL of shop in production cannot be opened.")

    runtime = world.new_runtime()
    runtime._secrets = sealed
    with pytest.raises(errors.SealError, match="cannot be opened"):
        runtime.apply(secretive(world), key="k")
    assert world.gone()


# --- places ------------------------------------------------------------------------------------------


def test_only_memory_is_a_place(tmp_path: Path) -> None:
    """A folder on a disk is none, whatever it is called; the nearest mount counts."""
    mounts = tmp_path / "mounts"
    mounts.write_text("/dev/sda / ext4 rw 0 0\ntmpfs /dev/shm tmpfs rw 0 0\ndev /dev devtmpfs rw 0 0\n")
    assert secret_files.places(str(mounts)) == ["/dev/shm"]
    mounts.write_text("tmpfs / tmpfs rw 0 0\n/dev/sda /dev/shm ext4 rw 0 0\ntmpfs /run tmpfs rw 0 0\n")
    assert secret_files.places(str(mounts)) == ["/run", f"/run/user/{os.geteuid()}"]
    assert secret_files.places(str(tmp_path / "none")) == []


def test_folder_that_somebody_else_has_made_is_not_used(tmp_path: Path) -> None:
    """A symbolic link, a file and a stranger's folder are passed over; nowhere is an answer."""
    first, second, elsewhere = (tmp_path / name for name in ("first", "second", "elsewhere"))
    for folder in (first, second, elsewhere):
        folder.mkdir()
    (first / "tidegate-x").symlink_to(elsewhere)
    assert secret_files.base("x", [str(first)]) is None
    assert secret_files.base("x", [str(first), str(second)]) == f"{second}/tidegate-x"
    assert secret_files.base("x", [str(tmp_path / "missing")]) is None
    (second / "tidegate-x").chmod(0o777)
    assert secret_files.base("x", [str(second)]) is None
    if os.geteuid() == 0:
        (second / "tidegate-x").chmod(0o711)
        os.chown(second / "tidegate-x", 12_345, 12_345)
        assert secret_files.base("x", [str(second)]) is None


def test_file_is_written_anew_and_never_through_a_link(tmp_path: Path) -> None:
    """What lies at its name is replaced, not followed."""
    folder, victim = tmp_path / "ours" / "secrets", tmp_path / "victim"
    folder.mkdir(parents=True)
    victim.write_text("kept")
    (folder / "KEY").symlink_to(victim)
    for value in ("one", "two"):
        secret_files.give(str(folder), {"KEY": value}, user=None, group=None)
        assert (folder / "KEY").read_text() == value
    assert victim.read_text() == "kept"
    assert (folder / "KEY").stat().st_mode & 0o777 == 0o400
    secret_files.take_away(str(folder))
    secret_files.take_away(str(folder))
    assert not folder.parent.exists()


def test_nothing_is_removed_or_written_below_a_folder_of_somebody_else(tmp_path: Path) -> None:
    """Who puts a link where ours has been gets neither a secret nor a file of ours removed."""
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "shop").mkdir(parents=True)
    (elsewhere / "shop" / "kept").touch()
    (tmp_path / "ours").symlink_to(elsewhere)
    secret_files.take_away(f"{tmp_path}/ours/shop")
    with pytest.raises(PermissionError):
        secret_files.give(f"{tmp_path}/ours/shop", {"KEY": "x"}, user=None, group=None)
    assert [path.name for path in (elsewhere / "shop").iterdir()] == ["kept"]

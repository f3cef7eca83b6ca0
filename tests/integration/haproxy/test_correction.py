"""What is really held is seen, whoever put it there; late and foreign commands do not last."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.haproxy.world import HOST, KEY, World, agrees, backend, free_ports
from tests.support.http_load import ask
from tests.support.web_app import WebApp
from tidegate.core import model
from tidegate.errors import RouterError, StaleRouteError
from tidegate.haproxy import HAProxyRouter, config

pytestmark = pytest.mark.real

NAME = "shop.production"


@pytest.fixture
def table(world: World, blue: WebApp, green: WebApp) -> model.RouteTable:
    """Blue stable, green at 5 %, in force."""
    links = world.settings.link_ports
    table = world.table(
        backend(0, [blue], link_port=links[0]), backend(1, [green]), canary=1, exposure_bps=500
    )
    world.apply(table)
    return table


def test_older_table_is_refused_and_changes_nothing(world: World, table: model.RouteTable) -> None:
    """A table with a smaller fence than the one held is refused, by files and process alike."""
    older = replace(table, route=replace(table.route, fence=table.route.fence - 1, exposure_bps=10_000))
    with pytest.raises(StaleRouteError):
        world.router.apply(older, key="late")
    assert agrees(table, world.router.observe(KEY))


def test_older_table_is_refused_when_only_the_process_knows_better(
    world: World, table: model.RouteTable
) -> None:
    """With the record lost, the fence of the running route still keeps an older table out, files included."""
    (world.folder / "tables" / f"{NAME}.json").unlink()
    older = replace(table, route=replace(table.route, fence=table.route.fence - 1))
    with pytest.raises(StaleRouteError):
        world.router.apply(older, key="late")
    state = world.router.observe(KEY)
    assert (state.boot, state.route) == (None, table.route)


def test_older_table_is_refused_while_haproxy_hangs(
    world: World, table: model.RouteTable, frozen: Callable[[str], None]
) -> None:
    """With HAProxy silent, the fence of the record keeps an older table out of the files."""
    frozen("worker")
    older = replace(table, route=replace(table.route, fence=table.route.fence - 1))
    with pytest.raises(StaleRouteError):
        world.router.apply(older, key="late")
    assert HAProxyRouter(world.folder, world.settings)._boot.record(KEY).table == table  # type: ignore[union-attr]


def test_older_table_is_refused_by_any_of_two_routes(world: World, table: model.RouteTable) -> None:
    """With two routes in the map the larger fence counts, and the files stay as they are."""
    newer = config.route_value(replace(table.route, fence=table.route.fence + 5))
    world.tell(f"add map {config.ROUTES} {NAME}. {newer}")
    with pytest.raises(StaleRouteError):
        world.router.apply(replace(table, route=replace(table.route, exposure_bps=0)), key="late")
    assert world.router.observe(KEY).boot == table


def test_same_fence_is_applied_again(world: World, table: model.RouteTable, green: WebApp) -> None:
    """The same fence is no newer route: servers change under it."""
    more = replace(table, backends=(table.backends[0], backend(1, [green, free_ports(1)[0]])))
    world.router.apply(more, key="more")
    assert len(world.router.observe(KEY).servers) == 3


def test_commit_that_comes_too_late_is_refused_by_haproxy(world: World, table: model.RouteTable) -> None:
    """A route prepared before a newer one was committed cannot be committed after it."""
    (prepared,) = world.tell(f"prepare map {config.ROUTES}")
    version = prepared.rpartition(" ")[2]
    late = config.route_value(replace(table.route, exposure_bps=10_000))
    world.tell(f"add map @{version} {config.ROUTES} {NAME}. {late}")
    home = replace(table, route=replace(table.route, exposure_bps=0, fence=table.route.fence + 1))
    world.apply(home)
    (answer,) = world.tell(f"commit map @{version} {config.ROUTES}")
    assert "out of range" in answer
    assert world.router.observe(KEY).route == home.route


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(f"set map {config.ROUTES} {NAME}. 1=:0:-:0:other:-", id="another-route"),
        pytest.param(f"set map {config.ROUTES} {NAME}. nonsense", id="no-route"),
        pytest.param(f"add map {config.ROUTES} {NAME}. 1=:0:-:0:other:-", id="two-routes"),
        pytest.param(f"del map {config.ROUTES} {NAME}.", id="route-deleted"),
        pytest.param(f"clear map {config.ROUTES}", id="all-routes-deleted"),
        pytest.param(f"del map {config.HOSTS} {HOST}", id="host-deleted"),
        pytest.param(f"add map {config.HOSTS} evil.example.com {NAME}.web", id="host-added"),
        pytest.param(f"clear map {config.LINKS}", id="links-deleted"),
        pytest.param(f"add map {config.ADDRESSES} {NAME}.web 1", id="identity-changed"),
    ],
)
def test_maps_changed_by_hand_are_seen_and_put_right(
    world: World, table: model.RouteTable, damage: str
) -> None:
    """Whatever an operator does to a map shows in the next look, and one apply undoes it without a reload."""
    processes = world.router.observe(KEY).processes
    world.tell(damage)
    assert not agrees(table, world.router.observe(KEY))
    world.router.apply(table, key="again")
    state = world.router.observe(KEY)
    assert agrees(table, state)
    assert state.processes == processes


@pytest.mark.parametrize(
    "damage",
    [
        "set server {} state maint",
        "set server {} state drain",
        "set server {} weight 0",
        "set server {} addr 127.0.0.1 port 1",
        "add server shop.production.web.0/stranger 127.0.0.1:1",
        "set server {0} state maint;del server {0}",
    ],
)
def test_servers_changed_by_hand_are_seen_and_put_right(
    world: World, table: model.RouteTable, damage: str
) -> None:
    """Whatever an operator does to a server shows in the next look and is undone."""
    path = f"{NAME}.web.0/{table.backends[0].servers[0].name}"
    world.tell(*damage.format(path).split(";"))
    assert not agrees(table, world.router.observe(KEY))
    state = world.apply(table)
    assert all(one.up for one in state.servers)
    assert ask(world.port, HOST).status == 200


def _remove_record(folder: Path) -> None:
    (folder / "tables" / f"{NAME}.json").unlink()


def _edit_servers(folder: Path) -> None:
    path = folder / "environments" / f"{NAME}.cfg"
    path.write_text(path.read_text().replace("    server ", "    # server "))


def _edit_route(folder: Path) -> None:
    (folder / config.ROUTES).write_text(f"{NAME}. 1=:9:-:0:x:-\n")


def _empty_hosts(folder: Path) -> None:
    (folder / config.HOSTS).write_text("")


@pytest.mark.parametrize("damage", [_remove_record, _edit_servers, _edit_route, _empty_hosts])
def test_files_changed_by_hand_are_seen_and_put_right(
    world: World, table: model.RouteTable, damage: Callable[[Path], None]
) -> None:
    """Files that no longer say what was applied are not taken for a boot state, and are written again."""
    damage(world.folder)
    assert world.router.observe(KEY).boot is None
    world.apply(table)
    world.router.stop(drain_s=0)
    world.router.start()
    assert agrees(table, world.router.observe(KEY))


def test_damaged_record_is_not_guessed_at(world: World, table: model.RouteTable) -> None:
    """A record that cannot be read is an error that names it; traffic goes on."""
    (world.folder / "tables" / f"{NAME}.json").write_text('{"format": 1, "table": {')
    with pytest.raises(RouterError, match=rf"{NAME}\.json"):
        world.router.observe(KEY)
    assert ask(world.port, HOST).status == 200


def test_reload_by_hand_shows_as_another_generation(world: World, table: model.RouteTable) -> None:
    """After somebody else's reload everything is in force still, and counts are told apart."""
    before = world.router.observe(KEY).processes
    world.wire.reload(timeout_s=5)
    state = world.router.observe(KEY)
    assert agrees(table, state)
    assert state.processes != before


def test_host_of_another_environment_cannot_be_taken(world: World, table: model.RouteTable) -> None:
    """A table that asks for a host which another environment holds is refused whole."""
    key = model.EnvironmentKey(app="thief", environment="test")
    with pytest.raises(RouterError, match=HOST):
        world.router.apply(replace(table, key=key), key="steal")
    assert agrees(table, world.router.observe(KEY))
    assert world.router.observe(key).boot is None


@pytest.fixture
def frozen(world: World, table: model.RouteTable) -> Iterator[Callable[[str], None]]:
    """Freezes HAProxy's `master` or `worker`, until the test ends."""
    frozen: list[int] = []

    def freeze(which: str) -> None:
        pid = getattr(world.processes(), which)
        os.kill(pid, signal.SIGSTOP)
        frozen.append(pid)

    yield freeze
    for pid in frozen:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("which", ["master", "worker"])
def test_haproxy_that_hangs_is_an_error_in_bounded_time(
    world: World, table: model.RouteTable, frozen: Callable[[str], None], which: str
) -> None:
    """A hanging HAProxy makes looks and changes fail within two seconds; the files hold the change."""
    frozen(which)
    home = replace(table, route=replace(table.route, exposure_bps=0, fence=table.route.fence + 1))
    for call in (lambda: world.router.observe(KEY), lambda: world.router.apply(home, key="home")):
        begun = time.monotonic()
        with pytest.raises(RouterError, match="did not answer"):
            call()
        assert time.monotonic() - begun < 2.5
    assert HAProxyRouter(world.folder, world.settings)._boot.record(KEY).table == home  # type: ignore[union-attr]


def test_change_that_haproxy_slept_through_is_applied_when_it_wakes(
    world: World, table: model.RouteTable
) -> None:
    """Commands given up on while HAProxy hung do no harm later: the newest route is in force in the end."""
    worker = world.processes().worker
    os.kill(worker, signal.SIGSTOP)
    for fence in (1, 2):
        late = replace(table.route, exposure_bps=10_000, fence=table.route.fence + fence)
        with pytest.raises(RouterError):
            world.router.apply(replace(table, route=late), key="late")
    os.kill(worker, signal.SIGCONT)
    home = replace(table, route=replace(table.route, exposure_bps=0, fence=table.route.fence + 3))
    world.apply(home)
    for _ in range(20):
        assert world.router.observe(KEY).route == home.route

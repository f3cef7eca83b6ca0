"""The route table of a state, and whether the router holds it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support.builders import (
    API,
    COMMAND,
    WEB,
    WEB_WITH_API,
    Scene,
    environment,
    perfect,
    placed,
    service,
    spec,
    with_routes,
    with_servers,
    worker,
)
from tidegate.core import routing
from tidegate.core.model import FULL_EXPOSURE, ForeignLink, Link, Observation, Phase, Route, RouteState


def routes_of(seen: Observation) -> RouteState:
    assert seen.routes is not None
    return seen.routes


def hosts(scene: Scene) -> dict[str, tuple[str, ...]]:
    return {public.service: public.hosts for public in routing.route_table(scene.state).services}


def test_table_holds_every_serving_service_of_every_slot_in_order() -> None:
    """Backends are sorted by service and slot; what has no traffic has no backend."""
    scene = environment().live("r1", spec(*WEB_WITH_API, worker())).incoming("r2", spec(WEB))
    table = routing.route_table(scene.state)
    assert [(backend.service, backend.slot) for backend in table.backends] == [
        ("api", 0),
        ("web", 0),
        ("web", 1),
    ]
    assert table.route == scene.state.route


def test_servers_are_named_by_placement_index_and_port() -> None:
    """A name never comes again for another process, so that a late command meets nobody."""
    scene = environment().live("r1", spec(service("web", instances=2)))
    placement = placed(scene.state, "r1")
    (backend,) = routing.route_table(scene.state).backends
    ports = [endpoint.port for endpoint in placement.endpoints]
    assert [server.name for server in backend.servers] == [f"p1-0-{ports[0]}", f"p1-1-{ports[1]}"]
    assert all(server.ready for server in backend.servers)


def test_server_out_of_rotation_is_kept_but_takes_nothing_new() -> None:
    """Only the administrative state changes, so that open connections live on."""
    scene = environment().live("r1", spec(service("web", check=COMMAND)))
    placement = placed(scene.state, "r1")
    resting = tuple(replace(endpoint, in_rotation=False) for endpoint in placement.endpoints)
    state = scene.state.with_placement(replace(placement, endpoints=resting))
    (backend,) = routing.route_table(state).backends
    assert [server.ready for server in backend.servers] == [False]


def test_cleared_service_leaves_the_table() -> None:
    """A service whose connections have ended has no backend any more."""
    scene = environment().live("r2").retiring("r1", cleared=("web",))
    assert [backend.slot for backend in routing.route_table(scene.state).backends] == [0]


def test_backend_is_linked_at_the_port_of_its_own_slot() -> None:
    """The caller's own release answers: a link of another slot or service is not taken."""
    links = (
        Link(service="api", slot=1, port=7001),
        Link(service="web", slot=0, port=7002),
        Link(service="api", slot=0, port=7003),
    )
    scene = environment().live("r1", spec(API), links=links)
    (backend,) = routing.route_table(scene.state).backends
    assert backend.link_port == 7003


def test_hosts_come_from_the_release_that_answers_by_default() -> None:
    """A new host of a canary stays shut while only some users are exposed."""
    moved = spec(service("web", hosts=("new.example.com",)), service("shop", hosts=("shop.example.com",)))
    scene = environment().live("r1").incoming("r2", moved, phase=Phase.HOLDING)
    assert hosts(scene) == {"web": ("shop.example.com",)}


def test_hosts_of_both_releases_are_open_while_everybody_moves() -> None:
    """At full exposure new hosts open, and those that will go still answer until the release is live."""
    moved = spec(service("web", hosts=("new.example.com",)))
    scene = environment().live("r1", spec(WEB, service("old", hosts=("old.example.com",))))
    finishing = scene.incoming("r2", moved, phase=Phase.FINISHING)
    assert hosts(finishing) == {"old": ("old.example.com",), "web": ("new.example.com",)}


def test_hosts_of_a_first_release_are_known_before_it_is_live() -> None:
    """Its preview works while nobody else is served."""
    assert hosts(environment().incoming("r1", phase=Phase.STARTING)) == {"web": ("shop.example.com",)}


def test_nothing_deployed_has_no_hosts() -> None:
    """Neither an empty environment nor one whose first release went home answers for a host."""
    assert hosts(environment()) == {}
    assert hosts(environment().retiring("r1")) == {}


@pytest.mark.parametrize(
    ("route", "slots"),
    [
        (None, ()),
        (Route(), ()),
        (Route(stable=0), (0,)),
        (Route(stable=0, canary=1), (0, 1)),
        (Route(canary=0), (0,)),
    ],
)
def test_routed_slots_are_those_that_new_requests_can_reach(
    route: Route | None, slots: tuple[int, ...]
) -> None:
    """Slot 0 is a slot, and a canary at no exposure still answers its preview."""
    assert routing.routed_slots(route) == slots


def test_route_is_in_force_when_router_and_boot_files_hold_it() -> None:
    """Both must be seen: a restart of the router would else bring the old share back."""
    state = environment().live("r1").incoming("r2").state
    seen = routes_of(perfect(state))
    older = replace(state.route, fence=state.route.fence - 1)
    assert routing.in_force(state.route, seen)
    assert not routing.in_force(state.route, replace(seen, route=older))
    assert not routing.in_force(state.route, replace(seen, route=None))
    assert not routing.in_force(state.route, replace(seen, boot=None))
    stale_boot = replace(routing.route_table(state), route=older)
    assert not routing.in_force(state.route, replace(seen, boot=stale_boot))


def test_router_agrees_with_the_table_that_it_was_given() -> None:
    """A world in which everything came through leaves nothing to do."""
    state = environment().live("r1", spec(*WEB_WITH_API)).incoming("r2").state
    assert routing.agrees(routing.route_table(state), routes_of(perfect(state)))


@pytest.mark.parametrize(
    "changes",
    [
        {"boot": None},
        {"current": False},
        {"route": None},
        {"route": Route(stable=0, fence=99)},
        {"servers": ()},
    ],
    ids=["no-boot-files", "old-structure", "unknown-environment", "other-route", "no-servers"],
)
def test_router_that_lacks_a_part_does_not_agree(changes: dict[str, Any]) -> None:
    """Boot files, structure, route and servers are all compared."""
    state = environment().live("r1").state
    seen = with_routes(perfect(state), **changes)
    assert not routing.agrees(routing.route_table(state), routes_of(seen))


@pytest.mark.parametrize(
    "changes", [{"port": 1}, {"host": "127.0.0.2"}, {"ready": False}, {"name": "p9-0-1"}]
)
def test_server_with_another_address_or_state_does_not_agree(changes: dict[str, Any]) -> None:
    """Health is the router's own business; address, name and administrative state are ours."""
    state = environment().live("r1").state
    table = routing.route_table(state)
    assert not routing.agrees(table, routes_of(with_servers(perfect(state), 0, **changes)))
    assert routing.agrees(table, routes_of(with_servers(perfect(state), 0, up=False, sessions=9)))


def test_servers_up_counts_those_that_would_get_a_request() -> None:
    """Up by its checks and in rotation, in this slot and of this service."""
    state = environment().live("r1", spec(service("web", instances=2), API)).state
    seen = perfect(state)
    assert routing.servers_up(routes_of(seen), service="web", slot=0) == 2
    assert routing.servers_up(routes_of(seen), service="web", slot=1) == 0
    assert routing.servers_up(routes_of(with_servers(seen, 0, up=False)), service="web", slot=0) == 0
    assert routing.servers_up(routes_of(with_servers(seen, 0, ready=False)), service="web", slot=0) == 0


def test_moving_raises_the_fence_even_without_a_change() -> None:
    """The raised fence alone keeps a late command of before out."""
    state = environment().live("r1").state
    moved = routing.moved(state)
    assert moved.route == replace(state.route, fence=state.route.fence + 1)
    wider = routing.moved(moved, canary=1, exposure_bps=FULL_EXPOSURE)
    assert (wider.route.canary, wider.route.exposure_bps) == (1, FULL_EXPOSURE)
    assert wider.route.fence == moved.route.fence + 1


def test_calls_to_other_apps_are_in_the_table_of_the_caller() -> None:
    """Once, whichever of its placements calls; they are there before the first instance is."""
    foreign = (ForeignLink(service="accounts/api", port=7009),)
    live = environment().live("r1", foreign=foreign)
    assert routing.route_table(live.incoming("r2").state).foreign == foreign
    assert routing.route_table(environment().live("r1").state).foreign == ()
    starting = replace(live.state.placements[0], endpoints=())
    first = replace(live.state, placements=(starting,), route=Route())
    assert not routing.nothing_yet(first)
    assert routing.nothing_yet(replace(first, placements=(replace(starting, foreign=()),)))

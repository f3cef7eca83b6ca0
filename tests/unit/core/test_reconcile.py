"""From a committed state and one look to effects: what is missing is started, what may go is stopped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support.builders import (
    KEY,
    WEB,
    WEB_WITH_API,
    blind_router,
    blind_runtime,
    environment,
    group,
    perfect,
    placed,
    service,
    spec,
    with_groups,
    with_instances,
    with_routes,
    with_servers,
    without_groups,
    worker,
)
from tidegate.core import model, reconcile, routing
from tidegate.core.effects import ApplyGroup, ApplyRoutes, RemoveGroup
from tidegate.core.model import EnvironmentState, InstanceState, Link, Observation, Phase, Role, Route, Server


def asked(state: EnvironmentState, seen: Observation) -> list[str]:
    return [effect.key for effect in reconcile.reconcile(state, seen)]


def starts(state: EnvironmentState, seen: Observation) -> list[str]:
    effects = reconcile.reconcile(state, seen)
    return [effect.group.service for effect in effects if isinstance(effect, ApplyGroup)]


def stops(state: EnvironmentState, seen: Observation) -> list[str]:
    effects = reconcile.reconcile(state, seen)
    return [effect.group_id for effect in effects if isinstance(effect, RemoveGroup)]


@pytest.mark.parametrize(
    "state",
    [
        environment().state,
        environment().live("r1", spec(*WEB_WITH_API, worker())).state,
        environment().live("r1").incoming("r2").state,
        environment().live("r1").incoming("r2", spec(WEB, worker()), phase=Phase.FINISHING).state,
        environment().live("r1").standby("r0").queued("r2").state,
    ],
    ids=["empty", "live", "canary", "finishing", "queued"],
)
def test_world_as_it_should_be_needs_nothing(state: EnvironmentState) -> None:
    """Level-triggered: where state and world agree, there is no effect."""
    assert asked(state, perfect(state)) == []


def test_halted_environment_is_only_looked_at() -> None:
    """Nothing is started, stopped or routed, however wrong the world is."""
    state = environment().live("r1").having(halted="restored").state
    assert asked(state, perfect(environment().state)) == []


# --- routes ----------------------------------------------------------------------------------------


def test_route_is_written_as_committed_even_blindly() -> None:
    """Going home needs no gate: an unseen router is told where it should be."""
    state = environment().live("r1").incoming("r2", phase=Phase.ABORTING).state
    (effect,) = reconcile.reconcile(state, blind_router(perfect(state)))
    assert effect == ApplyRoutes(table=routing.route_table(state))


def test_route_is_written_until_the_router_agrees() -> None:
    """Any difference, in the running router or its boot files, is corrected."""
    state = environment().live("r1").state
    fence = state.route.fence
    for seen in (with_routes(perfect(state), boot=None), with_servers(perfect(state), 0, port=1)):
        assert asked(state, seen) == [f"routes:{KEY}:{fence}"]


def test_router_hears_nothing_of_an_environment_without_addresses() -> None:
    """Before the first instance is ready there is nothing to route."""
    state = environment().queued("r1").state
    assert asked(state, blind_router(perfect(state))) == []


def test_route_comes_before_starts_and_stops() -> None:
    """The way of the traffic is changed first."""
    state = environment().live("r2").retiring("r1", cleared=("web",)).state
    seen = without_groups(with_routes(perfect(state), boot=None), placed(state, "r2"))
    lingering = group(state, placed(state, "r1"), WEB)
    seen = with_groups(seen, lingering)
    kinds = [type(effect) for effect in reconcile.reconcile(state, seen)]
    assert kinds == [ApplyRoutes, ApplyGroup, RemoveGroup]


# --- starts ----------------------------------------------------------------------------------------


def test_missing_groups_are_started_in_dependency_order() -> None:
    """What needs another service waits until all of its instances are ready and up in the router."""
    wanted = spec(service("api", instances=2), WEB_WITH_API[1])
    state = environment().live("r1").incoming("r2", wanted, phase=Phase.STARTING).state
    placement = placed(state, "r2")
    nothing = without_groups(perfect(state), placement)
    assert starts(state, nothing) == ["api"]
    api_up = without_groups(perfect(state), placement, "web")
    assert starts(state, api_up) == ["web"]
    assert starts(state, with_instances(api_up, placement, "api", index=0, ready=False)) == []
    assert starts(state, with_servers(api_up, placement.slot, "api", up=False)) == []


def test_after_a_boot_one_ready_instance_is_enough_to_go_on() -> None:
    """A release that has served before does not stay down because one instance is broken."""
    wanted = spec(service("api", instances=2), WEB_WITH_API[1])
    state = environment().live("r1", wanted).state
    seen = without_groups(perfect(state), placed(state, "r1"), "web")
    half = with_instances(seen, placed(state, "r1"), "api", index=0, ready=False)
    assert starts(state, half) == ["web"]
    none = with_instances(seen, placed(state, "r1"), "api", ready=False)
    assert starts(state, none) == []


def test_unseen_runtime_starts_nothing() -> None:
    """None is not empty: what could not be seen may be running."""
    state = environment().live("r1").state
    assert starts(state, blind_runtime(perfect(state))) == []


def test_unseen_router_starts_only_what_needs_nobody() -> None:
    """Whether a needed service is reachable cannot be known without the router."""
    state = environment().live("r1", spec(*WEB_WITH_API)).state
    nothing = without_groups(perfect(state), placed(state, "r1"))
    assert starts(state, blind_router(nothing)) == ["api"]


@pytest.mark.parametrize(
    ("change", "started"),
    [
        ({"state": InstanceState.EXITED}, ["web"]),
        ({"state": InstanceState.BACKOFF, "ready": False}, []),
        ({"state": InstanceState.STARTING, "ready": None}, []),
        ({"ready": False}, []),
    ],
    ids=["ended", "backing-off", "starting", "unready"],
)
def test_only_what_does_not_come_back_by_itself_is_started_again(
    change: dict[str, Any], started: list[str]
) -> None:
    """The runtime restarts crashes on its own; an instance that has ended for good is asked for again."""
    state = environment().live("r1").state
    assert starts(state, with_instances(perfect(state), placed(state, "r1"), "web", **change)) == started


def test_group_with_a_missing_instance_is_asked_for_again() -> None:
    """Two wanted, one there: apply, which starts only what is missing."""
    state = environment().live("r1", spec(service("web", instances=2))).state
    seen = perfect(state)
    assert seen.runtime is not None
    (whole,) = seen.runtime.groups
    one = replace(whole, instances=whole.instances[:1])
    assert starts(state, replace(seen, runtime=replace(seen.runtime, groups=(one,)))) == ["web"]


@pytest.mark.parametrize("role", [Role.STANDBY, Role.INCOMING])
def test_workers_run_only_where_they_shall(role: Role) -> None:
    """Standby and canary do not run workers; the live release does."""
    wanted = spec(WEB, worker())
    scene = environment().live("r1", wanted)
    scene = scene.standby("r2", wanted) if role is Role.STANDBY else scene.incoming("r2", wanted)
    state = scene.state
    nothing = without_groups(without_groups(perfect(state), placed(state, "r1")), placed(state, "r2"))
    effects = [e.group for e in reconcile.reconcile(state, nothing) if isinstance(e, ApplyGroup)]
    assert [(group.release, group.service) for group in effects] == [(1, "web"), (1, "mailer"), (2, "web")]


def test_retiring_placement_is_not_started_again() -> None:
    """What is on its way out stays out, also after a boot of the host."""
    state = environment().live("r2").retiring("r1").state
    nothing = without_groups(perfect(state), placed(state, "r1"))
    assert starts(state, nothing) == []


def test_group_carries_configuration_and_links_of_its_own_slot() -> None:
    """An instance finds the services that it needs at the port of its own slot, and its configuration."""
    links = (Link(service="user-api", slot=0, port=7000), Link(service="user-api", slot=1, port=7001))
    web = service("web", needs=("user-api",), grace_s=3.0)
    wanted = spec(service("user-api"), web, config=(("LOG", "info"), ("ZONE", "b")))
    state = environment().live("r1", wanted, links=links).state
    asked_for = reconcile.instance_group(state, placed(state, "r1"), web)
    assert asked_for.environment == (
        ("LOG", "info"),
        ("USER_API_URL", "http://127.0.0.1:7000"),
        ("ZONE", "b"),
    )
    assert (asked_for.id, asked_for.release, asked_for.grace_s) == ("shop.production.1.web", 1, 3.0)


def test_group_carries_what_its_placement_was_let_in_with() -> None:
    """The versions of its secrets, never a value, and the admission that its instances start with."""
    secrets = (model.SecretVersion(name="TOKEN", version=3),)
    state = environment().live("r1", secrets=secrets, admission="sealed").state
    asked_for = reconcile.instance_group(state, placed(state, "r1"), spec().services[0])
    assert (asked_for.secrets, asked_for.admission) == (secrets, "sealed")


# --- stops -----------------------------------------------------------------------------------------


def lingering(state: EnvironmentState, release: str = "r1") -> Observation:
    """The groups of a placement still run, though its services are cleared."""
    placement = placed(state, release)
    return with_groups(perfect(state), *(group(state, placement, s) for s in placement.spec.services))


def test_cleared_service_is_stopped_when_the_router_is_without_it() -> None:
    """Only after neither running router nor boot files hold its servers."""
    state = environment().live("r2").retiring("r1", cleared=("web",)).state
    held = perfect(state.with_placement(replace(placed(state, "r1"), cleared=()))).routes
    assert held is not None
    assert stops(state, lingering(state)) == ["shop.production.2.web"]
    assert stops(state, with_routes(lingering(state), servers=held.servers)) == []
    assert stops(state, with_routes(lingering(state), boot=held.boot)) == []


@pytest.mark.parametrize("blind", [blind_router, blind_runtime])
def test_nothing_is_stopped_unseen(blind: Any) -> None:
    """What could not be looked at may be serving."""
    state = environment().live("r2").retiring("r1", cleared=("web",)).state
    assert stops(state, blind(lingering(state))) == []


def test_service_that_is_not_cleared_is_not_stopped() -> None:
    """Retiring alone is no reason: its connections have not ended."""
    state = environment().live("r2").retiring("r1").state
    held = with_routes(perfect(state), servers=(), boot=None)
    assert stops(state, held) == []


def test_look_that_goes_back_in_time_stops_nothing() -> None:
    """A view of before a server came into the router would say that it may be stopped."""
    state = environment().live("r2").retiring("r1", cleared=("web",)).state
    state = replace(state, seen_runtime=5, seen_router=5)
    old = lingering(state)
    assert stops(state, old) == []
    fresh = replace(old, runtime=replace(old.runtime, revision=5), routes=replace(old.routes, revision=5))  # type: ignore[type-var]
    assert stops(state, fresh) == ["shop.production.2.web"]


def test_services_are_stopped_after_those_that_need_them() -> None:
    """In reverse order of their dependencies; a worker needs no clearing."""
    wanted = spec(service("api"), worker("mailer", needs=("api",)))
    state = environment().live("r2").retiring("r1", wanted, cleared=("api", "mailer")).state
    assert stops(state, lingering(state)) == ["shop.production.2.mailer"]
    api_only = without_groups(lingering(state), placed(state, "r1"), "mailer")
    assert stops(state, api_only) == ["shop.production.2.api"]


def test_workers_of_a_replaced_release_are_stopped() -> None:
    """Work without traffic is done by one release: the standby's workers end, its serving services stay."""
    wanted = spec(WEB, worker())
    state = environment().live("r2", wanted).standby("r1", wanted).state
    mailer = group(state, placed(state, "r1"), wanted.services[1])
    assert stops(state, with_groups(perfect(state), mailer)) == ["shop.production.2.mailer"]


def stranger(state: EnvironmentState, placement_id: int) -> Observation:
    unknown = replace(placed(state, "r1"), id=placement_id)
    return with_groups(perfect(state), group(state, unknown, WEB))


def test_orphan_of_an_ended_placement_is_stopped() -> None:
    """A late start leaves instances that nobody wants: the next tick removes them."""
    state = environment().live("r1").having(next_id=9).state
    assert stops(state, stranger(state, 5)) == ["shop.production.5.web"]


def test_group_of_the_future_is_not_touched() -> None:
    """Never given out by this state means that the state is too old, not that the group is wrong."""
    state = environment().live("r1").having(next_id=9).state
    assert stops(state, stranger(state, 9)) == []


def test_orphan_that_a_router_still_sends_to_is_not_stopped() -> None:
    """Its address in the running router or in the boot files keeps it alive."""
    state = environment().live("r1").having(next_id=9).state
    seen = stranger(state, 5)
    assert seen.runtime is not None
    assert seen.routes is not None
    assert seen.routes.boot is not None
    address = seen.runtime.groups[-1].instances[0]
    assert address.port is not None
    running = replace(seen.routes.servers[0], slot=3, host=address.host, port=address.port)
    assert stops(state, with_routes(seen, servers=(*seen.routes.servers, running))) == []
    server = Server(name="p5-0", host=address.host, port=address.port)
    booted = replace(seen.routes.boot.backends[0], slot=3, servers=(server,))
    boot = replace(seen.routes.boot, backends=(*seen.routes.boot.backends, booted))
    assert stops(state, with_routes(seen, boot=boot)) == []


def test_group_of_a_service_that_its_release_does_not_know_is_stopped_like_an_orphan() -> None:
    """It goes, unless a router sends requests to it."""
    state = environment().live("r1").state
    odd = group(state, placed(state, "r1"), service("odd"))
    seen = with_groups(perfect(state), odd)
    assert stops(state, seen) == ["shop.production.1.odd"]
    assert seen.routes is not None
    served = replace(seen.routes.servers[0], slot=2, port=odd.instances[0].port or 0)
    assert stops(state, with_routes(seen, servers=(*seen.routes.servers, served))) == []


def test_orphan_is_stopped_when_the_router_has_no_boot_files() -> None:
    """No boot files hold no addresses."""
    state = environment().live("r1").having(next_id=9).state
    seen = with_routes(stranger(state, 5), boot=None, route=Route())
    assert stops(state, seen) == ["shop.production.5.web"]


def test_need_that_nobody_provides_holds_nothing_up() -> None:
    """The manifest refuses such a release; one that is committed anyway starts rather than waits for ever."""
    state = environment().live("r1", spec(service("web", needs=("gone",)))).state
    assert starts(state, without_groups(perfect(state), placed(state, "r1"))) == ["web"]


def calling() -> EnvironmentState:
    """A release that calls another app, and has not begun."""
    wanted = spec(service("web", foreign=("accounts/api",)))
    links = (model.ForeignLink(service="accounts/api", port=7009),)
    scene = environment().live("r1").incoming("r2", wanted, phase=Phase.STARTING)
    (old, new) = scene.state.placements
    return replace(scene.state, placements=(old, replace(new, foreign=links)))


def test_service_that_calls_another_app_starts_when_its_address_is_in_force() -> None:
    """Else its first call would meet nobody, and it might never become ready."""
    state = calling()
    seen = without_groups(perfect(state), placed(state, "r2"))
    assert starts(state, seen) == ["web"]
    assert seen.routes is not None
    assert seen.routes.boot is not None
    old = replace(seen.routes, boot=replace(seen.routes.boot, foreign=()))
    assert starts(state, replace(seen, routes=old)) == []
    assert starts(state, replace(seen, routes=replace(seen.routes, current=False))) == []
    assert starts(state, blind_router(seen)) == []


def test_group_and_checks_find_the_other_app() -> None:
    """At the loopback port of the caller, by the name of app and service."""
    state = calling()
    new = placed(state, "r2")
    group_of_web = reconcile.instance_group(state, new, new.spec.services[0])
    assert ("ACCOUNTS_API_URL", "http://127.0.0.1:7009") in group_of_web.environment
    assert ("ACCOUNTS_API_URL", "http://127.0.0.1:7009") in reconcile.verify_group(state, new).environment

"""What the router must hold, as a pure function of the committed state; and whether it does.

Exposure is a threshold on a user's bucket, never a server weight: a crashing stable server must not
raise the canary's share. All services of an environment share one route, so that no user sees a mix.
Neighbours: `reconcile` asks for the table, `haproxy` renders it, `advance` asks whether it is in force.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tidegate.core import model
from tidegate.core.model import Backend, PublicService, Role, Route, RouteState, RouteTable, Server

#: Header in which the bearer of a rollout's preview token asks for the incoming release.
PREVIEW_HEADER: Final = "X-Tidegate-Preview"


def server_name(placement: model.Placement, endpoint: model.Endpoint) -> str:
    """Never used again for another process: placement ids are unique, and who moves changes its port."""
    return f"p{placement.id}-{endpoint.index}-{endpoint.port}"


def route_table(state: model.EnvironmentState) -> RouteTable:
    """The table that the committed state justifies."""
    placements = sorted(state.placements, key=lambda placement: placement.id)
    backends = [
        _backend(placement, service)
        for placement in placements
        for service in placement.spec.services
        if service.serves and service.name not in placement.cleared
    ]
    return RouteTable(
        key=state.key,
        route=state.route,
        services=_public_services(state),
        backends=tuple(sorted(backends, key=lambda backend: (backend.service, backend.slot))),
        foreign=_foreign(state),
    )


def _foreign(state: model.EnvironmentState) -> tuple[model.ForeignLink, ...]:
    """Of all placements: a service of another app has the same port for each of them."""
    links = {link for placement in state.placements for link in placement.foreign}
    return tuple(sorted(links, key=lambda link: (link.service, link.port)))


def _backend(placement: model.Placement, service: model.ServiceSpec) -> Backend:
    return Backend(
        service=service.name,
        slot=placement.slot,
        check=service.check,
        servers=tuple(
            Server(
                name=server_name(placement, endpoint),
                host=endpoint.host,
                port=endpoint.port,
                ready=endpoint.in_rotation,
            )
            for endpoint in placement.endpoints
            if endpoint.service == service.name
        ),
        link_port=next(
            (
                link.port
                for link in placement.links
                if link.service == service.name and link.slot == placement.slot
            ),
            None,
        ),
    )


def _public_services(state: model.EnvironmentState) -> tuple[PublicService, ...]:
    """Host names come from the release that answers by default; a new host opens when its release is live.

    Before a first release is live, the incoming one's hosts are known already, so that its preview works.
    """
    owner = state.live or next(iter(state.in_role(Role.INCOMING)), None)
    if owner is None:
        return ()
    hosted = {service.name: service for service in owner.spec.services if service.hosts}
    incoming = state.incoming
    if incoming is not None and state.route.exposure_bps == model.FULL_EXPOSURE:
        hosted |= {service.name: service for service in incoming.spec.services if service.hosts}
    return tuple(
        PublicService(service=name, hosts=service.hosts, identity=service.identity)
        for name, service in sorted(hosted.items())
    )


def routed_slots(route: Route | None) -> tuple[int, ...]:
    """Slots that new requests can reach."""
    if route is None:
        return ()
    return tuple(slot for slot in (route.stable, route.canary) if slot is not None)


def in_force(route: Route, routes: RouteState) -> bool:
    """The running router and its boot files hold exactly this route, with this fence."""
    return routes.route == route and routes.boot is not None and routes.boot.route == route


def agrees(table: RouteTable, routes: RouteState) -> bool:
    """Nothing is left to do: boot files, structure, route and servers are as the table says."""
    if routes.boot != table or not routes.current or routes.route != table.route:
        return False
    wanted = {
        (backend.service, backend.slot, server.name): (server.host, server.port, server.ready)
        for backend in table.backends
        for server in backend.servers
    }
    held = {
        (server.service, server.slot, server.name): (server.host, server.port, server.ready)
        for server in routes.servers
    }
    return wanted == held


def foreign_in_force(needed: tuple[str, ...], routes: RouteState) -> bool:
    """The running router has an address for each of these services of other apps."""
    if not needed:
        return True
    known = {link.service for link in routes.boot.foreign} if routes.boot is not None else set()
    return routes.current and known.issuperset(needed)


def servers_up(routes: RouteState, *, service: str, slot: int) -> int:
    """Servers of a service in a slot that the router would send requests to."""
    return sum(
        1
        for server in routes.servers
        if server.service == service and server.slot == slot and server.up and server.ready
    )


def nothing_yet(state: model.EnvironmentState) -> bool:
    """The router need not know the environment: no route was committed, and there is nobody to route to.

    Who calls another app is told its address before the first instance starts.
    """
    return state.route.fence == 0 and not any(p.endpoints or p.foreign for p in state.placements)


def fenced(before: model.EnvironmentState, after: model.EnvironmentState) -> model.EnvironmentState:
    """`after`, with its fence raised if the router must hold another table than before, be it only a server.

    A late command of before would else bring servers back, or take those away that the next step of the
    exposure was decided on (simulation: seed 116 of profile swarm).
    """
    if after.route.fence > before.route.fence or nothing_yet(after) or _shown(before) == _shown(after):
        return after
    return after if route_table(before) == route_table(after) else moved(after)


def _shown(state: model.EnvironmentState) -> tuple[object, ...]:
    """What of the placements a table can depend on: cheap to compare."""
    return tuple((p.id, p.role, p.slot, p.endpoints, p.cleared) for p in state.placements)


def moved(state: model.EnvironmentState, **changes: object) -> model.EnvironmentState:
    """The state with its route changed and the fence raised, even if the rest is the same.

    The raised fence alone keeps a late command of before out (reliability.md 2.4, seed 523).
    """
    route = replace(state.route, **changes)  # type: ignore[arg-type]  # callers name fields of Route
    return replace(state, route=replace(route, fence=state.route.fence + 1))

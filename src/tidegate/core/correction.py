"""Putting right what somebody else has done to the router. Pure.

Neighbours: `advance` calls it in every tick, `routing` says what the router must hold.
"""

from __future__ import annotations

from dataclasses import replace

from tidegate.core import model, placements, routing
from tidegate.core.model import EnvironmentState, Event, Observation, Reason
from tidegate.core.outcome import Outcome


def correct_route(state: EnvironmentState, observed: Observation) -> Outcome:
    """Somebody else changed the route in the running router: go above its fence, so that ours is taken again.

    Not while the runtime is unseen: a greater fence can also mean that a backup was restored, which only the
    placements of what runs can tell; a route of yesterday would then be forced upon today's instances. For
    the same reason a greater fence that serves somebody stays in force until the release that would be put
    back can serve, and the addresses of what does not run are forgotten: they may be others' by now.
    """
    routes, groups, live = observed.routes, observed.groups, state.live
    held = routes.route if routes and groups is not None else None
    if held is None or held == state.route or held.fence < state.route.fence:
        return Outcome(state=state)
    newer = held.fence > state.route.fence and _serves(held, routes)
    if newer and live is not None and groups is not None and placements.service_without_ready(live, groups):
        return Outcome(state=state)
    if groups is not None and held.fence > state.route.fence:
        state = placements.without_lost_addresses(state, groups)
    fenced = replace(state.route, fence=held.fence)
    event = Event(
        reason=Reason.CORRECTED,
        rollout=state.rollout.id if state.rollout else None,
        detail=f"the router held {_described(held)}; put back to {_described(state.route)}",
    )
    return Outcome(state=routing.moved(replace(state, route=fenced)), events=(event,))


def _serves(route: model.Route, routes: model.RouteState | None) -> bool:
    slots = routing.routed_slots(route)
    return routes is not None and any(server.up and server.slot in slots for server in routes.servers)


def _described(route: model.Route) -> str:
    return f"slot {route.stable}, canary {route.canary} at {route.exposure_bps / 100:g} %"

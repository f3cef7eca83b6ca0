"""NOT-QUIESCENT: when faults have stopped, what is observed is what is committed, and nothing is left over.

Excuses:
- a state that went back in time (a restored backup) halts, on purpose, until a person has looked;
- a release that was made bad: its instances need not be ready, and after a reboot a service need not run
  while nothing answers of one that it needs.
"""

from __future__ import annotations

from tests.simulation.checkers.base import Checker, Violation
from tests.simulation.world import World
from tidegate.core import model, placements, reconcile, routing
from tidegate.core.model import Role


class QuiescenceChecker(Checker):
    """Looks once, at the end."""

    def on_end(self) -> None:
        for key in self.world.keys:
            state = self.world.committed(key)
            if not state.halted and not self.world.restored:
                self._check(key, state)
            elif state.halted and not self.world.restored:
                raise Violation("NOT-QUIESCENT", f"{key}: halted without a reason: {state.halted}")
            elif state.halted:
                self.world.reached["halted"] += 1

    def _check(self, key: model.EnvironmentKey, state: model.EnvironmentState) -> None:
        problem = unsettled(self.world, key, state)
        if problem:
            raise Violation("NOT-QUIESCENT", f"{key}: {problem}")
        live = state.live
        if live is not None and self.world.character(live.digest).name == "never":
            raise Violation("NOT-QUIESCENT", f"{key}: a release that was never ready is live")


def unsettled(world: World, key: model.EnvironmentKey, state: model.EnvironmentState) -> str:
    """What is not as it shall be in the end; empty when all is."""
    if state.rollout is not None or state.pending is not None:
        return f"rollout {state.rollout and state.rollout.phase} has not ended"
    if any(placement.role is not Role.LIVE for placement in state.placements):
        return f"placements {[(p.id, p.role.value) for p in state.placements]}"
    observed = world.true_look(key)
    effects = reconcile.reconcile(state, observed)
    if effects:
        return f"effects are left: {[effect.describe() for effect in effects]}"
    routes = observed.routes
    table = routing.route_table(state)
    if routes is None or (state.route.fence > 0 and (routes.boot != table or routes.route != table.route)):
        return "the router does not hold what is committed"
    ids = {
        model.group_id(key, p.id, s.name)
        for p in state.placements
        for s in placements.wanted_services(state, p)
    }
    seen = {group.id for group in observed.groups or ()}
    kept_down = {
        model.group_id(key, p.id, s.name)
        for p in state.placements
        for s in p.spec.services
        if not world.character(p.digest).good and _lacks_what_it_needs(p, s, observed)
    }
    if not ids - kept_down <= seen <= ids:
        return f"groups {sorted(seen)} instead of {sorted(ids)}"
    good = all(world.character(placement.digest).good for placement in state.placements)
    if good and not all(group.ready_count == len(group.instances) for group in observed.groups or ()):
        return "instances are not ready"
    return ""


def _lacks_what_it_needs(
    placement: model.Placement, service: model.ServiceSpec, observed: model.Observation
) -> bool:
    """No instance of a service that it needs is ready and up in the router."""
    groups, servers = observed.groups or (), observed.routes.servers if observed.routes else ()
    for name in service.needs:
        ready = any(g.ready_count for g in groups if g.placement == placement.id and g.service == name)
        up = any(server.up for server in servers if (server.service, server.slot) == (name, placement.slot))
        if not (ready and up):
            return True
    return False

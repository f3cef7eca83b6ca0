"""CAPACITY, UNAVAILABLE, ROUTED-TO-STOPPED, WRONG-RELEASE: where requests go, second by second.

Excuses, for CAPACITY and UNAVAILABLE only:
- the router process itself is not there (killed by a fault);
- a repair window after an injected fault that took instances away, counted in seconds in which the control
  plane made a complete step with both looks answered (`World.excuse_capacity`);
- the slot belongs to a release that was made bad: its own instances fail under it;
- CAPACITY: the route was changed from outside.
Nothing excuses a request to an instance that we stopped, or to another release's.
"""

from __future__ import annotations

from tests.simulation.checkers.base import Checker, Violation
from tidegate.core import model


class TrafficChecker(Checker):
    """Follows the route as the running router holds it."""

    def on_tick(self) -> None:
        if self.world.restored:
            return  # which placement has which slot is written in the state that was lost
        for key in self.world.keys:
            route = self.world.router.route(key)
            if route is None:
                continue
            for slot in self._slots(route):
                self._check_slot(key, slot)

    @staticmethod
    def _slots(route: model.Route) -> list[int]:
        slots = []
        if route.stable is not None and route.exposure_bps < model.FULL_EXPOSURE:
            slots.append(route.stable)
        if route.canary is not None and route.exposure_bps > 0:
            slots.append(route.canary)
        return slots

    def _check_slot(self, key: model.EnvironmentKey, slot: int) -> None:
        world = self.world
        placement = next((p for p in world.committed(key).placements if p.slot == slot), None)
        if placement is None:
            raise Violation("ROUTED-TO-STOPPED", f"{key}: slot {slot} takes requests and has no placement")
        excused = world.capacity_excused(key) or not world.character(placement.digest).good
        for service in placement.spec.services:
            if not service.serves:
                continue
            working = 0
            for name, server in world.router.candidates(key, service.name, slot):
                self._check_server(key, placement, name, server)
                working += world.runtime.serves(server.host, server.port)
            if working == 0 and not excused:
                raise Violation("UNAVAILABLE", f"{key}: no server of {service.name} in slot {slot} answers")
            if working < service.instances and not excused:
                detail = f"{working} of {service.instances} servers of {service.name} in slot {slot}"
                raise Violation("CAPACITY", f"{key}: {detail}")
            world.reached["requests"] += 1

    def _check_server(
        self, key: model.EnvironmentKey, placement: model.Placement, name: str, server: model.Server
    ) -> None:
        owner = self.world.runtime.owner(server.port)
        if owner is None:
            if (key, name) in self.world.stopped_servers:
                raise Violation("ROUTED-TO-STOPPED", f"{key}: {name} was stopped and takes requests")
            return
        group_id, _, state = owner
        if state is model.InstanceState.STOPPING:
            raise Violation("ROUTED-TO-STOPPED", f"{key}: {name} is being stopped and takes requests")
        group = self.world.runtime.group(group_id)
        if (group.key, group.placement) != (key, placement.id) and self.world.runtime.serves(
            server.host, server.port
        ):
            raise Violation("WRONG-RELEASE", f"{key}: {name} is {group_id}, not placement {placement.id}")

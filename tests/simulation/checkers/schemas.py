"""Nobody meets a schema that he cannot live on.

LACKS-SCHEMA: a release that answers users, or whose instances were started, lacks an object that it needs.
WARM-LACKS-SCHEMA: a release that is kept warm lacks one: the way back to it asks no database.
CHANGED-UNDER-SESSIONS: a breaking migration ran while somebody was connected to a release that needs what it
took away, or while new requests were let through.

Excuses: a restored backup; a route that was changed from outside; a route command that lands late.
"""

from __future__ import annotations

from tests.simulation.checkers.base import Checker, Violation
from tidegate.core import model
from tidegate.core.migrations import Step
from tidegate.core.model import Placement, Role


class SchemaChecker(Checker):
    """Looks at each step of each migration, at each route, and once a second."""

    def on_tick(self) -> None:
        for key in self.world.keys:
            self._check_users(key, "users reach it")

    def on_route(
        self,
        key: model.EnvironmentKey,
        before: model.Route | None,
        after: model.Route | None,
        command: model.RouteTable | None,
    ) -> None:
        self._check_users(key, "the route was written")

    def on_schema(self, key: model.EnvironmentKey, step: Step) -> None:
        what = f"{step.direction} {step.id}"
        self._check_users(key, what)
        if self.world.restored:
            return
        for placement in self.world.committed(key).in_role(Role.STANDBY):
            if self._lacks(key, placement):
                raise Violation("WARM-LACKS-SCHEMA", self._told(key, placement, what))
        for placement in self.world.committed(key).placements:
            if self._lacks(key, placement) and self._connected(key, placement):
                raise Violation("CHANGED-UNDER-SESSIONS", self._told(key, placement, what))

    def on_apply(self, group: model.InstanceGroup) -> None:
        placement = self.world.committed(group.key).placement(group.placement)
        if placement is None or self.world.landing_late or self.world.restored:
            return
        if placement.role is Role.INCOMING and self._lacks(group.key, placement):
            raise Violation("LACKS-SCHEMA", self._told(group.key, placement, "it is started"))

    def _check_users(self, key: model.EnvironmentKey, what: str) -> None:
        route = self.world.router.route(key)
        if route is None or route.hold_s or self.world.tampered(key) or self.world.restored:
            return
        exposed = {route.stable} | ({route.canary} if route.exposure_bps else set())
        for placement in self.world.committed(key).placements:
            if placement.slot in exposed and self._lacks(key, placement):
                raise Violation("LACKS-SCHEMA", self._told(key, placement, what))

    def _connected(self, key: model.EnvironmentKey, placement: Placement) -> bool:
        return any(
            session.key == key and session.server[1] == placement.slot
            for session in self.world.router.sessions
        )

    def _lacks(self, key: model.EnvironmentKey, placement: Placement) -> frozenset[int]:
        needs = self.world.history.needs.get(placement.digest, frozenset())
        return needs - self.world.history.objects(self.world.databases[key].applied)

    def _told(self, key: model.EnvironmentKey, placement: Placement, what: str) -> str:
        lacks = sorted(self._lacks(key, placement))
        applied = [one.id for one in self.world.databases[key].applied]
        return f"{key}: r{placement.release} ({placement.role}) lacks {lacks}: {what}; applied: {applied}"

"""What tries itself before anybody sees it.

EXPOSED-UNVERIFIED, JOB-EARLY, JOB-STRAY.

Excuses:
- all: a restored backup, whose placements say what was, not what is;
- EXPOSED-UNVERIFIED: the route was changed from outside (`World.tampered`); instances that were live already
  and a way back are not tried again;
- JOB-EARLY, JOB-STRAY: an effect that lands late was right when it was sent.
"""

from __future__ import annotations

from tests.simulation.checkers.base import Checker, Violation
from tests.simulation.world import World
from tidegate.core import model
from tidegate.core.model import Phase, RolloutKind

Name = tuple[model.EnvironmentKey, int]


class VerificationChecker(Checker):
    """Knows which placements must have been tried, and which have passed in truth."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._tried: set[Name] = set()
        """Placements that a deploy has made and that have checks of their own."""
        self._passed: set[Name] = set()

    def on_tick(self) -> None:
        for key in self.world.keys:
            self._note_passed(key)
            self._check_route(key, self.world.router.route(key))

    def on_commit(
        self,
        key: model.EnvironmentKey,
        before: model.EnvironmentState,
        after: model.EnvironmentState,
        events: tuple[model.Event, ...],
    ) -> None:
        rollout, incoming = after.rollout, after.incoming
        if rollout is None or incoming is None or incoming.spec.verify is None:
            return
        if rollout.created_placement and rollout.request.kind is RolloutKind.DEPLOY:
            self._tried.add((key, incoming.id))
        self._note_passed(key)
        if rollout.phase in (Phase.SHIFTING, Phase.HOLDING, Phase.FINISHING):
            self._check(key, incoming, f"rollout {rollout.id} is {rollout.phase}")

    def on_route(
        self,
        key: model.EnvironmentKey,
        before: model.Route | None,
        after: model.Route | None,
        command: model.RouteTable | None,
    ) -> None:
        self._note_passed(key)
        self._check_route(key, after)

    def on_apply(self, group: model.InstanceGroup) -> None:
        if group.verify is None or self.world.landing_late or self.world.restored:
            return
        state = self.world.committed(group.key)
        placement = state.placement(group.placement)
        if placement is None or state.rollout is None or state.rollout.phase is not Phase.VERIFYING:
            raise Violation("JOB-STRAY", f"{group.id} is started, and nothing is tried")
        routes = self.world.seen(group.key).routes
        shown = routes.route if routes is not None else None
        if shown is None or shown.canary != placement.slot or shown.preview != state.route.preview:
            raise Violation("JOB-EARLY", f"{group.id} is started, and was shown {shown}")
        self.world.reached["checks begin"] += 1

    def _note_passed(self, key: model.EnvironmentKey) -> None:
        for group in self.world.runtime.groups_of(key):
            if group.service == model.VERIFY_SERVICE and any(each.ready for each in group.instances):
                self._passed.add((key, group.placement))

    def _check_route(self, key: model.EnvironmentKey, route: model.Route | None) -> None:
        if route is None or self.world.tampered(key):
            return
        exposed = {route.stable} | ({route.canary} if route.exposure_bps else set())
        for placement in self.world.committed(key).placements:
            if placement.slot in exposed:
                self._check(key, placement, f"slot {placement.slot} is exposed")

    def _check(self, key: model.EnvironmentKey, placement: model.Placement, what: str) -> None:
        name = (key, placement.id)
        if name in self._tried and name not in self._passed and not self.world.restored:
            raise Violation("EXPOSED-UNVERIFIED", f"{key}: r{placement.release} has not passed, and {what}")

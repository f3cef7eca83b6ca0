"""Who is shown the new release, and since when.

SHARE, MONOTONE, BAKE-TIME, STAGES, EXPOSED-UNREADY, NOT-HOME, NOT-EXPOSED.

Excuses:
- SHARE: a command sent before the committed route may still land as long as the committed fence has not
  reached the router: nobody can call back what is under way. Once it has, nothing may lift the share.
- all: a restored backup, whose rollouts and counters say what was, not what is;
- SHARE, MONOTONE: the route was changed from outside (`World.tampered`).
- EXPOSED-UNREADY, BAKE-TIME, fast-forward: what was true at the very look that the step rests on
  (`World.seen`) counts, however old that is: looks may lag, the machine may be suspended right after one, a
  process that starts cannot know which newer ones its predecessor was shown and did not commit, and the
  commit of a leader that hung comes late.
"""

from __future__ import annotations

import functools
import zlib
from dataclasses import dataclass

from tests.simulation.checkers.base import Checker, Violation
from tests.simulation.world import World, all_serving
from tidegate.core import model
from tidegate.core.model import Phase, Reason

USERS = 24
#: Sums of seconds are not exact.
TOLERANCE_S = 0.001
#: What one look can prove at most; written down again here, so that the core's own constant is checked.
TICK_S = 1.0
LONG_AGO = -1e9
#: Users have been exposed to the release.
EXPOSED = (Phase.SHIFTING, Phase.HOLDING, Phase.FINISHING)


@dataclass(slots=True, kw_only=True)
class _Hold:
    """What a stage has truly been held for, as far as somebody looked."""

    rollout: int = 0
    stage: int = -1
    healthy_s: float = 0.0
    pending_s: float = 0.0
    """What the last look adds if its step is committed."""
    looked_at: float = LONG_AGO
    process: int = 0


@functools.cache
def bucket(salt: str, user: int) -> int:
    """Where a user falls; another salt shuffles them."""
    return zlib.crc32(f"{salt}/{user}".encode()) % model.FULL_EXPOSURE


class ExposureChecker(Checker):
    """Follows users through the routes."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._holds = {key: _Hold() for key in world.keys}
        self._fence_seen = dict.fromkeys(world.keys, 0)

    # --- how much and to whom ---

    def on_route(
        self,
        key: model.EnvironmentKey,
        before: model.Route | None,
        after: model.Route | None,
        command: model.RouteTable | None,
    ) -> None:
        self._fence_seen[key] = max(self._fence_seen[key], before.fence if before else 0)
        if after is None or self.world.tampered(key) or self.world.restored:
            return
        committed = self.world.committed(key)
        self._check_share(key, committed.route, after)
        if before is not None:
            self._check_monotone(key, committed, before, after)
        self._fence_seen[key] = max(self._fence_seen[key], after.fence)

    def _check_share(self, key: model.EnvironmentKey, committed: model.Route, after: model.Route) -> None:
        if after.canary is None or after.exposure_bps == 0:
            return
        allowed = committed.exposure_bps if committed.canary == after.canary else 0
        if committed.stable == after.canary:
            allowed = model.FULL_EXPOSURE
        under_way = after.fence < committed.fence and self._fence_seen[key] < committed.fence
        if after.exposure_bps > allowed and not under_way:
            detail = f"{after.exposure_bps} bps to slot {after.canary}, committed are {allowed}"
            raise Violation("SHARE", f"{key}: {detail} (fence {after.fence} of {committed.fence})")

    def _check_monotone(
        self,
        key: model.EnvironmentKey,
        committed: model.EnvironmentState,
        before: model.Route,
        after: model.Route,
    ) -> None:
        rollout, incoming = committed.rollout, committed.incoming
        if rollout is None or incoming is None or rollout.phase is Phase.ABORTING:
            return
        if before.canary != incoming.slot:
            return
        for user in range(USERS):
            was = _slot(before, user)
            if was == incoming.slot and _slot(after, user) != was:
                detail = f"user {user} goes back from slot {was} in {rollout.phase}"
                raise Violation("MONOTONE", f"{key}: {detail}: {before} -> {after}")

    # --- since when ---

    def on_look(self, key: model.EnvironmentKey, *, runtime: bool, router: bool) -> None:
        now, state = self.world.now, self.world.committed(key)
        hold, rollout = self._holds[key], state.rollout
        elapsed_s = min(now - hold.looked_at, TICK_S)
        if hold.process != self.world.process:
            elapsed_s = 0.0
        hold.looked_at, hold.process, hold.pending_s = now, self.world.process, 0.0
        if rollout is None:
            return
        if (hold.rollout, hold.stage) != (rollout.id, rollout.stage):
            # Zero, but in a universe that begins with a saved state.
            hold.rollout, hold.stage, hold.healthy_s = rollout.id, rollout.stage, rollout.held_s
        routes = self.world.seen(key).routes
        if routes is not None and routes.route == state.route and self._seen_ready(key, state.incoming):
            hold.pending_s = elapsed_s

    def _seen_ready(
        self, key: model.EnvironmentKey, placement: model.Placement | None, *, at_least: int | None = None
    ) -> bool:
        groups = self.world.seen(key).groups
        return placement is not None and all_serving(placement, groups, at_least=at_least)

    def on_commit(
        self,
        key: model.EnvironmentKey,
        before: model.EnvironmentState,
        after: model.EnvironmentState,
        events: tuple[model.Event, ...],
    ) -> None:
        was, rollout = before.rollout, after.rollout
        self._check_end(key, before, after)
        hold = self._holds[key]
        if self.world.landing_late or hold.looked_at == self.world.now:  # of a step, not of a button
            hold.healthy_s, hold.pending_s = hold.healthy_s + hold.pending_s, 0.0
        if self.world.restored or rollout is None or rollout.phase is not Phase.SHIFTING:
            return
        if was is None or was.id != rollout.id or was.phase not in EXPOSED:
            self._check_first_stage(key, after, rollout)
            return
        if rollout.stage > was.stage and rollout.reason is Reason.HELD:
            self._check_hold(key, was, rollout)
        elif rollout.stage > was.stage and rollout.reason is Reason.FAST_FORWARD:
            self.world.reached["fast-forward"] += 1
            if before.live is not None and self._seen_ready(key, before.live, at_least=1):
                raise Violation("STAGES", f"{key}: fast-forward although the stable release serves")
        share = after.route.exposure_bps
        if share < before.route.exposure_bps and before.route.canary == after.route.canary:
            raise Violation("MONOTONE", f"{key}: from {before.route.exposure_bps} down to {share} bps")

    def _check_end(
        self, key: model.EnvironmentKey, before: model.EnvironmentState, after: model.EnvironmentState
    ) -> None:
        """What the history calls aborted is seen by nobody, what it calls a success by everybody."""
        was, last, route = before.rollout, after.last, self.world.router.route(key)
        if was is None or last is None or last.id != was.id or route is None or self.world.landing_late:
            return
        incoming = before.incoming
        if incoming is None or self.world.restored or self.world.tampered(key):
            return
        share = route.exposure_bps if route.canary == incoming.slot else 0
        if last.phase is Phase.ABORTED and share:
            raise Violation("NOT-HOME", f"{key}: rollout {last.id} has ended with {share} bps")
        if last.phase is Phase.SUCCEEDED and share < model.FULL_EXPOSURE:
            raise Violation("NOT-EXPOSED", f"{key}: rollout {last.id} has succeeded with {share} bps")

    def _check_first_stage(
        self, key: model.EnvironmentKey, after: model.EnvironmentState, rollout: model.Rollout
    ) -> None:
        if not self.world.process:
            return  # a saved state, which nobody has looked at yet
        if rollout.stage != 0:
            raise Violation("STAGES", f"{key}: rollout {rollout.id} begins with stage {rollout.stage}")
        if not self._seen_ready(key, after.incoming):
            raise Violation("EXPOSED-UNREADY", f"{key}: rollout {rollout.id} shifts to what is not ready")

    def _check_hold(self, key: model.EnvironmentKey, was: model.Rollout, rollout: model.Rollout) -> None:
        if rollout.stage != was.stage + 1:
            raise Violation("STAGES", f"{key}: from stage {was.stage} to {rollout.stage}")
        hold_s = was.current_stage.hold_s
        held_s = self._holds[key].healthy_s
        if hold_s is None:
            raise Violation("BAKE-TIME", f"{key}: stage {was.stage} waits for a person")
        if held_s + TOLERANCE_S < hold_s:
            raise Violation(
                "BAKE-TIME", f"{key}: stage {was.stage} held {held_s:.1f} s instead of {hold_s:g}"
            )
        self.world.reached["stage held"] += 1


def _slot(route: model.Route, user: int) -> int | None:
    exposed = route.canary is not None and bucket(route.salt, user) < route.exposure_bps
    return route.canary if exposed else route.stable

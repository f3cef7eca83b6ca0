"""Who is shown the new release, and since when.

SHARE, MONOTONE, BAKE-TIME, STAGES, EXPOSED-UNREADY, NOT-HOME, NOT-EXPOSED.

Excuses:
- SHARE: a command sent before the committed route may still land as long as the committed fence has not
  reached the router: nobody can call back what is under way. Once it has, nothing may lift the share.
- all: a restored backup, whose rollouts and counters say what was, not what is;
- SHARE, MONOTONE: the route was changed from outside (`World.tampered`).
- EXPOSED-UNREADY: the commit of a leader that hung comes late; it was right when it was decided;
- BAKE-TIME: one tick of tolerance; with lagging looks, health seen up to `World.view_age_s` ago counts.
"""

from __future__ import annotations

import functools
import zlib
from dataclasses import dataclass

from tests.simulation.checkers.base import Checker, Violation
from tests.simulation.world import World
from tidegate.core import model
from tidegate.core.model import Phase, Reason

USERS = 24
TOLERANCE_S = 1.01
#: What one look can prove at most; written down again here, so that the core's own constant is checked.
TICK_S = 1.0
LONG_AGO = -1e9


@dataclass(slots=True, kw_only=True)
class _Hold:
    """What a stage has truly been held for, as far as somebody looked."""

    rollout: int = 0
    stage: int = -1
    healthy_s: float = 0.0
    healthy_at: float = LONG_AGO
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
        self._stable_down_at = dict.fromkeys(world.keys, LONG_AGO)
        self._ready_at: dict[tuple[model.EnvironmentKey, int], float] = {}
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
        hold.looked_at, hold.process = now, self.world.process
        self._note_truth(key, state, now)
        if rollout is None:
            return
        if (hold.rollout, hold.stage) != (rollout.id, rollout.stage):
            # Zero, but in a universe that begins with a saved state.
            hold.rollout, hold.stage, hold.healthy_s = rollout.id, rollout.stage, rollout.held_s
            hold.healthy_at = LONG_AGO
        if self.world.router.route(key) == state.route and self._was_ready(key, rollout.placement, now):
            hold.healthy_at = now
        if runtime and router and now - hold.healthy_at <= self.world.view_age_s:
            hold.healthy_s += elapsed_s

    def _note_truth(self, key: model.EnvironmentKey, state: model.EnvironmentState, now: float) -> None:
        live = state.live
        if live is None or not self.world.all_serving(key, live, at_least=1):
            self._stable_down_at[key] = now
        incoming = state.incoming
        if incoming is not None and self.world.all_serving(key, incoming):
            self._ready_at[key, incoming.id] = now

    def _was_ready(self, key: model.EnvironmentKey, placement: int | None, now: float) -> bool:
        return placement is not None and self._ready_at.get((key, placement), LONG_AGO) == now

    def on_commit(
        self,
        key: model.EnvironmentKey,
        before: model.EnvironmentState,
        after: model.EnvironmentState,
        events: tuple[model.Event, ...],
    ) -> None:
        was, rollout = before.rollout, after.rollout
        self._check_end(key, before, after)
        if (
            self.world.restored
            or was is None
            or rollout is None
            or was.id != rollout.id
            or rollout.phase is not Phase.SHIFTING
        ):
            return
        if was.phase is Phase.STARTING:
            self._check_first_stage(key, rollout)
        elif rollout.stage > was.stage and rollout.reason is Reason.HELD:
            self._check_hold(key, was, rollout)
        elif rollout.stage > was.stage and rollout.reason is Reason.FAST_FORWARD:
            self.world.reached["fast-forward"] += 1
            if self.world.now - self._stable_down_at[key] > self.world.view_age_s:
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

    def _check_first_stage(self, key: model.EnvironmentKey, rollout: model.Rollout) -> None:
        if rollout.stage != 0:
            raise Violation("STAGES", f"{key}: rollout {rollout.id} begins with stage {rollout.stage}")
        ready_at = self._ready_at.get((key, rollout.placement or 0), LONG_AGO)
        slept_s = sum(seconds for at, seconds in self.world.naps if at >= ready_at)
        age_s = self.world.now - ready_at - slept_s
        if age_s > self.world.view_age_s and not self.world.landing_late:
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

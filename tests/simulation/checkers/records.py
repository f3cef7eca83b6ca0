"""NOTIFY, LOST-UPDATE, DEADLINE, PROMOTED-BAD, DOUBLE: what is written down about rollouts.

Excuses:
- DEADLINE: one tick of tolerance;
- PROMOTED-BAD: a crash loop that is not in the newest look that the process was shown (`World.seen`);
- all: a restored backup, whose counters say what was.
A commit whose answer never arrived counts as what it is: committed.
"""

from __future__ import annotations

from collections import Counter

from tests.simulation.checkers.base import Checker, Violation
from tests.simulation.world import World
from tidegate.core import model, placements
from tidegate.core.model import Phase, Reason

TOLERANCE_S = 1.01
#: Crashes of one instance with which no release may get further; the core's own limit is checked by it.
CRASH_LIMIT = 3
STUCK_S = 60.0


class RecordChecker(Checker):
    """Follows the committed states and the history made of them."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._begun: dict[model.EnvironmentKey, list[int]] = {key: [] for key in world.keys}
        self._phase: dict[model.EnvironmentKey, tuple[int, Phase] | None] = dict.fromkeys(world.keys)
        self._counted_s = dict.fromkeys(world.keys, 0.0)
        self._looked_at = dict.fromkeys(world.keys, 0.0)
        self._process = 0
        self._loops: dict[model.EnvironmentKey, int | None] = dict.fromkeys(world.keys)
        """The incoming placement, if this process has seen it loop in its newest look that was answered."""

    def on_look(self, key: model.EnvironmentKey, *, runtime: bool, router: bool) -> None:
        rollout, now = self.world.committed(key).rollout, self.world.now
        if self._process != self.world.process:
            self._process = self.world.process
            self._looked_at = dict.fromkeys(self._looked_at, now)
            self._loops = dict.fromkeys(self._loops)
        elapsed_s = min(now - self._looked_at[key], 1.0)
        self._looked_at[key] = now
        if rollout is not None and not rollout.paused:
            self._counted_s[key] += elapsed_s
        if runtime:
            self._loops[key] = self._looping(key, self.world.committed(key).incoming)

    def _looping(self, key: model.EnvironmentKey, incoming: model.Placement | None) -> int | None:
        if incoming is None:
            return None
        crashes = placements.crashes(incoming, self.world.seen(key).groups or ())
        return incoming.id if crashes - incoming.crash_baseline >= CRASH_LIMIT else None

    def on_commit(
        self,
        key: model.EnvironmentKey,
        before: model.EnvironmentState,
        after: model.EnvironmentState,
        events: tuple[model.Event, ...],
    ) -> None:
        self._note_begun(key, after)
        incoming = before.incoming
        if incoming is not None and self._ended_well(before, after) and self._loops[key] == incoming.id:
            raise Violation("PROMOTED-BAD", f"{key}: {after.last and after.last.id} with a crash loop")
        self._check_deadline(key, before, after)
        rollout = after.rollout
        phase = (rollout.id, rollout.phase) if rollout else None
        if phase != self._phase[key] or (
            before.rollout and rollout and rollout.stage != before.rollout.stage
        ):
            # Zero, but in a universe that begins with a saved state.
            self._phase[key], self._counted_s[key] = phase, rollout.phase_s if rollout else 0.0

    @staticmethod
    def _ended_well(before: model.EnvironmentState, after: model.EnvironmentState) -> bool:
        return (
            before.rollout is not None
            and after.last is not None
            and after.last.id == before.rollout.id
            and after.last.phase is Phase.SUCCEEDED
        )

    def _note_begun(self, key: model.EnvironmentKey, after: model.EnvironmentState) -> None:
        rollout = after.rollout
        if rollout is not None and rollout.id not in self._begun[key]:
            begun = self._begun[key]
            if begun and rollout.id < begun[-1] and not self.world.restored:
                raise Violation("LOST-UPDATE", f"{key}: rollout {rollout.id} comes after {begun[-1]}")
            begun.append(rollout.id)

    def _check_deadline(
        self, key: model.EnvironmentKey, before: model.EnvironmentState, after: model.EnvironmentState
    ) -> None:
        was, rollout = before.rollout, after.rollout
        aborted = was is not None and rollout is not None and was.phase is not Phase.ABORTING
        if not aborted or rollout.phase is not Phase.ABORTING or was.id != rollout.id:  # type: ignore[union-attr]
            return
        self.world.reached[f"aborted: {rollout.reason}"] += 1  # type: ignore[union-attr]
        if rollout.reason is Reason.NEVER_READY:  # type: ignore[union-attr]
            limit_s = _least_start_s(before.incoming, was.phase)  # type: ignore[union-attr]
        elif rollout.reason is Reason.STUCK:  # type: ignore[union-attr]
            holds = was.phase is Phase.MIGRATING and before.route.hold_s  # type: ignore[union-attr]
            limit_s = before.route.hold_s if holds else STUCK_S
        else:
            return
        counted_s = self._counted_s[key]
        if counted_s + TOLERANCE_S < limit_s and not self.world.restored:
            detail = f"{rollout.reason} after {counted_s:.1f} counted seconds, not {limit_s:g}"  # type: ignore[union-attr]
            raise Violation("DEADLINE", f"{key}: {detail}")

    def on_end(self) -> None:
        if self.world.restored:
            return  # what the backup did not know is lost, by definition
        messages = Counter(record.message.key for record in self.world.store.outbox(limit=1_000_000))
        for key in self.world.keys:
            known = {record.rollout.id: record for record in self.world.store.history(key, limit=1_000_000)}
            for rollout in self._begun[key]:
                for what in ("started", "ended"):
                    if messages[f"{key}/{rollout}/{what}"] != 1:
                        raise Violation("NOTIFY", f"{key}: rollout {rollout} has no '{what}' message")
                if rollout not in known or not known[rollout].rollout.phase.ended:
                    raise Violation("NOTIFY", f"{key}: rollout {rollout} has no end in the history")


def _least_start_s(incoming: model.Placement | None, phase: Phase) -> float:
    """Each service has its own time, counted from when the one before it was ready."""
    if incoming is None:
        return 0.0
    if phase is Phase.FINISHING:
        return placements.start_limit_s(incoming)
    return min(service.ready_timeout_s for service in incoming.spec.services)

"""COUNTED-TWICE, NOT-COUNTED, VERDICT-IGNORED, NO-EVIDENCE: what is committed about a canary's requests.

The truth is what users were really answered; evidence may be younger than it, never more.

Excuses:
- NOT-COUNTED: what a process of the router has counted after its last look is lost when it ends; looks that
  lag, come twice, or were committed late show what was;
- all: a restored backup, whose evidence says what was.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.simulation.checkers.base import Checker, Violation
from tests.simulation.world import World
from tidegate.core import model, verdicts
from tidegate.core.model import Phase, Reason
from tidegate.core.verdicts import VerdictKind


@dataclass(slots=True, kw_only=True)
class _Canary:
    """What was true when a rollout took its slot."""

    rollout: int = 0
    served: tuple[int, int] = (0, 0)
    restarts: int | None = None
    """Of the router until the analysis began; None: it has not."""


class EvidenceChecker(Checker):
    """Follows each canary's requests from the users to the evidence."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._canaries = {key: _Canary() for key in world.keys}
        self._saw_router = dict.fromkeys(world.keys, False)

    def on_look(self, key: model.EnvironmentKey, *, runtime: bool, router: bool) -> None:
        self._saw_router[key] = router

    def on_commit(
        self,
        key: model.EnvironmentKey,
        before: model.EnvironmentState,
        after: model.EnvironmentState,
        events: tuple[model.Event, ...],
    ) -> None:
        rollout, incoming = after.rollout, after.incoming
        if rollout is None or incoming is None or self.world.restored:
            return
        canary = self._canaries[key]
        if canary.rollout != rollout.id:
            canary.rollout = rollout.id
            canary.served = self.world.served[key, incoming.slot]
            canary.restarts = None
        if rollout.analysis is None:
            return
        if canary.restarts is None:
            canary.restarts = self._restarts
        before_it = before.rollout.analysis if before.rollout else None
        looked = self._saw_router[key] and before_it != rollout.analysis
        self._check_counts(key, canary, rollout.analysis, incoming.slot, looked=looked)
        self._check_verdict(key, rollout)

    def _check_counts(
        self, key: model.EnvironmentKey, canary: _Canary, so_far: model.Analysis, slot: int, *, looked: bool
    ) -> None:
        compared, waiting = so_far.judge.canary, so_far.judge.waiting.canary
        seen = (compared.requests + waiting.requests, compared.errors + waiting.errors)
        served = self.world.served[key, slot]
        true = (served[0] - canary.served[0], served[1] - canary.served[1])
        if seen[0] > true[0] or seen[1] > true[1]:
            raise Violation("COUNTED-TWICE", f"{key}: {seen} in the evidence, {true} were served")
        faults = self.world.faults
        late = faults.stale or faults.lag or faults.hang_commit or faults.depose
        if looked and not late and canary.restarts == self._restarts:
            self.world.reached["evidence is complete"] += seen == true
            if seen != true and not self.world.landing_late and self._is_watched(key):
                raise Violation("NOT-COUNTED", f"{key}: {seen} in the evidence, {true} were served")

    @property
    def _restarts(self) -> int:
        """Changes whenever a process of the router ends, or may end."""
        return self.world.router.reloads + self.world.router_restarts

    def _is_watched(self, key: model.EnvironmentKey) -> bool:
        rollout = self.world.committed(key).rollout
        return rollout is not None and rollout.phase in (Phase.SHIFTING, Phase.HOLDING)

    def _check_verdict(self, key: model.EnvironmentKey, rollout: model.Rollout) -> None:
        if rollout.analysis is None:
            return
        found = verdicts.verdict(rollout.analysis.judge, rollout.request.spec.analysis)
        if found.kind is VerdictKind.ABORT and rollout.phase is not Phase.ABORTING:
            raise Violation("VERDICT-IGNORED", f"{key}: {rollout.phase} although: {found.sentence}")
        if rollout.reason is Reason.WORSE and not rollout.analysis.judge.canary.errors:
            raise Violation("NO-EVIDENCE", f"{key}: aborted without one failed request: {rollout.detail}")

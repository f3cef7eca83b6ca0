"""What people ask of the pipeline: bring a release to an environment, approve, take back, plan.

A release whose gate is open enters at once, and the answer is its rollout; any other becomes a promotion,
which `pipelines` carries on by itself. Neighbours: `operations` begins rollouts, `gates` proves,
`web.pipeline` translates HTTP.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tidegate import errors
from tidegate.core import model, pipeline, placements, plan, requests
from tidegate.core.model import EnvironmentKey, Refusal
from tidegate.core.promotions import Approval, PipelineState, Promotion, Waits, identity
from tidegate.core.roles import Asker
from tidegate.engine.gates import Gates
from tidegate.engine.neighbours import Neighbours
from tidegate.engine.operations import Asked, Entry, Operations
from tidegate.engine.pipelines import Pipelines

EMERGENCY_MIN: Final = 8
"""Characters of a reason: `x` is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """What came of it: a rollout that has begun, or a promotion on its way."""

    decision: requests.Decision
    promotion: Promotion | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GatePlan:
    """What a promotion would do at one environment."""

    environment: str
    passed: bool
    """It goes through without entering again."""
    waits: tuple[str, ...]
    """For what, as things stand now."""
    plan: plan.Plan | None
    """Of the rollout; None: it would not begin one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The pipeline, as people steer it. Safe to call from any thread."""

    operations: Operations
    pipelines: Pipelines
    gates: Gates

    def deploy(
        self, key: EnvironmentKey, release: int, asked: Asked, *, supersede: bool, emergency: str = ""
    ) -> Delivered:
        """Up to this environment, through all that stand before it. `emergency`: past every gate, and why.

        Raises NotFoundError, RefusedError.
        """
        repeated = self._repeated(key, asked)
        if repeated is not None:
            return repeated
        if emergency:
            return Delivered(
                decision=self._past_the_gates(key, release, asked, emergency, supersede=supersede)
            )
        found, wanted = self._wanted(key, release, asked, supersede=supersede)
        there = self.operations.store.load(key).state
        travel = self.gates.travel(key.app, wanted, found)
        self._refuse_left_out(wanted, travel)
        self._refuse_circle(key.app, wanted, found)
        quiet = there.rollout is None and not there.halted
        if quiet and placements.is_live(there, self.operations.deploy_request(key, release, asked)):
            return Delivered(decision=requests.Decision(state=there, no_op=True))
        if not self._is_open(wanted, travel, there):
            return Delivered(
                decision=requests.Decision(state=there), promotion=self._promoted(key.app, wanted, found)
            )
        entry = Entry(grounds=_grounds(wanted))
        return Delivered(decision=self.operations.enter(key, release, asked, entry, supersede=supersede))

    def promote(self, app: str, release: int, to: str | None, asked: Asked, *, supersede: bool) -> Promotion:
        """The same for what comes by itself: it waits where somebody is refused. `to`: last by default."""
        repeated = self.pipelines.kept.promotion_by_key(app, asked.key) if asked.key else None
        if repeated is not None:
            return repeated
        found = self.operations.release(app, release)
        target = to or found.environments[-1][0]
        found, wanted = self._wanted(
            EnvironmentKey(app=app, environment=target), release, asked, supersede=supersede
        )
        self._refuse_circle(app, wanted, found)
        return self._promoted(app, wanted, found)

    def approve(self, key: EnvironmentKey, release: int | None, asker: Asker) -> Promotion:
        """Raises NotFoundError, RefusedError."""
        approval = Approval(
            environment=key.environment,
            by=asker.name,
            role=asker.role.value,
            at=self.operations.clock.now(),
        )

        def decide(state: PipelineState) -> pipeline.Decision:
            waiting = pipeline.waiting(state, key.environment, release)
            found = self.operations.release(key.app, waiting.release)
            live = self.operations.store.load(key).state.live
            wanted = pipeline.approval_rules(found, live, key.environment)
            if not wanted:
                raise errors.RefusedError(
                    f"Nobody's approval is wanted before {key}.",
                    reason=Refusal.NOTHING_WAITS.value,
                    hint=f"r{waiting.release} {waiting.detail}.",
                )
            sealed = self.gates.sealed_approval(key.app, waiting, approval)
            return pipeline.approve(state, key.environment, waiting.release, sealed, wanted)

        return self.pipelines.decide(key.app, decide).promotion

    def withdraw(self, key: EnvironmentKey, release: int | None, by: str) -> Promotion:
        """Raises RefusedError."""
        return self.pipelines.decide(
            key.app, lambda state: pipeline.withdraw(state, key.environment, release, by)
        ).promotion

    def plan(self, key: EnvironmentKey, release: int, *, supersede: bool) -> tuple[GatePlan, ...]:
        """What a deploy would do, gate by gate. Raises NotFoundError, RefusedError."""
        found, wanted = self._wanted(key, release, Asked(), supersede=supersede)
        passed = self.gates.passed(key.app, found)
        planned = []
        for name in wanted.path:
            if name in passed and name != key.environment:
                planned.append(GatePlan(environment=name, passed=True, waits=(), plan=None))
            else:
                planned.append(self._gate_plan(key.app, name, found, wanted, supersede=supersede))
        return tuple(planned)

    def _gate_plan(
        self, app: str, name: str, found: model.Release, wanted: Promotion, *, supersede: bool
    ) -> GatePlan:
        key = EnvironmentKey(app=app, environment=name)
        there = self.operations.store.load(key).state
        here = pipeline.standing(wanted, name)
        travel = self.gates.travel(app, here, found)
        self._refuse_left_out(here, travel)
        held = pipeline.held(here, travel, there, self.operations.clock.now())
        spec = found.environment(name)
        waits = [held.sentence] if held is not None else []
        if spec is not None and spec.soak_s and name != wanted.target:
            waits.append(f"soaks {spec.soak_s:g} s before it goes on")
        # What is let in at once is refused while another rollout is in progress: the plan says that too.
        at_once = name == wanted.target and not pipeline.unpassed(name, wanted.path, travel)
        would = at_once or held is None or held.waits is not Waits.BUSY
        return GatePlan(
            environment=name,
            passed=False,
            waits=tuple(waits),
            plan=self.operations.plan(key, found.number, supersede=supersede) if would else None,
        )

    # --- inside ------------------------------------------------------------------------------------

    def _repeated(self, key: EnvironmentKey, asked: Asked) -> Delivered | None:
        known = self.operations.repeated(key, asked)
        if known is not None:
            return Delivered(decision=known)
        promotion = self.pipelines.kept.promotion_by_key(key.app, asked.key) if asked.key else None
        if promotion is None:
            return None
        state = self.operations.store.load(key).state
        return Delivered(decision=requests.Decision(state=state, no_op=True), promotion=promotion)

    def _past_the_gates(
        self, key: EnvironmentKey, release: int, asked: Asked, why: str, *, supersede: bool
    ) -> requests.Decision:
        if len(why.strip()) < EMERGENCY_MIN:
            raise errors.RequestError(
                "An emergency needs a reason that others understand tomorrow.",
                hint='For example --emergency "checkout is down, the fix is r42".',
            )
        entry = Entry(grounds=f"emergency, by {asked.by or asked.name}: {why}", emergency=why)
        return self.operations.enter(key, release, asked, entry, supersede=supersede)

    def _wanted(
        self, key: EnvironmentKey, release: int, asked: Asked, *, supersede: bool
    ) -> tuple[model.Release, Promotion]:
        """The release, and its promotion as it would be asked for, standing before the target."""
        found = self.operations.release(key.app, release)
        names = [name for name, _ in found.environments]
        if key.environment not in names:
            raise errors.RefusedError(
                f"{found.name} does not know the environment {key.environment}.",
                reason=Refusal.UNKNOWN_ENVIRONMENT.value,
                hint=f"Its tidegate.yaml names: {', '.join(names)}.",
            )
        promotion = Promotion(
            id=0,
            release=found.number,
            digest=found.digest,
            identity=identity(found),
            path=tuple(names[: names.index(key.environment) + 1]),
            environment=key.environment,
            by=asked.by,
            requester=asked.name,
            why=asked.why,
            key=asked.key,
            at=self.operations.clock.now(),
            supersede=supersede,
            accepted=asked.accepted,
        )
        return found, promotion

    def _promoted(self, app: str, wanted: Promotion, found: model.Release) -> Promotion:
        """On its way, from the first environment that it has not passed."""
        passed = self.gates.passed(app, found)
        first = next(name for name in wanted.path if name not in passed or name == wanted.target)
        start = pipeline.standing(wanted, first)
        return self.pipelines.decide(app, lambda state: pipeline.promote(state, start)).promotion

    @staticmethod
    def _is_open(wanted: Promotion, travel: pipeline.Travel, there: model.EnvironmentState) -> bool:
        """The target can be entered now; a rollout that is in progress there is a refusal, not a gate."""
        if pipeline.unpassed(wanted.environment, wanted.path, travel):
            return False
        held = pipeline.held(wanted, travel, there, wanted.at)
        return held is None or held.waits is Waits.BUSY

    @staticmethod
    def _refuse_left_out(wanted: Promotion, travel: pipeline.Travel) -> None:
        """An environment that no pipeline of the release leads through can never be passed."""
        left_out = [n for n in travel.demanded if n not in wanted.path and n not in travel.passed]
        if left_out:
            raise errors.RefusedError(
                f"r{wanted.release} leaves {', '.join(left_out)} out of its pipeline, which stands before "
                f"{wanted.environment} by the release that is live there.",
                reason=Refusal.GATE.value,
                hint="Put it back into environments of tidegate.yaml; it may go once it has passed.",
            )

    def _refuse_circle(self, app: str, wanted: Promotion, found: model.Release) -> None:
        """Apps that need each other would wait for each other for ever."""
        near = Neighbours(store=self.operations.store, kept=self.pipelines.kept)
        for name in wanted.path:
            circle = near.circle(app, pipeline.standing(wanted, name), found)
            if circle:
                raise errors.RefusedError(
                    f"{circle}.",
                    reason=Refusal.CIRCLE.value,
                    hint="Remove one of these needs, or make one of the calls optional: then it is no need.",
                )


def enter(
    act: Operations, key: EnvironmentKey, release: model.Release, promotion: Promotion
) -> requests.Decision:
    """Begin the rollout of a promotion where it stands, under its own key."""
    asked = Asked(
        by=promotion.by,
        name=promotion.requester,
        why=promotion.why,
        key=promotion.request_key(key.environment),
        accepted=promotion.accepted,
    )
    if promotion.kind is model.RolloutKind.ROLLBACK:
        return act.rollback(key, release.number, asked, canary=False, supersede=promotion.supersede)
    return act.enter(
        key, release.number, asked, Entry(grounds=_grounds(promotion)), supersede=promotion.supersede
    )


def _grounds(promotion: Promotion) -> str:
    before = promotion.path[: promotion.path.index(promotion.environment)]
    passed = f"passed {', '.join(before)}" if before else "the first environment of its pipeline"
    approved = [a.by for a in promotion.approvals if a.environment == promotion.environment]
    return f"{passed}; approved by {', '.join(approved)}" if approved else passed

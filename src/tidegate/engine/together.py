"""A group of apps goes back together: those connected by needs, who depends on others first.

Everything that can be known before is: if one of the apps cannot go back, nothing is begun. Then one
transaction makes a promotion for each, which `pipelines` carries on: a control plane that is killed goes on.
No approval and no freeze window holds them. Neighbours: `neighbours` finds the group, `operations` goes back.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from tidegate import errors
from tidegate.core import model
from tidegate.core.model import EnvironmentKey, Refusal, RolloutKind
from tidegate.core.promotions import Promotion, identity
from tidegate.engine.neighbours import Neighbours
from tidegate.engine.operations import Asked, Operations
from tidegate.engine.pipelines import ATTEMPTS, Pipelines

#: What a caller may refuse, by app: the asker's role, for example.
Permit = Callable[[str], None]
NOBODY: Final = Asked()


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStep:
    """One app of the group: what it would do, or does."""

    key: EnvironmentKey
    live: int | None
    """Release that is live now."""
    back_to: model.Release
    after: tuple[str, ...]
    promotion: Promotion | None = None
    """That does it; None: nothing was begun."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """Group rollbacks. Safe to call from any thread."""

    operations: Operations
    pipelines: Pipelines
    neighbours: Neighbours

    def plan(self, key: EnvironmentKey) -> tuple[GroupStep, ...]:
        """Who would go back to what, in order. Raises NotFoundError, RefusedError if one cannot."""
        if key not in self.operations.store.environments():
            raise errors.NotFoundError(
                f"Nothing was ever deployed to {key}.", hint="`tide deploy` brings the first release."
            )
        steps = []
        for member in self.neighbours.group(key):
            place = replace(key, app=member.app)
            there = self.operations.store.load(place).state
            request = self.operations.rollback_request(place, None, NOBODY)
            steps.append(
                GroupStep(
                    key=place,
                    live=there.live.release if there.live else None,
                    back_to=self.operations.release(member.app, request.release),
                    after=member.after,
                )
            )
        return tuple(steps)

    def roll_back(
        self, key: EnvironmentKey, asked: Asked, permit: Permit, *, supersede: bool
    ) -> tuple[GroupStep, ...]:
        """Begin; asked again under the same key it is the same. Raises what `permit` does, RefusedError."""
        asked = asked if asked.key else replace(asked, key=secrets.token_hex(8))
        repeated = self._repeated(key, asked)
        if repeated:
            return repeated
        planned = self.plan(key)
        for step in planned:
            permit(step.key.app)
            self._refuse_if_closed(step.key, supersede=supersede)
        for _ in range(ATTEMPTS):
            begun = self._promoted(planned, asked, supersede=supersede)
            changes = []
            for step in begun:
                versioned = self.pipelines.kept.load(step.key.app)
                before = versioned.state
                if step.promotion is None or step.promotion.id != before.next_id:
                    break
                state = replace(
                    before, next_id=before.next_id + 1, promotions=(*before.promotions, step.promotion)
                )
                changes.append((versioned, state))
            if len(changes) < len(begun):
                continue  # somebody asked for something in between
            try:
                self.pipelines.kept.commit_together(
                    self.operations.lease, tuple(changes), at=self.operations.clock.now()
                )
            except errors.ConflictError:
                continue
            self.pipelines.wake()
            return begun
        raise errors.ConflictError(
            f"The pipelines of the group changed {ATTEMPTS} times while this was decided; nothing was done.",
            hint="Ask again.",
        )

    def _promoted(
        self, planned: tuple[GroupStep, ...], asked: Asked, *, supersede: bool
    ) -> tuple[GroupStep, ...]:
        kept = self.pipelines.kept
        numbers = {step.key.app: kept.load(step.key.app).state.next_id for step in planned}
        group = tuple(numbers)
        return tuple(
            replace(
                step,
                promotion=Promotion(
                    id=numbers[step.key.app],
                    kind=RolloutKind.ROLLBACK,
                    release=step.back_to.number,
                    digest=step.back_to.digest,
                    identity=identity(step.back_to),
                    path=(step.key.environment,),
                    environment=step.key.environment,
                    after=tuple((app, numbers[app]) for app in step.after),
                    group=group,
                    by=asked.by,
                    requester=asked.name,
                    why=_why(group, asked.why),
                    key=asked.key,
                    at=self.operations.clock.now(),
                    supersede=supersede,
                ),
            )
            for step in planned
        )

    def _repeated(self, key: EnvironmentKey, asked: Asked) -> tuple[GroupStep, ...]:
        first = self.pipelines.kept.promotion_by_key(key.app, asked.key)
        steps = []
        for app in first.group if first else ():
            promotion = self.pipelines.kept.promotion_by_key(app, asked.key)
            if promotion is not None:
                place = replace(key, app=app)
                live = self.operations.store.load(place).state.live
                steps.append(
                    GroupStep(
                        key=place,
                        live=live.release if live else None,
                        back_to=self.operations.release(app, promotion.release),
                        after=tuple(other for other, _ in promotion.after),
                        promotion=promotion,
                    )
                )
        return tuple(steps)

    def _refuse_if_closed(self, key: EnvironmentKey, *, supersede: bool) -> None:
        there = self.operations.store.load(key).state
        if there.halted:
            raise errors.RefusedError(
                f"{key} is observed only: {there.halted}. Nothing of the group was begun.",
                reason=Refusal.HALTED.value,
                hint="Put that in order first, or roll back the other apps one by one.",
            )
        if there.rollout is not None and not supersede:
            raise errors.RefusedError(
                f"Rollout #{there.rollout.id} of r{there.rollout.request.release} is in progress in {key}. "
                "Nothing of the group was begun.",
                reason=Refusal.BUSY.value,
                hint="Wait for it, `tide abort` it, or ask with --supersede.",
            )


def _why(group: tuple[str, ...], why: str) -> str:
    together = f"goes back as a group: {', '.join(group)}"
    return f"{why} ({together})" if why else together

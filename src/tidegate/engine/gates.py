"""The door of every environment: what a release has passed, by proved seals, and what lets it in.

Gathers what the pure gate (`core.pipeline`) may not look up itself, and signs what follows. Invariants:

- a pass or an admission whose seal does not hold, or that says something else than its record, counts as
  none, and stands in the audit log;
- nothing is admitted whose bytes are not those of its digest;
- a way back needs no pass, but the admission of then: a row that was added to the history leads nowhere.

Neighbours: `operations` and `pipelines` ask before they begin a rollout, the runtime's guard asks for the
admission at each start of an instance.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from tidegate import errors, ports
from tidegate.core import model, pipeline
from tidegate.core.model import EnvironmentKey, Refusal, RolloutRequest
from tidegate.core.promotions import Approval, Pass, Promotion, admitted, identity
from tidegate.engine import freezes
from tidegate.engine.neighbours import Neighbours


class Content(Protocol):
    """Packages, as a gate looks at them."""

    def verify(self, digest: str) -> None:
        """Read every byte. Raises StorageError, NotFoundError, ArtifactError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """All that a gate asks. Safe to use from any thread."""

    store: ports.Store
    kept: ports.Pipelines
    seals: ports.Seals
    content: Content
    clock: ports.Clock
    found: Callable[[EnvironmentKey, int, str], None]
    """Tell the audit log of a record that is not as it was signed: where, which release, what."""
    _told: set[tuple[EnvironmentKey, int, str]] = field(default_factory=set)

    def travel(
        self, app: str, promotion: Promotion, release: model.Release, rollout: model.Rollout | None = None
    ) -> pipeline.Travel:
        """What counts for a promotion where it stands now."""
        near = Neighbours(store=self.store, kept=self.kept)
        if promotion.kind is model.RolloutKind.ROLLBACK:
            return pipeline.Travel(release=release, rollout=rollout, behind=near.behind(promotion))
        key = EnvironmentKey(app=app, environment=promotion.environment)
        live = self._live_release(key)
        return pipeline.Travel(
            release=release,
            rollout=rollout,
            passed=self.passed(app, release),
            demanded=_before(live, promotion.environment) if live else (),
            frozen=self.frozen(key, release, live),
            unmet=near.unmet(app, promotion, release),
            circle=near.circle(app, promotion, release),
        )

    def passed(self, app: str, release: model.Release) -> frozenset[str]:
        """Environments that what the release runs has passed, as the seals prove."""
        name = identity(release)
        return frozenset(one.environment for one in self.kept.passes(app, name) if self._holds(app, one))

    def _holds(self, app: str, one: Pass) -> bool:
        try:
            claims = self.seals.opened("pass", one.seal)
        except errors.SealError as error:
            why = f"the pass of r{one.release} in {one.environment} does not hold: {error.message}"
        else:
            if dict(claims) == claims_of_pass(app, one):
                return True
            why = f"the pass of r{one.release} in {one.environment} says something else than its seal"
        self._tell(EnvironmentKey(app=app, environment=one.environment), one.release, why)
        return False

    def _tell(self, key: EnvironmentKey, release: int, what: str) -> None:
        """Once by each process: gates are asked every second."""
        if (key, release, what) not in self._told:
            self._told.add((key, release, what))
            self.found(key, release, what)

    def sealed(self, app: str, one: Pass) -> Pass:
        """The pass with its seal."""
        return replace(one, seal=self.seals.seal("pass", claims_of_pass(app, one)))

    def sealed_approval(self, app: str, promotion: Promotion, approval: Approval) -> Approval:
        """The approval of this release with its seal."""
        claims = _claims_of_approval(app, promotion, approval)
        return replace(approval, seal=self.seals.seal("approval", claims))

    def proved(self, app: str, promotion: Promotion) -> Promotion:
        """The promotion with those of its approvals that somebody has really given."""
        given = tuple(one for one in promotion.approvals if self._is_given(app, promotion, one))
        return promotion if given == promotion.approvals else replace(promotion, approvals=given)

    def _is_given(self, app: str, promotion: Promotion, approval: Approval) -> bool:
        try:
            claims = self.seals.opened("approval", approval.seal)
        except errors.SealError as error:
            why = error.message
        else:
            if dict(claims) == _claims_of_approval(app, promotion, approval):
                return True
            why = "its seal says something else"
        key = EnvironmentKey(app=app, environment=approval.environment)
        self._tell(key, promotion.release, f"the approval by {approval.by[:60]} does not hold: {why}")
        return False

    def frozen(self, key: EnvironmentKey, release: model.Release, live: model.Release | None) -> str:
        """The freeze window in force by this release, or by the live one; empty: none is."""
        windows = [
            window
            for known in (release, live)
            for spec in (known.environment(key.environment) if known else None,)
            for window in (spec.freezes if spec else ())
        ]
        window = freezes.in_force(windows, self.clock.now())
        if window is None:
            return ""
        freeze, end = window
        zone = freezes.zone(freeze.zone)
        until = dt.datetime.fromtimestamp(end, zone).strftime("%Y-%m-%d %H:%M")
        why = f" ({freeze.why})" if freeze.why else ""
        return f"{key.environment} is frozen until {until} {freeze.zone}{why}"

    def check(self, key: EnvironmentKey, release: model.Release) -> None:
        """Raises RefusedError if the package is not what was built; then that stands in the audit log."""
        try:
            self.content.verify(release.digest)
        except (errors.StorageError, errors.ArtifactError) as error:
            self._tell(key, release.number, error.message)
            raise errors.RefusedError(
                f"The package of {release.name} is not what was built: {error.message}",
                reason=Refusal.TAMPERED.value,
                hint=f"`tide verify {release.name} --repair` unpacks it again, if its archive is whole.",
            ) from error

    def admission(self, key: EnvironmentKey, release: model.Release, grounds: str) -> str:
        """The sealed statement that lets the release in. `grounds`: for people who read it later."""
        spec = release.environment(key.environment)
        return self.seals.seal(
            "admission",
            {
                "app": key.app,
                "environment": key.environment,
                "release": release.number,
                "digest": release.digest,
                "identity": identity(release),
                "may": admitted(spec) if spec is not None else (),
                "grounds": grounds,
                "at": self.clock.now(),
            },
        )

    def readmitted(self, key: EnvironmentKey, past: RolloutRequest) -> str:
        """The admission of a release that was let in before. Raises RefusedError unless it holds."""
        try:
            claims = self.seals.opened("admission", past.admission)
        except errors.SealError as error:
            why = f"the admission of r{past.release} does not hold: {error.message}"
        else:
            wanted = (key.app, key.environment, past.release, past.digest)
            names = ("app", "environment", "release", "digest")
            if tuple(claims.get(name) for name in names) == wanted:
                return past.admission
            why = f"the admission of r{past.release} is for something else"
        self._tell(key, past.release, why)
        raise errors.RefusedError(
            f"The history says that r{past.release} was live in {key}, but {why}.",
            reason=Refusal.TAMPERED.value,
            hint="Somebody changed the database. `tide history` shows other releases to go back to.",
        )

    def _live_release(self, key: EnvironmentKey) -> model.Release | None:
        live = self.store.load(key).state.live
        return self.store.release(key.app, live.release) if live else None


def claims_of_pass(app: str, one: Pass) -> dict[str, ports.Claim]:
    """What a pass says when it is sealed."""
    return {
        "app": app,
        "environment": one.environment,
        "identity": one.identity,
        "release": one.release,
        "digest": one.digest,
        "rollout": one.rollout,
        "at": one.at,
    }


def _claims_of_approval(app: str, promotion: Promotion, approval: Approval) -> dict[str, ports.Claim]:
    return {
        "app": app,
        "environment": approval.environment,
        "release": promotion.release,
        "digest": promotion.digest,
        "by": approval.by,
        "role": approval.role,
        "at": approval.at,
    }


def _before(release: model.Release, environment: str) -> tuple[str, ...]:
    names = [name for name, _ in release.environments]
    return tuple(names[: names.index(environment)]) if environment in names else ()

"""What the forge is to be told of a commit: one state for each environment that it goes to.

Decides only: `sources.statuses` tells. Level-triggered: what is wanted follows from the committed push and
the history of its environments, so that a crash, or a forge that does not answer, changes nothing but the
time. Invariant: a rollout never waits for a report. Neighbours: `builds` carries the push on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tidegate import ports
from tidegate.core.model import EnvironmentKey, Phase, Rollout
from tidegate.pushes import Push, Pushes, PushState, Source, Status, Statuses

#: Newest pushes of an app that may still change; older ones are as they were told last.
WATCHED: Final = 20
DESCRIPTION_CHARACTERS_MAX: Final = 140
"""The least that a forge allows is GitHub's."""
HISTORY: Final = 20
#: Of all apps; one that is forgotten is given to the outbox once more, which knows it.
WANTED_KEPT: Final = 10_000

PENDING, SUCCESS, FAILURE = "pending", "success", "failure"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reports:
    """Keeps the outbox of status reports in step with pushes and rollouts."""

    sources: Callable[[], tuple[Source, ...]]
    pushes: Pushes
    statuses: Statuses
    store: ports.Store
    lease: ports.Lease
    now: Callable[[], float]
    stopped: Callable[[str, str], str] = lambda _app, _promotion: ""
    """By app and promotion: why it ended before its target; empty: it did not."""
    _wanted: dict[tuple[int, str], Status] = field(default_factory=dict)
    """What the outbox was given last: the same again is not worth a transaction."""

    def step(self) -> None:
        """Put what is to be told into the outbox. Raises StorageError, StoreError."""
        for source in self.sources():
            if source.report is None:
                continue
            for push in self.pushes.newest(source.app, limit=WATCHED):
                why = self.stopped(push.app, push.promotion) if push.promotion is not None else ""
                for status in wanted(push, self._rollouts(push), stopped=why):
                    place = (status.push, status.context)
                    if self._wanted.get(place) != status:
                        self.statuses.want(self.lease, status)
                        self._wanted[place] = status
        for place in sorted(self._wanted)[:-WANTED_KEPT]:
            del self._wanted[place]

    def _rollouts(self, push: Push) -> tuple[tuple[str, Rollout | None], ...]:
        """Environments that its release has come to, each with its newest rollout there; and the target."""
        release = self.store.release(push.app, push.release) if push.release is not None else None
        if release is None:
            return ((push.to, None),)
        found: list[tuple[str, Rollout | None]] = []
        for name, _ in release.environments:
            rollout = self._rollout(EnvironmentKey(app=push.app, environment=name), release.number)
            if rollout is not None or name == push.to:
                found.append((name, rollout))
            if name == push.to:
                break
        return tuple(found)

    def _rollout(self, key: EnvironmentKey, release: int) -> Rollout | None:
        history = self.store.history(key, limit=HISTORY)
        return next((record.rollout for record in history if record.rollout.request.release == release), None)


def wanted(
    push: Push, rollouts: tuple[tuple[str, Rollout | None], ...], *, stopped: str = ""
) -> tuple[Status, ...]:
    """What is to be told of a push, per environment. `stopped`: why it will come no further."""
    return tuple(
        Status(
            push=push.id,
            context=f"tidegate/{environment or 'release'}",
            state=state,
            description=text[:DESCRIPTION_CHARACTERS_MAX],
        )
        for environment, rollout in rollouts
        for state, text in (_told(push, rollout, stopped),)
    )


def _told(push: Push, rollout: Rollout | None, stopped: str) -> tuple[str, str]:
    if push.state is PushState.QUEUED:
        return PENDING, "waits to be built"
    if push.state is PushState.BUILDING:
        return PENDING, "is being built"
    if push.state in (PushState.FAILED, PushState.SUPERSEDED):
        return FAILURE, push.detail.partition("\n")[0]
    if rollout is None and stopped:
        return FAILURE, stopped
    if rollout is None:
        return PENDING, f"r{push.release} is built, and on its way"
    if not rollout.phase.ended:
        return PENDING, f"r{push.release} is being rolled out"
    if rollout.phase is Phase.SUCCEEDED:
        return SUCCESS, f"r{push.release} is live"
    return FAILURE, f"r{push.release} went back ({rollout.reason.value}): {rollout.detail}"

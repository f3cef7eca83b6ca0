"""What one step of the policy decides: the next state, and what the history shall say of the way there.

Neighbours: `advance` and `upkeep` make it of a look, `requests` of what somebody asks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tidegate.core.model import EnvironmentState, Event, Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The next state and what the history shall say of the way there."""

    state: EnvironmentState
    events: tuple[Event, ...] = ()

    def then(self, step: Callable[[EnvironmentState], Outcome]) -> Outcome:
        """This outcome followed by one more step."""
        following = step(self.state)
        return Outcome(state=following.state, events=self.events + following.events)


def event_of(rollout: Rollout, detail: str, exposure_bps: int | None = None) -> Event:
    """Of a decision on a rollout, with the reason that stands in it."""
    return Event(
        reason=rollout.reason,
        rollout=rollout.id,
        release=rollout.request.release,
        phase=rollout.phase,
        exposure_bps=exposure_bps,
        detail=detail,
    )

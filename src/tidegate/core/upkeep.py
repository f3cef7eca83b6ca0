"""What becomes of placements without a rollout: the live one ages, standbys cool, the rest is stopped.

Neighbours: `advance` calls it in every tick, `placements` says what is seen of them.
"""

from __future__ import annotations

from dataclasses import replace

from tidegate.core import migrating, placements
from tidegate.core.model import EnvironmentState, Event, Observation, Phase, Placement, Reason, Role
from tidegate.core.outcome import Outcome


def advance_placements(state: EnvironmentState, observed: Observation, dt_s: float) -> Outcome:
    """One tick of each of them."""
    outcome = Outcome(state=state)
    for placement in state.placements:
        outcome = outcome.then(lambda s, p=placement: _advance_placement(s, p, observed, dt_s))  # type: ignore[misc]
    return outcome


def _advance_placement(
    state: EnvironmentState, placement: Placement, observed: Observation, dt_s: float
) -> Outcome:
    if placement.role is Role.LIVE:
        if observed.groups is None:
            return Outcome(state=state)  # nobody watches for crash loops: the time does not count
        waits_s = 0.0 if placement.settled else migrating.contract_after_s(placement)
        older_s = min(placement.live_s + dt_s, max(placement.spec.keep_warm_s, waits_s))
        return Outcome(state=state.with_placement(replace(placement, live_s=older_s)))
    if placement.role is Role.INCOMING:
        return Outcome(state=state)
    idle = placements.idled(placement, observed, dt_s)
    if placement.role is Role.STANDBY:
        return _cool(state, idle)
    cleared = placements.with_cleared(idle, observed)
    if not placements.is_gone(cleared, state, observed):
        return Outcome(state=state.with_placement(cleared))
    remaining = tuple(p for p in state.placements if p.id != placement.id)
    event = Event(reason=Reason.GONE, release=placement.release, detail=f"placement {placement.id}")
    return Outcome(state=replace(state, placements=remaining), events=(event,))


def _cool(state: EnvironmentState, placement: Placement) -> Outcome:
    """The release that is live decides how long its predecessor stays warm.

    Nothing cools while a rollout is queued: it may be the placement that is about to be taken over.
    """
    live = state.live
    queued = state.rollout is not None and state.rollout.phase is Phase.QUEUED
    keep_warm_s = live.spec.keep_warm_s if live else placement.spec.keep_warm_s
    if placement.idle_s < keep_warm_s or live is None or queued:
        return Outcome(state=state.with_placement(placement))
    event = Event(reason=Reason.COOLED, release=placement.release, detail=f"kept warm for {keep_warm_s:g} s")
    return Outcome(state=state.with_placement(replace(placement, role=Role.RETIRING)), events=(event,))

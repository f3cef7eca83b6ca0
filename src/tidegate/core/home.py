"""The way home of a rollout: whatever the world looks like, it can be begun. Pure.

Neighbours: `advance`, `readying` and `requests` send rollouts home, `migrating` changes the schema back first
where it was changed under held requests.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tidegate.core import lifecycle, migrating, routing
from tidegate.core.lifecycle import Trigger
from tidegate.core.model import EnvironmentState, Observation, Phase, Reason, Role, Rollout
from tidegate.core.outcome import Outcome, event_of

#: How long an exposure or a finish may take to be seen in force.
STUCK_LIMIT_S: Final = 60.0


def abort(state: EnvironmentState, rollout: Rollout, reason: Reason, detail: str) -> Outcome:
    """Commit the way home, whatever the world looks like."""
    aborting = lifecycle.fire(replace(rollout, reason=reason, detail=detail, paused=False), Trigger.ABORT)
    if rollout.phase is Phase.SHIFTING:  # perhaps in force, though not seen: nobody may say it was not
        reached = max(rollout.exposure_reached_bps, state.route.exposure_bps)
        aborting = replace(aborting, exposure_reached_bps=reached)
    live, back = state.live, migrating.touched(state, rollout)
    home = routing.moved(
        replace(state, schema=None),
        stable=live.slot if live else None,
        canary=None,
        exposure_bps=0,
        preview="",
        hold_s=migrating.hold_s(state) if back or (live is not None and live.stranded) else 0,
    )
    if back and live is not None:
        home = migrating.begin(home, live)
    return Outcome(state=replace(home, rollout=aborting), events=(event_of(aborting, detail, 0),))


def go_home(state: EnvironmentState, rollout: Rollout, observed: Observation, dt_s: float) -> Outcome:
    """One step of it: the schema first where it has to be changed back, then the route, seen in force."""
    if state.schema is not None:
        state, news = migrating.change_back(state, state.schema, observed, dt_s)
        told = (event_of(replace(rollout, reason=Reason.MIGRATION_FAILED), news),) if news else ()
        return Outcome(state=state, events=told)
    if observed.routes is None or not routing.in_force(state.route, observed.routes):
        return Outcome(state=state)
    aborted = lifecycle.fire(rollout, Trigger.BACK_HOME)
    ended = replace(state, rollout=None, last=aborted)
    incoming = state.placement(rollout.placement)
    if incoming is not None:
        keep = not rollout.created_placement and rollout.reason in (Reason.USER_ABORT, Reason.SUPERSEDED)
        ended = ended.with_placement(
            replace(incoming, role=Role.STANDBY if keep else Role.RETIRING, idle_s=0.0)
        )
    return Outcome(state=ended, events=(event_of(aborted, rollout.detail, 0),))

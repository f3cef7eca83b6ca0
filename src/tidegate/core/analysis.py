"""From the router's counters to the evidence of a rollout, and what its verdict permits. Pure.

Hides which counters are compared: users' requests, as the router counted them at the services with a host
name, of the live release and of the incoming one, from the moment of the first exposure on.

Invariants:

- evidence and the counters that it covers are one value, committed at once: after a crash at any moment the
  next look goes on where the evidence ends, and no request is counted twice or lost;
- a process of the router that is not seen in a look keeps its mark: when it is seen again, only what is new
  counts; a process that was never seen before counts from its start;
- a request that was never answered counts too, as soon as it is overdue, long before it times out;
- what cannot be compared is never judged: a switch, a rollback, a first deployment.

Neighbours: `judge` has the evidence, `advance` asks here in every tick, views show `verdict`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from tidegate.core import judge, verdicts
from tidegate.core.counters import Glance
from tidegate.core.model import (
    FULL_EXPOSURE,
    Analysis,
    EnvironmentState,
    Phase,
    Placement,
    Rollout,
    RolloutKind,
    RouteState,
    Traffic,
)
from tidegate.core.sequential import Histogram

_Mark = tuple[str, str, int]  # process, service, slot


def watched(
    state: EnvironmentState, rollout: Rollout, routes: RouteState | None, dt_s: float
) -> Analysis | None:
    """The analysis after a look `dt_s` seconds after the last one; None as long as there is none."""
    live, incoming = state.live, state.placement(rollout.placement)
    if live is None or incoming is None or rollout.phase not in (Phase.SHIFTING, Phase.HOLDING):
        return rollout.analysis
    current = rollout.analysis
    if current is None:
        return _begun(rollout, live, incoming, routes)
    policy = rollout.request.spec.analysis
    if routes is None:
        blind = judge.Tick(canary=None, stable=None)
        return replace(current, judge=judge.judged(current.judge, blind, policy, dt_s))
    looked = _counted(routes, live, incoming)
    before, now = _by_mark(current.counted), _by_mark(looked)
    after = _with_overdue(current, _glance(looked, routes, live, incoming), dt_s)
    tick = judge.Tick(
        canary=replace(
            _since(before, now, incoming.slot), overdue=after.overdue_canary - current.overdue_canary
        ),
        stable=replace(_since(before, now, live.slot), overdue=after.overdue_stable - current.overdue_stable),
    )
    counted = tuple(traffic for _, traffic in sorted((before | now).items()))
    return replace(after, judge=judge.judged(current.judge, tick, policy, dt_s), counted=counted)


def _begun(
    rollout: Rollout, live: Placement, incoming: Placement, routes: RouteState | None
) -> Analysis | None:
    request = rollout.request
    compared = request.kind is RolloutKind.DEPLOY and rollout.current_stage.exposure_bps < FULL_EXPOSURE
    if routes is None or not compared:
        return None
    started = judge.started(request.spec.analysis, request.plan, request.past)
    return Analysis(judge=started, counted=_counted(routes, live, incoming))


def _counted(routes: RouteState, live: Placement, incoming: Placement) -> tuple[Traffic, ...]:
    public = {
        (placement.slot, service.name)
        for placement in (live, incoming)
        for service in placement.spec.services
        if service.hosts
    }
    return tuple(traffic for traffic in routes.traffic if (traffic.slot, traffic.service) in public)


def _by_mark(counted: tuple[Traffic, ...]) -> dict[_Mark, Traffic]:
    return {(traffic.process, traffic.service, traffic.slot): traffic for traffic in counted}


def _since(before: dict[_Mark, Traffic], now: dict[_Mark, Traffic], slot: int) -> judge.Counts:
    total = judge.Counts()
    for mark, traffic in sorted(now.items()):
        if traffic.slot == slot:
            old = before.get(mark)
            counts = _counts(traffic)
            total = judge.joined(total, counts if old is None else judge.since(_counts(old), counts))
    return total


def _glance(looked: tuple[Traffic, ...], routes: RouteState, live: Placement, incoming: Placement) -> Glance:
    canary = [traffic for traffic in looked if traffic.slot == incoming.slot]
    return Glance(
        at_s=0.0,
        processes=routes.processes,
        canary_active=sum(traffic.active for traffic in canary),
        canary_ended=sum(traffic.requests for traffic in canary),
        stable_active=sum(traffic.active for traffic in looked if traffic.slot == live.slot),
    )


#: Glances in the time that a request takes to become overdue.
_GLANCES: Final = 5


def _with_overdue(current: Analysis, seen: Glance, dt_s: float) -> Analysis:
    """Count the requests that wait for too long, without knowing any of them by name.

    Of those that were under way at an earlier glance, no more can have ended than have ended since at all:
    the others still wait. That is too few for the canary. For the stable release all that were and are under
    way may be the same: too many. So the comparison errs on the canary's side.
    """
    seen = replace(seen, at_s=current.elapsed_s + dt_s)
    wait_s = current.judge.overdue_s
    last = current.glances[-1] if current.glances else None
    if last is None or last.processes != seen.processes or last.canary_ended > seen.canary_ended:
        return replace(current, elapsed_s=seen.at_s, glances=(seen,))
    glances = current.glances
    while len(glances) > 1 and glances[1].at_s <= seen.at_s - wait_s:
        glances = glances[1:]
    if seen.at_s - last.at_s >= wait_s / _GLANCES:
        glances = (*glances, seen)
    after = replace(current, elapsed_s=seen.at_s, glances=glances)
    then = glances[0]
    if then.at_s > seen.at_s - wait_s:
        return after
    ended = seen.canary_ended - then.canary_ended
    canary = min(then.canary_active - ended, seen.canary_active)
    stable = min(then.stable_active, seen.stable_active)
    return replace(
        after,
        overdue_canary=max(current.overdue_canary, canary),
        overdue_stable=max(current.overdue_stable, stable),
    )


def _counts(traffic: Traffic) -> judge.Counts:
    return judge.Counts(
        requests=traffic.requests,
        errors=traffic.errors,
        latencies=Histogram(cells=traffic.latencies) if traffic.latencies else None,
    )


def verdict(rollout: Rollout) -> verdicts.Verdict | None:
    """What the evidence says now; None: there is nothing to compare."""
    if rollout.analysis is None:
        return None
    return verdicts.verdict(rollout.analysis.judge, rollout.request.spec.analysis)


def waits_for_evidence(rollout: Rollout) -> bool:
    """The hold time is over, and the policy wants more evidence before the next stage."""
    hold_s = rollout.current_stage.hold_s
    return (
        rollout.phase is Phase.HOLDING
        and rollout.analysis is not None
        and hold_s is not None
        and rollout.held_s >= hold_s
    )

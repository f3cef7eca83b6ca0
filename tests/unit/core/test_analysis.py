"""A canary is judged by its users' requests, each of which counts exactly once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.support.builders import (
    API,
    WEB,
    blind_router,
    environment,
    going,
    perfect,
    placed,
    request,
    spec,
    stages,
    with_instances,
    with_routes,
)
from tidegate.core import advance, analysis, judge, requests, strategy
from tidegate.core.model import (
    Analysis,
    EnvironmentState,
    Observation,
    Phase,
    Reason,
    RolloutKind,
    Traffic,
)
from tidegate.core.policy import AnalysisPolicy, LittleEvidence
from tidegate.core.sequential import PLAIN, Histogram, bucket_edge_s
from tidegate.core.verdicts import Finding, VerdictKind

#: Requests and errors that the router has counted, per slot.
Counters = Mapping[int, tuple[int, int]]


def answered(
    seen: Observation,
    counters: Counters,
    *,
    process: str = "1",
    service: str = "web",
    slow: Any = (),
    active: Mapping[int, int] | None = None,
) -> Observation:
    """What one process of the router has counted; `slow`: latencies of slot 1."""
    assert seen.routes is not None
    traffic = tuple(
        Traffic(
            service=service,
            slot=slot,
            process=process,
            requests=count,
            errors=failed,
            latencies=slow if slot == 1 else (),
            active=(active or {}).get(slot, 0),
        )
        for slot, (count, failed) in counters.items()
    )
    return with_routes(
        seen,
        traffic=(*seen.routes.traffic, *traffic),
        processes=(*seen.routes.processes, process),
    )


def canary(*, hold_s: float | None = 60.0, **policy: Any) -> EnvironmentState:
    """r2 is shown to 5 % beside r1; slots 1 and 0."""
    wanted = spec(strategy=stages(500, 5000, hold_s=hold_s), analysis=AnalysisPolicy(**policy))
    state = environment().live("r1", wanted).incoming("r2", wanted).state
    assert (placed(state, "r1").slot, placed(state, "r2").slot) == (0, 1)
    return state


def look(state: EnvironmentState, counters: Counters, dt_s: float = 1.0, **more: Any) -> advance.Outcome:
    return advance.advance(state, answered(perfect(state), counters, **more), dt_s)


def looked(state: EnvironmentState, *looks: Counters) -> EnvironmentState:
    """After these looks, one a second."""
    for counters in looks:
        state = look(state, counters).state
    return state


def evidence(state: EnvironmentState) -> Analysis:
    found = going(state).analysis
    assert found is not None
    return found


def counted(state: EnvironmentState) -> tuple[tuple[int, int], tuple[int, int]]:
    """Requests and errors of canary and stable that are in the evidence or wait for their slice."""
    judge = evidence(state).judge
    canary, stable = judge.waiting.canary, judge.waiting.stable
    return (
        (judge.canary.requests + canary.requests, judge.canary.errors + canary.errors),
        (judge.stable.requests + stable.requests, judge.stable.errors + stable.errors),
    )


# --- what is counted -------------------------------------------------------------------------------


def test_only_requests_since_the_first_exposure_count() -> None:
    """What the router had counted before belongs to other releases, or to nobody's canary."""
    state = looked(canary(), {0: (1000, 10), 1: (500, 500)}, {0: (1090, 11), 1: (510, 500)})
    assert counted(state) == ((10, 0), (90, 1))


def test_same_look_twice_counts_once() -> None:
    """Deciding several steps on one look adds nothing."""
    state = looked(canary(), {0: (0, 0), 1: (0, 0)}, *[{0: (90, 1), 1: (10, 2)}] * 3)
    assert counted(state) == ((10, 2), (90, 1))


def test_process_that_was_not_seen_for_a_while_counts_on() -> None:
    """Its counters go on where its last look ended: neither lost nor doubled."""
    state = looked(canary(), {0: (100, 0), 1: (10, 0)}, {0: (200, 0), 1: (20, 0)})
    unseen = advance.advance(state, perfect(state), 1.0).state
    assert counted(looked(unseen, {0: (300, 0), 1: (30, 0)})) == ((20, 0), (200, 0))


def test_process_that_has_started_meanwhile_counts_from_its_start() -> None:
    """After a reload the new process begins with zero, and the old one still answers."""
    state = looked(canary(), {0: (100, 0), 1: (10, 0)})
    seen = answered(perfect(state), {0: (110, 0), 1: (11, 0)})
    both = answered(seen, {0: (40, 0), 1: (4, 1)}, process="2")
    assert counted(advance.advance(state, both, 1.0).state) == ((5, 1), (50, 0))


def test_counters_that_fell_were_reset() -> None:
    """Somebody has cleared HAProxy's counters: what they show now is new."""
    state = looked(canary(), {0: (1000, 0), 1: (100, 0)}, {0: (95, 1), 1: (5, 0)})
    assert counted(state) == ((5, 0), (95, 1))


def test_services_behind_are_not_counted() -> None:
    """A user's request is one request, however many calls it causes."""
    wanted = spec(API, WEB, strategy=stages(500, hold_s=60.0))
    state = environment().live("r1", wanted).incoming("r2", wanted).state
    state = look(state, {0: (0, 0), 1: (0, 0)}).state
    seen = answered(perfect(state), {0: (90, 0), 1: (10, 0)})
    seen = answered(seen, {0: (900, 90), 1: (100, 99)}, service="api")
    assert counted(advance.advance(state, seen, 1.0).state) == ((10, 0), (90, 0))


def test_latencies_are_those_between_two_looks() -> None:
    """The stable release's past and the canary's latencies come out of the same counters."""
    state = look(canary(warmup_s=0.0, warmup_requests=0), {0: (0, 0), 1: (0, 0)}).state
    state = look(state, {0: (0, 0), 1: (100, 0)}, slow=((20, 60), (21, 40))).state
    state = look(state, {0: (0, 0), 1: (300, 0)}, slow=((20, 60), (21, 240))).state
    fast = dict(evidence(state).judge.canary_latencies)
    assert set(fast) == {20, 21}
    assert fast[21] > 3 * fast[20]


def test_look_that_failed_is_neither_good_nor_bad() -> None:
    """Nothing counts, and the time without a look is known."""
    state = looked(canary(), {0: (100, 0), 1: (10, 0)})
    for _ in range(12):
        state = advance.advance(state, blind_router(perfect(state)), 1.0).state
    assert counted(state) == ((0, 0), (0, 0))
    found = analysis.verdict(going(state))
    assert found is not None
    assert (found.kind, found.finding) == (VerdictKind.CONTINUE, Finding.BLIND)


def test_nobody_is_judged_before_anybody_is_exposed() -> None:
    """Who looks at the canary by the preview header is not compared with users."""
    starting = environment().live("r1").incoming("r2", phase=Phase.STARTING).state
    seen = with_instances(perfect(starting), placed(starting, "r2"), "web", ready=False)
    state = advance.advance(starting, answered(seen, {1: (9, 9)}), 1.0).state
    assert (going(state).phase, going(state).analysis) == (Phase.STARTING, None)


@pytest.mark.parametrize(
    "state",
    [
        environment().incoming("r2").state,
        environment().live("r1").incoming("r2", spec(strategy=strategy.SWITCH), phase=Phase.SHIFTING).state,
        environment().live("r1").incoming("r2", request=request("r2", kind=RolloutKind.ROLLBACK)).state,
    ],
    ids=["first-release", "switch", "rollback"],
)
def test_what_cannot_be_compared_is_not_judged(state: EnvironmentState) -> None:
    """A first release, a switch, and a way back that somebody asked for."""
    after = looked(state, {0: (0, 0), 1: (0, 0)}, {0: (1000, 0), 1: (1000, 1000)})
    ended = after.rollout or after.last
    assert ended is not None
    assert ended.analysis is None
    assert ended.phase not in (Phase.ABORTING, Phase.ABORTED)
    assert analysis.verdict(ended) is None


# --- what is never answered ------------------------------------------------------------------------


def hanging(
    state: EnvironmentState,
    seconds: int,
    *,
    waits: Any,
    answers: int = 0,
    stable_waits: Any = lambda _: 2,
) -> EnvironmentState:
    """So many seconds in which 5 requests a second go to the canary, of which `answers` are answered."""
    for second in range(1, seconds + 1):
        counters = {0: (95 * second, 0), 1: (answers * second, 0)}
        state = look(state, counters, active={0: stable_waits(second), 1: waits(second)}).state
    return state


def test_release_that_never_answers_goes_home_long_before_the_time_out() -> None:
    """Requests that wait for longer than any should are evidence, though none of them has ended."""
    before = look(canary(overdue_s=2.0), {0: (0, 0), 1: (0, 0)}).state
    ended = hanging(before, 8, waits=lambda second: 5 * second).last
    assert ended is not None
    assert (ended.phase, ended.reason) == (Phase.ABORTED, Reason.WORSE)
    assert re.search(r"at least (5|10) waited for more than 2 s \(stable release: at most 2\)", ended.detail)


def test_release_that_leaves_some_requests_without_an_answer_is_found_too() -> None:
    """Four of five are answered; the fifth waits."""
    before = look(canary(overdue_s=2.0), {0: (0, 0), 1: (0, 0)}).state
    ended = hanging(before, 30, waits=lambda second: second, answers=4).last
    assert ended is not None
    assert ended.reason is Reason.WORSE


def test_long_requests_of_both_releases_are_nobodys_fault() -> None:
    """WebSockets stay open for minutes, on either side in the same part."""
    before = look(canary(overdue_s=2.0), {0: (0, 0), 1: (0, 0)}).state
    state = hanging(
        before, 50, waits=lambda second: second, answers=4, stable_waits=lambda second: 19 * second
    )
    assert going(state).phase is Phase.HOLDING


def test_busy_release_that_answers_everything_is_not_overdue() -> None:
    """Others are under way at each look: as many have ended as were under way before."""
    before = look(canary(overdue_s=2.0), {0: (0, 0), 1: (0, 0)}).state
    state = hanging(before, 30, waits=lambda _: 4, answers=5)
    assert evidence(state).overdue_canary == 0


def test_processes_of_the_router_that_change_begin_the_waiting_anew() -> None:
    """What is under way in a process that is gone has ended in a way that nobody has counted."""
    state = look(canary(overdue_s=2.0), {0: (0, 0), 1: (0, 0)}).state
    for second in range(1, 20):
        counters = {0: (95 * second, 0), 1: (0, 0)}
        state = look(state, counters, active={1: 50}, process=str(second)).state
    assert evidence(state).overdue_canary == 0


@pytest.mark.parametrize(
    ("past", "overdue_s"),
    [
        (Histogram(), 5.0),
        (Histogram(cells=((10, 900), (136, 98), (141, 2))), 4 * bucket_edge_s(141)),
        (Histogram(cells=((250, 9),)), 30.0),
    ],
    ids=["nothing-known", "four-times-the-slowest", "not-for-ever"],
)
def test_overdue_is_measured_by_the_stable_release(past: Histogram, overdue_s: float) -> None:
    """What is long for one app is usual for another."""
    started = judge.started(AnalysisPolicy(), PLAIN, past)
    assert started.overdue_s == pytest.approx(overdue_s, rel=0.01)


# --- what follows ----------------------------------------------------------------------------------

BEFORE = {0: (0, 0), 1: (0, 0)}
#: A tenth of 100 canary requests has failed, and one of 1900 stable ones.
BAD = {0: (1900, 1), 1: (100, 10)}


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("phase", [Phase.SHIFTING, Phase.HOLDING])
def test_worse_release_goes_home(phase: Phase, *, paused: bool) -> None:
    """Whatever the phase, and though somebody has paused it."""
    wanted = spec(strategy=stages(500, 5000, hold_s=60.0))
    state = environment().live("r1", wanted).incoming("r2", wanted, phase=phase, paused=paused).state
    seen = perfect(state)
    assert seen.routes is not None
    hidden = with_routes(seen, route=replace(state.route, fence=state.route.fence - 1))
    state = advance.advance(state, answered(hidden, BEFORE), 1.0).state
    outcome = advance.advance(state, answered(hidden, BAD), 1.0)
    assert (going(outcome.state).phase, outcome.state.route.exposure_bps) == (Phase.ABORTING, 0)
    (event,) = [event for event in outcome.events if event.reason is Reason.WORSE]
    assert "10 of 100 failed" in event.detail
    assert "1 of 1900 failed" in event.detail


def test_outage_of_both_is_nobodys_fault() -> None:
    """When half of all requests fail on either side, the canary goes on."""
    counters = [{0: (95 * n, 50 * n), 1: (5 * n, 3 * n)} for n in range(50)]
    assert going(looked(canary(), *counters)).phase is Phase.HOLDING


def test_analysis_can_be_switched_off() -> None:
    """Then nothing is compared, and a stage ends with its time."""
    state = looked(canary(enabled=False, hold_s=3.0), BEFORE, BAD)
    assert going(state).phase is Phase.HOLDING
    assert going(looked(state, BAD, BAD)).stage == 1


def test_stage_ends_with_little_evidence() -> None:
    """By default it goes on, and says what was seen."""
    state = looked(canary(hold_s=3.0), BEFORE, {0: (10, 0), 1: (1, 0)})
    outcome = look(state, {0: (20, 0), 1: (2, 0)})
    assert (going(outcome.state).stage, going(outcome.state).reason) == (1, Reason.HELD)
    assert outcome.events[-1].detail == "held for 3 s. The canary has had 2 requests, too few to say much."


def test_stage_can_wait_for_evidence() -> None:
    """It stays until the release is shown to be no worse."""
    state = canary(hold_s=3.0, on_little_evidence=LittleEvidence.WAIT)
    counters = [{0: (1900 * n, 2 * n), 1: (100 * n, 0)} for n in range(200)]
    state = looked(state, *counters[:20])
    assert (going(state).stage, analysis.waits_for_evidence(going(state))) == (0, True)
    found = analysis.verdict(going(state))
    assert found is not None
    assert found.kind is VerdictKind.CONTINUE
    more = iter(counters[20:])
    while going(state).stage == 0:
        state = looked(state, next(more))
    assert (going(state).reason, analysis.waits_for_evidence(going(state))) == (Reason.HELD, False)
    assert "shown to be no worse" in going(state).detail


def test_stage_can_ask() -> None:
    """It pauses once; resuming goes on to the next stage, where it is asked again."""
    state = looked(canary(hold_s=2.0, on_little_evidence=LittleEvidence.ASK), BEFORE)
    outcome = look(state, {0: (10, 0), 1: (1, 0)})
    assert (going(outcome.state).paused, going(outcome.state).reason) == (True, Reason.LITTLE_EVIDENCE)
    assert [event.reason for event in outcome.events] == [Reason.LITTLE_EVIDENCE]
    state = looked(outcome.state, {0: (20, 0), 1: (2, 0)})
    assert (going(state).paused, going(state).stage) == (True, 0)
    state = looked(requests.resume(state, by="ada").state, {0: (30, 0), 1: (3, 0)})
    assert (going(state).paused, going(state).stage) == (False, 1)
    for n in range(4, 8):
        state = looked(state, {0: (10 * n, 0), 1: (n, 0)})
    assert (going(state).paused, going(state).stage) == (True, 1)


def test_stage_may_end_early_if_the_user_allows_it() -> None:
    """Shown to be no worse, and not before the soak time."""
    counters = [{0: (1900 * n, 2 * n), 1: (100 * n, 0)} for n in range(200)]
    patient = looked(canary(hold_s=500.0), *counters)
    assert (going(patient).stage, going(patient).held_s) == (0, 200.0)
    state, seconds = canary(hold_s=500.0, promote_early=True, soak_s=30.0), 0
    while going(state).stage == 0:
        state, seconds = look(state, counters[seconds]).state, seconds + 1
    assert 30 <= seconds < 150
    assert going(state).reason is Reason.NO_WORSE
    assert "shown to be no worse" in going(state).detail


def test_evidence_is_kept_from_stage_to_stage() -> None:
    """What was learnt at 5 % still counts at 50 %."""
    state = looked(canary(hold_s=3.0), *[{0: (95 * n, 0), 1: (5 * n, 0)} for n in range(4)])
    assert going(state).stage == 1
    assert counted(state)[0] == (15, 0)

"""From looks at a canary to evidence of every metric.

Hides what counts as a tick and which bet is on what; the bets themselves are in `sequential`, the wishes in
`policy`, the choice of the plan in `replay`, what follows from the evidence in `verdicts`. Pure; the state
is a small value (below 10 kB as JSON) that is committed with its rollout and carried through all its stages.

Invariants:

- Whether a tick counts is decided by the numbers of requests and the time, never by what became of them:
  warm-up, silence and slices (below) leave the guarantee as it is.
- Looks may come as often as one likes. A look with few requests is kept until a *slice* of `SLICE_REQUESTS`
  is full, or `SLICE_S` old with requests of both releases: a tick of one canary request and no stable one
  compares nothing, but a small app's ten failures of ten must count before its stage is over.
- No look, or no canary request, is neither good nor bad.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from tidegate.core import sequential
from tidegate.core.policy import AnalysisPolicy
from tidegate.core.sequential import Evidence, Histogram, PairCounts, Plan, Reference, Sample

#: With 5 % exposure three canary requests: never felt, and long enough to say what their part should be.
SLICE_REQUESTS: Final = 64
#: An app with fewer requests than a slice in this time is compared as well as its requests permit.
SLICE_S: Final = 10.0

# --- what is seen ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Requests of one release that finished in a tick."""

    requests: int = 0
    errors: int = 0
    """Of them: answers that the policy calls errors, connections that failed, time-outs."""
    latencies: Histogram | None = None
    """In `sequential`'s buckets; None: not measured. May hold fewer requests than `requests`."""
    values: Sample | None = None
    """A business metric, e.g. 1 for each visit that bought; None: not measured."""
    overdue: int = 0
    """Requests that became overdue in the tick. They are under way, so they are not among `requests`."""

    @property
    def decided(self) -> int:
        """Requests of which it is known whether they were answered in time."""
        return self.requests + self.overdue


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """One look: what finished since the look before. None: could not look."""

    canary: Counts | None
    stable: Counts | None


def since(before: Counts, now: Counts) -> Counts:
    """What happened between two readings of running counters. If one fell, all were reset to zero between."""
    old = dict(before.latencies.cells) if before.latencies else {}
    new = dict(now.latencies.cells) if now.latencies else {}
    fell = now.requests < before.requests or now.errors < before.errors
    if fell or any(new.get(index, 0) < count for index, count in old.items() if now.latencies):
        return now
    latencies = None
    if now.latencies is not None:
        cells = ((index, count - old.get(index, 0)) for index, count in now.latencies.cells)
        latencies = Histogram(cells=tuple(cell for cell in cells if cell[1]))
    return Counts(
        requests=now.requests - before.requests,
        errors=now.errors - before.errors,
        latencies=latencies,
        values=now.values,
    )


# --- what is committed -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Requests of one release that were compared, for people: the decision does not use them."""

    requests: int = 0
    errors: int = 0
    overdue: int = 0
    """Of the canary at least so many, of the stable release at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """Looks that are taken together, because each has too few requests to compare."""

    canary: Counts = Counts()
    stable: Counts = Counts()
    age_s: float = 0.0

    @property
    def full(self) -> bool:
        """To be compared now: by the number of its requests or by its age, whatever became of them."""
        canary, stable = self.canary.decided, self.stable.decided
        return canary + stable >= SLICE_REQUESTS or (self.age_s >= SLICE_S and canary > 0 and stable > 0)

    def with_look(self, canary: Counts, stable: Counts, dt_s: float) -> Slice:
        if self.canary.decided + self.stable.decided == 0:
            return Slice(canary=canary, stable=stable, age_s=dt_s)
        return Slice(
            canary=joined(self.canary, canary),
            stable=joined(self.stable, stable),
            age_s=self.age_s + dt_s,
        )


def joined(first: Counts, second: Counts) -> Counts:
    """Both together."""
    return Counts(
        requests=first.requests + second.requests,
        errors=first.errors + second.errors,
        latencies=_joined_latencies(first.latencies, second.latencies),
        values=_joined_values(first.values, second.values),
        overdue=first.overdue + second.overdue,
    )


def _joined_latencies(first: Histogram | None, second: Histogram | None) -> Histogram | None:
    if first is None or second is None:
        return first or second
    cells = dict(first.cells)
    for index, count in second.cells:
        cells[index] = cells.get(index, 0) + count
    return Histogram(cells=tuple(sorted(cells.items())))


def _joined_values(first: Sample | None, second: Sample | None) -> Sample | None:
    if first is None or second is None:
        return first or second
    return Sample(cells=first.cells + second.cells)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeState:
    """Everything that a rollout's analysis knows. Made by `started`, changed by `judged`."""

    plan: Plan
    """Chosen before the rollout and kept: a plan chosen while looking would be chosen by the outcome."""
    worse: Evidence
    no_worse: Evidence
    slower: Evidence
    overdue: Evidence
    poorer: Evidence
    over_error_limit: Evidence
    over_latency_limit: Evidence
    stable_latencies: Reference
    canary_latencies: sequential.Cells = ()
    """Of the warm canary, fading as the stable release's do: for people, and for the promotion."""
    centre: float | None = None
    """The stable release's business metric in the past."""
    canary: Seen = Seen()
    stable: Seen = Seen()
    waiting: Slice = Slice()
    """What came since the last full slice."""
    served_s: float = 0.0
    """Seconds in which the canary had requests."""
    silent_s: float = 0.0
    """Seconds since the canary last had requests."""
    blind_s: float = 0.0
    """Seconds since we could last look."""
    requests_without_latency: int = 0
    """Of the canary, since the last one with a latency, while the stable release has latencies."""
    overdue_s: float = 5.0
    """From when on a request is overdue: fixed before the first look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bets:
    """One per metric; None: without a limit."""

    worse: sequential.PairBet
    no_worse: sequential.PairBet
    slower: sequential.OrderBet
    poorer: sequential.MeanBet
    error_limit: sequential.LimitBet | None
    latency_limit: sequential.LimitBet | None


_SLOW_SHARE: Final = 0.01  # of requests that `max_p99_ms` permits


@lru_cache(maxsize=8)
def bets_of(policy: AnalysisPolicy) -> Bets:
    """The bets that a policy asks for."""
    limit = policy.max_error_share
    return Bets(
        worse=sequential.worse(margin=policy.margin, allowance=policy.allowance),
        no_worse=sequential.no_worse(margin=policy.promote_margin, allowance=policy.promote_allowance),
        slower=sequential.OrderBet(margin_buckets=policy.latency_margin_buckets),
        poorer=sequential.MeanBet(margin=policy.business_margin),
        error_limit=None if limit is None else sequential.LimitBet(limit=limit),
        latency_limit=None if policy.max_p99_ms is None else sequential.LimitBet(limit=_SLOW_SHARE),
    )


def started(policy: AnalysisPolicy, plan: Plan, past: Histogram) -> JudgeState:
    """Before the first look. `past`: latencies of the stable release before the rollout; may be empty."""
    bets = bets_of(policy)
    limits = (len(bet.log_weights) if bet else 0 for bet in (bets.error_limit, bets.latency_limit))
    return JudgeState(
        plan=plan,
        worse=Evidence.nothing(len(bets.worse.ratios)),
        no_worse=Evidence.nothing(len(bets.no_worse.ratios)),
        slower=Evidence.nothing(len(bets.slower.log_weights)),
        overdue=Evidence.nothing(len(bets.worse.ratios)),
        poorer=Evidence.nothing(len(bets.poorer.log_weights) if policy.business else 0),
        over_error_limit=Evidence.nothing(next(limits)),
        over_latency_limit=Evidence.nothing(next(limits)),
        stable_latencies=Reference().after(past, dt_s=0.0),
        overdue_s=_overdue_s(policy, past),
    )


#: What a request may take at most before it is overdue, as a multiple of the stable release's slowest.
_OVERDUE_TIMES: Final = 4.0
_OVERDUE_PART: Final = 0.999
_OVERDUE_MIN_S: Final = 1.0
_OVERDUE_MAX_S: Final = 30.0
_OVERDUE_UNKNOWN_S: Final = 5.0


def _overdue_s(policy: AnalysisPolicy, past: Histogram) -> float:
    if policy.overdue_s is not None:
        return policy.overdue_s
    if not past.cells:
        return _OVERDUE_UNKNOWN_S
    slowest_s = sequential.bucket_edge_s(sequential.quantile(past.cells, _OVERDUE_PART))
    return min(max(_OVERDUE_TIMES * slowest_s, _OVERDUE_MIN_S), _OVERDUE_MAX_S)


# --- a look ----------------------------------------------------------------------------------------


def judged(state: JudgeState, tick: Tick, policy: AnalysisPolicy, dt_s: float) -> JudgeState:
    """The state after a look `dt_s` seconds after the one before. ValueError if `dt_s` is negative."""
    if not 0 <= dt_s < math.inf:
        raise ValueError(f"a look cannot come {dt_s} seconds after the one before")
    if tick.canary is None or tick.stable is None:
        return replace(state, blind_s=state.blind_s + dt_s)
    nothing = tick.canary.decided == 0
    heard = replace(
        state,
        blind_s=0.0,
        silent_s=state.silent_s + dt_s if nothing else 0.0,
        served_s=state.served_s if nothing else state.served_s + dt_s,
    )
    if nothing and state.waiting.canary.decided == 0:
        return _remembering(heard, tick.stable, dt_s)
    waiting = state.waiting.with_look(tick.canary, tick.stable, dt_s)
    if not waiting.full:
        return replace(heard, waiting=waiting)
    return _counted(replace(heard, waiting=Slice()), waiting, policy)


def _remembering(state: JudgeState, stable: Counts, dt_s: float) -> JudgeState:
    """The stable release goes on while the canary has no requests: only its past grows."""
    if stable.latencies is None:
        return state
    return replace(state, stable_latencies=state.stable_latencies.after(stable.latencies, dt_s=dt_s))


def _counted(state: JudgeState, full: Slice, policy: AnalysisPolicy) -> JudgeState:
    """With the bets on a full slice won or lost. Bets on what is known before it, then learns from it."""
    bets, canary, stable = bets_of(policy), full.canary, full.stable
    counts = PairCounts(
        canary_requests=canary.requests,
        canary_events=canary.errors,
        stable_requests=stable.requests,
        stable_events=stable.errors,
    )
    late = PairCounts(
        canary_requests=canary.decided,
        canary_events=canary.overdue,
        stable_requests=stable.decided,
        stable_events=stable.overdue,
    )
    after = replace(
        state,
        worse=_added(state, state.worse, bets.worse.gains(counts), full),
        overdue=_added(state, state.overdue, bets.worse.gains(late), full),
        no_worse=_added(state, state.no_worse, bets.no_worse.gains(counts), full),
        canary=_seen(state.canary, canary),
        stable=_seen(state.stable, stable),
    )
    if bets.error_limit:
        gains = bets.error_limit.gains(canary.requests, canary.errors)
        after = replace(after, over_error_limit=_added(state, state.over_error_limit, gains, full))
    if stable.latencies is not None or canary.latencies is not None:
        after = _with_latencies(after, full, policy, warm=_warm(state, policy))
    if canary.values is not None and stable.values is not None:
        after = _with_values(after, full, policy)
    return after


def _added(state: JudgeState, evidence: Evidence, gains: sequential.Floats, full: Slice) -> Evidence:
    return sequential.added(evidence, gains, dt_s=full.age_s, plan=state.plan)


def _seen(before: Seen, counts: Counts) -> Seen:
    return Seen(
        requests=before.requests + counts.requests,
        errors=before.errors + counts.errors,
        overdue=before.overdue + counts.overdue,
    )


def _warm(state: JudgeState, policy: AnalysisPolicy) -> bool:
    """Whether the canary has served long enough that its latencies count."""
    return state.served_s > policy.warmup_s and state.canary.requests >= policy.warmup_requests


def _with_latencies(state: JudgeState, full: Slice, policy: AnalysisPolicy, *, warm: bool) -> JudgeState:
    bets = bets_of(policy)
    canary, stable = full.canary.latencies or Histogram(), full.stable.latencies or Histogram()
    silent = 0 if canary.cells else state.requests_without_latency + full.canary.requests
    after = replace(
        state,
        stable_latencies=state.stable_latencies.after(stable, dt_s=full.age_s),
        requests_without_latency=silent,
    )
    if not warm:
        return after
    after = replace(
        after,
        slower=_added(state, state.slower, bets.slower.gains(canary, stable, state.stable_latencies), full),
        canary_latencies=sequential.faded(state.canary_latencies, canary.cells, dt_s=full.age_s),
    )
    if bets.latency_limit and policy.max_p99_ms is not None:
        slow = sum(
            n for index, n in canary.cells if sequential.bucket_edge_s(index) * 1000 >= policy.max_p99_ms
        )
        gains = bets.latency_limit.gains(canary.total, slow)
        after = replace(after, over_latency_limit=_added(state, state.over_latency_limit, gains, full))
    return after


def _with_values(state: JudgeState, full: Slice, policy: AnalysisPolicy) -> JudgeState:
    canary, stable = full.canary.values or Sample(), full.stable.values or Sample()
    centre = sequential.followed(state.centre, stable, dt_s=full.age_s)
    if not policy.business:
        return state
    gains = bets_of(policy).poorer.gains(canary, stable, state.centre)
    return replace(state, centre=centre, poorer=_added(state, state.poorer, gains, full))

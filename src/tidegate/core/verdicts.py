"""Evidence of all metrics to one verdict: abort, promote or continue, with its reason and a sentence.

Hides how metrics are put together, and the words for people. Pure. Invariants:

- A rollout of a release within the margins is aborted with a chance of at most `false_abort`, over all
  metrics, looks and stages: abort when sum_m v_m E_m >= 1 / false_abort. Every E_m has mean at most 1 and
  the weights sum to 1, so the sum is a bet too, whatever the metrics have to do with one another.
- The verdict is a function of the evidence alone: whoever asks again, later or elsewhere, hears the same.

Neighbours: `judge` gathers the evidence, `analysis` asks of a rollout, `advance` does what follows.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace
from typing import Final, Protocol

from tidegate.core import judge, sequential, words
from tidegate.core.judge import JudgeState, Seen
from tidegate.core.policy import AnalysisPolicy, LittleEvidence, Metric
from tidegate.core.sequential import Evidence


class VerdictKind(enum.StrEnum):
    """What the analysis says of a canary."""

    ABORT = "abort"
    PROMOTE = "promote"
    CONTINUE = "continue"


class Finding(enum.StrEnum):
    """Why. Stored and shown unchanged: add, never rename."""

    MORE_ERRORS = "more-errors"
    SLOWER = "slower"
    OVERDUE = "more-overdue"
    POORER = "business-metric-fell"
    ERROR_LIMIT = "above-error-limit"
    LATENCY_LIMIT = "above-latency-limit"
    NO_WORSE = "shown-no-worse"
    OFF = "analysis-off"
    BLIND = "could-not-look"
    NO_REQUESTS = "no-canary-requests"
    NOTHING_TO_COMPARE = "no-stable-requests"
    FEW_REQUESTS = "few-canary-requests"
    LATENCY_SILENT = "latency-not-reported"
    GATHERING = "gathering-evidence"


_FOUND: Final = {
    Metric.ERRORS: Finding.MORE_ERRORS,
    Metric.LATENCY: Finding.SLOWER,
    Metric.OVERDUE: Finding.OVERDUE,
    Metric.BUSINESS: Finding.POORER,
    Metric.ERROR_LIMIT: Finding.ERROR_LIMIT,
    Metric.LATENCY_LIMIT: Finding.LATENCY_LIMIT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricEvidence:
    """What one metric says."""

    metric: Metric
    log_evidence: float
    """In nats, with its weight: to be set against the verdict's bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Errors of a release, with the 95 % interval (Wilson) for display; decisions do not use it."""

    requests: int
    errors: int
    low: float
    high: float

    @property
    def value(self) -> float:
        """0 if there was no request."""
        return self.errors / self.requests if self.requests else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Lower edges of the buckets that hold the median and the 99th percentile, in milliseconds."""

    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What to do with the canary, why, and how sure: shown unchanged everywhere."""

    kind: VerdictKind
    finding: Finding
    metric: Metric | None
    """To blame for an abort."""
    sentence: str
    evidence: tuple[MetricEvidence, ...]
    combined: float
    """Log evidence of all metrics together…"""
    abort_bound: float
    """…which aborts from here."""
    no_worse: float
    """Log evidence that errors are no worse than the promote margins…"""
    promote_bound: float
    """…which is enough from here."""
    canary: Share
    stable: Share
    canary_latency: Latency | None = None
    stable_latency: Latency | None = None


def verdict(state: JudgeState, policy: AnalysisPolicy) -> Verdict:
    """What the evidence says now. PROMOTE: shown no worse; see `may_end_early` for what may follow."""
    parts = tuple(
        MetricEvidence(
            metric=metric, log_evidence=policy.log_weight(metric) + _log_value(state, metric, policy)
        )
        for metric in policy.metrics
    )
    combined = sequential.log_sum(tuple(part.log_evidence for part in parts))
    no_worse = sequential.log_value(state.no_worse, judge.bets_of(policy).no_worse.log_weights, state.plan)
    kind, finding, metric = VerdictKind.CONTINUE, _unfinished(state, policy), None
    if policy.enabled and combined >= policy.abort_bound:
        metric = max(parts, key=lambda part: part.log_evidence).metric
        kind, finding = VerdictKind.ABORT, _FOUND[metric]
    elif finding is Finding.GATHERING and no_worse >= policy.promote_bound and _fast_enough(state, policy):
        kind, finding = VerdictKind.PROMOTE, Finding.NO_WORSE
    found = Verdict(
        kind=kind,
        finding=finding,
        metric=metric,
        sentence="",
        evidence=parts,
        combined=combined,
        abort_bound=policy.abort_bound,
        no_worse=no_worse,
        promote_bound=policy.promote_bound,
        canary=_share(state.canary),
        stable=_share(state.stable),
        canary_latency=_latency(state.canary_latencies),
        stable_latency=_latency(state.stable_latencies.past),
    )
    return replace(found, sentence=_sentence(found, state, policy))


def may_end_early(found: Verdict, policy: AnalysisPolicy, *, held_s: float) -> bool:
    """Whether a stage that has been held for `held_s` seconds may end before its time."""
    return policy.promote_early and found.kind is VerdictKind.PROMOTE and held_s >= policy.soak_s


def at_hold_end(found: Verdict, policy: AnalysisPolicy) -> LittleEvidence:
    """What to do when a stage's hold time is over and nothing was found: GO_ON if shown no worse."""
    if found.kind is VerdictKind.PROMOTE or not policy.enabled:
        return LittleEvidence.GO_ON
    return policy.on_little_evidence


def _log_value(state: JudgeState, metric: Metric, policy: AnalysisPolicy) -> float:
    bets = judge.bets_of(policy)
    pairs: dict[Metric, tuple[Evidence, _Weighted | None]] = {
        Metric.ERRORS: (state.worse, bets.worse),
        Metric.LATENCY: (state.slower, bets.slower),
        Metric.OVERDUE: (state.overdue, bets.worse),
        Metric.BUSINESS: (state.poorer, bets.poorer),
        Metric.ERROR_LIMIT: (state.over_error_limit, bets.error_limit),
        Metric.LATENCY_LIMIT: (state.over_latency_limit, bets.latency_limit),
    }
    evidence, bet = pairs[metric]
    return 0.0 if bet is None else sequential.log_value(evidence, bet.log_weights, state.plan)


class _Weighted(Protocol):
    @property
    def log_weights(self) -> sequential.Floats: ...


#: Seconds without a look, or without a canary request, that are worth a word.
_QUIET_S: Final = 10.0
#: Canary requests that no test can make much of.
_FEW: Final = 100


def _unfinished(state: JudgeState, policy: AnalysisPolicy) -> Finding:
    """Why there is no verdict yet, or GATHERING if nothing is in the way of one."""
    requests = state.canary.requests + state.waiting.canary.requests
    checks = (
        (not policy.enabled, Finding.OFF),
        (state.blind_s >= _QUIET_S, Finding.BLIND),
        (requests == 0 or state.silent_s >= _QUIET_S, Finding.NO_REQUESTS),
        (state.stable.requests + state.waiting.stable.requests == 0, Finding.NOTHING_TO_COMPARE),
        (requests < _FEW, Finding.FEW_REQUESTS),
        (state.requests_without_latency >= _FEW, Finding.LATENCY_SILENT),
    )
    return next((finding for holds, finding in checks if holds), Finding.GATHERING)


def _fast_enough(state: JudgeState, policy: AnalysisPolicy) -> bool:
    """Whether the canary's latencies lie within the margin, as far as there are any."""
    canary, stable = state.canary_latencies, state.stable_latencies.past
    if not stable:
        return True
    return bool(canary) and all(
        sequential.quantile(canary, part) <= sequential.quantile(stable, part) + policy.latency_margin_buckets
        for part in (0.5, 0.9)
    )


def _latency(cells: sequential.Cells) -> Latency | None:
    if not cells:
        return None
    p50, p99 = (sequential.bucket_edge_s(sequential.quantile(cells, part)) * 1000 for part in (0.5, 0.99))
    return Latency(p50_ms=p50, p99_ms=p99)


#: Of the normal distribution: 95 % lie within.
_Z: Final = 1.96


def _share(seen: Seen) -> Share:
    n = seen.requests
    if n == 0:
        return Share(requests=0, errors=0, low=0.0, high=1.0)
    share, square = min(1.0, seen.errors / n), _Z * _Z
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = _Z / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return Share(requests=n, errors=seen.errors, low=max(0.0, centre - half), high=min(1.0, centre + half))


# --- words -----------------------------------------------------------------------------------------


def _sentence(found: Verdict, state: JudgeState, policy: AnalysisPolicy) -> str:
    if found.kind is VerdictKind.ABORT:
        odds = f"Evidence {words.odds(found.combined)}; {words.odds(found.abort_bound)} aborts."
        return f"{_trouble(found, state, policy)} {odds}"
    if found.kind is VerdictKind.PROMOTE:
        return (
            f"The canary is shown to be no worse: {_errors(found)}. "
            f"Evidence {words.odds(found.no_worse)}; {words.odds(found.promote_bound)} is enough."
        )
    return _waiting(found, state)


def _trouble(found: Verdict, state: JudgeState, policy: AnalysisPolicy) -> str:
    fast, slow = found.stable_latency, found.canary_latency
    if found.metric is Metric.ERRORS:
        return f"The canary fails more requests: {_errors(found)}."
    if found.metric is Metric.OVERDUE:
        return (
            f"The canary leaves requests without an answer: at least {state.canary.overdue} waited for more "
            f"than {state.overdue_s:.3g} s (stable release: at most {state.stable.overdue})."
        )
    if found.metric is Metric.ERROR_LIMIT:
        limit = f"the limit of {100 * (policy.max_error_share or 0):.3g} %"
        return f"The canary fails more requests than {limit} permits: {_errors(found)}."
    if found.metric is Metric.BUSINESS:
        return f"The canary's business metric is below {policy.business_margin:.3g} of the stable release's."
    if found.metric is Metric.LATENCY_LIMIT:
        return f"More than 1 % of the canary's requests take longer than {policy.max_p99_ms:.4g} ms."
    seen = f" {_speeds('canary', slow)}, {_speeds('stable release', fast)}." if slow and fast else ""
    return f"The canary is slower than the stable release.{seen}"


def _speeds(name: str, latency: Latency) -> str:
    return f"{name} median {latency.p50_ms:.3g} ms, 99th percentile {latency.p99_ms:.3g} ms"


def _errors(found: Verdict) -> str:
    return f"{_fails(found.canary)} (stable release: {_fails(found.stable)})"


def _fails(share: Share) -> str:
    if share.requests == 0:
        return "no requests"
    between = words.interval(share.low, share.high)
    return f"{share.errors} of {share.requests} failed, {words.percent(share.value)} ({between})"


def _waiting(found: Verdict, state: JudgeState) -> str:
    requests = state.canary.requests + state.waiting.canary.requests
    return {
        Finding.OFF: "The analysis is switched off.",
        Finding.BLIND: f"The counts could not be read for {state.blind_s:.0f} s.",
        Finding.NO_REQUESTS: "The canary has had no request yet."
        if requests == 0
        else f"The canary has had no request for {state.silent_s:.0f} s.",
        Finding.NOTHING_TO_COMPARE: "The stable release has no requests to compare with.",
        Finding.FEW_REQUESTS: f"The canary has had {words.number(requests, 'request')}, too few to say much.",
        Finding.LATENCY_SILENT: "The canary's latencies are not reported any more.",
    }.get(
        found.finding,
        f"Nothing found so far: {_errors(found)}. Evidence of harm {words.odds(found.combined)}, "
        f"{words.odds(found.abort_bound)} aborts.",
    )

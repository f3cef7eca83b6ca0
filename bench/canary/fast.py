"""The judge's process on errors alone, written out for millions of looks.

Hides nothing that `tidegate.core.judge` would not do: tests/unit/core/test_judge.py holds both to the
same numbers. Latency is not looked at, so its bet keeps the stake that it was given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from bench.canary.streams import Stream
from tidegate.core import sequential
from tidegate.core.policy import AnalysisPolicy, Metric
from tidegate.core.sequential import PLAIN, PairBet, Plan

DEFAULT: Final = AnalysisPolicy()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a rollout went."""

    crossed: bool
    looks: int
    """Until then, or all."""
    requests: int
    """Of the canary, until then."""
    errors: int
    peak: float


def abort(stream: Stream, looks: int, plan: Plan = PLAIN, dt_s: float = 1.0) -> Outcome:
    """Until the combined evidence of all metrics aborts."""
    bet = sequential.worse(margin=DEFAULT.margin, allowance=DEFAULT.allowance)
    # v E + (1 - v) >= 1 / alpha, for E of the errors and the untouched stake of the latency
    part = math.exp(DEFAULT.log_weight(Metric.ERRORS))
    bound = math.log((math.exp(DEFAULT.abort_bound) - (1 - part)) / part)
    return _played(stream, looks, bet, (plan, bound, dt_s))


def abort_on_errors_only(stream: Stream, looks: int) -> Outcome:
    """As `abort`, for a judge that has no other metric."""
    bet = sequential.worse(margin=DEFAULT.margin, allowance=DEFAULT.allowance)
    return _played(stream, looks, bet, (PLAIN, DEFAULT.abort_bound, 1.0))


def promote(stream: Stream, looks: int, plan: Plan = PLAIN) -> Outcome:
    """Until the canary is shown to be no worse."""
    bet = sequential.no_worse(margin=DEFAULT.promote_margin, allowance=DEFAULT.promote_allowance)
    return _played(stream, looks, bet, (plan, DEFAULT.promote_bound, 1.0))


def _played(stream: Stream, looks: int, bet: PairBet, how: tuple[Plan, float, float]) -> Outcome:
    plan, bound, dt_s = how
    cap = math.inf if plan.block_s is None else plan.cap
    settled = [0.0] * len(bet.ratios)
    running = settled.copy()
    age_s, peak, requests, errors, up = 0.0, 0.0, 0, 0, bet.ratios[0] > 1
    for look, (n_c, x_c, n_s, x_s) in zip(range(looks), stream, strict=False):
        requests += n_c
        errors += x_c
        terms = bet.terms(n_c, n_s)
        running = [
            old + x_c * win - x_s * loss - rent
            for old, win, loss, rent in zip(running, terms.wins, terms.losses, terms.rents, strict=True)
        ]
        # A bet on more errors wins by an error of the canary only; one on fewer by each look without one.
        if x_c or not up:
            tops = [(old + min(new, cap)) / plan.phi for old, new in zip(settled, running, strict=True)]
            if max(tops) > peak:
                peak = max(peak, sequential.log_sum(tuple(map(sum, zip(bet.log_weights, tops, strict=True)))))
                if peak >= bound:
                    return Outcome(crossed=True, looks=look + 1, requests=requests, errors=errors, peak=peak)
        age_s += dt_s
        if plan.block_s is not None and age_s >= plan.block_s:
            settled = [old + min(new, cap) for old, new in zip(settled, running, strict=True)]
            running, age_s = [0.0] * len(running), 0.0
    return Outcome(crossed=False, looks=looks, requests=requests, errors=errors, peak=peak)

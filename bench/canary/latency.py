"""Streams with latencies, through the real judge, and whole good rollouts.

Latencies are log-normal (median 50 ms, sigma 0.6) with 0.2 % of requests ten times slower.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from bench.canary import streams
from tidegate.core import judge, sequential, verdicts
from tidegate.core.judge import Counts, JudgeState, Tick
from tidegate.core.policy import AnalysisPolicy
from tidegate.core.sequential import PLAIN, Histogram
from tidegate.core.verdicts import VerdictKind

POLICY: Final = AnalysisPolicy()
_MEDIAN_S: Final = 0.05
_SIGMA: Final = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A distribution over the buckets."""

    buckets: tuple[int, ...]
    sums: tuple[int, ...]

    def draw(self, rng: random.Random, requests: int) -> Histogram:
        drawn = Counter(rng.choices(self.buckets, cum_weights=self.sums, k=requests))
        return Histogram(cells=tuple(sorted(drawn.items())))


@lru_cache(maxsize=16)
def shape(times: float = 1.0) -> Shape:
    """Of a release that is so many times slower."""
    rng = random.Random(7)
    drawn: Counter[int] = Counter()
    for _ in range(300_000):
        slow = 10 if rng.random() < 0.002 else 1
        drawn[sequential.bucket(times * slow * rng.lognormvariate(math.log(_MEDIAN_S), _SIGMA))] += 1
    buckets = tuple(sorted(drawn))
    return Shape(buckets=buckets, sums=tuple(itertools.accumulate(drawn[index] for index in buckets)))


def begun(rng: random.Random, policy: AnalysisPolicy = POLICY) -> JudgeState:
    """Before the rollout, with some of the stable release's past."""
    return judge.started(policy, PLAIN, shape().draw(rng, 20_000))


def look(rng: random.Random, n_c: int, n_s: int, base: float, times: float = 1.0) -> Tick:
    """One look at a canary that is so many times slower."""
    return Tick(
        canary=Counts(
            requests=n_c, errors=streams.errors(rng, n_c, base), latencies=shape(times).draw(rng, n_c)
        ),
        stable=Counts(requests=n_s, errors=streams.errors(rng, n_s, base), latencies=shape().draw(rng, n_s)),
    )


def to_abort(rng: random.Random, times: float, canary_per_s: int) -> tuple[int, int] | None:
    """Canary requests until the abort: since the warm-up ended, and since the start."""
    state, at_warm, n_s = begun(rng), 0, canary_per_s * streams.STABLE_PER_CANARY
    for _ in range(3600):
        warm = state.served_s + 1 > POLICY.warmup_s
        at_warm = at_warm if warm else state.canary.requests + canary_per_s
        state = judge.judged(state, look(rng, canary_per_s, n_s, 0.001, times), POLICY, 1.0)
        if verdicts.verdict(state, POLICY).kind is VerdictKind.ABORT:
            return state.canary.requests - at_warm, state.canary.requests
    return None


def aborted(rng: random.Random, seconds: int, *, times: float = 1.0, slowdowns: bool = False) -> bool:
    """Whether an hour at 10 canary requests a second ends so; slowdowns hit both releases alike."""
    state, until, slow = begun(rng), 0, 1.0
    for second in range(seconds):
        if slowdowns and second >= until:
            slow = 1.0
            if rng.random() < 6 / 3600:
                until, slow = second + rng.randint(10, 120), rng.choice((1.5, 3.0))
        tick = look(rng, 10, 190, 0.001, times)
        if slow != 1.0 and tick.stable is not None:
            tick = look(rng, 10, 190, 0.001, slow * times)
            stable = replace(tick.stable or Counts(), latencies=shape(slow).draw(rng, 190))
            tick = replace(tick, stable=stable)
        state = judge.judged(state, tick, POLICY, 1.0)
        if verdicts.verdict(state, POLICY).kind is VerdictKind.ABORT:
            return True
    return False


def promoted(rng: random.Random, hold_s: int = 120, per_s: int = 100) -> bool:
    """Whether a good release passes 1, 5, 25 and 50 %, at 100 requests a second in all and 0.1 % errors."""
    state = begun(rng)
    for exposure in (0.01, 0.05, 0.25, 0.5):
        for _ in range(hold_s):
            n_c = sum(rng.random() < exposure for _ in range(per_s))
            state = judge.judged(state, look(rng, n_c, per_s - n_c, 0.001), POLICY, 1.0)
            if verdicts.verdict(state, POLICY).kind is VerdictKind.ABORT:
                return False
    return True


def errors_needed(exposure: float) -> int:
    """Failed requests of one look that abort if the stable release has none at all."""
    total = 1_000
    for failures in range(1, 50):
        state = judge.started(POLICY, PLAIN, Histogram())
        n_c = round(total * exposure)
        tick = Tick(
            canary=Counts(requests=n_c, errors=min(failures, n_c)), stable=Counts(requests=total - n_c)
        )
        state = judge.judged(state, tick, POLICY, 1.0)
        if verdicts.verdict(state, POLICY).kind is VerdictKind.ABORT:
            return failures
    return 0

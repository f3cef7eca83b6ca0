"""Requests and errors per second of a canary and a stable release, seeded.

Hides how counts are drawn. A stream is an endless iterator of `(n_c, x_c, n_s, x_s)`, one per look.
Neighbours: `trials` says which streams, `fast` and `rivals` judge them.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

Look = tuple[int, int, int, int]
Stream = Iterator[Look]

#: Stable requests per canary request at 5 % exposure.
STABLE_PER_CANARY: Final = 19
CANARY_PER_S: Final = 100

_KNUTH_MAX: Final = 12.0
_EXACT_MAX: Final = 2_000
#: Above this share a Poisson number is not close enough to a binomial one.
_RARE: Final = 0.05


def poisson(rng: random.Random, mean: float) -> int:
    """Multiplication for small means (Knuth), transformed rejection for large ones (Hörmann 1993)."""
    if mean < _KNUTH_MAX:
        limit, count, product = math.exp(-mean), 0, rng.random()
        while product > limit:
            product *= rng.random()
            count += 1
        return count
    b = 0.931 + 2.53 * math.sqrt(mean)
    a = -0.059 + 0.02483 * b
    inverse, edge = 1.1239 + 1.1328 / (b - 3.4), 0.9277 - 3.6224 / (b - 2)
    while True:
        u, v = rng.random() - 0.5, rng.random()
        us = 0.5 - abs(u)
        count = math.floor((2 * a / us + b) * u + mean + 0.43)
        if us >= 0.07 and v <= edge:
            return count
        if count < 0 or (us < 0.013 and v > us):
            continue
        accepted = math.log(v * inverse / (a / (us * us) + b))
        if accepted <= count * math.log(mean) - mean - math.lgamma(count + 1):
            return count


def errors(rng: random.Random, requests: int, share: float) -> int:
    """Errors among so many independent requests."""
    if share > _RARE or requests < 1 / _RARE:
        if requests > _EXACT_MAX:
            spread = math.sqrt(requests * share * (1 - share))
            return min(requests, max(0, round(rng.gauss(requests * share, spread))))
        return sum(rng.random() < share for _ in range(requests))
    return min(requests, poisson(rng, requests * share))


def steady(rng: random.Random, canary: float, stable: float, per_look: int) -> Stream:
    """Constant shares of errors at 5 % exposure."""
    while True:
        n_s = per_look * STABLE_PER_CANARY
        yield per_look, errors(rng, per_look, canary), n_s, errors(rng, n_s, stable)


def ramp(rng: random.Random, base: float, quality: float = 1.0) -> Stream:
    """1, 5, 25, 50 % for a quarter of an hour each, while the share of errors drifts to 3 times as much."""
    total, second = CANARY_PER_S * (1 + STABLE_PER_CANARY), 0
    phase = rng.uniform(0, 2 * math.pi)
    while True:
        exposure = (0.01, 0.05, 0.25, 0.5)[min(3, second // 900)]
        share = base * (1 + 2 * second / 3600) * (1 + 0.4 * math.sin(phase + second / 300))
        n_c = round(total * exposure)
        yield n_c, errors(rng, n_c, share * quality), total - n_c, errors(rng, total - n_c, share)
        second += 1


def outages(rng: random.Random, base: float, quality: float = 1.0) -> Stream:
    """About four outages an hour that hit both releases alike, 10 to 60 s, 5 to 40 % errors; with drift."""
    second, until, share_out = 0, 0, 0.0
    n_s = CANARY_PER_S * STABLE_PER_CANARY
    while True:
        if second >= until and rng.random() < 4 / 3600:
            until, share_out = second + rng.randint(10, 60), rng.uniform(0.05, 0.4)
        drift = base * (1 + second / 3600)
        share = share_out if second < until else drift
        yield (
            CANARY_PER_S,
            errors(rng, CANARY_PER_S, min(1.0, share * quality)),
            n_s,
            errors(rng, n_s, share),
        )
        second += 1


@dataclass(slots=True)
class Bursts:
    """Errors of single users: a burst has 5 on average (geometric), spread over ten seconds."""

    rng: random.Random
    per_s: float
    second: int = 0
    ahead: list[int] = field(default_factory=lambda: [0] * 10)
    """Errors to come, per second of the next ten."""

    def __next__(self) -> int:
        for _ in range(poisson(self.rng, self.per_s / 5)):
            size = 1 + int(math.log(1 - self.rng.random()) / math.log(0.8))
            for _ in range(size):
                self.ahead[(self.second + self.rng.randrange(10)) % 10] += 1
        at = self.second % 10
        found, self.ahead[at] = self.ahead[at], 0
        self.second += 1
        return found


def bursts(rng: random.Random, base: float, quality: float = 1.0) -> Stream:
    """All errors come in bursts of one user."""
    n_s = CANARY_PER_S * STABLE_PER_CANARY
    canary, stable = Bursts(rng, CANARY_PER_S * base * quality), Bursts(rng, n_s * base)
    while True:
        yield CANARY_PER_S, min(next(canary), CANARY_PER_S), n_s, next(stable)


@dataclass(slots=True)
class Instance:
    """One instance: once in two hours, for 8 s on average, it fails 30 % of its requests."""

    rng: random.Random
    until: int = 0
    second: int = 0

    def share(self, base: float) -> float:
        """Of errors in the next second."""
        if self.second >= self.until and self.rng.random() < 1 / 7200:
            self.until = self.second + 1 + int(self.rng.expovariate(1 / 8))
        self.second += 1
        return 0.3 if self.second <= self.until else base


def incidents(rng: random.Random, base: float, quality: float = 1.0) -> Stream:
    """The canary is one of twenty instances."""
    canary = Instance(rng)
    others = [Instance(rng) for _ in range(STABLE_PER_CANARY)]
    n_s = CANARY_PER_S * STABLE_PER_CANARY
    while True:
        share = max(canary.share(base), base * quality)
        failing = sum(other.share(0.0) > 0 for other in others)
        x_s = errors(rng, n_s - failing * CANARY_PER_S, base) + errors(rng, failing * CANARY_PER_S, 0.3)
        yield CANARY_PER_S, errors(rng, CANARY_PER_S, share), n_s, x_s


def equal(rng: random.Random, base: float, quality: float = 1.0) -> Stream:
    """Nothing happens."""
    return steady(rng, base * quality, base, CANARY_PER_S)


def harmless(rng: random.Random, base: float, quality: float = 1.0) -> Stream:
    """The canary has 2 % more errors, which is within the margin."""
    return steady(rng, base * quality * 1.02, base, CANARY_PER_S)


Scenario = Callable[..., Stream]

#: The acceptance list's kinds of good rollouts. With how many shards a day of noise is replayed before.
NULLS: Final[dict[str, Scenario]] = {
    "equal": equal,
    "harmless x1.02": harmless,
    "ramp 1-5-25-50 %, drift": ramp,
    "shared outages": outages,
    "user bursts": bursts,
    "single-instance incidents": incidents,
}


def day(scenario: str, rng: random.Random, base: float, seconds: int) -> tuple[list[list[int]], int]:
    """Errors per shard and second of a stable release with that scenario's noise, and requests per shard."""
    shards = STABLE_PER_CANARY + 1
    if scenario == "user bursts":
        found = []
        for _ in range(shards):
            one = Bursts(rng, CANARY_PER_S * base)
            found.append([min(next(one), CANARY_PER_S) for _ in range(seconds)])
        return found, CANARY_PER_S
    if scenario == "single-instance incidents":
        found = []
        for _ in range(shards):
            instance = Instance(rng)
            found.append([errors(rng, CANARY_PER_S, instance.share(base)) for _ in range(seconds)])
        return found, CANARY_PER_S
    stream = NULLS["shared outages" if scenario == "shared outages" else "equal"](rng, base)
    rows: list[list[int]] = [[] for _ in range(shards)]
    for _, (_, first, _, rest) in zip(range(seconds), stream, strict=False):
        counts = [first] + [0] * STABLE_PER_CANARY
        for _ in range(rest):
            counts[1 + rng.randrange(STABLE_PER_CANARY)] += 1
        for row, count in zip(rows, counts, strict=True):
            row.append(min(count, CANARY_PER_S))
    return rows, CANARY_PER_S

"""Anytime-valid tests of a canary against the stable release: evidence that may be looked at all the time.

Hides the mathematics; `judge` combines the metrics and knows the policy. Everything is a value: a test's
evidence is committed with its rollout and never reset between stages.

Theory of operation
-------------------
A *bet* is a non-negative process E with E = 1 at the start and conditional mean at most 1 in every tick if
the null hypothesis is true. Ville's inequality (1939) then gives P(E ever reaches 1/alpha) <= alpha, for
every number of looks, every ramp of the exposure (also one that follows the data), and error rates that
drift or jump in both releases together. A weighted average of bets is a bet; so is the smaller of a bet and
a constant, and a bet to the power 1/phi with phi >= 1 (Jensen). Logarithms are natural throughout.

*Pair bet* (rare events). H0: p_c <= r p_s + d in every tick, where p_c and p_s are the error probabilities of
canary and stable. For a ratio g, with n_c, x_c, n_s, x_s the requests and errors that finished in the tick:

    D  = log((r g n_c + n_s) / (r n_c + n_s)),   a = g exp(-D),   b = exp(-D)
    log E += x_c log g - (x_c + x_s) D - d n_c (a - 1)

Proof: r n_c (a - 1) = n_s (1 - b). Requests are independent given the tick's rates, so
E[a^x_c b^x_s] <= exp(n_c p_c (a - 1) - n_s p_s (1 - b)) <= exp(d n_c (a - 1)) under H0. With g < 1 the same
formula bets against H0: p_c >= r p_s + d, which is how a release is shown to be no worse. After Lindon and
Malek (NeurIPS 2022, arXiv 2011.03567), conditioned per tick so that the share may change.

*Order bet* (latency). H0: the canary's latency, divided by 1 + m, is stochastically not larger than the
stable one's. With u the rank in the stable release's past, L(u) non-decreasing with mean 1 for uniform u,
and w = n_c / (n_c + n_s) of the tick:  C = 1/(w L + 1 - w), A = L C;  log E += sum_c log A + sum_s log C.
Valid because n_c A + n_s C = n for every u, the geometric mean is not above the arithmetic one, and A is
monotone. L need not have mean 1 for that, so a rough past costs power, not validity. A canary request of a
bucket with lower edge e stands for a stable one of at least e / (1 + m): it gets the rank of the bucket that
holds e / (1 + m). A source of latencies may be coarser than `BUCKETS` if its edges are among these edges
and both releases are reported alike, at the lower edge: a place where the past holds nothing has the rank
of the last bucket before it that holds something, so the comparison stays on the safe side.

*Mean bet* (business metrics in [0, 1]). H0: mean_c >= r mean_s. With y = 1 - value, k = n_c / n_s and
centres q from the past only:  log E += sum_c log(1 + lam (y - q_c)) + sum_s log(1 - lam r k (y - q_s)).
After Waudby-Smith and Ramdas (JRSS-B 2024, arXiv 2010.09686), Shekhar and Ramdas (arXiv 2309.09111).

*Limit bet* (absolute limits). H0: the canary's share p_c <= p0 in every tick. For an alternative q > p0:
log E += x log(q / p0) + (n - x) log((1 - q) / (1 - p0)), whose factor per request has mean at most 1.

What limits it: errors of one request are taken as independent of the next. Bursts of one user or one
instance are not; a `Plan`, chosen by replaying the stable release against itself, tempers or caps them.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

Floats = tuple[float, ...]
Counted = tuple[tuple[int, int], ...]
"""`(bucket, requests)`, sorted."""
Cells = tuple[tuple[int, float], ...]
"""`(bucket, weight)`, sorted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much one stretch of evidence may count. The default trusts that requests are independent."""

    phi: float = 1.0
    """Evidence is divided by it: variance of bursts, >= 1."""
    block_s: float | None = None
    """Length of the blocks whose evidence is capped; None: no cap."""
    cap: float = 1.5
    """Most evidence, in nats, that one block may give a single bet: about four blocks make an abort."""


PLAIN: Final = Plan()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Log evidence of each bet of one test: what is committed."""

    settled: Floats
    """Of the blocks that have ended."""
    block: Floats
    """Of the block that runs."""
    block_age_s: float = 0.0

    @classmethod
    def nothing(cls, bets: int) -> Evidence:
        """Before the first tick."""
        return cls(settled=(0.0,) * bets, block=(0.0,) * bets)


def added(evidence: Evidence, gains: Floats, *, dt_s: float, plan: Plan) -> Evidence:
    """The evidence after a tick of `dt_s` seconds with these log gains per bet."""
    block = tuple(old + gain for old, gain in zip(evidence.block, gains, strict=True))
    age_s = evidence.block_age_s + dt_s
    if plan.block_s is not None and age_s < plan.block_s:
        return replace(evidence, block=block, block_age_s=age_s)
    capped = block if plan.block_s is None else tuple(min(value, plan.cap) for value in block)
    settled = tuple(old + value for old, value in zip(evidence.settled, capped, strict=True))
    return Evidence(settled=settled, block=(0.0,) * len(settled))


def log_value(evidence: Evidence, log_weights: Floats, plan: Plan) -> float:
    """Log of the weighted average of the bets, now."""
    cap = math.inf if plan.block_s is None else plan.cap
    return log_sum(
        tuple(
            weight + (old + min(new, cap)) / plan.phi
            for weight, old, new in zip(log_weights, evidence.settled, evidence.block, strict=True)
        )
    )


def log_sum(values: Floats) -> float:
    """log(sum(exp(value))), without overflow."""
    top = max(values)
    if top == -math.inf:
        return top
    return top + math.log(math.fsum(math.exp(value - top) for value in values))


def _normalised_log(weights: Floats) -> Floats:
    total = math.fsum(weights)
    return tuple(math.log(weight / total) for weight in weights)


# --- pair bet --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class PairBet:
    """A test on rare events; `ratios` above 1 look for more of them, below 1 for fewer."""

    ratios: Floats
    log_weights: Floats
    margin: float
    """r: a canary with this many times the stable share of errors is still good."""
    allowance: float
    """d: and so is one with this share of errors more."""

    def gains(self, counts: PairCounts) -> Floats:
        """Log gains of one tick, per ratio. More events than requests count as that many requests."""
        n_c, n_s = counts.canary_requests, counts.stable_requests
        x_c, x_s = min(counts.canary_events, n_c), min(counts.stable_events, n_s)
        if n_c <= 0 or n_s <= 0 or (self.allowance == 0 and x_c == 0 and x_s == 0):
            return (0.0,) * len(self.ratios)
        terms = self.terms(n_c, n_s)
        return tuple(
            x_c * win - x_s * loss - rent
            for win, loss, rent in zip(terms.wins, terms.losses, terms.rents, strict=True)
        )

    def terms(self, canary_requests: int, stable_requests: int) -> PairTerms:
        """What a tick with so many requests pays and costs, whatever its outcome. Both are above 0."""
        return _pair_terms(self.ratios, self.margin, self.allowance, (canary_requests, stable_requests))


@dataclass(frozen=True, slots=True, kw_only=True)
class PairTerms:
    """Log gains of one tick, per ratio, before its outcome is known."""

    wins: Floats
    """Of an event in the canary: log a."""
    losses: Floats
    """Taken by an event in the stable release: -log b."""
    rents: Floats
    """Taken by the tick itself, because the allowance permits that many events."""


@lru_cache(maxsize=4096)
def _pair_terms(ratios: Floats, margin: float, allowance: float, requests: tuple[int, int]) -> PairTerms:
    n_c, n_s = requests
    base = margin * n_c + n_s
    shared = tuple(math.log((margin * ratio * n_c + n_s) / base) for ratio in ratios)
    wins = tuple(math.log(ratio) - loss for ratio, loss in zip(ratios, shared, strict=True))
    rents = tuple(allowance * n_c * math.expm1(win) for win in wins)
    return PairTerms(wins=wins, losses=shared, rents=rents)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairCounts:
    """Requests that finished in a tick, and how many of them were events (errors, time-outs, …)."""

    canary_requests: int
    canary_events: float
    stable_requests: int
    stable_events: float


#: Small regressions are likelier than total failures; the last ratio is for both "a third" and "all" of the
#: requests. Weights were fitted on half of the simulated runs of bench/canary, judged on the other half, and
#: held to: 2, 3, 5, 10 errors abort at 1, 5, 25, 50 % exposure if the stable release has none.
_WORSE_RATIOS: Final = (1.4, 1.8, 2.4, 3.5, 6.0, 12.0, 100.0)
_WORSE_WEIGHTS: Final = (1.0, 4.0, 3.5, 2.5, 2.0, 1.0, 2.5)
_BETTER_RATIOS: Final = (0.03, 0.15, 0.3, 0.45, 0.6, 0.75, 0.87)


def worse(*, margin: float, allowance: float) -> PairBet:
    """Against H0: the canary has at most `margin` times the stable share, plus `allowance`."""
    return PairBet(
        ratios=_WORSE_RATIOS,
        log_weights=_normalised_log(_WORSE_WEIGHTS),
        margin=margin,
        allowance=allowance,
    )


def no_worse(*, margin: float, allowance: float) -> PairBet:
    """Against H0: the canary has at least `margin` times the stable share, plus `allowance`: to promote."""
    return PairBet(
        ratios=_BETTER_RATIOS,
        log_weights=_normalised_log((1.0,) * len(_BETTER_RATIOS)),
        margin=margin,
        allowance=allowance,
    )


# --- order bet -------------------------------------------------------------------------------------

#: Latency buckets: each 1.05 times the one before, from half a millisecond; the last is open.
BUCKET_RATIO: Final = 1.05
BUCKETS: Final = 256
FIRST_EDGE_S: Final = 0.0005
#: The stable release's past is forgotten with this half-life, and taken over in steps.
HALF_LIFE_S: Final = 120.0
REFRESH_S: Final = 5.0

_LOCATION_STEEPNESS: Final = (0.4, 0.8, 1.5, 2.8, 5.0, 9.0)
_LOCATION_WEIGHTS: Final = (0.03, 0.06, 0.11, 0.13, 0.11, 0.06)
#: Quantile -> how many times as likely the canary exceeds it, and the weight of the group.
_TAILS: Final = (
    (0.9, (1.4, 2.2, 4.0, 8.0), 0.16),
    (0.99, (1.6, 3.0, 8.0, 30.0), 0.22),
    (0.999, (3.0, 10.0, 60.0), 0.12),
)
_TAIL_SHARE_MAX: Final = 0.97


def bucket(latency_s: float) -> int:
    """Index of the bucket that a latency falls into, 0 to BUCKETS - 1."""
    if latency_s < FIRST_EDGE_S:
        return 0
    return min(BUCKETS - 1, 1 + int(math.log(latency_s / FIRST_EDGE_S) / math.log(BUCKET_RATIO)))


def bucket_edge_s(index: int) -> float:
    """Lower edge of a bucket."""
    return 0.0 if index == 0 else FIRST_EDGE_S * BUCKET_RATIO ** (index - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """Latencies of a tick: `(bucket, requests)`, sorted, without empty buckets."""

    cells: Counted = ()

    @property
    def total(self) -> int:
        return _number(self.cells)


NOTHING: Final = Histogram()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The stable release's latencies so far, forgotten slowly; `fresh` is not used before a refresh.

    Sparse and rounded, because it is committed with its rollout. Any past is a valid past.
    """

    past: Cells = ()
    """`(bucket, weight)`, sorted; the weights are relative."""
    fresh: Cells = ()
    age_s: float = 0.0

    def after(self, stable: Histogram, *, dt_s: float) -> Reference:
        """The reference after a tick: what was bet on in it is used only afterwards."""
        fresh = _compact(_sum(self.fresh, stable.cells, keep=1.0))
        age_s = self.age_s + dt_s
        if age_s < REFRESH_S and self.past:
            return Reference(past=self.past, fresh=fresh, age_s=age_s)
        return Reference(past=faded(self.past, fresh, dt_s=age_s))

    def ranks(self) -> Floats | None:
        """Mid-rank of each bucket among the past, within (0, 1); None before there is a past."""
        return _ranks(self.past) if self.past else None


#: A past of more cells is made coarser, so that it stays below 2.4 kB as JSON. Only a source that uses
#: neighbouring edges has as many, and for that one every monotone rank is valid.
REFERENCE_CELLS: Final = 160
#: Of a total weight: less is forgotten.
_FORGOTTEN: Final = 1e-6
_DIGITS: Final = 5


def quantile(cells: Cells, part: float) -> int:
    """Bucket that holds it."""
    left = part * math.fsum(weight for _, weight in cells)
    for index, weight in cells:
        left -= weight
        if left <= 0:
            return index
    return cells[-1][0]


def faded(past: Cells, new: Cells, *, dt_s: float) -> Cells:
    """The past after `dt_s` seconds in which these came: it loses half of its weight per half-life."""
    return _compact(_sum(past, new, keep=0.5 ** (dt_s / HALF_LIFE_S)))


def _sum(old: Cells, new: Cells, *, keep: float) -> Cells:
    cells = {index: weight * keep for index, weight in old}
    for index, weight in new:
        cells[index] = cells.get(index, 0.0) + weight
    return tuple(sorted(cells.items()))


def _compact(cells: Cells) -> Cells:
    """Without dust, with five digits, and in wider buckets if there are many."""
    total = math.fsum(weight for _, weight in cells)
    kept = tuple((index, weight) for index, weight in cells if weight > _FORGOTTEN * total)
    width = 1
    while len(kept) > REFERENCE_CELLS:
        width *= 2
        kept = _sum((), _widened(kept, width), keep=1.0)
    return tuple((index, float(f"{weight:.{_DIGITS}g}")) for index, weight in kept)


def _widened(cells: Cells, width: int) -> Cells:
    wide: dict[int, float] = {}
    for index, weight in cells:
        lower = index - index % width
        wide[lower] = wide.get(lower, 0.0) + weight
    return tuple(wide.items())


@lru_cache(maxsize=16)
def _ranks(past: Cells) -> Floats:
    """Where the past holds nothing, the rank is that of the last bucket before it that holds something."""
    weights = dict(past)
    total = math.fsum(weights.values())
    ranks, below, rank = [], 0.0, 0.0
    for index in range(BUCKETS):
        weight = weights.get(index)
        if weight is not None:
            rank = (below + weight / 2) / total
            below += weight
        ranks.append(rank)
    return tuple(ranks)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderBet:
    """A test on latency."""

    margin_buckets: int
    """m, in buckets: 2 are 10.25 %."""

    @property
    def log_weights(self) -> Floats:
        return _ORDER_LOG_WEIGHTS

    def gains(self, canary: Histogram, stable: Histogram, reference: Reference) -> Floats:
        """Log gains of one tick, per bet; nothing is won or lost before there is a past or a comparison."""
        n_c, n_s = canary.total, stable.total
        if not reference.past or n_c == 0 or n_s == 0:
            return (0.0,) * len(_ORDER_LOG_WEIGHTS)
        scores = _scores(reference.past)
        share = n_c / (n_c + n_s)
        shifted = tuple((max(0, index - self.margin_buckets), count) for index, count in canary.cells)
        return _location_gains(scores, shifted, stable.cells, share) + _tail_gains(
            scores, shifted, stable.cells, share
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scores:
    """What the past says of each bucket."""

    locations: tuple[Floats, ...]
    """L of the location bets, per bucket."""
    cuts: tuple[int, ...]
    """Per quantile of the tail bets, the first bucket above it."""


@lru_cache(maxsize=16)
def _scores(past: Cells) -> _Scores:
    ranks = _ranks(past)
    known: dict[float, Floats] = {rank: _locations(rank) for rank in dict.fromkeys(ranks)}
    return _Scores(
        locations=tuple(known[rank] for rank in ranks),
        cuts=tuple(bisect_right(ranks, quantile) for quantile, _, _ in _TAILS),
    )


def _locations(rank: float) -> Floats:
    """L(u) of the location bets: it grows with the rank."""
    return tuple(math.exp(d * rank) * d / math.expm1(d) for d in _LOCATION_STEEPNESS)


def _location_gains(scores: _Scores, canary: Counted, stable: Counted, share: float) -> Floats:
    rest = 1 - share
    gains = [0.0] * len(_LOCATION_STEEPNESS)
    for index, count in canary:
        for bet, likelihood in enumerate(scores.locations[index]):
            gains[bet] += count * math.log(likelihood / (share * likelihood + rest))
    for index, count in stable:
        for bet, likelihood in enumerate(scores.locations[index]):
            gains[bet] -= count * math.log(share * likelihood + rest)
    return tuple(gains)


def _tail_gains(scores: _Scores, canary: Counted, stable: Counted, share: float) -> Floats:
    """L is one number above the quantile and a smaller one below: only how many are above matters."""
    gains = []
    n_c, n_s = _number(canary), _number(stable)
    for cut, (quantile, ratios, _) in zip(scores.cuts, _TAILS, strict=True):
        x_c = _number(canary, cut)
        x_s = _number(stable, cut)
        for ratio in ratios:
            above = min(_TAIL_SHARE_MAX, ratio * (1 - quantile))
            high, low = above / (1 - quantile), (1 - above) / quantile
            log_high, log_low = math.log(share * high + 1 - share), math.log(share * low + 1 - share)
            won = x_c * math.log(high) + (n_c - x_c) * math.log(low)
            gains.append(won - (x_c + x_s) * log_high - (n_c - x_c + n_s - x_s) * log_low)
    return tuple(gains)


def _number(cells: Counted, first: int = 0) -> int:
    """Requests in this bucket and those above it."""
    return sum(count for index, count in cells if index >= first)


_ORDER_LOG_WEIGHTS: Final = _normalised_log(
    (
        *_LOCATION_WEIGHTS,
        *(weight / len(ratios) for _, ratios, weight in _TAILS for _ in ratios),
    )
)


# --- limit bet -------------------------------------------------------------------------------------

#: How many times the odds of the limit.
_LIMIT_ODDS: Final = (1.3, 1.7, 2.5, 5.0, 20.0, 400.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitBet:
    """A test on an absolute limit of the canary's share of events."""

    limit: float
    """p0, above 0 and below 1."""

    @property
    def log_weights(self) -> Floats:
        return _normalised_log((1.0,) * len(_LIMIT_ODDS))

    def gains(self, requests: int, events: int) -> Floats:
        """Log gains of one tick, per alternative."""
        hits = min(events, requests)
        kept = 1 - self.limit
        # With odds o times those of the limit, q = o p0 / (1 - p0 + o p0).
        scales = tuple(math.log(kept + odds * self.limit) for odds in _LIMIT_ODDS)
        return tuple(
            hits * math.log(odds) - requests * scale for odds, scale in zip(_LIMIT_ODDS, scales, strict=True)
        )


# --- mean bet --------------------------------------------------------------------------------------

_MEAN_SHIFTS: Final = (0.03, 0.06, 0.12, 0.25, 0.5, 1.0, 3.0)
#: Each factor stays at least this far above zero.
_MEAN_FLOOR: Final = 0.05
#: How fast the centre follows the stable release, per second.
_MEAN_FOLLOW: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Values in [0, 1] of a tick, as far as the bets need them: `(value, requests)`."""

    cells: tuple[tuple[float, int], ...] = ()

    @property
    def total(self) -> int:
        return sum(count for _, count in self.cells)

    @property
    def mean(self) -> float:
        """Of the values; 0 if there are none."""
        return math.fsum(value * count for value, count in self.cells) / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanBet:
    """A test on a metric that must not fall."""

    margin: float
    """r: a canary with this share of the stable mean is still good."""

    @property
    def log_weights(self) -> Floats:
        return _normalised_log((1.0,) * len(_MEAN_SHIFTS))

    def gains(self, canary: Sample, stable: Sample, centre: float | None) -> Floats:
        """Log gains of one tick. `centre`: the stable release's mean in the past; None: nothing is bet."""
        n_c, n_s = canary.total, stable.total
        if centre is None or n_c == 0 or n_s == 0:
            return (0.0,) * len(_MEAN_SHIFTS)
        loss_s = 1 - min(max(centre, 1e-6), 1 - 1e-6)
        loss_c = self.margin * loss_s + 1 - self.margin
        weight = self.margin * n_c / n_s
        return tuple(
            math.fsum(count * math.log1p(lam * (1 - value - loss_c)) for value, count in canary.cells)
            + math.fsum(
                count * math.log1p(-lam * weight * (1 - value - loss_s)) for value, count in stable.cells
            )
            for lam in (_stake(shift, loss_c, loss_s, weight) for shift in _MEAN_SHIFTS)
        )


def _stake(shift: float, loss_c: float, loss_s: float, weight: float) -> float:
    """Stake for an alternative with exp(shift) times the odds of loss, small enough for any outcome."""
    odds = loss_c / (1 - loss_c) * math.exp(shift)
    alternative = odds / (1 + odds)
    stake = (alternative - loss_c) / (loss_c * (1 - loss_c))
    return min(stake, (1 - _MEAN_FLOOR) / loss_c, (1 - _MEAN_FLOOR) / (weight * (1 - loss_s)))


def followed(centre: float | None, stable: Sample, *, dt_s: float) -> float | None:
    """The centre after a tick."""
    if stable.total == 0:
        return centre
    if centre is None:
        return stable.mean
    follow: float = 1 - (1 - _MEAN_FOLLOW) ** dt_s
    return centre + follow * (stable.mean - centre)

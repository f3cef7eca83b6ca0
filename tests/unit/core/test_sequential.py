"""The bets: each has mean at most 1 under its null hypothesis, computed exactly, and wins where it should."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import pytest

from tidegate.core import sequential
from tidegate.core.sequential import (
    PLAIN,
    Evidence,
    Histogram,
    LimitBet,
    MeanBet,
    OrderBet,
    PairBet,
    PairCounts,
    Plan,
    Reference,
    Sample,
)

WORSE = sequential.worse(margin=1.10, allowance=2e-5)
NO_WORSE = sequential.no_worse(margin=1.5, allowance=5e-4)
LEVEL = math.log(100)


def counts(n_c: int, x_c: float, n_s: int, x_s: float) -> PairCounts:
    return PairCounts(canary_requests=n_c, canary_events=x_c, stable_requests=n_s, stable_events=x_s)


def binomial(n: int, p: float) -> Iterator[tuple[int, float]]:
    for k in range(n + 1):
        yield k, math.comb(n, k) * p**k * (1 - p) ** (n - k)


def pair_means(bet: PairBet, n_c: int, p_c: float, n_s: int, p_s: float) -> list[float]:
    """Mean factor of one tick per ratio, summed over every outcome."""
    means = [0.0] * len(bet.ratios)
    for (x_c, chance_c), (x_s, chance_s) in itertools.product(binomial(n_c, p_c), binomial(n_s, p_s)):
        for at, gain in enumerate(bet.gains(counts(n_c, x_c, n_s, x_s))):
            means[at] += chance_c * chance_s * math.exp(gain)
    return means


@pytest.mark.parametrize(("n_c", "n_s"), [(1, 1), (1, 9), (4, 2), (6, 12)])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.2, 0.6])
def test_a_canary_at_the_margin_gains_nothing_on_average(n_c: int, n_s: int, share: float) -> None:
    """Under the null hypothesis the mean factor of each bet is at most 1."""
    assert max(pair_means(WORSE, n_c, 1.10 * share + 2e-5, n_s, share)) <= 1 + 1e-9
    assert max(pair_means(NO_WORSE, n_c, 1.5 * share + 5e-4, n_s, share)) <= 1 + 1e-9


def test_a_worse_canary_gains_on_average() -> None:
    """With three times the stable share the logarithm of some factor grows."""
    growth = [0.0] * len(WORSE.ratios)
    for (x_c, chance_c), (x_s, chance_s) in itertools.product(binomial(10, 0.15), binomial(20, 0.05)):
        for at, gain in enumerate(WORSE.gains(counts(10, x_c, 20, x_s))):
            growth[at] += chance_c * chance_s * gain
    assert max(growth) > 0.05


@pytest.mark.parametrize(
    ("n_c", "n_s", "needed"), [(10, 990, 2), (50, 950, 3), (250, 750, 5), (500, 500, 10)]
)
def test_few_errors_abort_when_the_stable_release_has_none(n_c: int, n_s: int, needed: int) -> None:
    """With no stable errors 2, 3, 5, 10 canary errors cross 1 % at 1, 5, 25, 50 % exposure, and no fewer."""

    def value(errors: int) -> float:
        gains = WORSE.gains(counts(n_c, errors, n_s, 0))
        evidence = sequential.added(Evidence.nothing(len(gains)), gains, dt_s=1.0, plan=PLAIN)
        return sequential.log_value(evidence, WORSE.log_weights, PLAIN)

    assert value(needed - 1) < LEVEL <= value(needed)


@pytest.mark.parametrize("tick", [(0, 0, 100, 3), (0, 3, 100, 0), (10, 10, 0, 0), (10, 10, 0, 5)])
def test_where_there_is_nothing_to_compare_nothing_is_won_or_lost(tick: tuple[int, int, int, int]) -> None:
    """A tick without requests on one side leaves the evidence alone, whatever its errors."""
    assert set(WORSE.gains(counts(*tick))) == {0.0}


def test_more_errors_than_requests_count_as_that_many_requests() -> None:
    """Counters read at slightly different moments make no evidence of more than all requests."""
    assert WORSE.gains(counts(5, 9, 95, 200)) == WORSE.gains(counts(5, 5, 95, 95))


# --- evidence --------------------------------------------------------------------------------------


def test_the_capped_evidence_of_a_block_is_all_that_it_gives() -> None:
    """Ten nats within one block count as the cap, also while it runs, and a second block adds again."""
    plan = Plan(block_s=10.0, cap=1.5)
    one = Evidence.nothing(1)
    for _ in range(5):
        one = sequential.added(one, (2.0,), dt_s=1.0, plan=plan)
    assert sequential.log_value(one, (0.0,), plan) == pytest.approx(1.5)
    for _ in range(10):
        one = sequential.added(one, (2.0,), dt_s=1.0, plan=plan)
    assert sequential.log_value(one, (0.0,), plan) == pytest.approx(3.0)


def test_a_cap_does_not_soften_losses() -> None:
    """Only gains are capped: a block that loses loses in full."""
    plan = Plan(block_s=2.0)
    lost = sequential.added(Evidence.nothing(1), (-7.0,), dt_s=2.0, plan=plan)
    assert sequential.log_value(lost, (0.0,), plan) == pytest.approx(-7.0)


def test_tempered_evidence_is_divided() -> None:
    """Phi 4 turns eight nats into two."""
    plan = Plan(phi=4.0)
    one = sequential.added(Evidence.nothing(1), (8.0,), dt_s=1.0, plan=plan)
    assert sequential.log_value(one, (0.0,), plan) == pytest.approx(2.0)


def test_sums_of_huge_evidence_do_not_overflow() -> None:
    """A thousand nats and none at all are both numbers."""
    assert sequential.log_sum((1000.0, 1000.0)) == pytest.approx(1000 + math.log(2))
    assert sequential.log_sum((-math.inf, -math.inf)) == -math.inf


# --- order bet -------------------------------------------------------------------------------------


def test_every_bucket_begins_where_the_one_before_ends() -> None:
    """Each edge lies in its own bucket and just below it in the bucket before."""
    for index in range(1, sequential.BUCKETS):
        edge_s = sequential.bucket_edge_s(index)
        assert sequential.bucket(edge_s * 1.0001) == index
        assert sequential.bucket(edge_s * 0.9999) == index - 1
    assert sequential.bucket(0.0) == 0
    assert sequential.bucket(1e9) == sequential.BUCKETS - 1


PAST = Reference(past=tuple((index, 1.0 + index % 3) for index in range(40, 80)))


def order_means(margin: int, canary: dict[int, float], stable: dict[int, float]) -> list[float]:
    """Mean factor of a tick with one request on each side."""
    bet = OrderBet(margin_buckets=margin)
    means = [0.0] * len(bet.log_weights)
    for (c, chance_c), (s, chance_s) in itertools.product(canary.items(), stable.items()):
        one, other = Histogram(cells=((c, 1),)), Histogram(cells=((s, 1),))
        for at, gain in enumerate(bet.gains(one, other, PAST)):
            means[at] += chance_c * chance_s * math.exp(gain)
    return means


def test_a_canary_slower_by_the_margin_gains_nothing_on_average() -> None:
    """Shifted by two buckets, or not at all, it has a mean factor of at most 1 in each bet."""
    stable = dict.fromkeys(range(38, 83), 1 / 45)
    slower = {index + 2: chance for index, chance in stable.items()}
    assert max(order_means(2, slower, stable)) <= 1 + 1e-9
    assert max(order_means(2, stable, stable)) <= 1 + 1e-9


def test_a_canary_slower_than_the_margin_is_found() -> None:
    """Twelve buckets are 1.8 times as slow, and the location bets grow."""
    stable = dict.fromkeys(range(40, 80), 1 / 40)
    bet, growth = OrderBet(margin_buckets=2), [0.0] * 17
    for c, s in itertools.product(range(52, 92), range(40, 80)):
        one, other = Histogram(cells=((c, 1),)), Histogram(cells=((s, 1),))
        for at, gain in enumerate(bet.gains(one, other, PAST)):
            growth[at] += stable[s] / 40 * gain
    assert max(growth) > 0.05


@pytest.mark.parametrize("margin", [1, 2, 5])
def test_a_coarse_source_of_latencies_stays_on_the_safe_side(margin: int) -> None:
    """A canary slower by the margin gains nothing though its requests change into wider buckets."""
    stable = dict.fromkeys(range(40, 80), 1 / 40)

    def coarse(chances: dict[int, float], shift: int) -> dict[int, float]:
        wide: dict[int, float] = {}
        for index, chance in chances.items():
            lower = (index + shift) // 7 * 7
            wide[lower] = wide.get(lower, 0.0) + chance
        return wide

    past = Reference(past=tuple(sorted((index, 100 * chance) for index, chance in coarse(stable, 0).items())))
    bet = OrderBet(margin_buckets=margin)
    means = [0.0] * 17
    for (c, chance_c), (s, chance_s) in itertools.product(
        coarse(stable, margin).items(), coarse(stable, 0).items()
    ):
        one, other = Histogram(cells=((c, 1),)), Histogram(cells=((s, 1),))
        for at, gain in enumerate(bet.gains(one, other, past)):
            means[at] += chance_c * chance_s * math.exp(gain)
    assert max(means) <= 1 + 1e-9


def test_what_is_bet_on_is_learned_only_afterwards() -> None:
    """Latencies of a tick join the past at the next refresh, and older ones fade by half in two minutes."""
    first = Reference().after(Histogram(cells=((10, 100),)), dt_s=1.0)
    assert first.past == ((10, 100.0),)
    second = first.after(Histogram(cells=((20, 100),)), dt_s=1.0)
    assert second.past == first.past
    third = second.after(Histogram(), dt_s=sequential.HALF_LIFE_S - 1)
    assert third.past == ((10, 50.0), (20, 100.0))


def test_a_past_of_many_latencies_stays_small() -> None:
    """A reference never has more cells than its limit, and loses no weight by that."""
    wide = Reference().after(Histogram(cells=tuple((index, 3) for index in range(256))), dt_s=1.0)
    assert len(wide.past) <= sequential.REFERENCE_CELLS
    assert sum(weight for _, weight in wide.past) == 3 * 256


def test_without_a_past_no_latency_is_bet_on() -> None:
    """An empty reference has no ranks, and the bets stay where they are."""
    one = Histogram(cells=((200, 50),))
    assert Reference().ranks() is None
    assert set(OrderBet(margin_buckets=2).gains(one, one, Reference())) == {0.0}


def test_ranks_grow_and_hold_where_the_past_is_empty() -> None:
    """A bucket without a past has the rank of the last one before it that has one."""
    ranks = Reference(past=((10, 1.0), (20, 3.0))).ranks()
    assert ranks is not None
    assert (ranks[9], ranks[10], ranks[19], ranks[20], ranks[255]) == (0.0, 0.125, 0.125, 0.625, 0.625)


# --- limit and mean bets ---------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0.001, 0.05, 0.5])
def test_a_canary_at_its_limit_gains_nothing_on_average(limit: float) -> None:
    """At the limit each factor has mean 1, below it less."""
    bet = LimitBet(limit=limit)
    for share, most in ((limit, 1 + 1e-9), (limit / 2, 1.0)):
        means = [0.0] * len(bet.log_weights)
        for x, chance in binomial(8, share):
            for at, gain in enumerate(bet.gains(8, x)):
                means[at] += chance * math.exp(gain)
        assert max(means) <= most


@pytest.mark.parametrize("centre", [0.0, 0.3, 0.9, 1.0])
def test_a_business_metric_at_the_margin_gains_nothing_on_average(centre: float) -> None:
    """The mean factor is at most 1 for every centre, however wrong, and every factor stays above 0."""
    bet = MeanBet(margin=0.98)
    means = [0.0] * len(bet.log_weights)
    for (won_c, chance_c), (won_s, chance_s) in itertools.product(binomial(2, 0.98 * 0.4), binomial(6, 0.4)):
        canary = Sample(cells=((1.0, won_c), (0.0, 2 - won_c)))
        stable = Sample(cells=((1.0, won_s), (0.0, 6 - won_s)))
        for at, gain in enumerate(bet.gains(canary, stable, centre)):
            means[at] += chance_c * chance_s * math.exp(gain)
    assert max(means) <= 1 + 1e-9


def test_a_fallen_business_metric_is_found() -> None:
    """A canary that converts nobody where 30 % were usual wins evidence in every look."""
    bet = MeanBet(margin=0.98)
    canary, stable = Sample(cells=((0.0, 10),)), Sample(cells=((1.0, 57), (0.0, 133)))
    assert max(bet.gains(canary, stable, 0.3)) > 1.0
    assert set(bet.gains(canary, stable, None)) == {0.0}


def test_the_centre_follows_the_stable_release() -> None:
    """It starts at the first mean seen and then moves by 2 % a second."""
    ones = Sample(cells=((1.0, 10),))
    assert sequential.followed(None, Sample(), dt_s=1.0) is None
    assert sequential.followed(None, ones, dt_s=1.0) == 1.0
    assert sequential.followed(0.5, ones, dt_s=1.0) == pytest.approx(0.51)

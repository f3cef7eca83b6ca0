"""Safety of the bets for any numbers: never a free win, never a number that is none."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from tidegate.core import sequential
from tidegate.core.sequential import PLAIN, Evidence, Histogram, OrderBet, PairCounts, Plan, Reference

REQUESTS = st.integers(min_value=0, max_value=10**9)
CELLS = st.dictionaries(st.integers(0, 255), st.integers(1, 10**6), max_size=40).map(
    lambda cells: tuple(sorted(cells.items()))
)


@given(
    n_c=st.integers(1, 10**6),
    n_s=st.integers(1, 10**6),
    margin=st.floats(1.0, 3.0),
    allowance=st.floats(0.0, 0.01),
    share=st.floats(0.0, 0.3),
)
def test_no_split_of_requests_makes_the_null_hypothesis_win(
    n_c: int, n_s: int, margin: float, allowance: float, share: float
) -> None:
    """For any split, margin and share the mean factor of a tick at the margin is at most 1.

    For independent requests it is (1 + p_c (a - 1))^n_c (1 - p_s (1 - b))^n_s times exp(-rent).
    """
    for bet in (
        sequential.worse(margin=margin, allowance=allowance),
        sequential.no_worse(margin=margin, allowance=allowance),
    ):
        terms = bet.terms(n_c, n_s)
        at_margin = min(1.0, margin * share + allowance)
        for win, loss, rent in zip(terms.wins, terms.losses, terms.rents, strict=True):
            log_mean = (
                n_c * math.log1p(at_margin * math.expm1(win))
                + n_s * math.log1p(share * math.expm1(-loss))
                - rent
            )
            if margin * share + allowance <= 1:
                assert log_mean <= 1e-6 * (1 + n_c + n_s)


@given(n_c=REQUESTS, x_c=REQUESTS, n_s=REQUESTS, x_s=REQUESTS)
def test_any_counts_give_finite_evidence(n_c: int, x_c: int, n_s: int, x_s: int) -> None:
    """Also more errors than requests, and none of either."""
    counts = PairCounts(canary_requests=n_c, canary_events=x_c, stable_requests=n_s, stable_events=x_s)
    for bet in (
        sequential.worse(margin=1.1, allowance=2e-5),
        sequential.no_worse(margin=1.5, allowance=5e-4),
    ):
        assert all(math.isfinite(gain) for gain in bet.gains(counts))


@given(canary=CELLS, stable=CELLS, past=CELLS, faster=st.integers(0, 30))
def test_a_faster_canary_never_has_more_evidence_against_it(
    canary: tuple[tuple[int, int], ...],
    stable: tuple[tuple[int, int], ...],
    past: tuple[tuple[int, int], ...],
    faster: int,
) -> None:
    """Moving the canary's requests to lower buckets lowers every bet."""
    reference = Reference(past=tuple((index, float(count)) for index, count in past))
    bet, other = OrderBet(margin_buckets=2), Histogram(cells=stable)
    lower: dict[int, int] = {}
    for index, count in canary:
        lower[max(0, index - faster)] = lower.get(max(0, index - faster), 0) + count
    slow = bet.gains(Histogram(cells=canary), other, reference)
    fast = bet.gains(Histogram(cells=tuple(sorted(lower.items()))), other, reference)
    assert all(f <= s + 1e-6 * (1 + abs(s)) for f, s in zip(fast, slow, strict=True))


@given(
    gains=st.lists(st.floats(-50, 50), max_size=30),
    phi=st.floats(1.0, 100.0),
    block_s=st.sampled_from([5.0, 10.0, 60.0]),
)
def test_no_plan_makes_evidence_larger(gains: list[float], phi: float, block_s: float) -> None:
    """Capped evidence is at most plain evidence, and tempered evidence is no further from nothing."""
    plain, capped = Evidence.nothing(1), Evidence.nothing(1)
    cap = Plan(block_s=block_s)
    for gain in gains:
        plain = sequential.added(plain, (gain,), dt_s=1.0, plan=PLAIN)
        capped = sequential.added(capped, (gain,), dt_s=1.0, plan=cap)
    whole = sequential.log_value(plain, (0.0,), PLAIN)
    assert sequential.log_value(capped, (0.0,), cap) <= whole + 1e-9
    assert abs(sequential.log_value(plain, (0.0,), Plan(phi=phi))) <= abs(whole) + 1e-9


@given(ticks=st.lists(CELLS, max_size=10))
def test_a_reference_never_loses_its_order_or_outgrows_its_limit(
    ticks: list[tuple[tuple[int, int], ...]],
) -> None:
    """After any latencies its ranks rise and lie within 0 and 1."""
    reference = Reference()
    for cells in ticks:
        reference = reference.after(Histogram(cells=cells), dt_s=3.0)
    ranks = reference.ranks() or (0.0,)
    assert list(ranks) == sorted(ranks)
    assert all(0 <= rank <= 1 for rank in ranks)
    assert len(reference.past) <= sequential.REFERENCE_CELLS

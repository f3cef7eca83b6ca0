"""What others would have done is computed by their rules, as the benchmark simulates them."""

from __future__ import annotations

import random

import pytest

from bench.canary import rivals as simulated
from tidegate.demo import rivals

RATE = 5.0


@pytest.mark.parametrize(
    ("rule", "simulation"), [(rivals.FLAGGER, simulated.flagger), (rivals.ARGO, simulated.argo)]
)
@pytest.mark.parametrize("share", [1.0, 0.2, 0.07, 0.05])
def test_half_of_all_simulated_canaries_have_gone_back_by_then(
    rule: rivals.Rule, simulation: simulated.Rule, share: float
) -> None:
    """The benchmark's own rules, minute by minute on random streams, agree with the computed time."""
    chance = random.Random(f"{rule.name} {share}")
    seconds = sorted(60 * (simulation(_minutes(chance, share)) or 10**6) for _ in range(200))
    found = rivals.computed(rule, RATE, share)
    assert found.seconds is not None
    assert seconds[80] <= found.seconds <= seconds[120]
    assert found.bad_requests == round(RATE * share * found.seconds)


def _minutes(chance: random.Random, share: float) -> list[simulated.Minute]:
    requests = round(RATE * 60)
    return [(requests, sum(chance.random() < share for _ in range(requests)), 0, 0) for _ in range(90)]


@pytest.mark.parametrize(
    ("rule", "share"), [(rivals.FLAGGER, 0.003), (rivals.ARGO, 0.03), (rivals.ARGO, 0.0)]
)
def test_what_stays_within_the_limit_is_not_found(rule: rivals.Rule, share: float) -> None:
    """A release that fails less than the rule permits is let through."""
    assert rivals.computed(rule, RATE, share) == rivals.Computed(
        rule=rule.name, seconds=None, bad_requests=None
    )


def test_release_that_passes_ten_checks_first_is_promoted() -> None:
    """Flagger's steps end at 50 %: a release whose checks fail less than half of the time gets through."""
    at_the_limit = rivals.computed(rivals.FLAGGER, RATE, 0.008)
    assert at_the_limit.seconds is None

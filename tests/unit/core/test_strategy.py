"""Strategies: what may be built, what a first release gets, how they read."""

from __future__ import annotations

import pytest

from tests.support.builders import CANARY, MANUAL
from tidegate.core import strategy
from tidegate.core.model import FULL_EXPOSURE, Stage, StrategyKind
from tidegate.core.strategy import SWITCH


def test_switch_is_a_canary_of_one_stage_with_everybody() -> None:
    """One mechanism carries both strategies."""
    assert SWITCH.stages == (Stage(exposure_bps=FULL_EXPOSURE, hold_s=0.0),)


def test_canary_ends_with_everybody() -> None:
    """Full exposure stands behind the steps by itself."""
    steps = (Stage(exposure_bps=1, hold_s=0.0), Stage(exposure_bps=9_999, hold_s=None))
    built = strategy.canary(steps)
    assert built.kind is StrategyKind.CANARY
    assert built.stages == (*steps, SWITCH.stages[0])


@pytest.mark.parametrize(
    "shares",
    [(), (0,), (-1, 5), (10_000,), (500, 10_001), (500, 500), (500, 100)],
    ids=["none", "nobody", "negative", "everybody", "more-than-all", "level", "falling"],
)
def test_canary_whose_steps_do_not_grow_is_refused(shares: tuple[int, ...]) -> None:
    """Exposure only grows, from above nobody to below everybody."""
    with pytest.raises(ValueError, match="must grow"):
        strategy.canary(tuple(Stage(exposure_bps=share, hold_s=1.0) for share in shares))


def test_canary_with_a_negative_hold_is_refused() -> None:
    """Time does not run backwards."""
    with pytest.raises(ValueError, match="negative"):
        strategy.canary((Stage(exposure_bps=100, hold_s=-0.1),))


def test_first_release_is_switched_on() -> None:
    """With nobody to compare with and nobody served, a canary would only leave users without an answer."""
    assert strategy.for_first_release(CANARY) == SWITCH
    assert strategy.for_first_release(SWITCH) == SWITCH


def test_strategies_read_as_sentences() -> None:
    """People see shares and hold times with their units."""
    assert strategy.describe(SWITCH) == "switch: everybody at once"
    assert strategy.describe(CANARY) == "canary 5 % for 10 s, 50 % for 10 s, then everybody"
    assert strategy.describe(MANUAL) == "canary 5 % until promoted, then everybody"

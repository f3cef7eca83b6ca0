"""Numbers of the judge as people read them: odds and percentages. Hides how many digits say something."""

from __future__ import annotations

import math
from typing import Final

#: More than this, or less than that, says no more to anybody.
_ODDS_MAX: Final = 1_000_000
_ODDS_MIN: Final = 0.01
_ROUND_ODDS: Final = 9.5  # from here on fractions say no more either
_ROUND_PCT: Final = 99.5  # two digits would make 100 of it


def odds(log_evidence: float) -> str:
    """Log evidence as a bet, e.g. `312 to 1`."""
    if log_evidence > math.log(_ODDS_MAX):
        return f"more than {_ODDS_MAX} to 1"
    if log_evidence < math.log(_ODDS_MIN):
        return f"less than {_ODDS_MIN:g} to 1"
    found = math.exp(log_evidence)
    return f"{found:.0f} to 1" if found > _ROUND_ODDS else f"{found:.2g} to 1"


def number(count: int, thing: str) -> str:
    """`1 request`, `2 requests`."""
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"


def percent(share: float) -> str:
    """A share of 0 to 1, e.g. `2.4 %`."""
    return f"{_pct(share)} %"


def interval(low: float, high: float) -> str:
    """Two shares, e.g. `0.83 to 6.9 %`."""
    return f"{_pct(low)} to {_pct(high)} %"


def _pct(share: float) -> str:
    """With two digits that say something, and never with an exponent."""
    value = 100 * share
    rounded = float(f"{value:.2g}") if value < _ROUND_PCT else round(value, 2)
    return f"{rounded:.6f}".rstrip("0").rstrip(".")

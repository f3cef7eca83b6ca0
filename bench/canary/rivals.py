"""The rules of Flagger, Argo Rollouts and Kayenta by their documented settings, and the information bound.

Written after their sources and documentation (Flagger and Argo Rollouts of 2026, Kayenta of 2025), not run.
Each takes the errors per minute of both releases and says after how many minutes it goes back, or None.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final

Minute = tuple[int, int, int, int]
Rule = Callable[[Sequence[Minute]], int | None]


def flagger(minutes: Sequence[Minute]) -> int | None:
    """README: success rate of at least 99 % in each minute; back in the pass after the 10th failed check."""
    failed = 0
    for minute, (n_c, x_c, _, _) in enumerate(minutes, start=1):
        if failed >= 10:
            return minute
        failed += x_c > 0.01 * n_c
    return None


def argo(minutes: Sequence[Minute]) -> int | None:
    """Analysis page: success rate of at least 95 % each 5 minutes; back at more than 3 failures."""
    failed = 0
    for minute in range(5, len(minutes) + 1, 5):
        window = minutes[minute - 5 : minute]
        failed += sum(look[1] for look in window) > 0.05 * sum(look[0] for look in window)
        if failed > 3:
            return minute
    return None


def kayenta(minutes: Sequence[Minute], every: int = 5) -> int | None:
    """Mann-Whitney on the shares per minute since the start, 98 %, tolerance 0.25."""
    for minute in range(every, len(minutes) + 1, every):
        canary = [look[1] / look[0] for look in minutes[:minute]]
        stable = [look[3] / look[2] for look in minutes[:minute]]
        if _high(canary, stable):
            return minute
    return None


_Z_98: Final = 2.326


def _high(canary: list[float], stable: list[float]) -> bool:
    """Whether the lower limit of the shift is above a quarter of its estimate."""
    shifts = sorted(x - y for x in canary for y in stable)
    m, n = len(canary), len(stable)
    rank = math.floor(m * n / 2 - _Z_98 * math.sqrt(m * n * (m + n + 1) / 12))
    middle = (shifts[(m * n - 1) // 2] + shifts[m * n // 2]) / 2
    return shifts[max(0, rank - 1)] > 0.25 * abs(middle) and middle > 0


RULES: Final[dict[str, Rule]] = {
    "Flagger (1 m, 99 %, 10)": flagger,
    "Argo Rollouts (5 m, 95 %, 3)": argo,
    "Kayenta, each 5 m": kayenta,
    "Kayenta, each 30 m": lambda minutes: kayenta(minutes, 30),
}


def bound(canary: float, stable: float, *, stable_per_canary: float, chance: float = 0.01) -> float:
    """Canary requests that any test of equal shares needs on average, if it errs so rarely (two samples)."""
    pooled = (canary + stable_per_canary * stable) / (1 + stable_per_canary)
    return -math.log(chance) / (_kl(canary, pooled) + stable_per_canary * _kl(stable, pooled))


def _kl(share: float, other: float) -> float:
    return sum(p * math.log(p / q) for p, q in ((share, other), (1 - share, 1 - other)) if p)

"""When Flagger and Argo Rollouts would have gone back, by their documented rules: computed, not run.

Hides the arithmetic: each rule is a race between checks that fail and checks that pass, and the outcome given
is the one that comes first in half of all cases. The stream is the one that was measured: so many of the
canary's requests a second, this share of them failed, at the first stage's exposure all the time. That is in
the rivals' favour where a check passes, because they would then raise the exposure. Pure.
Neighbours: `findings` puts them beside what was measured; `bench/canary` simulates the same rules.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

#: Longest time that a rule without an end of its own is given.
HOURS_MAX: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A rule as its project documents it."""

    name: str
    every_s: int
    """Time between two checks, each of the requests since the last one."""
    failed_share_max: float
    """Share of failed requests from which on a check fails."""
    failures: int
    """So many failed checks, and it goes back…"""
    passes_later: int
    """…so many checks later."""
    successes: int | None
    """So many passed checks, and the release goes to everybody; None: that is set elsewhere."""
    settings: str
    """For people."""


#: README of Flagger, of 2026: interval 1m, threshold 10, success rate 99 %, stepWeight 5, maxWeight 50. The
#: tenth failed check is acted upon in the next pass. Its limit of 500 ms on the 99th percentile is not
#: computed: the demo's slow release is far below it, and its other bad ones fail the check as it is.
FLAGGER: Final = Rule(
    name="Flagger",
    every_s=60,
    failed_share_max=0.01,
    failures=10,
    passes_later=1,
    successes=10,
    settings="checks each minute that 99 % succeed, goes back after the 10th failed check",
)
#: Page "Analysis" of Argo Rollouts, of 2026: interval 5m, success of 95 %, failureLimit 3; more fail it.
ARGO: Final = Rule(
    name="Argo Rollouts",
    every_s=300,
    failed_share_max=0.05,
    failures=4,
    passes_later=0,
    successes=None,
    settings="checks each 5 minutes that 95 % succeed, goes back at the 4th failed check",
)
RULES: Final = (FLAGGER, ARGO)


@dataclass(frozen=True, slots=True, kw_only=True)
class Computed:
    """What a rule would have done."""

    rule: str
    seconds: float | None
    """Until it goes back; None: it does not."""
    bad_requests: int | None
    """Failed requests until then."""


def computed(rule: Rule, requests_per_second: float, failed_share: float) -> Computed:
    """What becomes of a canary with this rate and share of failed requests, in half of all cases at least."""
    chance = _more_than(
        rule.failed_share_max, requests=round(requests_per_second * rule.every_s), share=failed_share
    )
    checks = _checks(rule, chance)
    if checks is None:
        return Computed(rule=rule.name, seconds=None, bad_requests=None)
    seconds = (checks + rule.passes_later) * rule.every_s
    return Computed(
        rule=rule.name,
        seconds=seconds,
        bad_requests=round(requests_per_second * failed_share * seconds),
    )


def _checks(rule: Rule, chance: float) -> int | None:
    """After how many checks enough have failed, if each fails with this chance; None: it passes first."""
    race = rule.failures + rule.successes - 1 if rule.successes else HOURS_MAX * 3600 // rule.every_s
    return next(
        (n for n in range(rule.failures, race + 1) if _at_least(rule.failures, of=n, share=chance) >= 1 / 2),
        None,
    )


def _more_than(part: float, *, requests: int, share: float) -> float:
    """Chance that more than this part of so many requests fails."""
    return _at_least(math.floor(part * requests) + 1, of=requests, share=share)


def _at_least(hits: int, *, of: int, share: float) -> float:
    """P(at least so many hits), each with this chance."""
    if not 0 < share < 1:
        return float(hits <= (of if share else 0))
    log_p, log_q = math.log(share), math.log1p(-share)
    exact = math.fsum(
        math.exp(
            math.lgamma(of + 1) - math.lgamma(k + 1) - math.lgamma(of - k + 1) + k * log_p + (of - k) * log_q
        )
        for k in range(hits, of + 1)
    )
    return min(1.0, exact)  # rounding

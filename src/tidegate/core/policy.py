"""What the analysis of a canary may decide, and how sure it must be: the user's wishes as one value.

Hides nothing; every default says why. The bets are in `sequential`, the decision is in `judge`, the words of
tidegate.yaml are in `manifest`. Values are checked on construction, because a policy of 0 % false aborts
or of a margin below 1 makes a judge that never or always aborts.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final


class Metric(enum.StrEnum):
    """What can be found wrong with a canary. Stored and shown: add, never rename."""

    ERRORS = "errors"
    LATENCY = "latency"
    OVERDUE = "overdue"
    BUSINESS = "business"
    ERROR_LIMIT = "error-limit"
    LATENCY_LIMIT = "latency-limit"


class LittleEvidence(enum.StrEnum):
    """What to do when a stage's hold time is over and the canary is shown neither worse nor no worse."""

    GO_ON = "go-on"
    WAIT = "wait"
    ASK = "ask"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """How the permitted false aborts are shared out among the metrics in use; only ratios count."""

    errors: float = 8.5
    """Most bad releases fail requests, and that hurts most. 85 % delay its finding by 4 %."""
    latency: float = 1.5
    """A slow release shows in every request: 15 % delay its finding by a third, which is few requests."""
    overdue: float = 0.2
    """Requests that are not answered are errors too, in the end: this only finds them earlier."""
    business: float = 1.0
    limits: float = 1.0
    """Of each absolute limit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysisPolicy:
    """How a canary is judged. Shares are 0 to 1. ValueError for values that make no sense."""

    enabled: bool = True
    false_abort: float = 0.01
    """Chance that a release within the margins is aborted, per rollout, over all metrics and looks."""
    margin: float = 1.10
    """A canary with this many times the stable share of errors is still good: the same code differs by a
    few per cent between two sets of users."""
    allowance: float = 2e-5
    """And so is one with this share of errors more: without it a stable release with no errors at all
    would forbid the first one."""
    latency_margin_buckets: int = 2
    """Latency may be higher by this many steps of 5 %: 2 are 10.25 %."""
    business_margin: float = 0.98
    """A business metric may fall to this share of the stable one."""
    business: bool = False
    """Whether ticks carry a business metric."""
    weights: Weights = Weights()
    false_promotion: float = 0.04
    """Chance that a release at or beyond the promote margins is promoted early, per rollout. The promise to
    users is 5 %; nearly all of what is permitted here is used (measured), so it is a little less."""
    promote_margin: float = 1.5
    """To end a stage early the canary must be shown to have less than this many times the stable share…"""
    promote_allowance: float = 5e-4
    """…plus this share. With no errors at all that takes 8 700 canary requests."""
    promote_early: bool = False
    """Leaks and cron jobs need time, not requests: a stage ends early only if the user says so."""
    soak_s: float = 60.0
    """No stage ends earlier than after so many seconds."""
    warmup_s: float = 10.0
    """Latencies of the canary's first seconds with requests do not count: caches and pools are cold…"""
    warmup_requests: int = 20
    """…nor those of so many first requests. Errors always count."""
    on_little_evidence: LittleEvidence = LittleEvidence.GO_ON
    """Small apps would never reach 100 % if each stage had to wait for evidence."""
    overdue_s: float | None = None
    """A request that has waited for so long is overdue; None: four times what one of a thousand requests to
    the stable release exceeded before the rollout, but 1 s to 30 s, and 5 s if nothing is known."""
    max_error_share: float | None = None
    """Absolute limit of the canary's share of errors, whatever the stable release does; None: off."""
    max_p99_ms: float | None = None
    """Absolute limit: at most 1 % of the canary's requests may take longer; None: off."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        problems = tuple(_problems(self))
        if problems:
            raise ValueError("analysis: " + "; ".join(problems))

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Those in use."""
        optional = {
            Metric.BUSINESS: self.business,
            Metric.ERROR_LIMIT: self.max_error_share is not None,
            Metric.LATENCY_LIMIT: self.max_p99_ms is not None,
        }
        return tuple(metric for metric in Metric if optional.get(metric, True))

    def log_weight(self, metric: Metric) -> float:
        """Log of a metric's part in the combined evidence; the parts of the metrics in use sum to 1."""
        return math.log(_part(self.weights, metric) / sum(_part(self.weights, used) for used in self.metrics))

    @property
    def abort_bound(self) -> float:
        """Combined log evidence that aborts."""
        return -math.log(self.false_abort)

    @property
    def promote_bound(self) -> float:
        """Log evidence of being no worse that permits an early promotion."""
        return -math.log(self.false_promotion)


def _part(weights: Weights, metric: Metric) -> float:
    if metric in (Metric.ERROR_LIMIT, Metric.LATENCY_LIMIT):
        return weights.limits
    if metric is Metric.ERRORS:
        return weights.errors
    return {Metric.LATENCY: weights.latency, Metric.OVERDUE: weights.overdue}.get(metric, weights.business)


def _problems(policy: AnalysisPolicy) -> Iterator[str]:
    """Each wrong value, with what is right."""
    for names, right, words in _RULES:
        for name in names:
            value = getattr(policy, name)
            if value is not None and not right(value):
                yield f"{name} must be {words}, not {value}"
    for name in ("errors", "latency", "overdue", "business", "limits"):
        if not 0 < getattr(policy.weights, name) < math.inf:
            yield f"weights.{name} must be above 0"


#: An app that wants to be aborted wrongly more often than every second time wants no judge.
_PROBABILITY_MAX: Final = 0.5

_RULES: Final[tuple[tuple[tuple[str, ...], Callable[[float], bool], str], ...]] = (
    (
        ("false_abort", "false_promotion"),
        lambda value: 0 < value <= _PROBABILITY_MAX,
        f"above 0 and at most {_PROBABILITY_MAX}",
    ),
    (("max_error_share", "business_margin"), lambda value: 0 < value < 1, "between 0 and 1"),
    (("margin", "promote_margin"), lambda value: 1 <= value < math.inf, "at least 1"),
    (("allowance", "promote_allowance"), lambda value: 0 <= value < 1, "0 or more, and below 1"),
    (
        ("soak_s", "warmup_s", "warmup_requests", "latency_margin_buckets"),
        lambda value: 0 <= value < math.inf,
        "0 or more",
    ),
    (("max_p99_ms", "overdue_s"), lambda value: 0 < value < math.inf, "above 0"),
)

#: With nothing written.
DEFAULT: Final = AnalysisPolicy()

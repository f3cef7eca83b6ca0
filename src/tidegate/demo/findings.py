"""What was found wrong with each bad release, how soon, and how soon others would have found it.

Hides what counts as a bad request: one that failed, or any at all of a release that is only slower. Pure.
Neighbours: `verdicts` plays the acts, `report` says whose fault a failure is, `rivals` computes the others.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from tidegate.demo import rivals
from tidegate.demo.report import Act, suspected
from tidegate.demo.samples import Samples, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is wrong with a release, as its author knows."""

    title: str
    change: str
    """Of `releases`."""
    failed_share: float | None
    """Of its requests; None: as was measured."""
    slow: bool = False
    hangs: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One bad release: what was measured, and what others would have done."""

    title: str
    release: int
    reason: str
    sentence: str
    """Of the judge, or of the rule that was faster."""
    bad_requests: int
    users_hit: int
    exposed_s: float
    requests_per_second: float
    """Of the canary: what all users sent, times its exposure."""
    others: tuple[rivals.Computed, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """The table."""

    found: tuple[Finding, ...]
    rules: tuple[rivals.Rule, ...] = rivals.RULES
    """Of the others."""

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def findings(samples: Samples, acts: tuple[tuple[Fault, Act], ...]) -> Findings:
    """One line for each bad release, in order."""
    return Findings(found=tuple(_finding(samples, fault, act) for fault, act in acts))


def _finding(samples: Samples, fault: Fault, act: Act) -> Finding:
    own = tuple(sample for sample in samples if sample.release == act.new)
    bad = own if fault.slow else suspected(samples, act)
    during = Span(begin_s=act.asked_at_s, end_s=act.ended_at_s)
    rate = len(during.of(samples)) / (during.end_s - during.begin_s) * act.exposure_reached_bps / 10_000
    exposed_s = act.exposed_s or 0.0
    unsigned = sum(1 for sample in bad if sample.release is None)
    measured = len(bad) / max(1, len(own) + unsigned)
    share = 0.0 if fault.slow else measured if fault.failed_share is None else fault.failed_share
    return Finding(
        title=fault.title,
        release=act.new,
        reason=act.reason,
        sentence=act.detail,
        bad_requests=len(bad),
        users_hit=len({sample.user for sample in bad}),
        exposed_s=round(exposed_s, 2),
        requests_per_second=round(rate, 2),
        others=tuple(rivals.computed(rule, rate, share) for rule in rivals.RULES),
    )

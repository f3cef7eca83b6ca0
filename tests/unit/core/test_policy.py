"""The policy: right with nothing written, and refusing what makes a judge that never or always aborts."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from tidegate.core.policy import AnalysisPolicy, LittleEvidence, Metric, Weights

DEFAULT = AnalysisPolicy()


def test_with_nothing_written_errors_and_latency_are_judged_and_nothing_ends_early() -> None:
    """The defaults compare two metrics, permit 1 % false aborts, promote nothing early and go on."""
    assert DEFAULT.metrics == (Metric.ERRORS, Metric.LATENCY, Metric.OVERDUE)
    assert DEFAULT.abort_bound == pytest.approx(math.log(100))
    assert DEFAULT.promote_bound == pytest.approx(math.log(25))
    assert not DEFAULT.promote_early
    assert DEFAULT.on_little_evidence is LittleEvidence.GO_ON


def test_the_parts_of_the_metrics_in_use_are_one_together() -> None:
    """Whatever is switched on, the weights are shared out among it."""
    for policy in (
        DEFAULT,
        AnalysisPolicy(business=True, max_error_share=0.05, max_p99_ms=500.0),
        AnalysisPolicy(weights=Weights(errors=1.0, latency=3.0)),
    ):
        parts = [math.exp(policy.log_weight(metric)) for metric in policy.metrics]
        assert sum(parts) == pytest.approx(1.0)
    assert len(AnalysisPolicy(business=True, max_error_share=0.05, max_p99_ms=500.0).metrics) == 6


@pytest.mark.parametrize(
    "wrong",
    [
        {"false_abort": 0.0},
        {"false_abort": 0.6},
        {"false_promotion": math.nan},
        {"margin": 0.9},
        {"promote_margin": math.inf},
        {"allowance": -1e-9},
        {"max_error_share": 0.0},
        {"max_error_share": 1.0},
        {"max_p99_ms": 0.0},
        {"warmup_s": -1.0},
        {"latency_margin_buckets": -1},
        {"weights": Weights(latency=0.0)},
    ],
    ids=str,
)
def test_a_value_that_makes_no_sense_is_refused_by_name(wrong: dict[str, Any]) -> None:
    """The message names the field and says what is right."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(DEFAULT, **wrong)


def test_all_wrong_values_are_named_at_once() -> None:
    """Two mistakes make one message."""
    with pytest.raises(ValueError, match=r"false_abort.*margin"):
        AnalysisPolicy(false_abort=2.0, margin=0.5)

"""What the API says of a canary's traffic."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.support import builders, canaries
from tidegate import ports
from tidegate.core import sequential, verdicts
from tidegate.core.model import Phase, Rollout
from tidegate.core.policy import LittleEvidence
from tidegate.web import schemas, views


def evidence(rollout: Rollout) -> schemas.Evidence:
    """What the API says of its traffic."""
    found = views.rollout(rollout).evidence
    assert found is not None
    return found


def test_nothing_to_compare_has_no_evidence() -> None:
    """A rollout that nobody was exposed to says nothing about traffic."""
    rollout = builders.going(builders.environment().live("r1").incoming("r2").state)
    assert views.rollout(rollout).evidence is None


def test_evidence_is_what_the_judge_says() -> None:
    """The numbers are those of the verdict on which the rollout's fate rests, not others of the API's own."""
    rollout = canaries.judged(canary=(10, 0), stable=(190, 0))
    assert rollout.analysis is not None
    verdict = verdicts.verdict(rollout.analysis.judge, rollout.request.spec.analysis)
    found = evidence(rollout)
    assert (found.verdict, found.finding, found.metric) == ("continue", verdict.finding, None)
    assert found.sentence == verdict.sentence
    assert (found.combined, found.abort_bound) == (verdict.combined, verdict.abort_bound)
    assert (found.no_worse, found.promote_bound) == (verdict.no_worse, verdict.promote_bound)
    parts = tuple(part.log_evidence for part in found.metrics)
    assert sequential.log_sum(parts) == pytest.approx(found.combined)


def test_both_releases_are_described() -> None:
    """Requests, errors, the share with its interval, and how fast both were."""
    found = evidence(canaries.judged(canary=(10, 1), stable=(190, 1), seconds=3))
    canary, stable = found.canary, found.stable
    assert (canary.requests, canary.errors, canary.share) == (30, 3, 0.1)
    assert 0 < canary.low < canary.share < canary.high < 1
    assert (stable.requests, stable.errors) == (570, 3)
    assert stable.p50_ms is not None
    assert stable.p50_ms <= 1000 * canaries.STABLE_S < stable.p50_ms * sequential.BUCKET_RATIO


def test_latencies_of_the_warm_up_are_not_there() -> None:
    """Before the canary is warm its latencies are unknown, not zero."""
    found = evidence(canaries.judged(canary=(10, 0), stable=(190, 0), seconds=1))
    assert (found.canary.p50_ms, found.canary.p99_ms) == (None, None)


def test_a_bad_canary_is_blamed_for_what_it_does() -> None:
    """The verdict names the metric, and the evidence stands above the bound."""
    found = evidence(canaries.judged(canary=(10, 5), stable=(190, 0), seconds=5))
    assert (found.verdict, found.finding, found.metric) == ("abort", "more-errors", "errors")
    assert found.combined >= found.abort_bound


@pytest.mark.parametrize(("held_s", "waits"), [(5.0, False), (10.0, True)])
def test_waiting_for_evidence_is_said(held_s: float, waits: bool) -> None:
    """When the hold time is over and the policy wants more evidence, that is what is waited for."""
    rollout = canaries.judged(
        canary=(1, 0), stable=(19, 0), held_s=held_s, on_little_evidence=LittleEvidence.WAIT
    )
    assert evidence(rollout).waits is waits


def test_a_rollout_of_the_history_keeps_its_evidence() -> None:
    """What was found is still there when the rollout has ended."""
    going = canaries.judged(canary=(10, 5), stable=(190, 0), seconds=5)
    ended = replace(going, phase=Phase.ABORTED)
    record = ports.RolloutRecord(key=builders.KEY, rollout=ended, started_at=1.0, ended_at=2.0)
    assert views.recorded(record).evidence == evidence(going)

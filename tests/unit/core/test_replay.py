"""The replay of the stable release against itself: which plan its noise asks for."""

from __future__ import annotations

import math
import random

import pytest

from bench.canary import streams
from tidegate.core import replay, sequential
from tidegate.core.policy import AnalysisPolicy
from tidegate.core.replay import Shard
from tidegate.core.sequential import PLAIN, Evidence, PairCounts, Plan

POLICY = AnalysisPolicy()
HOURS = 3 * 3600


def shards(kind: str, base: float, seconds: int = HOURS, seed: int = 3) -> tuple[Shard, ...]:
    errors, requests = streams.day(kind, random.Random(seed), base, seconds)
    return tuple(Shard(requests=(requests,) * seconds, errors=tuple(row)) for row in errors)


@pytest.mark.slow
def test_independent_errors_ask_for_nothing() -> None:
    """Without bursts the plain plan is kept, and the sentence counts the fakes."""
    found = replay.replayed(shards("equal", 0.001), POLICY, tick_s=1.0)
    assert found.plan == PLAIN
    assert found.fakes == 360
    assert found.aborted <= 4
    assert found.sentence.startswith(f"360 fake canaries on your last day, {found.aborted} aborted")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["user bursts", "single-instance incidents"])
def test_bursts_are_tempered_or_capped(kind: str) -> None:
    """Noise that would abort many good canaries leads to a plan under which hardly any is."""
    found = replay.replayed(shards(kind, 0.001), POLICY, tick_s=1.0)
    assert found.aborted_plain > 10
    assert found.plan != PLAIN
    assert found.aborted <= 2
    assert f"{found.aborted_plain} aborted; with" in found.sentence


def test_too_little_history_keeps_the_plain_plan_and_says_so() -> None:
    """One shard, or hardly an error, teaches nothing."""
    quiet = Shard(requests=(100,) * 100, errors=(0,) * 100)
    for day in ((), (quiet,), (quiet, quiet)):
        found = replay.replayed(day, POLICY, tick_s=1.0)
        assert (found.plan, found.fakes) == (PLAIN, 0)
        assert "Too little history" in found.sentence


def test_shards_of_different_lengths_are_refused() -> None:
    """Half a history would be compared with another half."""
    with pytest.raises(ValueError, match="same ticks"):
        replay.replayed(
            (Shard(requests=(1,), errors=(0,)), Shard(requests=(1, 1), errors=(0, 0))), POLICY, tick_s=1.0
        )


@pytest.mark.slow
def test_a_replay_is_repeatable() -> None:
    """The same day makes the same plan."""
    day = shards("user bursts", 0.001, 3600)
    assert replay.replayed(day, POLICY, tick_s=1.0) == replay.replayed(day, POLICY, tick_s=1.0)


def test_noise_that_no_plan_tames_gets_the_most_cautious_one() -> None:
    """When every rung fails, the one with the fewest aborted fakes is taken and its number said."""
    ticks = 3600
    failing = tuple(
        Shard(
            requests=(50,) * ticks,
            errors=tuple(25 if (tick // 600) % 4 == at else 0 for tick in range(ticks)),
        )
        for at in range(4)
    )
    found = replay.replayed(failing, POLICY, tick_s=1.0)
    assert found.plan in (Plan(block_s=replay.BLOCKS_S[-1]), Plan(phi=replay.PHIS[-1]))
    assert found.aborted > 0


@pytest.mark.parametrize("plan", [PLAIN, Plan(phi=3.0), Plan(block_s=5.0)], ids=str)
def test_a_fake_canary_is_judged_as_a_real_one(plan: Plan) -> None:
    """The written-out process reaches the evidence that the bets reach, tick by tick."""
    day = shards("user bursts", 0.01, 60)
    prepared = replay._cut(day, POLICY, 1.0, 1)
    fake = replay._Fake(shard=day[0], errors=day[0].errors, ticks=prepared.eventful[0])
    peak = replay._played(prepared, plan, fake, math.inf).peak
    evidence, highest = Evidence.nothing(len(prepared.bet.ratios)), 0.0
    for tick in range(60):
        counts = PairCounts(
            canary_requests=day[0].requests[tick],
            canary_events=day[0].errors[tick],
            stable_requests=sum(shard.requests[tick] for shard in day[1:]),
            stable_events=sum(shard.errors[tick] for shard in day[1:]),
        )
        evidence = sequential.added(evidence, prepared.bet.gains(counts), dt_s=1.0, plan=plan)
        highest = max(highest, sequential.log_value(evidence, prepared.bet.log_weights, plan))
    assert peak == pytest.approx(highest, abs=0.02)


def test_shard_without_requests_in_a_tick_compares_nothing_there() -> None:
    """An instance that was down for a while is a fake canary only in the time in which it served."""
    ticks = 3600
    down = tuple(0 if 600 <= tick < 1800 else 50 for tick in range(ticks))
    steady = (50,) * ticks
    errors = tuple(1 if tick % 40 == 0 else 0 for tick in range(ticks))
    gap = tuple(error if served else 0 for error, served in zip(errors, down, strict=True))
    day = (
        Shard(requests=down, errors=gap),
        Shard(requests=steady, errors=errors),
        Shard(requests=steady, errors=errors),
    )
    found = replay.replayed(day, POLICY, tick_s=1.0)
    assert found.fakes > 0
    assert found.aborted == 0

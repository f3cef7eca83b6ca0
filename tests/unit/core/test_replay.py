"""The replay of the stable release against itself: which plan its noise asks for."""

from __future__ import annotations

import math
import random

import pytest

from bench.canary import streams
from tidegate.core import replay, sequential
from tidegate.core.policy import AnalysisPolicy
from tidegate.core.replay import Parts, Shard
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
    found = replay.replayed(failing_in_turn(), POLICY, tick_s=1.0)
    assert found.plan in (Plan(block_s=replay.BLOCKS_S[-1]), Plan(phi=replay.PHIS[-1]))
    assert found.aborted > 0


# --- several cuts ----------------------------------------------------------------------------------


def coarse(kind: str, base: float, seconds: int = HOURS) -> tuple[Shard, ...]:
    """In ticks of five seconds, as the control plane counts."""
    return tuple(replay._merged(shard, 5) for shard in shards(kind, base, seconds))


def instances_of(users: tuple[Shard, ...], number: int = 4) -> tuple[Shard, ...]:
    """The same day cut by instance: each request went to any of them, whoever asked."""
    chance = random.Random(11)
    ticks = range(len(users[0].errors))
    rows = [[0] * len(ticks) for _ in range(number)]
    for tick in ticks:
        for _ in range(sum(user.errors[tick] for user in users)):
            rows[chance.randrange(number)][tick] += 1
    requests = tuple(sum(user.requests[tick] for user in users) // number for tick in ticks)
    return tuple(Shard(requests=requests, errors=tuple(row)) for row in rows)


@pytest.mark.slow
def test_bursts_of_users_count_though_instances_do_not_show_them() -> None:
    """Retries of one user go to all instances: only the users' cut asks for a stricter plan, and gets it."""
    users = coarse("user bursts", 0.001)
    instances = instances_of(users)
    assert replay.replayed(instances, POLICY, tick_s=5.0).plan == PLAIN
    found = replay.replayed_on(
        (Parts(of="instances", shards=instances), Parts(of="users", shards=users)), POLICY, tick_s=5.0
    )
    alone = replay.replayed(users, POLICY, tick_s=5.0)
    assert found.plan != PLAIN
    assert found.aborted_plain >= alone.aborted_plain > 10
    assert found.aborted <= 2
    assert found.fakes == alone.fakes + 18 * len(instances) == 432
    start = "432 fake canaries on your last day (72 of instances, 360 of users), "
    assert found.sentence.startswith(start)
    assert f" and {alone.aborted_plain} aborted; with " in found.sentence


@pytest.mark.slow
def test_independent_errors_on_every_cut_ask_for_nothing() -> None:
    """Errors without bursts are plain by instance and by user."""
    users = coarse("equal", 0.001)
    cuts = (Parts(of="instances", shards=instances_of(users)), Parts(of="users", shards=users))
    found = replay.replayed_on(cuts, POLICY, tick_s=5.0)
    assert found.plan == PLAIN
    assert "(72 of instances, 360 of users)" in found.sentence
    assert found.sentence.endswith("aborted: errors count in full.")


@pytest.mark.slow
def test_plan_holds_on_every_cut() -> None:
    """Where no cap tames the users and no divisor the instances, a little of both does, on each of them."""
    cuts = (
        Parts(of="instances", shards=coarse("single-instance incidents", 0.001, HOURS // 2)),
        Parts(of="users", shards=coarse("user bursts", 0.001, HOURS // 2)),
    )
    found = replay.replayed_on(cuts, POLICY, tick_s=5.0)
    assert found.plan.block_s is not None
    assert 1 < found.plan.phi < replay.PHIS[-1]
    told = f"; with the evidence of any {found.plan.block_s:g} s capped and divided by {found.plan.phi:g}, "
    assert told in found.sentence
    for cut in cuts:
        day = replay._day(cut.shards, POLICY, 5.0)
        assert not replay._passes(day, replay._trial(day, PLAIN))
        assert replay._passes(day, replay._trial(day, found.plan))


def failing_in_turn(*, ticks: int = 3600, turn: int = 600) -> tuple[Shard, ...]:
    """Noise that no plan tames: one of four fails half of its requests, then the next."""
    return tuple(
        Shard(
            requests=(50,) * ticks,
            errors=tuple(25 if (tick // turn) % 4 == at else 0 for tick in range(ticks)),
        )
        for at in range(4)
    )


def test_cut_that_no_plan_tames_gets_the_strictest_one_found() -> None:
    """A whole day of failing hours: a second cut that is quiet does not make it worse."""
    wild = failing_in_turn(ticks=1440, turn=60)
    alone = replay.replayed(wild, POLICY, tick_s=60.0)
    calm = tuple(Shard(requests=(50,) * 1440, errors=(0, 1) * 10 + (0,) * 1420) for _ in range(2))
    found = replay.replayed_on(
        (Parts(of="instances", shards=calm), Parts(of="users", shards=wild)), POLICY, tick_s=60.0
    )
    assert 0 < found.aborted <= alone.aborted
    assert found.plan.block_s == replay.BLOCKS_S[-1] or found.plan.phi >= replay._MIXED_PHIS[-1]


def test_cut_without_history_has_no_say() -> None:
    """A single instance, or users without errors, leave the plan to the other cut."""
    known = failing_in_turn()
    quiet = tuple(Shard(requests=(50,) * 9, errors=(0,) * 9) for _ in range(20))
    cuts = (Parts(of="instances", shards=known[:1]), Parts(of="users", shards=quiet))
    assert replay.replayed_on(cuts, POLICY, tick_s=1.0) == replay.replayed((), POLICY, tick_s=1.0)
    cuts = (Parts(of="users", shards=quiet), Parts(of="instances", shards=known))
    found = replay.replayed_on(cuts, POLICY, tick_s=1.0)
    alone = replay.replayed(known, POLICY, tick_s=1.0)
    assert (found.plan, found.fakes, found.aborted) == (alone.plan, alone.fakes, alone.aborted)
    assert found.sentence == alone.sentence.replace("day,", f"day ({found.fakes} of instances),")


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

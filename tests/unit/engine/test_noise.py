"""Replays of the last day: when they run, what becomes of their answer, and that they end with us."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import structlog

from tests.support.builders import KEY, environment, placed
from tidegate import ports
from tidegate.core import policy, replay
from tidegate.core.counters import USER_SHARDS
from tidegate.core.replay import Replay
from tidegate.core.sequential import PLAIN, Counted, Plan
from tidegate.engine import noise
from tidegate.testing.clock import ManualClock
from tidegate.testing.series import MemorySeries

START = 1_700_002_800
LIVE = {KEY: placed(environment().live("r1").state, "r1")}
DEADLINE_S = 30.0
NOBODY = ports.UserCounts()


def counts(service: str, instance: int, requests: Counted, errors: Counted = ()) -> ports.InstanceCounts:
    return ports.InstanceCounts(service=service, instance=instance, requests=requests, errors=errors)


def day(*, ticks: int = 400, burst: int = 0) -> tuple[ports.InstanceCounts, ...]:
    """Three instances, few errors; `burst`: in some ticks one instance fails so many requests."""
    chance = random.Random(7)
    first = START // ports.TICK_S - ticks
    found = []
    for instance in range(3):
        requests = tuple((first + tick, 400) for tick in range(ticks))
        errors = [(first + tick, int(chance.random() < 0.2)) for tick in range(ticks)]
        for tick in range(40 * instance, ticks if burst else 0, 120):
            errors[tick] = (first + tick, burst)
        found.append(counts("web", instance, requests, tuple(cell for cell in errors if cell[1])))
    return tuple(found)


def crowd(
    *, ticks: int = 400, burst: int = 0, share: Sequence[float] = (1.0,) * USER_SHARDS
) -> ports.UserCounts:
    """Users with few errors; `burst`: now and then one has so many at once; `share`: of errors by part."""
    chance = random.Random(5)
    first = START // ports.TICK_S - ticks
    errors: Counted = ()
    for tick in range(ticks):
        failed = [int(chance.random() < 0.02 * each) for each in share]
        if burst and tick % 40 == 0:
            failed[chance.randrange(USER_SHARDS)] += burst
        cells = enumerate(failed, USER_SHARDS * (first + tick))
        errors += tuple(cell for cell in cells if cell[1])
    return ports.UserCounts(requests=tuple((first + tick, 2000) for tick in range(ticks)), errors=errors)


class Desk:
    """Replays over a series in memory, in virtual time; the process is a real one."""

    def __init__(
        self, history: tuple[ports.InstanceCounts, ...] = (), users: ports.UserCounts = NOBODY
    ) -> None:
        self.clock = ManualClock(now=float(START))
        self.kept = MemorySeries()
        self.kept.add((ports.Recorded(key=KEY, instances=history, users=users),))
        self.noise = noise.Noise(self.kept, self.clock)

    def until_done(self) -> None:
        """Step until the process that runs has ended."""
        assert self.noise._run is not None, "none was begun"
        end = time.monotonic() + DEADLINE_S
        while self.noise._run is not None:
            assert time.monotonic() < end, "it never ended"
            self.noise._run.process.wait(DEADLINE_S)
            self.noise.step(LIVE)

    def step(self) -> bool:
        """Whether a replay runs after a step."""
        self.noise.step(LIVE)
        return self.noise._run is not None


@pytest.fixture
def desk() -> Iterator[Desk]:
    one = Desk(day())
    with structlog.testing.capture_logs():
        yield one
    one.noise.close()


@pytest.mark.slow
def test_day_is_replayed_and_its_answer_kept(desk: Desk) -> None:
    """The first step recalls what is known, the second begins, and the answer is the pure function's."""
    assert not desk.step()
    assert (desk.noise.plan(KEY), desk.noise.sentence(KEY)) == (PLAIN, "")
    assert desk.step()
    desk.until_done()
    cuts = noise.cuts_of(desk.kept.instances(KEY, since=0, until=2**40), NOBODY)
    assert [cut.of for cut in cuts] == ["instances"]
    found = replay.replayed_on(cuts, policy.DEFAULT, tick_s=ports.TICK_S)
    assert desk.kept.noise(KEY) == ports.Noise(at=float(START), replay=found)
    assert found.fakes > 0
    assert desk.noise.sentence(KEY) == found.sentence
    assert desk.noise.plan(KEY) == found.plan


@pytest.mark.slow
def test_noisy_day_makes_the_next_deploy_careful() -> None:
    """An instance that fails in bursts now and then must not abort the next good release."""
    desk = Desk(day(burst=120))
    desk.step()
    desk.step()
    desk.until_done()
    assert desk.noise.plan(KEY) != PLAIN
    assert "fake canaries" in desk.noise.sentence(KEY)


@pytest.mark.slow
def test_bursts_of_users_make_the_next_deploy_careful_too() -> None:
    """A day whose instances are calm, but not its users, asks for a plan that suits both."""
    desk = Desk(day(), crowd(ticks=2400, burst=40))
    desk.step()
    desk.step()
    desk.until_done()
    assert desk.noise.plan(KEY) != PLAIN
    assert "(9 of instances, 400 of users), 0 and " in desk.noise.sentence(KEY)


def test_single_instance_is_replayed_by_its_users() -> None:
    """It has no other to be compared with, but it has many users; a few minutes of them are too few."""
    desk = Desk(day()[:1], crowd())
    desk.step()
    assert desk.step()
    desk.noise.close()
    desk = Desk(day(ticks=100)[:1], crowd(ticks=100))
    desk.step()
    assert not desk.step()


@pytest.mark.slow
def test_no_more_than_one_an_hour_and_only_with_new_history(desk: Desk) -> None:
    """An hour later the same day is not replayed again; with ten minutes of new requests it is."""
    desk.step()
    desk.step()
    desk.until_done()
    desk.clock.advance(noise.EVERY_S - 1)
    assert not desk.step()
    desk.clock.advance(1)
    assert not desk.step(), "nothing new came"
    first = int(desk.clock.now()) // ports.TICK_S - 300
    new = tuple(counts("web", each, tuple((first + tick, 5) for tick in range(130))) for each in range(2))
    desk.kept.add((ports.Recorded(key=KEY, instances=new),))
    assert not desk.step(), "it was looked at a moment ago"
    desk.clock.advance(noise.LOOK_AGAIN_S)
    assert desk.step()


def test_restart_remembers_the_plan_and_the_hour(desk: Desk) -> None:
    """What the newest replay found counts over restarts, and so does when it ran."""
    plan = Plan(phi=4.0)
    known = Replay(plan=plan, fakes=480, aborted_plain=9, aborted=1, sentence="Nine.")
    desk.kept.keep_noise(KEY, ports.Noise(at=START - 1000.0, replay=known))
    desk.step()
    assert (desk.noise.plan(KEY), desk.noise.sentence(KEY)) == (plan, "Nine.")
    assert not desk.step()
    desk.clock.advance(noise.EVERY_S - 1000.0 + 1.0)
    assert desk.step()


@pytest.mark.parametrize(
    "history",
    [(), day()[:1], day(ticks=100)],
    ids=["nothing", "one-instance", "eight-minutes"],
)
def test_too_little_history_is_no_replay(history: tuple[ports.InstanceCounts, ...]) -> None:
    """No process is started for what nothing can be learned from: the plan stays plain."""
    desk = Desk(history)
    desk.step()
    assert not desk.step()
    assert desk.noise.plan(KEY) == PLAIN


@pytest.mark.parametrize(
    "command",
    [
        (sys.executable, "-c", "raise SystemExit(3)"),
        (sys.executable, "-c", "print('nonsense')"),
        ("/nowhere/python",),
    ],
    ids=["fails", "nonsense", "no-program"],
)
def test_replay_that_fails_changes_nothing(desk: Desk, command: tuple[str, ...]) -> None:
    """The plan stays as it was, and it is tried again an hour later."""
    desk.noise.command = command
    desk.step()
    if desk.step():
        desk.until_done()
    assert desk.noise.plan(KEY) == PLAIN
    assert desk.kept.noise(KEY) is None
    desk.noise.command = noise.COMMAND
    assert not desk.step()
    desk.clock.advance(noise.EVERY_S)
    assert desk.step()


def test_replay_that_never_ends_is_given_up(desk: Desk) -> None:
    """After half an hour of the clock it is killed."""
    desk.noise.command = (sys.executable, "-c", "import time; time.sleep(600)")
    desk.step()
    assert desk.step()
    assert desk.noise._run is not None
    process = desk.noise._run.process
    assert desk.step()
    desk.clock.advance(noise.LIMIT_S)
    assert not desk.step()
    assert process.returncode == -signal.SIGKILL


def test_replay_is_ended_with_us(desk: Desk) -> None:
    """Closing ends it; closing again is nothing."""
    desk.noise.command = (sys.executable, "-c", "import time; time.sleep(600)")
    desk.step()
    desk.step()
    assert desk.noise._run is not None
    process = desk.noise._run.process
    desk.noise.close()
    desk.noise.close()
    assert process.returncode == -signal.SIGKILL


PARENT = """
import subprocess, sys, os, time
code = "import sys; from tidegate.engine import noise; noise._be_humble(int(sys.argv[1])); "
code += "print(sys.argv[1], flush=True); import time; time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", code, str(os.getpid())], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.slow
def test_replay_dies_with_a_control_plane_that_is_killed() -> None:
    """Kill -9 leaves no process behind, and while it lives it is last in the queue."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        try:
            assert os.getpriority(os.PRIO_PROCESS, child) == 19
        finally:
            parent.kill()
    end = time.monotonic() + DEADLINE_S
    while _lives(child):
        assert time.monotonic() < end, "it outlived its parent"
        time.sleep(0.01)


def _lives(pid: int) -> bool:
    """Neither gone nor dead and not yet collected by whoever inherited it."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_shards_mix_services_as_a_canary_would() -> None:
    """Each part has instances of every service that has several; those of a single instance are left out."""
    history = (
        counts("api", 0, ((100, 1),)),
        counts("api", 1, ((101, 2),)),
        counts("api", 2, ((102, 4),), ((102, 1),)),
        counts("lonely", 0, ((90, 9),)),
        counts("web", 0, ((100, 10),)),
        counts("web", 1, ((103, 20),), ((103, 5),)),
    )
    assert noise.shards_of(history) == (
        replay.Shard(requests=(11, 0, 4, 0), errors=(0, 0, 1, 0)),
        replay.Shard(requests=(0, 2, 0, 20), errors=(0, 0, 0, 5)),
    )


def test_many_instances_are_put_together() -> None:
    """More than twenty parts would take longer and say no more."""
    history = tuple(counts("web", instance, ((100, 1),)) for instance in range(45))
    shards = noise.shards_of(history)
    assert len(shards) == noise.SHARDS_MAX
    assert sum(sum(shard.requests) for shard in shards) == 45
    assert noise.shards_of(()) == ()
    assert noise.shards_of(history[:1]) == ()


# --- users -----------------------------------------------------------------------------------------


def test_users_have_equal_shares_and_their_own_errors() -> None:
    """What cannot be divided by twenty goes round, and nobody has fewer requests than errors."""
    parts = range(USER_SHARDS)
    errors = tuple((USER_SHARDS * 100 + part, 1 + 4 * (part == 7)) for part in parts)
    late = (USER_SHARDS * 103 + 19, 1)
    users = ports.UserCounts(requests=((100, 43), (102, 7), (103, 40)), errors=(*errors, late))
    shards = noise.user_shards_of(users)
    assert len(shards) == USER_SHARDS
    assert [sum(shard.requests[tick] for shard in shards) for tick in (1, 2, 3)] == [0, 7, 40]
    assert [shard.requests[0] for shard in shards] == [2] * 7 + [5] + [2] * 9 + [3] * 3
    assert [shard.errors[0] for shard in shards] == [1] * 7 + [5] + [1] * 12
    assert [shard.errors[3] for shard in shards] == [0] * 19 + [1]
    assert noise.user_shards_of(NOBODY) == ()


@pytest.mark.parametrize(
    ("share", "learned"),
    [
        ((1.0,) * 20, True),
        ((0.8, 1.2) * 10, True),
        ((20.0,) + (0.0,) * 19, False),
        ((7.0,) * 3 + (0.0,) * 17, False),
        ((2.0, 0.0) * 10, False),
        ((4.0,) + (0.85,) * 19, False),
    ],
    ids=["even", "nearly", "one-proxy", "three-proxies", "ten-addresses", "one-large-part"],
)
def test_addresses_that_are_no_twentieths_of_the_users_are_not_learned_from(
    share: Sequence[float], learned: bool
) -> None:
    """Behind a proxy one part has all the errors: taken for a burst, it would make every judge blind."""
    users = crowd(ticks=8000, share=share)
    assert bool(noise.user_shards_of(users)) == learned
    assert [cut.of for cut in noise.cuts_of((), users)] == ["users"] * learned


def test_bursts_are_no_uneven_addresses() -> None:
    """Large ones in few stretches of the day are what is to be learned."""
    assert noise.user_shards_of(crowd(ticks=4000, burst=200))
    calm = crowd(ticks=4000)
    (cell, _), *_ = calm.errors
    loud = ports.UserCounts(requests=calm.requests, errors=((cell, 5000), *calm.errors[1:]))
    assert max(sum(shard.errors) for shard in noise.user_shards_of(loud)) >= 5000

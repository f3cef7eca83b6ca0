"""How noisy the live release is by itself: its last day is replayed against itself, once an hour.

Hides the process that replays, its pace and its fate. Invariants:

- a replay takes up to a minute of a processor: it runs in a process of its own, with the lowest
  priority, that is given values and answers with a value, and that ends with us, however we end;
- one at a time, no more than one an hour for each environment, and none before there is enough new history;
- the newest one that has ended counts for the next deploy, and is kept over restarts; without history the
  plan is the plain one. A replay that fails changes nothing.

What is replayed are the instances, and the parts of the users, of whatever release was live at the time: a
day has noise of its own, whichever releases it saw. One plan must hold on both. Services with a single
instance have nothing to be compared with; their users have one another.
Neighbours: `series` calls `step` from its thread; `noise_counts` counted; `core.replay` decides.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

import pydantic
import structlog

from tidegate import ports
from tidegate.core import model, replay
from tidegate.core.counters import USER_SHARDS
from tidegate.core.model import EnvironmentKey
from tidegate.core.policy import AnalysisPolicy
from tidegate.core.sequential import PLAIN, Counted, Plan

#: Between two replays of an environment.
EVERY_S: Final = 3600.0
#: How soon it is looked again whether there is enough history: reading a day takes a moment.
LOOK_AGAIN_S: Final = 600.0
#: New ticks with requests that are worth a replay: ten minutes of them.
ENOUGH_TICKS: Final = 120
DAY_S: Final = 24 * 3600
#: More instances are put together: so many parts of a day are 480 fake canaries.
SHARDS_MAX: Final = 20
SHARDS_MIN: Final = 2
#: A replay that takes so long on this machine is given up.
LIMIT_S: Final = 1800.0
#: Of a processor: the longest replay of one cut that was measured took 25 s, and there are two.
PROCESSOR_LIMIT_S: Final = 300
#: The errors of addresses are looked at in stretches of this length: longer than most bursts.
STRETCH_TICKS: Final = 600 // ports.TICK_S
#: A part of the users may have half as many errors again as the others, besides what is chance.
UNEVEN: Final = 1.5
#: `PR_SET_PDEATHSIG` of prctl(2).
_PARENT_DEATH_SIGNAL: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the process is given."""

    cuts: tuple[replay.Parts, ...]
    policy: AnalysisPolicy


_JOB: Final = pydantic.TypeAdapter(Job)
_REPLAY: Final = pydantic.TypeAdapter(replay.Replay)

#: `python -c` and not `-m`: this module is imported by its package already.
COMMAND: Final = (sys.executable, "-c", "from tidegate.engine import noise; noise.main()")


@dataclass(slots=True, kw_only=True)
class _Run:
    key: EnvironmentKey
    process: subprocess.Popen[bytes]
    answer: IO[bytes]
    began_s: float


@dataclass(slots=True)
class Noise:
    """Replays of all environments. `step` and `close` belong to one thread, the rest to any."""

    kept: ports.Series
    clock: ports.Clock
    command: Sequence[str] = COMMAND
    _newest: dict[EnvironmentKey, ports.Noise] = field(default_factory=dict)
    _due_s: dict[EnvironmentKey, float] = field(default_factory=dict)
    """Monotonic seconds from which on history is looked at again."""
    _run: _Run | None = None
    _log: structlog.typing.FilteringBoundLogger = field(
        default_factory=lambda: structlog.get_logger(part="noise")
    )

    def plan(self, key: EnvironmentKey) -> Plan:
        """For the next deploy."""
        newest = self._newest.get(key)
        return newest.replay.plan if newest else PLAIN

    def sentence(self, key: EnvironmentKey) -> str:
        """What the newest replay found, for people; empty: there was none."""
        newest = self._newest.get(key)
        return newest.replay.sentence if newest else ""

    def step(self, lives: Mapping[EnvironmentKey, model.Placement]) -> None:
        """Take in a replay that has ended, or begin one that is due. Raises StorageError, StoreError."""
        now_s = self.clock.monotonic()
        if self._run is not None:
            self._look_at(self._run, now_s)
            return
        for key, live in lives.items():
            if now_s >= self._due_s.get(key, now_s) and self._begun(key, live, now_s):
                return

    def close(self) -> None:
        """End what runs."""
        if self._run is not None:
            self._run.process.kill()
            self._run.process.wait()
            self._run.answer.close()
            self._run = None

    def _begun(self, key: EnvironmentKey, live: model.Placement, now_s: float) -> bool:
        if key not in self._due_s:
            self._recall(key, now_s)
            return False
        self._due_s[key] = now_s + LOOK_AGAIN_S
        now, newest = int(self.clock.now()), self._newest.get(key)
        counts = self.kept.instances(key, since=now - DAY_S, until=now)
        users = self.kept.users(key, since=now - DAY_S, until=now)
        cuts = cuts_of(counts, users)
        if not cuts or _ticks(counts, users, since=newest.at if newest else 0.0) < ENOUGH_TICKS:
            return False
        self._due_s[key] = now_s + EVERY_S
        job = Job(cuts=cuts, policy=live.spec.analysis)
        try:
            self._run = _started(key, self.command, job, now_s)
        except OSError as error:  # no room for its files, no process to be had: in an hour, perhaps
            self._log.warning("replay cannot begin", environment=str(key), detail=str(error))
        return self._run is not None

    def _recall(self, key: EnvironmentKey, now_s: float) -> None:
        """What is known from before a restart: it may not be time for another one yet."""
        kept = self.kept.noise(key)
        self._due_s[key] = now_s
        if kept is not None:
            self._newest[key] = kept
            self._due_s[key] = now_s + max(0.0, min(EVERY_S, kept.at + EVERY_S - self.clock.now()))

    def _look_at(self, run: _Run, now_s: float) -> None:
        status = run.process.poll()
        if status is None and now_s - run.began_s < LIMIT_S:
            return
        try:
            if status == 0:
                run.answer.seek(0)
                noise = ports.Noise(at=self.clock.now(), replay=_REPLAY.validate_json(run.answer.read()))
                self._newest[run.key] = noise
                self.kept.keep_noise(run.key, noise)
                self._log.info("replayed", environment=str(run.key), found=noise.replay.sentence)
            else:
                self._log.warning("replay failed", environment=str(run.key), status=status)
        except pydantic.ValidationError:
            self._log.warning("replay answered nonsense", environment=str(run.key))
        finally:
            self.close()


def cuts_of(counts: tuple[ports.InstanceCounts, ...], users: ports.UserCounts) -> tuple[replay.Parts, ...]:
    """The last day, cut in every way that it can be."""
    both = (
        replay.Parts(of="instances", shards=shards_of(counts)),
        replay.Parts(of="users", shards=user_shards_of(users)),
    )
    return tuple(cut for cut in both if len(cut.shards) >= SHARDS_MIN)


def shards_of(counts: tuple[ports.InstanceCounts, ...]) -> tuple[replay.Shard, ...]:
    """Instances as parts of the release: each part has its share of every service, as a canary would."""
    instances: dict[str, list[ports.InstanceCounts]] = {}
    for each in counts:
        instances.setdefault(each.service, []).append(each)
    several = {service: each for service, each in instances.items() if len(each) >= SHARDS_MIN}
    number = min([SHARDS_MAX, *(len(each) for each in several.values())]) if several else 0
    used = [each for group in several.values() for each in group]
    ticks = [tick for each in used for tick, _ in (*each.requests[:1], *each.requests[-1:])]
    if not ticks:
        return ()
    first, length = min(ticks), max(ticks) - min(ticks) + 1
    parts = [([0] * length, [0] * length) for _ in range(number)]
    for group in several.values():
        for turn, each in enumerate(group):
            requests, failed = parts[turn % number]
            _pour(requests, each.requests, first)
            _pour(failed, each.errors, first)
    return tuple(replay.Shard(requests=tuple(requests), errors=tuple(failed)) for requests, failed in parts)


def user_shards_of(users: ports.UserCounts) -> tuple[replay.Shard, ...]:
    """Twentieths of the users; empty if nothing is known of them, or if they are not equal parts.

    Each part is given an equal share of all requests, since only errors are counted by part. A part with
    heavy users looks burstier than it is, and the plan becomes more careful than it had to be: that errs on
    the side of good releases. It must not err far, because a plan that is much too careful finds no bad
    release either. Behind a proxy all users have a few addresses, and these parts are no twentieths.
    """
    ticks = [tick for tick, _ in (*users.requests[:1], *users.requests[-1:])]
    if not ticks:
        return ()
    first, length = ticks[0], ticks[-1] - ticks[0] + 1
    requests = [0] * length
    _pour(requests, users.requests, first)
    failed = [[0] * length for _ in range(USER_SHARDS)]
    for cell, count in users.errors:
        tick, part = divmod(cell, USER_SHARDS)
        _pour(failed[part], ((tick, count),), first)
    if not _are_even(failed):
        return ()
    return tuple(_user_shard(requests, part, errors) for part, errors in enumerate(failed))


def _user_shard(requests: list[int], part: int, failed: list[int]) -> replay.Shard:
    """An equal share, what cannot be divided in turn; but who has so many errors has asked so often."""
    shares = ((every + part) // USER_SHARDS for every in requests)
    return replay.Shard(requests=tuple(map(max, shares, failed)), errors=tuple(failed))


def _are_even(failed: list[list[int]]) -> bool:
    """Whether no part has many more errors than the others all day: bursts are soon over, addresses stay.

    What a stretch has above four times its part's median stretch is a burst, and does not count.
    """
    typical = [_typical(part) for part in failed]
    mean = math.fsum(typical) / len(typical)
    return max(typical) <= UNEVEN * mean + 3 * math.sqrt(mean)


def _typical(failed: list[int]) -> float:
    stretches = [sum(failed[begin : begin + STRETCH_TICKS]) for begin in range(0, len(failed), STRETCH_TICKS)]
    usual = max(1.0, 4 * statistics.median(stretches))
    return math.fsum(min(count, usual) for count in stretches)


def _pour(into: list[int], cells: Counted, first: int) -> None:
    for tick, count in cells:
        if 0 <= tick - first < len(into):
            into[tick - first] += count


def _ticks(counts: tuple[ports.InstanceCounts, ...], users: ports.UserCounts, *, since: float) -> int:
    """Ticks with requests that began since."""
    of_all = (users.requests, *(each.requests for each in counts))
    return len({tick for requests in of_all for tick, _ in requests if tick * ports.TICK_S >= since})


# --- the process -----------------------------------------------------------------------------------


def _started(key: EnvironmentKey, command: Sequence[str], job: Job, now_s: float) -> _Run:
    """Files, not pipes: nobody waits for the other to read."""
    with contextlib.ExitStack() as undo, tempfile.TemporaryFile() as given:
        answer = undo.enter_context(tempfile.TemporaryFile())
        given.write(_JOB.dump_json(job))
        given.seek(0)
        process = subprocess.Popen(
            [*command, str(os.getpid())], stdin=given, stdout=answer, start_new_session=True
        )
        undo.pop_all()  # closed when the process has ended
    return _Run(key=key, process=process, answer=answer, began_s=now_s)


def main() -> None:
    """Of the process: a job on standard input, a replay on standard output, our parent's pid as argument."""
    _be_humble(parent=int(sys.argv[-1]))
    job = _JOB.validate_json(sys.stdin.buffer.read())
    found = replay.replayed_on(job.cuts, job.policy, tick_s=ports.TICK_S)
    sys.stdout.buffer.write(_REPLAY.dump_json(found))


def _be_humble(parent: int) -> None:
    """Last in the queue for processors, bounded, and gone when our parent is."""
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the control plane has gone")
    os.nice(19)
    with contextlib.suppress(OSError):  # a kernel without groups by session, where nice alone counts
        Path("/proc/self/autogroup").write_text("19")
    resource.setrlimit(resource.RLIMIT_CPU, (PROCESSOR_LIMIT_S, PROCESSOR_LIMIT_S))

"""The stable release judged against itself, on its own last day: does its noise abort good releases?

Hides how the day is cut and what is tried; `sequential` has the bets, `judge` takes the `Plan`. The tests
of `sequential` take requests as independent of one another. Bursts of one user and incidents of one
instance are not, and no formula knows how large they are, but yesterday does. Each of the stable
release's instances plays the canary against all others in each of the day's windows, and so does each
part of its users, in the very process that will judge the canary. Every one of these canaries is good.
If too many would have been aborted, evidence is made to count less, in the cheaper of two ways:

- *tempering*: evidence is divided by phi, which suits many small bursts;
- *block cap*: the evidence of any `block_s` seconds counts at most 1.5 nats, so that an abort needs about
  four separate blocks, which suits few large incidents;
- both, if neither suits instances and users alike.

Invariants: pure and deterministic; one plan, which holds on every cut of the day; bounded work for each
cut, because ticks are merged up to 5 s until there are few enough of them; both ways leave the guarantee
for independent requests as it is. Not known from it: kinds of noise that yesterday did not have.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Final

from tidegate.core import sequential
from tidegate.core.policy import AnalysisPolicy
from tidegate.core.sequential import PLAIN, Floats, Plan

#: What the ladders try, from the mildest on.
PHIS: Final = (1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 24.0, 40.0, 80.0, 120.0)
BLOCKS_S: Final = (5.0, 10.0, 20.0, 60.0)
#: Beside a cap: a larger one would leave nothing to judge by.
_MIXED_PHIS: Final = PHIS[:7]
WINDOWS: Final = 24
#: A window shorter than this is no rollout.
_WINDOW_MIN_S: Final = 600.0
#: Chances at which the share of crossings must hold, beside the permitted false aborts: 480 runs say little
#: about 1 %, but the whole tail speaks.
_LEVELS: Final = (0.2, 0.1, 0.05, 0.02)
_SHARDS_MIN: Final = 2
#: Below so many errors in the day there is nothing to learn about bursts.
_ERRORS_MIN: Final = 20
#: Evaluated ticks of one pass: below a second of one processor; a day in ticks of 5 s may have 350 000.
_WORK_MAX: Final = 150_000
_MERGES: Final = (1, 2, 5)
#: The regression that the choice between the two ways is tried on.
_IMPLANTED: Final = 5
#: It is tried in every third window.
_DELAY_WINDOWS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Requests and errors of a part of the stable release's users, or of an instance, per tick."""

    requests: tuple[int, ...]
    errors: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """What the stable release's own noise asks for."""

    plan: Plan
    fakes: int
    """Good canaries that were played; 0: too little history."""
    aborted_plain: int
    """Of them, by evidence that is neither tempered nor capped."""
    aborted: int
    """Of them, under the plan."""
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """The release, cut in one way."""

    of: str
    """What a shard consists of, for people: instances, users."""
    shards: tuple[Shard, ...]


def replayed(shards: tuple[Shard, ...], policy: AnalysisPolicy, *, tick_s: float) -> Replay:
    """The plan for the next rollout. ValueError if the shards' ticks differ in number."""
    return replayed_on((Parts(of="", shards=shards),), policy, tick_s=tick_s)


def replayed_on(cuts: tuple[Parts, ...], policy: AnalysisPolicy, *, tick_s: float) -> Replay:
    """One plan that holds on every cut, each for itself; a cut that has too little history has no say.

    ValueError if the ticks of one cut's shards differ in number.
    """
    known = tuple(cut for cut in cuts if _teaches(cut.shards))
    if not known:
        sentence = "Too little history to learn the stable release's noise from: errors count in full."
        return Replay(plan=PLAIN, fakes=0, aborted_plain=0, aborted=0, sentence=sentence)
    names, days = tuple(cut.of for cut in known), tuple(_day(cut.shards, policy, tick_s) for cut in known)
    chance = policy.false_abort
    plain = _trials(days, PLAIN)
    if all(each.crossings(chance) <= chance * len(each.peaks) and each.tail_holds() for each in plain):
        return _result(names, plain, PLAIN, plain, chance)
    capped = _mildest(days, tuple(Plan(block_s=block_s) for block_s in BLOCKS_S))
    tempered = _mildest(days, tuple(Plan(phi=phi) for phi in PHIS))
    tried = [capped, tempered]
    if len(days) > 1 and not any(_all_pass(days, found[1]) for found in tried):
        # What suits one cut need not suit the other, e.g. a cap for incidents of instances and a divisor for
        # bursts of users: a little of both is milder than the last rung of either.
        tried += (
            _mildest(days, tuple(Plan(phi=phi, block_s=block_s) for phi in _MIXED_PHIS))
            for block_s in BLOCKS_S
        )
    good = [found for found in tried if _all_pass(days, found[1])]
    plan, trials = (
        min(good, key=lambda found: _cost(days, found[0]))
        if good
        else min(tried, key=lambda found: sum(each.crossings(chance) for each in found[1]))
    )
    return _result(names, plain, plan, trials, chance)


def _teaches(shards: tuple[Shard, ...]) -> bool:
    if len({len(counts) for shard in shards for counts in (shard.requests, shard.errors)}) > 1:
        raise ValueError("all shards of a replay must have the same ticks")
    return len(shards) >= _SHARDS_MIN and sum(sum(shard.errors) for shard in shards) >= _ERRORS_MIN


def _result(
    names: tuple[str, ...], plain: tuple[_Trial, ...], plan: Plan, trials: tuple[_Trial, ...], chance: float
) -> Replay:
    fakes = [len(each.peaks) for each in plain]
    before, after = ([each.crossings(chance) for each in of] for of in (plain, trials))
    whose = ", ".join(f"{number} of {name}" for number, name in zip(fakes, names, strict=True) if name)
    said = f" ({whose})" if whose else ""
    played = f"{sum(fakes)} fake canaries on your last day{said}, {_listed(before)} aborted"
    if plan == PLAIN:
        sentence = f"{played}: errors count in full."
    else:
        sentence = f"{played}; with {_told(plan)}, {_listed(after)}."
    return Replay(
        plan=plan, fakes=sum(fakes), aborted_plain=sum(before), aborted=sum(after), sentence=sentence
    )


def _told(plan: Plan) -> str:
    """What is done to evidence."""
    if plan.block_s is None:
        return f"evidence divided by {plan.phi:g}"
    capped = f"the evidence of any {plan.block_s:.0f} s capped"
    return capped if plan.phi == 1 else f"{capped} and divided by {plan.phi:g}"


def _listed(counts: list[int]) -> str:
    return " and ".join(map(str, counts))


# --- the day ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Day:
    """The history, cut and added up."""

    policy: AnalysisPolicy
    bet: sequential.PairBet
    shards: tuple[Shard, ...]
    total: Shard
    eventful: tuple[tuple[int, ...], ...]
    """Per window, the ticks that have an error anywhere: the others cost only rent."""
    tick_s: float


def _day(shards: tuple[Shard, ...], policy: AnalysisPolicy, tick_s: float) -> _Day:
    days = (_cut(shards, policy, tick_s, merge) for merge in _MERGES)
    coarsest = _MERGES[-1] * tick_s
    return next(day for day in days if day.tick_s == coarsest or _work(day) <= _WORK_MAX)


def _work(day: _Day) -> int:
    return sum(map(len, day.eventful)) * len(day.shards)


def _cut(shards: tuple[Shard, ...], policy: AnalysisPolicy, tick_s: float, merge: int) -> _Day:
    merged = tuple(_merged(shard, merge) for shard in shards)
    total = Shard(
        requests=tuple(map(sum, zip(*(shard.requests for shard in merged), strict=True))),
        errors=tuple(map(sum, zip(*(shard.errors for shard in merged), strict=True))),
    )
    return _Day(
        policy=policy,
        bet=sequential.worse(margin=policy.margin, allowance=policy.allowance),
        shards=merged,
        total=total,
        eventful=tuple(_windows(total.errors, tick_s * merge)),
        tick_s=tick_s * merge,
    )


def _merged(shard: Shard, merge: int) -> Shard:
    if merge == 1:
        return shard
    return Shard(
        requests=tuple(sum(shard.requests[at : at + merge]) for at in range(0, len(shard.requests), merge)),
        errors=tuple(sum(shard.errors[at : at + merge]) for at in range(0, len(shard.errors), merge)),
    )


def _windows(errors: tuple[int, ...], tick_s: float) -> Iterator[tuple[int, ...]]:
    ticks = len(errors)
    windows = max(1, min(WINDOWS, int(ticks * tick_s / _WINDOW_MIN_S)))
    for window in range(windows):
        yield tuple(
            tick for tick in range(window * ticks // windows, (window + 1) * ticks // windows) if errors[tick]
        )


# --- trials ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    """Highest log evidence that each fake canary reached."""

    peaks: Floats
    """Of all, or of those until it was clear that too many cross."""

    def crossings(self, chance: float) -> int:
        """Fakes that reached 1 / chance."""
        return sum(peak >= -math.log(chance) for peak in self.peaks)

    def tail_holds(self) -> bool:
        return all(self.crossings(level) <= level * len(self.peaks) for level in _LEVELS)


def _permitted(day: _Day) -> int:
    """Half of the false aborts: the ladder is climbed until a rung fits, which flatters that rung."""
    return int(day.policy.false_abort / 2 * len(day.shards) * len(day.eventful))


def _passes(day: _Day, trial: _Trial) -> bool:
    return trial.crossings(day.policy.false_abort) <= _permitted(day) and trial.tail_holds()


def _trial(day: _Day, plan: Plan, permitted: float = math.inf) -> _Trial:
    """All fakes, or as many as show that more than permitted are aborted."""
    peaks, aborted = [], 0
    for shard, ticks in product(day.shards, day.eventful):
        peak = _played(day, plan, _Fake(shard=shard, errors=shard.errors, ticks=ticks), math.inf).peak
        peaks.append(peak)
        aborted += peak >= day.policy.abort_bound
        if aborted > permitted:
            break
    return _Trial(peaks=tuple(peaks))


def _trials(days: tuple[_Day, ...], plan: Plan) -> tuple[_Trial, ...]:
    """All fakes of all days."""
    return tuple(_trial(day, plan) for day in days)


def _all_pass(days: tuple[_Day, ...], trials: tuple[_Trial, ...]) -> bool:
    return all(_passes(day, trial) for day, trial in zip(days, trials, strict=True))


def _passed(days: tuple[_Day, ...], plan: Plan) -> tuple[_Trial, ...] | None:
    """The trials of all days if they all pass; it ends with the first that does not."""
    found = []
    for day in days:
        found.append(_trial(day, plan, _permitted(day)))
        if not _passes(day, found[-1]):
            return None
    return tuple(found)


def _mildest(days: tuple[_Day, ...], ladder: tuple[Plan, ...]) -> tuple[Plan, tuple[_Trial, ...]]:
    """The first rung that passes on all days, found by halving; the last one if none does."""
    low, high = 0, len(ladder) - 1
    best = None
    while low <= high:
        middle = (low + high) // 2
        trials = _passed(days, ladder[middle])
        if trials is not None:
            best, high = (ladder[middle], trials), middle - 1
        else:
            low = middle + 1
    return best or (ladder[-1], _trials(days, ladder[-1]))


def _cost(days: tuple[_Day, ...], plan: Plan) -> float:
    """Of the time until a bad canary is found; logarithms, because larger shards need more requests."""
    return math.fsum(math.log1p(_delay(day, plan)) for day in days)


def _delay(day: _Day, plan: Plan) -> float:
    """Mean requests until a fake canary with several shards' errors is aborted."""
    bound = day.policy.abort_bound
    spent = []
    for at, shard in enumerate(day.shards):
        donors = [day.shards[(at + step) % len(day.shards)] for step in range(_IMPLANTED)]
        errors = tuple(map(sum, zip(*(donor.errors for donor in donors), strict=True)))
        spent += [
            _played(day, plan, _Fake(shard=shard, errors=errors, ticks=ticks), bound).requests
            for ticks in day.eventful[::_DELAY_WINDOWS]
        ]
    return math.fsum(spent) / max(1, len(spent))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fake:
    """A canary to be: a shard in one window, with its own errors or with implanted ones."""

    shard: Shard
    errors: tuple[int, ...]
    ticks: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Played:
    """How it went."""

    peak: float
    requests: int
    """Canary requests until the bound, or until the end, in ticks with an error."""


#: Only the ratio of the requests matters to wins and losses: rounded to this many parts, its terms are known
#: already nearly always, and the evidence changes by less than a thousandth.
_SCALE: Final = 100


def _played(day: _Day, plan: Plan, fake: _Fake, bound: float) -> _Played:
    """One fake canary through its window: `sequential.added` and `log_value`, written out for speed.

    tests/unit/core/test_replay.py holds it to the same numbers.
    """
    settled = [0.0] * len(day.bet.ratios)
    running = settled.copy()
    block, peak, served = -1, 0.0, 0
    cap = math.inf if plan.block_s is None else plan.cap
    for tick in fake.ticks:
        n_c, n_s = fake.shard.requests[tick], day.total.requests[tick] - fake.shard.requests[tick]
        if n_c == 0 or n_s == 0:
            continue
        served += n_c
        if plan.block_s is not None and int(tick * day.tick_s / plan.block_s) != block:
            block = int(tick * day.tick_s / plan.block_s)
            settled = [old + min(new, cap) for old, new in zip(settled, running, strict=True)]
            running = [0.0] * len(running)
        x_c = min(fake.errors[tick], n_c)
        x_s = day.total.errors[tick] - fake.shard.errors[tick]
        terms = day.bet.terms(_SCALE, round(_SCALE * n_s / n_c))
        scale = n_c / _SCALE
        running = [
            old + x_c * win - x_s * loss - scale * rent
            for old, win, loss, rent in zip(running, terms.wins, terms.losses, terms.rents, strict=True)
        ]
        if x_c:
            tops = [(old + min(new, cap)) / plan.phi for old, new in zip(settled, running, strict=True)]
            if max(tops) > peak:  # the average of the bets is not above the best of them
                value = sequential.log_sum(tuple(map(sum, zip(day.bet.log_weights, tops, strict=True))))
                peak = max(peak, value)
                if peak >= bound:
                    break
    return _Played(peak=peak, requests=served)

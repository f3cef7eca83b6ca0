"""Each line of the acceptance list: what is simulated, how often, and the table that it makes.

Neighbours: `__main__` picks and prints. Every trial is seeded by its own name and number, so that a run is
the same on any number of processors. A job is a picklable function of its number.
"""

from __future__ import annotations

import math
import multiprocessing
import random
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, Final

from bench.canary import fast, latency, rivals, streams
from bench.report import Table
from tidegate.core import replay
from tidegate.core.sequential import PLAIN, Plan

HOUR: Final = 3600
BASES: Final = (0.001, 0.01)
#: Times the stable share; None: half of all requests fail.
REGRESSIONS: Final = (2.0, 5.0, 20.0, None)
RATES: Final = (10, 100, 1000)
REPLAYED: Final = ("shared outages", "user bursts", "single-instance incidents")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is simulated."""

    nulls: int
    regressions: int
    rivals: int
    latencies: int
    latency_nulls: int
    latency_null_s: int
    promotions: int
    rollouts: int
    days: int
    """Days of noise that are replayed for the plan, per kind and share of errors."""
    day_s: int


FULL: Final = Size(
    nulls=2000,
    regressions=300,
    rivals=200,
    latencies=300,
    latency_nulls=100,
    latency_null_s=HOUR,
    promotions=4000,
    rollouts=1000,
    days=3,
    day_s=86_400,
)
QUICK: Final = Size(
    nulls=20,
    regressions=15,
    rivals=6,
    latencies=15,
    latency_nulls=2,
    latency_null_s=120,
    promotions=40,
    rollouts=2,
    days=1,
    day_s=3_600,
)


def mapped(job: Callable[[int], Any], numbers: Iterable[int], processes: int) -> list[Any]:
    """The job's results for these numbers, in their order."""
    if processes <= 1:
        return [job(number) for number in numbers]
    with multiprocessing.get_context("fork").Pool(processes) as pool:
        return pool.map(job, numbers, chunksize=4)


def interval(hits: int, runs: int) -> tuple[float, float]:
    """95 % (Clopper-Pearson): shares at which so many, or so few, would be a matter of 2.5 %."""
    low = 0.0 if hits == 0 else _root(lambda p: 1 - _below(hits - 1, runs, p), 0.025)
    high = 1.0 if hits == runs else _root(lambda p: 1 - _below(hits, runs, p), 0.975)
    return low, high


def _below(hits: int, runs: int, share: float) -> float:
    """P(at most so many hits)."""
    if share in (0.0, 1.0):
        return 1.0 - share
    log_p, log_q = math.log(share), math.log1p(-share)
    return math.fsum(
        math.exp(
            math.lgamma(runs + 1)
            - math.lgamma(k + 1)
            - math.lgamma(runs - k + 1)
            + k * log_p
            + (runs - k) * log_q
        )
        for k in range(hits + 1)
    )


def _root(rising: Callable[[float], float], target: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < target else (low, middle)
    return (low + high) / 2


def percent(hits: int, runs: int) -> str:
    """With its interval."""
    low, high = interval(hits, runs)
    return f"{100 * hits / runs:.2f} % ({100 * low:.2f} to {100 * high:.2f})"


# --- good rollouts ---------------------------------------------------------------------------------


def plan_for(scenario: str, base: float, size: Size, number: int) -> replay.Replay:
    """What a replay of a day with that noise chooses."""
    rng = random.Random(f"day {scenario} {base} {number}")
    errors, requests = streams.day(scenario, rng, base, size.day_s)
    shards = tuple(replay.Shard(requests=(requests,) * size.day_s, errors=tuple(row)) for row in errors)
    return replay.replayed(shards, fast.DEFAULT, tick_s=1.0)


def _null(scenario: str, base: float, plans: Sequence[Plan], number: int) -> bool:
    rng = random.Random(f"{scenario} {base} {number}")
    return fast.abort(streams.NULLS[scenario](rng, base), HOUR, plans[number % len(plans)]).crossed


def nulls(size: Size, processes: int) -> tuple[Table, bool]:
    """False aborts of an hour looked at each second; whether all are within 1 %."""
    rows, fine = [], True
    for scenario in streams.NULLS:
        for base in BASES:
            plans, words = (PLAIN,), "plain"
            if scenario in REPLAYED:
                found = mapped(partial(plan_for, scenario, base, size), range(size.days), processes)
                plans = tuple(one.plan for one in found)
                words = ", ".join(dict.fromkeys(_words(plan) for plan in plans))
            hits = sum(mapped(partial(_null, scenario, base, plans), range(size.nulls), processes))
            fine = fine and hits <= 0.01 * size.nulls
            rows.append((scenario, f"{100 * base:g} %", words, str(size.nulls), percent(hits, size.nulls)))
    heading = ("good rollouts of an hour", "base", "plan of the replay", "runs", "aborted (95 % interval)")
    return Table(heading=heading, rows=tuple(rows)), fine


def _words(plan: Plan) -> str:
    if plan.block_s is not None:
        return f"cap per {plan.block_s:.0f} s"
    return "plain" if plan.phi == 1 else f"phi {plan.phi:g}"


# --- regressions -----------------------------------------------------------------------------------


def _share(base: float, times: float | None) -> float:
    return 0.5 if times is None else base * times


def _regression(base: float, times: float | None, rate: int, number: int) -> tuple[int | None, int | None]:
    """Requests until the default judge, and one with errors only, abort."""
    found = []
    for judge in (partial(fast.abort, looks=8 * HOUR), partial(fast.abort_on_errors_only, looks=8 * HOUR)):
        rng = random.Random(f"regression {base} {times} {rate} {number}")
        outcome = judge(streams.steady(rng, _share(base, times), base, rate))
        found.append(outcome.requests if outcome.crossed else None)
    return found[0], found[1]


def regressions(size: Size, processes: int) -> tuple[Table, float, int]:
    """N50 over the floor; its geometric mean and how many were missed."""
    rows, logs, only, missed = [], [], [], 0
    for base in BASES:
        for times in REGRESSIONS:
            for rate in RATES:
                found = mapped(partial(_regression, base, times, rate), range(size.regressions), processes)
                missed += sum(one is None or two is None for one, two in found)
                n50, only50 = (statistics.median(pair[at] or math.inf for pair in found) for at in (0, 1))
                bound = rivals.bound(_share(base, times), base, stable_per_canary=streams.STABLE_PER_CANARY)
                floor = max(bound, rate)
                logs.append(math.log(n50 / floor))
                only.append(math.log(only50 / floor))
                name = "50 % fail" if times is None else f"x{times:g}"
                rows.append(
                    (f"{100 * base:g} %", name, str(rate), f"{floor:.0f}", f"{n50:.0f}", f"{n50 / floor:.2f}")
                )
    score = math.exp(statistics.fmean(logs))
    rows.append(("geometric mean", "", "", "", "", f"{score:.2f}"))
    rows.append(("errors the only metric", "", "", "", "", f"{math.exp(statistics.fmean(only)):.2f}"))
    heading = ("base", "canary", "canary req/s", "floor", "N50", "N50 / floor")
    return Table(heading=heading, rows=tuple(rows)), score, missed


# --- beside the rivals -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What one rule did with one rollout of an hour."""

    aborted: bool
    errors: int
    seconds: int


def _beside(base: float, times: float | None, number: int) -> dict[str, _Seen]:
    rng = random.Random(f"rivals {base} {times} {number}")
    looks = list(islice(streams.steady(rng, _share(base, times), base, streams.CANARY_PER_S), HOUR))
    minutes = [tuple(map(sum, zip(*looks[at : at + 60], strict=True))) for at in range(0, HOUR, 60)]
    ours = fast.abort(iter(looks), HOUR)
    seen = {"Tidegate": _Seen(aborted=ours.crossed, errors=ours.errors, seconds=ours.looks)}
    for name, rule in rivals.RULES.items():
        minute = rule(minutes)  # type: ignore[arg-type]
        served = HOUR if minute is None else 60 * minute
        bad = sum(look[1] for look in looks[:served])
        seen[name] = _Seen(aborted=minute is not None, errors=bad, seconds=served)
    return seen


#: Users behind the canary's requests, each with two a minute.
_USERS: Final = streams.CANARY_PER_S * 30


def beside(size: Size, processes: int) -> Table:
    """Every rule on the same streams, 100 canary requests a second at 5 % exposure."""
    rows = []
    for base in BASES:
        for times in (1.0, *REGRESSIONS):
            found = mapped(partial(_beside, base, times), range(size.rivals), processes)
            stream = f"{100 * base:g} % {_kind(times)}"
            rows += [(stream, name, *_columns([one[name] for one in found])) for name in found[0]]
            if times != 1:
                rows.append((stream, "information bound", *_limit(base, times)))
    heading = ("stream", "rule", "aborted", "bad requests (median)", "users hit", "seconds (median)")
    return Table(heading=heading, rows=tuple(rows))


def _kind(times: float | None) -> str:
    return "50 % fail" if times is None else "good" if times == 1 else f"x{times:g}"


def _columns(seen: Sequence[_Seen]) -> tuple[str, str, str, str]:
    aborted = sum(one.aborted for one in seen) / len(seen)
    bad = statistics.median(one.errors for one in seen)
    seconds = statistics.median(one.seconds for one in seen)
    return f"{100 * aborted:.0f} %", f"{bad:.0f}", _users(bad), f"{seconds:.0f}"


def _users(bad: float) -> str:
    return f"{_USERS * (1 - (1 - 1 / _USERS) ** bad):.0f}"


def _limit(base: float, times: float | None) -> tuple[str, str, str, str]:
    share = _share(base, times)
    requests = rivals.bound(share, base, stable_per_canary=streams.STABLE_PER_CANARY)
    bad = requests * share
    return "99 %", f"{bad:.0f}", _users(bad), f"{requests / streams.CANARY_PER_S:.2g}"


# --- promotion, latency, whole rollouts --------------------------------------------------------------


def _promotion(base: float, at_margin: bool, number: int) -> tuple[bool, int]:  # noqa: FBT001 - mapped by position
    rng = random.Random(f"promotion {base} {at_margin} {number}")
    policy = fast.DEFAULT
    share = policy.promote_margin * base + policy.promote_allowance if at_margin else base
    outcome = fast.promote(streams.steady(rng, share, base, streams.CANARY_PER_S), HOUR)
    return outcome.crossed, outcome.looks


def promotions(size: Size, processes: int) -> Table:
    """Early promotion of equal canaries, and of canaries exactly at the margin."""
    rows = []
    for base in BASES:
        for at_margin in (False, True):
            runs = size.promotions if at_margin else size.promotions // 10
            found = mapped(partial(_promotion, base, at_margin), range(runs), processes)
            hits = sum(crossed for crossed, _ in found)
            median = statistics.median(looks for _, looks in found)
            name = "at the margin" if at_margin else "equal"
            time = "-" if at_margin else f"{median:.0f} s"
            rows.append((name, f"{100 * base:g} %", str(len(found)), percent(hits, len(found)), time))
    heading = ("canary, 100 req/s", "base", "runs", "shown no worse in an hour", "median time")
    return Table(heading=heading, rows=tuple(rows))


def _slower(times: float, number: int) -> tuple[int, int] | None:
    return latency.to_abort(random.Random(f"slower {times} {number}"), times, 10)


def latencies(size: Size, processes: int) -> Table:
    """N50 of slower canaries at 10 requests a second."""
    rows = []
    for times in (1.5, 2.0, 3.0):
        found = mapped(partial(_slower, times), range(size.latencies), processes)
        warm, whole = (
            statistics.median(math.inf if one is None else one[at] for one in found) for at in (0, 1)
        )
        missed = sum(one is None for one in found)
        rows.append((f"x{times:g}", str(len(found)), f"{warm:.0f}", f"{whole:.0f}", str(missed)))
    heading = ("latency, 10 req/s", "runs", "N50 after the warm-up", "N50 with it", "missed")
    return Table(heading=heading, rows=tuple(rows))


def _latency_null(kind: str, seconds: int, number: int) -> bool:
    rng = random.Random(f"latency null {kind} {number}")
    return latency.aborted(
        rng, seconds, times=1.02 if kind == "x1.02" else 1.0, slowdowns=kind == "shared slowdowns"
    )


def _rollout(number: int) -> bool:
    return latency.promoted(random.Random(f"rollout {number}"))


def whole(size: Size, processes: int) -> Table:
    """The real judge on errors and latencies together."""
    rows = []
    for kind in ("equal", "x1.02", "shared slowdowns"):
        hits = sum(
            mapped(partial(_latency_null, kind, size.latency_null_s), range(size.latency_nulls), processes)
        )
        name = f"{size.latency_null_s} s, latency {kind}, 10 req/s: aborted"
        rows.append((name, str(size.latency_nulls), percent(hits, size.latency_nulls)))
    good = sum(mapped(_rollout, range(size.rollouts), processes))
    rows.append(("1-5-25-50 % of 100 req/s, 2 m each: promoted", str(size.rollouts), f"{good}"))
    return Table(heading=("errors and latency, real judge", "runs", "result"), rows=tuple(rows))


def needed() -> Table:
    """Errors that abort if the stable release has none: nothing random in it."""
    rows = tuple(
        (f"{100 * exposure:g} %", str(latency.errors_needed(exposure)))
        for exposure in (0.01, 0.05, 0.25, 0.5)
    )
    return Table(heading=("exposure", "canary errors that abort, none in the stable release"), rows=rows)

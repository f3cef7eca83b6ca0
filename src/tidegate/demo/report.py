"""The final table: what was claimed, what was measured, and whether the demo may say that it worked.

Hides whose fault a failed request is. It is a bad release's own if that release signed the answer, or if
nobody did while the bad release was being let in: when the router finds none of its instances alive, it
answers 503, or ends a connection that was used before. But of what nobody signed never more than the router
itself counted on the bad release: everything else that failed counts against the demo. Only of a release that
hangs the router counts nothing, because its users lose their patience first. Pure.
Neighbours: `story` gathers acts, samples and the router's counts; `cli` prints the report.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tidegate.demo import samples as seen
from tidegate.demo.samples import Failure, Sample, Samples, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One rollout of the story, as the control plane told it. Times are monotonic seconds."""

    name: str
    kind: str
    """`first`, `canary`, `bad`, `hanging` (bad: it never answers) or `rollback`."""
    old: int | None
    new: int
    phase: str
    reason: str
    detail: str
    exposure_reached_bps: int
    asked_at_s: float
    ended_at_s: float
    exposed_s: float | None = None
    """Seconds from the first exposure to its end, by the control plane's events; None: nobody was exposed."""

    @property
    def aborted(self) -> bool:
        return self.phase == "aborted"

    @property
    def bad(self) -> bool:
        return self.kind in ("bad", "hanging")


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What the router counted of one release: users' requests, and answers 5xx among them."""

    requests: int = 0
    errors: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseLine:
    """One release in the final table. Seconds are from the first request of all; None: it never answered."""

    release: int
    answers: int
    failed: int
    users: int
    p50_ms: float | None
    p99_ms: float | None
    first_s: float | None
    last_s: float | None
    router: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeLine:
    """One rollout in the final table. `took_s`: from the command to its end; the rest: at the users' end."""

    name: str
    kind: str
    old: int | None
    new: int
    phase: str
    reason: str
    detail: str
    exposure_reached_percent: float
    took_s: float
    switch_s: float | None
    exposed_s: float | None
    users_reached: int
    users_back: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Second:
    """One second of traffic: answers per release (`r1`…), and failed requests."""

    answers: dict[str, int]
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The final table."""

    sent: int
    succeeded: int
    failed: int
    failed_of_bad_release: int
    failed_elsewhere: int
    failures: dict[str, int]
    users: int
    pages_of_two_releases: int
    releases: tuple[ReleaseLine, ...]
    changes: tuple[ChangeLine, ...]
    seconds: tuple[Second, ...]
    duration_s: float
    problems: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Nothing failed but what the bad releases spoilt themselves, and all went as told."""
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"passed": self.passed, **asdict(self)}


def report(
    samples: Samples, acts: tuple[Act, ...], router: Mapping[int, Count], *, duration_s: float
) -> Report:
    """Add everything up. `router`: by release."""
    spoilt = _spoilt(samples, acts, router)
    failed = sum(1 for sample in samples if sample.failure)
    changes = tuple(_change_line(samples, acts, index) for index in range(len(acts)))
    mixed = sum(1 for sample in samples if sample.mixed)
    return Report(
        sent=len(samples),
        succeeded=len(samples) - failed,
        failed=failed,
        failed_of_bad_release=spoilt,
        failed_elsewhere=failed - spoilt,
        failures=seen.failures(samples),
        users=len({sample.user for sample in samples}),
        pages_of_two_releases=mixed,
        releases=tuple(
            _release_line(samples, release, router.get(release, Count()))
            for release in sorted({act.new for act in acts})
        ),
        changes=changes,
        seconds=tuple(
            Second(answers={f"r{release}": count for release, count in answers.items()}, failed=failed)
            for answers, failed in seen.per_second(samples)
        ),
        duration_s=round(duration_s, 3),
        problems=_problems(len(samples), failed - spoilt, mixed, changes),
    )


def _problems(
    sent: int, failed_elsewhere: int, mixed: int, changes: tuple[ChangeLine, ...]
) -> tuple[str, ...]:
    back = sum(change.users_back for change in changes)
    found = {
        "Not one request was sent.": not sent,
        f"{failed_elsewhere} requests failed that no bad release had a part in.": failed_elsewhere,
        f"{mixed} pages were made by two releases at once.": mixed,
        f"{back} users went back and forth between two releases.": back,
    }
    return tuple(text for text, is_so in found.items() if is_so)


def _spoilt(samples: Samples, acts: tuple[Act, ...], router: Mapping[int, Count]) -> int:
    """How many failed requests are the bad releases' own."""
    return sum(_spoilt_by(samples, act, router.get(act.new, Count())) for act in acts if act.bad)


def _spoilt_by(samples: Samples, act: Act, counted: Count) -> int:
    found = suspected(samples, act)
    if act.kind == "hanging":
        return len(found)
    signed = sum(1 for sample in found if sample.release == act.new)
    return min(len(found), max(signed, counted.errors))


def suspected(samples: Samples, act: Act) -> tuple[Sample, ...]:
    """Failed requests that the release of this act signed, or that nobody signed while it came in."""
    during = Span(begin_s=act.asked_at_s, end_s=act.ended_at_s)
    kinds = (Failure.SERVER_ERROR, Failure.RESET, *((Failure.TIMEOUT,) if act.kind == "hanging" else ()))
    return tuple(
        sample
        for sample in samples
        if sample.failure in kinds
        and (sample.release == act.new or (sample.release is None and during.holds(sample)))
    )


def _release_line(samples: Samples, release: int, counted: Count) -> ReleaseLine:
    begin_s = min((sample.sent_at_s for sample in samples), default=0.0)
    own = [sample for sample in samples if sample.release == release]
    good = [sample.latency_ms for sample in own if sample.failure is None]
    return ReleaseLine(
        release=release,
        answers=len(own),
        failed=sum(1 for sample in own if sample.failure),
        users=len({sample.user for sample in own}),
        p50_ms=_rounded(seen.percentile(good, 50), 1),
        p99_ms=_rounded(seen.percentile(good, 99), 1),
        first_s=_rounded(min((s.sent_at_s for s in own), default=None), 3, begin_s),
        last_s=_rounded(max((s.sent_at_s for s in own), default=None), 3, begin_s),
        router=counted,
    )


def _change_line(samples: Samples, acts: tuple[Act, ...], index: int) -> ChangeLine:
    act = acts[index]
    end_s = acts[index + 1].asked_at_s if index + 1 < len(acts) else float("inf")
    within = Span(begin_s=act.asked_at_s, end_s=end_s).of(samples)
    change = seen.change(within, act.old, act.new, aborted=act.aborted)
    met = {sample.user for sample in within if sample.release == act.new}
    if act.bad:  # somebody who got nothing but failures met it, too
        met |= {sample.user for sample in suspected(samples, act)}
    return ChangeLine(
        name=act.name,
        kind=act.kind,
        old=act.old,
        new=act.new,
        phase=act.phase,
        reason=act.reason,
        detail=act.detail,
        exposure_reached_percent=act.exposure_reached_bps / 100,
        took_s=round(act.ended_at_s - act.asked_at_s, 3),
        switch_s=_rounded(change.switch_s, 3),
        exposed_s=_rounded(change.exposed_s, 3),
        users_reached=len(met),
        users_back=change.users_back,
    )


def _rounded(value: float | None, digits: int, less: float = 0.0) -> float | None:
    return None if value is None else round(value - less, digits)

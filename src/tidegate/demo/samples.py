"""What users saw, request by request, and what it adds up to. Pure.

One sample is one request of one user: when it was sent, which release answered, or how it failed. A user
never has two requests under way, so a user's samples have an order.
Neighbours: `traffic` makes samples, `report` asks these functions.
"""

from __future__ import annotations

import enum
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass


class Failure(enum.StrEnum):
    """How a request failed, as its user saw it."""

    CONNECT = "connect"
    """No connection to the router."""
    RESET = "reset"
    """The connection ended before the answer was complete."""
    TIMEOUT = "timeout"
    SERVER_ERROR = "5xx"
    STATUS = "other status"
    """An answer, but neither 200 nor 5xx."""
    GARBLED = "garbled"
    """An answer that is not HTTP, or that no release put its name to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One request of one user. Times are monotonic seconds."""

    user: int
    sent_at_s: float
    ended_at_s: float
    release: int | None
    """Which release answered; None: the answer does not say."""
    failure: Failure | None = None
    mixed: bool = False
    """The page was made by two releases at once."""

    @property
    def latency_ms(self) -> float:
        return (self.ended_at_s - self.sent_at_s) * 1000


Samples = Sequence[Sample]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From one moment to another, in monotonic seconds; the end is not part of it."""

    begin_s: float
    end_s: float

    def of(self, samples: Samples) -> tuple[Sample, ...]:
        """Those that were sent within it."""
        return tuple(sample for sample in samples if self.holds(sample))

    def holds(self, sample: Sample) -> bool:
        """Whether it was sent within it."""
        return self.begin_s <= sample.sent_at_s < self.end_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """How users went from one release to another. Seconds; None: nobody came to the new release."""

    switch_s: float | None
    """From the first request that the new release answered to the last that the old one did, by the times of
    sending; 0: no request of the old one came later. None of a change that was aborted: it had no end."""
    exposed_s: float | None
    """From the first request that the new release answered to the last."""
    users_back: int
    """Users who saw the new release, and then the old one. Of a change that was aborted, every user who was
    reached goes back once: only those who then saw the new one again are counted."""


def percentile(values: Iterable[float], percent: float) -> float | None:
    """The smallest value that so many percent of all do not exceed; None: there are no values."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def failures(samples: Samples) -> dict[str, int]:
    """How many requests failed, by kind; kinds that did not happen are not there."""
    counted = Counter(sample.failure.value for sample in samples if sample.failure)
    return dict(sorted(counted.items()))


def change(samples: Samples, old: int | None, new: int, *, aborted: bool) -> Change:
    """How users came from `old` to `new` in these samples; `aborted`: and back again."""
    new_s = [s.sent_at_s for s in samples if s.release == new]
    old_s = [s.sent_at_s for s in samples if s.release == old]
    moves_allowed = 2 if aborted else 1
    return Change(
        switch_s=max(0.0, max(old_s) - min(new_s)) if old_s and new_s and not aborted else None,
        exposed_s=max(new_s) - min(new_s) if new_s else None,
        users_back=sum(1 for moves in _moves(samples, {old, new}).values() if moves > moves_allowed),
    )


def _moves(samples: Samples, releases: set[int | None]) -> dict[int, int]:
    """Per user: how often the release changed from one answer to the next."""
    moves: dict[int, int] = defaultdict(int)
    before: dict[int, int] = {}
    for sample in sorted(samples, key=lambda s: s.sent_at_s):
        if sample.release is None or sample.release not in releases:
            continue
        if before.setdefault(sample.user, sample.release) != sample.release:
            moves[sample.user] += 1
            before[sample.user] = sample.release
    return moves


def per_second(samples: Samples) -> Iterator[tuple[dict[int, int], int]]:
    """Of each second since the first sample: answers per release, and how many requests failed."""
    if not samples:
        return
    begin_s = min(sample.sent_at_s for sample in samples)
    answers: dict[int, Counter[int]] = defaultdict(Counter)
    failed: Counter[int] = Counter()
    for sample in samples:
        second = int(sample.sent_at_s - begin_s)
        if sample.failure is not None:
            failed[second] += 1
        elif sample.release is not None:
            answers[second][sample.release] += 1
    for second in range(max((*answers, *failed)) + 1):
        yield dict(sorted(answers[second].items())), failed[second]

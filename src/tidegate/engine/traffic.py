"""Requests per placement, from the router's own exact counts.

Each process of the router counts per service and slot since it started; a slot belongs to one placement at
a time. What a process has counted since the last look is added, so that a reload loses and doubles nothing
but what an ending process counted after its last look. Kept in memory, for live views.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from tidegate.core import model

#: Seconds over which a rate is taken: long enough to be steady, short enough to follow a stage.
WINDOW_S: Final = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """What a placement has answered since this control plane looks."""

    requests: int = 0
    errors: int = 0

    def plus(self, requests: int, failed: int) -> Total:
        return Total(requests=self.requests + requests, errors=self.errors + failed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Of the last seconds."""

    requests_per_second: float = 0.0
    errors_per_second: float = 0.0


class TrafficMeter:
    """Counts of one environment; fed with each look, asked by views."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str, int], model.Traffic] | None = None
        self._totals: dict[int, Total] = {}
        self._marks: deque[tuple[float, dict[int, Total]]] = deque()

    def feed(self, state: model.EnvironmentState, routes: model.RouteState, at_s: float) -> None:
        """Add what was answered since the last look; `at_s`: monotonic seconds.

        The first look is only a beginning: what was counted before it belongs to nobody that is known.
        """
        placements = {placement.slot: placement for placement in state.placements}
        now = {(traffic.process, traffic.service, traffic.slot): traffic for traffic in routes.traffic}
        if self._seen is not None:
            for key, traffic in now.items():
                placement = placements.get(traffic.slot)
                if placement is not None and is_public(placement, traffic.service):
                    before = self._seen.get(key, model.Traffic(service=traffic.service, slot=traffic.slot))
                    total = self._totals.get(placement.id, Total())
                    self._totals[placement.id] = total.plus(
                        max(0, traffic.requests - before.requests), max(0, traffic.errors - before.errors)
                    )
        self._seen = now
        self._marks.append((at_s, dict(self._totals)))
        while self._marks[0][0] < at_s - WINDOW_S:
            self._marks.popleft()

    def total(self, placement: int) -> Total:
        """Since this control plane looks."""
        return self._totals.get(placement, Total())

    def rate(self, placement: int) -> Rate:
        """Over the last `WINDOW_S`."""
        if not self._marks:
            return Rate()
        (then_s, before), (now_s, after) = self._marks[0], self._marks[-1]
        seconds = now_s - then_s
        if seconds <= 0:
            return Rate()
        old, new = before.get(placement, Total()), after.get(placement, Total())
        return Rate(
            requests_per_second=(new.requests - old.requests) / seconds,
            errors_per_second=(new.errors - old.errors) / seconds,
        )


def is_public(placement: model.Placement, service: str) -> bool:
    """Users' requests are counted once: at the services that they reach, not at those behind."""
    spec = placement.spec.service(service)
    return spec is not None and bool(spec.hosts)

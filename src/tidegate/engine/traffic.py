"""Requests per placement, from the router's own exact counts.

The router counts per service and slot since its process started; a slot belongs to one placement at a
time. Only differences within one generation of the router are added, so that a reload adds nothing wrong.
Kept in memory, for live views.
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
        self._generation = ""
        self._seen: dict[tuple[str, int], model.Traffic] = {}
        self._totals: dict[int, Total] = {}
        self._marks: deque[tuple[float, dict[int, Total]]] = deque()

    def feed(self, state: model.EnvironmentState, routes: model.RouteState, at_s: float) -> None:
        """Add what was answered since the last look; `at_s`: monotonic seconds."""
        placements = {placement.slot: placement for placement in state.placements}
        for traffic in routes.traffic:
            key = (traffic.service, traffic.slot)
            before = self._seen.get(key) if routes.generation == self._generation else None
            self._seen[key] = traffic
            placement = placements.get(traffic.slot)
            public = placement is not None and _is_public(placement, traffic.service)
            if placement is None or before is None or not public or traffic.requests < before.requests:
                continue
            total = self._totals.get(placement.id, Total())
            failed = max(0, traffic.errors - before.errors)
            self._totals[placement.id] = total.plus(traffic.requests - before.requests, failed)
        self._generation = routes.generation
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


def _is_public(placement: model.Placement, service: str) -> bool:
    """Users' requests are counted once: at the services that they reach, not at those behind."""
    spec = placement.spec.service(service)
    return spec is not None and bool(spec.hosts)

"""Canaries whose traffic has been judged for a while, and what the API says of them.

    rollout = judged(canary=(10, 5), stable=(190, 0))       # requests and errors in each second
    environment(rollout)                                    # as `tide status --json` has it

The judge is the real one: what tests see here is what it says.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from tests.support import builders
from tidegate.core import judge, sequential
from tidegate.core.model import Analysis, Rollout
from tidegate.core.policy import AnalysisPolicy
from tidegate.core.sequential import Histogram
from tidegate.engine import loop, traffic
from tidegate.web import views

CANARY_S: Final = 0.020
STABLE_S: Final = 0.010


def counts(requests: int, errors: int, latency_s: float) -> judge.Counts:
    """What one release answered in a second, all in the same time."""
    cells = ((sequential.bucket(latency_s), requests),)
    return judge.Counts(requests=requests, errors=errors, latencies=Histogram(cells=cells))


def judged(
    *, canary: tuple[int, int], stable: tuple[int, int], seconds: int = 30, held_s: float = 0.0, **policy: Any
) -> Rollout:
    """r2 beside r1, in its first stage, after so many seconds with these requests and errors in each."""
    wanted = builders.spec(analysis=AnalysisPolicy(**policy))
    rollout = builders.going(builders.environment().live("r1", wanted).incoming("r2", wanted).state)
    state = judge.started(wanted.analysis, rollout.request.plan, Histogram())
    tick = judge.Tick(canary=counts(*canary, CANARY_S), stable=counts(*stable, STABLE_S))
    for _ in range(seconds):
        state = judge.judged(state, tick, wanted.analysis, 1.0)
    return replace(rollout, analysis=Analysis(judge=state), held_s=held_s)


def as_json(rollout: Rollout) -> dict[str, Any]:
    """As the API answers it."""
    return views.rollout(rollout).model_dump(mode="json")


def environment(rollout: Rollout) -> dict[str, Any]:
    """The environment that the rollout is in."""
    wanted = rollout.request.spec
    state = builders.environment().live("r1", wanted).incoming("r2", wanted).having(rollout=rollout).state
    view = loop.View(state=state, observed=builders.perfect(state))
    listening = views.Listening(host="127.0.0.1", port=8080)
    return views.environment(view, traffic.TrafficMeter(), listening).model_dump(mode="json")

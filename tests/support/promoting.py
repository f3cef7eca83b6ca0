"""Pipelines, promotions and looks at them in one line each, for tests of `core.pipeline`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from tests.support.builders import digest, environment, number, request, spec
from tidegate.core import model, pipeline
from tidegate.core.model import EnvironmentSpec, EnvironmentState, Phase
from tidegate.core.pipeline import Look, Outcome, Place, Travel
from tidegate.core.promotions import Ended, PipelineState, Promotion, Waits, identity

NAMES: Final = ("test", "staging", "production")
NOW: Final = 1_800_000_000.0
SOAKED: Final = spec(soak_s=60.0)


def release(
    name: str, *names: str, of: EnvironmentSpec | None = None, **specs: EnvironmentSpec
) -> model.Release:
    """A release whose manifest names these environments; `specs`: those that differ from `of`."""
    wanted = names or NAMES
    return model.Release(
        app="shop",
        number=number(name),
        digest=digest(name),
        environments=tuple((each, specs.get(each, of or spec())) for each in wanted),
    )


def promotion(name: str = "r2", at: str = "test", target: str = "production", **changes: Any) -> Promotion:
    """A release on its way; `changes`: fields of Promotion."""
    found = release(name)
    fields: dict[str, Any] = {
        "id": number(name),
        "release": found.number,
        "digest": found.digest,
        "identity": identity(found),
        "path": NAMES[: NAMES.index(target) + 1],
        "environment": at,
        "requester": "ada",
    }
    return Promotion(**(fields | changes))


def pipelines(*promotions: Promotion, **changes: Any) -> PipelineState:
    under_way = tuple(p for p in promotions if p.ended is None)
    ended = tuple(p for p in promotions if p.ended is not None)
    newest = max((p.id for p in promotions), default=0)
    return PipelineState(app="shop", next_id=newest + 1, promotions=under_way, ended=ended, **changes)


def rollout(name: str, phase: Phase = Phase.SUCCEEDED, **changes: Any) -> model.Rollout:
    """A rollout of a release, of placement 1; `changes`: fields of its request, `id` or `placement`."""
    own = {key: changes.pop(key) for key in ("id", "placement", "reason", "detail") if key in changes}
    fields: dict[str, Any] = {"id": 9, "placement": 1, "request": request(name, **changes), "phase": phase}
    return model.Rollout(**(fields | own))


def live(name: str, of: EnvironmentSpec | None = None, **changes: Any) -> EnvironmentState:
    """An environment in which this release is live, as placement 1."""
    return environment().live(name, of, **changes).state


def place(
    name: str, of: EnvironmentSpec | None = None, made: model.Rollout | None = None, **changes: Any
) -> Place:
    """Where a release is live and in order, made so by a deploy."""
    fields: dict[str, Any] = {
        "state": live(name, of),
        "sound": True,
        "made_live": made or rollout(name),
        "release": release(name),
    }
    return Place(**(fields | changes))


EMPTY: Final = Place(state=environment().state)


@dataclass
class Line:
    """A pipeline that is stepped, and what is seen of it."""

    state: PipelineState
    places: dict[str, Place] = field(default_factory=lambda: dict.fromkeys(NAMES, EMPTY))
    travels: dict[int, Travel] = field(default_factory=dict)
    now: float = NOW
    last: Outcome | None = None

    def sees(self, known: int, name: str, **changes: Any) -> Line:
        """What is known of a promotion; `changes`: fields of Travel."""
        passed = frozenset(changes.pop("passed", ()))
        found = changes.pop("release", release(name))
        self.travels[known] = Travel(release=found, passed=passed, **changes)
        return self

    def step(self, dt_s: float = 1.0) -> Outcome:
        self.last = pipeline.advance(
            self.state, Look(now=self.now, places=self.places, travels=self.travels), dt_s
        )
        self.state = self.last.state
        return self.last

    def of(self, known: int) -> Promotion:
        found = self.state.promotion(known)
        assert found is not None
        return found

    def stands(self, known: int) -> tuple[str, Waits | None, Ended | None]:
        found = self.of(known)
        return found.environment, found.waits, found.ended


def line(at: str = "production", *, of: EnvironmentSpec | None = None, **seen: Any) -> Line:
    """r2 before an environment, having passed all before it; `seen`: fields of Travel."""
    one = promotion("r2", at)
    passed = {"passed": NAMES[: NAMES.index(at)]}
    found = release("r2", **({at: of} if of else {}))
    return Line(pipelines(one)).sees(2, "r2", **(passed | {"release": found} | seen))


def enters(outcome: Outcome) -> list[tuple[int, str]]:
    return [(begin.promotion, begin.environment) for begin in outcome.begins]

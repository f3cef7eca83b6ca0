"""Routes about the pipeline: what is where, what waits for whom, approvals.

Neighbours: `engine.delivery` decides, `pipeline_schemas` has the answers, `api` the rest of the rollouts.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, FastAPI, Path
from pydantic import BaseModel, ConfigDict, Field

from tidegate import errors, ports
from tidegate.core import model, promotions, roles
from tidegate.core.model import EnvironmentKey
from tidegate.engine.delivery import Delivery, GatePlan
from tidegate.engine.neighbours import Neighbours
from tidegate.engine.operations import Asked
from tidegate.engine.together import GroupStep, Together
from tidegate.web import pipeline_schemas as schemas
from tidegate.web.identity import Asking, By, Noting
from tidegate.web.schemas import Plan

NAME = r"^[a-z][a-z0-9-]{0,39}$"
ENVIRONMENT = "/v1/apps/{app}/environments/{environment}"
#: Ended promotions that are shown with the pipeline.
ENDED_SHOWN = 10


class GroupRollback(BaseModel):
    """Why a group goes back, and how often it was asked."""

    model_config = ConfigDict(extra="forbid")

    why: str = Field(default="", max_length=1000)
    key: str = Field(default="", max_length=200)
    supersede: bool = False


class Waiting(BaseModel):
    """Which of the releases that wait; None: the newest."""

    model_config = ConfigDict(extra="forbid")

    release: int | None = Field(default=None, ge=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the routes use."""

    delivery: Delivery
    store: ports.Store
    trouble: Callable[[str], errors.TidegateError | None]
    """Why the pipeline of an app cannot go on now."""


def _key(
    app: Annotated[str, Path(pattern=NAME)], environment: Annotated[str, Path(pattern=NAME)]
) -> EnvironmentKey:
    return EnvironmentKey(app=app, environment=environment)


Key = Annotated[EnvironmentKey, Depends(_key)]


def add(app: FastAPI, parts: Parts) -> None:
    """Put the routes into the application."""
    kept = parts.delivery.pipelines.kept
    together = Together(
        operations=parts.delivery.operations,
        pipelines=parts.delivery.pipelines,
        neighbours=Neighbours(store=parts.store, kept=kept),
    )

    @app.get("/v1/apps/{app}/pipeline")
    def shown(app: Annotated[str, Path(pattern=NAME)]) -> schemas.Pipeline:
        return _pipeline(parts, app)

    @app.get("/v1/apps/{app}/promotions/{promotion}")
    def one(
        app: Annotated[str, Path(pattern=NAME)], promotion: Annotated[int, Path(ge=1, le=2**53)]
    ) -> schemas.Promotion:
        found = kept.promotion(app, promotion)
        if found is None:
            raise errors.NotFoundError(
                f"{app} has no promotion {promotion}.", hint="`tide pipeline` shows what is under way."
            )
        return answer(found)

    @app.post(f"{ENVIRONMENT}/approve", status_code=202)
    def approve(key: Key, body: Waiting, asker: Asking, note: Noting) -> schemas.Promotion:
        note.release = body.release
        approved = parts.delivery.approve(key, body.release, asker)
        note.release = approved.release
        return answer(approved)

    @app.post(f"{ENVIRONMENT}/rollback-group", status_code=202)
    def rollback_group(key: Key, body: GroupRollback, asker: Asking, note: Noting) -> schemas.Group:
        asked = Asked(by=asker.by, name=asker.name, why=body.why, key=body.key)
        steps = together.roll_back(
            key,
            asked,
            lambda app: asker.demand(roles.Action.ROLLBACK, app, key.environment),
            supersede=body.supersede,
        )
        note.detail = f"group: {', '.join(step.key.app for step in steps)}"
        return group(steps)

    @app.post(f"{ENVIRONMENT}/plan-rollback-group")
    def plan_rollback_group(key: Key) -> schemas.Group:
        return group(together.plan(key))

    @app.post(f"{ENVIRONMENT}/withdraw", status_code=202)
    def withdraw(key: Key, body: Waiting, by: By, note: Noting) -> schemas.Promotion:
        note.release = body.release
        return answer(parts.delivery.withdraw(key, body.release, by))


def answer(promotion: promotions.Promotion) -> schemas.Promotion:
    """A promotion as it is answered."""
    return schemas.Promotion(
        id=promotion.id,
        release=promotion.release,
        target=promotion.target,
        path=list(promotion.path),
        environment=promotion.environment,
        rollout=promotion.rollout,
        kind=promotion.kind,
        after=[app for app, _ in promotion.after],
        waits=promotion.waits,
        detail=promotion.detail,
        approvals=[
            schemas.Approval(environment=a.environment, by=a.by, role=a.role, at=a.at)
            for a in promotion.approvals
        ],
        by=promotion.by,
        why=promotion.why,
        at=promotion.at,
        ended=promotion.ended,
    )


def group(steps: tuple[GroupStep, ...]) -> schemas.Group:
    """A group as it is answered."""
    return schemas.Group(
        steps=[
            schemas.GroupStep(
                app=step.key.app,
                environment=step.key.environment,
                live=step.live,
                back_to=step.back_to.number,
                after=list(step.after),
                promotion=answer(step.promotion) if step.promotion else None,
            )
            for step in steps
        ]
    )


def gates(planned: tuple[GatePlan, ...], plan: Callable[[GatePlan], Plan | None]) -> list[schemas.GatePlan]:
    """Plans of gates as they are answered; `plan`: of the rollout."""
    return [
        schemas.GatePlan(
            environment=gate.environment, passed=gate.passed, waits=list(gate.waits), plan=plan(gate)
        )
        for gate in planned
    ]


def _pipeline(parts: Parts, app: str) -> schemas.Pipeline:
    newest = next(iter(parts.store.releases(app, limit=1)), None)
    if newest is None:
        raise errors.NotFoundError(f"{app} has no release yet.", hint="`tide deploy` makes the first.")
    state = parts.delivery.pipelines.kept.load(app).state
    deployed = [key.environment for key in parts.store.environments() if key.app == app]
    names = [name for name, _ in newest.environments]
    trouble = parts.trouble(app)
    return schemas.Pipeline(
        app=app,
        stations=[
            _station(parts, EnvironmentKey(app=app, environment=name), newest, state)
            for name in [*names, *(name for name in deployed if name not in names)]
        ],
        promotions=[answer(one) for one in state.promotions],
        ended=[answer(one) for one in reversed(state.ended[-ENDED_SHOWN:])],
        failure=trouble.message if trouble is not None else "",
    )


def _station(
    parts: Parts, key: EnvironmentKey, newest: model.Release, state: promotions.PipelineState
) -> schemas.Station:
    there = parts.store.load(key).state
    live, soak = there.live, state.soak(key.environment)
    counted = soak if soak is not None and live is not None and soak.placement == live.id else None
    running = parts.store.release(key.app, live.release) if live else None
    return schemas.Station(
        environment=key.environment,
        live=live.release if live else None,
        rollout=there.rollout.id if there.rollout else None,
        passed=counted is not None and counted.passed,
        soaked_s=counted.soaked_s if counted else 0.0,
        soak_s=live.spec.soak_s if live else 0.0,
        frozen=parts.delivery.gates.frozen(key, newest, running),
        emergency=live.emergency if live else "",
    )

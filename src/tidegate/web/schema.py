"""HTTP to what people ask of an environment's database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Path, Query
from pydantic import BaseModel, ConfigDict, Field

from tidegate.core.migrating import described
from tidegate.core.migrations import Step
from tidegate.core.model import EnvironmentKey
from tidegate.engine.desk import Desk
from tidegate.web.identity import Asking, Noting
from tidegate.web.pipeline import ENVIRONMENT, NAME
from tidegate.web.schemas import Answer

ID = r"^[0-9]{4,9}_[a-z0-9][a-z0-9_-]{0,99}$"


class Migration(Answer):
    """A migration that is applied, as the ledger in the database has it."""

    id: str = Field(description="Number and name.")
    release: int = Field(description="That brought it.")
    phase: str = Field(description="`expand`, `contract` or `breaking`, as observed.")
    revert: str = Field(description="`exact`, `lossy`, `fake`, `broken` or `none`, as its trial has shown.")
    why: str = Field(description="What the trial has found, or the author says.")
    state: str = Field(description="`applied`; or `applying`, `reverting`: it stopped half way.")
    done: int = Field(description="Statements that are finished.")
    doubtful: bool = Field(description="Nobody saw whether the next statement ended: `tide migrate resolve`.")
    by: str = Field(description="On whose behalf.")
    at: float = Field(description="Unix seconds.")
    took_s: float = Field(description="Seconds.")


class SchemaEvent(Answer):
    """Something that happened to the schema, or was tried."""

    id: str = Field(description="The migration; empty: the database as a whole.")
    what: str = Field(description="`applied`, `reverted`, `failed`, `resolved`, `adopted`, `baseline`.")
    detail: str = Field(description="For people.")
    by: str = Field(description="On whose behalf.")
    at: float = Field(description="Unix seconds.")


class Schema(Answer):
    """The database of an environment, as it is."""

    fingerprint: str = Field(description="Of the schema.")
    drifted: bool = Field(description="Somebody else than Tidegate has changed it: `tide migrate adopt`.")
    applied: list[Migration] = Field(description="Oldest first.")
    pending: list[str] = Field(description="Of the live release, not applied yet.")
    events: list[SchemaEvent] = Field(description="Newest first.")


class SchemaStep(Answer):
    """A script that would run."""

    id: str = Field(description="The migration.")
    direction: str = Field(description="`up` or `down`.")


class SchemaPlan(Answer):
    """The way to a release through the database, as it would be gone now."""

    release: int = Field(description="To which.")
    way: str = Field(
        description="`flip`, `flip-then-revert`, `revert-then-flip`, `pause` (requests wait) or `refused`."
    )
    before: list[SchemaStep] = Field(description="Before the first user.")
    held: list[SchemaStep] = Field(description="While requests are held.")
    after: list[SchemaStep] = Field(description="When the old release has gone.")
    ahead: list[str] = Field(description="Stay applied, though the release does not know them.")
    lossy: list[str] = Field(description="Reverts that lose rows.")
    refusal: str = Field(description="Why it would be refused; empty: it would not.")
    sentence: str = Field(description="All of it for people.")


class Resolution(BaseModel):
    """What became of a statement whose end nobody saw."""

    model_config = ConfigDict(extra="forbid")

    id: str = Field(pattern=ID)
    done: bool


class Adoption(BaseModel):
    """Why the schema is taken as it is."""

    model_config = ConfigDict(extra="forbid")

    why: str = Field(min_length=1, max_length=2000)


def _key(
    app: Annotated[str, Path(pattern=NAME)], environment: Annotated[str, Path(pattern=NAME)]
) -> EnvironmentKey:
    return EnvironmentKey(app=app, environment=environment)


Key = Annotated[EnvironmentKey, Depends(_key)]


def add(app: FastAPI, desk: Desk) -> None:
    """Put the routes into the application."""

    @app.get(f"{ENVIRONMENT}/schema")
    def shown(key: Key) -> Schema:
        return _schema(desk.look(key))

    @app.get(f"{ENVIRONMENT}/schema/plan")
    def planned(key: Key, release: Annotated[int, Query(ge=1, le=2**53)]) -> SchemaPlan:
        found = desk.plan(key, release)
        plan = found.plan
        return SchemaPlan(
            release=found.release,
            way=plan.way.value,
            before=_steps(plan.before),
            held=_steps(plan.held),
            after=_steps(plan.after),
            ahead=list(plan.ahead),
            lossy=list(plan.lossy),
            refusal=found.refusal,
            sentence=described(plan),
        )

    @app.post(f"{ENVIRONMENT}/schema/resolve")
    def resolve(key: Key, body: Resolution, asker: Asking, note: Noting) -> Schema:
        note.detail = f"{body.id} {'done' if body.done else 'not done'}"
        return _schema(desk.resolve(key, body.id, asker.by, done=body.done))

    @app.post(f"{ENVIRONMENT}/schema/adopt")
    def adopt(key: Key, body: Adoption, asker: Asking, note: Noting) -> Schema:
        note.detail = body.why
        return _schema(desk.adopt(key, asker.by, body.why))


def _steps(steps: tuple[Step, ...]) -> list[SchemaStep]:
    return [SchemaStep(id=step.id, direction=step.direction.value) for step in steps]


def _schema(found: Mapping[str, Any]) -> Schema:
    migrations = [Migration(**{name: row[name] for name in Migration.model_fields}) for row in found["rows"]]
    events = [
        SchemaEvent(**{name: one[name] for name in SchemaEvent.model_fields}) for one in found["events"]
    ]
    return Schema(
        fingerprint=found["fingerprint"],
        drifted=found["drifted"],
        applied=migrations,
        pending=found["pending"],
        events=events,
    )

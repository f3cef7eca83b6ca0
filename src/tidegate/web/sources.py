"""Sources and pushes over the API, and what the hooks of our repositories ask.

Neighbours: `sources.arrivals` decides, `identity` says what each route needs, `cli.receive` is the other end
of the hooks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import FastAPI, Path, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from tidegate import errors, ports, pushes
from tidegate.core import roles
from tidegate.sources import remotes
from tidegate.sources.arrivals import Arrivals
from tidegate.sources.output import Outputs
from tidegate.web import schemas
from tidegate.web.identity import Asking, By, Noting

#: How often followed output is looked at.
FOLLOW_INTERVAL_S = 0.2
#: A line that says nothing: so that who follows sees that somebody is there, and we that they have gone.
SILENCE_S = 10.0
NAME = r"^[a-z][a-z0-9-]{0,39}$"
TIME_LIMIT_S_MAX = 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Everything that the handlers use."""

    arrivals: Arrivals
    outputs: Outputs
    clock: ports.Clock
    trouble: Callable[[str], str]
    """Why the last look at an app's remote failed."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewReport(_Body):
    """Where to report to."""

    forge: pushes.Forge
    url: str = Field(max_length=remotes.LENGTH_MAX)
    project: str = Field(max_length=200)
    token_file: str = Field(max_length=400)


class NewSource(_Body):
    """A source, or what it shall be from now on."""

    branches: list[str] = Field(default=["main"], max_length=20)
    tags: list[str] = Field(default=[], max_length=20)
    to: str = Field(default="", pattern=r"^([a-z][a-z0-9-]{0,39})?$")
    on_push: pushes.OnPush = pushes.OnPush.QUEUE
    manifest: str = Field(default="tidegate.yaml", pattern=r"^[A-Za-z0-9._+@/-]{1,200}$")
    time_limit_s: float = Field(default=3600.0, gt=0, le=TIME_LIMIT_S_MAX)
    remote: str = Field(default="", max_length=remotes.LENGTH_MAX)
    credentials: str = Field(default="", max_length=400)
    poll_s: float | None = Field(default=None, ge=5, le=7 * 24 * 3600)
    hook: pushes.Forge | None = None
    report: NewReport | None = None


class Ref(_Body):
    """A branch or tag; empty: the only branch of the source."""

    ref: str = Field(default="", max_length=300)


class Names(_Body):
    """Refs that somebody is about to push."""

    refs: list[str] = Field(max_length=10_000)


class Refusals(BaseModel):
    """Why they cannot; none: they can."""

    refusals: list[str]


App = Annotated[str, Path(pattern=NAME)]
PushId = Annotated[int, Path(ge=1, le=2**53)]
Limit = Annotated[int, Query(ge=1, le=1000)]
SOURCE = "/v1/apps/{app}/source"
PUSHES = "/v1/apps/{app}/pushes"


def add(app: FastAPI, context: Context) -> None:
    """The routes of sources and pushes."""
    _add_sources(app, context)
    _add_receiving(app, context)
    _add_pushes(app, context)


def _add_sources(web: FastAPI, context: Context) -> None:
    arrivals = context.arrivals

    @web.get("/v1/sources")
    def sources(asker: Asking) -> list[schemas.Source]:
        return [_shown(context, found) for found in arrivals.store.sources() if asker.reaches(found.app)]

    @web.get(SOURCE)
    def source(app: App) -> schemas.Source:
        return _shown(context, arrivals.known(app))

    @web.put(SOURCE)
    def keep(app: App, body: NewSource, by: By, note: Noting) -> schemas.Source:
        made = _source(app, body, at=context.clock.now(), by=by)
        note.environment, note.detail = made.to, f"source {made.remote or 'git push'}"
        secret = arrivals.add(made)
        return _shown(context, made).model_copy(update={"hook_secret": secret or None})

    @web.delete(SOURCE)
    def remove(app: App) -> dict[str, str]:
        arrivals.remove(app)
        return {"removed": app}

    @web.post(f"{SOURCE}/secret")
    def rotate(app: App) -> schemas.Source:
        secret = arrivals.rotate(app)
        return _shown(context, arrivals.known(app)).model_copy(update={"hook_secret": secret})

    @web.post(f"{SOURCE}/build", status_code=202)
    def build(app: App, body: Ref, asker: Asking, note: Noting) -> schemas.Push:
        to = arrivals.known(app).to
        asker.demand(roles.Action.DEPLOY, app, to or None)
        note.environment, note.detail = to, body.ref
        return shown(arrivals.build(app, body.ref, by=asker.by))


def _add_receiving(web: FastAPI, context: Context) -> None:
    arrivals = context.arrivals

    @web.post(f"{SOURCE}/check")
    def check(app: App, body: Names) -> Refusals:
        return Refusals(refusals=list(arrivals.check(app, tuple(body.refs))))

    @web.post(f"{SOURCE}/receive", status_code=202)
    def receive(app: App, body: Ref, by: By, note: Noting) -> schemas.Received:
        note.environment, note.detail = arrivals.known(app).to, body.ref
        meant = arrivals.meant(app, body.ref)
        push = arrivals.receive(app, body.ref, by=by) if meant else None
        return schemas.Received(meant=meant, push=shown(push) if push else None)


def _add_pushes(web: FastAPI, context: Context) -> None:
    store = context.arrivals.store

    @web.get("/v1/pushes")
    def every(asker: Asking, limit: Limit = 50) -> list[schemas.Push]:
        return [shown(push) for push in store.newest(limit=limit) if asker.reaches(push.app)]

    @web.get(PUSHES)
    def of_app(app: App, limit: Limit = 50) -> list[schemas.Push]:
        return [shown(push) for push in store.newest(app, limit=limit)]

    @web.get(f"{PUSHES}/{{push}}")
    def one(app: App, push: PushId) -> schemas.Push:
        return shown(_known(context, app, push))

    @web.get(f"{PUSHES}/{{push}}/output")
    def output(
        app: App,
        push: PushId,
        attempt: Annotated[int, Query(ge=0)] = 0,
        after: Annotated[int, Query(ge=0)] = 0,
        *,
        follow: bool = False,
    ) -> StreamingResponse:
        found = _known(context, app, push)
        lines = _lines(context, found, attempt=attempt, after=after, follow=follow)
        return StreamingResponse(lines, media_type="application/x-ndjson")


def _known(context: Context, app: str, number: int) -> pushes.Push:
    found = context.arrivals.store.push(number)
    if found is None or found.app != app:
        raise errors.NotFoundError(f"{app} has no push #{number}.", hint="`tide pushes` lists them.")
    return found


def _lines(context: Context, push: pushes.Push, *, attempt: int, after: int, follow: bool) -> Iterator[str]:
    """Lines as they come, one JSON object each; followed to the end of the build, or as far as it is."""
    quiet_s = 0.0
    while True:
        now = context.arrivals.store.push(push.id)
        over = now is None or now.state not in (pushes.PushState.QUEUED, pushes.PushState.BUILDING)
        for line in context.outputs.read(push.id, attempt=attempt, after=after):
            attempt, after, quiet_s = line.attempt, line.number, 0.0
            shown_line = schemas.PushLine(attempt=line.attempt, number=line.number, text=line.text)
            yield shown_line.model_dump_json() + "\n"
        if over or not follow:  # the state was read before the output: nothing is missed
            return
        context.clock.sleep(FOLLOW_INTERVAL_S)
        quiet_s += FOLLOW_INTERVAL_S
        if quiet_s >= SILENCE_S:
            quiet_s = 0.0
            yield json.dumps({}) + "\n"


def _source(app: str, body: NewSource, *, at: float, by: str) -> pushes.Source:
    report = body.report
    return pushes.Source(
        app=app,
        branches=tuple(body.branches),
        tags=tuple(body.tags),
        to=body.to,
        on_push=body.on_push,
        manifest=body.manifest,
        time_limit_s=body.time_limit_s,
        remote=body.remote,
        credentials=body.credentials,
        poll_s=body.poll_s,
        hook=body.hook,
        report=pushes.StatusReport(
            forge=report.forge,
            url=report.url.rstrip("/"),
            project=report.project,
            token_file=report.token_file,
        )
        if report
        else None,
        added_at=at,
        added_by=by,
    )


def _shown(context: Context, source: pushes.Source) -> schemas.Source:
    report = source.report
    return schemas.Source(
        app=source.app,
        repository=str(context.arrivals.repositories.path(source.app)),
        branches=list(source.branches),
        tags=list(source.tags),
        to=source.to,
        on_push=source.on_push.value,
        manifest=source.manifest,
        time_limit_s=source.time_limit_s,
        remote=source.remote,
        credentials=source.credentials,
        poll_s=source.poll_s,
        hook=source.hook.value if source.hook else None,
        hook_path=f"/hooks/{source.app}" if source.hook else None,
        report=schemas.StatusReport(
            forge=report.forge.value, url=report.url, project=report.project, token_file=report.token_file
        )
        if report
        else None,
        trouble=context.trouble(source.app),
        added_at=source.added_at,
        added_by=source.added_by,
    )


def shown(push: pushes.Push) -> schemas.Push:
    """A push, as it is answered."""
    return schemas.Push(
        id=push.id,
        app=push.app,
        ref=push.ref,
        revision=push.revision,
        to=push.to,
        state=push.state.value,
        by=push.by,
        how=push.how.value,
        delivery=push.delivery,
        queued_at=push.queued_at,
        started_at=push.started_at,
        ended_at=push.ended_at,
        attempt=push.attempt,
        release=push.release,
        promotion=push.promotion,
        detail=push.detail,
    )

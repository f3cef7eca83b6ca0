"""The JSON API of the control plane, behind the gate that proves who asks.

Every change answers with the environment as it stands after the decision; every error is a problem object
(RFC 9457) made from the exception tree, so that no handler chooses a status of its own.
"""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Annotated, Protocol

from fastapi import Depends, FastAPI, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from tidegate import errors, manifest, ports
from tidegate.core import model, promotions, requests, roles
from tidegate.core.model import EnvironmentKey
from tidegate.core.series import rolled_up
from tidegate.engine import delivery, loop, operations, traffic
from tidegate.web import (
    audit,
    gate,
    identity,
    past,
    pipeline,
    pipeline_schemas,
    schemas,
    tokens,
    views,
)
from tidegate.web.identity import Asking, By, Noting

#: Compressed size above which an upload is refused before it is read.
UPLOAD_BYTES_MAX = 4 * 1024**3
#: Uploads up to this size are kept in memory on their way into the content store.
SPOOL_BYTES = 8 * 1024**2
#: How often followed logs are looked at.
FOLLOW_INTERVAL_S = 0.2
NAME = r"^[a-z][a-z0-9-]{0,39}$"


class StoredPackage(Protocol):
    """A package that was taken in."""

    @property
    def digest(self) -> str:
        """`sha256:` + hex."""

    @property
    def size_bytes(self) -> int:
        """Unpacked."""

    @property
    def files(self) -> int:
        """Number of regular files."""


class Content(operations.Content, Protocol):
    """The content store, as the API needs it."""

    def add(self, stream: IO[bytes], *, digest: str | None = None) -> StoredPackage:
        """Verify and unpack an archive. Raises ArtifactError, StorageError."""


class Watched(Protocol):
    """The loop's last look at each environment."""

    def view(self, key: EnvironmentKey) -> loop.View:
        """The newest look. Raises NotFoundError."""

    def meter(self, key: EnvironmentKey) -> traffic.TrafficMeter:
        """Its traffic."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Everything that the handlers use."""

    operations: operations.Operations
    delivery: delivery.Delivery
    pipeline_trouble: Callable[[str], errors.TidegateError | None]
    trust: identity.Trust
    audit: ports.AuditLog
    store: ports.Store
    runtime: ports.Runtime
    content: Content
    series: ports.Series
    noise: Callable[[EnvironmentKey], str]
    """What the newest replay of an environment's last day found; empty: there was none."""
    watched: Watched
    listening: views.Listening
    version: str
    home: str
    pid: int
    check: Callable[[], tuple[ports.Finding, ...]]
    """What every part says of this machine."""
    back_up: Callable[[pathlib.Path], int]
    """Write the state into a new file; its size in bytes. Raises RequestError, StorageError."""
    stop: Callable[[], None]
    """Stop the control plane; the apps go on."""
    stop_apps: Callable[[], None]
    """Stop the control plane, all apps and the router."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewRelease(_Body):
    """A package and the manifest that goes with it."""

    manifest: str = Field(max_length=1024 * 1024)
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    revision: str = Field(default="", max_length=200)
    repository: str = Field(default="", max_length=500)


MigrationId = Annotated[str, Field(pattern=r"^[0-9]{4,9}_[a-z0-9][a-z0-9_-]{0,99}$")]


class Deploy(_Body):
    """Bring a release into an environment, through all that stand before it."""

    release: int = Field(ge=1)
    supersede: bool = False
    emergency: str = Field(default="", max_length=2000)
    why: str = Field(default="", max_length=2000)
    key: str = Field(default="", max_length=200)
    accepted: tuple[MigrationId, ...] = Field(default=(), max_length=100)


class Rollback(_Body):
    """Go back to a release that was live."""

    to: int | None = Field(default=None, ge=1)
    canary: bool = False
    supersede: bool = False
    why: str = Field(default="", max_length=2000)
    key: str = Field(default="", max_length=200)
    accepted: tuple[MigrationId, ...] = Field(default=(), max_length=100)


class Steer(_Body):
    """Act on the rollout in progress; `rollout` guards against acting on another than was seen."""

    rollout: int | None = None
    full: bool = False


class Shutdown(_Body):
    """Stop the control plane."""

    apps: bool = False


class Backup(_Body):
    """Where to write the state: a file of the control plane's machine that is not there yet."""

    file: str = Field(pattern=r"^/[^\x00]*$", max_length=4096)


def _agreed(migrations: tuple[str, ...]) -> str:
    """For the audit log: what is lost by it, somebody has taken upon himself."""
    return f"agreed to {', '.join(migrations)}" if migrations else ""


def _key(
    app: Annotated[str, Path(pattern=NAME)], environment: Annotated[str, Path(pattern=NAME)]
) -> EnvironmentKey:
    return EnvironmentKey(app=app, environment=environment)


Key = Annotated[EnvironmentKey, Depends(_key)]
ENVIRONMENT = "/v1/apps/{app}/environments/{environment}"


def create_app(context: Context) -> FastAPI:
    """The application for one control plane."""
    app = FastAPI(title="Tidegate", version=context.version, docs_url=None, redoc_url=None)
    app.add_middleware(gate.Gate, trust=context.trust, audit=context.audit)
    app.add_exception_handler(errors.TidegateError, _on_error)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    _add_control_plane(app, context)
    _add_releases(app, context)
    _add_rollouts(app, context)
    _add_looking(app, context)
    _add_past(app, context)
    tokens.add(app, context.trust.tokens, context.trust.now)
    audit.add(app, context.audit)
    parts = pipeline.Parts(delivery=context.delivery, store=context.store, trouble=context.pipeline_trouble)
    pipeline.add(app, parts)
    return app


async def _on_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, errors.TidegateError):
        raise error
    identity.tell(request, errors.problem(error))
    return gate.answer(error)


async def _on_invalid(request: Request, error: Exception) -> Response:
    """Says where and what, never echoes the value: it may be a secret."""
    if not isinstance(error, RequestValidationError):
        raise error
    found = "; ".join(f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors())
    return await _on_error(request, errors.RequestError(f"The request is not valid: {found}."))


def _add_control_plane(app: FastAPI, context: Context) -> None:
    @app.get("/v1/status")
    def status(asker: Asking) -> schemas.ControlPlane:
        seen = [key for key in context.store.environments() if asker.reaches(key.app, key.environment)]
        return schemas.ControlPlane(
            version=context.version,
            home=context.home,
            pid=context.pid,
            listen=f"{context.listening.host}:{context.listening.port}",
            environments=[_environment(context, key) for key in seen],
        )

    @app.get("/v1/findings")
    def findings() -> list[schemas.Finding]:
        return [schemas.Finding(**dataclasses.asdict(finding)) for finding in context.check()]

    @app.post("/v1/backup", status_code=201)
    def backup(body: Backup) -> schemas.Backup:
        return schemas.Backup(file=body.file, size_bytes=context.back_up(pathlib.Path(body.file)))

    @app.post("/v1/shutdown", status_code=202)
    def shutdown(body: Shutdown) -> dict[str, bool]:
        (context.stop_apps if body.apps else context.stop)()
        return {"apps": body.apps}


def _add_releases(app: FastAPI, context: Context) -> None:
    @app.post("/v1/packages", status_code=201)
    async def upload(
        request: Request,
        note: Noting,
        digest: Annotated[str | None, Query(pattern=r"^sha256:[0-9a-f]{64}$")] = None,
    ) -> schemas.Package:
        with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
            received = 0
            async for chunk in request.stream():
                received += len(chunk)
                if received > UPLOAD_BYTES_MAX:
                    raise errors.ArtifactError(f"The package is larger than {UPLOAD_BYTES_MAX} bytes.")
                await run_in_threadpool(spool.write, chunk)
            spool.seek(0)
            package = await run_in_threadpool(context.content.add, spool, digest=digest)
        note.detail = package.digest
        return schemas.Package(digest=package.digest, size_bytes=package.size_bytes, files=package.files)

    @app.get("/v1/packages/{digest}")
    def has_package(digest: str) -> dict[str, bool]:
        return {"kept": digest in context.content.digests()}

    @app.post("/v1/releases", status_code=201)
    def add_release(body: NewRelease, asker: Asking, note: Noting) -> schemas.Release:
        parsed = manifest.parse(body.manifest)
        note.app, note.detail = parsed.app, body.digest
        asker.demand(roles.Action.ADD_RELEASE, parsed.app)
        release = model.Release(
            app=parsed.app,
            number=0,
            digest=body.digest,
            environments=parsed.environments,
            revision=body.revision,
            created_at=context.operations.clock.now(),
            created_by=asker.by,
        )
        command = parsed.artifact.build or ""
        origin = ports.Origin(manifest=body.manifest, repository=body.repository, command=command)
        added = context.operations.add_release(release, origin)
        note.release = added.number
        return views.release(added, kept=True)

    @app.get("/v1/apps/{app}/releases")
    def releases(app: str, limit: Annotated[int, Query(ge=1, le=1000)] = 50) -> list[schemas.Release]:
        kept = set(context.content.digests())
        return [views.release(r, kept=r.digest in kept) for r in context.store.releases(app, limit=limit)]

    @app.get("/v1/apps/{app}/releases/{number}")
    def release(app: str, number: int) -> schemas.Release:
        found = context.store.release(app, number)
        if found is None:
            raise errors.NotFoundError(f"{app} has no release r{number}.", hint="`tide releases` lists them.")
        return views.release(found, kept=found.digest in set(context.content.digests()))


def _add_rollouts(app: FastAPI, context: Context) -> None:
    act = context.operations

    def accepted(
        key: EnvironmentKey, decision: requests.Decision, promotion: promotions.Promotion | None = None
    ) -> pipeline_schemas.Accepted:
        return pipeline_schemas.Accepted(
            no_op=decision.no_op,
            rollout=decision.rollout,
            environment=_environment(context, key, decision.state),
            promotion=pipeline.answer(promotion) if promotion else None,
        )

    @app.post(f"{ENVIRONMENT}/deploy", status_code=202)
    def deploy(key: Key, body: Deploy, asker: Asking, note: Noting) -> pipeline_schemas.Accepted:
        said = (body.emergency, _agreed(body.accepted))
        note.release, note.detail = body.release, "; ".join(filter(None, said))
        if body.emergency:
            asker.demand(roles.Action.EMERGENCY, key.app, key.environment)
        asked = operations.Asked(
            by=asker.by, name=asker.name, why=body.why, key=body.key, accepted=body.accepted
        )
        delivered = context.delivery.deploy(
            key, body.release, asked, supersede=body.supersede, emergency=body.emergency
        )
        return accepted(key, delivered.decision, delivered.promotion)

    @app.post(f"{ENVIRONMENT}/rollback", status_code=202)
    def rollback(key: Key, body: Rollback, by: By, note: Noting) -> pipeline_schemas.Accepted:
        note.release, note.detail = body.to, _agreed(body.accepted)
        asked = operations.Asked(by=by, why=body.why, key=body.key, accepted=body.accepted)
        decision = act.rollback(key, body.to, asked, canary=body.canary, supersede=body.supersede)
        return accepted(key, decision)

    @app.post(f"{ENVIRONMENT}/abort", status_code=202)
    def abort(key: Key, body: Steer, by: By) -> pipeline_schemas.Accepted:
        return accepted(key, act.steer(key, lambda s: requests.abort(s, by=by, rollout=body.rollout)))

    @app.post(f"{ENVIRONMENT}/pause", status_code=202)
    def pause(key: Key, body: Steer, by: By) -> pipeline_schemas.Accepted:
        return accepted(key, act.steer(key, lambda s: requests.pause(s, by=by, rollout=body.rollout)))

    @app.post(f"{ENVIRONMENT}/resume", status_code=202)
    def resume(key: Key, body: Steer, by: By) -> pipeline_schemas.Accepted:
        return accepted(key, act.steer(key, lambda s: requests.resume(s, by=by, rollout=body.rollout)))

    @app.post(f"{ENVIRONMENT}/promote", status_code=202)
    def promote(key: Key, body: Steer, by: By) -> pipeline_schemas.Accepted:
        return accepted(
            key, act.steer(key, lambda s: requests.promote(s, by=by, full=body.full, rollout=body.rollout))
        )

    @app.post(f"{ENVIRONMENT}/plan")
    def plan(key: Key, body: Deploy) -> pipeline_schemas.DeployPlan:
        gates = context.delivery.plan(key, body.release, supersede=body.supersede)
        planned = next(gate.plan for gate in gates if gate.environment == key.environment)
        # A rollout that is in the way is waited for: what comes then is planned as if it had made room.
        target = views.plan(planned or act.plan(key, body.release, supersede=True))
        shown = pipeline.gates(gates, lambda gate: views.plan(gate.plan) if gate.plan else None)
        return pipeline_schemas.DeployPlan(**target.model_dump(), gates=shown)


def _add_looking(app: FastAPI, context: Context) -> None:
    @app.get(ENVIRONMENT)
    def environment(key: Key) -> schemas.Environment:
        return _environment(context, key)

    @app.get(f"{ENVIRONMENT}/history")
    def history(key: Key, limit: Annotated[int, Query(ge=1, le=1000)] = 50) -> list[schemas.Rollout]:
        return [views.recorded(record) for record in context.store.history(key, limit=limit)]

    @app.get(f"{ENVIRONMENT}/events")
    def events(
        key: Key, after: int = 0, limit: Annotated[int, Query(ge=1, le=1000)] = 500
    ) -> list[schemas.Event]:
        return [views.event(record) for record in context.store.events(key, after=after, limit=limit)]

    @app.get(f"{ENVIRONMENT}/preview")
    def preview(key: Key) -> schemas.Preview:
        return views.preview(context.store.load(key).state, context.listening)

    @app.get(f"{ENVIRONMENT}/logs")
    def logs(
        key: Key,
        service: str | None = None,
        placement: int | None = None,
        tail: Annotated[int, Query(ge=0, le=100_000)] = 100,
        *,
        follow: bool = False,
    ) -> StreamingResponse:
        wanted = _logged(context, key, service=service, placement=placement)
        lines = _log_lines(context, wanted, tail=tail, follow=follow)
        return StreamingResponse(lines, media_type="application/x-ndjson")


def _add_past(app: FastAPI, context: Context) -> None:
    @app.get(f"{ENVIRONMENT}/rollouts/{{rollout}}/points")
    def points(key: Key, rollout: Annotated[int, Path(ge=1, le=2**53)]) -> list[schemas.Point]:
        context.watched.view(key)  # never deployed is no empty answer
        if rollout not in {record.rollout.id for record in context.store.history(key, limit=1000)}:
            raise errors.NotFoundError(
                f"{key} has had no rollout #{rollout} lately.", hint="`tide history` lists them."
            )
        return [past.point(point) for point in context.series.points(key, rollout)]

    @app.get(f"{ENVIRONMENT}/series")
    def series(
        key: Key,
        since: Annotated[int | None, Query(ge=0, le=2**40)] = None,
        until: Annotated[int | None, Query(ge=0, le=2**40)] = None,
        step: Annotated[int | None, Query(ge=1, le=31 * 24 * 3600)] = None,
    ) -> list[schemas.SeriesRow]:
        context.watched.view(key)
        asked = past.asked(context.operations.clock.now(), since, until, step)
        stretch = {"since": asked.since, "until": asked.until, "step_s": asked.tier_s}
        rows = context.series.rows(key, **stretch, limit=past.ROWS_MAX + 1)
        if len(rows) > past.ROWS_MAX:
            raise errors.RequestError(
                f"That is more than {past.ROWS_MAX} rows.", hint="Ask for a shorter time, or longer steps."
            )
        return [past.row(row, asked.step_s) for row in rolled_up(rows, asked.step_s)]


def _environment(
    context: Context, key: EnvironmentKey, state: model.EnvironmentState | None = None
) -> schemas.Environment:
    """As last seen; with `state`, as just decided."""
    try:
        view = context.watched.view(key)
    except errors.NotFoundError:
        if state is None:
            raise
        view = loop.View(state=state, observed=model.Observation(runtime=None, routes=None))
    if state is not None:
        view = loop.View(state=state, observed=view.observed, failures=view.failures, at=view.at)
    shown = views.environment(view, context.watched.meter(key), context.listening)
    return shown.model_copy(update={"noise": context.noise(key)})


def _logged(
    context: Context, key: EnvironmentKey, *, service: str | None, placement: int | None
) -> dict[str, tuple[int, str]]:
    """Groups whose output is meant, each with its release and service. Raises NotFoundError."""
    state = context.store.load(key).state
    known: dict[str, tuple[int, str]] = {}
    for record in reversed(context.store.history(key)):
        rollout = record.rollout
        if rollout.placement is not None and rollout.placement == placement:
            for spec in rollout.request.spec.services:
                group = model.group_id(key, rollout.placement, spec.name)
                known[group] = (rollout.request.release, spec.name)
            if rollout.request.spec.verify is not None:
                checks = model.group_id(key, rollout.placement, model.VERIFY_SERVICE)
                known[checks] = (rollout.request.release, model.VERIFY_SERVICE)
    for present in state.placements:
        if placement in (None, present.id):
            for spec in present.spec.services:
                known[model.group_id(key, present.id, spec.name)] = (present.release, spec.name)
            if present.spec.verify is not None:
                checks = model.group_id(key, present.id, model.VERIFY_SERVICE)
                known[checks] = (present.release, model.VERIFY_SERVICE)
    if placement is not None and not known:
        raise errors.NotFoundError(
            f"{key} has had no placement {placement} lately.", hint="`tide history --json` shows them."
        )
    wanted = {group: about for group, about in known.items() if service in (None, about[1])}
    if known and not wanted:
        names = ", ".join(sorted({name for _, name in known.values()}))
        raise errors.NotFoundError(f"There is no service {service!r} there.", hint=f"There are: {names}.")
    return wanted


def _log_lines(
    context: Context, wanted: dict[str, tuple[int, str]], *, tail: int, follow: bool
) -> Iterator[str]:
    """One JSON object a line. Groups follow one after the other, or mixed as they come when followed."""
    for line in _merged(context, tuple(wanted), tail=tail, follow=follow):
        release, name = wanted[line.group_id]
        about = schemas.LogLine(service=name, release=release, index=line.index, text=line.text)
        yield about.model_dump_json() + "\n"


def _merged(context: Context, groups: tuple[str, ...], *, tail: int, follow: bool) -> Iterator[ports.LogLine]:
    sources = [context.runtime.logs(group, tail=tail, follow=follow) for group in groups]
    while sources:
        idle = True
        for source in tuple(sources):
            for line in source:
                if line is None:
                    break
                idle = False
                yield line
            else:
                sources.remove(source)
        if idle:
            context.operations.clock.sleep(FOLLOW_INTERVAL_S)

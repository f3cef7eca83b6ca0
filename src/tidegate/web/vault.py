"""Routes that need a key: secrets, configuration, keys, and what is proved of a release.

Invariants: no answer holds a value of a secret, and none echoes a request; a release that comes in a file is
read only as far as its signature until somebody we trust is found to vouch for it.
Neighbours: `gate` has let the asker in before, the vault does the work.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import IO, Annotated, Any, Final, Protocol

from fastapi import Depends, FastAPI, Path, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from tidegate import errors, manifest, ports
from tidegate.core import model, roles
from tidegate.core.model import EnvironmentKey
from tidegate.engine import operations
from tidegate.vault import bundles, origins, proofs, redaction, statements
from tidegate.vault.keys import PublicKey
from tidegate.vault.opened import Vault
from tidegate.web import schemas, views
from tidegate.web.identity import Asking, By, Noting

NAME: Final = r"^[a-z][a-z0-9-]{0,39}$"
VARIABLE: Final = r"^[A-Za-z_][A-Za-z0-9_]{0,99}$"
ENVIRONMENT: Final = "/v1/apps/{app}/environments/{environment}"
RELEASE: Final = "/v1/apps/{app}/releases/{number}"
#: Characters; the vault counts bytes, and says so.
VALUE_MAX: Final = 128 * 1024
BUNDLE_BYTES_MAX: Final = bundles.ARCHIVE_BYTES_MAX + 4 * 1024**2
#: A file up to this size is kept in memory on its way in.
SPOOL_BYTES: Final = 8 * 1024**2


class Content(proofs.Content, operations.Content, Protocol):
    """The content store, as these routes need it."""

    def add(self, stream: Any, *, digest: str | None = None) -> object:
        """Verify and unpack an archive. Raises ArtifactError, StorageError."""

    def repair(self, digest: str) -> None:
        """Unpack the archive again."""

    def archive(self, digest: str) -> FilePath:
        """The archive as it came in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What these routes use."""

    vault: Vault
    store: ports.Store
    operations: operations.Operations
    content: Content
    passes: Callable[[model.Release], Sequence[proofs.Sealed]]
    """Signed statements that a release, or what runs as it does, came through an environment."""


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Value(_Body):
    """The value of a secret."""

    value: str = Field(max_length=VALUE_MAX, repr=False)


class Trusted(_Body):
    """Somebody else's public key."""

    name: str = Field(max_length=100)
    pem: str = Field(max_length=64 * 1024)


def _key(
    app: Annotated[str, Path(pattern=NAME)], environment: Annotated[str, Path(pattern=NAME)]
) -> EnvironmentKey:
    return EnvironmentKey(app=app, environment=environment)


Key = Annotated[EnvironmentKey, Depends(_key)]
Number = Annotated[int, Path(ge=1, le=2**53)]
VariableName = Annotated[str, Path(pattern=VARIABLE)]


def add(app: FastAPI, parts: Parts) -> None:
    """Put the routes into the application."""
    _add_secrets(app, parts)
    _add_configuration(app, parts)
    _add_keys(app, parts)
    _add_proofs(app, parts)
    _add_bundles(app, parts)


# --- secrets ---------------------------------------------------------------------------------------


def _add_secrets(app: FastAPI, parts: Parts) -> None:
    secrets = parts.vault.secrets

    @app.get(f"{ENVIRONMENT}/secrets")
    def listed(key: Key) -> list[schemas.Secret]:
        kept = secrets.kept(key)
        return [_secret(parts, key, name, kept) for name in sorted({record.name for record in kept})]

    @app.put(f"{ENVIRONMENT}/secrets/{{name}}")
    def put(key: Key, name: VariableName, body: Value, by: By, note: Noting) -> schemas.SecretChange:
        value = body.value.encode()
        version = secrets.set(key, name, value, by=by)
        note.detail = f"set {name} version {version}"
        outdated = [user for user in _users(parts, key, name) if user.version != version]
        redacted = len(body.value.strip()) >= redaction.LENGTH_MIN
        return schemas.SecretChange(name=name, version=version, outdated=outdated, redacted=redacted)

    @app.delete(f"{ENVIRONMENT}/secrets/{{name}}")
    def remove(key: Key, name: VariableName, note: Noting) -> schemas.SecretChange:
        count = secrets.remove(key, name)
        note.detail = f"removed {name}: {count} versions"
        return schemas.SecretChange(name=name, version=None, outdated=_users(parts, key, name), redacted=True)

    @app.post(f"{ENVIRONMENT}/secrets-key")
    def rotate(key: Key, note: Noting) -> schemas.SecretsSealed:
        count = secrets.rotate(key)
        note.detail = f"sealed {count} values with a new key"
        return schemas.SecretsSealed(versions=count)


def _secret(
    parts: Parts, key: EnvironmentKey, name: str, kept: tuple[ports.SecretRecord, ...]
) -> schemas.Secret:
    versions = [
        schemas.SecretVersion(version=record.version, at=record.at, by=record.by)
        for record in kept
        if record.name == name
    ]
    return schemas.Secret(name=name, versions=versions, users=_users(parts, key, name))


def _users(parts: Parts, key: EnvironmentKey, name: str) -> list[schemas.SecretUser]:
    return [
        schemas.SecretUser(release=placement.release, role=placement.role.value, version=pinned.version)
        for placement in parts.store.load(key).state.placements
        for pinned in placement.secrets
        if pinned.name == name
    ]


# --- configuration ---------------------------------------------------------------------------------


def _add_configuration(app: FastAPI, parts: Parts) -> None:
    @app.get(f"{ENVIRONMENT}/configuration")
    def configuration(
        key: Key, release: Annotated[int | None, Query(ge=1, le=2**53)] = None
    ) -> schemas.Configuration:
        live = parts.store.load(key).state.live
        if live is not None and release in (None, live.release):
            return _configuration(key, live.release, live.spec, live.secrets, live=True)
        found = _release(parts, key.app, release)
        spec = found.environment(key.environment)
        if spec is None:
            known = ", ".join(name for name, _ in found.environments)
            raise errors.NotFoundError(
                f"{found.name} does not know the environment {key.environment}.",
                hint=f"Its tidegate.yaml names: {known}.",
            )
        newest = parts.vault.secrets.versions(key)
        return _configuration(key, found.number, spec, newest, live=False)


def _configuration(
    key: EnvironmentKey,
    release: int,
    spec: model.EnvironmentSpec,
    versions: tuple[model.SecretVersion, ...],
    *,
    live: bool,
) -> schemas.Configuration:
    known = {version.name: version.version for version in versions}
    return schemas.Configuration(
        environment=key.environment,
        release=release,
        live=live,
        config=[schemas.Variable(name=name, value=value) for name, value in spec.config],
        secrets=[
            schemas.SecretUsed(name=use.name, version=known.get(use.name), as_file=use.as_file)
            for use in spec.secrets
        ],
    )


def _release(parts: Parts, app: str, number: int | None) -> model.Release:
    """That one, or the newest. Raises NotFoundError."""
    found = (
        next(iter(parts.store.releases(app, limit=1)), None)
        if number is None
        else parts.store.release(app, number)
    )
    if found is None:
        name = "no release" if number is None else f"no release r{number}"
        raise errors.NotFoundError(f"{app} has {name}.", hint="`tide releases` lists them.")
    return found


# --- keys ------------------------------------------------------------------------------------------


def _add_keys(app: FastAPI, parts: Parts) -> None:
    keys = parts.vault.keys

    @app.get("/v1/keys")
    def listed() -> list[schemas.Key]:
        own = keys.own()
        return [_shown(key, in_use=key is own[0]) for key in (*own, *keys.trusted())]

    @app.post("/v1/keys", status_code=201)
    def trust(body: Trusted, note: Noting) -> schemas.Key:
        trusted = keys.trust(body.name, body.pem)
        note.detail = f"trusts {trusted.name}, key {trusted.id}"
        return _shown(trusted, in_use=False)

    @app.delete("/v1/keys/{name}")
    def distrust(name: str, note: Noting) -> dict[str, str]:
        keys.distrust(name)
        note.detail = f"trusts {name} no more"
        return {"name": name}

    @app.post("/v1/keys/rotate")
    def rotate(note: Noting) -> schemas.Key:
        key = keys.rotate_signer()
        note.detail = f"signs with key {key.id}"
        return _shown(key, in_use=True)


def _shown(key: PublicKey, *, in_use: bool) -> schemas.Key:
    return schemas.Key(id=key.id, name=key.name, own=key.own, in_use=in_use, pem=key.pem)


# --- proofs ----------------------------------------------------------------------------------------


def _add_proofs(app: FastAPI, parts: Parts) -> None:
    @app.get(f"{RELEASE}/proof")
    def proof(app: Annotated[str, Path(pattern=NAME)], number: Number) -> schemas.Proof:
        return _proof(parts, _release(parts, app, number))

    @app.post(f"{RELEASE}/repair")
    def repair(app: Annotated[str, Path(pattern=NAME)], number: Number, note: Noting) -> schemas.Proof:
        found = _release(parts, app, number)
        note.release, note.detail = number, f"unpacks {found.digest} again"
        parts.content.repair(found.digest)
        return _proof(parts, found)


def _proof(parts: Parts, release: model.Release) -> schemas.Proof:
    admissions = [
        proofs.Sealed(environment=key.environment, envelope=placement.admission)
        for key in parts.store.environments()
        if key.app == release.app
        for placement in parts.store.load(key).state.placements
        if placement.release == release.number
    ]
    about = proofs.About(release=release, passes=parts.passes(release), admissions=admissions)
    found = proofs.findings(about, parts.content, parts.vault.origins, parts.vault.seals)
    return schemas.Proof(
        release=release.number,
        ok=all(finding.ok for finding in found),
        findings=[
            schemas.Finding(name=one.name, ok=one.ok, detail=one.detail, hint=one.hint) for one in found
        ],
    )


# --- releases in files -----------------------------------------------------------------------------


def _add_bundles(app: FastAPI, parts: Parts) -> None:
    @app.get(f"{RELEASE}/export")
    def export(app: Annotated[str, Path(pattern=NAME)], number: Number) -> StreamingResponse:
        found = _release(parts, app, number)
        parts.vault.origins.proved(found)
        parts.content.verify_archive(found.digest)
        kept = parts.vault.origins.kept(app, number)
        if not kept.manifest:
            raise errors.RefusedError(
                f"The manifest of {found.name} was not kept, so it cannot be exported.",
                reason=model.Refusal.NOT_KEPT.value,
                hint="Add the release again from its source.",
            )
        pieces = bundles.written(kept, parts.content.archive(found.digest))
        return StreamingResponse(pieces, media_type="application/x-tar")

    @app.post("/v1/releases/import", status_code=201)
    async def take(request: Request, asker: Asking, note: Noting) -> schemas.Release:
        with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
            received = 0
            async for chunk in request.stream():
                received += len(chunk)
                if received > BUNDLE_BYTES_MAX:
                    raise errors.ArtifactError(f"The file is larger than {BUNDLE_BYTES_MAX} bytes.")
                await run_in_threadpool(spool.write, chunk)
            spool.seek(0)
            return await run_in_threadpool(_imported, parts, spool, asker, note)


def _imported(parts: Parts, file: IO[bytes], asker: roles.Asker, note: Noting) -> schemas.Release:
    """Signature, then manifest, then package: each is read only if what stands before it is trusted."""
    bundle = bundles.read(file)
    provenance, claims = _vouched(parts.vault, bundle.provenance)
    parsed = manifest.parse(provenance.manifest)
    if parsed.app != claims["app"]:
        raise _untrusted(f"its manifest is of the app {parsed.app}, not of {str(claims['app'])[:40]}")
    digest = str(claims["digest"])
    note.app, note.detail = parsed.app, digest
    asker.demand(roles.Action.ADD_RELEASE, parsed.app)
    parts.content.add(bundle.archive, digest=digest)
    release = model.Release(
        app=parsed.app,
        number=0,
        digest=digest,
        environments=parsed.environments,
        revision=str(claims.get("revision", ""))[:200],
        created_at=parts.operations.clock.now(),
        created_by=asker.by,
    )
    added = parts.operations.import_release(release, lambda one: parts.vault.origins.take(one, provenance))
    note.release = added.number
    return views.release(added, kept=True)


def _vouched(vault: Vault, came: ports.Provenance) -> tuple[ports.Provenance, ports.Claims]:
    """The envelope as it is kept here, and what it says. Raises RefusedError."""
    try:
        envelope = vault.seals.accepted(came.envelope)
        claims = vault.seals.opened(statements.PROVENANCE, envelope)
    except errors.SealError as error:
        raise _untrusted(error.message) from error
    if not came.manifest or claims.get("manifest") != origins.digest_of(came.manifest):
        raise _untrusted("its manifest is not the one that was signed")
    return ports.Provenance(envelope=envelope, manifest=came.manifest), claims


def _untrusted(why: str) -> errors.RefusedError:
    return errors.RefusedError(
        f"The release is not taken in: {why}",
        reason=model.Refusal.UNTRUSTED.value,
        hint="`tide key trust NAME FILE` trusts whoever signed it, if you know the key to be theirs.",
    )

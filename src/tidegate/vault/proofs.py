"""What can be proved of a release, point by point, for people: `tide verify`.

Nothing is repaired or decided here. Invariant: what could not be looked at is not well.
Neighbours: `admitting` asks the same before every start and refuses; `web.vault` shows these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from tidegate import errors, ports
from tidegate.core import model
from tidegate.vault import admitting, origins, statements

REPAIR: Final = "`tide verify --repair` unpacks it again from the archive."
#: Of a key id or digest: enough to tell a few apart.
SHORT: Final = 16


class Content(Protocol):
    """Packages on this machine."""

    def verify(self, digest: str) -> None:
        """Raises StorageError unless the tree is as it was packed."""

    def verify_archive(self, digest: str) -> None:
        """Raises ArtifactError, StorageError unless the archive is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A statement about a release that the state holds."""

    environment: str
    envelope: str


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """All that the state says of a release."""

    release: model.Release
    passes: Sequence[Sealed] = ()
    admissions: Sequence[Sealed] = ()
    """Of what runs."""


def findings(
    about: About, content: Content, signed: origins.SignedOrigins, seals: ports.Seals
) -> tuple[ports.Finding, ...]:
    """Archive, files, provenance, manifest, passes, admissions: in this order."""
    digest = about.release.digest
    return (
        _found("archive", lambda: content.verify_archive(digest), f"has the digest {digest}"),
        _found("files", lambda: content.verify(digest), "every byte is as it was packed", REPAIR),
        _provenance(about.release, signed),
        *_manifest(about.release, signed),
        *(_sealed(about.release, statements.PASS, seal, seals) for seal in about.passes),
        *(_sealed(about.release, statements.ADMISSION, seal, seals) for seal in about.admissions),
    )


def _found(name: str, look: Callable[[], object], well: str, hint: str = "") -> ports.Finding:
    try:
        look()
    except errors.TidegateError as error:
        return ports.Finding(name=name, ok=False, detail=error.message, hint=hint or error.hint or "")
    return ports.Finding(name=name, ok=True, detail=well)


def _provenance(release: model.Release, signed: origins.SignedOrigins) -> ports.Finding:
    try:
        proved = signed.proved(release)
    except errors.TidegateError as error:
        return ports.Finding(name="provenance", ok=False, detail=error.message, hint=error.hint or "")
    return ports.Finding(name="provenance", ok=True, detail=_said(proved))


def _said(proved: statements.Proved) -> str:
    claims, key = proved.claims, proved.key
    whose = "by this control plane" if key.own else f"by {key.name}, whom you trust"
    source = "@".join(str(claims[part]) for part in ("repository", "revision") if claims.get(part))
    how = {"built": "built here from a clean checkout", "sent": "sent"}.get(str(claims.get("how")), "made")
    parts = (
        f"signed {whose} (key {key.id[:SHORT]})",
        f"source {source}" if source else "source unknown",
        f"{how} by {claims['by']}" if claims.get("by") else how,
        f"with `{claims['command']}`" if claims.get("command") else "",
    )
    return ", ".join(part for part in parts if part)


def _manifest(release: model.Release, signed: origins.SignedOrigins) -> Iterator[ports.Finding]:
    """Only where one was kept and signed."""
    try:
        wanted = signed.proved(release).claims.get("manifest")
        kept = signed.kept(release.app, release.number).manifest
    except errors.TidegateError:
        return
    if not wanted and not kept:
        return
    ok = origins.digest_of(kept) == wanted
    detail = "the one that was signed" if ok else "not the one that was signed: somebody changed the database"
    yield ports.Finding(name="manifest", ok=ok, detail=detail, hint="" if ok else origins.RESTORE)


def _sealed(release: model.Release, kind: str, seal: Sealed, seals: ports.Seals) -> ports.Finding:
    name = f"{kind} {'of' if kind == statements.PASS else 'to'} {seal.environment}"
    wanted: Mapping[str, object] = {
        "app": release.app,
        "environment": seal.environment,
        "digest": release.digest,
    }
    try:
        if not seal.envelope:
            raise errors.SealError("There is no signed statement.", hint=origins.RESTORE)
        claims = seals.opened(kind, seal.envelope)
    except errors.TidegateError as error:
        return ports.Finding(name=name, ok=False, detail=error.message, hint=error.hint or "")
    wrong = admitting.differences(claims, wanted)
    if wrong:
        detail = f"It is signed for {wrong}. Somebody changed the database."
        return ports.Finding(name=name, ok=False, detail=detail, hint=origins.RESTORE)
    return ports.Finding(name=name, ok=True, detail="signed by this control plane")

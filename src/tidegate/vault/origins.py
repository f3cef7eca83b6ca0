"""Where releases come from: signed when they are added, proved whenever they are to run.

Invariants: as long as it can be proved, a release keeps the word it came with; a provenance is believed only
of the release's own artifact. The text of the manifest is kept beside it, and its digest is signed, so that
both can be handed to another control plane.
Neighbours: `statements` signs and proves, `store.secrets` keeps the envelopes, `bundles` hands them on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final, Protocol

from tidegate import errors, ports
from tidegate.core import model
from tidegate.vault import statements

RESTORE: Final = "Restore the last backup of the state; `tide audit` shows what was done through Tidegate."


class Rows(Protocol):
    """Where provenances are kept."""

    def keep_provenance(self, app: str, number: int, provenance: ports.Provenance, *, at: float) -> None:
        """Of a release, in the place of what there was."""

    def provenance(self, app: str, number: int) -> ports.Provenance | None:
        """Of a release, as it was signed."""


class SignedOrigins:
    """`ports.Origins` with the keys of this control plane. Threads may share it."""

    def __init__(self, rows: Rows, seals: statements.Seals, *, now: Callable[[], float]) -> None:
        """`now`: Unix seconds."""
        self._rows: Final = rows
        self._seals: Final = seals
        self._now: Final = now

    def sign(self, release: model.Release, origin: ports.Origin) -> None:
        if self._is_proved(release):
            return
        envelope = self._seals.seal(
            statements.PROVENANCE,
            {
                "app": release.app,
                "digest": release.digest,
                "revision": release.revision,
                "repository": origin.repository,
                "command": origin.command,
                "manifest": digest_of(origin.manifest),
                "how": origin.how,
                "by": release.created_by,
                "started": origin.started or release.created_at,
                "finished": origin.finished or release.created_at,
                "materials": origin.materials,
            },
        )
        self._keep(release, ports.Provenance(envelope=envelope, manifest=origin.manifest))

    def take(self, release: model.Release, provenance: ports.Provenance) -> None:
        """Keep what another control plane has signed of a release. Raises SealError."""
        _about(self._seals.proved(statements.PROVENANCE, provenance.envelope), release)
        if not self._is_proved(release):
            self._keep(release, provenance)

    def _is_proved(self, release: model.Release) -> bool:
        try:
            self.proved(release)
        except errors.SealError:
            return False
        return True

    def _keep(self, release: model.Release, provenance: ports.Provenance) -> None:
        self._rows.keep_provenance(release.app, release.number, provenance, at=self._now())

    def prove(self, release: model.Release) -> ports.Claims:
        return self.proved(release).claims

    def proved(self, release: model.Release) -> statements.Proved:
        """The same, with the key whose word it is."""
        return self.proved_of(release.app, release.number, release.digest)

    def proved_of(self, app: str, number: int, digest: str) -> statements.Proved:
        """The same, for who knows a release by its number and digest."""
        kept = self.kept(app, number)
        try:
            found = self._seals.proved(statements.PROVENANCE, kept.envelope)
        except errors.SealError as error:
            raise errors.SealError(
                f"Where r{number} of {app} comes from is not proved. {error.message}",
                hint=f"If you took away trust in a key, that is meant. Else: {RESTORE}",
            ) from error
        _about(found, model.Release(app=app, number=number, digest=digest, environments=()))
        return found

    def kept(self, app: str, number: int) -> ports.Provenance:
        """As it is stored; believe nothing of it. Raises SealError if there is none."""
        found = self._rows.provenance(app, number)
        if found is None:
            raise errors.SealError(
                f"Nobody has signed where r{number} of {app} comes from.",
                hint="Build and deploy it again, or import it signed: `tide release import`.",
            )
        return found


def _about(found: statements.Proved, release: model.Release) -> None:
    app, digest = found.claims.get("app"), found.claims.get("digest")
    if (app, digest) != (release.app, release.digest):
        raise errors.SealError(
            f"The provenance of {release.name} of {release.app} is that of another artifact: "
            f"{str(digest)[:80]} of {str(app)[:40]}. Somebody changed the database.",
            hint=RESTORE,
        )


def digest_of(text: str) -> str:
    """Of a manifest; empty if there is none."""
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}" if text else ""

"""What is signed: where an artifact comes from, that it passed, that it was let in.

    provenance   SLSA v1 (https://slsa.dev/spec/v1.1/provenance): built from which source, how, by whom
    pass         this release passed that environment
    approval     somebody lets this release enter that environment
    admission    this release may run in that environment, on these grounds

Claims are flat: a name and a text, a number or some texts. Hides how they stand in a statement. Invariants:
a statement of one kind is never taken for another; what others sign is believed of provenance alone, or
whoever may build could also say what has passed; what is handed out was read back before.
Neighbours: `envelopes` signs and proves, `keys` knows whose keys count; the pipeline asks by `ports.Seals`.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from tidegate import errors, ports
from tidegate.vault import envelopes
from tidegate.vault.keys import Keys, PublicKey

PROVENANCE: Final = "provenance"
PASS: Final = "pass"  # noqa: S105 - that somebody passed a gate
ADMISSION: Final = "admission"
APPROVAL: Final = "approval"

PREDICATE_TYPES: Final = {
    PROVENANCE: "https://slsa.dev/provenance/v1",
    PASS: "tidegate:pass/v1",
    ADMISSION: "tidegate:admission/v1",
    APPROVAL: "tidegate:approval/v1",
}
BUILD_TYPE: Final = "tidegate:build/v1"

_DIGEST: Final = re.compile(r"sha256:([0-9a-f]{64})")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proved:
    """A statement that holds."""

    claims: ports.Claims
    key: PublicKey
    """Whose word it is."""


class Seals:
    """`ports.Seals` with the keys of this control plane."""

    def __init__(self, keys: Keys, *, version: str) -> None:
        """`version`: of Tidegate, for the provenance."""
        self._keys: Final = keys
        self._version: Final = version

    def seal(self, kind: str, claims: ports.Claims) -> str:
        predicate_type = _predicate_type(kind)
        app, digest, rest = _subject(claims)
        signer = self._keys.signer()
        if kind == PROVENANCE:
            builder = f"tidegate:{signer.public_key.keyid}"
            rest = _slsa({**rest, "builder": builder, "builder_version": self._version})
        text = envelopes.signed(
            name=app, sha256=digest, predicate_type=predicate_type, predicate=rest, signer=signer
        )
        self.proved(kind, text)
        return text

    def opened(self, kind: str, envelope: str) -> Mapping[str, ports.Claim]:
        return self.proved(kind, envelope).claims

    def proved(self, kind: str, envelope: str) -> Proved:
        """The same, with the key that proves it. Raises SealError."""
        keys = self._keys.own()
        if kind == PROVENANCE:
            keys = (*keys, *self._keys.trusted())
        return _proved(kind, envelopes.proved(envelope, keys))

    def accepted(self, envelope: str) -> str:
        """A provenance made elsewhere, as it is kept here. Raises SealError if nobody we trust signed it."""
        keys = (*self._keys.own(), *self._keys.trusted())
        text = envelopes.accepted(envelope, keys)
        self.proved(PROVENANCE, text)
        return text


def _proved(kind: str, statement: envelopes.Statement) -> Proved:
    if statement.predicate_type != _predicate_type(kind):
        raise errors.SealError(
            f"The statement is no {kind}, but of the kind {statement.predicate_type[:100]!r}.",
            hint=envelopes.TAMPERED_HINT,
        )
    if not re.fullmatch(r"[0-9a-f]{64}", statement.sha256):
        raise errors.SealError("The statement names no digest.", hint=envelopes.TAMPERED_HINT)
    try:
        found = _from_slsa(statement.predicate) if kind == PROVENANCE else dict(statement.predicate)
        claims = {name: _claim(value) for name, value in found.items()}
    except (TypeError, ValueError) as error:
        raise errors.SealError(
            f"The {kind} is signed, but says something that Tidegate cannot read."
        ) from error
    about = {"app": statement.name, "digest": f"sha256:{statement.sha256}"}
    return Proved(claims={**claims, **about}, key=statement.key)


def _predicate_type(kind: str) -> str:
    if kind not in PREDICATE_TYPES:
        raise errors.SealError(f"There are no statements of the kind {kind!r}.")
    return PREDICATE_TYPES[kind]


def _subject(claims: ports.Claims) -> tuple[str, str, dict[str, Any]]:
    """App, hex digest, and all other claims."""
    app, digest = claims.get("app"), claims.get("digest")
    found = _DIGEST.fullmatch(digest) if isinstance(digest, str) else None
    if found is None or not isinstance(app, str) or not app:
        raise errors.SealError("A statement needs `app` and `digest`: whose artifact it is about.")
    try:
        rest = {name: _written(value) for name, value in claims.items() if name not in ("app", "digest")}
    except TypeError as error:
        raise errors.SealError(f"A claim is a text, a number or some texts, not {error}.") from error
    return app, found[1], rest


def _written(value: object) -> object:
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, list | tuple) and all(isinstance(part, str) for part in value):
        return list(value)
    raise TypeError(type(value).__name__)


def _claim(value: object) -> ports.Claim:
    written = _written(value)
    return tuple(written) if isinstance(written, list) else written  # type: ignore[return-value] # `_written`


# --- SLSA ------------------------------------------------------------------------------------------


def _slsa(claims: Mapping[str, Any]) -> dict[str, Any]:
    """Claims of a provenance in the shape of SLSA's."""
    repository, revision = str(claims.get("repository", "")), str(claims.get("revision", ""))
    source: dict[str, Any] = {"uri": f"git+{repository}"} if repository else {"name": "source"}
    if _COMMIT.fullmatch(revision):
        source["digest"] = {"gitCommit": revision}
    materials = [{"uri": uri} for uri in claims.get("materials", ())]
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "repository": repository,
                "revision": revision,
                "command": str(claims.get("command", "")),
                "manifest": str(claims.get("manifest", "")),
            },
            "internalParameters": {"how": str(claims.get("how", ""))},
            "resolvedDependencies": ([source] if repository or "digest" in source else []) + materials,
        },
        "runDetails": {
            "builder": {"id": claims["builder"], "version": {"tidegate": claims["builder_version"]}},
            "metadata": {
                "invocationId": str(claims.get("by", "")),
                "startedOn": _time(claims.get("started", 0)),
                "finishedOn": _time(claims.get("finished", 0)),
            },
        },
    }


def _from_slsa(predicate: Mapping[str, Any]) -> dict[str, Any]:
    """The claims of a provenance, also of one from another builder: what it does not say is empty."""
    definition, details = _part(predicate, "buildDefinition"), _part(predicate, "runDetails")
    parameters, metadata = _part(definition, "externalParameters"), _part(details, "metadata")
    dependencies = definition.get("resolvedDependencies")
    named = (
        [found for found in dependencies if isinstance(found, dict)] if isinstance(dependencies, list) else []
    )
    if _text(definition, "buildType") == BUILD_TYPE:
        repository, revision = _text(parameters, "repository"), _text(parameters, "revision")
    else:
        source = named[0] if named else {}
        repository = _text(source, "uri").removeprefix("git+")
        revision = _text(_part(source, "digest"), "gitCommit")
    uris = [_text(found, "uri") for found in named]
    return {
        "repository": repository,
        "revision": revision,
        "command": _text(parameters, "command"),
        "manifest": _text(parameters, "manifest"),
        "how": _text(_part(definition, "internalParameters"), "how"),
        "materials": [uri for uri in uris if uri and uri.removeprefix("git+") != repository],
        "builder": _text(_part(details, "builder"), "id"),
        "builder_version": _text(_part(_part(details, "builder"), "version"), "tidegate"),
        "by": _text(metadata, "invocationId"),
        "started": _text(metadata, "startedOn"),
        "finished": _text(metadata, "finishedOn"),
    }


def _part(of: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = of.get(name, {})
    return found if isinstance(found, dict) else {}


def _text(of: Mapping[str, Any], name: str) -> str:
    found = of.get(name, "")
    return found if isinstance(found, str) else ""


def _time(at: object) -> str:
    """RFC 3339, from Unix seconds."""
    seconds = float(at) if isinstance(at, int | float) else 0.0
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

"""Webhooks of GitHub, GitLab, Gitea and Forgejo: signature first, then what they say. Pure.

Invariants: nothing of a body is looked at before its signature; each comparison takes the same time however
much of it is right, and both valid secrets are always tried; what was signed is still a stranger's text, so
that only two names are taken from it. Neighbours: `web.hooks` reads requests, `arrivals` acts.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tidegate import errors
from tidegate.pushes import Forge
from tidegate.sources import refs

DELIVERY_CHARACTERS_MAX: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class _Names:
    """Headers of a forge, in small letters; the first that is there counts."""

    signature: tuple[str, ...]
    delivery: tuple[str, ...]
    event: tuple[str, ...]
    pushes: frozenset[str]
    """Events that tell of new commits."""


_NAMES: Final = {
    Forge.GITHUB: _Names(
        signature=("x-hub-signature-256",),
        delivery=("x-github-delivery",),
        event=("x-github-event",),
        pushes=frozenset({"push"}),
    ),
    Forge.GITLAB: _Names(
        signature=("x-gitlab-token",),
        delivery=("idempotency-key", "x-gitlab-event-uuid"),
        event=("x-gitlab-event",),
        pushes=frozenset({"Push Hook", "Tag Push Hook"}),
    ),
    Forge.GITEA: _Names(
        signature=("x-forgejo-signature", "x-gitea-signature"),
        delivery=("x-forgejo-delivery", "x-gitea-delivery"),
        event=("x-forgejo-event", "x-gitea-event"),
        pushes=frozenset({"push"}),
    ),
}

Headers = Mapping[str, str]
"""By name in small letters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a webhook says: this ref leads to this commit now."""

    delivery: str
    body: str
    """SHA-256 of what was sent."""
    ref: str
    revision: str


def is_signed(forge: Forge, headers: Headers) -> bool:
    """There is something to check; without it a body need not even be read."""
    return bool(_first(headers, _NAMES[forge].signature))


def is_believed(forge: Forge, headers: Headers, body: bytes, keys: Sequence[bytes]) -> bool:
    """Whether who sent this knows one of the secrets."""
    given = _first(headers, _NAMES[forge].signature).encode("utf-8", "replace")
    found = False
    for key in keys or (b"",):
        found |= hmac.compare_digest(_expected(forge, key, body), given)
    return found and bool(keys)


def _expected(forge: Forge, key: bytes, body: bytes) -> bytes:
    if forge is Forge.GITLAB:  # sends the secret itself
        return key
    signature = hmac.new(key, body, hashlib.sha256).hexdigest()
    return (f"sha256={signature}" if forge is Forge.GITHUB else signature).encode()


def told(forge: Forge, headers: Headers, body: bytes) -> Told | None:
    """What it says; None: nothing about new commits. Raises RequestError when it cannot be read."""
    names = _NAMES[forge]
    delivery = _first(headers, names.delivery)
    if not delivery or len(delivery) > DELIVERY_CHARACTERS_MAX or not delivery.isprintable():
        raise errors.RequestError("The webhook has no delivery id.")
    if _first(headers, names.event) not in names.pushes:
        return None
    try:
        said = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise errors.RequestError("The body is not JSON.", hint="Choose application/json.") from error
    ref = said.get("ref") if isinstance(said, dict) else None
    revision = said.get("after") if isinstance(said, dict) else None
    if not isinstance(ref, str) or not isinstance(revision, str) or not refs.is_revision(revision):
        raise errors.RequestError("The body names no ref and commit.")
    if refs.trouble(ref) or refs.is_nothing(revision):  # not built, or removed
        return None
    return Told(delivery=delivery, body=hashlib.sha256(body).hexdigest(), ref=ref, revision=revision)


def _first(headers: Headers, names: tuple[str, ...]) -> str:
    return next((headers[name] for name in names if name in headers), "")

"""Webhooks as the forges send them: headers, body, signature."""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Final

from tidegate.pushes import Forge

SIGNATURE: Final = {
    Forge.GITHUB: "x-hub-signature-256",
    Forge.GITLAB: "x-gitlab-token",
    Forge.GITEA: "x-gitea-signature",
}
_EVENT: Final = {
    Forge.GITHUB: ("x-github-event", "push"),
    Forge.GITLAB: ("x-gitlab-event", "Push Hook"),
    Forge.GITEA: ("x-gitea-event", "push"),
}
_DELIVERY: Final = {
    Forge.GITHUB: "x-github-delivery",
    Forge.GITLAB: "x-gitlab-event-uuid",
    Forge.GITEA: "x-gitea-delivery",
}


@dataclass(frozen=True, slots=True)
class Sent:
    """A request."""

    headers: dict[str, str]
    body: bytes


def signed(forge: Forge, key: bytes, body: bytes, *, delivery: str = "d-1", event: str = "") -> Sent:
    """Any body, signed by who knows the key."""
    digest = hmac.new(key, body, hashlib.sha256).hexdigest()
    signature = {Forge.GITHUB: f"sha256={digest}", Forge.GITLAB: key.decode(), Forge.GITEA: digest}[forge]
    name, usual = _EVENT[forge]
    return Sent(
        {
            SIGNATURE[forge]: signature,
            _DELIVERY[forge]: delivery,
            name: event or usual,
            "content-type": "application/json",
        },
        body,
    )


def sent(
    forge: Forge,
    key: bytes,
    *,
    revision: str,
    ref: str = "refs/heads/main",
    delivery: str = "d-1",
    event: str = "",
) -> Sent:
    """A push of that commit, told by the forge."""
    said = {"ref": ref, "before": "b" * 40, "after": revision, "repository": {"id": 7}, "delivery": delivery}
    return signed(forge, key, json.dumps(said).encode(), delivery=delivery, event=event)

"""Who asks, in tests that call the API without a server: the peer that the kernel would have named."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import Any

from starlette.types import ASGIApp, Receive, Send

from tidegate.web import peer

OWNER = os.geteuid()


def as_user(app: ASGIApp, uid: int | None = OWNER) -> ASGIApp:
    """The application, asked by a process of this user over the Unix socket; None: over another socket."""

    async def asked(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        state = {} if uid is None else {peer.STATE: peer.Peer(uid)}
        await app({**scope, "state": state}, receive, send)

    return asked


class Anything:
    """A part of the application that nobody asks anything in this test: whatever is looked for is there."""

    version = "0"

    def __getattr__(self, name: str) -> Anything:
        return self

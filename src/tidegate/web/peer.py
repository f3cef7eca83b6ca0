"""Who is at the other end of a Unix socket, as the kernel knows it (SO_PEERCRED).

Hides that the HTTP server does not tell: its protocol is extended by one line, which puts the peer into the
state of every request of the connection. No client can put anything there. Neighbours: the daemon makes the
server with this protocol, `identity` reads what it left.
"""

from __future__ import annotations

import asyncio
import pwd
import socket
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from uvicorn.protocols.http.h11_impl import H11Protocol

STATE: Final = "peer"
#: `struct ucred` of unix(7): pid, uid, gid.
_UCRED: Final = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Peer:
    """A process of this machine that has connected."""

    uid: int

    @property
    def name(self) -> str:
        """Of its user, as of now."""
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return f"uid {self.uid}"


class PeerProtocol(H11Protocol):
    """HTTP/1.1 whose requests know their peer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, STATE: _peer(transport.get_extra_info("socket"))}


def of(scope: Mapping[str, Any]) -> Peer | None:
    """The peer of a request; None: it did not come over a Unix socket."""
    found = scope.get("state", {}).get(STATE)
    return found if isinstance(found, Peer) else None


def _peer(connection: Any) -> Peer | None:
    if connection is None or connection.family != socket.AF_UNIX:
        return None
    _, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    return Peer(uid)

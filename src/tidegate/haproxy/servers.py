"""Which commands bring the servers of one process to what a table wants.

Hides the safe order of HAProxy's server commands. Pure: two lists in, commands out. Neighbours:
`readback` says what is there, `runtime` sends the commands and looks again.

- A new server would take requests before its first check if it were simply enabled. It is put into the
  drain state, in which it is checked but gets nothing, and admitted when a check has passed.
- A server cannot be deleted while a connection is attached, an idle one included. Going from drain to
  maintenance closes the idle ones, `shutdown sessions` the others.
- A process of before a reload takes no commands about servers. It gets no new requests either (base.cfg);
  what is left there, WebSockets and downloads, is ended connection by connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tidegate.core import model
from tidegate.haproxy import config
from tidegate.haproxy.readback import LiveServer, Stream

#: Servers that a table wants, by `backend/name`.
Wanted = Mapping[str, model.Server]


def wanted(table: model.RouteTable) -> dict[str, model.Server]:
    """The servers of the table by `backend/name`. Raises RouterError for names that HAProxy cannot take."""
    result = {}
    for backend in table.backends:
        name = config.backend_name(table.key, backend.service, backend.slot)
        for server in backend.servers:
            result[f"{name}/{config.server_name(server.name)}"] = server
    return result


def bring_in(live: Iterable[LiveServer], wants: Wanted) -> list[str]:
    """Add what is missing, correct addresses, take servers that shall rest out of rotation."""
    present = {one.path: one for one in live}
    commands: list[str] = []
    for path, server in wants.items():
        one = present.get(path)
        if one is None:
            commands += [
                f"add server {path} {config.server_address(server)} {config.SERVER_OPTIONS}",
                f"enable health {path}",
                f"set server {path} state drain",
            ]
            continue
        host = config.canonical_address(server.host)
        if (one.host, one.port) != (host, server.port):
            commands.append(f"set server {path} addr {host} port {server.port}")
        if one.maintenance and server.ready:
            commands += [f"enable health {path}", f"set server {path} state drain"]
        elif one.ready and not server.ready:
            commands.append(f"set server {path} state drain")
    return commands


def admit(live: Iterable[LiveServer], wants: Wanted) -> list[str]:
    """Put servers into rotation that have shown that they answer."""
    commands: list[str] = []
    for one in live:
        server = wants.get(one.path)
        if server is None or not server.ready or one.ready or one.maintenance:
            continue
        if one.checked:
            commands.append(f"set server {one.path} state ready")
        if one.weight == 0:
            commands.append(f"set server {one.path} weight 1")
    return commands


def pending(live: Iterable[LiveServer], wants: Wanted) -> bool:
    """Whether a server that shall take requests is not in rotation yet."""
    ready = {one.path for one in live if one.ready}
    return any(server.ready and path not in ready for path, server in wants.items())


def take_out(live: Iterable[LiveServer], wants: Wanted) -> list[str]:
    """Delete what the table does not name; connections that are left are cut."""
    commands: list[str] = []
    for one in live:
        if one.path not in wants:
            commands += [
                f"set server {one.path} state drain",
                f"set server {one.path} state maint",
                f"shutdown sessions server {one.path}",
                f"del server {one.path}",
            ]
    return commands


def cut(streams: Iterable[Stream], wants: Wanted, prefix: str) -> list[str]:
    """End the streams to servers of the environment that the table does not name."""
    return [
        f"shutdown session {stream.id}"
        for stream in streams
        if stream.path.startswith(prefix) and stream.path not in wants
    ]

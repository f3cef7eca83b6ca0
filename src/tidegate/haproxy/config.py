"""What HAProxy reads, as pure functions of settings and route tables.

Hides HAProxy's configuration language and how a `Route` is written into a map value. Values in, text out;
every value is checked again here, although names are checked when a manifest is read: a blank, a quote or
a semicolon in a value would be another line or another command. Neighbours: `boot` writes the text to
disk, `runtime` sends the same lines over the socket.

How a request finds its way:

    hosts.map   host                  -> app.environment.service
    links.map   internal port         -> app.environment.service.slot
                                         app.environment./<app.environment.service of another app>.
    routes.map  app.environment.      -> <stable><mark>:<fence>:<canary>:<exposure>:<salt>:<preview>[:<hold>]
    backend     app.environment.service.slot

Each backend counts the answers of its servers to users, by latency, in a table of its own (`latency_lines`),
and in another one those of them that are errors, by twentieths of the users (`user_lines`).

One entry in routes.map per environment, found by prefix, so that all its services flip at once. The mark
says whether a canary is open, or requests are held: without, no cookie is read and nothing is hashed.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import ipaddress
import re
import string
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from tidegate.core import model, sequential
from tidegate.core.counters import USER_SHARDS
from tidegate.errors import RouterError
from tidegate.haproxy.settings import RouterSettings

HOSTS: Final = "hosts.map"
ROUTES: Final = "routes.map"
LINKS: Final = "links.map"
ADDRESSES: Final = "addresses.map"
MAPS: Final = (HOSTS, ROUTES, LINKS, ADDRESSES)
#: From microseconds, written as an address, to the bucket of `core.sequential`: never changed at run time.
BUCKETS: Final = "buckets.map"

#: The action that keeps requests, in HAProxy's own language for such.
HOLD: Final = "hold.lua"

PORT_MAX: Final = 65_535
#: Longer than any client waits for an answer.
HOLD_S_MAX: Final = 3600
#: HAProxy keeps times in milliseconds below 2^31.
TIME_MAX_S: Final = 2_000_000

#: Options of every server. A connection error takes it out at once, a check every half second brings it
#: back. `default-server` is not obeyed by `add server`, so they are spelt out each time.
SERVER_OPTIONS: Final = (
    "check inter 1s fastinter 200ms downinter 500ms fall 2 rise 1"
    " observe layer4 error-limit 1 on-error mark-down"
)

#: What a backend's table holds: at most one cell per bucket, for as long as the process lives.
LATENCY_TABLE: Final = f"type integer size {2 * sequential.BUCKETS} store gpc(2)"
#: HAProxy counts by itself how often a cell was tracked: nothing but errors is.
USER_TABLE: Final = f"type integer size {2 * USER_SHARDS} store conn_cnt"
#: HAProxy has an address of 32 bits: 71 minutes. The upper half is what a clock that is put back makes of a
#: time that did not pass; nothing says that it was slow.
_LATENCY_BITS: Final = 32
_LATENCY_END_US: Final = 2 ** (_LATENCY_BITS - 1)

_TEMPLATE: Final = string.Template(importlib.resources.files(__package__).joinpath("base.cfg").read_text())

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,39}")
_SERVER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_HOST: Final = re.compile(r"\*|(?=.{1,253}$)[a-z0-9_]([a-z0-9_-]{0,62})(\.[a-z0-9_]([a-z0-9_-]{0,62}))*")
_PATH: Final = re.compile(r"/[A-Za-z0-9._~!$&()*+,;=:@%/?-]{0,500}")
_TOKEN: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{1,127}")
_VALUE: Final = re.compile(
    r"(?P<stable>[0-9]|-)(?P<mark>[=~!]):(?P<fence>[0-9]{1,18}):(?P<canary>[0-9]|-)"
    r":(?P<exposure>[0-9]{1,5}):(?P<salt>[A-Za-z0-9_-]{1,128}):(?P<preview>[A-Za-z0-9_-]{1,128})"
    r"(:(?P<hold>[0-9]{1,5}))?"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotCheck:
    """A backend as HAProxy must know it before it can get servers: the part that needs a reload."""

    service: str
    slot: int
    check: model.Check


Structure = tuple[SlotCheck, ...]


# --- names -----------------------------------------------------------------------------------------


def environment_name(key: model.EnvironmentKey) -> str:
    """`app.environment`. Raises RouterError."""
    return f"{_matched(_NAME, key.app, 'app')}.{_matched(_NAME, key.environment, 'environment')}"


def service_name(key: model.EnvironmentKey, service: str) -> str:
    """`app.environment.service`. Raises RouterError."""
    return f"{environment_name(key)}.{_matched(_NAME, service, 'service')}"


def backend_name(key: model.EnvironmentKey, service: str, slot: int) -> str:
    """`app.environment.service.slot`. Raises RouterError."""
    if not 0 <= slot < model.SLOTS:
        raise RouterError(f"{slot} is not a slot: they are numbered 0 to {model.SLOTS - 1}.")
    return f"{service_name(key, service)}.{slot}"


def foreign_name(key: model.EnvironmentKey, service: str) -> str:
    """Where a call from this environment to `app/service` goes: the slot comes from the other's route.

    It begins with the caller's prefix, since the entry is the caller's. Raises RouterError.
    """
    app, _, name = service.partition("/")
    other = model.EnvironmentKey(app=app, environment=key.environment)
    return f"{owner_prefix(key)}/{service_name(other, name)}."


def table_name(key: model.EnvironmentKey, backend: str) -> str:
    """Of the table in which a backend of this name counts its answers by latency. Raises RouterError."""
    return f"{environment_name(key)}/{backend.removeprefix(owner_prefix(key))}"


def user_table_name(key: model.EnvironmentKey, backend: str) -> str:
    """Of the table in which it counts errors by parts of the users. Raises RouterError."""
    return f"{table_name(key, backend)}.users"


def owner_prefix(key: model.EnvironmentKey) -> str:
    """What every name of this environment's services and backends, and of no other's, begins with."""
    return f"{environment_name(key)}."


def structure_variable(key: model.EnvironmentKey) -> str:
    """Name of the process variable that holds the fingerprint of the environment's structure."""
    return f"proc.s{hashlib.sha256(environment_name(key).encode()).hexdigest()[:16]}"


def fingerprint(structure: Structure) -> str:
    """Names a structure; equal structures have equal fingerprints."""
    return hashlib.sha256(repr(structure).encode()).hexdigest()[:16]


# --- structure -------------------------------------------------------------------------------------


def structure(table: model.RouteTable, held: Structure) -> Structure:
    """Every slot of every service of the table, used or not, so that a rollout needs no reload.

    The check of a used slot is the table's. A slot that is not used keeps what is held, so that nothing
    changes when a placement ends; one never used gets the check of the newest release.
    """
    used = {(backend.service, backend.slot): backend.check for backend in table.backends}
    known = {(one.service, one.slot): one.check for one in held}
    services = sorted({backend.service for backend in table.backends})
    newest = {service: _newest_check(table, service) for service in services}
    return tuple(
        SlotCheck(
            service=service,
            slot=slot,
            check=used.get((service, slot)) or known.get((service, slot)) or newest[service],
        )
        for service in services
        for slot in range(model.SLOTS)
    )


def _newest_check(table: model.RouteTable, service: str) -> model.Check:
    of_service = [backend for backend in table.backends if backend.service == service]
    age = {table.route.stable: 1, table.route.canary: 2}
    return max(of_service, key=lambda backend: age.get(backend.slot, 0)).check


# --- route values ----------------------------------------------------------------------------------


def route_value(route: model.Route) -> str:
    """The map value that makes HAProxy route so. Raises RouterError."""
    for slot in (route.stable, route.canary):
        if slot is not None and not 0 <= slot < model.SLOTS:
            raise RouterError(f"{slot} is not a slot: they are numbered 0 to {model.SLOTS - 1}.")
    if not 0 <= route.exposure_bps <= model.FULL_EXPOSURE:
        raise RouterError(f"Exposure is 0 to {model.FULL_EXPOSURE} basis points, not {route.exposure_bps}.")
    if not 0 <= route.fence < 10**18:
        raise RouterError(f"{route.fence} is not a fence.")
    stable = "-" if route.stable is None else str(route.stable)
    if not 0 <= route.hold_s <= HOLD_S_MAX:
        raise RouterError(f"Requests can be held for 0 to {HOLD_S_MAX} s, not {route.hold_s}.")
    canary = "-" if route.canary is None else str(route.canary)
    mark = "!" if route.hold_s else "=" if route.canary is None else "~"
    hold = f":{route.hold_s}" if route.hold_s else ""
    salt = _matched(_TOKEN, route.salt, "salt") if route.salt else "-"
    preview = _matched(_TOKEN, route.preview, "preview token", secret=True) if route.preview else "-"
    return f"{stable}{mark}:{route.fence}:{canary}:{route.exposure_bps}:{salt}:{preview}{hold}"


def parse_route(value: str) -> model.Route | None:
    """The route that a map value stands for; None: no value of ours."""
    found = _VALUE.fullmatch(value)
    if found is None:
        return None
    part = found.groupdict()
    route = model.Route(
        stable=None if part["stable"] == "-" else int(part["stable"]),
        canary=None if part["canary"] == "-" else int(part["canary"]),
        exposure_bps=int(part["exposure"]),
        salt="" if part["salt"] == "-" else part["salt"],
        preview="" if part["preview"] == "-" else part["preview"],
        hold_s=int(part["hold"] or 0),
        fence=int(part["fence"]),
    )
    try:
        return route if route_value(route) == value else None
    except RouterError:
        return None


# --- maps ------------------------------------------------------------------------------------------


def map_entries(table: model.RouteTable) -> dict[str, dict[str, str]]:
    """The environment's entries of each map. Raises RouterError."""
    hosts: dict[str, str] = {}
    addresses: dict[str, str] = {}
    for public in table.services:
        name = service_name(table.key, public.service)
        for host in public.hosts:
            if hosts.setdefault(_matched(_HOST, host.lower(), "host name"), name) != name:
                raise RouterError(f"Two services of {table.key} ask for the host {host}.")
        if public.identity is model.UserIdentity.ADDRESS:
            addresses[name] = "1"
    links: dict[str, str] = {}
    for backend in table.backends:
        name = backend_name(table.key, backend.service, backend.slot)
        if backend.link_port is not None and links.setdefault(str(backend.link_port), name) != name:
            raise RouterError(f"Two backends of {table.key} ask for the internal port {backend.link_port}.")
    for link in table.foreign:
        name = foreign_name(table.key, link.service)
        if links.setdefault(str(link.port), name) != name:
            raise RouterError(f"Two services ask for the internal port {link.port} of {table.key}.")
    return {
        HOSTS: hosts,
        ROUTES: {owner_prefix(table.key): route_value(table.route)},
        LINKS: links,
        ADDRESSES: addresses,
    }


def owned(map_name: str, prefix: str, entry: tuple[str, str]) -> bool:
    """Whether a map entry belongs to the environment with this prefix."""
    key, value = entry
    if map_name == ROUTES:
        return key == prefix
    return (key if map_name == ADDRESSES else value).startswith(prefix)


def merged(map_name: str, tables: Iterable[model.RouteTable]) -> dict[str, str]:
    """One map of all environments. Raises RouterError when two ask for the same key."""
    result: dict[str, str] = {}
    for table in tables:
        for key, value in map_entries(table)[map_name].items():
            if result.setdefault(key, value) != value:
                raise RouterError(f"{table.key} asks for {key}, which belongs to {result[key]}.")
    return result


def map_text(entries: Mapping[str, str]) -> str:
    """A map as the file that HAProxy loads."""
    return "".join(f"{key} {value}\n" for key, value in sorted(entries.items()))


def buckets_text() -> str:
    """The file that puts a latency, in us, into its bucket, as prefixes: HAProxy has a tree for those."""
    edges_us = [round(sequential.bucket_edge_s(index) * 1e6) for index in range(sequential.BUCKETS)]
    spans = [*zip(edges_us, [*edges_us[1:], _LATENCY_END_US], strict=True), (_LATENCY_END_US, 2**32)]
    return "".join(
        f"{ipaddress.IPv4Address(first)}/{length} {index % sequential.BUCKETS}\n"
        for index, (begin, end) in enumerate(spans)
        for first, length in _prefixes(begin, end)
    )


def hold_text() -> str:
    """The file that `base.cfg` loads to hold requests."""
    return importlib.resources.files(__package__).joinpath(HOLD).read_text()


def _prefixes(begin: int, end: int) -> Iterator[tuple[int, int]]:
    """The fewest prefixes that cover `begin` up to below `end`: first value and length."""
    while begin < end:
        aligned = begin & -begin or 2**_LATENCY_BITS
        size = min(aligned, 1 << (end - begin).bit_length() - 1)
        yield begin, _LATENCY_BITS - size.bit_length() + 1
        begin += size


# --- servers ---------------------------------------------------------------------------------------


def server_words(server: model.Server) -> str:
    """`name address:port options`, as in a configuration line. Raises RouterError."""
    return f"{server_name(server.name)} {server_address(server)} {SERVER_OPTIONS}"


def server_name(name: str) -> str:
    """The name, if it can be one. Raises RouterError."""
    return _matched(_SERVER, name, "server name")


def server_address(server: model.Server) -> str:
    """`address:port`. Raises RouterError; names are refused, since HAProxy would not resolve them later."""
    host = canonical_address(server.host)
    if not 0 < server.port <= PORT_MAX:
        raise RouterError(f"{server.port} is not a port.")
    return f"[{host}]:{server.port}" if ":" in host else f"{host}:{server.port}"


def canonical_address(host: str) -> str:
    """An IP address in its usual spelling. Raises RouterError."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError as error:
        raise RouterError(f"{host[:60]!r} is not an IP address.") from error


# --- configuration ---------------------------------------------------------------------------------


def environment_text(table: model.RouteTable, shape: Structure) -> str:
    """The configuration file of one environment: its backends with their servers. Raises RouterError."""
    servers = {(backend.service, backend.slot): backend.servers for backend in table.backends}
    lines = ["global", f"    set-var {structure_variable(table.key)} str({fingerprint(shape)})", ""]
    # Not in the backends: HAProxy empties a backend's own table when a reload replaces the process.
    lines += [f"peers {environment_name(table.key)}", "    disabled"]
    lines += [f"    table {one.service}.{one.slot} {LATENCY_TABLE}" for one in shape]
    lines += [f"    table {one.service}.{one.slot}.users {USER_TABLE}" for one in shape] + [""]
    for one in shape:
        name = backend_name(table.key, one.service, one.slot)
        lines.append(f"backend {name} from tidegate")
        lines += [f"    {line}" for line in latency_lines(table_name(table.key, name))]
        lines += [f"    {line}" for line in user_lines(user_table_name(table.key, name))]
        lines += [f"    {line}" for line in _check_lines(one.check)]
        for server in servers.get((one.service, one.slot), ()):
            lines.append(f"    server {server_words(server)}{'' if server.ready else ' disabled'}")
        lines.append("")
    return "\n".join(lines)


def latency_lines(name: str) -> tuple[str, ...]:
    """How a backend measures the answers of its servers to users, in this table.

    The condition counts; the action carries, since a counter has 32 bits. Nothing is looked for in a list and
    no text is made: both cost more than the rest.
    """
    return (
        f"http-response track-sc0 date(0,us),sub(txn.begun),map_ip_int({BUCKETS}) table {name}",
        "http-response sc-inc-gpc(1,0) if { sc_inc_gpc(0,0) eq 0 }",
    )


def user_lines(name: str) -> tuple[str, ...]:
    """How a backend counts its servers' errors by parts of the users, in this table.

    A good answer costs one comparison. Without an open canary no user has a name: here they are their
    addresses. What has no time at which it began was asked by another service (`links`), not by a user.
    """
    key = f"src,xxh32,mod({USER_SHARDS})"
    return (
        f"http-response track-sc1 {key} table {name} if {{ status ge 500 }} {{ var(txn.begun) -m found }}",
    )


def _check_lines(check: model.Check) -> list[str]:
    lines = [f"timeout check {_milliseconds(check.timeout_s)}ms"]
    if check.kind is model.CheckKind.HTTP:
        path = _matched(_PATH, check.path, "health path")
        lines += [
            "option httpchk",
            f"http-check send meth GET uri '{path}' ver HTTP/1.1 hdr Host localhost hdr User-Agent tidegate",
            "http-check expect status 200-399",
        ]
    return lines


def base_text(settings: RouterSettings) -> str:
    """The configuration file that all environments share: `base.cfg` of this package, filled in.

    Raises RouterError.
    """
    host = canonical_address(settings.host)
    public = f"[{host}]:{settings.port}" if ":" in host else f"{host}:{settings.port}"
    links = "\n".join(f"    bind 127.0.0.1:{port}" for port in settings.link_ports)
    return _TEMPLATE.substitute(
        connections=settings.connections(),
        threads=settings.thread_count(),
        identity=_identity_lines(settings),
        owner=_owner_words(settings),
        old_process_ms=_milliseconds(settings.old_process_s),
        response_ms=_milliseconds(settings.response_timeout_s),
        tunnel_ms=_milliseconds(settings.tunnel_timeout_s),
        public=public,
        links=links,
    )


def _identity_lines(settings: RouterSettings) -> str:
    ids = settings.drop_to()
    return "" if ids is None else f"\n    uid {ids[0]}\n    gid {ids[1]}"


def _owner_words(settings: RouterSettings) -> str:
    """Whom the sockets belong to that HAProxy's unprivileged processes use among themselves."""
    ids = settings.drop_to()
    return "" if ids is None else f" uid {ids[0]} gid {ids[1]}"


def _milliseconds(seconds: float) -> int:
    if not 0 < seconds <= TIME_MAX_S:
        raise RouterError(f"{seconds} seconds is not a time that the router can wait.")
    return max(1, round(seconds * 1000))


def _matched(pattern: re.Pattern[str], text: str, what: str, *, secret: bool = False) -> str:
    if pattern.fullmatch(text) is None:
        raise RouterError(f"The router cannot take this {what}{'' if secret else f': {text[:60]!r}'}.")
    return text

"""Gives meaning to what HAProxy's processes answer.

Hides the formats of its statistics, tables and variables. Pure: text in, values out; whatever does not
have the expected form raises RouterError, so that a wrong value never becomes an observation. Neighbours:
`wire` brings the text, `runtime` puts the looks at several processes together.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, field, replace
from typing import Final

from tidegate.core import model, sequential
from tidegate.core.counters import USER_SHARDS
from tidegate.errors import RouterError
from tidegate.haproxy import config
from tidegate.haproxy.wire import garbled

#: Bits of `srv_admin_state`: forced and inherited maintenance, by resolution; forced and inherited drain.
_MAINTENANCE: Final = 0x01 | 0x02 | 0x20
_DRAIN: Final = 0x08 | 0x10
#: Value of `srv_op_state` of a server that takes part.
_RUNNING: Final = 2
#: Values of `srv_check_result`: passed, and passed with a wish to be left alone.
_PASSED: Final = (3, 4)
_SERVERS_VERSION: Final = "1"
#: Of one counter in a table.
_COUNTER_BITS: Final = 32
_TABLE: Final = re.compile(r"# table: (?P<name>\S+), type: integer, size:[0-9]+, used:[0-9]+")
_CELL: Final = re.compile(
    r"0x[0-9a-f]+: key=(?P<bucket>[0-9]+) use=[0-9]+ exp=[0-9]+ shard=[0-9]+"
    r" gpc0=(?P<low>[0-9]+) gpc1=(?P<high>[0-9]+)"
)
_USER_CELL: Final = re.compile(
    r"0x[0-9a-f]+: key=(?P<bucket>[0-9]+) use=[0-9]+ exp=[0-9]+ shard=[0-9]+ conn_cnt=(?P<low>[0-9]+)"
)
_STREAM: Final = re.compile(r"(?P<id>0x[0-9a-f]+): proto=.*? be=(?P<backend>\S+) srv=(?P<server>\S+) ")


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveServer:
    """One server as one process sees it."""

    backend: str
    name: str
    host: str
    port: int
    running: bool
    maintenance: bool
    drain: bool
    weight: int
    checked: bool
    """Its last check passed."""
    sessions: int
    requests: int = 0
    """Answered since the process started."""
    errors: int = 0

    @property
    def ready(self) -> bool:
        """Administrative state: takes new connections."""
        return not self.maintenance and not self.drain and self.weight > 0

    @property
    def path(self) -> str:
        return f"{self.backend}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One request or WebSocket under way in one process."""

    id: str
    path: str
    """`backend/server`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What a backend has answered in one process."""

    classes: tuple[int, int, int, int, int]
    """1xx to 5xx."""
    other: int
    connect_failures: int
    unanswered: int
    """Answers that began and did not end: broken off or left standing. Without any answer it is a 5xx."""
    bytes_in: int
    bytes_out: int
    active: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One process, seen from one environment."""

    generation: str
    fingerprint: str | None
    """Of the structure it was started with; None: it does not know the environment."""
    entries: dict[str, tuple[tuple[str, str], ...]]
    """The environment's entries of each map."""
    servers: tuple[LiveServer, ...]
    counts: dict[str, Count]
    """By name of backend."""
    latencies: dict[str, sequential.Counted] = field(default_factory=dict)
    """By name of backend, if it was asked for them."""
    user_errors: dict[str, sequential.Counted] = field(default_factory=dict)
    """The same; only of those that have errors."""

    @property
    def fence(self) -> int:
        """The largest fence among the environment's routes, should there be several; 0: there is none."""
        routes = (config.parse_route(value) for _, value in self.entries[config.ROUTES])
        return max((route.fence for route in routes if route is not None), default=0)

    @property
    def route(self) -> model.Route | None:
        """The route in force; None: none, or none that Tidegate wrote."""
        entries = self.entries[config.ROUTES]
        return config.parse_route(entries[0][1]) if len(entries) == 1 else None


def look_commands(key: model.EnvironmentKey) -> tuple[str, ...]:
    """What to ask for one look."""
    return (
        "show info",
        f"get var {config.structure_variable(key)}",
        *(f"show map {name}" for name in config.MAPS),
        "show servers state",
        "show stat -1 6 -1",
    )


def look(key: model.EnvironmentKey, answers: tuple[str, ...]) -> Look:
    """One look, from the answers to `look_commands`. Raises RouterError."""
    prefix = config.owner_prefix(key)
    info, variable, *maps, servers, statistics = answers
    rows = [row for row in _rows(statistics) if row["pxname"].startswith(prefix)]
    counted = {(row["pxname"], row["svname"]): row for row in rows if row["type"] == "2"}
    return Look(
        generation=generation(info),
        fingerprint=variable_value(config.structure_variable(key), variable),
        entries={
            name: tuple(entry for entry in map_entries(text) if config.owned(name, prefix, entry))
            for name, text in zip(config.MAPS, maps, strict=True)
        },
        servers=_servers(servers, prefix, counted),
        counts={row["pxname"]: _count(row) for row in rows if row["type"] == "1"},
    )


def table_commands(key: model.EnvironmentKey, look: Look) -> tuple[str, ...]:
    """What to ask for the tables of the backends that have answered, and of those that have errors."""
    names = [config.table_name(key, name) for name in _answering(look)]
    names += [config.user_table_name(key, name) for name in _failing(look)]
    return tuple(f"show table {name}" for name in names)


def measured(key: model.EnvironmentKey, look: Look, answers: tuple[str, ...]) -> Look:
    """The look with what its tables hold, from the answers to `table_commands`. Raises RouterError."""
    answering, failing = _answering(look), _failing(look)
    if len(answers) != len(answering) + len(failing):
        raise RouterError("HAProxy has not answered about all of its tables.")
    timed, failed = answers[: len(answering)], answers[len(answering) :]
    return replace(
        look,
        latencies={
            name: _cells(_LATENCIES, config.table_name(key, name), answer)
            for name, answer in zip(answering, timed, strict=True)
        },
        user_errors={
            name: _cells(_USERS, config.user_table_name(key, name), answer)
            for name, answer in zip(failing, failed, strict=True)
        },
    )


def _answering(look: Look) -> list[str]:
    return sorted(name for name, count in look.counts.items() if any(count.classes) or count.active)


def _failing(look: Look) -> list[str]:
    return sorted(name for name, count in look.counts.items() if count.classes[-1])


@dataclass(frozen=True, slots=True)
class _Kind:
    """Of a table."""

    cell: re.Pattern[str]
    cells: int
    """Keys are below it."""


_LATENCIES: Final = _Kind(_CELL, sequential.BUCKETS)
_USERS: Final = _Kind(_USER_CELL, USER_SHARDS)


def _cells(kind: _Kind, name: str, answer: str) -> sequential.Counted:
    """Counts by key. A process configured by an older Tidegate has no table: it has counted nothing."""
    if answer == "No such table":
        return ()
    heading, *lines = answer.split("\n")
    table = _TABLE.fullmatch(heading)
    if table is None or table["name"] != name:
        raise garbled(heading)
    cells: dict[int, int] = {}
    for line in lines:
        row = kind.cell.fullmatch(line)
        bucket = _number(row["bucket"]) if row else kind.cells
        if row is None or bucket >= kind.cells or bucket in cells:
            raise garbled(line)
        low, *high = (_counter(count) for name, count in row.groupdict().items() if name != "bucket")
        cells[bucket] = low + (sum(high) << _COUNTER_BITS)
    return tuple((bucket, count) for bucket, count in sorted(cells.items()) if count)


def generation(info: str) -> str:
    """Names the process: its id and when it started. Raises RouterError."""
    values = dict(line.partition(": ")[::2] for line in info.splitlines())
    if values.get("Name") != "HAProxy":
        raise garbled(info)
    return f"{_number(values.get('Pid', ''))}@{_number(values.get('Start_time_sec', ''))}"


def variable_value(name: str, answer: str) -> str | None:
    """Value of a text variable; None: it is not set. Raises RouterError."""
    if answer == "Variable not found.":
        return None
    head = f"{name}: type=str value=<"
    if not answer.startswith(head) or not answer.endswith(">"):
        raise garbled(answer)
    return answer[len(head) : -1]


def map_entries(answer: str) -> tuple[tuple[str, str], ...]:
    """Keys and values of a map, in HAProxy's order. Raises RouterError."""
    entries = []
    for line in answer.splitlines():
        pointer, _, entry = line.partition(" ")
        key, blank, value = entry.partition(" ")
        if not pointer.startswith("0x") or not blank:
            raise garbled(answer)
        entries.append((key, value))
    return tuple(entries)


def streams(answer: str) -> tuple[Stream, ...]:
    """What `show sess` lists. Raises RouterError."""
    found = []
    for line in answer.splitlines():
        match = _STREAM.match(line)
        if match is None:
            raise garbled(line)
        found.append(Stream(id=match["id"], path=f"{match['backend']}/{match['server']}"))
    return tuple(found)


def _servers(
    answer: str, prefix: str, counted: dict[tuple[str, str], dict[str, str]]
) -> tuple[LiveServer, ...]:
    version, _, rest = answer.partition("\n")
    heading, *lines = rest.split("\n")
    columns = heading.removeprefix("# ").split()
    if version != _SERVERS_VERSION or "srv_admin_state" not in columns:
        raise garbled(answer)
    servers = []
    for line in lines:
        values = line.split(" ")
        if len(values) != len(columns):
            raise garbled(line)
        row = dict(zip(columns, values, strict=True))
        if row["be_name"].startswith(prefix):
            servers.append(_server(row, counted))
    return tuple(servers)


def _server(row: dict[str, str], counted: dict[tuple[str, str], dict[str, str]]) -> LiveServer:
    admin = _number(row["srv_admin_state"])
    path = (row["be_name"], row["srv_name"])
    if path not in counted:
        raise RouterError(f"HAProxy's answers contradict each other about the server {'/'.join(path)}.")
    count = _count(counted[path])
    return LiveServer(
        backend=path[0],
        name=path[1],
        host=row["srv_addr"],
        port=_number(row["srv_port"]),
        running=_number(row["srv_op_state"]) == _RUNNING,
        maintenance=bool(admin & _MAINTENANCE),
        drain=bool(admin & _DRAIN),
        weight=_number(row["srv_uweight"]),
        checked=_number(row["srv_check_result"]) in _PASSED,
        sessions=count.active,
        requests=sum(count.classes) + count.other,
        errors=count.classes[-1],
    )


def _rows(statistics: str) -> list[dict[str, str]]:
    heading, *lines = statistics.split("\n")
    columns = heading.removeprefix("# ").split(",")
    if columns[:2] != ["pxname", "svname"] or "hrsp_5xx" not in columns:
        raise garbled(statistics)
    rows = []
    for values in csv.reader(lines):
        if len(values) != len(columns):
            raise garbled(",".join(values))
        rows.append(dict(zip(columns, values, strict=True)))
    return rows


def _count(row: dict[str, str]) -> Count:
    return Count(
        classes=(
            _number(row["hrsp_1xx"]),
            _number(row["hrsp_2xx"]),
            _number(row["hrsp_3xx"]),
            _number(row["hrsp_4xx"]),
            _number(row["hrsp_5xx"]),
        ),
        other=_number(row["hrsp_other"]),
        connect_failures=_number(row["econ"]),
        # Not `eresp`: that counts every try, and the last one twice.
        unanswered=_number(row["srv_abrt"]),
        bytes_in=_number(row["bin"]),
        bytes_out=_number(row["bout"]),
        active=_number(row["scur"]),
    )


def _counter(text: str) -> int:
    value = _number(text)
    if value >> _COUNTER_BITS:
        raise garbled(text)
    return value


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise garbled(text)
    return int(text)

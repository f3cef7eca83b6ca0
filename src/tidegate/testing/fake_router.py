"""A router in memory: honest, in virtual time.

It checks its servers with a delay, forgets at a restart what its boot files do not say, and lets open
sessions live on in the process of before a reload, which is seen with its counts until the last one ends.
Invariants: the boot files are written before the
running route, so that a restart in between brings back nothing that was taken away; nothing moves but by
the clock. Neighbours: `fakes` names it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from tidegate import errors, ports
from tidegate.core import model
from tidegate.core.counters import USER_SHARDS
from tidegate.core.sequential import Counted
from tidegate.testing.clock import ManualClock

ServerKey = tuple[str, int, str]
"""Service, slot, name."""


@dataclass(slots=True, kw_only=True)
class _Server:
    server: model.Server
    up: bool
    reachable: bool
    changed_at: float
    requests: int = 0
    errors: int = 0


@dataclass(slots=True, kw_only=True)
class Session:
    """A connection that outlives the routing: it stays with the server that took it."""

    key: model.EnvironmentKey
    server: ServerKey
    host: str
    port: int
    ends_at: float
    generation: int


@dataclass(slots=True, kw_only=True)
class _Running:
    """What the process holds for one environment."""

    table: model.RouteTable
    """Structure: services, hosts, checks, and which backends there are."""
    route: model.Route
    servers: dict[ServerKey, _Server] = field(default_factory=dict)
    counts: dict[tuple[str, int], model.Traffic] = field(default_factory=dict)
    """What was answered, by service and slot."""


class FakeRouter:
    """`ports.Router` without HAProxy."""

    def __init__(
        self,
        *,
        clock: ManualClock | None = None,
        reachable: Callable[[str, int], bool] = lambda _host, _port: True,
        check_delay_s: float = 1.0,
        on_step: Callable[[str], None] = lambda _step: None,
    ) -> None:
        """Make a router that knows no environment.

        `reachable`: whether a server passes its check, e.g. `FakeRuntime.serves`. `on_step` is called
        before each part of `apply` with its name; what it raises leaves the rest undone.
        """
        self.clock: Final = clock if clock is not None else ManualClock()
        self.reachable: Final = reachable
        self.on_step = on_step
        self.blind = False
        """Cannot be looked at: every `observe` raises."""
        self.down = False
        """The process is not there: nothing is answered, every call raises."""
        self.sessions: list[Session] = []
        self.reloads = 0
        self._check_delay_s = check_delay_s
        self._boot: dict[model.EnvironmentKey, model.RouteTable] = {}
        self._running: dict[model.EnvironmentKey, _Running] = {}
        self._old: dict[int, dict[model.EnvironmentKey, _Running]] = {}
        """By generation: the processes of before a reload that still have sessions."""
        self._revision = 0
        self._generation = 1
        self._polled_at = -math.inf
        self._statuses: dict[model.EnvironmentKey, tuple[model.ServerStatus, ...]] = {}

    # --- the port ---

    def apply(self, table: model.RouteTable, *, key: str) -> None:
        self._refuse_if_down()
        self.settle()
        self._refuse_stale(table)
        self.on_step("boot")
        self._write_boot(table)
        held = self._running.get(table.key)
        if held is None or _structure(held.table) != _structure(table):
            self.on_step("reload")
            self.reload()
        held = self._running[table.key]
        held.table = table
        self._statuses.pop(table.key, None)
        self.on_step("servers")
        self._add_servers(held, table)
        self.on_step("route")
        held.route = table.route
        self.on_step("removals")
        for name in [name for name in held.servers if name not in servers_of(table)]:
            self._cut(table.key, name)
            del held.servers[name]

    def observe(self, environment: model.EnvironmentKey) -> model.RouteState:
        self._refuse_if_down()
        if self.blind:
            raise errors.RouterError("The router does not answer.")
        self.settle()
        self._revision += 1
        boot, held = self._boot.get(environment), self._running.get(environment)
        current = boot is None if held is None else boot is not None and _same_structure(held.table, boot)
        return model.RouteState(
            revision=self._revision,
            boot=boot,
            route=held.route if held else None,
            servers=self._server_statuses(environment),
            current=current,
            traffic=self._traffic(environment),
            processes=tuple(sorted(_process_name(generation) for generation, _ in self._processes())),
        )

    def check(self) -> tuple[ports.Finding, ...]:
        return (ports.Finding(name="memory", ok=True, detail="a fake needs nothing of this machine"),)

    # --- what tests do to it and see of it ---

    def boot(self, environment: model.EnvironmentKey) -> model.RouteTable | None:
        """What a restart would bring up."""
        return self._boot.get(environment)

    def route(self, environment: model.EnvironmentKey) -> model.Route | None:
        """What is in force, whether the router can be looked at or not; None when it is down."""
        held = self._running.get(environment)
        return held.route if held is not None and not self.down else None

    def start_revision(self, revision: int) -> None:
        """Let the next look come after this one, as in a world that is older than the fake."""
        self._revision = revision

    def server_names(self, environment: model.EnvironmentKey) -> tuple[str, ...]:
        """Of all servers that the running router holds."""
        held = self._running.get(environment)
        return tuple(name[2] for name in held.servers) if held else ()

    def candidates(
        self, environment: model.EnvironmentKey, service: str, slot: int
    ) -> tuple[tuple[str, model.Server], ...]:
        """Name and address of the servers that would be tried for a new request."""
        held = self._running.get(environment)
        if held is None or self.down:
            return ()
        self.settle()
        return tuple(
            (name[2], each.server)
            for name, each in held.servers.items()
            if name[0] == service and name[1] == slot and each.up and each.server.ready
        )

    def called(self, port: int) -> tuple[model.EnvironmentKey, str, int] | None:
        """Who answers at an internal port: environment, service and slot; None: nobody."""
        if self.down:
            return None
        for key, held in self._running.items():
            for backend in held.table.backends:
                if backend.link_port == port:
                    return key, backend.service, backend.slot
            for link in held.table.foreign:
                app, _, service = link.service.partition("/")
                other = replace(key, app=app)
                there = self._running.get(other)
                if link.port == port and there is not None and there.route.stable is not None:
                    return other, service, there.route.stable
        return None

    def answered(self, environment: model.EnvironmentKey, added: model.Traffic) -> None:
        """Users were answered: this is added to what a process has counted, the newest if none is named.

        Of `classes` only 2xx and 5xx are made, from requests and errors. Raises KeyError for what the
        process does not know, ValueError for what no router counts.
        """
        by_name = {_process_name(generation): held for generation, held in self._processes()}
        held = by_name[added.process or _process_name(self._generation)][environment]
        added = replace(added, process="", classes=(0, added.requests - added.errors, 0, 0, added.errors))
        if not _possible(added):
            raise ValueError(f"No router counts this: {added}")
        place = (added.service, added.slot)
        before = {(one.service, one.slot): one for one in _counted(held)}
        held.counts[place] = _sum(before[place], added)
        _share_out(held, added)
        self._statuses.pop(environment, None)

    def open_session(
        self, environment: model.EnvironmentKey, server: ServerKey, *, seconds: float
    ) -> Session:
        """A connection to this server that stays until it ends by itself or is cut. Raises KeyError."""
        held = self._running[environment].servers[server]
        session = Session(
            key=environment,
            server=server,
            host=held.server.host,
            port=held.server.port,
            ends_at=self.clock.elapsed + seconds,
            generation=self._generation,
        )
        self.sessions.append(session)
        self._statuses.pop(environment, None)
        return session

    def cut_address(self, port: int) -> tuple[Session, ...]:
        """The process behind a port has ended: its sessions are gone. Answers which these were."""
        cut = tuple(session for session in self.sessions if session.port == port)
        for session in cut:
            self.sessions.remove(session)
            self._statuses.pop(session.key, None)
        return cut

    def reload(self) -> None:
        """Seamless: a new process with the boot files, the old one keeps its sessions."""
        now = self.clock.elapsed
        self._old[self._generation] = self._running
        self._generation += 1
        self.reloads += 1
        self._statuses.clear()
        self._running = {key: _booted(table, now, self.reachable) for key, table in self._boot.items()}

    def kill(self) -> None:
        """The process and all its sessions are gone until `start`."""
        self.down = True
        self.sessions.clear()

    def start(self) -> None:
        """A killed router boots: it holds what its boot files say."""
        self.down = False
        self.reload()

    def tamper(self, environment: model.EnvironmentKey, route: model.Route) -> None:
        """Somebody changes the running route by hand."""
        self._running[environment].route = route

    def settle(self) -> None:
        """Let checks and ends of sessions happen that are due by the clock."""
        now = self.clock.elapsed
        if now == self._polled_at:
            return
        self._polled_at = now
        for key, held in self._running.items():
            for each in held.servers.values():
                self._poll(key, each, now)
        for session in [each for each in self.sessions if each.ends_at <= now]:
            self.sessions.remove(session)
            self._statuses.pop(session.key, None)

    # --- inside ---

    def _poll(self, key: model.EnvironmentKey, each: _Server, now: float) -> None:
        reachable = self.reachable(each.server.host, each.server.port)
        if reachable != each.reachable:
            each.reachable, each.changed_at = reachable, now
        if each.up != each.reachable and now - each.changed_at >= self._check_delay_s:
            each.up = each.reachable
            self._statuses.pop(key, None)

    def _refuse_if_down(self) -> None:
        if self.down:
            raise errors.RouterError("The router is not running.")

    def _refuse_stale(self, table: model.RouteTable) -> None:
        boot, held = self._boot.get(table.key), self._running.get(table.key)
        in_force = max(boot.route.fence if boot else 0, held.route.fence if held else 0)
        if table.route.fence < in_force:
            raise errors.StaleRouteError(
                f"Route {table.route.fence} of {table.key} comes after {in_force}; nothing was changed."
            )

    def _write_boot(self, table: model.RouteTable) -> None:
        self._boot[table.key] = table

    def _add_servers(self, held: _Running, table: model.RouteTable) -> None:
        now = self.clock.elapsed
        for name, server in servers_of(table).items():
            known = held.servers.get(name)
            if known is not None and (known.server.host, known.server.port) == (server.host, server.port):
                known.server = server
                continue
            reachable = self.reachable(server.host, server.port)
            held.servers[name] = _Server(server=server, up=False, reachable=reachable, changed_at=now)

    def _cut(self, key: model.EnvironmentKey, name: ServerKey) -> None:
        """A server leaves: what is still connected to it in this process is closed."""
        for session in list(self.sessions):
            if session.key == key and session.server == name and session.generation == self._generation:
                self.sessions.remove(session)

    def _processes(self) -> tuple[tuple[int, dict[model.EnvironmentKey, _Running]], ...]:
        """Those that live, by generation: one of before a reload ends with its last session."""
        in_use = {session.generation for session in self.sessions}
        for generation in [each for each in self._old if each not in in_use]:
            del self._old[generation]
        return (*self._old.items(), (self._generation, self._running))

    def _traffic(self, environment: model.EnvironmentKey) -> tuple[model.Traffic, ...]:
        return tuple(
            replace(one, process=_process_name(generation))
            for generation, running in self._processes()
            if environment in running
            for one in _counted(running[environment])
        )

    def _session_count(self, key: model.EnvironmentKey, name: ServerKey) -> int:
        return sum(1 for session in self.sessions if session.key == key and session.server == name)

    def _server_statuses(self, environment: model.EnvironmentKey) -> tuple[model.ServerStatus, ...]:
        known = self._statuses.get(environment)
        if known is not None:
            return known
        held = self._running.get(environment)
        statuses = tuple(
            model.ServerStatus(
                service=name[0],
                slot=name[1],
                name=name[2],
                host=each.server.host,
                port=each.server.port,
                up=each.up,
                ready=each.server.ready,
                sessions=self._session_count(environment, name),
                requests=each.requests,
                errors=each.errors,
            )
            for name, each in (sorted(held.servers.items()) if held else ())
        )
        self._statuses[environment] = statuses
        return statuses


def servers_of(table: model.RouteTable) -> dict[ServerKey, model.Server]:
    """The servers of a table by service, slot and name."""
    return {
        (backend.service, backend.slot, server.name): server
        for backend in table.backends
        for server in backend.servers
    }


def _booted(table: model.RouteTable, now: float, reachable: Callable[[str, int], bool]) -> _Running:
    """A fresh process takes every server for up until a check says otherwise, as HAProxy does."""
    servers = {
        name: _Server(server=server, up=True, reachable=reachable(server.host, server.port), changed_at=now)
        for name, server in servers_of(table).items()
    }
    return _Running(table=table, route=table.route, servers=servers)


def _process_name(generation: int) -> str:
    return str(generation)


def _counted(held: _Running) -> tuple[model.Traffic, ...]:
    """What the process has counted in each slot of each service, also if it is nothing."""
    return tuple(
        held.counts.get((service, slot)) or model.Traffic(service=service, slot=slot)
        for service in sorted({backend.service for backend in held.table.backends})
        for slot in range(model.SLOTS)
    )


def _share_out(held: _Running, added: model.Traffic) -> None:
    """Servers that take requests answer in turn, the first one first; what nobody answered is no server's."""
    takers = [
        each
        for name, each in sorted(held.servers.items())
        if name[:2] == (added.service, added.slot) and each.up and each.server.ready
    ]
    answered = added.requests - added.unanswered
    for turn, each in enumerate(takers):
        each.requests += len(range(turn, answered, len(takers)))
        each.errors += len(range(turn, min(added.errors, answered), len(takers)))


def _possible(added: model.Traffic) -> bool:
    """An error or an unanswered request is one of the requests, and so is what came from the app.

    An error that a user is known to have had is one of the errors.
    """
    measured = [count for _, count in added.latencies]
    had = [count for _, count in added.user_errors]
    parts = (added.errors, added.unanswered, sum(measured))
    return (
        min(*parts, *measured, *had, 0) == 0
        and max(parts) <= added.requests
        and sum(had) <= added.errors
        and all(0 <= shard < USER_SHARDS for shard, _ in added.user_errors)
    )


def _sum(one: model.Traffic, other: model.Traffic) -> model.Traffic:
    first, second, third, fourth, fifth = map(int.__add__, one.classes, other.classes)
    return replace(
        one,
        requests=one.requests + other.requests,
        errors=one.errors + other.errors,
        classes=(first, second, third, fourth, fifth),
        unanswered=one.unanswered + other.unanswered,
        latencies=_together(one.latencies, other.latencies),
        user_errors=_together(one.user_errors, other.user_errors),
    )


def _together(one: Counted, other: Counted) -> Counted:
    cells = dict(one)
    for key, count in other:
        cells[key] = cells.get(key, 0) + count
    return tuple(sorted(cells.items()))


def _same_structure(one: model.RouteTable, other: model.RouteTable) -> bool:
    return one is other or _structure(one) == _structure(other)


def _structure(table: model.RouteTable) -> tuple[object, ...]:
    """What cannot be changed at run time: services, hosts, checks and which backends there are."""
    return (table.services, tuple(replace(backend, servers=()) for backend in table.backends))

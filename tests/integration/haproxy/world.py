"""A router with a folder and ports of its own, the apps behind it, and tables in one line.

Invariants: everything is on loopback; `World.close` ends every process by its process file descriptor, also
when a test has left HAProxy broken; ports are free ones below those that clients get.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from tests.support.ports import Ports, is_free
from tests.support.web_app import WebApp
from tidegate.core import model
from tidegate.errors import RouterError
from tidegate.haproxy import HAProxyRouter, RouterSettings, supervisor
from tidegate.haproxy.wire import Processes, Wire

KEY: Final = model.EnvironmentKey(app="shop", environment="production")
HOST: Final = "shop.example.com"
HTTP: Final = model.Check(kind=model.CheckKind.HTTP, path="/healthz")
TCP: Final = model.Check(kind=model.CheckKind.TCP)
TOKEN: Final = "preview-token-1"
WEB: Final = model.PublicService(service="web", hosts=(HOST,), identity=model.UserIdentity.COOKIE)

_ports = Ports()
_turn = itertools.cycle(_ports.block)


def free_ports(count: int) -> tuple[int, ...]:
    """Ports that nobody listens on, of a block that this process has to itself; used again at the latest."""
    free = (port for port in _turn if is_free(port))
    return tuple(sorted(itertools.islice(free, count)))


def eventually(holds: Callable[[], bool], *, timeout_s: float = 10.0) -> None:
    """Return as soon as it holds; fail when it never does."""
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.005)


def server(app: WebApp | int, slot: int, index: int = 0, *, ready: bool = True) -> model.Server:
    """The server of an app, or of a port."""
    port = app if isinstance(app, int) else app.port
    return model.Server(name=f"p{slot + 1}-{index}-{port}", host="127.0.0.1", port=port, ready=ready)


def backend(
    slot: int,
    apps: Iterable[WebApp | int],
    *,
    service: str = "web",
    check: model.Check = HTTP,
    link_port: int | None = None,
    ready: bool = True,
) -> model.Backend:
    """A slot with these apps as servers."""
    servers = tuple(server(app, slot, index, ready=ready) for index, app in enumerate(apps))
    return model.Backend(service=service, slot=slot, check=check, servers=servers, link_port=link_port)


class World:
    """One router, started, and what a test asks of it."""

    def __init__(self, folder: Path, settings: RouterSettings) -> None:
        self.folder = folder
        self.settings = settings
        self.router = HAProxyRouter(folder, settings)
        self.wire = Wire(folder)
        self.fence = 0
        self.salt = "salt-1"

    @property
    def port(self) -> int:
        return self.settings.port

    def table(
        self,
        *backends: model.Backend,
        stable: int | None = 0,
        canary: int | None = None,
        exposure_bps: int = 0,
        services: tuple[model.PublicService, ...] = (WEB,),
        key: model.EnvironmentKey = KEY,
    ) -> model.RouteTable:
        """A table with the next fence."""
        self.fence += 1
        route = model.Route(
            stable=stable,
            canary=canary,
            exposure_bps=exposure_bps,
            salt=self.salt,
            preview=TOKEN,
            fence=self.fence,
        )
        return model.RouteTable(key=key, route=route, services=services, backends=backends)

    def apply(self, table: model.RouteTable) -> model.RouteState:
        """Apply until the router agrees, as the loop does; the state then."""
        deadline = time.monotonic() + 10
        while True:
            self.router.apply(table, key="test")
            state = self.router.observe(table.key)
            if agrees(table, state):
                return state
            assert time.monotonic() < deadline, f"the router does not come to\n{table}\nbut holds\n{state}"

    def processes(self) -> Processes:
        """HAProxy's processes, as soon as it has all of them."""
        deadline = time.monotonic() + 10
        while True:
            try:
                return self.wire.processes(timeout_s=1.0)
            except RouterError:
                assert time.monotonic() < deadline, "HAProxy does not come back"
                time.sleep(0.002)

    def tell(self, *commands: str) -> tuple[str, ...]:
        """What an operator does by hand on the socket."""
        return self.wire.ask(self.processes().worker, commands, timeout_s=1.0)

    def supervisor_pid(self) -> int:
        return int(json.loads((self.folder / supervisor.NOTE).read_text())["pid"])

    def close(self) -> None:
        """End everything, whatever state it is in."""
        with contextlib.suppress(Exception):
            os.kill(self.wire.processes(timeout_s=1.0).worker, signal.SIGCONT)
        with contextlib.suppress(Exception):
            self.router.stop(drain_s=0)
        with contextlib.suppress(Exception):  # the router under test could not: its master ends its workers
            os.kill(self.wire.processes(timeout_s=1.0).master, signal.SIGKILL)


def agrees(table: model.RouteTable, state: model.RouteState) -> bool:
    """The same question that the core asks."""
    wanted = {
        (backend.service, backend.slot, one.name, one.host, one.port, one.ready)
        for backend in table.backends
        for one in backend.servers
    }
    held = {(one.service, one.slot, one.name, one.host, one.port, one.ready) for one in state.servers}
    return state.boot == table and state.current and state.route == table.route and wanted == held

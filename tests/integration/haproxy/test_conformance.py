"""The real router keeps what every router promises."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Final

import pytest

from tests.integration.haproxy.world import World, eventually
from tests.support.web_app import WebApp
from tidegate.testing import conformance

pytestmark = pytest.mark.real

HOST: Final = "one.example.com"


@pytest.fixture
def make(world: World) -> Iterator[conformance.MakeRouter]:
    """Makes the one router of the test, with four apps to route to."""
    apps = [WebApp(f"app-{number}") for number in range(4)]

    def restart() -> None:
        before = world.processes().master
        os.kill(before, signal.SIGKILL)
        eventually(lambda: world.processes().master != before)

    def wait(holds: Callable[[], bool], text: str) -> None:
        try:
            eventually(holds)
        except AssertionError as error:
            raise AssertionError(text) from error

    def harness() -> conformance.RouterHarness:
        ports = tuple(app.port for app in apps)
        return conformance.RouterHarness(
            router=world.router, wait=wait, server_ports=ports, restart=restart, ask=ask
        )

    def ask(asked: conformance.Requests) -> None:
        paths = ["/"] * asked.good + ["/status/500"] * asked.failing
        for path in [*paths, *["/reset"] * asked.cut, *["/half"] * asked.broken]:
            with socket.create_connection(("127.0.0.1", world.port), timeout=10) as client:
                head = f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n"
                client.sendall(head.encode())
                while client.recv(10_000):
                    pass

    yield harness
    for app in apps:
        app.stop()


@pytest.mark.parametrize("check", conformance.ROUTER_CHECKS, ids=lambda check: check.__name__)
def test_router(check: Callable[[conformance.MakeRouter], None], make: conformance.MakeRouter) -> None:
    """HAProxy keeps the promise."""
    check(make)

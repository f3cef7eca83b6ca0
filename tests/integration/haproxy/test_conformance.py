"""The real router keeps what every router promises."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from tests.integration.haproxy.world import World, eventually
from tests.support.web_app import WebApp
from tidegate.testing import conformance

pytestmark = pytest.mark.real


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
        return conformance.RouterHarness(router=world.router, wait=wait, server_ports=ports, restart=restart)

    yield harness
    for app in apps:
        app.stop()


@pytest.mark.parametrize("check", conformance.ROUTER_CHECKS, ids=lambda check: check.__name__)
def test_router(check: Callable[[conformance.MakeRouter], None], make: conformance.MakeRouter) -> None:
    """HAProxy keeps the promise."""
    check(make)

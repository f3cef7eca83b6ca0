"""Calls from one app to another: the stable release answers, whatever the caller is, without a reload."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.integration.haproxy.world import KEY, World, backend
from tests.support.http_load import ask
from tests.support.web_app import WebApp
from tidegate.core import model

pytestmark = pytest.mark.real

CALLER = model.EnvironmentKey(app="portal", environment="production")


def calling(world: World, *links: model.ForeignLink) -> model.RouteTable:
    """The table of an app that calls and is called by nobody."""
    return replace(world.table(stable=None, services=(), key=CALLER), foreign=links)


def answer(port: int) -> tuple[int, str | None]:
    """Status and app."""
    found = ask(port, "localhost")
    return found.status, found.app if found.status == 200 else None


def test_stable_release_of_the_other_app_answers(world: World, blue: WebApp, green: WebApp) -> None:
    """Nobody before it is deployed, then its stable release at any exposure, then the next one."""
    port = world.settings.link_ports[0]
    world.apply(calling(world, model.ForeignLink(service="shop/web", port=port)))
    assert answer(port) == (503, None)
    world.apply(world.table(backend(0, [blue]), backend(1, [green]), canary=1, exposure_bps=9_999))
    assert {answer(port) for _ in range(20)} == {(200, "blue")}
    processes = world.processes()
    world.apply(world.table(backend(0, [blue]), backend(1, [green]), stable=1))
    assert {answer(port) for _ in range(20)} == {(200, "green")}
    assert world.processes() == processes


def test_address_stays_when_the_other_app_changes_and_goes_with_the_caller(
    world: World, blue: WebApp
) -> None:
    """The entry is the caller's: no table of the other app takes it away."""
    port = world.settings.link_ports[0]
    world.apply(world.table(backend(0, [blue])))
    world.apply(calling(world, model.ForeignLink(service="shop/web", port=port)))
    world.apply(world.table(backend(0, [blue]), key=KEY))
    assert answer(port) == (200, "blue")
    world.apply(calling(world))
    assert answer(port) == (503, None)


def test_service_that_the_other_app_does_not_have_is_not_there(world: World, blue: WebApp) -> None:
    """503, as while nothing is deployed."""
    port = world.settings.link_ports[0]
    world.apply(world.table(backend(0, [blue])))
    world.apply(calling(world, model.ForeignLink(service="shop/nobody", port=port)))
    assert answer(port) == (503, None)


def test_calls_survive_a_reload_and_a_restart(world: World, blue: WebApp) -> None:
    """The boot files hold them."""
    port = world.settings.link_ports[0]
    world.apply(world.table(backend(0, [blue])))
    world.apply(calling(world, model.ForeignLink(service="shop/web", port=port)))
    world.router.stop(drain_s=0)
    world.router.start()
    assert answer(port) == (200, "blue")

"""After a reload the old process serves the connections it has: it is counted, steered and ended as well."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.integration.haproxy.world import HOST, KEY, World, backend, eventually
from tests.support.web_app import WebApp, WebSocket
from tidegate.core import model
from tidegate.errors import RouterError

pytestmark = pytest.mark.real


@pytest.fixture
def talk(world: World, blue: WebApp, green: WebApp) -> Iterator[WebSocket]:
    """A WebSocket to blue, on a process that has been reloaded away."""
    world.apply(world.table(backend(0, [blue]), backend(1, [green])))
    with WebSocket(world.port, host=HOST) as talk:
        world.wire.reload(timeout_s=5)
        assert world.processes().old
        yield talk


def test_sessions_of_the_old_process_are_counted(world: World, talk: WebSocket, blue: WebApp) -> None:
    """A connection that only the old process has counts as a session of its server."""
    state = world.router.observe(KEY)
    assert {one.port: one.sessions for one in state.servers}[blue.port] == 1
    talk.close()
    eventually(lambda: not world.processes().old)
    assert {one.sessions for one in world.router.observe(KEY).servers} == {0}


def test_server_that_only_the_old_process_uses_is_still_shown(
    world: World, talk: WebSocket, blue: WebApp, green: WebApp
) -> None:
    """A server deleted from the new process, while the old one has its connection, is shown until that ends."""
    new = world.processes().worker
    path = f"shop.production.web.0/p1-0-{blue.port}"
    world.wire.ask(new, [f"set server {path} state maint", f"del server {path}"], timeout_s=1)
    state = world.router.observe(KEY)
    assert [(one.port, one.up, one.ready, one.sessions) for one in state.servers] == [
        (blue.port, False, False, 1),
        (green.port, True, True, 0),
    ]


def test_removal_cuts_connections_in_the_old_process(world: World, talk: WebSocket, green: WebApp) -> None:
    """When a table no longer names a server its connections end, those in the old process too."""
    assert talk.ask("x") == "blue:x"
    world.apply(world.table(backend(1, [green]), stable=1))
    with pytest.raises((ConnectionError, TimeoutError)):
        talk.ask("y")
    eventually(lambda: not world.processes().old)


def test_flip_reaches_connections_that_the_old_process_keeps(
    world: World, blue: WebApp, green: WebApp
) -> None:
    """A client that keeps its connection over a reload and a flip gets the new release at its next request."""
    world.apply(world.table(backend(0, [blue])))
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", world.port)) as kept:
        assert _get(kept) == "blue"
        world.apply(world.table(backend(0, [blue]), backend(1, [], check=_other())))
        assert world.processes().old
        world.apply(world.table(backend(0, [blue]), backend(1, [green], check=_other())))
        world.apply(world.table(backend(0, [blue]), backend(1, [green], check=_other()), stable=1))
        assert _get(kept) == "green"


def test_old_process_that_hangs_makes_sessions_unknown(world: World, talk: WebSocket, blue: WebApp) -> None:
    """Sessions are unknown, not zero, while an old process does not answer; changes go through all the same."""
    (old,) = world.processes().old
    os.kill(old, signal.SIGSTOP)
    try:
        assert {one.sessions for one in world.router.observe(KEY).servers} == {None}
        world.router.apply(world.table(backend(0, [blue])), key="change")
        assert world.router.observe(KEY).route is not None
    finally:
        os.kill(old, signal.SIGCONT)
    assert {one.sessions for one in world.router.observe(KEY).servers} == {1}


def test_counts_of_two_processes_are_added_and_told_apart(world: World, talk: WebSocket) -> None:
    """While an old process lives its counts are part of the sum, under a generation that names both."""
    both = world.router.observe(KEY)
    assert both.generation.count("+") == 1
    talk.close()
    eventually(lambda: not world.processes().old)
    assert world.router.observe(KEY).generation == both.generation.split("+")[-1] or (
        world.router.observe(KEY).generation in both.generation
    )


def test_looking_while_processes_come_and_go_never_lies(world: World, blue: WebApp, green: WebApp) -> None:
    """During a row of reloads each look gives the truth or an error, never an empty world."""
    table = world.table(backend(0, [blue]), backend(1, [green]))
    world.apply(table)
    seen = 0
    for _ in range(10):
        world.wire.reload(timeout_s=5)
        try:
            state = world.router.observe(KEY)
        except RouterError:
            continue
        assert (state.boot, state.route, len(state.servers)) == (table, table.route, 2)
        seen += 1
    assert seen > 5


def _other() -> model.Check:
    return replace(model.Check(kind=model.CheckKind.HTTP), path="/healthz?other")


def _get(connection: http.client.HTTPConnection) -> str:
    connection.request("GET", "/", headers={"Host": HOST})
    answer = connection.getresponse()
    answer.read()
    return answer.getheader("X-App", "")

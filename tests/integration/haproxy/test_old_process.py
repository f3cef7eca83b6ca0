"""After a reload the old process serves the connections it has: it is counted, steered and ended as well."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.integration.haproxy.world import HOST, KEY, TOKEN, World, backend, eventually
from tests.support.http_load import ask
from tests.support.web_app import WebApp, WebSocket
from tidegate.core import model
from tidegate.errors import RouterError

pytestmark = pytest.mark.real


@pytest.fixture
def talk(world: World, blue: WebApp, green: WebApp) -> Iterator[WebSocket]:
    """A WebSocket to blue, on a process that has been reloaded away."""
    world.apply(world.table(backend(0, [blue]), backend(1, [green])))
    assert ask(world.port, HOST).app == "blue"
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
    """A server deleted from the new process is shown while the old one has a connection to it."""
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
    """A client that keeps its connection over a reload and a flip gets the new release next."""
    world.apply(world.table(backend(0, [blue])))
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", world.port)) as kept:
        assert _get(kept) == "blue"
        world.apply(world.table(backend(0, [blue]), backend(1, [], check=_other())))
        assert world.processes().old
        world.apply(world.table(backend(0, [blue]), backend(1, [green], check=_other())))
        world.apply(world.table(backend(0, [blue]), backend(1, [green], check=_other()), stable=1))
        assert _get(kept) == "green"


def test_old_process_that_hangs_makes_sessions_unknown(world: World, talk: WebSocket, blue: WebApp) -> None:
    """Sessions are unknown, not zero, while an old process does not answer; changes go through."""
    (old,) = world.processes().old
    os.kill(old, signal.SIGSTOP)
    try:
        assert {one.sessions for one in world.router.observe(KEY).servers} == {None}
        world.router.apply(world.table(backend(0, [blue])), key="change")
        assert world.router.observe(KEY).route is not None
    finally:
        os.kill(old, signal.SIGCONT)
    assert {one.sessions for one in world.router.observe(KEY).servers} == {1}


def test_old_process_passes_on_who_the_client_is(world: World, blue: WebApp, green: WebApp) -> None:
    """A request passed on keeps its client's address, its canary side and its preview, as if sent anew."""
    slots = (backend(0, [blue]), backend(1, [green]))
    world.apply(world.table(*slots))
    token = {"Host": HOST, "X-Tidegate-Preview": TOKEN, "X-Forwarded-For": "6.6.6.6"}
    for headers, app in (({"Host": HOST}, "blue"), (token, "green")):
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", world.port)) as kept:
            assert _get(kept) == "blue"
            world.wire.reload(timeout_s=5)
            world.apply(world.table(*slots, canary=1, exposure_bps=0))
            kept.request("GET", "/headers", headers=headers)
            answer = kept.getresponse()
            seen = json.loads(answer.read())
            assert answer.getheader("X-App") == app
            assert answer.getheader("Set-Cookie", "").startswith("tidegate_user=")
            assert (seen["x-forwarded-for"], seen["x-forwarded-host"]) == ("127.0.0.1", HOST)
        world.apply(world.table(*slots))


def test_old_process_passes_on_internal_calls(world: World, blue: WebApp, green: WebApp) -> None:
    """A kept connection to a link port finds the slot's present servers after a reload."""
    link = world.settings.link_ports[0]
    world.apply(world.table(backend(0, [blue], link_port=link)))
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", link)) as kept:
        assert _get(kept) == "blue"
        world.wire.reload(timeout_s=5)
        world.apply(world.table(backend(0, [green], link_port=link)))
        assert _get(kept) == "green"


def test_counts_of_two_processes_are_added_and_told_apart(world: World, talk: WebSocket) -> None:
    """While an old process lives its counts are there too, under its own name."""
    both = world.router.observe(KEY)
    assert sum(one.requests for one in both.traffic) == 1
    talk.close()
    eventually(lambda: not world.processes().old)
    alone = world.router.observe(KEY)
    assert (len(both.processes), set(alone.processes) < set(both.processes)) == (2, True)
    assert {one.process for one in both.traffic} == set(both.processes)
    assert sum(one.requests for one in alone.traffic) == 0


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

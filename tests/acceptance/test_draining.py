"""Connections that live long: WebSockets and downloads go on for their drain time, and no longer."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Self

import pytest

from tests.support import sample
from tests.support.tide import App, Tide, wait_for
from tests.support.users import Users

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.uncounted]

DRAIN_S = 3.0
#: From the drain's end to the cut: a look of the loop, the server leaves the router, the instance is stopped.
SPARE_S = 6.0
UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


class Line:
    """A connection that is used ten times a second until somebody cuts it."""

    def __init__(self, app: App, path: str) -> None:
        self.ended_at_s: float | None = None
        self._path, self._over = path, threading.Event()
        self._socket = socket.create_connection(("127.0.0.1", app.tide.port), timeout=5)
        upgrade = UPGRADE if path == "/socket" else ""
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: {app.host}\r\n{upgrade}\r\n".encode())
        self.head = self._socket.recv(4096).decode()
        self._thread = threading.Thread(target=self._use)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()

    def _use(self) -> None:
        with contextlib.suppress(OSError):
            while not self._over.wait(0.1):
                if self._path == "/socket":
                    self._socket.sendall(b"ping")
                if not self._socket.recv(4096):
                    break
        self.ended_at_s = None if self._over.is_set() else time.monotonic()


def _shop(tide: Tide, name: str, **keys: object) -> App:
    web = sample.service("web", route=f"{name}.test", instances=2, drain=f"{DRAIN_S:g}s", **keys)
    production = {"strategy": "switch", "keep_warm": "1s"}
    app = tide.app(name, services={"web": web}, environments={"production": production})
    app.host = f"{name}.test"
    app.open()
    return app


def test_long_connections_have_their_drain_time(shared: Tide) -> None:
    """After a switch a WebSocket and a download go on for the drain time, and are cut then."""
    app = _shop(shared, "long")
    with (
        Users(shared.port, host=app.host) as users,
        Line(app, "/socket") as web,
        Line(app, "/stream") as load,
    ):
        assert web.head.startswith("HTTP/1.1 101")
        assert load.head.startswith("HTTP/1.1 200")
        app.bring()
        wait_for(lambda: app.get().release == "r2")
        switched_at_s = time.monotonic()
        wait_for(lambda: web.ended_at_s and load.ended_at_s)
        wait_for(lambda: not app.pids(1))
    for line in (web, load):
        assert line.ended_at_s is not None
        assert DRAIN_S - 0.3 <= line.ended_at_s - switched_at_s <= DRAIN_S + SPARE_S
    assert not users.failures, users.summary()


def test_new_connections_go_to_the_new_release_meanwhile(shared: Tide) -> None:
    """While old connections drain, a client that connects again gets the new release."""
    app = _shop(shared, "again")
    with Line(app, "/socket") as old:
        assert "x-release: r1" in old.head.lower()
        app.open()
        with Line(app, "/socket") as new:
            assert "x-release: r2" in new.head.lower()
            wait_for(lambda: old.ended_at_s)
            assert new.ended_at_s is None


def test_idle_release_is_stopped_without_waiting_for_its_drain_time(shared: Tide) -> None:
    """Without a connection the old release ends when it is no longer kept warm, whatever its drain time."""
    app = _shop(shared, "nobody")
    app.manifest["services"]["web"]["drain"] = "10m"
    app.open()
    app.open()
    wait_for(lambda: not app.pids(1) and not app.pids(2))
    assert app.get().release == "r3"


def test_request_under_way_is_answered_by_the_release_that_took_it(shared: Tide) -> None:
    """A slow request that began before the switch gets its answer from the old release."""
    app = _shop(shared, "slow")
    pages = []
    thread = threading.Thread(target=lambda: pages.append(app.get("/slow/2")))
    thread.start()
    wait_for(lambda: (app.look()["placements"][0]["services"][0]["connections"] or 0) > 0)
    app.open()
    assert app.get().release == "r2"
    thread.join()
    assert [(page.status, page.release) for page in pages] == [(200, "r1")]


def test_reload_in_the_middle_of_a_drain_cuts_nothing(shared: Tide) -> None:
    """Another app comes, HAProxy reloads: what drains in the old process has its whole time all the same."""
    app = _shop(shared, "reloaded")
    with Users(shared.port, host=app.host) as users, Line(app, "/socket") as web:
        app.bring()
        wait_for(lambda: app.get().release == "r2")
        switched_at_s = time.monotonic()
        workers = {shared.worker()}
        _shop(shared, "newcomer")
        workers.add(shared.worker())
        reloaded_at_s, ended_at_s = time.monotonic(), web.ended_at_s
        assert ended_at_s is None
        wait_for(lambda: web.ended_at_s)
        wait_for(lambda: not app.pids(1))
        stopped = wait_for(lambda: [event for event in app.events() if event["reason"] == "stopped"])
    stopped_at_s = stopped[0]["at"] - time.time() + time.monotonic()
    assert stopped_at_s > switched_at_s + DRAIN_S - 0.3, "its instances were there as long as the connection"
    assert len(workers) == 2, "the second app was meant to need a reload"
    assert reloaded_at_s < switched_at_s + DRAIN_S, "the reload was meant to come during the drain"
    assert web.ended_at_s is not None
    assert DRAIN_S - 0.3 <= web.ended_at_s - switched_at_s <= DRAIN_S + SPARE_S
    assert not users.failures, users.summary()

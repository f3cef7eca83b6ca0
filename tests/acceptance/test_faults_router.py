"""HAProxy dies, hangs, or is changed by hand in the middle of a canary."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Self

import pytest

from tests.support import sample
from tests.support.tide import App, Tide, kill, wait_for
from tests.support.users import Users
from tidegate.client import Json
from tidegate.haproxy.supervisor import MASTER_SOCKET

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.uncounted]

#: From the kill of HAProxy to the next answer, on a machine that does nothing else.
BACK_LIMIT_S = 1.0


def _shop(tide: Tide, strategy: object) -> App:
    web = sample.service("web", route="*", instances=2)
    production = {"strategy": strategy, "keep_warm": "1m"}
    app = tide.app("shop", services={"web": web}, environments={"production": production})
    app.open()
    return app


def _back_after_s(app: App, began_s: float) -> float:
    """How long after `began_s` a new connection is answered."""

    def answered() -> bool:
        try:
            return app.get().status == 200
        except OSError:
            return False

    wait_for(answered)
    return time.monotonic() - began_s


VICTIMS: dict[str, Callable[[Tide], int]] = {
    "worker": lambda tide: tide.worker(),
    "master": lambda tide: tide.master(),
    "supervisor": lambda tide: tide.supervisor(),
}


def _killed(app: App, victim: str, share_bps: int) -> str:
    """Kill it under load; what happened, for people. Fails when it takes too long or exposes too many."""
    tide, pid = app.tide, VICTIMS[victim](app.tide)
    with Users(tide.port, think_s=0.05) as users:
        wait_for(lambda: len(users.asked) > 100)
        began_s = time.monotonic()
        kill(pid)
        back_s = _back_after_s(app, began_s)
        assert app.exposure() == share_bps
        wait_for(lambda: tide.supervisor() not in (0, pid))
        asked = len(users.asked)
        wait_for(lambda: len(users.asked) > asked + 100)
    told = f"kill -9 of the {victim} at {share_bps / 100:g} %: back after {back_s:.3f} s; {users.summary()}"
    assert back_s < BACK_LIMIT_S, told
    assert not [one for one in users.failures if one.sent_at_s > began_s + BACK_LIMIT_S], told
    assert victim != "supervisor" or not users.failures, told
    return told


@pytest.mark.serial
@pytest.mark.parametrize("victim", VICTIMS)
def test_killed_router_is_back_with_the_committed_exposure(
    tide: Tide, victim: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """After kill -9 at each step the router serves within a second, with the committed exposure."""
    app = _shop(tide, sample.canary("10%", "40%", every="manual"))
    app.hold()
    told = [_killed(app, victim, 1000)]
    app.act("promote")
    wait_for(lambda: app.exposure() == 4000)
    app.wait_phase("holding")
    told.append(_killed(app, victim, 4000))
    with capsys.disabled():
        print("\n" + "\n".join(told))  # noqa: T201
    app.act("promote")
    assert app.wait_ended()["live"] == 2
    assert app.get().release == "r2"


def test_route_changed_by_hand_is_put_back(tide: Tide) -> None:
    """An operator's change of the running router is undone, and the history has before and after."""
    app = _shop(tide, sample.canary("10%", every="manual"))
    app.hold()
    value = app.route()
    parts = value.split(":")
    for exposure in ("9999", "0"):
        by_hand = ":".join([*parts[:3], exposure, *parts[4:]])
        tide.haproxy(f"set map routes.map shop.production. {by_hand}")
        assert app.exposure() in (int(exposure), 1000)
        wait_for(lambda: app.exposure() == 1000)
        corrected = wait_for(lambda: [e for e in app.events() if e["reason"] == "changed-from-outside"])
        assert f"canary 1 at {int(exposure) / 100:g} %; put back" in corrected[-1]["detail"]
        assert "at 10 %" in corrected[-1]["detail"]
        parts = app.route().split(":")


def test_server_taken_out_by_hand_is_put_back(tide: Tide) -> None:
    """A server that an operator disables in the running router is brought in again."""
    _shop(tide, "switch")

    def states() -> dict[str, str]:
        rows = [row.split(",") for row in tide.haproxy("show stat").splitlines()]
        return {r[1]: r[17] for r in rows if r[0] == "shop.production.web.0" and r[1] != "BACKEND"}

    wait_for(lambda: list(states().values()) == ["UP", "UP"])
    with Users(tide.port) as users:
        tide.haproxy(f"disable server shop.production.web.0/{min(states())}")
        assert "MAINT" in states().values()
        wait_for(lambda: list(states().values()) == ["UP", "UP"])
    assert not users.failures, users.summary()


def test_hanging_router_stops_nothing_but_progress(tide: Tide) -> None:
    """While the router hangs no stage ends and nothing is stopped; then all goes on without a restart."""
    app = _shop(tide, sample.canary("50%", every="4s"))
    with Users(tide.port) as users:
        app.hold()
        pids, worker, master = app.pids(1) | app.pids(2), tide.worker(), tide.master()
        os.kill(worker, signal.SIGSTOP)
        try:
            wait_for(lambda: app.look()["failures"])
            threading.Event().wait(3)
            hanging = app.look()
        finally:
            os.kill(worker, signal.SIGCONT)
        assert hanging["rollout"]["phase"] == "holding"
        assert hanging["rollout"]["held_s"] < 4
        assert app.pids(1) | app.pids(2) == pids
        ended = app.wait_ended()
        wait_for(lambda: not app.look()["failures"])
    assert ended["live"] == 2
    assert (tide.worker(), tide.master()) == (worker, master)
    assert not users.failures, users.summary()


class Impostor:
    """Sits where the control plane looks for HAProxy, and answers every command with the same bytes."""

    def __init__(self, path: Path, answer: bytes) -> None:
        self.asked = 0
        self._path, self._aside, self._answer = path, path.with_name("aside.sock"), answer
        self._socket = socket.socket(socket.AF_UNIX)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Self:
        self._path.rename(self._aside)
        with in_folder(self._path.parent):
            self._socket.bind(self._path.name)
        self._socket.listen(16)
        self._socket.settimeout(0.1)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()
        self._aside.rename(self._path)

    def _serve(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(TimeoutError):
                connection, _ = self._socket.accept()
                with connection, contextlib.suppress(OSError):
                    connection.settimeout(1)
                    connection.recv(65536)
                    self.asked += 1
                    connection.sendall(self._answer)


@contextlib.contextmanager
def in_folder(folder: Path) -> Iterator[None]:
    """Names of sockets are short, folders may be long."""
    before = os.open(".", os.O_RDONLY)
    os.chdir(folder)
    try:
        yield
    finally:
        os.fchdir(before)
        os.close(before)


GARBAGE: dict[str, bytes] = {
    "garbage": bytes(range(256)) * 40,
    "half-an-answer": b"Name: HAProxy\nVersion: 2.8\nUptime_sec: 1",
    "nothing": b"",
}


@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE)
def test_router_that_answers_nonsense_stops_nothing_but_progress(tide: Tide, answer: bytes) -> None:
    """While nobody can tell what HAProxy holds no stage ends and nothing is stopped; then all goes on."""
    app = _shop(tide, sample.canary("50%", every="3s"))
    with Users(tide.port) as users:
        app.hold()
        pids = app.pids(1) | app.pids(2)
        with Impostor(tide.home / "router" / MASTER_SOCKET, answer) as impostor:
            wait_for(lambda: impostor.asked and app.look()["failures"])
            threading.Event().wait(3)
            seen = app.look()
        assert seen["rollout"]["phase"] == "holding"
        assert seen["rollout"]["held_s"] < 3
        assert app.pids(1) | app.pids(2) == pids
        assert app.wait_ended()["live"] == 2
        wait_for(lambda: not app.look()["failures"])
    assert not users.failures, users.summary()


def test_killed_instance_is_seen_by_nobody(tide: Tide) -> None:
    """After kill -9 of an instance under load its requests are answered elsewhere, and it comes back."""
    app = _shop(tide, "switch")

    def web() -> Json:
        found: Json = app.look()["placements"][0]["services"][0]
        return found

    def is_back(index: int, crashes: int) -> bool:
        seen = web()
        instance = seen["instances"][index]
        return bool(instance["crashes"] > crashes and instance["ready"] and seen["up"] == 2)

    with Users(tide.port, think_s=0.03) as users:
        wait_for(lambda: len(users.asked) > 50)
        for index in (0, 1, 0, 1):
            instance = web()["instances"][index]
            kill(instance["pid"])
            wait_for(partial(is_back, index, instance["crashes"]))
    assert [instance["crashes"] for instance in web()["instances"]] == [2, 2]
    assert not users.failures, users.summary()

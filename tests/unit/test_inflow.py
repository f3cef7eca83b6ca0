"""What the inflow finds on this machine before anything comes in."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.asking import Anything
from tidegate import errors, inflow, paths
from tidegate.pushes import Source
from tidegate.store.sqlite import SqliteStore


class World:
    """Inflows that are made, and not started, over one store."""

    def __init__(self, folder: Path) -> None:
        self.home = paths.Home(folder / "home")
        self.home.create()
        self.store = SqliteStore(self.home.database, ballast_bytes=0)
        self.lease = self.store.acquire("test", ttl_s=60.0)

    def made(self, **changes: Any) -> inflow.Inflow:
        anything = Anything()
        fields: dict[str, Any] = dict.fromkeys(
            ("clock", "content", "operations", "promote", "promotion", "write_down", "account"), anything
        )
        fields |= {"home": self.home, "store": self.store, "lease": self.lease, "hooks_port": 0}
        return inflow.Inflow(inflow.Given(**(fields | changes)))

    def source(self) -> None:
        self.made().arrivals.store.keep(self.lease, Source(app="shop"))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def test_port_that_somebody_has_is_refused_at_once(world: World) -> None:
    """Not after the start, when nobody reads any more; and the message says how to choose another."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(errors.PortTakenError, match=f"port {port} for webhooks") as raised:
            world.made(hooks_port=port)
    assert "--hooks-port" in (raised.value.hint or "")


def test_git_is_asked_for_only_where_an_app_has_a_source(world: World) -> None:
    """Who deploys from a folder needs no git, and `tide doctor` does not speak of it."""
    assert world.made().check() == ()
    world.source()
    (finding,) = world.made().check()
    assert (finding.name, finding.ok) == ("git", True)
    assert "takes and fetches commits" in finding.detail


def test_missing_git_is_a_finding_with_what_to_do(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine has none: said before the first push, not by it."""
    world.source()
    monkeypatch.setenv("PATH", str(world.home.root))
    (finding,) = world.made().check()
    assert (finding.name, finding.ok) == ("git", False)
    assert finding.hint

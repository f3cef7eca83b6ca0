"""Fixtures: a running router, and two releases of an app."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.haproxy.world import World, free_ports
from tests.support.web_app import WebApp
from tidegate.haproxy import RouterSettings


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A router that has been started, with nothing to route yet."""
    port, *links = free_ports(5)
    made = World(
        tmp_path / "router", RouterSettings(port=port, link_ports=tuple(links), threads=2, drain_s=0)
    )
    try:
        made.router.start()
        yield made
    finally:
        made.close()


@pytest.fixture
def blue() -> Iterator[WebApp]:
    with WebApp("blue") as app:
        yield app


@pytest.fixture
def green() -> Iterator[WebApp]:
    with WebApp("green") as app:
        yield app

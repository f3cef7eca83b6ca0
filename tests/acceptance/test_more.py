"""Smaller commands and sentences: preview by host name, events, hosts, backup, and what is not there."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest

from tests.support import sample
from tests.support.tide import App, Tide

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.fixture(scope="module")
def shop() -> Iterator[App]:
    """A live release that answers two host names, and a canary that stands still at its first, small step."""
    tide = Tide()
    try:
        tide.up()
        web = sample.service("web", route=["shop.localhost", "www.shop.localhost"])
        strategy = sample.canary({"share": "0.01%", "hold": "manual"})
        app = tide.app("shop", services={"web": web}, environments={"production": {"strategy": strategy}})
        app.host = "shop.localhost"
        app.open()
        app.hold()
        yield app
    finally:
        tide.close()


def test_preview_command_works_as_it_is_printed(shop: App) -> None:
    """The curl command of `tide preview` reaches the incoming release of an app with a host name."""
    (line,) = [line for line in shop.ok("preview").out.splitlines() if line.strip().startswith("curl ")]
    _, *options, url = shlex.split(line)
    assert options[::2] == ["-H", "-H"]
    assert url == f"http://127.0.0.1:{shop.tide.port}/"
    headers = dict(header.split(": ", 1) for header in options[1::2])
    assert shop.tide.get(host=headers.pop("Host"), **headers).release == "r2"


def test_url_names_the_first_host(shop: App) -> None:
    """`url` is one that the router answers, not its bare address."""
    assert shop.ok("status", "--json").json["url"] == f"http://shop.localhost:{shop.tide.port}"

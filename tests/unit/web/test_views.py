"""Where the API says that an environment answers."""

from __future__ import annotations

import pytest

from tests.support import builders
from tidegate import errors
from tidegate.engine import loop, traffic
from tidegate.web import views

LISTENING = views.Listening(host="0.0.0.0", port=8080)


def _scene(*hosts: str) -> builders.Scene:
    """A live release that answers these hosts, and another one on its way in."""
    wanted = builders.spec(builders.service(hosts=hosts))
    return builders.environment().live("r1", wanted).incoming("r2", wanted)


@pytest.mark.parametrize(
    ("hosts", "url", "host"),
    [
        (("shop.localhost", "www.shop.localhost"), "http://shop.localhost:8080", "shop.localhost"),
        (("*",), "http://127.0.0.1:8080", None),
        (("shop.localhost", "*"), "http://127.0.0.1:8080", None),
    ],
)
def test_url_is_one_that_the_router_answers(hosts: tuple[str, ...], url: str, host: str | None) -> None:
    """A host name is part of the URL, and of the preview, where the router would answer 404 without it."""
    state = _scene(*hosts).state
    view = loop.View(state=state, observed=builders.perfect(state))
    assert views.environment(view, traffic.TrafficMeter(), LISTENING).url == url
    preview = views.preview(state, LISTENING)
    assert (preview.address, preview.host) == ("http://127.0.0.1:8080", host)


def test_environment_without_host_has_no_url() -> None:
    """What nobody can ask from outside has neither URL nor address."""
    state = _scene().state
    view = loop.View(state=state, observed=builders.perfect(state))
    assert views.environment(view, traffic.TrafficMeter(), LISTENING).url is None
    assert views.preview(state, LISTENING).address is None


def test_preview_exists_only_while_a_rollout_runs() -> None:
    """Without an incoming release there is nothing to preview, and that is said."""
    with pytest.raises(errors.NotFoundError, match="No release is on its way"):
        views.preview(builders.environment().live("r1").state, LISTENING)

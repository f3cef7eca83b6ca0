"""Needs between apps: what is unmet, what is a circle, who goes back with whom."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.builders import API, WEB, Scene, environment, service, spec, worker
from tidegate.core import needs
from tidegate.core.model import Phase
from tidegate.core.promotions import Promotion

WANTED = ("accounts/api",)


def promotion(at: float = 5.0, **changes: Any) -> Promotion:
    fields: dict[str, Any] = {
        "id": 1,
        "release": 2,
        "digest": "sha256:2",
        "identity": "sha256:1",
        "path": ("test", "production"),
        "environment": "production",
        "at": at,
    }
    return Promotion(**(fields | changes))


def unmet(scene: Scene, *promotions: Promotion, asked: Promotion | None = None) -> str:
    """What shop waits for, when accounts stands so."""
    accounts = needs.Neighbour(there=scene.state, promotions=promotions)
    return needs.unmet(asked or promotion(), "shop", WANTED, {"accounts": accounts})


def test_live_service_that_does_not_move_is_enough() -> None:
    """Nothing is waited for."""
    assert unmet(environment().live("r1", spec(WEB, API))) == ""


@pytest.mark.parametrize(
    "scene",
    [
        environment(),
        environment().live("r1", spec(WEB)),
        environment().live("r1", spec(worker("api"))),
        environment().incoming("r1", spec(WEB, API)),
    ],
    ids=["nothing", "another-service", "a-worker", "only-incoming"],
)
def test_service_that_is_not_live_is_waited_for(scene: Scene) -> None:
    """Also while its first release is on its way."""
    assert unmet(scene) == "needs accounts/api, which is not live in production"


def test_rollout_of_the_other_app_is_waited_for() -> None:
    """With its number."""
    scene = environment().live("r1", spec(API)).incoming("r2", spec(API), phase=Phase.HOLDING)
    rollout = scene.state.rollout
    assert rollout is not None
    said = f"needs accounts/api, and rollout #{rollout.id} of accounts is in progress in production"
    assert unmet(scene) == said


@pytest.mark.parametrize(
    ("at", "waits"), [(4.0, True), (6.0, False), (5.0, True)], ids=["earlier", "later", "same"]
)
def test_promotion_that_was_asked_for_earlier_is_waited_for(at: float, waits: bool) -> None:
    """Of the same moment that of the first app by name: never both wait for each other."""
    scene = environment().live("r1", spec(API))
    said = "needs accounts/api, and r2 of accounts was asked for earlier"
    assert unmet(scene, promotion(at)) == (said if waits else "")


@pytest.mark.parametrize(
    ("path", "stands", "leads"),
    [
        (("test", "production"), "test", True),
        (("test", "production"), "production", True),
        (("test",), "test", False),
        (("test", "production", "later"), "later", False),
    ],
)
def test_promotion_leads_to_what_it_stands_before(path: tuple[str, ...], stands: str, leads: bool) -> None:
    """What ends before it, or has passed it, does not."""
    assert needs.leads_to(promotion(path=path, environment=stands), "production") is leads


def test_needs_of_all_services_count() -> None:
    """Each once, sorted."""
    wanted = spec(
        service("web", foreign=("mail/queue", "accounts/api")), service("b", foreign=("accounts/api",))
    )
    assert needs.foreign(wanted) == ("accounts/api", "mail/queue")
    assert needs.apps(wanted) == {"accounts", "mail"}


def of(**edges: str) -> dict[str, frozenset[str]]:
    return {name: frozenset(text.split()) for name, text in edges.items()}


@pytest.mark.parametrize(
    ("edges", "circle"),
    [
        (of(a="b", b=""), ()),
        (of(a="b", b="c", c="b"), ()),
        (of(a="b", b="a"), ("a", "b", "a")),
        (of(a="b", b="c x", c="a", x=""), ("a", "b", "c", "a")),
        (of(a="a"), ("a", "a")),
        (of(), ()),
    ],
)
def test_circle(edges: dict[str, frozenset[str]], circle: tuple[str, ...]) -> None:
    """Only one that leads back to the app itself counts: others are not its doing."""
    assert needs.circle("a", edges) == circle


@pytest.mark.parametrize(
    ("edges", "group"),
    [
        (of(a=""), [("a", ())]),
        (of(a="b", b="", c=""), [("a", ()), ("b", ("a",))]),
        (of(b="a", c="a", a="d", d=""), [("c", ()), ("b", ()), ("a", ("b", "c")), ("d", ("a",))]),
        (of(a="gone"), [("a", ())]),
        (of(a="a"), [("a", ())]),
        (of(a="b", b="a", c="b"), [("c", ()), ("b", ("c",)), ("a", ())]),
    ],
    ids=["alone", "pair", "chain", "not-live", "itself", "circle"],
)
def test_group(edges: dict[str, frozenset[str]], group: list[tuple[str, tuple[str, ...]]]) -> None:
    """All that are connected, dependents first; those in a circle do not wait for each other."""
    assert [(member.app, member.after) for member in needs.group("a", edges)] == group

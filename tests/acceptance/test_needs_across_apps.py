"""Two apps, one of which calls the other: order of their updates, who answers, and back together."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import sample
from tests.support.tide import App, Tide, kill, wait_for
from tidegate import client
from tidegate.client import Json

#: Releases of two apps start one after the other, and a busy machine takes its time for each.
pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(180)]

CALLS = "ACCOUNTS_API_URL"


def manifest(name: str, host: str, strategy: Any, **service: Any) -> dict[str, Any]:
    """One environment with one service."""
    return {
        "services": {name: sample.service(name, route=host, **service)},
        "environments": {"production": {"keep_warm": "1s", "strategy": strategy}},
    }


@pytest.fixture
def accounts(tide: Tide) -> App:
    """Who is called: a canary that is held."""
    app = tide.app("accounts", **manifest("api", "accounts.test", sample.HELD))
    app.host = "accounts.test"
    return app


@pytest.fixture
def shop(tide: Tide) -> App:
    """Who calls."""
    app = tide.app("shop", **manifest("web", "shop.test", "switch", needs=["accounts/api"]))
    app.host = "shop.test"
    return app


def pipeline(app: App) -> Json:
    with client.Client(app.tide.socket) as connection:
        return connection.pipeline(app.name)


def waiting(app: App, waits: str) -> Json:
    """The promotion that waits for this, when one does."""

    def found() -> list[Json]:
        return [p for p in pipeline(app)["promotions"] if p["waits"] == waits]

    return wait_for(found, seconds=60, why=app.name)[0]


def arrived(app: App) -> Json:
    """The newest promotion, when it has ended."""

    def found() -> list[Json]:
        seen = pipeline(app)
        return [] if seen["promotions"] else list(seen["ended"])

    newest = wait_for(found, seconds=60, why=app.name)[0]
    assert newest["ended"] == "arrived", newest
    return newest


def answers(app: App) -> set[str | None]:
    """Releases of accounts that answer the calls of shop."""
    pages = [app.get("/both") for _ in range(30)]
    assert [page.status for page in pages] == [200] * len(pages)
    return {page.headers.get("x-api-release") for page in pages}


def both(shop: App, accounts: App) -> None:
    """Each has two releases, the second of which is live."""
    accounts.open()
    shop.open(calls=CALLS)
    shop.deploy(calls=CALLS)
    accounts.hold()
    accounts.act("promote", full=True)
    accounts.wait_ended()
    assert [app.look()["live"] for app in (shop, accounts)] == [2, 2]


def test_apps_are_updated_in_order_and_the_stable_release_answers_calls(shop: App, accounts: App) -> None:
    """Shop waits until accounts is live; a canary of accounts is for its own users: calls do not see it."""
    shop.bring(calls=CALLS)
    waits = waiting(shop, "needs")
    assert waits["detail"] == "needs accounts/api, which is not live in production"
    assert pipeline(shop)["stations"][0]["live"] is None
    accounts.open()
    assert arrived(shop)["release"] == 1
    assert answers(shop) == {"r1"}
    accounts.hold()
    assert {accounts.get().release for _ in range(40)} == {"r1", "r2"}
    assert answers(shop) == {"r1"}
    shop.bring(calls=CALLS)
    moving = waiting(shop, "needs")
    assert moving["detail"].startswith("needs accounts/api, and rollout #")
    planned = shop.ok("plan", "production", "--release", "r2")
    assert "needs accounts/api, and rollout #" in planned.out
    accounts.act("promote", full=True)
    assert arrived(shop)["release"] == 2
    assert answers(shop) == {"r2"}


def test_group_goes_back_together_and_who_depends_goes_first(shop: App, accounts: App) -> None:
    """One command; it says what it would do, does it in order, and calls are answered all the time."""
    both(shop, accounts)
    would = accounts.ok("rollback", "production", "--group", "--dry-run")
    lines = [line.split(". ")[1] for line in would.out.splitlines()]
    assert lines == [
        "shop/production: r2 back to r1",
        "accounts/production: r2 back to r1, after shop",
    ]
    done = accounts.ok("rollback", "production", "--group", "--why", "wrong prices")
    assert "The group is back: 2 apps in production." in done.out
    assert [app.look()["live"] for app in (shop, accounts)] == [1, 1]
    assert answers(shop) == {"r1"}
    with client.Client(shop.tide.socket) as connection:
        first, second = (
            connection.history(client.Place(name, "production"))[0] for name in ("shop", "accounts")
        )
    assert [first["kind"], second["kind"]] == ["rollback", "rollback"]
    assert first["ended_at"] <= second["started_at"]
    assert second["why"] == "wrong prices (goes back as a group: shop, accounts)"
    assert "back to r1" in accounts.ok("pipeline").out


def test_group_of_which_one_cannot_go_back_stays_as_it_is(shop: App, accounts: App) -> None:
    """Accounts has no release before its present one: shop does not go back either, and it is said why."""
    accounts.open()
    shop.open(calls=CALLS)
    shop.deploy(calls=CALLS)
    refused = shop.run("rollback", "production", "--group")
    assert refused.status == 2
    assert "No other release was ever live in accounts/production." in refused.err
    assert [app.look()["live"] for app in (shop, accounts)] == [2, 1]
    assert pipeline(shop)["promotions"] == []


def test_group_goes_on_after_a_kill_between_its_apps(shop: App, accounts: App) -> None:
    """The control plane is killed when the first app is on its way; the next one brings both home."""
    both(shop, accounts)
    accounts.ok("rollback", "production", "--group", "--no-wait")
    kill(shop.tide.pid)
    shop.tide.ok("up")
    for app in (shop, accounts):
        assert arrived(app)["kind"] == "rollback"
    assert [app.look()["live"] for app in (shop, accounts)] == [1, 1]


def test_circle_of_apps_is_refused(shop: App, accounts: App) -> None:
    """Accounts that needs shop, which needs accounts, could never enter: refused at once, with the circle."""
    accounts.open()
    shop.open(calls=CALLS)
    changed = manifest("api", "accounts.test", "switch", needs=["shop/web"])
    accounts.manifest |= changed
    refused = accounts.refused_deploy()
    assert refused.status == 2
    assert "would close a circle of apps in production: accounts -> shop -> accounts" in refused.err

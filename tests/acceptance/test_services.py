"""Apps of several services and environments: order, one version throughout, configuration, side by side."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import sample
from tests.support.tide import App, Tide, wait_for
from tests.support.users import Users

pytestmark = [pytest.mark.real, pytest.mark.slow]


def _two_services(tide: Tide, name: str, **production: Any) -> App:
    """A web service that calls an api."""
    app = tide.app(
        name,
        services={
            "web": sample.service("web", route=f"{name}.test", instances=2, needs="api"),
            "api": sample.service("api", instances=2),
        },
        environments={"production": {"strategy": "switch", "keep_warm": "1m", **production}},
    )
    app.host = f"{name}.test"
    return app


def _order(app: App, what: str, release: str) -> list[str]:
    return [service for event, service, of, *_ in app.journal() if (event, of) == (what, release)]


def test_services_start_in_the_order_of_their_needs(shared: Tide) -> None:
    """What is needed runs before who needs it starts, and is stopped after it."""
    app = _two_services(shared, "order", keep_warm="300ms")
    app.open()
    assert _order(app, "starting", "r1") == ["api", "api", "web", "web"]
    app.open()
    wait_for(lambda: len(_order(app, "stopping", "r1")) == 4)
    assert _order(app, "stopping", "r1") == ["web", "web", "api", "api"]


def test_nobody_sees_a_mix_of_releases(shared: Tide) -> None:
    """Internal calls stay within the release: a web of one release never asks the api of another."""
    app = _two_services(shared, "mix", strategy=sample.canary("50%"))
    app.open()
    with Users(shared.port, path="/both", host=app.host, count=30) as users:
        app.open()
        app.act("rollback")
        app.wait_ended()
        wait_for(lambda: users.asked[-1].release == "r1")
    assert not users.failures, users.summary()
    assert users.releases() == {"r1", "r2"}
    assert not [one for one in users.asked if one.release != one.api_release]


def test_workers_are_replaced_after_the_services_with_traffic(shared: Tide) -> None:
    """A worker of the new release starts when everybody is exposed, and the old one stops then."""
    app = shared.app(
        "works",
        services={
            "mailer": sample.service("mailer", health=None),
            "web": sample.service("web", route="works.test"),
        },
        environments={"production": {"strategy": sample.HELD, "keep_warm": "1m"}},
    )
    app.host = "works.test"
    app.open()
    assert _order(app, "starting", "r1") == ["web", "mailer"]
    app.hold()
    assert _order(app, "starting", "r2") == ["web"]
    app.act("promote")
    app.wait_ended()
    assert _order(app, "starting", "r2") == ["web", "mailer"]
    wait_for(lambda: _order(app, "stopping", "r1") == ["mailer"])
    assert "works" in app.ok("logs", "--service", "mailer").out


def test_environments_live_side_by_side(shared: Tide) -> None:
    """Two environments of one app have releases, hosts, instances and configuration of their own."""
    app = shared.app(
        "sides",
        services={"web": sample.service("web", route="sides.test")},
        environments={
            "staging": {"services": {"web": {"route": "staging.sides.test"}}, "config": {"COLOUR": "grey"}},
            "production": {"strategy": "switch", "config": {"COLOUR": "blue"}},
        },
    )
    app.open("staging")
    app.ok("deploy", "production")
    app.open("staging")
    production = shared.get("/env", host="sides.test").json
    staging = shared.get("/env", host="staging.sides.test").json
    assert (production["COLOUR"], production["TIDEGATE_RELEASE"]) == ("blue", "r1")
    assert (staging["COLOUR"], staging["TIDEGATE_RELEASE"]) == ("grey", "r2")
    assert production["TIDEGATE_DATA"] != staging["TIDEGATE_DATA"]
    asked = app.run("history")
    assert asked.status == 2
    assert "staging, production" in asked.err


def test_same_bytes_go_from_environment_to_environment(shared: Tide) -> None:
    """`--release` brings a release into another environment without building it again."""
    app = shared.app(
        "bytes",
        services={"web": sample.service("web", route="bytes.test")},
        environments={
            "staging": {"services": {"web": {"route": "staging.bytes.test"}}},
            "production": {"strategy": "switch"},
        },
    )
    app.write(artifact={"package": "dist/", "build": "echo built >> builds"})
    app.ok("deploy", "staging")
    app.ok("deploy", "production", "--release", "r1")
    assert app.folder.joinpath("builds").read_text() == "built\n"
    places = {name: app.look(name)["placements"][0] for name in ("staging", "production")}
    assert places["staging"]["digest"] == places["production"]["digest"]


def test_instance_knows_who_and_where_it_is(shared: Tide) -> None:
    """An instance finds its port, data folder, names and the addresses that it needs in its environment."""
    app = _two_services(shared, "knows", config={"MOTTO": "two words, $HOME and 'quotes'"})
    app.open()
    found = shared.get("/env", host="knows.test").json
    placement = app.look()["placements"][0]
    assert found["MOTTO"] == "two words, $HOME and 'quotes'"
    assert found["TIDEGATE_APP"] == "knows"
    assert found["TIDEGATE_SERVICE"] == "web"
    assert found["TIDEGATE_RELEASE"] == "r1"
    assert found["TIDEGATE_ENVIRONMENT"] == "production"
    assert found["TIDEGATE_DIGEST"] == placement["digest"]
    assert found["TIDEGATE_INSTANCE"].startswith("knows.production.")
    assert found["API_URL"].startswith("http://127.0.0.1:")
    ports = {instance["port"] for one in placement["services"] for instance in one["instances"]}
    assert int(found["PORT"]) in ports
    assert str(app.data()) == found["TIDEGATE_DATA"]


def test_host_belongs_to_one_app(shared: Tide) -> None:
    """A host that another app serves is refused before anything starts, and says who has it."""
    services = {"web": sample.service("web", route="wanted.test")}
    first = shared.app("first", services=services)
    first.ok("deploy")
    second = shared.app("second", services=services)
    refused = second.refused_deploy()
    assert refused.status == 2
    assert "wanted.test is served by first/production already" in refused.err
    assert shared.get(host="wanted.test").json["instance"].startswith("first.")

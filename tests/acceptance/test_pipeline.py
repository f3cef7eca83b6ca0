"""One artifact from a command to production: gates, checks, approvals, freeze windows, kills in between."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support import sample
from tests.support.tide import App, Tide, kill, wait_for
from tidegate import client
from tidegate.client import Json

#: Three environments start one after the other, and a busy machine takes its time for each.
pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(180)]

#: The release's own checks: they ask the new release, print what they saw, and fail where they are told to.
CHECK = (
    "import json, os, sys, time, urllib.request as web; "
    "seen = json.load(web.urlopen(os.environ['TIDEGATE_URL'])); "
    "conduct = json.load(open('conduct.json')); place = os.environ['TIDEGATE_ENVIRONMENT']; "
    "time.sleep(conduct.get('check_s', 0)); "
    "print('checked', seen['release'], 'in', place, flush=True); "
    "sys.exit(place in conduct.get('broken_in', []))"
)


def manifest(**environments: dict[str, Any]) -> dict[str, Any]:
    """Three environments, each with a host of its own; keyword arguments: keys of each that change."""
    names = ("test", "staging", "production")
    return {
        "services": {"web": sample.service("web", route="shop.test")},
        "verify": {"run": [sample.PYTHON, "-c", CHECK]},
        "environments": {
            name: {"keep_warm": "1s", "strategy": "switch"}
            | ({} if name == "production" else {"services": {"web": {"route": f"{name}.shop.test"}}})
            | environments.get(name, {})
            for name in names
        },
    }


@pytest.fixture
def shop(tide: Tide) -> App:
    """The app in a control plane of its own."""
    app = tide.app("shop", **manifest())
    app.host = "shop.test"
    return app


def rewritten(app: App, **environments: dict[str, Any]) -> None:
    """The manifest of the next release."""
    app.write(**manifest(**environments))


def pipeline(app: App) -> Json:
    with client.Client(app.tide.socket) as connection:
        return connection.pipeline(app.name)


def ended(app: App, release: int) -> Json:
    """The promotion of a release when it has ended."""

    def found() -> Json | None:
        return next((p for p in pipeline(app)["ended"] if p["release"] == release), None)

    promotion = wait_for(found, seconds=60, why=app.name)
    assert promotion is not None
    return promotion


def waiting(app: App, release: int, waits: str) -> Json:
    """The promotion of a release when it waits for that."""

    def found() -> Json | None:
        under_way = pipeline(app)["promotions"]
        return next((p for p in under_way if (p["release"], p["waits"]) == (release, waits)), None)

    promotion = wait_for(found, seconds=60, why=app.name)
    assert promotion is not None
    return promotion


def live(app: App) -> list[int | None]:
    return [station["live"] for station in pipeline(app)["stations"]]


def running(app: App, environment: str, release: int) -> str:
    """A hash over the files that the processes of a release run from."""
    (pid, *_) = app.pids(release, environment)
    folder = Path(f"/proc/{pid}/cwd").resolve()
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    text = b"".join(path.relative_to(folder).as_posix().encode() + path.read_bytes() for path in files)
    return hashlib.sha256(text).hexdigest()


def reasons(app: App, environment: str) -> list[str]:
    with client.Client(app.tide.socket) as connection:
        return [event["reason"] for event in connection.events(client.Place(app.name, environment))]


# --- the way ---------------------------------------------------------------------------------------


def test_one_command_brings_one_artifact_through_all_environments(shop: App) -> None:
    """Built once, verified in each, by canary in production; the same bytes run in all three."""
    rewritten(shop, production={"strategy": sample.canary("50%", every="1s")})
    shop.deploy()
    done = shop.deploy()
    assert "r2 goes test → staging → production." in done.out
    assert "r2 is live in shop/production." in done.out
    assert live(shop) == [2, 2, 2]
    assert [station["passed"] for station in pipeline(shop)["stations"]] == [True, True, True]
    assert len({running(shop, name, 2) for name in ("test", "staging", "production")}) == 1
    assert shop.look()["last"]["stages"][0]["exposure_bps"] == 5000
    shown = shop.ok("show", "r2", "--json").json
    placed = [one for name in ("test", "staging", "production") for one in shop.look(name)["placements"]]
    assert {one["digest"] for one in placed if one["release"] == 2} == {shown["release"]["digest"]}


def test_release_that_breaks_its_checks_in_staging_stops_there(shop: App) -> None:
    """Production never saw it, nobody in staging did; the fix starts at test."""
    shop.deploy()
    broken = shop.refused_deploy(broken_in=["staging"])
    assert broken.status == 1
    assert "r2 did not get to production (failed): staging: verify-failed" in broken.err
    assert "checked r2 in staging" in broken.err
    assert "No user had been exposed." in broken.err
    assert live(shop) == [2, 1, 1]
    assert "requested" not in reasons(shop, "production")[-3:]
    assert shop.get().release == "r1"
    fixed = shop.deploy()
    assert "test  rollout" in fixed.out
    assert live(shop) == [3, 3, 3]


@pytest.mark.uncounted
def test_change_of_configuration_alone_enters_its_environment_at_once(shop: App) -> None:
    """What runs has passed already; the configuration belongs to production and is rolled back with it."""
    shop.write({"made": 1})
    shop.ok("deploy")
    shop.write({"made": 1}, **manifest(production={"config": {"LOG_LEVEL": "debug"}}))
    done = shop.ok("deploy")
    assert "→" not in done.out
    assert live(shop) == [1, 1, 2]
    assert shop.get("/env").json["LOG_LEVEL"] == "debug"
    shop.ok("rollback", "production")
    assert "LOG_LEVEL" not in shop.get("/env").json


def test_release_goes_on_after_its_soak_time(shop: App) -> None:
    """Live and in order for that long; nothing is asked of anybody."""
    rewritten(shop, staging={"soak": "2s"})
    began = time.monotonic()
    done = shop.deploy()
    assert "soaks in staging" in done.out
    assert time.monotonic() - began >= 2
    assert live(shop) == [1, 1, 1]


def test_plan_tells_gate_by_gate_and_does_nothing(shop: App) -> None:
    """What is passed, what it would wait for, what would be done."""
    shop.deploy()
    rewritten(shop, staging={"soak": "1h"}, production={"approve": "manual"})
    shop.write({"made": 2})
    shop.ok("deploy", "test")
    wait_for(lambda: pipeline(shop)["stations"][0]["passed"])
    planned = shop.ok("plan", "production", "--json").json
    gates = {gate["environment"]: gate for gate in planned["gates"]}
    assert (gates["test"]["passed"], gates["staging"]["passed"]) == (True, False)
    assert gates["staging"]["waits"] == ["soaks 3600 s before it goes on"]
    assert "waits for 1 approval" in gates["production"]["waits"][0]
    assert live(shop) == [2, 1, 1]


# --- people ----------------------------------------------------------------------------------------


def test_release_waits_for_an_approval_and_goes_on_by_itself(shop: App) -> None:
    """The command returns and says what is missing; the approval is enough."""
    rewritten(shop, production={"approve": "manual"})
    done = shop.deploy()
    assert "waits for 1 approval" in done.out
    assert live(shop) == [1, 1, None]
    shop.ok("approve")
    assert ended(shop, 1)["ended"] == "arrived"
    assert live(shop) == [1, 1, 1]
    assert "approved" in reasons(shop, "production")
    assert shop.run("approve", "production").status == 2


@pytest.mark.uncounted
def test_newer_release_takes_the_place_of_the_older_at_the_gate(shop: App) -> None:
    """Its approval is not handed on."""
    rewritten(shop, production={"approve": {"count": 2}})
    shop.deploy()
    shop.ok("approve", "production", "--release", "r1")
    shop.deploy()
    assert ended(shop, 1)["ended"] == "superseded"
    assert waiting(shop, 2, "approval")["approvals"] == []


@pytest.mark.uncounted
def test_approval_that_was_not_used_in_time_counts_no_more(shop: App) -> None:
    """Another rollout was in the way for longer than it holds."""
    shop.deploy()
    rewritten(shop, production={"approve": {"expires": "2s"}, "strategy": sample.HELD})
    shop.write({"made": 2})
    shop.ok("deploy")
    shop.ok("approve")
    shop.wait_phase("holding")
    shop.write({"made": 3})
    shop.ok("deploy")
    shop.ok("approve")
    assert waiting(shop, 3, "busy")["approvals"]
    wait_for(lambda: time.time() - pipeline(shop)["promotions"][-1]["approvals"][0]["at"] > 2)
    shop.ok("promote", "--full", "production")
    assert waiting(shop, 3, "approval")
    assert live(shop) == [3, 3, 2]


@pytest.mark.uncounted
def test_freeze_window_keeps_releases_out_and_lets_rollbacks_through(shop: App) -> None:
    """An emergency goes in, is seen everywhere, and needs a reason."""
    shop.deploy()
    shop.deploy()
    year = time.gmtime().tm_year
    window = {"from": f"{year - 1}-01-01 00:00", "until": f"{year + 1}-01-01", "zone": "UTC", "why": "sale"}
    rewritten(shop, production={"freeze": [window]})
    shop.write({"made": 3})
    done = shop.ok("deploy")
    assert f"production is frozen until {year + 1}-01-01 00:00 UTC (sale)" in done.out
    shop.ok("rollback", "production")
    assert live(shop) == [3, 3, 1]
    assert shop.run("deploy", "production", "--release", "r3", "--emergency", "x").status == 2
    shop.ok("deploy", "production", "--release", "r3", "--emergency", "checkout is down")
    assert live(shop) == [3, 3, 3]
    assert "past the gates: checkout is down" in shop.ok("status", "production").out
    assert "past the gates" in shop.ok("pipeline").out
    shop.ok("withdraw", "production")
    assert ended(shop, 3)["ended"] == "withdrawn"


@pytest.mark.uncounted
def test_manifest_cannot_take_away_the_gate_that_it_has_to_pass(shop: App) -> None:
    """Neither the approval nor the environment before."""
    rewritten(shop, production={"approve": "manual"})
    shop.deploy()
    shop.ok("approve")
    ended(shop, 1)
    rewritten(shop)
    shop.write({"made": 2})
    assert "waits for 1 approval" in shop.ok("deploy").out
    shop.ok("withdraw", "production")
    two = manifest()
    del two["environments"]["staging"]
    shop.write({"made": 3}, **two)
    refused = shop.run("deploy")
    assert refused.status == 2
    assert "leaves staging out of its pipeline" in refused.err
    assert shop.look()["live"] == 1


# --- faults ----------------------------------------------------------------------------------------


@pytest.mark.uncounted
@pytest.mark.parametrize("moment", ["verifying", "soak", "approval", "rollout"])
def test_killed_control_plane_carries_a_promotion_on(shop: App, moment: str) -> None:
    """At every gate: after `tide up` it arrives, each rollout was begun once, and nothing is lost."""
    gates: dict[str, dict[str, Any]] = {
        "soak": {"staging": {"soak": "3s"}},
        "approval": {"production": {"approve": "manual"}},
    }
    rewritten(shop, **gates.get(moment, {}))
    shop.write({"made": 1, "check_s": 2 if moment == "verifying" else 0})
    shop.ok("deploy", "--no-wait")
    if moment == "verifying":
        shop.wait_phase("verifying", environment="test")
    else:
        waiting(shop, 1, moment)
    kill(shop.tide.pid)
    shop.tide.up()
    if moment == "approval":
        waiting(shop, 1, "approval")
        shop.ok("approve")
    assert ended(shop, 1)["ended"] == "arrived"
    for name in ("test", "staging", "production"):
        assert [rollout["phase"] for rollout in shop.history(name)] == ["succeeded"]


def test_two_deploys_at_once_end_with_the_newer_one(shop: App) -> None:
    """Nothing is refused and nothing is lost: the older one arrives too, or says why it did not."""
    shop.write({"made": 1})
    shop.ok("deploy", "--no-wait")
    shop.write({"made": 2})
    shop.ok("deploy", "--no-wait")
    assert ended(shop, 2)["ended"] == "arrived"
    assert ended(shop, 1)["ended"] in ("arrived", "superseded")
    assert live(shop) == [2, 2, 2]

"""Commands that look: what they say to people, and the one JSON document that they give to programs."""

from __future__ import annotations

import json
import os
import pwd
import select
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import sample
from tests.support.tide import App, Tide, wait_for

pytestmark = [pytest.mark.real, pytest.mark.slow]

#: The contract with programs that read `tide status ENV --json`: names may be added here, never removed.
ENVIRONMENT = {
    "app", "environment", "live", "exposure_bps", "rollout", "last", "pending_release", "migrating",
    "placements", "hosts", "url", "halted", "emergency", "failures", "observed_at", "noise",
}  # fmt: skip
ROLLOUT = {
    "id", "kind", "release", "previous_release", "strategy", "stages", "stage", "phase", "held_s", "paused",
    "exposure_reached_bps", "reason", "detail", "by", "why", "placement", "started_at", "ended_at",
    "evidence",
}  # fmt: skip
PLACEMENT = {"id", "release", "digest", "role", "slot", "exposure_bps", "traffic", "services"}
TRAFFIC = {"requests", "errors", "requests_per_second", "errors_per_second"}
SERVICE = {"name", "wanted", "ready", "serves", "up", "connections", "instances"}
INSTANCE = {"index", "state", "ready", "pid", "port", "crashes", "exit", "check"}
CONTROL_PLANE = {"version", "home", "pid", "listen", "environments"}
RELEASE = {"app", "number", "digest", "revision", "environments", "created_at", "created_by", "kept"}
PROBLEM = {"type", "title", "status", "detail", "reason", "exit_status", "problems"}


@pytest.fixture(scope="module")
def shop() -> Iterator[App]:
    """A live release, and a canary that stands still at its first, smallest step."""
    tide = Tide()
    try:
        tide.up()
        web = sample.service("web", route=["shop.test", "www.shop.test"], instances=2)
        strategy = sample.canary({"share": "0.01%", "hold": "manual"})
        app = tide.app("shop", services={"web": web}, environments={"production": {"strategy": strategy}})
        app.host = "shop.test"
        app.ok("deploy", "--why", "the shop opens")
        app.hold()
        yield app
    finally:
        tide.close()


def test_status_has_stable_names(shop: App) -> None:
    """Every field that programs may rely on is in the JSON of an environment."""
    found = shop.ok("status", "--json").json
    assert found.keys() == ENVIRONMENT
    assert found["rollout"].keys() == ROLLOUT
    assert found["last"].keys() == ROLLOUT
    assert found["rollout"]["stages"][0].keys() == {"exposure_bps", "hold_s"}
    live, incoming = found["placements"]
    assert live.keys() == incoming.keys() == PLACEMENT
    assert live["traffic"].keys() == TRAFFIC
    assert live["services"][0].keys() == SERVICE
    assert live["services"][0]["instances"][0].keys() == INSTANCE


def test_status_tells_people_what_runs(shop: App) -> None:
    """The picture names the live release, the rollout, the share of users and the instances."""
    said = shop.ok("status", "production").out
    assert "shop/production" in said
    assert "r1 is live" in said
    assert "r2 is holding" in said
    assert "0.01 %" in said
    assert "web 2/2" in said
    for pid in shop.pids(1) | shop.pids(2):
        assert str(pid) in said


def test_status_outside_the_folder_shows_everything(shop: App) -> None:
    """Without a manifest at hand, status shows the control plane and all its environments."""
    found = shop.tide.ok("status", "--json").json
    assert found.keys() == CONTROL_PLANE
    assert [one["app"] for one in found["environments"]] == ["shop"]
    assert "r1 is live" in shop.tide.ok("status").out


def test_preview_shows_the_canary_to_who_knows_the_token(shop: App) -> None:
    """The header and the cookie show the incoming release while practically nobody is exposed."""
    found = shop.ok("preview", "--json").json
    token, cookie = {found["header"]: found["token"]}, f"{found['cookie']}={found['token']}"
    assert {shop.get(**token).release for _ in range(5)} == {"r2"}
    assert shop.get(Cookie=cookie).release == "r2"
    assert shop.get().release == "r1"
    assert found["token"] in shop.ok("preview").out


@pytest.mark.parametrize("guess", ["", "-", "1", "r2", "x" * 48, "0" * 48])
def test_preview_is_closed_to_strangers(shop: App, guess: str) -> None:
    """Who does not know the token gets the release that everybody gets."""
    answers = [shop.get(**{"X-Tidegate-Preview": guess}), shop.get(Cookie=f"tidegate_preview={guess}")]
    assert {answer.release for answer in answers} == {"r1"}


def test_preview_token_is_not_told_to_the_app(shop: App) -> None:
    """The router takes the preview header away, so that no app can log it."""
    found = shop.ok("preview", "--json").json
    page = shop.get("/env", **{found["header"]: found["token"]})
    assert found["token"] not in page.body.decode()


def test_history_tells_who_when_what_and_why(shop: App) -> None:
    """The history has the newest rollout first, with its reason and outcome."""
    newest, first = shop.ok("history", "--json").json
    assert newest.keys() == ROLLOUT
    me = pwd.getpwuid(os.geteuid()).pw_name
    assert (newest["release"], newest["phase"], newest["by"]) == (2, "holding", f"{me} for ada")
    assert (first["release"], first["phase"], first["why"]) == (1, "succeeded", "the shop opens")
    assert first["started_at"] < first["ended_at"] < time.time()
    said = shop.ok("history").out
    assert "the shop opens" in said
    assert "succeeded: complete" in said


def test_releases_lists_what_can_be_deployed(shop: App) -> None:
    """Releases come newest first, with digest, environments and whether the package is still here."""
    found = shop.ok("releases", "--json").json
    assert [release["number"] for release in found] == [2, 1]
    assert all(release.keys() == RELEASE for release in found)
    assert all(release["kept"] for release in found)
    assert found[0]["digest"] != found[1]["digest"]
    assert "r2" in shop.ok("releases").out


def test_show_tells_a_release_and_its_rollouts(shop: App) -> None:
    """One release, with every rollout of it."""
    found = shop.ok("show", "r1", "--json").json
    assert found["release"].keys() == RELEASE
    assert [(one["environment"], one["release"]) for one in found["rollouts"]] == [("production", 1)]
    assert found["release"]["digest"] in shop.ok("show", "1").out
    unknown = shop.run("show", "r99")
    assert unknown.status == 2
    assert "no release r99" in unknown.err


def test_plan_tells_and_changes_nothing(shop: App) -> None:
    """A plan lists the steps that would follow, and leaves the rollout in progress alone."""
    before = shop.look()
    found = shop.ok("plan", "--release", "r1", "--supersede", "--json").json
    assert found.keys() == {"release", "previous_release", "no_op", "flip", "steps", "judged", "gates"}
    assert any("abort rollout" in step for step in found["steps"])
    refused = shop.run("plan", "--release", "r1")
    assert refused.status == 2
    assert shop.look()["rollout"]["id"] == before["rollout"]["id"]
    assert len(shop.history()) == 2


def test_logs_are_those_of_the_instances(shop: App) -> None:
    """Logs show what instances print, with service, index and release; as JSON one object a line."""
    shop.get("/say/herring")
    wait_for(lambda: "herring" in shop.ok("logs").out)
    (line,) = [line for line in shop.ok("logs", "--service", "web").out.splitlines() if "herring" in line]
    assert line in ("web.0 r1 | herring", "web.1 r1 | herring")
    entries = [json.loads(line) for line in shop.ok("logs", "--json").out.splitlines()]
    assert {tuple(entry) for entry in entries} == {("service", "release", "index", "text")}
    assert "herring" in {entry["text"] for entry in entries}


def test_followed_logs_come_as_they_are_printed(shop: App) -> None:
    """`logs -f` goes on, and ends quietly with Ctrl-C."""
    following = shop.begin("logs", "-f", "--tail", "0")
    try:
        assert following.stdout is not None
        seen = ""
        deadline = time.monotonic() + 20
        while "cod" not in seen:
            assert time.monotonic() < deadline, seen
            shop.get("/say/cod")
            if select.select([following.stdout], [], [], 0.3)[0]:
                seen += os.read(following.stdout.fileno(), 4096).decode()
    finally:
        following.send_signal(signal.SIGINT)
        _, complaint = following.communicate(timeout=20)
    assert following.returncode == 0, complaint
    assert "Traceback" not in complaint


COMMANDS: tuple[tuple[str, ...], ...] = (
    ("status",), ("history",), ("releases",), ("show", "r1"), ("plan", "--release", "r2"), ("preview",),
    ("doctor",), ("up",), ("pause",), ("resume",), ("deploy", "--release", "r2", "--no-wait"),
)  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_json_is_one_document(shop: App, words: tuple[str, ...]) -> None:
    """With --json a command prints one JSON document and nothing else."""
    done = shop.run(*words, "--json")
    assert done.json is not None
    assert done.err == ""


@pytest.mark.parametrize("words", [("show", "r99"), ("rollback",), ("status", "nowhere")], ids=str)
def test_error_is_one_document_too(shop: App, words: tuple[str, ...]) -> None:
    """With --json an error is one problem object, and the exit status stands in it."""
    done = shop.run(*words, "--json")
    problem: dict[str, Any] = done.json
    assert problem.keys() == PROBLEM
    assert problem["exit_status"] == done.status == 2
    assert done.err == ""

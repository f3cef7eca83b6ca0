"""Smaller commands and sentences: preview by host name, events, hosts, backup, and what is not there."""

from __future__ import annotations

import json
import select
import shlex
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support import sample
from tests.support.tide import App, Tide, finished, wait_for
from tidegate.client import Json
from tidegate.store.sqlite import SqliteStore

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
    assert headers.pop("Host") == shop.host
    assert shop.get(**headers).release == "r2"


def test_url_names_the_first_host(shop: App) -> None:
    """`url` is one that the router answers, not its bare address."""
    assert shop.ok("status", "--json").json["url"] == f"http://shop.localhost:{shop.tide.port}"


def test_backup_is_a_whole_private_copy(shop: App) -> None:
    """`tide backup` writes a sound database that knows the releases, for its owner alone."""
    file = shop.folder / "saved.db"
    said = shop.ok("backup", "saved.db").out
    assert str(file) in said
    assert "packages" in said
    assert file.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as copy:
        assert copy.execute("pragma integrity_check").fetchone() == ("ok",)
        assert copy.execute("select count(*) from releases").fetchone() == (2,)
    restored = shop.folder / "restored" / "tidegate.db"
    restored.parent.mkdir()
    shutil.copy(file, restored)
    with closing(SqliteStore(restored)) as store:
        assert [str(key) for key in store.environments()] == ["shop/production"]
    second = shop.tide.root / "second.db"
    found = shop.ok("backup", second, "--json").json
    assert found == {"file": str(second), "size_bytes": second.stat().st_size}


def _taken(root: Path) -> tuple[Path, str]:
    (root / "kept.db").write_text("precious")
    return root / "kept.db", "is there already"


def _link(root: Path) -> tuple[Path, str]:
    (root / "link.db").symlink_to(root / "nowhere")
    return root / "link.db", "is there already"


def _own(root: Path) -> tuple[Path, str]:
    return root / "home" / "state" / "tidegate.db", "is there already"


def _no_folder(root: Path) -> tuple[Path, str]:
    return root / "missing" / "saved.db", "could not be written"


@pytest.mark.parametrize("place", [_taken, _link, _own, _no_folder], ids=lambda place: place.__name__)
def test_backup_overwrites_nothing_and_says_why(shop: App, place: Callable[[Path], tuple[Path, str]]) -> None:
    """A file, a link or the state itself is left as it is; a folder that is not there is named."""
    file, why = place(shop.tide.root)
    before = file.read_bytes() if file.is_file() else None
    done = shop.run("backup", file)
    assert done.status == (1 if why == "could not be written" else 2)
    assert why in done.err
    assert str(file) in done.err
    if before is not None and file.name == "kept.db":
        assert file.read_bytes() == before
    assert list(shop.tide.root.rglob("*.partial")) == []
    assert not (shop.tide.root / "nowhere").exists()


def test_events_tell_every_decision_with_its_reason(shop: App) -> None:
    """`tide events` lists decisions, oldest first; `--after` leaves out what is known."""
    found = shop.ok("events", "--json").json
    assert [event["sequence"] for event in found] == sorted(event["sequence"] for event in found)
    assert [event["reason"] for event in found].count("requested") == 2
    lines = shop.ok("events").out.splitlines()
    assert len(lines) == len(found)
    assert all(event["reason"] in line for event, line in zip(found, lines, strict=True))
    last = found[-1]["sequence"]
    assert shop.ok("events", "--after", found[-2]["sequence"], "--json").json == found[-1:]
    assert shop.ok("events", "--after", last, "--json").json == []
    assert "No decision after" in shop.ok("events", "--after", last).out


def test_followed_events_come_as_they_are_made(shop: App) -> None:
    """`tide events --follow` shows a decision when it is made, and ends quietly with Ctrl-C."""
    last = shop.events()[-1]["sequence"]
    following = shop.begin("events", "--follow", "--json", "--after", last)
    try:
        shop.act("pause")
        assert following.stdout is not None
        seen: list[Json] = []
        while not seen or seen[-1]["reason"] != "paused":
            assert select.select([following.stdout], [], [], 30)[0], seen
            seen.append(json.loads(following.stdout.readline()))
        assert [line["sequence"] for line in seen] == list(range(last + 1, last + 1 + len(seen)))
    finally:
        following.send_signal(signal.SIGINT)
        done = finished(following)
    assert (done.status, done.err) == (0, "")


def test_status_shows_where_an_environment_answers(shop: App) -> None:
    """The status of one environment names its hosts and its address."""
    said = shop.ok("status", "production").out
    assert f"shop.localhost, www.shop.localhost, at http://shop.localhost:{shop.tide.port}" in said


@pytest.mark.parametrize("words", [("--placement", "999"), ("--service", "wep")], ids=" ".join)
def test_logs_of_what_is_not_there_are_an_error(shop: App, words: tuple[str, ...]) -> None:
    """A placement or a service that there is not is named, instead of printing nothing."""
    done = shop.run("logs", *words)
    assert done.status == 2
    assert words[1] in done.err
    assert done.out == ""


def test_second_control_plane_in_the_foreground_fails(shop: App) -> None:
    """A service manager must not believe that it holds the control plane that somebody else has started."""
    done = shop.run("up", "--foreground")
    assert done.status == 1
    assert f"runs already (pid {shop.tide.pid})" in done.err
    assert shop.run("up").status == 0


def test_release_that_is_never_ready_says_why(tide: Tide) -> None:
    """The abort has the health check's last answer; the status shows it while it is waited for."""
    health = {"path": "/nothing", "interval": "200ms", "deadline": "8s"}
    web = sample.service("web", route="ill.localhost", health=health)
    app = tide.app("ill", services={"web": web}, environments={"production": {"strategy": "switch"}})
    app.bring()

    def instance() -> Json:
        found: Json = app.ok("status", "--json").json["placements"][0]["services"][0]["instances"][0]
        return found

    wait_for(lambda: instance()["check"] == "GET /nothing answered 404")
    assert "GET /nothing answered 404" in app.ok("status").out
    last = app.wait_ended()["last"]
    assert last["reason"] == "never-ready"
    assert "web 0 of 1 ready (GET /nothing answered 404)" in last["detail"]

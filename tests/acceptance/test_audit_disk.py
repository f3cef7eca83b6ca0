"""The audit log on a full disk: no change passes unseen, and going home works all the same."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.support import sample
from tests.support.tide import App, Tide
from tidegate import client, errors
from tidegate.client import Json

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(120)]

#: Room for the state, and twice for the reserve.
DISK = "64m"


@pytest.fixture
def small(idle: Tide) -> Iterator[Tide]:
    """A control plane whose state is on a small disk of its own."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: a full disk; to mount a small one needs root")
    state = idle.home / "state"
    state.mkdir(mode=0o700)
    words = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=700", "none", str(state)]
    mounted = subprocess.run(words, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"NOT TESTED: a full disk; mount says: {mounted.stderr.strip()}")
    try:
        idle.up()
        yield idle
    finally:
        idle.end()
        subprocess.run(["umount", "--lazy", str(state)], check=True)


def fill(path: Path) -> None:
    """Leave not one free block."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * 65536)


def reserve_is_gone(tide: Tide) -> bool:
    return not (tide.home / "state" / "tidegate.db.ballast").exists()


@contextmanager
def full(tide: Tide) -> Iterator[None]:
    """Not a free block, and somebody reads: what the database has of the disk is not used again and again."""
    filler = tide.home / "state" / "filler"
    fill(filler)
    uri = f"file:{tide.home}/state/tidegate.db?mode=ro"
    with closing(sqlite3.connect(uri, uri=True)) as reader:
        reader.execute("begin")
        reader.execute("select count(*) from audit").fetchall()
        yield
    filler.unlink()


def steered(app: App) -> None:
    """Until there is no room for it, and the reserve is given up."""
    place = client.Place("shop", "production")
    with client.Client(app.tide.socket) as connection, suppress(errors.ReportedError):
        for number in range(1000):
            connection.act(place, ("pause", "resume")[number % 2])
            if reserve_is_gone(app.tide):
                return
    assert reserve_is_gone(app.tide)


def tokens_made(tide: Tide) -> tuple[int, Json]:
    """How many tokens were made until one was refused, and why it was."""
    with client.Client(tide.socket) as connection:
        for number in range(5000):
            try:
                connection.create_token(f"t{number}", role="viewer", environments=["*/*"], expires_s=None)
            except errors.ReportedError as error:
                return number, error.reported
    raise AssertionError("the disk never was full")


def test_a_full_disk_lets_no_change_pass_but_the_way_home(small: Tide) -> None:
    """Abort works from the reserve; when that is used up too, what cannot be written down is not done."""
    strategy = sample.canary({"share": "10%", "hold": "manual"})
    app = small.app(
        "shop",
        services={"web": sample.service("web", route="*")},
        environments={"production": {"strategy": strategy}},
    )
    app.open()
    app.hold()
    with full(small):
        steered(app)
        app.act("abort")
        assert app.wait_phase("aborted")["live"] == 1
    newest, *_ = small.ok("audit", "--json", "--outcome", "accepted").json
    assert newest["action"] == "abort"
    with full(small):
        done, problem = tokens_made(small)
        # Whichever found no room first: the log, or the table of tokens.
        assert problem["type"] in ("audit", "storage")
        assert "othing was changed" in problem["title"]
        assert small.run("status").status == 0
    log = small.ok("audit", "--json", "--limit", "1000", "--outcome", "accepted").json
    assert sum(entry["action"] == "tokens" for entry in log) == done
    assert len(small.ok("token", "list", "--json").json) == done
    assert small.ok("audit", "verify", "--json").json["ok"]

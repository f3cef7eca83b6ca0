"""The process that runs scripts: what it is told, what it says, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.integration.migrators.conftest import Database
from tests.support.migrations import write

pytestmark = pytest.mark.real


def work(order: object) -> tuple[int, list[dict[str, Any]]]:
    """Its exit status, and what it said."""
    text = order if isinstance(order, str) else json.dumps(order)
    with subprocess.Popen(
        [sys.executable, "-m", "tidegate.migrators.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(f"{text}\n")
        process.stdin.flush()
        said = [json.loads(line) for line in process.stdout]
        assert process.stderr.read() == ""
    return process.returncode, said


def done(said: list[dict[str, Any]]) -> list[str]:
    """What was done, by its last line."""
    return list(said[-1]["done"])


def order(database: Database, folder: Path, *steps: str) -> dict[str, Any]:
    words = [step.split() for step in steps]
    return {
        "url": database.url,
        "app": "shop",
        "environment": "test",
        "folder": str(folder),
        "steps": [{"id": id_, "direction": direction} for id_, direction in words],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(
        tmp_path / "m",
        ("users", "CREATE TABLE users (id integer); INSERT INTO users VALUES (1);", "DROP TABLE users;"),
        ("bad", "INSERT INTO nowhere VALUES (1);", "try"),
    )


def test_steps_are_done_once_and_told(database: Database, folder: Path) -> None:
    """How far it is, statement by statement, and at the end what it has done."""
    status, said = work(order(database, folder, "0001_users up"))
    progress = [(one["progress"]["id"], one["progress"]["statement"]) for one in said[:-1]]
    assert (status, done(said)) == (0, ["up 0001_users"])
    assert progress == [("0001_users", 1), ("0001_users", 2)]
    status, said = work(order(database, folder, "0001_users up"))
    assert (status, len(said), done(said)) == (0, 1, [])
    status, said = work({**order(database, folder, "0001_users down"), "folder": None})
    assert (status, done(said)) == (0, ["down 0001_users"])


def test_error_is_told_with_its_place_and_status(database: Database, folder: Path) -> None:
    """What was done before it stays."""
    status, said = work(order(database, folder, "0001_users up", "0002_bad up"))
    assert (status, said[-1]["error"]["kind"]) == (1, "database")
    assert said[-1]["error"]["message"].startswith("0002_bad, line ")
    with closing(database.open()) as session:
        assert session.rows("SELECT id FROM users") == [(1,)]
    status, said = work(order(database, folder, "0003_none up"))
    assert (status, said[-1]["error"]["message"]) == (2, "The release has no migration 0003_none.")
    (folder / "0001_users.down.sql").unlink()
    status, said = work(order(database, folder, "0001_users up"))
    assert (status, said[-1]["error"]["kind"]) == (2, "migration")


def test_migrations_that_do_not_follow_on_what_is_applied_are_all_told(
    database: Database, folder: Path, tmp_path: Path
) -> None:
    """An edited script, and one that comes before others: nothing runs."""
    assert work(order(database, folder, "0001_users up"))[0] == 0
    (folder / "0001_users.up.sql").write_text("CREATE TABLE users (id integer, name text);")
    (folder / "0000_first.up.sql").write_text("CREATE TABLE first (x integer);")
    (folder / "0000_first.down.sql").write_text("DROP TABLE first;")
    status, said = work(order(database, folder, "0000_first up"))
    told = said[-1]["error"]["message"]
    assert (status, said[-1]["error"]["kind"]) == (2, "migration")
    assert "0000_first: comes before 0001_users, which is applied already" in told
    assert "0001_users: is not the script that was applied" in told
    with closing(database.open()) as session:
        assert session.rows("SELECT * FROM users") == [(1,)]


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("", ""),
        ("{}", "url, app, environment, steps"),
        ('{"url": "hunter2", "app": 7}', "app, environment, steps"),
    ],
)
def test_order_that_is_none_is_refused_without_repeating_it(text: str, places: str) -> None:
    """It may hold a password."""
    status, said = work(text)
    assert (status, said[0]["error"]["message"]) == (2, f"The order is not valid: {places}.")
    assert "hunter2" not in json.dumps(said)

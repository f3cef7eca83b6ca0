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


def test_study_tries_out_what_is_new_and_says_what_stands(database: Database, folder: Path) -> None:
    """One migration works both ways, the next cannot be applied; what is known is not tried again."""
    status, said = work(order(database, folder))
    offered = said[-1]["study"]["offered"]
    assert (status, [(one["id"], one["applies"]) for one in offered]) == (
        0,
        [("0001_users", True), ("0002_bad", False)],
    )
    first, second = said[-1]["proofs"]
    assert (first["revert"], second["fp_after"]) == ("exact", "")
    status, again = work({**order(database, folder), "proofs": [first, second]})
    assert again[-1]["study"] == said[-1]["study"]
    status, untried = work({**order(database, folder), "tries": False})
    assert all(one["why"].startswith("not tried on this schema") for one in untried[-1]["study"]["offered"])


def test_people_ask_and_say_what_only_they_know(database: Database, folder: Path) -> None:
    """What stands, a schema that somebody has changed, and a doubt that there is none of."""
    assert work(order(database, folder, "0001_users up"))[0] == 0
    _, said = work({**order(database, folder), "action": "look"})
    assert [row["id"] for row in said[-1]["rows"]] == ["0001_users"]
    with closing(database.open()) as session:
        session.rows("CREATE TABLE byhand (id integer)")
    status, said = work(order(database, folder))
    assert (status, "somebody else has changed it" in said[-1]["error"]["message"]) == (2, True)
    _, said = work({**order(database, folder), "action": "adopt", "why": "a report"})
    assert (said[-1]["drifted"], said[-1]["events"][0]["detail"]) == (False, "a report")
    status, said = work(
        {**order(database, folder), "action": "resolve", "id": "0001_users", "finished": True}
    )
    assert (status, said[-1]["error"]["message"]) == (2, "No statement of 0001_users is in doubt.")


def test_worker_ends_with_whoever_gave_the_order(database: Database, folder: Path) -> None:
    """Also while it waits: an order of yesterday is not carried out today."""
    with closing(database.open()):
        process = subprocess.Popen(
            [sys.executable, "-m", "tidegate.migrators.worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        if database.server is None:
            folder = folder.with_name("nowhere")
        line = json.dumps(order(database, folder, "0001_users up")).encode() + b"\n"
        process.communicate(line, timeout=30)
    assert process.returncode in (1, 2)


def test_folder_that_is_not_in_the_package_is_told(database: Database, folder: Path) -> None:
    """And which key of the manifest names it."""
    status, said = work(order(database, folder.with_name("nowhere")))
    assert (status, said[-1]["error"]["message"]) == (2, "The package of r0 has no folder nowhere.")

"""Runners killed at every statement, and racing each other: each script runs exactly once all the same.

Every script leaves a mark in a table without a key, so that running twice would show. `ROUNDS` in the
environment sets how often; the full run has 25.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from tests.integration.migrators.conftest import Database
from tests.support.migrations import NO_TRANSACTION, write
from tidegate.clock import SystemClock
from tidegate.core.ledgers import RowState
from tidegate.migrators.runner import Runner

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.uncounted, pytest.mark.timeout(600)]

ROUNDS: Final = int(os.environ.get("ROUNDS", "2"))
RACING: Final = 4
#: A killed runner's lock goes when the server notices; a round has to end all the same.
ROUND_S: Final = 60.0


#: Takes some hundredths of a second on every engine, so that there is time to be killed in.
SLOW: Final = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50000) SELECT count(*) FROM n"
)


def script(*statements: str) -> str:
    """With time between them."""
    return "".join(f"{statement};\n{SLOW};\n" for statement in statements)


def mark(what: str) -> str:
    return f"INSERT INTO marks VALUES ('{what}')"  # noqa: S608 - what the tests made up


def step(number: int, *, stepwise: bool) -> tuple[str, str, str]:
    """Several statements, each of which would show if it ran twice or not at all."""
    head, table = NO_TRANSACTION if stepwise else "", f"t{number}"
    columns = [f"ALTER TABLE {table} ADD COLUMN {name} integer" for name in "abc"]
    up = script(f"CREATE TABLE {table} (x integer)", mark(f"up {number}"), *columns, mark(f"end {number}"))
    return f"step{number}", head + up, head + script(mark(f"down {number}"), f"DROP TABLE {table}")


def concurrent(number: int) -> tuple[str, str, str]:
    """What PostgreSQL runs outside of transactions only."""
    up = script(
        f"CREATE INDEX CONCURRENTLY i{number} ON marks (what)",
        mark(f"up {number}"),
        f"CREATE INDEX CONCURRENTLY j{number} ON marks (what, what)",
        f"DROP INDEX CONCURRENTLY j{number}",
    )
    down = script(f"DROP INDEX CONCURRENTLY i{number}", mark(f"down {number}"))
    return f"index{number}", NO_TRANSACTION + up, NO_TRANSACTION + down


def folder_of(database: Database, tmp_path: Path) -> Path:
    migrations = [("marks", "CREATE TABLE marks (what text);", "DROP TABLE marks;")]
    migrations += [step(number, stepwise=number % 2 == 0) for number in range(2, 6)]
    if database.server is not None:
        migrations.append(concurrent(6))
    return write(tmp_path / "m", *migrations)


def start(order: dict[str, object]) -> subprocess.Popen[bytes]:
    """A runner, with its order."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tidegate.migrators.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(order).encode() + b"\n")
    process.stdin.flush()  # and left open: it would end with whoever gave the order
    return process


def race(
    orders: dict[str, object], rng: random.Random, harm: Callable[[subprocess.Popen[bytes]], None]
) -> int:
    """Four runners with the same order, harmed at random until one of them ends well. How often."""
    running = [start(orders) for _ in range(RACING)]
    harmed = 0
    deadline = time.monotonic() + ROUND_S
    try:
        while True:
            time.sleep(rng.uniform(0.02, 0.4))
            assert time.monotonic() < deadline, "no runner has come to its end"
            for at, process in enumerate(running):
                status = process.poll()
                if status == 0:
                    return harmed
                if status is not None:
                    process.communicate()
                    running[at] = start(orders)
            # At last one is let through: harm would go on for ever otherwise.
            if time.monotonic() < deadline - ROUND_S / 2 and rng.random() < 0.8:
                harm(rng.choice(running))
                harmed += 1
    finally:
        for process in running:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("round_", range(ROUNDS))
def test_every_script_runs_once_whoever_is_killed(database: Database, tmp_path: Path, round_: int) -> None:
    """Kill -9 of runners, and of their connections: all up, all down again, ledger and schema agree."""
    rng = random.Random(round_)
    folder = folder_of(database, tmp_path)
    ids = sorted(path.name.removesuffix(".up.sql") for path in folder.glob("*.up.sql"))

    def harm(process: subprocess.Popen[bytes]) -> None:
        if database.server is not None and rng.random() < 0.5:
            with database.server.connect("postgres") as other:
                other.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name = 'tidegate migrations'"
                )
            return
        process.kill()

    def order(direction: str, names: list[str]) -> dict[str, object]:
        steps = [{"id": name, "direction": direction} for name in names]
        named = {"app": "shop", "environment": "test", "folder": str(folder)}
        return {"url": database.url, **named, "steps": steps, "runner_wait_s": 5.0}

    harmed = race(order("up", ids), rng, harm)
    assert marks(database) == expected(ids, "up", "end")
    harmed += race(order("down", ids[:0:-1]), rng, harm)
    assert marks(database) == sorted([*expected(ids, "up", "end"), *expected(ids, "down")])
    with closing(database.open(wait_s=20.0)) as session:
        runner = Runner(
            session=session, app="shop", environment="test", clock=SystemClock(), jitter=rng.random
        )
        standing = runner.open()
        assert [(row.id, row.state) for row in standing.applied] == [(ids[0], RowState.APPLIED)]
        assert not standing.drifted
        told = [(event.id, event.what) for event in runner.events(1000) if event.what != "failed"]
    wanted = [(name, "applied") for name in ids] + [(name, "reverted") for name in ids[1:]]
    assert sorted(told) == sorted(wanted)
    assert harmed > 0


def expected(ids: list[str], *what: str) -> list[str]:
    """One mark of each script that leaves one."""
    found = []
    for name in ids[1:]:
        number = int(name.partition("_")[0])
        found += [f"{one} {number}" for one in what if not ("index" in name and one == "end")]
    return sorted(found)


def marks(database: Database) -> list[str]:
    """What the scripts have left."""
    with closing(database.open(wait_s=20.0)) as session:
        return sorted(str(what) for (what,) in session.rows("SELECT what FROM marks"))

"""Releases with their database: forward by canary, and back, with users who read and write all the time."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support import database_app, postgres, sample
from tests.support.database_app import Version
from tests.support.tide import App, Done, Tide, wait_for
from tests.support.users import Users

pytestmark = [pytest.mark.real, pytest.mark.slow]

KEYS = {"sqlite": "INTEGER PRIMARY KEY", "postgresql": "serial PRIMARY KEY"}


def history(engine: str) -> tuple[Version, ...]:
    """Five releases whose migrations expand, contract and break."""
    made = f"CREATE TABLE users (id {KEYS[engine]}, name text);"
    return (
        Version(
            statements=("INSERT INTO users (name) VALUES ('ada')", "SELECT name FROM users WHERE id = 1"),
            migrations=(("0001_users", made, "DROP TABLE users;"),),
        ),
        Version(
            statements=(
                "INSERT INTO users (name, email) VALUES ('ada', 'a@example.com')",
                "SELECT name, email FROM users WHERE id = 1",
            ),
            migrations=(added("0002_email", "email"),),
        ),
        Version(
            statements=(
                "INSERT INTO users (name, full_name) VALUES ('ada', 'Ada Lovelace')",
                "SELECT name, full_name FROM users WHERE id = 1",
            ),
            migrations=(added("0003_full_name", "full_name"),),
        ),
        Version(
            statements=(
                "INSERT INTO users (full_name) VALUES ('Ada Lovelace')",
                "SELECT full_name FROM users WHERE id = 1",
            ),
            migrations=(renamed("0004_trash_name", "contract", "name", "_trash_0004_name"),),
        ),
        Version(
            statements=(
                "INSERT INTO users (display_name) VALUES ('Ada')",
                "SELECT display_name FROM users WHERE id = 1",
            ),
            migrations=(renamed("0005_display_name", "breaking", "full_name", "display_name"),),
        ),
    )


def added(id_: str, column: str) -> tuple[str, str, str]:
    """A migration with one more column."""
    return id_, f"ALTER TABLE users ADD COLUMN {column} text;", f"ALTER TABLE users DROP COLUMN {column};"


def renamed(id_: str, phase: str, old: str, new: str) -> tuple[str, str, str]:
    """A migration that gives a column another name, and says of what phase that is."""
    up = f"-- phase: {phase}\nALTER TABLE users RENAME COLUMN {old} TO {new};"
    return id_, up, f"ALTER TABLE users RENAME COLUMN {new} TO {old};"


@dataclass(frozen=True, slots=True)
class Shop:
    """The app, and a way to look into its database."""

    app: App
    rows: Callable[[str], list[tuple[Any, ...]]]
    write: Callable[[str], None]
    engine: str

    def release(self, number: int, *words: object) -> None:
        """Deploy this version of the history."""
        database_app.write(self.app.folder / "dist", history(self.engine)[:number])
        self.app.ok("deploy", *words)

    def try_release(self, *migrations: tuple[str, str, str], words: tuple[str, ...] = ()) -> Done:
        """Deploy the first version with these migrations beside its own, however it ends."""
        first = history(self.engine)[0]
        more = Version(statements=first.statements, migrations=migrations)
        database_app.write(self.app.folder / "dist", (first, more))
        return self.app.run("deploy", *words)

    def columns(self) -> list[str]:
        """Of the table, sorted."""
        asked = {
            "sqlite": "SELECT name FROM pragma_table_info('users')",
            "postgresql": "SELECT column_name FROM information_schema.columns WHERE table_name = 'users'",
        }
        return sorted(str(name) for (name,) in self.rows(asked[self.engine]))

    def settled(self, *columns: str) -> None:
        """Until the schema is so."""
        wait_for(lambda: self.columns() == sorted(columns), seconds=30, why=self.app.tide.log)


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    made = postgres.Server()
    yield made
    made.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def shop(request: pytest.FixtureRequest, idle: Tide, server: postgres.Server) -> Shop:
    """One environment, whose database is of each engine in turn."""
    engine: str = request.param
    if engine == "sqlite":
        file = idle.root / "data" / "shop.db"
        file.parent.mkdir()
        url = f"sqlite:///{file}"

        def rows(query: str) -> list[tuple[Any, ...]]:
            with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
                return connection.execute(query).fetchall()

        def write(statement: str) -> None:
            with closing(sqlite3.connect(file, isolation_level=None, timeout=20)) as connection:
                connection.execute(statement)
    else:
        name = server.database()
        url = server.url(name)

        def rows(query: str) -> list[tuple[Any, ...]]:
            with server.connect(name) as connection:
                return connection.execute(query.encode()).fetchall()

        def write(statement: str) -> None:
            with server.connect(name) as connection:
                connection.execute(statement.encode())

    idle.ok("up", "--run-as", "same")
    app = idle.app(
        "shop",
        migrations={"path": "migrations/", "contract_after": "1s"},
        services={"web": sample.service("web", run=f"{sys.executable} app.py", route="*", instances=2)},
        environments={
            "production": {
                "strategy": sample.canary("50%", every="1s"),
                "keep_warm": "1s",
                "analysis": "off",
                "config": {"DATABASE_URL": url},
            }
        },
    )
    return Shop(app, rows, write, engine)


def test_five_releases_forth_and_back_and_forth(shop: Shop) -> None:
    """Every phase, under load: nobody fails, the schema is right at each stop, and no row is lost."""
    app = shop.app
    shop.release(1)
    with Users(app.tide.port, count=12) as users:
        wait_for(lambda: users.asked)
        shop.release(2)
        shop.release(3)
        shop.release(4)
        shop.settled("id", "email", "full_name", "_trash_0004_name")
        shop.release(5)
        shop.settled("id", "email", "display_name", "_trash_0004_name")
        (before,) = shop.rows("SELECT count(*) FROM users")[0]
        app.ok("rollback", "--to", "r1")
        shop.settled("id", "email", "full_name", "name")
        app.ok("deploy", "--release", "r4")
        shop.settled("id", "email", "full_name", "_trash_0004_name")
        wait_for(lambda: users.asked[-1].release == "r4")
    assert not users.failures, users.summary()
    (after,) = shop.rows("SELECT count(*) FROM users")[0]
    assert after > before > 0
    told = [event["reason"] for event in app.events()]
    assert told.count("requests-held") == 2


def test_what_has_no_way_back_is_found_before_it_runs_and_named(shop: Shop) -> None:
    """A revert that does nothing, one that fails, one that loses rows; agreed to, it goes."""
    shop.release(1)
    lies = shop.try_release(("0002_a", "ALTER TABLE users ADD COLUMN a text;", "SELECT 1;"))
    assert (lies.status, "0002_a (fake: the revert does nothing" in lies.err) == (1, True)
    fails = shop.try_release(("0002_a", "ALTER TABLE users ADD COLUMN a text;", "DROP TABLE nothing;"))
    assert "0002_a (broken: the revert fails" in fails.err
    drop = ("0002_drop", "DELETE FROM users;", "SELECT 1;")
    loses = shop.try_release(drop)
    assert "0002_drop (" in loses.err
    assert "tide deploy --accept-irreversible 0002_drop" in loses.err
    assert shop.columns() == ["id", "name"]
    assert shop.app.look()["live"] == 1
    agreed = shop.try_release(drop, words=("--accept-irreversible", "0002_drop"))
    assert agreed.status == 0, agreed.err
    wait_for(lambda: len(shop.app.look()["placements"]) == 1, seconds=30)
    back = shop.app.run("migrate", "plan", "--release", "r1")
    assert back.status == 0
    assert "stays applied: 0002_drop" in back.out


def test_ledger_is_shown_and_what_others_did_to_the_schema_stops_everything(shop: Shop) -> None:
    """Status, a plan, drift that keeps a release out, and somebody who takes the schema as it is."""
    shop.release(1)
    shown = shop.app.ok("migrate", "status", "--json").json
    assert [(m["id"], m["release"], m["revert"]) for m in shown["applied"]] == [("0001_users", 1, "exact")]
    plan = shop.app.ok("migrate", "plan", "--release", "r1", "--json").json
    assert (plan["way"], plan["refusal"]) == ("flip", "")
    shop.write("ALTER TABLE users ADD COLUMN byhand text")
    drifted = shop.app.run("migrate", "status")
    assert (drifted.status, "somebody else has changed it" in drifted.out) == (1, True)
    refused = shop.try_release(added("0002_email", "email"))
    assert (refused.status, "somebody else has changed it" in refused.err) == (1, True)
    adopted = shop.app.ok("migrate", "adopt", "--why", "a report needs it")
    assert "a report needs it" in adopted.out
    assert shop.try_release(added("0002_email", "email")).status == 0
    unclear = shop.app.run("migrate", "resolve", "0002_email")
    assert (unclear.status, "Say one of" in unclear.err) == (2, True)
    nothing = shop.app.run("migrate", "resolve", "0002_email", "--done")
    assert (nothing.status, "No statement of 0002_email is in doubt" in nothing.err) == (2, True)
    told = [entry["detail"] for entry in shop.app.ok("audit", "--json").json]
    assert "a report needs it" in told


def test_bad_scripts_never_become_a_release(shop: Shop) -> None:
    """All that is wrong at once, with exit status 2, and nothing was sent."""
    done = shop.try_release(
        ("0002_half", "ALTER TABLE users ADD COLUMN a text;", ""), ("0002_two", "BEGIN;", "x;")
    )
    assert done.status == 2
    assert "0002_half.down.sql: has no statement" in done.err
    assert "0002_two.up.sql: line 1: BEGIN begins or ends a transaction" in done.err
    assert "0002_two: has the number of 0002_half" in done.err
    assert shop.app.run("releases", "--json").json == []


def test_what_is_agreed_to_goes_through_the_whole_pipeline(idle: Tide) -> None:
    """Said once, it counts in each environment, and the audit log has it; what is no id is refused."""
    idle.ok("up", "--run-as", "same")
    folder = idle.root / "data"
    folder.mkdir()
    web = sample.service("web", run=f"{sys.executable} app.py")
    app = idle.app(
        "shop",
        migrations="migrations/",
        services={"web": web},
        environments={
            name: {
                "strategy": "switch",
                "config": {"DATABASE_URL": f"sqlite:///{folder / name}.db"},
                "services": {"web": {"route": f"{name}.test"}},
            }
            for name in ("test", "production")
        },
    )
    versions = history("sqlite")[:1]
    database_app.write(app.folder / "dist", versions)
    app.ok("deploy")
    drop = Version(
        statements=versions[0].statements, migrations=(("0002_drop", "DELETE FROM users;", "SELECT 1;"),)
    )
    database_app.write(app.folder / "dist", (*versions, drop))
    nonsense = app.run("deploy", "--release", "r1", "--accept-irreversible", "drop it")
    assert nonsense.status == 2
    app.ok("deploy", "--accept-irreversible", "0002_drop")
    for name in ("test", "production"):
        shown = app.ok("migrate", "status", name, "--json").json
        assert [m["id"] for m in shown["applied"]] == ["0001_users", "0002_drop"]
    emergency = ("--emergency", "checkout is down", "--accept-irreversible", "0002_drop")
    app.run("deploy", "--release", "r2", *emergency)
    app.run("rollback", "test", "--no-wait", "--accept-loss", "0002_drop", "--accept-loss", "0003_x")
    told = {(entry["action"], entry["detail"]) for entry in app.ok("audit", "--json").json}
    assert told >= {
        ("deploy", "agreed to 0002_drop"),
        ("deploy", "checkout is down; agreed to 0002_drop"),
        ("rollback", "agreed to 0002_drop, 0003_x"),
    }

"""Releases with their database: forward by canary, and back, with users who read and write all the time."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support import database_app, postgres, sample
from tests.support.database_app import Version
from tests.support.tide import App, Tide, wait_for
from tests.support.users import Users

pytestmark = [pytest.mark.real, pytest.mark.slow]

KEYS = {"sqlite": "INTEGER PRIMARY KEY", "postgresql": "serial PRIMARY KEY"}


def history(engine: str) -> tuple[Version, ...]:
    """Five releases whose migrations expand, contract and break."""
    return (
        Version(
            statements=("INSERT INTO users (name) VALUES ('ada')", "SELECT name FROM users WHERE id = 1"),
            migrations=(
                (
                    "0001_users",
                    f"CREATE TABLE users (id {KEYS[engine]}, name text);",
                    "DROP TABLE users;",
                ),
            ),
        ),
        Version(
            statements=(
                "INSERT INTO users (name, email) VALUES ('ada', 'a@example.com')",
                "SELECT name, email FROM users WHERE id = 1",
            ),
            migrations=(
                (
                    "0002_email",
                    "ALTER TABLE users ADD COLUMN email text;",
                    "ALTER TABLE users DROP COLUMN email;",
                ),
            ),
        ),
        Version(
            statements=(
                "INSERT INTO users (name, full_name) VALUES ('ada', 'Ada Lovelace')",
                "SELECT name, full_name FROM users WHERE id = 1",
            ),
            migrations=(
                (
                    "0003_full_name",
                    "ALTER TABLE users ADD COLUMN full_name text;",
                    "ALTER TABLE users DROP COLUMN full_name;",
                ),
            ),
        ),
        Version(
            statements=(
                "INSERT INTO users (full_name) VALUES ('Ada Lovelace')",
                "SELECT full_name FROM users WHERE id = 1",
            ),
            migrations=(
                (
                    "0004_trash_name",
                    "-- phase: contract\nALTER TABLE users RENAME COLUMN name TO _trash_0004_name;",
                    "ALTER TABLE users RENAME COLUMN _trash_0004_name TO name;",
                ),
            ),
        ),
        Version(
            statements=(
                "INSERT INTO users (display_name) VALUES ('Ada')",
                "SELECT display_name FROM users WHERE id = 1",
            ),
            migrations=(
                (
                    "0005_display_name",
                    "-- phase: breaking\nALTER TABLE users RENAME COLUMN full_name TO display_name;",
                    "ALTER TABLE users RENAME COLUMN display_name TO full_name;",
                ),
            ),
        ),
    )


@dataclass(frozen=True, slots=True)
class Shop:
    """The app, and a way to look into its database."""

    app: App
    rows: Callable[[str], list[tuple[Any, ...]]]
    engine: str

    def release(self, number: int, *words: object) -> None:
        """Deploy this version of the history."""
        database_app.write(self.app.folder / "dist", history(self.engine)[:number])
        self.app.ok("deploy", *words)

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
            with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as connection:
                return connection.execute(query).fetchall()
    else:
        name = server.database()
        url = server.url(name)

        def rows(query: str) -> list[tuple[Any, ...]]:
            with server.connect(name) as connection:
                return connection.execute(query.encode()).fetchall()

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
    return Shop(app, rows, engine)


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

"""The catalog of a real SQLite database: equal for equal schemas, and each difference named and judged."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing

import pytest

from tidegate.core import catalogs
from tidegate.core.catalogs import Catalog
from tidegate.core.migrations import MigrationPhase
from tidegate.migrators import sqlite_catalog

BASE = """
CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL, age int DEFAULT 0, UNIQUE (name));
CREATE TABLE orders (
  id INTEGER PRIMARY KEY,
  "user" INTEGER REFERENCES users (id) ON DELETE CASCADE,
  state TEXT DEFAULT 'new;' CHECK (state IN ('new;', 'paid')),
  total NUMERIC(10, 2) NOT NULL DEFAULT 0,
  CONSTRAINT positive CHECK (total >= 0)
);
CREATE INDEX orders_of ON orders ("user");
CREATE VIEW grown AS SELECT id, name FROM users WHERE age > 17;
CREATE TRIGGER paid AFTER UPDATE ON orders BEGIN UPDATE users SET name = name; END;
"""


GROWN, PAID = BASE.strip().splitlines()[-2:]


def rebuilt(columns: str) -> str:
    """The script that gives the table of users other columns, as SQLite's manual advises."""
    return (
        f"DROP VIEW grown; DROP TRIGGER paid; CREATE TABLE n ({columns});"
        f"DROP TABLE users; ALTER TABLE n RENAME TO users; {GROWN} {PAID}"
    )


@pytest.fixture
def database() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        connection.executescript(BASE)
        yield connection


def after(database: sqlite3.Connection, sql: str) -> tuple[Catalog, Catalog]:
    """The catalog before and after a script."""
    before = sqlite_catalog.read(database)
    database.executescript(sql)
    return before, sqlite_catalog.read(database)


SAME = {
    "added and dropped again": "ALTER TABLE users ADD COLUMN x text; ALTER TABLE users DROP COLUMN x",
    "renamed there and back": 'ALTER TABLE users RENAME age TO old; ALTER TABLE users RENAME old TO "age"',
    "rebuilt in another spelling": rebuilt(
        """
        "id" integer primary key, -- the number
        `name` text not null, Age INT default 0,
        unique(name)
        """
    ),
    "made again in another spelling": """
        DROP VIEW grown;
        CREATE VIEW grown AS  select "id", name /* of each */ FROM users
          WHERE age>17;
    """,
    "index made again": "DROP INDEX orders_of; CREATE INDEX orders_of ON orders(user)",
    "rows": "INSERT INTO users (name) VALUES ('a'); ANALYZE",
    "the ledger": "CREATE TABLE _tidegate_migrations (id TEXT); CREATE INDEX _i ON _tidegate_migrations (id)",
}


@pytest.mark.parametrize("sql", SAME.values(), ids=SAME.keys())
def test_equal_schemas_have_one_fingerprint(database: sqlite3.Connection, sql: str) -> None:
    """However they came about, and however they are spelled."""
    before, now = after(database, sql)
    assert catalogs.changes(before, now) == ()
    assert before.fingerprint == now.fingerprint
    assert catalogs.reordered(before, now) == ()


EXPANDS = {
    "table": ("CREATE TABLE x (id int NOT NULL, CHECK (id > 0))", "column x.id is new"),
    "column": ("ALTER TABLE users ADD COLUMN x text", "column users.x is new"),
    "column with a default": (
        "ALTER TABLE users ADD COLUMN x int NOT NULL DEFAULT 1",
        "column users.x is new",
    ),
    "generated": ("ALTER TABLE users ADD COLUMN x int NOT NULL AS (age + 1)", "column users.x is new"),
    "index": ("CREATE INDEX x ON users (age)", "index users.x is new"),
    "index gone": ("DROP INDEX orders_of", "index orders.orders_of is gone"),
    "index on an expression": ("CREATE INDEX x ON users (lower(name) DESC)", "index users.x is new"),
    "view": ("CREATE VIEW x AS SELECT 1 AS one", "view x is new"),
    "trigger": ("CREATE TRIGGER x AFTER DELETE ON users BEGIN SELECT 1; END", "trigger users.x is new"),
}
CONTRACTS = {
    "table gone": ("DROP TABLE orders", "table orders is gone"),
    "column gone": ("DROP VIEW grown; ALTER TABLE users DROP COLUMN age", "column users.age is gone"),
    "view gone": ("DROP VIEW grown", "view grown is gone"),
    "trigger gone": ("DROP TRIGGER paid", "trigger orders.paid is gone"),
    "trigger changed": (
        "DROP TRIGGER paid; CREATE TRIGGER paid AFTER UPDATE ON orders BEGIN SELECT 1; END",
        "trigger orders.paid: definition was ",
    ),
    "unique": ("CREATE UNIQUE INDEX x ON users (age)", "index users.x is new"),
    "another unique": (
        "DROP INDEX orders_of; CREATE UNIQUE INDEX orders_of ON orders (user)",
        "index orders.orders_of: definition was ",
    ),
    "unique gone": (
        rebuilt("id INTEGER PRIMARY KEY, name TEXT NOT NULL, age int DEFAULT 0"),
        "constraint users.unique (name binary) is gone",
    ),
    "not null": (
        rebuilt("id INTEGER PRIMARY KEY, name TEXT NOT NULL, age int NOT NULL DEFAULT 0, UNIQUE (name)"),
        "null was yes, is no",
    ),
    "default gone": (
        rebuilt("id INTEGER PRIMARY KEY, name TEXT NOT NULL, age int, UNIQUE (name)"),
        "default was 0, is nothing",
    ),
    "check of a column": (
        rebuilt(
            "id INTEGER PRIMARY KEY, name TEXT NOT NULL, age int DEFAULT 0 CHECK (age < 150), UNIQUE (name)"
        ),
        "column users.age: definition was age int default 0, is age int default 0 check ( age < 150 )",
    ),
    "check of a table": (
        rebuilt(
            "id INTEGER PRIMARY KEY, name TEXT NOT NULL, age int DEFAULT 0, UNIQUE (name), CHECK (id > 0)"
        ),
        "constraint users.check ( id > 0 ) is new",
    ),
}
BREAKING = {
    "column renamed": ("ALTER TABLE orders RENAME COLUMN total TO amount", "column orders.total is gone"),
    "table renamed": ("ALTER TABLE orders RENAME TO purchases", "table orders is gone"),
    "type": (
        rebuilt("id INTEGER PRIMARY KEY, name TEXT NOT NULL, age text DEFAULT 0, UNIQUE (name)"),
        "type was int, is text",
    ),
    "required": (
        rebuilt(
            "id INTEGER PRIMARY KEY, name TEXT NOT NULL, age int DEFAULT 0, x int NOT NULL, UNIQUE (name)"
        ),
        "column users.x is new",
    ),
}
CASES = [
    pytest.param(phase, sql, told, id=f"{phase}: {name}")
    for phase, cases in (
        (MigrationPhase.EXPAND, EXPANDS),
        (MigrationPhase.CONTRACT, CONTRACTS),
        (MigrationPhase.BREAKING, BREAKING),
    )
    for name, (sql, told) in cases.items()
]


@pytest.mark.parametrize(("phase", "sql", "told"), CASES)
def test_difference_is_named_and_has_its_phase(
    database: sqlite3.Connection, phase: MigrationPhase, sql: str, told: str
) -> None:
    """What a migration did decides, not what it says."""
    before, now = after(database, sql)
    assert before.fingerprint != now.fingerprint
    assert told in "\n".join(map(str, catalogs.changes(before, now)))
    found = catalogs.findings(before, now)
    assert catalogs.phase(before, now) is phase, [str(one) for one in found]
    assert bool(found) is (phase is not MigrationPhase.EXPAND)
    assert all(str(one).startswith(one.subject) for one in found)


def test_order_of_columns_is_told_apart_from_the_schema(database: sqlite3.Connection) -> None:
    """After a drop and an add it never comes back."""
    before, now = after(
        database,
        rebuilt("id INTEGER PRIMARY KEY, age int DEFAULT 0, name TEXT NOT NULL, UNIQUE (name)"),
    )
    assert before.fingerprint == now.fingerprint
    assert catalogs.reordered(before, now) == ("users",)


def test_changes_of_the_open_transaction_are_seen(database: sqlite3.Connection) -> None:
    """So that a script is judged before it is committed."""
    before = sqlite_catalog.read(database)
    database.execute("BEGIN")
    database.execute("ALTER TABLE users ADD COLUMN x text")
    assert sqlite_catalog.read(database).fingerprint != before.fingerprint
    database.execute("ROLLBACK")
    assert sqlite_catalog.read(database).fingerprint == before.fingerprint

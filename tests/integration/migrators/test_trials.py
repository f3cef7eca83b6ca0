"""Migrations tried out on copies of real databases: what their authors did not notice is found, and named."""

from __future__ import annotations

import os
import random
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.migrators.conftest import POSTGRES, Database
from tests.support.migrations import NO_TRANSACTION, made
from tidegate import errors
from tidegate.clock import SystemClock
from tidegate.core.migrations import MigrationPhase, Revert
from tidegate.migrators.session import Limits, Session
from tidegate.migrators.trials import Tried, tried

pytestmark = pytest.mark.real

BASE = (
    "CREATE TABLE users (id integer PRIMARY KEY, name text NOT NULL, age integer)",
    "CREATE TABLE orders (id integer PRIMARY KEY, buyer integer REFERENCES users (id), total numeric(10, 2))",
    "INSERT INTO users VALUES (1, 'real', 42)",
)


@pytest.fixture(autouse=True)
def _pg_dump(monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the server, as a machine with migrations has it."""
    monkeypatch.setenv("PATH", f"{POSTGRES[0]}:{os.environ['PATH']}")


def prepared(session: Session, *statements: str) -> None:
    with session.transaction(Limits()):
        for statement in statements:
            session.run(statement)


def on(database: Database, folder: Path, *migrations: tuple[str, ...]) -> tuple[Tried, ...]:
    """Tried out on a copy of the base; what the original has afterwards is what it had before."""
    with closing(database.open()) as session:
        prepared(session, *BASE)
        before = session.catalog(), session.contents()
        found = tried(
            session, database.url, made(folder / "m", *migrations), SystemClock(), random.Random(1).random
        )
        assert (session.catalog(), session.contents()) == before
    return found


CASES: dict[str, tuple[str, str, MigrationPhase, Revert, str]] = {
    "good": (
        "ALTER TABLE users ADD COLUMN email text;",
        "ALTER TABLE users DROP COLUMN email;",
        MigrationPhase.EXPAND,
        Revert.EXACT,
        "",
    ),
    "revert that does nothing": (
        "ALTER TABLE users ADD COLUMN email text;",
        "SELECT 1;",
        MigrationPhase.EXPAND,
        Revert.FAKE,
        "the revert does nothing: column users.email is new",
    ),
    "revert that forgets the index": (
        "CREATE TABLE log (at text); CREATE INDEX by_age ON users (age);",
        "DROP TABLE log;",
        MigrationPhase.EXPAND,
        Revert.FAKE,
        "the revert leaves something behind: index users.by_age is new",
    ),
    "rows are lost": (
        "ALTER TABLE users DROP COLUMN age;",
        "ALTER TABLE users ADD COLUMN age integer;",
        MigrationPhase.CONTRACT,
        Revert.LOSSY,
        "users has other values in age",
    ),
    "rows are deleted": (
        "DELETE FROM orders WHERE id = 1;",
        "UPDATE orders SET total = total;",
        MigrationPhase.EXPAND,
        Revert.FAKE,
        "the revert does nothing: orders has 2 rows, had 3",
    ),
    "revert that fails": (
        "ALTER TABLE users ADD COLUMN email text;",
        "ALTER TABLE users DROP COLUMN mail;",
        MigrationPhase.EXPAND,
        Revert.BROKEN,
        "the revert fails: ",
    ),
    "rows fill the column and nothing is lost": (
        "ALTER TABLE users ADD COLUMN upper text; UPDATE users SET upper = upper(name);",
        "ALTER TABLE users DROP COLUMN upper;",
        MigrationPhase.EXPAND,
        Revert.EXACT,
        "",
    ),
    "renamed": (
        "ALTER TABLE users RENAME COLUMN age TO years;",
        "ALTER TABLE users RENAME COLUMN years TO age;",
        MigrationPhase.BREAKING,
        Revert.EXACT,
        "",
    ),
    "no way back": (
        "DROP TABLE orders;",
        "orders are elsewhere now",
        MigrationPhase.CONTRACT,
        Revert.NONE,
        "orders are elsewhere now",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_way_back_is_tried_and_named(database: Database, tmp_path: Path, case: str) -> None:
    """By what became of the schema and of rows in every table, on a copy."""
    up, down, phase, revert, why = CASES[case]
    (found,) = on(database, tmp_path, ("it", up, down))
    result = found.result
    assert (result.applies, result.phase, result.revert, found.empty) == (True, phase, revert, ())
    assert result.why.startswith(why) if why.endswith(" ") else why in result.why
    assert bool(why) == bool(result.why)
    assert (found.fp_before == found.fp_after) == (up.startswith("DELETE"))


def test_migrations_after_a_bad_one_are_tried_too(database: Database, tmp_path: Path) -> None:
    """On a copy where the bad one is applied, as they will find it; after one that fails no more."""
    found = on(
        database,
        tmp_path,
        ("fake", "ALTER TABLE users ADD COLUMN a text;", "SELECT 1;"),
        ("good", "ALTER TABLE users ADD COLUMN b text;", "ALTER TABLE users DROP COLUMN b;"),
        ("broken", "ALTER TABLE users DROP COLUMN a;", "ALTER TABLE users ADD COLUMN b text;"),
        ("uses", "CREATE INDEX i ON users (b);", "DROP INDEX i;"),
        ("fails", "CREATE INDEX i ON users (a);", "DROP INDEX i;"),
        ("never", "DROP TABLE users;", "gone"),
    )
    assert [(one.id, one.result.revert) for one in found] == [
        ("0001_fake", Revert.FAKE),
        ("0002_good", Revert.EXACT),
        ("0003_broken", Revert.BROKEN),
        ("0004_uses", Revert.EXACT),
        ("0005_fails", Revert.BROKEN),
    ]
    assert [one.fp_after for one in found[:4]] == [one.fp_before for one in found[1:]]
    assert found[4].result.why.startswith("it cannot be applied: 0005_fails, line 1: ")
    assert (found[4].result.applies, found[4].fp_after) == (False, "")


def test_what_fails_on_nulls_is_told_and_tried_without(pg: Database, tmp_path: Path) -> None:
    """Whether there are any in production nobody knows here."""
    strict = (
        "strict",
        "ALTER TABLE users ALTER age SET NOT NULL;",
        "ALTER TABLE users ALTER age DROP NOT NULL;",
    )
    (found,) = on(pg, tmp_path, strict)
    assert (found.result.applies, found.result.revert) == (True, Revert.EXACT)
    assert "contains null values" in found.refuses_nulls


def test_backfill_before_not_null_loses_the_nulls(pg: Database, tmp_path: Path) -> None:
    """They are zeros when the revert allows them again."""
    up = "UPDATE users SET age = 0 WHERE age IS NULL; ALTER TABLE users ALTER age SET NOT NULL;"
    (found,) = on(pg, tmp_path, ("strict", up, "ALTER TABLE users ALTER age DROP NOT NULL;"))
    assert (found.result.revert, found.result.why) == (
        Revert.LOSSY,
        "rows are not as before: users has other values in age",
    )


def test_label_that_is_left_behind_is_named(pg: Database, tmp_path: Path) -> None:
    """PostgreSQL has no way to take it back, and a second up would fail."""
    found = on(
        pg,
        tmp_path,
        ("mood", "CREATE TYPE mood AS ENUM ('sad');", "DROP TYPE mood;"),
        ("happy", "ALTER TYPE mood ADD VALUE 'happy';", "SELECT 'cannot be dropped';"),
    )
    assert [one.result.revert for one in found] == [Revert.EXACT, Revert.FAKE]
    assert found[1].result.why == "the revert does nothing: label mood.happy is new"


def test_trigger_that_writes_during_the_revert_is_found(pg: Database, tmp_path: Path) -> None:
    """The revert brings a column back from where it was kept, and the app's own trigger does more."""
    table = """
        CREATE TABLE notes (id integer PRIMARY KEY, note text, changed text);
        CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS
            'BEGIN NEW.changed = ''now''; RETURN NEW; END';
        CREATE TRIGGER touch BEFORE UPDATE ON notes FOR EACH ROW EXECUTE FUNCTION touch();
    """
    away = """
        CREATE TABLE trash AS SELECT id, note FROM notes;
        ALTER TABLE notes DROP COLUMN note;
    """
    back = """
        ALTER TABLE notes ADD COLUMN note text;
        UPDATE notes SET note = trash.note FROM trash WHERE trash.id = notes.id;
        DROP TABLE trash;
    """
    drop = "DROP TABLE notes; DROP FUNCTION touch();"
    found = on(pg, tmp_path, ("notes", table, drop), ("trash", away, back))
    assert (found[1].result.revert, found[1].result.why) == (
        Revert.LOSSY,
        "rows are not as before: notes has other values in changed",
    )


def test_concurrent_index_is_tried_as_it_will_run(pg: Database, tmp_path: Path) -> None:
    """Outside of a transaction."""
    index = (
        "index",
        f"{NO_TRANSACTION}CREATE INDEX CONCURRENTLY i ON users (name);",
        f"{NO_TRANSACTION}DROP INDEX CONCURRENTLY i;",
    )
    (found,) = on(pg, tmp_path, index)
    assert found.result.revert is Revert.EXACT


def test_rows_of_every_type_are_made(pg: Database, tmp_path: Path) -> None:
    """And where the constraints want more than that, the table is named."""
    types = """
        smallint; bigint; numeric(8, 2); real; double precision; boolean; varchar(5); char(3); bytea; date;
        timestamp; timestamptz; time; timetz; interval; uuid; json; jsonb; inet; macaddr; point; integer[];
        int4range; bit(1); tsvector; mood; positive
    """
    columns = ", ".join(f"c{n} {one.strip()} NOT NULL" for n, one in enumerate(types.split(";")))
    with closing(pg.open()) as session:
        prepared(
            session,
            "CREATE TYPE mood AS ENUM ('it''s sad', 'ok')",
            "CREATE DOMAIN positive AS integer CHECK (VALUE > 0)",
            f"CREATE TABLE many (id bigint GENERATED ALWAYS AS IDENTITY, {columns})",
            "CREATE TABLE strict (x integer CHECK (x > 100))",
            "CREATE SCHEMA archive",
            "CREATE TABLE archive.old (x integer)",
            "CREATE TABLE parts (at date NOT NULL) PARTITION BY RANGE (at)",
            "CREATE TABLE parts_2000 PARTITION OF parts FOR VALUES FROM ('2000-01-01') TO ('2001-01-01')",
            "CREATE TABLE nothing ()",
        )
        (found,) = tried(
            session,
            pg.url,
            made(tmp_path / "m", ("it", "CREATE TABLE x (y integer);", "DROP TABLE x;")),
            SystemClock(),
            random.Random(1).random,
        )
    assert [one.partition(":")[0] for one in found.empty] == ["strict stays empty"]
    assert found.result.revert is Revert.EXACT


def test_scratch_database_is_gone_afterwards(pg: Database, tmp_path: Path) -> None:
    """Also when it failed."""
    on(pg, tmp_path, ("bad", "SELECT nothing FROM nowhere;", "try"))
    assert pg.server is not None
    with pg.server.connect("postgres") as connection:
        names = connection.execute(
            "SELECT datname FROM pg_database WHERE datname LIKE 'tidegate%'"
        ).fetchall()
    assert names == []


def test_role_that_may_make_no_database_is_told_which_right_it_needs(pg: Database, tmp_path: Path) -> None:
    """Before anything is tried."""
    assert pg.server is not None
    with pg.server.connect("postgres") as connection:
        connection.execute("CREATE ROLE poor LOGIN")
    url = pg.url.replace("owner@", "poor@")
    poor = Database("postgresql", url, pg.server)
    with closing(poor.open()) as session, pytest.raises(errors.DatabaseError, match="CREATEDB"):
        tried(session, url, made(tmp_path / "m", ("it", "SELECT 1;", "try")), SystemClock(), lambda: 0.5)

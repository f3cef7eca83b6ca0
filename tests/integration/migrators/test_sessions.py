"""What a session promises, on every engine."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.integration.migrators.conftest import Database
from tidegate import errors
from tidegate.clock import SystemClock
from tidegate.core.catalogs import EntryKey, EntryKind
from tidegate.migrators.databases import open_session
from tidegate.migrators.session import Limits, Session

pytestmark = pytest.mark.real
QUICK = Limits(lock_s=0.05)


@pytest.fixture
def session(every: Database) -> Iterator[Session]:
    with closing(every.open()) as found:
        yield found


def run(session: Session, *statements: str) -> None:
    with session.transaction(Limits()):
        for statement in statements:
            session.run(statement)


def test_transaction_is_kept_or_leaves_nothing(session: Session) -> None:
    """An error of the database or of the caller takes back all of it, tables included."""
    run(session, "CREATE TABLE a (x integer)", "INSERT INTO a VALUES (1)")
    with pytest.raises(errors.DatabaseError):
        run(session, "CREATE TABLE b (x integer)", "INSERT INTO nowhere VALUES (1)")

    def distracted() -> None:
        with session.transaction(Limits()):
            session.run("CREATE TABLE c (x integer)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        distracted()
    assert [key.name for key in session.catalog().entries if key.kind is EntryKind.TABLE] == ["a"]
    assert session.rows("SELECT x FROM a WHERE x = :x", {"x": 1}) == [(1,)]


def test_catalog_shows_what_the_open_transaction_did(session: Session) -> None:
    """So that a script and what it has done to the schema are committed together."""
    with session.transaction(Limits()):
        session.run("CREATE TABLE a (x integer)")
        assert EntryKey(EntryKind.TABLE, "", "a") in session.catalog().entries


def test_statement_that_takes_too_long_is_ended(session: Session) -> None:
    """By the limit of the transaction; the next one has its own."""
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(errors.DatabaseError), session.transaction(Limits(statement_s=0.1)):
        session.run(endless)
    run(session, "CREATE TABLE a (x integer)")


def test_statement_that_needs_no_transaction_is_told_from_others(session: Session) -> None:
    """VACUUM runs alone; a mistake is a mistake in both ways."""
    with pytest.raises(errors.DatabaseError) as refused, session.transaction(Limits()):
        session.run("VACUUM")
    assert session.needs_none(refused.value)
    session.run_alone("VACUUM", Limits())
    with pytest.raises(errors.DatabaseError) as wrong, session.transaction(Limits()):
        session.run("VACUUUM")
    assert not session.needs_none(wrong.value)
    with pytest.raises(errors.DatabaseError):
        session.run_alone("VACUUUM", Limits())


@contextmanager
def busy(database: Database) -> Iterator[None]:
    """Somebody else is in the middle of a change of the table `a`."""
    if database.server is None:
        with closing(sqlite3.connect(database.url.removeprefix("sqlite:///"), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            yield
        return
    name = database.url.rpartition("@/")[2].partition("?")[0]
    with database.server.connect(name) as connection, connection.transaction():
        connection.execute("LOCK TABLE a")
        yield


def test_lock_that_is_not_to_be_had_is_told_from_mistakes(every: Database, session: Session) -> None:
    """Soon, and with nothing done: who runs the script tries again."""
    run(session, "CREATE TABLE a (x integer)")
    with busy(every), pytest.raises(errors.BusyDatabaseError), session.transaction(QUICK):
        session.run("ALTER TABLE a ADD COLUMN y integer")
    run(session, "ALTER TABLE a ADD COLUMN y integer")


def test_contents_do_not_depend_on_the_order_of_rows_or_columns(session: Session) -> None:
    """Equal rows in columns of equal names are equal; one other value shows, and in which column."""
    run(session, "CREATE TABLE a (x integer, y text)", "INSERT INTO a VALUES (1, 'one'), (2, NULL)")
    before = session.contents()["a"]
    run(
        session,
        "DROP TABLE a",
        "CREATE TABLE a (y text, x integer)",
        "INSERT INTO a VALUES (NULL, 2), ('one', 1)",
    )
    again = session.contents()["a"]
    assert (again.count, again.digest, dict(again.columns)) == (2, before.digest, dict(before.columns))
    run(session, "UPDATE a SET y = '' WHERE x = 2")
    other = session.contents()["a"]
    assert other.digest != before.digest
    assert [name for name in other.columns if other.columns[name] != before.columns[name]] == ["y"]


def test_values_that_change_places_show(session: Session) -> None:
    """Each column alone is as it was; the rows are not."""
    run(session, "CREATE TABLE a (x integer, y text)", "INSERT INTO a VALUES (1, 'one'), (2, 'two')")
    before = session.contents()["a"]
    run(session, "UPDATE a SET x = 3 - x")
    after = session.contents()["a"]
    assert (after.digest == before.digest, after.columns == before.columns) == (False, True)


def test_statement_with_signs_of_the_library_is_sent_as_it_is(session: Session) -> None:
    """Percent signs, colons and question marks are the script's own."""
    run(session, "CREATE TABLE a (x text DEFAULT '100%s :x ?')", "INSERT INTO a DEFAULT VALUES")
    assert session.rows("SELECT x FROM a") == [("100%s :x ?",)]


def test_one_runner_at_a_time(pg: Database) -> None:
    """The second gets the lock when the first has gone, however it went."""
    first = pg.open()
    with pytest.raises(errors.BusyDatabaseError, match="Somebody else"):
        pg.open(wait_s=0.0)
    first.close()
    pg.open(wait_s=2.0).close()


def test_connection_that_is_cut_is_told(pg: Database) -> None:
    """As lost: who runs the script connects again, and looks what has happened."""
    server = pg.server
    assert server is not None

    def cut_in_the_middle(session: Session) -> None:
        with session.transaction(Limits()):
            session.run("CREATE TABLE a (x integer)")
            with server.connect("postgres") as other:
                other.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE application_name = 'tidegate migrations' AND state = 'idle in transaction'"
                )
            session.run("CREATE TABLE b (x integer)")

    with closing(pg.open()) as session, pytest.raises(errors.LostDatabaseError):
        cut_in_the_middle(session)
    with closing(pg.open()) as session:
        assert session.catalog().entries == {}


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "is none"),
        ("no address", "is none"),
        ("mysql://root@localhost/app", "mysql, which is not known"),
        ("sqlite://app.db", "no absolute path"),
        ("sqlite:///", "no absolute path"),
        ("postgresql://app:hunter2@127.0.0.1:1/app", "PostgreSQL: connection failed"),
        ("sqlite:////nowhere/app.db", "unable to open database file"),
    ],
)
def test_address_that_leads_nowhere_is_told_without_its_password(url: str, told: str) -> None:
    """What is wrong with it, not what it is."""
    with pytest.raises(errors.TidegateError, match=told) as refused:
        open_session(url, clock=SystemClock())
    assert "hunter2" not in str(refused.value)


def test_file_that_is_no_database_is_told(tmp_path: Path) -> None:
    """Before anything is written to it."""
    (tmp_path / "app.db").write_text("these are my notes, not a database" * 100)
    with pytest.raises(errors.DatabaseError, match="not a database"):
        open_session(f"sqlite:///{tmp_path}/app.db", clock=SystemClock())


def test_rebuilt_table_keeps_the_rows_that_refer_to_it(tmp_path: Path) -> None:
    """SQLite would delete them with the old table; a script that loses some is refused at its end."""
    with closing(open_session(f"sqlite:///{tmp_path}/app.db", clock=SystemClock())) as session:
        run(
            session,
            "CREATE TABLE a (x integer PRIMARY KEY)",
            "CREATE TABLE b (x integer REFERENCES a ON DELETE CASCADE)",
            "INSERT INTO a VALUES (1)",
            "INSERT INTO b VALUES (1)",
        )
        run(
            session,
            "CREATE TABLE n (x integer PRIMARY KEY, y text)",
            "INSERT INTO n (x) SELECT x FROM a",
            "DROP TABLE a",
            "ALTER TABLE n RENAME TO a",
        )
        assert session.rows("SELECT count(*) FROM b") == [(1,)]
        with pytest.raises(errors.DatabaseError, match="from b to a"):
            run(session, "DELETE FROM a")
        assert session.rows("SELECT count(*) FROM a") == [(1,)]


def test_who_waits_for_the_lock_does_not_hold_up_others(pg: Database) -> None:
    """CREATE INDEX CONCURRENTLY waits for all older transactions: a waiting runner has none."""
    assert pg.server is not None
    with closing(pg.open()) as first:
        run(first, "CREATE TABLE a (x integer)")
        waiting = threading.Thread(target=lambda: pg.open(wait_s=20.0).close())
        waiting.start()
        try:
            for _ in range(10):
                first.run_alone("CREATE INDEX CONCURRENTLY i ON a (x)", Limits(statement_s=10.0))
                first.run_alone("DROP INDEX CONCURRENTLY i", Limits(statement_s=10.0))
        finally:
            first.close()
            waiting.join()

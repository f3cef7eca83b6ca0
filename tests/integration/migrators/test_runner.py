"""Scripts on real databases: each once, with its row in the ledger; and what is refused before it begins."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

from tests.integration.migrators.conftest import Database
from tests.support.migrations import NO_TRANSACTION, made
from tests.support.tide import wait_for
from tidegate import errors
from tidegate.clock import SystemClock
from tidegate.core.ledgers import RowState
from tidegate.core.migrations import MigrationPhase
from tidegate.migrators.runner import Author, Progress, Runner, Standing
from tidegate.migrators.session import Limits, Session

pytestmark = pytest.mark.real
ME = Author(release=7, digest="sha256:" + "a" * 64, by="somebody")

USERS = ("users", "CREATE TABLE users (id integer PRIMARY KEY, name text);", "DROP TABLE users;")
EMAIL = ("email", "ALTER TABLE users ADD COLUMN email text;", "ALTER TABLE users DROP COLUMN email;")


def runner(session: Session, *, environment: str = "test", app: str = "shop", wait_s: float = 5.0) -> Runner:
    return Runner(
        session=session,
        app=app,
        environment=environment,
        clock=SystemClock(),
        jitter=lambda: 0.5,
        lock_wait_s=wait_s,
    )


@pytest.fixture
def session(database: Database) -> Iterator[Session]:
    with closing(database.open()) as found:
        yield found


@pytest.fixture
def run(session: Session) -> Runner:
    found = runner(session)
    found.open()
    return found


def by_hand(session: Session, *statements: str) -> None:
    """As somebody with a console would."""
    with session.transaction(Limits()):
        for statement in statements:
            session.run(statement)


def state(run: Runner) -> tuple[Standing, list[tuple[str, str]]]:
    """What the ledger says, and what happened, oldest first."""
    return run.look(), [(one.id, one.what) for one in reversed(run.events())]


def test_scripts_run_once_and_go_back_by_the_ledger(run: Runner, tmp_path: Path) -> None:
    """The schema is as it was at each stop, and the release that is gone to has no script for it."""
    empty = run.look().fingerprint
    users, email = made(tmp_path / "m", USERS, EMAIL)
    assert (run.up(users, ME), run.up(users, ME), run.up(email, ME)) == (True, False, True)
    standing, _ = state(run)
    assert [(row.id, row.state, row.phase) for row in standing.applied] == [
        ("0001_users", RowState.APPLIED, MigrationPhase.EXPAND),
        ("0002_email", RowState.APPLIED, MigrationPhase.EXPAND),
    ]
    row = standing.applied[1]
    assert (row.release, row.digest, row.by, row.down) == (7, ME.digest, "somebody", EMAIL[2])
    assert (row.fp_before, row.fp_now) == (standing.applied[0].fp_now, standing.fingerprint)
    assert (run.down("0002_email", ME), run.down("0002_email", ME), run.down("0001_users", ME)) == (
        True,
        False,
        True,
    )
    standing, events = state(run)
    assert (standing.applied, standing.fingerprint, standing.drifted) == ((), empty, False)
    assert events == [
        ("0001_users", "applied"),
        ("0002_email", "applied"),
        ("0002_email", "reverted"),
        ("0001_users", "reverted"),
    ]
    assert run.up(users, ME)
    assert [row.seq for row in run.look().applied] == [3]


@pytest.mark.parametrize("transaction", ["", NO_TRANSACTION])
def test_error_in_the_third_statement_leaves_what_it_says(
    run: Runner, tmp_path: Path, transaction: str
) -> None:
    """Nothing; without a transaction the first two, and the script goes on there when it is mended."""
    bad = f"{transaction}CREATE TABLE a (x integer);\nCREATE TABLE b (x integer);\nINSERT INTO c VALUES (1);"
    down = f"{transaction}DROP TABLE b; DROP TABLE a;"
    before = run.look().fingerprint
    (broken,) = made(tmp_path / "m", ("tables", bad, down))
    with pytest.raises(errors.DatabaseError, match=r"0001_tables, line \d: .*\bc\b"):
        run.up(broken, ME)
    standing, events = state(run)
    assert events == [("0001_tables", "failed")]
    (mended,) = made(tmp_path / "m", ("tables", bad.replace("INTO c", "INTO b"), down))
    if not transaction:
        assert (standing.applied, standing.fingerprint) == ((), before)
    else:
        (row,) = standing.applied
        assert (row.state, row.done, row.doubtful, standing.drifted) == (RowState.APPLYING, 2, False, False)
        (other,) = made(tmp_path / "m", ("tables", bad.replace("TABLE a", "TABLE d"), down))
        with pytest.raises(errors.SchemaError, match="first 2 statements are not what ran"):
            run.up(other, ME)
        with pytest.raises(errors.SchemaError, match="half way: 2 of its statements"):
            run.down("0001_tables", ME)
    assert run.up(mended, ME)
    assert run.session.rows("SELECT x FROM b") == [(1,)]
    assert run.down("0001_tables", ME)
    assert run.look().fingerprint == before


def test_database_of_another_environment_is_refused(run: Runner, session: Session) -> None:
    """Whatever app asks: the address in the configuration is staging's."""
    before = session.contents()
    for app in ("shop", "other"):
        with pytest.raises(errors.SchemaError, match="belongs to shop/test, not to production"):
            runner(session, environment="production", app=app).open()
    assert session.contents() == before
    runner(session, app="other").open()


def test_two_apps_share_a_database(run: Runner, session: Session, tmp_path: Path) -> None:
    """Each has its own rows; what one changes is no drift for the other."""
    other = runner(session, app="other")
    other.open()
    (mine,) = made(tmp_path / "m", USERS)
    (theirs,) = made(tmp_path / "o", ("users", "CREATE TABLE accounts (id integer);", "DROP TABLE accounts;"))
    assert (run.up(mine, ME), other.up(theirs, ME)) == (True, True)
    assert [len(one.look().applied) for one in (run, other)] == [1, 1]
    assert (run.down("0001_users", ME), other.look().drifted) == (True, False)


def test_change_by_hand_is_found_and_stops(run: Runner, session: Session, tmp_path: Path) -> None:
    """Until somebody undoes it, or takes the schema as it is, which stands in the events."""
    users, email = made(tmp_path / "m", USERS, EMAIL)
    run.up(users, ME)
    by_hand(session, "CREATE INDEX quick ON users (name)")
    assert run.look().drifted
    with pytest.raises(errors.SchemaError, match="somebody else has changed it"):
        run.up(email, ME)
    with pytest.raises(errors.SchemaError, match="somebody else has changed it"):
        run.down("0001_users", ME)
    run.adopt(ME, "the index that saved us on Sunday")
    assert run.up(email, ME)
    assert ("", "adopted") in state(run)[1]


def test_edited_ledger_is_found(run: Runner, session: Session, tmp_path: Path) -> None:
    """A row that somebody changed names itself."""
    (users,) = made(tmp_path / "m", USERS)
    run.up(users, ME)
    by_hand(session, "UPDATE _tidegate_migrations SET down = 'SELECT 1;'")
    with pytest.raises(errors.SchemaError, match=r"edited the ledger .* 0001_users \(row 1\)"):
        runner(session).open()


def test_ledger_of_a_newer_tidegate_is_left_alone(run: Runner, session: Session) -> None:
    """It may mean something that this one does not know."""
    by_hand(session, "UPDATE _tidegate_database SET format = 2")
    with pytest.raises(errors.SchemaError, match="newer Tidegate"):
        runner(session).open()


@pytest.mark.parametrize(
    ("phase", "up", "told"),
    [
        ("expand", "ALTER TABLE users DROP COLUMN name;", "is contract: column users.name is gone"),
        ("expand", "ALTER TABLE users RENAME COLUMN name TO title;", "is breaking: column users.name"),
        ("contract", "ALTER TABLE users RENAME COLUMN name TO title;", "is breaking: column users.name"),
    ],
)
def test_script_that_does_more_than_it_says_is_taken_back(
    run: Runner, tmp_path: Path, phase: str, up: str, told: str
) -> None:
    """The schema is asked, not the author."""
    users, more = made(tmp_path / "m", USERS, ("more", f"-- phase: {phase}\n{up}", "tried out"))
    run.up(users, ME)
    before = run.look()
    with pytest.raises(errors.SchemaError, match=told):
        run.up(more, ME)
    assert run.look() == before


def test_declared_phase_may_be_stricter(run: Runner, tmp_path: Path) -> None:
    """Who knows better that both releases cannot live on it says so."""
    (users,) = made(tmp_path / "m", ("users", f"-- phase: breaking\n{USERS[1]}", USERS[2]))
    run.up(users, ME)
    assert run.look().applied[0].phase is MigrationPhase.BREAKING


def test_what_cannot_be_reverted_says_why(run: Runner, tmp_path: Path) -> None:
    """In the author's words."""
    (users,) = made(tmp_path / "m", (*USERS[:2], "rows were merged"))
    run.up(users, ME)
    with pytest.raises(errors.SchemaError, match="cannot be reverted: rows were merged"):
        run.down("0001_users", ME)


def test_lock_is_waited_for_in_short_tries(database: Database, tmp_path: Path) -> None:
    """The script runs when it is free, and who watches is told what it waits for; at last it gives up."""
    told: list[Progress] = []
    free, held = threading.Event(), threading.Event()
    users, email = made(tmp_path / "m", USERS, EMAIL)
    with closing(database.open()) as session:
        run = runner(session, wait_s=0.0)
        run.open()
        run.up(users, ME)

        def hold() -> None:
            if database.server is None:
                with closing(database.open()) as other, other.transaction(Limits()):
                    held.set()
                    free.wait()
                return
            name = database.url.rpartition("@/")[2].partition("?")[0]
            with database.server.connect(name) as other_pg, other_pg.transaction():
                other_pg.execute("LOCK TABLE users")
                held.set()
                free.wait()

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait()
        with pytest.raises(errors.BusyDatabaseError, match="tried for 0 s"):
            run.up(email, ME)

        def watch(progress: Progress) -> None:
            told.append(progress)
            if progress.waits:
                free.set()

        run.lock_wait_s, run.tell = 20.0, watch
        assert run.up(email, ME)
        holder.join()
    assert any("lock" in progress.waits for progress in told)
    assert told[-1] == Progress(id="0002_email", statement=1, statements=1)


def test_long_report_is_let_pass_without_a_try_in_between(pg: Database, tmp_path: Path) -> None:
    """Each try would hold up everybody behind it; who is waited for is named."""
    assert pg.server is not None
    told: list[Progress] = []
    users, email = made(tmp_path / "m", USERS, EMAIL)
    with closing(pg.open()) as session:
        run = runner(session, wait_s=20.0)
        run.open()
        run.up(users, ME)
        run.tell = told.append
        name = pg.url.rpartition("@/")[2].partition("?")[0]
        with pg.server.connect(name) as report:
            report.execute("SET application_name = 'report'")
            report.execute("BEGIN")
            report.execute("SELECT count(*) FROM users")
            ending = threading.Timer(2.0, lambda: report.execute("COMMIT"))
            ending.start()
            assert run.up(email, ME)
            ending.join()
    assert len([one for one in told if "report (process " in one.waits]) == 1
    # Before half a second is over nobody knows that the report is long.
    assert sum(1 for one in told if one.statement) <= 6


def test_who_holds_other_locks_for_long_does_not_stop_a_script(pg: Database, tmp_path: Path) -> None:
    """A forgotten console in a transaction, that has nothing to do with it."""
    assert pg.server is not None
    users, email = made(tmp_path / "m", USERS, EMAIL)
    with closing(pg.open()) as session:
        by_hand(session, "CREATE TABLE other (x integer)")
        run = runner(session)
        run.open()
        run.adopt(ME, "for the test")
        run.up(users, ME)
        name = pg.url.rpartition("@/")[2].partition("?")[0]
        with pg.server.connect(name) as console, console.transaction():
            console.execute("SELECT count(*) FROM other")
            wait_for(session.blockers)
            assert run.up(email, ME)


def test_squashed_migrations_count_as_applied_where_their_parts_are(run: Runner, tmp_path: Path) -> None:
    """Nothing runs; where only some of the parts are, it is not guessed."""
    users, email = made(tmp_path / "m", USERS, EMAIL)
    run.up(users, ME)
    run.up(email, ME)
    before = run.look().fingerprint
    table = "CREATE TABLE users (id integer PRIMARY KEY, name text, email text);"
    both = f"-- replaces: 0001_users, 0002_email\n{table}"
    (squashed,) = made(tmp_path / "s", ("all", both, USERS[2]))
    assert run.up(squashed, ME)
    standing = run.look()
    assert ([row.id for row in standing.applied], standing.fingerprint) == (["0001_all"], before)
    assert run.down("0001_all", ME)
    assert run.up(squashed, ME)


def test_database_that_another_tool_kept_is_taken_over(run: Runner, session: Session, tmp_path: Path) -> None:
    """Its migrations count as applied, once, and nothing runs."""
    by_hand(session, USERS[1], EMAIL[1])
    run.adopt(ME, "from now on")
    known = made(tmp_path / "m", USERS, EMAIL)
    run.baseline(known, ME)
    assert [row.id for row in run.look().applied] == ["0001_users", "0002_email"]
    assert run.up(known[0], ME) is False
    with pytest.raises(errors.SchemaError, match="knows migrations of this app"):
        run.baseline(known, ME)
    assert run.down("0002_email", ME)


# --- statements that cannot run in a transaction ---------------------------------------------------

INDEX = (
    "index",
    NO_TRANSACTION + "CREATE INDEX CONCURRENTLY by_name ON users (name);",
    NO_TRANSACTION + "DROP INDEX CONCURRENTLY by_name;",
)


def test_statement_outside_of_a_transaction_is_counted(pg: Database, tmp_path: Path) -> None:
    """Up and down, as others."""
    users, index = made(tmp_path / "m", USERS, INDEX)
    with closing(pg.open()) as session:
        run = runner(session)
        run.open()
        run.up(users, ME)
        before = run.look().fingerprint
        assert run.up(index, ME)
        assert (run.look().drifted, run.look().fingerprint == before) == (False, False)
        assert run.down("0002_index", ME)
        assert run.look().fingerprint == before


def test_index_that_failed_leaves_none_behind(pg: Database, tmp_path: Path) -> None:
    """PostgreSQL keeps it as an invalid one, over which the next try would report success."""
    log, twins = "INSERT INTO log VALUES (1);", "INSERT INTO users VALUES (1, 'a'), (2, 'a');"
    unique = f"{NO_TRANSACTION}\n{log}\nCREATE UNIQUE INDEX CONCURRENTLY by_name ON users (name);"
    tables = "\n".join([USERS[1], "CREATE TABLE log (x integer);", twins])
    users, index = made(tmp_path / "m", ("users", tables, "try"), ("index", unique, INDEX[2]))
    with closing(pg.open()) as session:
        run = runner(session)
        run.open()
        run.up(users, ME)
        before = run.look().fingerprint
        with pytest.raises(errors.DatabaseError, match="could not create unique index"):
            run.up(index, ME)
        (_, row) = run.look().applied
        assert (row.done, row.doubtful, run.look().fingerprint) == (1, False, before)
        by_hand(session, "DELETE FROM users WHERE id = 2")
        assert run.up(index, ME)
        assert session.rows("SELECT count(*) FROM log") == [(1,)]


class Cut:
    """A session whose connection ends with the first statement outside of a transaction."""

    def __init__(self, session: Session, when: str) -> None:
        self._session, self._when = session, when

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run_alone(self, statement: str, limits: Limits) -> None:
        if self._when != "before":
            self._session.run_alone(statement, limits)
        if self._when == "half":
            by_hand(
                self._session, "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'by_name'::regclass"
            )
        raise errors.LostDatabaseError


@pytest.mark.parametrize("when", ["before", "half", "after"])
def test_doubt_about_an_index_is_settled_by_the_schema(pg: Database, tmp_path: Path, when: str) -> None:
    """It is there, or not, or invalid: then it is made again."""
    up = f"{INDEX[1]}\nINSERT INTO users VALUES (1, 'a');"
    users, index = made(tmp_path / "m", USERS, ("index", up, "try"))
    with closing(pg.open()) as session:
        run = runner(session)
        run.open()
        run.up(users, ME)
        with pytest.raises(errors.LostDatabaseError):
            runner(cast("Session", Cut(session, when))).up(index, ME)
        assert [(row.done, row.doubtful) for row in run.look().applied[1:]] == [(0, True)]
        assert run.look().drifted is False
        assert run.up(index, ME)
        assert session.rows("SELECT indisvalid FROM pg_index WHERE indexrelid = 'by_name'::regclass") == [
            (True,)
        ]
        assert session.rows("SELECT count(*) FROM users") == [(1,)]


CALL = """-- transaction: off
CREATE TABLE log (x integer);
CREATE PROCEDURE fill() LANGUAGE plpgsql AS $$ BEGIN INSERT INTO log VALUES (1); COMMIT; END $$;
CALL fill();
"""


@pytest.mark.parametrize(("when", "verify"), [("before", ""), ("after", ""), ("before", "v"), ("after", "v")])
def test_doubt_that_the_schema_does_not_show_is_asked(
    pg: Database, tmp_path: Path, when: str, verify: str
) -> None:
    """The verify script, or a person: and then it goes on, with the statement done once."""
    scripts = ["SELECT x FROM log;"] if verify else []
    (fill,) = made(tmp_path / "m", ("fill", CALL, "try", *scripts))
    with closing(pg.open()) as session:
        run = runner(session)
        run.open()
        with pytest.raises(errors.LostDatabaseError):
            runner(cast("Session", Cut(session, when))).up(fill, ME)
        if not verify:
            with pytest.raises(errors.SchemaError, match="nobody saw whether this statement ended"):
                run.up(fill, ME)
            run.resolve("0001_fill", ME, done=when == "after")
            with pytest.raises(errors.SchemaError, match="No statement of 0001_fill is in doubt"):
                run.resolve("0001_fill", ME, done=True)
        assert run.up(fill, ME)
        assert session.rows("SELECT x FROM log") == [(1,)]

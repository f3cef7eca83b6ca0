"""A script is taken apart at the semicolons that end statements, and at no others."""

from __future__ import annotations

import contextlib
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.migrators import statements
from tidegate.migrators.statements import UnfinishedError


def texts(sql: str) -> list[str]:
    return [one.text for one in statements.split(sql)]


@pytest.mark.parametrize(
    "one",
    [
        "SELECT 'a;b', 'it''s;'",
        r"SELECT E'it\'s;', e'\\'",
        'SELECT "a;b", "say ""x;"""',
        "SELECT `a;b`",
        "SELECT 1 /* a; /* nested; */ still; */ + 1",
        "SELECT 1 -- no; end here\n + 1",
        "DO $$ BEGIN PERFORM 1; PERFORM 2; END $$",
        "DO $body$ SELECT '$$;'; $body$",
        "SELECT $1, a$b$c FROM t",
        "CREATE TRIGGER t AFTER INSERT ON a BEGIN UPDATE a SET n = CASE n WHEN 1 THEN 2 END; SELECT 1; END",
        "create temp trigger if not exists t after insert on a begin select 1; end",
        "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql BEGIN ATOMIC SELECT 1; SELECT 2; END",
        "CREATE TRIGGER t AFTER INSERT ON a EXECUTE FUNCTION f()",
        "CREATE TABLE t (begin_at int, ending text, state text CHECK (CASE WHEN 1 THEN 1 END))",
        "SELECT type'x;y'",
    ],
)
def test_semicolon_inside_ends_nothing(one: str) -> None:
    """Literals, names, comments, dollar quotes, bodies."""
    assert texts(f"{one};\nSELECT 2") == [one, "SELECT 2"]


def test_empty_statements_and_comments_are_left_out() -> None:
    """They do nothing, and a database refuses some of them."""
    assert texts("") == texts(";; -- nothing\n /* ; */ ;\n") == []
    assert texts("-- first\nSELECT 1;\n-- last\n") == ["SELECT 1"]


def test_statement_knows_its_line_and_its_first_words() -> None:
    """For messages, and to tell what a script must not hold."""
    sql = (
        '-- head\n\nselect 1\n;\n\n/* a\nb */ create index concurrently "i" on t (a, b, c)\n;;\n'
        "START 'x' transaction"
    )
    found = [(one.line, one.words) for one in statements.split(sql)]
    assert found == [
        (3, ("SELECT",)),
        (7, ("CREATE", "INDEX", "CONCURRENTLY", "ON", "T", "A", "B", "C")),
        (9, ("START", "TRANSACTION")),
    ]


@pytest.mark.parametrize(
    ("sql", "what", "line"),
    [
        ("SELECT 1;\nSELECT 'a\n;", "a literal", 2),
        ("SELECT 'a''", "a literal", 1),
        (r"SELECT E'a\'", "a literal", 1),
        ('\nSELECT "a;', "a quoted name", 2),
        ("SELECT `a", "a quoted name", 1),
        ("SELECT 1;\n\n/* a /* b */", "a comment", 3),
        ("DO $x$ SELECT 1; $y$", "the text that begins with $x$", 1),
        ("CREATE TRIGGER t AFTER INSERT ON a\nBEGIN\nSELECT 1;\n", "the body that begins with BEGIN", 2),
    ],
)
def test_what_is_never_closed_is_named(sql: str, what: str, line: int) -> None:
    """With the line on which it begins: the end of the file says nothing."""
    with pytest.raises(UnfinishedError) as found:
        list(statements.split(sql))
    assert (found.value.what, found.value.line) == (what, line)
    assert str(found.value) == f"line {line}: {what} is not closed"


SIMPLE = st.sampled_from(
    ["SELECT 1", "SELECT 'a;' -- b;\n, 'it''s'", 'SELECT ";", 2', "UPDATE t SET n = CASE n WHEN 1 THEN 2 END"]
)
TRIGGER = st.lists(SIMPLE, min_size=1, max_size=3).map(
    lambda body: f"CREATE TEMP TRIGGER x AFTER INSERT ON t BEGIN {'; '.join(body)}; END"
)


@given(st.lists(SIMPLE | TRIGGER, max_size=5))
def test_statements_are_those_that_sqlite_sees(written: list[str]) -> None:
    """Each as it was written; SQLite, asked about each, says that it is complete."""
    assert texts(";\n".join(written)) == written
    assert all(sqlite3.complete_statement(f"{one};") for one in written)


@given(st.text(alphabet="aE'\"`$;/*-\\\n BEGIN", max_size=60))
def test_nothing_is_lost(sql: str) -> None:
    """Each statement is in the text, in order, on the line that it says."""
    at = 0
    with contextlib.suppress(UnfinishedError):
        for one in statements.split(sql):
            at = sql.index(one.text, at)
            assert sql.count("\n", 0, at) + 1 == one.line
            at += len(one.text)

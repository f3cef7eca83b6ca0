"""The catalog of a SQLite database: its own tables of contents, and the text of each definition.

SQLite keeps what was written: `sqlite_schema.sql` has the words of CREATE TABLE, and ALTER TABLE edits them
(SQLite, "The Schema Table"). Collations, checks and generated columns are nowhere else. So each table's text
is taken apart at its commas, spelled alike, and joined with what the pragmas say.

Not in it: SQLite's own tables, Tidegate's ledger, and statistics.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping

from tidegate.core.catalogs import Catalog, EntryKey, EntryKind
from tidegate.migrators import statements
from tidegate.migrators.session import LEDGER_PREFIX

_Entries = dict[EntryKey, Mapping[str, str]]
_ORIGINS = {"u": "unique", "pk": "primary key"}
_TABLE_WORDS = frozenset({"constraint", "primary", "unique", "check", "foreign"})
_GENERATED = frozenset({2, 3})


def read(connection: sqlite3.Connection) -> Catalog:
    """The schema as it is now, the open transaction's changes included. Raises sqlite3.Error."""
    entries: _Entries = {}
    orders: dict[str, tuple[str, ...]] = {}
    for kind, name, table, sql in _rows(connection):
        words = statements.spelled(sql or "")
        if kind == "trigger":
            entries[EntryKey(EntryKind.TRIGGER, table, name)] = {"definition": " ".join(words)}
        elif kind in ("table", "view"):
            info = _table_info(connection, name)
            orders[name] = tuple(row[1].lower() for row in info)
            if kind == "view":
                entries[EntryKey(EntryKind.VIEW, "", name)] = {"definition": " ".join(words)}
                entries.update(_columns(name, info, {}))
            else:
                parts, ending = _parts(words)
                entries[EntryKey(EntryKind.TABLE, "", name)] = {"options": " ".join(ending)}
                entries.update(_columns(name, info, {_name(part[0]): " ".join(part) for part in parts}))
                entries.update(_constraints(name, parts))
                entries.update(_indexes(connection, name))
    return Catalog(entries, orders)


_Words = tuple[str, ...]
_Info = list[tuple[int, str, str, int, str | None, int, int]]
"""Rows of table_xinfo: place, name, type, NOT NULL, default, place in the primary key, hidden."""


def _rows(connection: sqlite3.Connection) -> Iterator[tuple[str, str, str, str | None]]:
    found = connection.execute(
        "SELECT type, lower(name), lower(tbl_name), sql FROM sqlite_schema ORDER BY 1, 2"
    )
    for kind, name, table, sql in found.fetchall():
        if not table.startswith(("sqlite_", LEDGER_PREFIX)):
            yield kind, name, table, sql


def _table_info(connection: sqlite3.Connection, name: str) -> _Info:
    return connection.execute("SELECT * FROM pragma_table_xinfo(?)", (name,)).fetchall()


def _columns(
    table: str, info: _Info, definitions: Mapping[str, str]
) -> Iterator[tuple[EntryKey, Mapping[str, str]]]:
    for _, name, type_, not_null, default, primary, hidden in info:
        yield (
            EntryKey(EntryKind.COLUMN, table, name.lower()),
            {
                "type": type_.lower(),
                # A primary key of SQLite fills itself (INTEGER), or takes NULL for historical reasons.
                "null": "no" if not_null and not primary else "yes",
                "default": "generated" if hidden in _GENERATED else default or "",
                "definition": definitions.get(name.lower(), ""),
            },
        )


def _parts(words: _Words) -> tuple[list[_Words], _Words]:
    """What stands in the parentheses of CREATE TABLE, comma by comma, and what comes after them."""
    parts: list[_Words] = []
    depth = begin = 0
    for at, word in enumerate(words):
        depth += {"(": 1, ")": -1}.get(word, 0)
        if (word, depth) == ("(", 1):
            begin = at + 1
        elif (word, depth) in ((",", 1), (")", 0)):
            parts.append(words[begin:at])
            begin = at + 1
        if (word, depth) == (")", 0):
            return parts, words[begin:]
    return parts, ()


def _name(word: str) -> str:
    """A column's name as the pragmas give it."""
    return word[1:-1].lower() if word[0] in "\"`'" else word


def _constraints(table: str, parts: list[_Words]) -> Iterator[tuple[EntryKey, Mapping[str, str]]]:
    """Checks and foreign keys of a table; unique ones are indexes, those of a column in its definition."""
    for part in parts:
        if part[0] in _TABLE_WORDS:
            body = part[2:] if part[0] == "constraint" else part
            if body[0] in ("check", "foreign"):
                yield EntryKey(EntryKind.CONSTRAINT, table, " ".join(part)), {"conflict": "no"}


def _indexes(connection: sqlite3.Connection, table: str) -> Iterator[tuple[EntryKey, Mapping[str, str]]]:
    listed = 'SELECT lower(name), "unique", origin FROM pragma_index_list(?) ORDER BY name'
    for name, unique, origin in connection.execute(listed, (table,)).fetchall():
        sql = 'SELECT name, "desc", coll FROM pragma_index_xinfo(?) WHERE key ORDER BY seqno'
        columns = ", ".join(
            f"{(column or '(expression)').lower()} {collation.lower()}{' desc' if down else ''}"
            for column, down, collation in connection.execute(sql, (name,)).fetchall()
        )
        if origin in _ORIGINS:  # the name is SQLite's, by order of appearance
            yield (
                EntryKey(EntryKind.CONSTRAINT, table, f"{_ORIGINS[origin]} ({columns})"),
                {"conflict": "yes"},
            )
            continue
        (written,) = connection.execute(
            "SELECT sql FROM sqlite_schema WHERE lower(name) = ?", (name,)
        ).fetchone()
        yield (
            EntryKey(EntryKind.INDEX, table, name),
            {
                "columns": columns,
                "unique": "yes" if unique else "no",
                "definition": " ".join(statements.spelled(written)),
            },
        )

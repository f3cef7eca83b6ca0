"""A few rows in every table of a scratch database, so that scripts meet some: an empty table hides much.

Row k has the value k in every column, in whatever way the column's type writes it: then what refers to
another table finds its row there. The last row has NULL wherever that is allowed. A table whose constraints
want more than that stays empty, and is told.

Neighbours: `scratch` makes the database, `trials` runs scripts on it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Final

from tidegate import errors
from tidegate.core.catalogs import Catalog, EntryKey, EntryKind, Traits
from tidegate.migrators.session import Limits, Session

FULL_ROWS: Final = 2

# How PostgreSQL's types write the number k; `{k}` is replaced. By the type's first word.
_POSTGRES: Final[Mapping[str, str]] = {
    "smallint": "{k}",
    "integer": "{k}",
    "bigint": "{k}",
    "numeric": "{k}",
    "real": "{k}",
    "double": "{k}",
    "money": "{k}",
    "oid": "{k}",
    "boolean": "({k} % 2 = 1)",
    "text": "'{k}'",
    "character": "'{k}'",
    "citext": "'{k}'",
    "name": "'{k}'",
    '"char"': "'{k}'",
    "bytea": "'\\x0{k}'",
    "bit": "{k}::bit(1)",
    "date": "'2000-01-0{k}'",
    "timestamp": "'2000-01-0{k} 00:00:00+00'",
    "time": "'00:00:0{k}+00'",
    "interval": "'{k} days'",
    "uuid": "'00000000-0000-0000-0000-00000000000{k}'",
    "json": "'{k}'",
    "jsonb": "'{k}'",
    "xml": "'<k>{k}</k>'",
    "inet": "'127.0.0.{k}'",
    "cidr": "'127.0.0.{k}'",
    "macaddr": "'00:00:00:00:00:0{k}'",
    "point": "'({k},{k})'",
    "tsvector": "'{k}'",
}


def sow(session: Session, *, nulls: bool) -> tuple[str, ...]:
    """Fill the tables that are empty; those that stay so, each with the database's reason.

    `nulls`: also a row of NULLs. Raises DatabaseError.
    """
    catalog, contents = session.catalog(), session.contents()
    waiting = {table: "" for table in _tables(catalog) if not contents[table].count}
    while waiting:
        left = {table: why for table in waiting if (why := _rows(session, catalog, table, nulls=nulls))}
        if len(left) == len(waiting):
            return tuple(f"{table} stays empty: {why}" for table, why in left.items())
        waiting = left  # others may have waited for what they refer to
    return ()


def _tables(catalog: Catalog) -> list[str]:
    """Tables that rows go into: those of a partition go through the whole."""
    return [
        key.name
        for key, traits in sorted(catalog.entries.items())
        if key.kind is EntryKind.TABLE and not traits.get("partition")
    ]


def _rows(session: Session, catalog: Catalog, table: str, *, nulls: bool) -> str:
    """Insert into one; why it cannot be, empty if it can."""
    try:
        with session.transaction(Limits()):
            for k in range(1, FULL_ROWS + 1):
                session.run(_insert(session.engine, catalog, table, (k, False)))
    except errors.LostDatabaseError:
        raise
    except errors.DatabaseError as error:
        return error.message
    if nulls:
        with contextlib.suppress(errors.DatabaseError), session.transaction(Limits()):
            session.run(_insert(session.engine, catalog, table, (FULL_ROWS + 1, True)))
    return ""


_RowOf = tuple[int, bool]
"""Its number, and whether it has NULL wherever that is allowed."""


def _insert(engine: str, catalog: Catalog, table: str, row: _RowOf) -> str:
    values = dict(_values(engine, catalog, table, row))
    names = ", ".join(_quoted(name) for name in values)
    target = ".".join(_quoted(part) for part in _parts(table))
    if not values:
        return f"INSERT INTO {target} DEFAULT VALUES"
    overriding = "OVERRIDING SYSTEM VALUE " if engine == "postgresql" else ""
    return f"INSERT INTO {target} ({names}) {overriding}VALUES ({', '.join(values.values())})"


def _values(engine: str, catalog: Catalog, table: str, row: _RowOf) -> Iterator[tuple[str, str]]:
    k, nulls = row
    for name in catalog.orders.get(table, ()):
        traits = catalog.entries[EntryKey(EntryKind.COLUMN, table, name)]
        if traits["default"] == "generated":
            continue
        if nulls and traits["null"] == "yes" and not _is_key(engine, catalog, table, name):
            yield name, "NULL"
        else:
            yield name, _literal(engine, catalog, traits["type"], k)


def _is_key(engine: str, catalog: Catalog, table: str, column: str) -> bool:
    """A primary key of SQLite says that it takes NULL, and fills itself or keeps it."""
    if engine != "sqlite":
        return False
    return any(
        key.owner == table and key.kind is EntryKind.CONSTRAINT and column in key.name
        for key in catalog.entries
    )


def _literal(engine: str, catalog: Catalog, type_: str, k: int) -> str:
    if engine == "sqlite":
        # Any value goes into any column; types of text compare with text.
        return f"'{k}'" if any(word in type_ for word in ("char", "text", "clob")) else str(k)
    if type_.endswith("[]"):
        return "'{}'"
    base = type_.removeprefix("public.")
    labels = catalog.orders.get(base, ())
    made: Traits = catalog.entries.get(EntryKey(EntryKind.TYPE, "", base), {})
    if made.get("kind") == "enum" and labels:
        return _text(labels[(k - 1) % len(labels)])
    if made.get("kind") == "domain":
        return _literal(engine, catalog, made["of"], k)
    if made.get("kind") == "range" or type_.endswith(("range", "multirange")):
        return "'empty'" if not type_.endswith("multirange") else "'{}'"
    word = type_.partition("(")[0].split(" ")[0]
    return _POSTGRES.get(word, "NULL").replace("{k}", str(k))


def _parts(table: str) -> tuple[str, ...]:
    schema, dot, name = table.partition(".")
    return (schema, name) if dot else (table,)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"

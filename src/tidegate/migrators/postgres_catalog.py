"""The catalog of a PostgreSQL database, as the server itself spells it (pg_get_constraintdef and the like).

Left out: what belongs to an extension, to Tidegate's ledger or to a single session; owners and privileges,
which differ between environments; statistics and storage parameters of columns; numbers of columns, which
only grow, so that a dropped and added column never has its own again (their order is kept by itself).

Names outside the schema `public` are told with theirs. Read with an empty search path, so that the spelling
does not depend on the role. Neighbours: `core.catalogs` compares, `postgres` connects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from tidegate.core.catalogs import Catalog, EntryKey, EntryKind
from tidegate.migrators.session import LEDGER_PREFIX

Ask = Callable[[str], list[tuple[Any, ...]]]
"""Runs a query on the connection."""

_Entries = Iterator[tuple[EntryKey, Mapping[str, str]]]

# Whose schema is the app's; `%s` is the object's oid and its catalog.
_OURS: Final = """
    n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema'
    AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_depend e
        WHERE e.classid = '{catalog}'::pg_catalog.regclass AND e.objid = {oid} AND e.deptype = 'e'
    )
"""
_NAME: Final = (
    "CASE n.nspname WHEN 'public' THEN {name}::text ELSE pg_catalog.format('%s.%s', n.nspname, {name}) END"
)


def _sql(text: str, *, catalog: str, oid: str, name: str) -> str:
    ours = _OURS.format(catalog=catalog, oid=oid)
    return text.replace("{ours}", ours).replace("{name}", _NAME.format(name=name))


_OF_RELATION: Final = {"catalog": "pg_catalog.pg_class", "oid": "c.oid", "name": "c.relname"}

_RELATIONS: Final = _sql(
    """
    SELECT c.relkind::text, {name}, c.relpersistence::text, c.relrowsecurity, c.relforcerowsecurity,
           coalesce(pg_catalog.pg_get_partkeydef(c.oid), ''),
           coalesce(pg_catalog.pg_get_expr(c.relpartbound, c.oid), ''),
           coalesce((SELECT pg_catalog.string_agg(i.inhparent::pg_catalog.regclass::text, ', '
                                                  ORDER BY i.inhseqno)
                     FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid), ''),
           CASE WHEN c.relkind IN ('v', 'm') THEN pg_catalog.pg_get_viewdef(c.oid) ELSE '' END,
           coalesce(pg_catalog.array_to_string(c.reloptions, ', '), '')
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND {ours}
    """,
    **_OF_RELATION,
)

_COLUMNS: Final = _sql(
    """
    SELECT {name}, a.attname::text, pg_catalog.format_type(a.atttypid, a.atttypmod), a.attnotnull,
           coalesce(pg_catalog.pg_get_expr(d.adbin, d.adrelid), ''),
           a.attidentity::text, a.attgenerated::text,
           CASE WHEN a.attcollation <> t.typcollation THEN a.attcollation::pg_catalog.regcollation::text
                ELSE '' END
    FROM pg_catalog.pg_attribute a
    JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm', 'c') AND a.attnum > 0 AND NOT a.attisdropped AND {ours}
    ORDER BY a.attrelid, a.attnum
    """,
    **_OF_RELATION,
)

# contype n: NOT NULL, which PostgreSQL 18 keeps here too; columns say it already.
_CONSTRAINTS: Final = _sql(
    """
    SELECT {name}, k.conname::text, k.contype::text, pg_catalog.pg_get_constraintdef(k.oid), k.convalidated
    FROM pg_catalog.pg_constraint k
    JOIN pg_catalog.pg_class c ON c.oid = k.conrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE k.contype <> 'n' AND {ours}
    """,
    **_OF_RELATION,
)

_INDEXES: Final = _sql(
    """
    SELECT {name}, x.relname::text, i.indisunique, i.indisvalid, pg_catalog.pg_get_indexdef(x.oid)
    FROM pg_catalog.pg_index i
    JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
    JOIN pg_catalog.pg_class c ON c.oid = i.indrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE NOT EXISTS (
        SELECT FROM pg_catalog.pg_constraint k WHERE k.conindid = x.oid AND k.contype IN ('p', 'u', 'x')
    ) AND {ours}
    """,
    **_OF_RELATION,
)

_TRIGGERS: Final = _sql(
    """
    SELECT {name}, g.tgname::text, pg_catalog.pg_get_triggerdef(g.oid), g.tgenabled::text
    FROM pg_catalog.pg_trigger g
    JOIN pg_catalog.pg_class c ON c.oid = g.tgrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE NOT g.tgisinternal AND {ours}
    """,
    **_OF_RELATION,
)

_POLICIES: Final = _sql(
    """
    SELECT {name}, p.polname::text, p.polcmd::text, p.polpermissive,
           coalesce(pg_catalog.pg_get_expr(p.polqual, p.polrelid), ''),
           coalesce(pg_catalog.pg_get_expr(p.polwithcheck, p.polrelid), '')
    FROM pg_catalog.pg_policy p
    JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE {ours}
    """,
    **_OF_RELATION,
)

_RULES: Final = _sql(
    """
    SELECT {name}, r.rulename::text, pg_catalog.pg_get_ruledef(r.oid)
    FROM pg_catalog.pg_rewrite r
    JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE r.rulename <> '_RETURN' AND {ours}
    """,
    **_OF_RELATION,
)

_SEQUENCES: Final = _sql(
    """
    SELECT {name}, s.seqtypid::pg_catalog.regtype::text, s.seqstart, s.seqincrement, s.seqmin, s.seqmax,
           s.seqcycle
    FROM pg_catalog.pg_sequence s
    JOIN pg_catalog.pg_class c ON c.oid = s.seqrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE {ours}
    """,
    **_OF_RELATION,
)

# An aggregate has no text of its own.
_FUNCTIONS: Final = _sql(
    """
    SELECT {name}, pg_catalog.pg_get_function_identity_arguments(f.oid),
           CASE WHEN f.prokind = 'a' THEN 'aggregate ' || pg_catalog.pg_get_function_result(f.oid)
                ELSE pg_catalog.pg_get_functiondef(f.oid) END
    FROM pg_catalog.pg_proc f JOIN pg_catalog.pg_namespace n ON n.oid = f.pronamespace
    WHERE {ours}
    """,
    catalog="pg_catalog.pg_proc",
    oid="f.oid",
    name="f.proname",
)

# Types of tables and arrays come with what they are of.
_TYPES: Final = _sql(
    """
    SELECT {name}, t.typtype::text,
           CASE t.typtype WHEN 'd' THEN pg_catalog.format_type(t.typbasetype, t.typtypmod)
                WHEN 'r' THEN (SELECT r.rngsubtype::pg_catalog.regtype::text FROM pg_catalog.pg_range r
                               WHERE r.rngtypid = t.oid)
                ELSE '' END,
           t.typnotnull, coalesce(t.typdefault, ''),
           coalesce((SELECT pg_catalog.string_agg(k.conname || ' ' || pg_catalog.pg_get_constraintdef(k.oid),
                                                  ', ' ORDER BY k.conname)
                     FROM pg_catalog.pg_constraint k WHERE k.contypid = t.oid AND k.contype <> 'n'), '')
    FROM pg_catalog.pg_type t
    JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
    LEFT JOIN pg_catalog.pg_class c ON c.oid = t.typrelid
    WHERE (t.typtype IN ('e', 'd', 'r') OR (t.typtype = 'c' AND c.relkind = 'c')) AND {ours}
    """,
    catalog="pg_catalog.pg_type",
    oid="t.oid",
    name="t.typname",
)

_LABELS: Final = _sql(
    """
    SELECT {name}, l.enumlabel::text
    FROM pg_catalog.pg_enum l
    JOIN pg_catalog.pg_type t ON t.oid = l.enumtypid
    JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace
    WHERE {ours}
    ORDER BY l.enumtypid, l.enumsortorder
    """,
    catalog="pg_catalog.pg_type",
    oid="t.oid",
    name="t.typname",
)

_EXTENSIONS: Final = "SELECT e.extname::text FROM pg_catalog.pg_extension e WHERE e.extname <> 'plpgsql'"

_SCHEMAS: Final = """
    SELECT n.nspname::text FROM pg_catalog.pg_namespace n
    WHERE n.nspname NOT LIKE 'pg\\_%' AND n.nspname NOT IN ('information_schema', 'public')
    AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_depend e
        WHERE e.classid = 'pg_catalog.pg_namespace'::pg_catalog.regclass AND e.objid = n.oid
        AND e.deptype = 'e'
    )
"""

_VIEWS: Final = ("v", "m")
_TYPE_KINDS: Final = {"e": "enum", "d": "domain", "r": "range", "c": "composite"}


def read(ask: Ask) -> Catalog:
    """The schema as it is now, the open transaction's changes included. Raises what `ask` raises.

    The search path has to be empty: see the module.
    """
    entries = {
        key: traits
        for part in (_relations, _columns, _constraints, _indexes, _attached, _sequences, _functions, _types)
        for key, traits in part(ask)
        if not (key.owner or key.name).rpartition(".")[2].startswith(LEDGER_PREFIX)
    }
    orders: dict[str, tuple[str, ...]] = {}
    for owner, name, *_ in (*ask(_COLUMNS), *ask(_LABELS)):
        if LEDGER_PREFIX not in owner:
            orders[owner] = (*orders.get(owner, ()), name)
    return Catalog(entries, orders)


def _relations(ask: Ask) -> _Entries:
    for kind, name, persistence, secured, forced, key, bound, parents, view, options in ask(_RELATIONS):
        if kind in _VIEWS:
            materialized = "materialized " if kind == "m" else ""
            yield EntryKey(EntryKind.VIEW, "", name), {"definition": _folded(materialized + view)}
            continue
        security = f"row security{' forced' if forced else ''}" if secured else ""
        traits = {
            "partitions": key,
            "partition": _folded(f"{parents} {bound}"),
            "persistence": {"p": "", "u": "unlogged", "t": "temporary"}[persistence],
            "security": security,
            "options": options,
        }
        yield EntryKey(EntryKind.TABLE, "", name), {what: text for what, text in traits.items() if text}


def _columns(ask: Ask) -> _Entries:
    for table, name, type_, not_null, default, identity, generated, collation in ask(_COLUMNS):
        filled = "identity" if identity else "generated" if generated else default
        definition = {"a": "always ", "d": "by default "}.get(identity, "") + (default if generated else "")
        yield (
            EntryKey(EntryKind.COLUMN, table, name),
            {
                "type": type_,
                "null": "no" if not_null else "yes",
                "default": filled,
                "definition": _folded(f"{definition} {collation}"),
            },
        )


def _constraints(ask: Ask) -> _Entries:
    for table, name, kind, definition, validated in ask(_CONSTRAINTS):
        yield (
            EntryKey(EntryKind.CONSTRAINT, table, name),
            {
                "definition": definition,
                "conflict": "yes" if kind in "pux" else "no",
                "validated": "yes" if validated else "no",
            },
        )


def _indexes(ask: Ask) -> _Entries:
    for table, name, unique, valid, definition in ask(_INDEXES):
        yield (
            EntryKey(EntryKind.INDEX, table, name),
            {
                "unique": "yes" if unique else "no",
                "valid": "yes" if valid else "no",
                "definition": definition,
            },
        )


def _attached(ask: Ask) -> _Entries:
    """What hangs on a table."""
    for table, name, definition, enabled in ask(_TRIGGERS):
        yield EntryKey(EntryKind.TRIGGER, table, name), {"definition": definition, "enabled": enabled}
    for table, name, definition in ask(_RULES):
        yield EntryKey(EntryKind.TRIGGER, table, f"rule {name}"), {"definition": _folded(definition)}
    for table, name, command, permissive, using, check in ask(_POLICIES):
        traits = {"command": command, "using": using, "check": check}
        yield (
            EntryKey(EntryKind.POLICY, table, name),
            {**traits, "permissive": "yes" if permissive else "no"},
        )


def _sequences(ask: Ask) -> _Entries:
    for name, type_, start, increment, lowest, highest, cycles in ask(_SEQUENCES):
        numbers = f"from {start} by {increment}, {lowest} to {highest}{', cycles' if cycles else ''}"
        yield EntryKey(EntryKind.SEQUENCE, "", name), {"type": type_, "numbers": numbers}


def _functions(ask: Ask) -> _Entries:
    for name, arguments, definition in ask(_FUNCTIONS):
        yield EntryKey(EntryKind.FUNCTION, "", f"{name}({arguments})"), {"definition": _folded(definition)}


def _types(ask: Ask) -> _Entries:
    for name, kind, base, not_null, default, checks in ask(_TYPES):
        traits = {"of": base, "null": "no" if not_null else "", "default": default, "checks": checks}
        said = {what: text for what, text in traits.items() if text}
        yield EntryKey(EntryKind.TYPE, "", name), {"kind": _TYPE_KINDS[kind], **said}
    for type_, label in ask(_LABELS):
        yield EntryKey(EntryKind.LABEL, type_, label), {}
    for (name,) in ask(_EXTENSIONS):
        yield EntryKey(EntryKind.EXTENSION, "", name), {}
    for (name,) in ask(_SCHEMAS):
        yield EntryKey(EntryKind.SCHEMA, "", name), {}


def _folded(text: str) -> str:
    """In one line: how a body is laid out changes nothing."""
    return " ".join(text.split())

"""The ledger's tables in the database of an app: what stands in them, and how a row changes.

Nothing is decided here (`core.ledgers` does), and nothing is written outside of the transaction that the
caller has open: a script and its row are there together or not at all.

    _tidegate_database   one row: whose format, and the fingerprint of the schema as Tidegate left it
    _tidegate_apps       which environment's the database is, by app: two apps may share one
    _tidegate_migrations `LedgerRow`
    _tidegate_events     what happened, never changed
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any, Final

from tidegate import errors
from tidegate.core.ledgers import LedgerRow, RowState
from tidegate.core.migrations import MigrationPhase, Revert
from tidegate.migrators.session import Limits, Session

FORMAT: Final = 1

# Types that SQLite and PostgreSQL both know. `single`: one row, whoever comes first.
_TABLES: Final = (
    """CREATE TABLE IF NOT EXISTS _tidegate_database (
        single integer PRIMARY KEY CHECK (single = 1),
        format integer NOT NULL,
        fingerprint text NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS _tidegate_apps (
        app text PRIMARY KEY,
        environment text NOT NULL,
        fence integer NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS _tidegate_migrations (
        seq integer PRIMARY KEY,
        app text NOT NULL,
        id text NOT NULL,
        state text NOT NULL,
        phase text NOT NULL,
        done integer NOT NULL,
        doubtful integer NOT NULL,
        fp_before text NOT NULL,
        fp_now text NOT NULL,
        up text NOT NULL,
        down text NOT NULL,
        verify text NOT NULL,
        no_way_back text NOT NULL,
        revert text NOT NULL,
        why text NOT NULL,
        release integer NOT NULL,
        digest text NOT NULL,
        "by" text NOT NULL,
        at double precision NOT NULL,
        took_s double precision NOT NULL,
        "check" text NOT NULL
    )""",
    """CREATE UNIQUE INDEX IF NOT EXISTS _tidegate_applied ON _tidegate_migrations (app, id)
        WHERE state NOT IN ('reverted', 'replaced')""",
    """CREATE TABLE IF NOT EXISTS _tidegate_events (
        seq integer PRIMARY KEY,
        app text NOT NULL,
        id text NOT NULL,
        what text NOT NULL,
        detail text NOT NULL,
        "by" text NOT NULL,
        at double precision NOT NULL
    )""",
)
_NAMES: Final = tuple(field.name for field in fields(LedgerRow))
_COLUMNS: Final = ", ".join(f'"{name}"' for name in _NAMES)

_ROWS: Final = f"SELECT {_COLUMNS} FROM _tidegate_migrations ORDER BY seq"  # noqa: S608 - our own names
_ROW: Final = (
    f"SELECT {_COLUMNS} FROM _tidegate_migrations WHERE app = :app AND id = :id "  # noqa: S608
    "AND state NOT IN ('reverted', 'replaced')"
)
_ADD: Final = (
    f"INSERT INTO _tidegate_migrations ({_COLUMNS}) VALUES ({', '.join(f':{name}' for name in _NAMES)})"  # noqa: S608
)
_CHANGE: Final = (
    "UPDATE _tidegate_migrations SET "  # noqa: S608
    + ", ".join(f'"{name}" = :{name}' for name in _NAMES if name != "seq")
    + " WHERE seq = :seq"
)
_RAISE: Final = "UPDATE _tidegate_apps SET fence = :fence WHERE app = :app AND fence < :fence"
_TELL: Final = """
    INSERT INTO _tidegate_events (seq, app, id, what, detail, "by", at)
    VALUES ((SELECT coalesce(max(seq), 0) + 1 FROM _tidegate_events), :app, :id, :what, :detail, :by, :at)
"""
_EVENTS: Final = """
    SELECT app, id, what, detail, "by", at FROM _tidegate_events ORDER BY seq DESC LIMIT :count
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEvent:
    """Something that happened to the schema, or was tried."""

    app: str
    id: str
    """The migration; empty: the database as a whole."""
    what: str
    """applied, reverted, failed, resolved, adopted, baseline."""
    detail: str = ""
    by: str = ""
    at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """The ledger as it is."""

    fingerprint: str
    """Of the schema as Tidegate last left it."""
    rows: tuple[LedgerRow, ...]
    """Of all apps, oldest first."""
    environments: dict[str, str]
    """By app."""


class Ledger:
    """Of the database of this session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def is_there(self) -> bool:
        """Whether anybody has run migrations here."""
        found = {
            "sqlite": "SELECT count(*) FROM sqlite_schema WHERE name = '_tidegate_database'",
            "postgresql": "SELECT count(to_regclass('_tidegate_database'))",
        }[self._session.engine]
        return bool(self._session.rows(found)[0][0])

    def make(self, app: str, environment: str) -> None:
        """The tables and the row of the app, unless they are there; the schema as it is counts as known.

        Raises SchemaError: the database belongs to another environment, or to a newer Tidegate.
        """
        if not self.is_there():
            with self._session.transaction(Limits()):
                for table in _TABLES:
                    self._session.rows(table)
                self._session.rows(
                    "INSERT INTO _tidegate_database (single, format, fingerprint) "
                    "VALUES (1, :format, :fingerprint) ON CONFLICT (single) DO NOTHING",
                    {"format": FORMAT, "fingerprint": self._session.catalog().fingerprint},
                )
        opened = self.read()
        owner = opened.environments.get(app)
        if owner is None:
            self.refuse_others(opened, environment)
            with self._session.transaction(Limits()):
                self._session.rows(
                    "INSERT INTO _tidegate_apps (app, environment, fence) VALUES (:app, :environment, 0) "
                    "ON CONFLICT (app) DO NOTHING",
                    {"app": app, "environment": environment},
                )
            opened = self.read()
        self.refuse_others(opened, environment)

    @staticmethod
    def refuse_others(opened: Opened, environment: str) -> None:
        """The database of staging is not that of production, whatever the configuration says."""
        for app, owner in sorted(opened.environments.items()):
            if owner != environment:
                raise errors.SchemaError(
                    f"This database belongs to {app}/{owner}, not to {environment}.",
                    hint="The configuration of the environment has the address of another one's database.",
                )

    def read(self) -> Opened:
        """Raises DatabaseError; SchemaError: a newer Tidegate has been here."""
        format_, fingerprint = self._session.rows("SELECT format, fingerprint FROM _tidegate_database")[0]
        if format_ > FORMAT:
            raise errors.SchemaError(
                f"A newer Tidegate keeps the ledger of this database (format {format_}, not {FORMAT}).",
                hint="Upgrade this one.",
            )
        rows = tuple(_row(values) for values in self._session.rows(_ROWS))
        found = self._session.rows("SELECT app, environment FROM _tidegate_apps")
        return Opened(fingerprint=fingerprint, rows=rows, environments=dict(found))

    def row(self, app: str, id_: str) -> LedgerRow | None:
        """What is in the schema of a migration now."""
        found = self._session.rows(_ROW, {"app": app, "id": id_})
        return _row(found[0]) if found else None

    def fence(self, app: str, fence: int) -> int:
        """Raise it, if it is smaller; as it is then. Whoever has a smaller one comes too late."""
        values = {"app": app, "fence": fence}
        self._session.rows(_RAISE, values)
        found = self._session.rows("SELECT fence FROM _tidegate_apps WHERE app = :app", {"app": app})
        return int(found[0][0]) if found else 0

    def fingerprint(self) -> str:
        """Of the schema as Tidegate last left it."""
        ((found,),) = self._session.rows("SELECT fingerprint FROM _tidegate_database")
        return str(found)

    def add(self, row: LedgerRow) -> LedgerRow:
        """With the next number."""
        ((last,),) = self._session.rows("SELECT coalesce(max(seq), 0) FROM _tidegate_migrations")
        added = replace(row, seq=last + 1).checked()
        self._session.rows(_ADD, _values(added))
        return added

    def change(self, row: LedgerRow) -> LedgerRow:
        """The row of that number."""
        changed = row.checked()
        self._session.rows(_CHANGE, _values(changed))
        return changed

    def leave(self, fingerprint: str) -> None:
        """This is how Tidegate leaves the schema."""
        self._session.rows("UPDATE _tidegate_database SET fingerprint = :fp", {"fp": fingerprint})

    def tell(self, event: LedgerEvent) -> None:
        """Write down what happened."""
        values = {name: getattr(event, name) for name in ("app", "id", "what", "detail", "by", "at")}
        self._session.rows(_TELL, values)

    def events(self, count: int) -> tuple[LedgerEvent, ...]:
        """The newest first."""
        names = ("app", "id", "what", "detail", "by", "at")
        found = self._session.rows(_EVENTS, {"count": count})
        return tuple(LedgerEvent(**dict(zip(names, row, strict=True))) for row in found)


def _row(values: tuple[object, ...]) -> LedgerRow:
    found = dict(zip(_NAMES, values, strict=True))
    state, phase = RowState(str(found.pop("state"))), MigrationPhase(str(found.pop("phase")))
    doubtful, revert = bool(found.pop("doubtful")), Revert(str(found.pop("revert")))
    return LedgerRow(state=state, phase=phase, doubtful=doubtful, revert=revert, **found)  # type: ignore[arg-type]


def _values(row: LedgerRow) -> dict[str, object]:
    values: dict[str, Any] = {name: getattr(row, name) for name in _NAMES}
    words = {name: values[name].value for name in ("state", "phase", "revert")}
    return values | words | {"doubtful": int(row.doubtful)}

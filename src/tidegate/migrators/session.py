"""What running migrations asks of a database: one connection, and no more than any engine can do.

An own port of this package, because nothing else of Tidegate speaks to the database of an app. Neighbours:
`sqlite`, `postgres` (the implementations), `ledger` and `runner` (which use them).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from tidegate.core.catalogs import Catalog
from tidegate.core.trials import Contents

LEDGER_PREFIX: Final = "_tidegate_"
"""Of the names of Tidegate's own tables in the database; nobody's schema has changed when they do."""

LOCK_TIMEOUT_S: Final = 0.1
"""At most. A statement that waits for a lock makes everybody behind it wait too (bench/locks.py)."""
STATEMENT_TIMEOUT_S: Final = 60.0

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long the statements of a script may take."""

    lock_s: float = LOCK_TIMEOUT_S
    """Waiting for one lock."""
    statement_s: float = STATEMENT_TIMEOUT_S
    """All of one statement."""


class Session(Protocol):
    """A connection to the database of an app. Used by one thread.

    Everything raises DatabaseError: BusyDatabaseError if a lock was not to be had in time, LostDatabaseError
    if the connection ended. An error inside a transaction leaves nothing of it.
    """

    @property
    def engine(self) -> str:
        """For people and for the ledger: postgresql, sqlite."""

    def transaction(self, limits: Limits) -> AbstractContextManager[None]:
        """All or nothing; nobody else writes to the ledger meanwhile. Not nested."""

    def rows(self, sql: str, values: Mapping[str, object] | None = None) -> list[Row]:
        """Tidegate's own statement, with its values as `:name`."""

    def run(self, statement: str) -> None:
        """One statement of a script, inside the transaction."""

    def run_alone(self, statement: str, limits: Limits) -> None:
        """One statement that cannot run inside a transaction, outside of any."""

    def needs_none(self, error: BaseException | None) -> bool:
        """Whether what is behind the error is only that a statement ran inside a transaction."""

    def catalog(self) -> Catalog:
        """The schema, the open transaction's changes included."""

    def blockers(self) -> tuple[str, ...]:
        """Whoever has been in a transaction with locks on tables for long, as people know them."""

    def connected(self) -> tuple[str, ...]:
        """What others call their connections to this database, sorted; nothing where that cannot be seen."""

    def contents(self) -> Contents:
        """All rows of all tables. Reads everything: for scratch databases."""

    def close(self) -> None:
        """Ends the connection, and with it whatever is open. Never raises."""

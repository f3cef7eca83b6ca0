"""What a database's ledger says has been applied to it, and what follows for the next script. Pure.

The ledger lies in the database that it describes, so that a backup brings both back to the same moment. A row
is one application of one migration: it is never taken away, only marked as reverted; what is applied again
has a new row. Each row holds the scripts themselves, because the release that is gone back to does not.

Neighbours: `core.migrations` plans from this, `migrators.ledger` keeps the rows, `migrators.runner` acts.
"""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Self

from tidegate.core.catalogs import Catalog, EntryKey, EntryKind
from tidegate.core.migrations import Migration, MigrationPhase, Revert


class RowState(enum.StrEnum):
    """Where an application of a migration stands."""

    APPLYING = "applying"
    """Statement by statement, and not yet at the end: only without a transaction."""
    APPLIED = "applied"
    REVERTING = "reverting"
    REVERTED = "reverted"
    REPLACED = "replaced"
    """Applied, and now part of another, which has a row of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerRow:
    """One application of one migration."""

    seq: int
    """From 1, in the order in which they began; clocks may differ."""
    app: str
    id: str
    state: RowState
    phase: MigrationPhase
    """As observed, or declared, whichever asks for more."""
    done: int = 0
    """Statements of the running script that are finished."""
    doubtful: bool = False
    """The statement after those was sent outside of a transaction, and its end was not seen."""
    fp_before: str = ""
    """Fingerprint of the schema before the first statement."""
    fp_now: str = ""
    """After the last one that is finished."""
    up: str = ""
    down: str = ""
    """Empty: there is no way back, see `no_way_back`."""
    verify: str = ""
    no_way_back: str = ""
    revert: Revert = Revert.NONE
    """What its trial has shown of the way back."""
    why: str = ""
    """What the trial has found, if it is not exact."""
    release: int = 0
    """That brought it."""
    digest: str = ""
    """Of that release's artifact."""
    by: str = ""
    at: float = 0.0
    """Unix seconds of the last change of state, by the clock of the machine that made it."""
    took_s: float = 0.0
    check: str = ""
    """`checksum` of all others: whoever edits a row by hand is found."""

    @property
    def counts(self) -> bool:
        """Something of it is in the schema."""
        return self.state not in (RowState.REVERTED, RowState.REPLACED)

    @property
    def unfinished(self) -> bool:
        """Neither here nor there."""
        return self.state in (RowState.APPLYING, RowState.REVERTING)

    @property
    def migration(self) -> Migration:
        """For the planner."""
        why = self.no_way_back or self.why
        return Migration(id=self.id, phase=self.phase, revert=self.revert, release=self.release, why=why)

    def checked(self) -> Self:
        """With its checksum."""
        return replace(self, check=self.checksum())

    def checksum(self) -> str:
        """sha256 of all its values, in hexadecimal digits."""
        values = [value for name, value in asdict(self).items() if name != "check"]
        return hashlib.sha256(json.dumps(values, ensure_ascii=False).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """A migration as a release brings it."""

    id: str
    number: int
    up: str
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Why the scripts of a release do not fit what is applied."""

    id: str
    what: str
    todo: str


def standing(rows: Sequence[LedgerRow]) -> tuple[LedgerRow, ...]:
    """What is in the schema, in the order in which it came."""
    return tuple(sorted((row for row in rows if row.counts), key=lambda row: row.seq))


def edited(rows: Sequence[LedgerRow]) -> tuple[LedgerRow, ...]:
    """Rows that somebody has changed by hand."""
    return tuple(row for row in rows if row.check != row.checksum())


def mismatches(offered: Sequence[Offered], rows: Sequence[LedgerRow]) -> tuple[Mismatch, ...]:
    """What keeps a release's migrations from following on what is applied."""
    applied = {row.id: row for row in standing(rows)}
    known = {row.id for row in rows}
    found: list[Mismatch] = []
    newest = max((_number(row.id) for row in applied.values()), default=0)
    for one in offered:
        row = applied.get(one.id)
        if row is not None:
            found += _edited_after(one, row)
            continue
        replaced = [old for old in one.replaces if old in applied]
        if replaced and len(replaced) < len(one.replaces):
            missing = ", ".join(sorted(set(one.replaces) - set(replaced)))
            found.append(Mismatch(one.id, f"replaces {missing}, not applied here", "apply those first"))
        elif one.number < newest and one.id not in known and not replaced:
            later = max(applied, key=_number)
            what = f"comes before {later}, which is applied already"
            found.append(Mismatch(one.id, what, "give it the next free number"))
    return tuple(found)


def _number(id_: str) -> int:
    return int(id_.partition("_")[0])


def _edited_after(one: Offered, row: LedgerRow) -> list[Mismatch]:
    if normalized(one.up) == normalized(row.up):
        return []
    if row.state is not RowState.APPLYING:
        todo = "bring the script back as it was, and write a new migration for what has to change"
        return [Mismatch(one.id, f"is not the script that was applied as r{row.release}", todo)]
    return []


def normalized(body: str) -> str:
    """A script without what editors change: line ends, and how many of them at its end."""
    return body.replace("\r\n", "\n").rstrip("\n")


# --- going on after a crash ------------------------------------------------------------------------


class Doubt(enum.StrEnum):
    """What became of the one statement whose end nobody saw."""

    DONE = "done"
    AGAIN = "again"
    """It left nothing, or leaves the same when it runs twice."""
    ASK = "ask"
    """The database does not show it: the verify script or a person has to say."""


#: Statements whose second run is as good as the first, or is refused if the first was done.
_HARMLESS = frozenset({"VACUUM", "ANALYZE", "REINDEX", "REFRESH", "CLUSTER", "CHECKPOINT", "PRAGMA"})
_VISIBLE = frozenset({"CREATE", "DROP", "ALTER"})


def doubt(row: LedgerRow, words: tuple[str, ...], fingerprint: str) -> Doubt:
    """Judge it by the schema as it is now. `words`: of the statement, as `statements.split` gives them."""
    if words[:1] and words[0] in _HARMLESS:
        return Doubt.AGAIN
    if words[:1] and words[0] in _VISIBLE:
        return Doubt.AGAIN if fingerprint == row.fp_now else Doubt.DONE
    return Doubt.ASK


def goes_on(row: LedgerRow, before: Sequence[str], after: Sequence[str]) -> bool:
    """Whether an edited script may go on: what is finished stands in it as it ran."""
    return list(before[: row.done]) == list(after[: row.done])


def leftover(catalog: Catalog, fingerprint: str) -> EntryKey | None:
    """The invalid index that an interrupted CREATE INDEX CONCURRENTLY has left; None: there is none.

    `fingerprint`: of the schema before that statement.
    """
    for key, traits in sorted(catalog.entries.items()):
        if key.kind is EntryKind.INDEX and traits.get("valid") == "no":
            others = {other: what for other, what in catalog.entries.items() if other != key}
            if replace(catalog, entries=others).fingerprint == fingerprint:
                return key
    return None

"""What a schema consists of, how two schemas differ, and who can live on the second. Pure.

A version number is not the schema: chains of migrations and fresh installations end in different ones under
the same number, reverts do nothing and say that they did. So schemas are compared themselves: each is the set
of its entries (tables, columns, indexes, ...), read from the database's own catalog and spelled alike.

From the difference that a migration made follows its phase (`core.migrations`): what only adds is an expand;
what takes away, or allows less, is a contract; what replaces one thing by another leaves no moment at which
both releases work. Where the difference cannot tell (a view's meaning), the proof with live releases does.

Invariants: the order of columns is no part of a fingerprint (after a drop and an add it never comes back),
but is known and compared by itself. Neighbours: `migrators` read catalogs; this judges them.
"""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from tidegate.core.migrations import MigrationPhase


class EntryKind(enum.StrEnum):
    """What an entry of a catalog is."""

    TABLE = "table"
    COLUMN = "column"
    """Of a table or a view. Traits: type, null (yes or no), default (empty: none), definition."""
    INDEX = "index"
    """Traits: columns, unique (yes or no), definition."""
    CONSTRAINT = "constraint"
    """Unique, primary or foreign key, check. Traits: conflict (yes: ON CONFLICT can name it)."""
    VIEW = "view"
    TRIGGER = "trigger"
    FUNCTION = "function"
    TYPE = "type"
    LABEL = "label"
    """Of an enumerated type."""
    SEQUENCE = "sequence"
    POLICY = "policy"
    """Which rows of a table who may see."""
    EXTENSION = "extension"
    SCHEMA = "schema"


@dataclass(frozen=True, slots=True, order=True)
class EntryKey:
    """Which entry it is."""

    kind: EntryKind
    owner: str
    """The table, view or type that it belongs to; empty for those themselves."""
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.owner}.{self.name}" if self.owner else f"{self.kind} {self.name}"


Traits = Mapping[str, str]
"""What an entry is like, each by a name."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """A schema at one moment."""

    entries: Mapping[EntryKey, Traits]
    orders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The columns of each table, as `SELECT *` gives them."""

    @property
    def fingerprint(self) -> str:
        """sha256 of all entries, in hexadecimal digits: equal for equal schemas, on any machine."""
        lines = sorted(
            json.dumps([key.kind, key.owner, key.name, sorted(traits.items())])
            for key, traits in self.entries.items()
        )
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class ChangeKind(enum.StrEnum):
    """What became of an entry."""

    APPEARED = "appeared"
    GONE = "gone"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Change:
    """One entry that is not as it was."""

    kind: ChangeKind
    key: EntryKey
    before: Traits = field(default_factory=dict)
    after: Traits = field(default_factory=dict)

    def __str__(self) -> str:
        if self.kind is not ChangeKind.CHANGED:
            return f"{self.key} {'is new' if self.kind is ChangeKind.APPEARED else 'is gone'}"
        names = sorted(self.before.keys() | self.after.keys())
        different = (name for name in names if self.before.get(name) != self.after.get(name))
        told = (
            f"{name} was {_shown(self.before, name)}, is {_shown(self.after, name)}" for name in different
        )
        return f"{self.key}: {'; '.join(told)}"


def _shown(traits: Traits, name: str) -> str:
    return traits.get(name) or "nothing"


def changes(before: Catalog, after: Catalog) -> tuple[Change, ...]:
    """What differs, by kind of entry, owner and name."""
    found: list[Change] = []
    for key in sorted(before.entries.keys() | after.entries.keys()):
        old, new = before.entries.get(key), after.entries.get(key)
        if old is None:
            found.append(Change(ChangeKind.APPEARED, key, after=new or {}))
        elif new is None:
            found.append(Change(ChangeKind.GONE, key, before=old))
        elif dict(old) != dict(new):
            found.append(Change(ChangeKind.CHANGED, key, old, new))
    return tuple(found)


def reordered(before: Catalog, after: Catalog) -> tuple[str, ...]:
    """Tables whose columns are the same in another order: `SELECT *` and INSERT without names notice."""
    return tuple(
        table
        for table, order in sorted(before.orders.items())
        if order != (now := after.orders.get(table, order)) and sorted(order) == sorted(now)
    )


# --- who can live on it ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finding:
    """Why a change has a phase."""

    phase: MigrationPhase
    subject: str
    """The entry, e.g. `column users.email`."""
    why: str
    """What it means for a release that runs."""

    def __str__(self) -> str:
        return f"{self.subject} {self.why}"


_STRICTNESS = (MigrationPhase.EXPAND, MigrationPhase.CONTRACT, MigrationPhase.BREAKING)


def stricter(one: MigrationPhase, other: MigrationPhase) -> MigrationPhase:
    """Of two phases that which asks for more."""
    return max(one, other, key=_STRICTNESS.index)


def findings(before: Catalog, after: Catalog) -> tuple[Finding, ...]:
    """What asks for more than an expand, and why. Nothing: both releases live on it."""
    found = changes(before, after)
    # What a new table brings along, and what an old one takes with it, harms nobody by itself.
    owners = {
        one.key.name
        for one in found
        if one.kind is not ChangeKind.CHANGED
        and one.key.kind in (EntryKind.TABLE, EntryKind.VIEW, EntryKind.TYPE)
    }
    return tuple(_findings([one for one in found if one.key.owner not in owners]))


def phase(before: Catalog, after: Catalog) -> MigrationPhase:
    """The mildest phase in which a migration may run that made this difference."""
    strictest = MigrationPhase.EXPAND
    for finding in findings(before, after):
        strictest = stricter(strictest, finding.phase)
    return strictest


#: Of the name that a table or column is given instead of being dropped.
TRASH: Final = "_trash_"
_FORBIDDING = (EntryKind.CONSTRAINT, EntryKind.POLICY)
_RELIED_ON = (*_FORBIDDING, EntryKind.FUNCTION, EntryKind.TRIGGER, EntryKind.TYPE)


def _findings(found: list[Change]) -> Iterator[Finding]:
    for change in found:
        if change.kind is ChangeKind.GONE:
            yield from _gone(change, found)
        elif change.kind is ChangeKind.APPEARED:
            yield from _appeared(change)
        else:
            yield from _changed(change)


def _gone(change: Change, found: list[Change]) -> Iterator[Finding]:
    """Taken away; where the like has appeared beside it, it may be the same under another name."""
    key = change.key
    if key.kind in (EntryKind.INDEX, EntryKind.CONSTRAINT):
        if "yes" in (change.before.get("conflict"), change.before.get("unique")):
            why = "is gone: INSERT ... ON CONFLICT of the old release needs it"
            yield Finding(MigrationPhase.CONTRACT, str(key), why)
        return
    twins = [
        other.key
        for other in found
        if other.kind is ChangeKind.APPEARED
        and (other.key.kind, other.key.owner) == (key.kind, key.owner)
        and key.kind in (EntryKind.TABLE, EntryKind.COLUMN, EntryKind.LABEL)
        and not _is_trash(other.key)
    ]
    if twins:
        why = f"is gone and {twins[0].name} is new: if it was renamed, no moment is right for both releases"
        yield Finding(MigrationPhase.BREAKING, str(key), why)
    else:
        yield Finding(MigrationPhase.CONTRACT, str(key), "is gone: the old release may use it")


def _is_trash(key: EntryKey) -> bool:
    """Whoever gives it such a name says that no release uses it any more: it can be had back whole."""
    return key.name.rpartition(".")[2].startswith(TRASH)


def _appeared(change: Change) -> Iterator[Finding]:
    """Added: harmless, unless it forbids what was allowed."""
    key, now = change.key, change.after
    if key.kind is EntryKind.COLUMN and now.get("null") == "no" and not now.get("default"):
        why = "is new, NOT NULL and without a default: the old release cannot insert rows any more"
        yield Finding(MigrationPhase.BREAKING, str(key), why)
    elif key.kind in _FORBIDDING or (key.kind is EntryKind.INDEX and now.get("unique") == "yes"):
        why = "is new: rows that the old release writes may be refused"
        yield Finding(MigrationPhase.CONTRACT, str(key), why)


def _changed(change: Change) -> Iterator[Finding]:
    """Altered: what allows more is harmless, what allows less is not."""
    key, old, now = change.key, change.before, change.after
    if key.kind is EntryKind.COLUMN:
        yield from _changed_column(str(key), old, now)
    elif key.kind is EntryKind.INDEX:
        if (old.get("unique"), now.get("unique")) != ("no", "no"):
            yield Finding(
                MigrationPhase.CONTRACT, str(key), "is another: it may refuse what the old one took"
            )
    elif key.kind is EntryKind.TABLE and old.get("security") == now.get("security"):
        return  # how it is stored
    elif key.kind is EntryKind.CONSTRAINT and dict(now) == {**old, "validated": "yes"}:
        return  # new rows were checked before, too
    elif key.kind in (*_RELIED_ON, EntryKind.TABLE):
        yield Finding(
            MigrationPhase.CONTRACT, str(key), "is another: the old release may rely on what it was"
        )


def _changed_column(subject: str, old: Traits, now: Traits) -> Iterator[Finding]:
    known = ("type", "null", "default")
    if all(old.get(name) == now.get(name) for name in known):
        yield Finding(MigrationPhase.CONTRACT, subject, "is defined otherwise: it may refuse what it took")
    if old.get("type") != now.get("type"):
        why = f"was {_shown(old, 'type')} and is {_shown(now, 'type')}: one of the releases reads it wrong"
        yield Finding(MigrationPhase.BREAKING, subject, why)
    if (old.get("null"), now.get("null")) == ("yes", "no"):
        yield Finding(
            MigrationPhase.CONTRACT, subject, "takes no NULL any more: the old release may write one"
        )
    if old.get("default") and not now.get("default"):
        yield Finding(
            MigrationPhase.CONTRACT, subject, "has no default any more: the old release may rely on it"
        )

"""What trying a migration out has shown: up, down, compared; up again, compared. Pure.

A revert that ends without an error proves nothing: many do nothing at all, and say that they did. So what
counts is the schema and the rows before and after, on a copy with rows in every table.

Neighbours: `migrators.trials` tries, `core.catalogs` compares schemas, `core.migrations` plans with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tidegate.core import catalogs
from tidegate.core.catalogs import Catalog
from tidegate.core.migrations import MigrationPhase, Revert


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """What a table holds, or how far a sequence is, so that two moments can be compared."""

    count: int
    digest: str
    """Of all rows, whatever their order: equal for equal rows in columns of the same names."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """The same of each column alone, to name the one that differs."""
    position: int | None = None
    """Of a sequence: a later one loses nothing, an earlier one hands out numbers again."""


Contents = Mapping[str, Rows]
"""By table or sequence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A database, as it is once."""

    catalog: Catalog
    contents: Contents


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What was seen. Later moments are None where an earlier step failed, or there is no script."""

    before: Moment
    applied: Moment | None = None
    reverted: Moment | None = None
    again: Moment | None = None
    failure: str = ""
    """Of the first step that failed."""
    no_way_back: str = ""
    """The author's reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialResult:
    """What follows."""

    applies: bool
    """The up script works at all."""
    phase: MigrationPhase
    """As observed."""
    why_phase: tuple[str, ...]
    """What asks for it, a sentence each."""
    revert: Revert
    why: str = ""
    """What is wrong with the way back, for people; empty: nothing."""
    reordered: tuple[str, ...] = ()
    """Tables whose columns come back in another order."""


def judge(trial: Trial) -> TrialResult:
    """The class of a migration's way back, and its phase."""
    if trial.applied is None:
        return TrialResult(
            applies=False,
            phase=MigrationPhase.BREAKING,
            why_phase=(),
            revert=Revert.BROKEN,
            why=f"it cannot be applied: {trial.failure}",
        )
    before, applied = trial.before.catalog, trial.applied.catalog
    revert, why = _way_back(trial, trial.applied)
    return TrialResult(
        applies=True,
        phase=catalogs.phase(before, applied),
        why_phase=tuple(str(one) for one in catalogs.findings(before, applied)),
        revert=revert,
        why=why,
        reordered=catalogs.reordered(before, trial.reverted.catalog) if trial.reverted else (),
    )


def _way_back(trial: Trial, applied: Moment) -> tuple[Revert, str]:
    if trial.no_way_back:
        return Revert.NONE, trial.no_way_back
    if trial.reverted is None:
        return Revert.BROKEN, f"the revert fails: {trial.failure}"
    fake = _fake(trial.before, applied, trial.reverted)
    if fake:
        return Revert.FAKE, fake
    if trial.again is None:
        return Revert.BROKEN, f"after the revert it cannot be applied again: {trial.failure}"
    other = catalogs.changes(applied.catalog, trial.again.catalog)
    if other:
        return Revert.BROKEN, f"applied again it ends in another schema: {_listed(other)}"
    lost = losses(trial.before.contents, trial.reverted.contents)
    if lost:
        return Revert.LOSSY, f"rows are not as before: {'; '.join(lost)}"
    return Revert.EXACT, ""


def _fake(before: Moment, applied: Moment, reverted: Moment) -> str:
    """Why a revert that ended well has not reverted; empty: it has."""
    left = catalogs.changes(before.catalog, reverted.catalog)
    if left and not catalogs.changes(applied.catalog, reverted.catalog):
        return f"the revert does nothing: {_listed(left)}"
    if left:
        return f"the revert leaves something behind: {_listed(left)}"
    of_rows = not catalogs.changes(before.catalog, applied.catalog)
    changed = losses(before.contents, applied.contents)
    if of_rows and changed and not losses(applied.contents, reverted.contents):
        return f"the revert does nothing: {'; '.join(changed)}"
    return ""


_LISTED = 3


def _listed(changes: tuple[catalogs.Change, ...]) -> str:
    more = f"; and {len(changes) - _LISTED} more" if len(changes) > _LISTED else ""
    return "; ".join(str(one) for one in changes[:_LISTED]) + more


def losses(before: Contents, after: Contents) -> tuple[str, ...]:
    """What is not as it was in the tables of before, a clause each."""
    return tuple(
        clause
        for name, rows in sorted(before.items())
        for clause in (_loss(name, rows, after.get(name)),)
        if clause
    )


def _loss(name: str, rows: Rows, now: Rows | None) -> str:
    if now is None:
        return f"{name} is gone"
    if rows.position is not None:
        back = now.position is not None and now.position < rows.position
        return f"{name} hands out numbers again from {now.position}" if back else ""
    if now.count != rows.count:
        return f"{name} has {now.count} rows, had {rows.count}"
    if now.digest == rows.digest:
        return ""
    columns = [one for one, digest in sorted(rows.columns.items()) if now.columns.get(one) != digest]
    return f"{name} has other values in {', '.join(columns)}" if columns else f"{name} has other rows"

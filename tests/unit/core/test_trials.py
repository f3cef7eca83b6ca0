"""Trying a migration out: what counts is the schema and the rows before and after."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tidegate.core import trials
from tidegate.core.catalogs import Catalog, EntryKey, EntryKind
from tidegate.core.migrations import MigrationPhase, Revert
from tidegate.core.trials import Moment, Rows, Trial

ROWS = Rows(count=2, digest="d", columns={"a": "1", "b": "2"})


def moment(*labels: str, rows: Rows = ROWS, order: tuple[str, ...] = ("a", "b")) -> Moment:
    """A table, and whatever else the schema has."""
    entries: dict[EntryKey, dict[str, str]] = {EntryKey(EntryKind.TABLE, "", "t"): {}}
    entries |= {EntryKey(EntryKind.LABEL, "mood", label): {} for label in labels}
    return Moment(catalog=Catalog(entries, {"t": order}), contents={"t": rows})


OLD, NEW, OTHER = moment(), moment("ok"), moment("ok", "sad")
FILLED = moment(rows=replace(ROWS, digest="e", columns={"a": "1", "b": "3"}))
GOOD = Trial(before=OLD, applied=NEW, reverted=OLD, again=NEW)


def lossy(rows: Rows) -> Trial:
    return replace(GOOD, reverted=moment(rows=rows))


CASES = {
    "exact": (GOOD, Revert.EXACT, ""),
    "no script": (replace(GOOD, no_way_back="rows merged"), Revert.NONE, "rows merged"),
    "revert fails": (
        Trial(before=OLD, applied=NEW, failure="no such column"),
        Revert.BROKEN,
        "the revert fails: no such column",
    ),
    "does nothing": (
        replace(GOOD, reverted=NEW),
        Revert.FAKE,
        "the revert does nothing: label mood.ok is new",
    ),
    "leaves a label behind": (
        Trial(before=OLD, applied=OTHER, reverted=NEW),
        Revert.FAKE,
        "the revert leaves something behind: label mood.ok is new",
    ),
    "takes more than it brought": (
        Trial(before=NEW, applied=OTHER, reverted=OLD),
        Revert.FAKE,
        "the revert leaves something behind: label mood.ok is gone",
    ),
    "leaves much behind": (
        Trial(before=OLD, applied=moment(*"abcdef"), reverted=moment(*"abcde")),
        Revert.FAKE,
        "label mood.c is new; and 2 more",
    ),
    "cannot be applied again": (
        replace(GOOD, again=None, failure="exists"),
        Revert.BROKEN,
        "after the revert it cannot be applied again: exists",
    ),
    "ends elsewhere": (
        replace(GOOD, again=OTHER),
        Revert.BROKEN,
        "applied again it ends in another schema: label mood.sad is new",
    ),
    "fewer rows": (lossy(Rows(count=1, digest="x")), Revert.LOSSY, "t has 1 rows, had 2"),
    "other values": (
        lossy(Rows(count=2, digest="x", columns={"a": "1", "b": "9"})),
        Revert.LOSSY,
        "t has other values in b",
    ),
    "values changed places": (
        lossy(replace(ROWS, digest="x")),
        Revert.LOSSY,
        "rows are not as before: t has other rows",
    ),
    "rows filled and emptied again": (
        Trial(before=OLD, applied=FILLED, reverted=OLD, again=FILLED),
        Revert.EXACT,
        "",
    ),
    "rows stay filled": (
        Trial(before=OLD, applied=FILLED, reverted=FILLED, again=FILLED),
        Revert.FAKE,
        "the revert does nothing: t has other values in b",
    ),
    "nothing to do": (Trial(before=OLD, applied=OLD, reverted=OLD, again=OLD), Revert.EXACT, ""),
}


@pytest.mark.parametrize(("trial", "revert", "why"), CASES.values(), ids=CASES.keys())
def test_way_back_has_its_class_and_says_why(trial: Trial, revert: Revert, why: str) -> None:
    """By what was seen."""
    result = trials.judge(trial)
    assert (result.applies, result.revert) == (True, revert)
    assert why in result.why
    assert bool(why) == bool(result.why)


def test_migration_that_cannot_be_applied_says_so() -> None:
    """There is no phase to be seen then: the worst is assumed."""
    result = trials.judge(Trial(before=OLD, failure="line 3: no such table"))
    assert (result.applies, result.phase) == (False, MigrationPhase.BREAKING)
    assert result.why == "it cannot be applied: line 3: no such table"


def test_phase_is_what_was_observed() -> None:
    """With what asks for it."""
    assert trials.judge(GOOD).phase is MigrationPhase.EXPAND
    result = trials.judge(Trial(before=NEW, applied=OLD, reverted=NEW, again=OLD))
    assert (result.phase, result.revert) == (MigrationPhase.CONTRACT, Revert.EXACT)
    assert result.why_phase == ("label mood.ok is gone: the old release may use it",)


def test_order_of_columns_is_told_and_is_no_fault() -> None:
    """It never comes back after a drop and an add."""
    result = trials.judge(replace(GOOD, reverted=moment(order=("b", "a"))))
    assert (result.revert, result.reordered) == (Revert.EXACT, ("t",))


@pytest.mark.parametrize(
    ("now", "told"),
    [
        (None, ("s is gone",)),
        (8, ("s hands out numbers again from 8",)),
        (9, ()),
        (12, ()),
    ],
)
def test_sequence_may_go_on_and_not_back(now: int | None, told: tuple[str, ...]) -> None:
    """A number that was handed out twice is a lost row sooner or later."""
    before = {"s": Rows(count=1, digest="", position=9)}
    after = {"s": Rows(count=1, digest="", position=now)} if now is not None else {}
    assert trials.losses(before, after) == told

"""What follows from a ledger: what is applied, what was edited, what may follow, what a crash has left."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tidegate.core import ledgers
from tidegate.core.catalogs import Catalog, EntryKey, EntryKind
from tidegate.core.ledgers import Doubt, LedgerRow, Offered, RowState
from tidegate.core.migrations import MigrationPhase

SCHEMA = Catalog({EntryKey(EntryKind.TABLE, "", "t"): {}})


def row(seq: int, id_: str, state: RowState = RowState.APPLIED, up: str = "SELECT 1;") -> LedgerRow:
    made = LedgerRow(
        seq=seq, app="shop", id=id_, state=state, phase=MigrationPhase.EXPAND, up=up, release=seq
    )
    return made.checked()


def offer(id_: str, up: str = "SELECT 1;", replaces: tuple[str, ...] = ()) -> Offered:
    return Offered(id=id_, number=int(id_[:4]), up=up, replaces=replaces)


def told(offered: list[Offered], rows: list[LedgerRow]) -> list[tuple[str, str]]:
    return [(one.id, one.what) for one in ledgers.mismatches(offered, rows)]


def test_what_stands_is_what_was_not_reverted_or_replaced() -> None:
    """In the order in which it came, half done rows included."""
    rows = [
        row(4, "0004_d", RowState.REVERTING),
        row(1, "0001_a"),
        row(2, "0002_b", RowState.REVERTED),
        row(3, "0003_c", RowState.APPLYING),
        row(5, "0005_e", RowState.REPLACED),
    ]
    assert [one.id for one in ledgers.standing(rows)] == ["0001_a", "0003_c", "0004_d"]
    assert [one.unfinished for one in ledgers.standing(rows)] == [False, True, True]


@pytest.mark.parametrize(
    "change", [{"down": "SELECT 2;"}, {"state": RowState.REVERTED}, {"release": 9}, {"check": ""}]
)
def test_row_that_was_edited_is_found(change: dict[str, object]) -> None:
    """Whatever of it."""
    good = row(1, "0001_a")
    assert ledgers.edited([good, replace(good, **change)]) == (replace(good, **change),)  # type: ignore[arg-type]


def test_script_that_was_applied_stays_as_it_was() -> None:
    """Line ends do not count; a script that is half done may be mended."""
    applied, half = row(1, "0001_a"), row(2, "0002_b", RowState.APPLYING)
    same = [offer("0001_a", "SELECT 1;\r\n\n"), offer("0002_b", "SELECT 2;")]
    assert told(same, [applied, half]) == []
    assert told([offer("0001_a", "SELECT 2;")], [applied]) == [
        ("0001_a", "is not the script that was applied as r1")
    ]


def test_new_migration_comes_after_what_is_applied() -> None:
    """Unless it was here before, and was reverted out of order."""
    rows = [row(1, "0001_a"), row(2, "0003_c"), row(3, "0002_b", RowState.REVERTED)]
    assert told([offer("0001_a"), offer("0002_b"), offer("0003_c"), offer("0004_d")], rows) == []
    assert told([offer("0002_x")], rows) == [("0002_x", "comes before 0003_c, which is applied already")]


def test_squashed_migration_follows_all_of_its_parts_or_none() -> None:
    """Some of them cannot be told from none."""
    squashed = offer("0001_all", replaces=("0001_a", "0002_b"))
    assert told([squashed], [row(1, "0001_a"), row(2, "0002_b")]) == []
    assert told([squashed], []) == []
    assert told([squashed], [row(1, "0001_a")]) == [("0001_all", "replaces 0002_b, not applied here")]


@pytest.mark.parametrize(
    ("words", "fingerprint", "doubt"),
    [
        (("VACUUM",), "x", Doubt.AGAIN),
        (("CREATE", "INDEX"), "before", Doubt.AGAIN),
        (("CREATE", "INDEX"), "x", Doubt.DONE),
        (("CALL",), "before", Doubt.ASK),
        (("CALL",), "x", Doubt.ASK),
        ((), "x", Doubt.ASK),
    ],
)
def test_doubt_is_settled_by_what_the_schema_shows(
    words: tuple[str, ...], fingerprint: str, doubt: Doubt
) -> None:
    """What it does not show is asked; what can be repeated is."""
    half = replace(row(1, "0001_a", RowState.APPLYING), doubtful=True, fp_now="before")
    assert ledgers.doubt(half, words, fingerprint) is doubt


def test_edited_script_goes_on_where_what_ran_is_unchanged() -> None:
    """What comes after may be another."""
    half = replace(row(1, "0001_a", RowState.APPLYING), done=2)
    assert ledgers.goes_on(half, ["a", "b", "c"], ["a", "b", "d", "e"])
    assert not ledgers.goes_on(half, ["a", "b", "c"], ["a", "x", "c"])
    assert not ledgers.goes_on(half, ["a", "b", "c"], ["a"])


def test_only_the_index_that_is_new_is_a_leftover() -> None:
    """An index that was invalid before is not of this statement."""

    def index(name: str, valid: str) -> dict[EntryKey, dict[str, str]]:
        return {EntryKey(EntryKind.INDEX, "t", name): {"valid": valid}}

    old = Catalog({**SCHEMA.entries, **index("old", "no")})
    now = Catalog({**old.entries, **index("new", "no"), **index("fine", "yes")})
    before = Catalog({**old.entries, **index("fine", "yes")})
    assert ledgers.leftover(now, before.fingerprint) == EntryKey(EntryKind.INDEX, "t", "new")
    assert ledgers.leftover(now, SCHEMA.fingerprint) is None
    assert ledgers.leftover(SCHEMA, SCHEMA.fingerprint) is None

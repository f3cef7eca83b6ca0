"""Two schemas are compared entry by entry, and the difference says who can live on the second."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.core import catalogs
from tidegate.core.catalogs import Catalog, EntryKey, EntryKind, Traits
from tidegate.core.migrations import MigrationPhase

K = EntryKind
E, C, B = MigrationPhase.EXPAND, MigrationPhase.CONTRACT, MigrationPhase.BREAKING
COLUMN = {"type": "int", "null": "yes", "default": "", "definition": "n int"}
ONE = COLUMN | {"default": "1"}


def one(kind: EntryKind, traits: Traits, owner: str = "t", name: str = "n") -> Catalog:
    return Catalog({EntryKey(kind, owner, name): traits})


NOTHING = Catalog({})
CASES: list[tuple[str, Catalog, Catalog, MigrationPhase]] = [
    ("function gone", one(K.FUNCTION, {}, ""), NOTHING, C),
    ("function new", NOTHING, one(K.FUNCTION, {}, ""), E),
    ("function changed", one(K.FUNCTION, {"body": "1"}, ""), one(K.FUNCTION, {"body": "2"}, ""), C),
    ("sequence gone", one(K.SEQUENCE, {}, ""), NOTHING, C),
    ("sequence changed", one(K.SEQUENCE, {"by": "1"}, ""), one(K.SEQUENCE, {"by": "2"}, ""), E),
    ("view changed", one(K.VIEW, {"sql": "1"}, ""), one(K.VIEW, {"sql": "2"}, ""), E),
    ("label new", NOTHING, one(K.LABEL, {}), E),
    ("label gone", one(K.LABEL, {}), NOTHING, C),
    ("label renamed", one(K.LABEL, {}), one(K.LABEL, {}, name="m"), B),
    ("key gone", one(K.CONSTRAINT, {"conflict": "yes"}), NOTHING, C),
    ("check gone", one(K.CONSTRAINT, {"conflict": "no"}), NOTHING, E),
    ("check changed", one(K.CONSTRAINT, {"sql": "1"}), one(K.CONSTRAINT, {"sql": "2"}), C),
    ("check validated", one(K.CONSTRAINT, {"validated": "no"}), one(K.CONSTRAINT, {"validated": "yes"}), E),
    ("policy new", NOTHING, one(K.POLICY, {}), C),
    ("row security", one(K.TABLE, {}, ""), one(K.TABLE, {"security": "row security"}, ""), C),
    ("table logged", one(K.TABLE, {"persistence": "unlogged"}, ""), one(K.TABLE, {}, ""), E),
    ("index changed", one(K.INDEX, {"unique": "no", "x": "1"}), one(K.INDEX, {"unique": "no"}), E),
    ("unique gone", one(K.INDEX, {"unique": "yes"}), NOTHING, C),
    ("takes NULL", one(K.COLUMN, COLUMN | {"null": "no"}), one(K.COLUMN, COLUMN), E),
    ("gets a default", one(K.COLUMN, COLUMN), one(K.COLUMN, ONE), E),
    ("another default", one(K.COLUMN, ONE), one(K.COLUMN, ONE | {"default": "2"}), E),
    ("two columns", one(K.COLUMN, COLUMN, "a"), one(K.COLUMN, COLUMN, "b"), C),
]


@pytest.mark.parametrize(
    ("before", "after", "phase"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_each_kind_of_change_has_its_phase(before: Catalog, after: Catalog, phase: MigrationPhase) -> None:
    """Those too that only some databases know."""
    assert catalogs.phase(before, after) is phase


def test_what_belongs_to_a_new_or_a_lost_owner_is_not_judged_by_itself() -> None:
    """A new table may have any column; of a lost one only the table is told."""
    table = {
        EntryKey(EntryKind.TABLE, "", "t"): {},
        EntryKey(EntryKind.COLUMN, "t", "n"): COLUMN | {"null": "no"},
    }
    assert catalogs.findings(NOTHING, Catalog(table)) == ()
    (found,) = catalogs.findings(Catalog(table), NOTHING)
    assert (found.subject, found.phase) == ("table t", C)


def test_stricter_of_two_phases() -> None:
    """Whichever comes first."""
    assert catalogs.stricter(E, C) is catalogs.stricter(C, E) is C
    assert catalogs.stricter(B, C) is catalogs.stricter(E, B) is B
    assert catalogs.stricter(E, E) is E


KEYS = st.builds(EntryKey, st.sampled_from(EntryKind), st.sampled_from(["", "t"]), st.sampled_from("ab"))
TRAITS = st.dictionaries(
    st.sampled_from(["type", "null", "unique"]), st.sampled_from(["yes", "no", ""]), max_size=2
)
CATALOGS = st.dictionaries(KEYS, TRAITS, max_size=4).map(Catalog)


@given(CATALOGS, CATALOGS)
def test_fingerprints_are_equal_exactly_when_nothing_changed(before: Catalog, after: Catalog) -> None:
    """And what there was no change of needs no phase."""
    same = before.fingerprint == after.fingerprint
    assert same is (not catalogs.changes(before, after))
    if same:
        assert catalogs.phase(before, after) is E


@given(CATALOGS)
def test_order_of_entries_is_no_part_of_a_fingerprint(catalog: Catalog) -> None:
    """Nor is the order of their traits."""
    entries = reversed(tuple(catalog.entries.items()))
    turned = {key: dict(reversed(tuple(traits.items()))) for key, traits in entries}
    assert Catalog(turned).fingerprint == catalog.fingerprint


def test_columns_that_came_or_went_are_not_called_reordered() -> None:
    """That is told as what it is."""
    before = Catalog({}, {"t": ("a", "b"), "gone": ("x",), "same": ("x",)})
    assert catalogs.reordered(before, Catalog({}, {"t": ("b", "a", "c"), "same": ("x",)})) == ()
    assert catalogs.reordered(before, Catalog({}, {"t": ("b", "a")})) == ("t",)

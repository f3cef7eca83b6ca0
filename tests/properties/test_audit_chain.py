"""The chain of the audit log: whatever is edited, what was touched is named, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tidegate import ports
from tidegate.store import audit_chain
from tidegate.store.audit_chain import Chain, Link, Value

KEY = b"k" * 32
TEXTS = st.text(max_size=6)
VALUES = st.tuples(
    st.floats(allow_nan=False),
    TEXTS,
    st.none() | st.integers(-(2**63), 2**63 - 1),
    TEXTS,
    st.none() | st.integers(0, 9),
)
LOGS = st.lists(VALUES, min_size=2, max_size=25)


def written(rows: Iterable[tuple[Value, ...]]) -> list[Link]:
    """The log as the control plane writes it."""
    links: list[Link] = []
    for sequence, values in enumerate(rows, 1):
        before = links[-1].mac if links else audit_chain.NOTHING
        links.append(Link(sequence, values, audit_chain.code(KEY, before, sequence, values)))
    return links


def found(links: list[Link], key: bytes = KEY) -> tuple[ports.AuditFault, ...]:
    """What a walk along it finds."""

    def near(first: int, last: int) -> list[tuple[int, bytes]]:
        return [(link.sequence, link.mac) for link in links if first <= link.sequence <= last]

    chain = Chain(key=key, near=near)
    chain.walk(links)
    return audit_chain.together(chain.faults)


def named(links: list[Link]) -> list[tuple[str, int, int]]:
    return [(fault.what, fault.first, fault.last) for fault in found(links)]


@given(rows=LOGS)
def test_an_untouched_log_has_no_fault(rows: list[Any]) -> None:
    """Whatever was written down; and with another key nothing fits."""
    assert named(written(rows)) == []
    (all_of_it,) = found(written(rows), b"another key")
    assert (all_of_it.what, all_of_it.first, all_of_it.last) == ("changed", 1, len(rows))


@given(rows=LOGS, data=st.data())
def test_a_changed_row_is_named_and_no_other(rows: list[Any], data: st.DataObject) -> None:
    """Any column of any row, or its code."""
    links = written(rows)
    at = data.draw(st.integers(0, len(links) - 1))
    link = links[at]
    column = data.draw(st.integers(-1, len(link.values) - 1))
    if column < 0:
        flipped = data.draw(st.integers(0, 255))
        mac = bytearray(link.mac)
        mac[flipped // 8] ^= 1 << flipped % 8
        links[at] = Link(link.sequence, link.values, bytes(mac))
    else:
        other = data.draw(st.one_of(VALUES.map(lambda row: row[column]), TEXTS, st.integers(0, 9)))
        values = (*link.values[:column], other, *link.values[column + 1 :])
        if audit_chain.code(KEY, b"", 0, values) == audit_chain.code(KEY, b"", 0, link.values):
            return  # it was not changed
        links[at] = Link(link.sequence, values, link.mac)
    assert named(links) == [("changed", at + 1, at + 1)]


@given(rows=LOGS, data=st.data())
def test_rows_that_were_taken_out_are_named(rows: list[Any], data: st.DataObject) -> None:
    """Anywhere but at the end, where the checkpoint misses them."""
    links = written(rows)
    first = data.draw(st.integers(0, len(links) - 2))
    last = data.draw(st.integers(first, len(links) - 2))
    assert named(links[:first] + links[last + 1 :]) == [("missing", first + 1, last + 1)]


@given(rows=LOGS, data=st.data())
def test_rows_that_changed_places_are_named(rows: list[Any], data: st.DataObject) -> None:
    """Two neighbours, each with the number of the other: the rest still stands where it stood."""
    links = written(rows)
    at = data.draw(st.integers(0, len(links) - 2))
    one, other = links[at], links[at + 1]
    links[at] = Link(one.sequence, other.values, other.mac)
    links[at + 1] = Link(other.sequence, one.values, one.mac)
    assert named(links) == [("moved", at + 1, at + 1), ("moved", at + 2, at + 2)]


@given(rows=LOGS, data=st.data())
def test_a_row_that_was_put_in_is_found(rows: list[Any], data: st.DataObject) -> None:
    """With the numbers of all later ones moved on, as a careful forger would."""
    links = written(rows)
    at = data.draw(st.integers(0, len(links)))
    forged = Link(at + 1, data.draw(VALUES), data.draw(st.binary(min_size=32, max_size=32)))
    later = [Link(link.sequence + 1, link.values, link.mac) for link in links[at:]]
    faults = named([*links[:at], forged, *later])
    assert faults[0] == ("changed", at + 1, at + 1)
    assert [fault for fault in faults[1:] if fault[0] != "moved"] == []


@given(one=VALUES, other=VALUES, sequence=st.integers(1, 9))
def test_no_two_rows_have_the_same_code(one: Any, other: Any, sequence: int) -> None:
    """Also when what stands in one column could stand in the next."""
    same = [repr(value) for value in one] == [repr(value) for value in other]
    codes = {audit_chain.code(KEY, b"", sequence, values) for values in (one, other)}
    assert (len(codes) == 1) == same

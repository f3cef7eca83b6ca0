"""Counts as bytes: exact both ways, small, and never half read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate import errors
from tidegate.store.series_cells import packed, unpacked

CELLS = st.dictionaries(st.integers(0, 2**40), st.integers(0, 2**62), max_size=20).map(
    lambda cells: tuple(sorted(cells.items()))
)


@given(CELLS)
def test_what_is_unpacked_was_packed(cells: tuple[tuple[int, int], ...]) -> None:
    """Any sorted cells come back as they were."""
    assert unpacked(packed(cells)) == cells


@given(st.binary(max_size=30))
def test_any_bytes_are_read_whole_or_refused(data: bytes) -> None:
    """Bytes that end in the middle of a number are damage, not a smaller number."""
    try:
        cells = unpacked(data)
    except errors.StorageError:
        return
    assert len(cells) * 2 == sum(byte < 0x80 for byte in data)


def test_neighbouring_buckets_take_two_or_three_bytes() -> None:
    """A histogram of a second is small."""
    assert len(packed(tuple((60 + bucket, 100) for bucket in range(40)))) == 80
    assert len(packed(tuple((60 + bucket, 1000) for bucket in range(40)))) == 120


@pytest.mark.parametrize("cells", [((2, 1), (1, 1)), ((1, -1),), ((-1, 1),)])
def test_what_cannot_be_packed_is_refused(cells: tuple[tuple[int, int], ...]) -> None:
    """Cells out of order, or below zero, are a mistake of the caller."""
    with pytest.raises(ValueError, match="sorted"):
        packed(cells)

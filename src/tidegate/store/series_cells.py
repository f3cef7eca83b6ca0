"""Counts by number (latency bucket, tick) as few bytes: pairs of variable-length integers.

Each cell is the distance of its number from the one before, and its count, seven bits a byte, lowest first,
the eighth bit set in all bytes but the last (LEB128). A histogram of 30 buckets in use takes about 60 to
90 bytes. Invariant: what is unpacked equals what was packed.

Neighbour: `series` stores them.
"""

from __future__ import annotations

from tidegate import errors
from tidegate.core.sequential import Counted

_MORE = 0x80
_BITS = 7


def packed(cells: Counted) -> bytes:
    """The cells, sorted by number, as bytes. ValueError if they are not sorted, or below zero."""
    out = bytearray()
    before = 0
    for number, count in cells:
        _append(out, number - before)
        _append(out, count)
        before = number
    return bytes(out)


def _append(out: bytearray, value: int) -> None:
    if value < 0:
        raise ValueError("cells must be sorted, and counts above zero")
    while value >= _MORE:
        out.append(value & (_MORE - 1) | _MORE)
        value >>= _BITS
    out.append(value)


def unpacked(data: bytes) -> Counted:
    """The cells of the bytes. Raises StorageError if nobody can have packed them."""
    values: list[int] = []
    value = shift = 0
    for byte in data:
        value |= (byte & (_MORE - 1)) << shift
        if byte & _MORE:
            shift += _BITS
            continue
        values.append(value)
        value = shift = 0
    if shift or len(values) % 2:
        raise errors.StorageError(
            "Stored counts are damaged: they end in the middle of a number.",
            hint="Releases and decisions are not touched. Check the disk.",
        )
    cells = []
    number = 0
    for distance, count in zip(values[::2], values[1::2], strict=True):
        number += distance
        cells.append((number, count))
    return tuple(cells)

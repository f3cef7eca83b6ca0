"""The chain of the audit log: what binds an entry to those before it, and what does not fit. Pure.

Each row has HMAC-SHA256 over the code of the row before it and everything in the row, its number included,
with a key that is not in the database. So who edits the database cannot make a row, change one, take one out
or give it another place, without a row that does not fit; only rows at the end can be taken away, and those
the checkpoint misses, which lies beside the key.

Invariant: what is named is the row that was touched, not those that only come after it. Neighbours: `audit`
reads and writes rows and the checkpoint.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from tidegate.core import words
from tidegate.ports import AuditFault

#: Of what the first row is bound to.
NOTHING: Final = bytes(32)
#: How far a row is looked for that has another place now.
NEAR: Final = 8
#: So many rows that do not fit are looked for everywhere near, and so many where the one before was: where
#: more do not fit, the first ones say what happened.
CLOSELY: Final = 50
FAULTS_MAX: Final = 1000

Value = int | float | bytes | str | None


@dataclass(frozen=True, slots=True)
class Link:
    """One row of the log: its number, the other columns, its code."""

    sequence: int
    values: tuple[Value, ...]
    mac: bytes


def code(key: bytes, before: bytes, sequence: int, values: tuple[Value, ...]) -> bytes:
    """The code of a row after one that has the code `before`."""
    made = hmac.new(key, digestmod=hashlib.sha256)
    for part in (b"tidegate audit 1", before, sequence, *values):
        # With its kind and its length: no two rows are the same bytes.
        text = _bytes(part)
        made.update(struct.pack(">cI", text[:1], len(text)))
        made.update(text)
    return made.digest()


def checkpoint_code(key: bytes, count: int, mac: bytes) -> bytes:
    """Proves that the control plane saw the log with so many rows, and that code at its end."""
    return hmac.new(key, b"tidegate audit checkpoint 1" + struct.pack(">Q", count) + mac, "sha256").digest()


def _bytes(value: Value) -> bytes:
    match value:
        case None:
            return b"n"
        case int():
            return b"i%d" % value
        case float():
            return b"f" + struct.pack(">d", value)
        case str():
            return b"t" + value.encode()
        case _:
            return b"t" + bytes(value)


@dataclass(slots=True, kw_only=True)
class Chain:
    """A walk along the log, from its first row to its last."""

    key: bytes
    near: Callable[[int, int], Iterable[tuple[int, bytes]]]
    """Numbers and codes of the rows from the first to the last number."""
    last: int = 0
    mac: bytes = NOTHING
    faults: list[AuditFault] = field(default_factory=list)
    _would_be: bytes = NOTHING
    """The code that the last row should have: the next one is bound to it, if only that code was changed."""
    _known: bool = True
    _shift: int = 0

    def walk(self, links: Iterable[Link]) -> None:
        """Go on along these rows."""
        for link in links:
            self._step(link)

    def _step(self, link: Link) -> None:
        if link.sequence != self.last + 1:
            self._fault(self.last + 1, link.sequence - 1, "missing", "was taken out")
            self._known = False  # what this row is bound to is not there any more
        made = code(self.key, self.mac, link.sequence, link.values)
        fits = hmac.compare_digest(made, link.mac)
        if not fits and self._would_be != self.mac:
            again = code(self.key, self._would_be, link.sequence, link.values)
            fits = hmac.compare_digest(again, link.mac)
        if not fits and self._known:
            self._look_closely(link)
        self.last, self.mac = link.sequence, link.mac
        self._would_be, self._known = (link.mac if fits or not self._known else made), True

    def _look_closely(self, link: Link) -> None:
        place = self._place(link)
        if place is None:
            self._fault(link.sequence, link.sequence, "changed", "is not what was written")
        elif place != link.sequence:
            self._shift = place - link.sequence
            way = "further on" if self._shift > 0 else "before"
            detail = f"was written {words.number(abs(self._shift), 'place')} {way}"
            self._fault(link.sequence, link.sequence, "moved", detail)

    def _place(self, link: Link) -> int | None:
        """The number that this row had when it was written, if it and the row before it are not far away."""
        if len(self.faults) > FAULTS_MAX:
            return None
        befores = {mac for _, mac in self.near(link.sequence - NEAR, link.sequence + NEAR)}
        befores |= {self._would_be, NOTHING}
        here = link.sequence
        places = [here, here + self._shift]  # where a row was taken out, all others moved as far
        if len(self.faults) < CLOSELY:
            places += sorted(range(here - NEAR, here + NEAR + 1), key=lambda place: abs(place - here))
        for place in places:
            for before in befores:
                if hmac.compare_digest(code(self.key, before, place, link.values), link.mac):
                    return place
        return None

    def _fault(self, first: int, last: int, what: str, detail: str) -> None:
        self.faults.append(AuditFault(first=first, last=max(first, last), what=what, detail=detail))


def together(faults: Iterable[AuditFault]) -> tuple[AuditFault, ...]:
    """Neighbours that have the same fault as one."""
    found: list[AuditFault] = []
    for fault in faults:
        before = found[-1] if found else None
        if before and (before.what, before.detail, before.last + 1) == (
            fault.what,
            fault.detail,
            fault.first,
        ):
            found[-1] = AuditFault(first=before.first, last=fault.last, what=fault.what, detail=fault.detail)
        else:
            found.append(fault)
    return tuple(found)

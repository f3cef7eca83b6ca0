"""The truth about schemas in a universe: what each migration adds and takes away, and who needs what.

Objects are numbers. A migration of an app that grows: an expand adds one, a contract takes away one that the
newest release does not use any more, a breaking one changes one for another in one go.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from tidegate.core import schemas
from tidegate.core.migrations import Migration, MigrationPhase, Revert

USE: Final = schemas.MigrationsUse(
    path="migrations/", database="DATABASE_URL", contract_after_s=20.0, hold_s=20
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a migration does to the objects."""

    adds: int | None = None
    drops: int | None = None


@dataclass(slots=True)
class History:
    """The line of development of an app: each release is built on the one before."""

    changes: dict[str, Change] = field(default_factory=dict)
    migrations: list[Migration] = field(default_factory=list)
    needs: dict[str, frozenset[int]] = field(default_factory=dict)
    """Of a release, by digest."""
    _objects: set[int] = field(default_factory=lambda: {0})
    _next: int = 1

    def release(self, number: int, digest: str, rng: random.Random) -> tuple[Migration, ...]:
        """The migrations of the next release, all of its predecessors' included."""
        for _ in range(rng.choice((0, 1, 1, 2))):
            self._migrate(number, rng)
        self.needs[digest] = frozenset(self._objects)
        return tuple(self.migrations)

    def _migrate(self, number: int, rng: random.Random) -> None:
        """One more."""
        phase = rng.choice((MigrationPhase.EXPAND, MigrationPhase.EXPAND, *MigrationPhase))
        drops = rng.choice(sorted(self._objects)) if phase is not MigrationPhase.EXPAND else None
        adds = self._next if phase is not MigrationPhase.CONTRACT else None
        if drops is not None and len(self._objects) == 1 and adds is None:
            return
        id_ = f"{len(self.migrations) + 1:04d}_{phase}"
        self.changes[id_] = Change(adds=adds, drops=drops)
        revert = rng.choice((Revert.EXACT,) * 8 + (Revert.LOSSY, Revert.NONE))
        self.migrations.append(Migration(id=id_, phase=phase, revert=revert, release=number, why="so"))
        if adds is not None:
            self._objects.add(adds)
            self._next += 1
        if drops is not None:
            self._objects.discard(drops)

    def objects(self, applied: Iterable[Migration]) -> frozenset[int]:
        """What is there when these are applied."""
        there = {0}
        for one in sorted(applied, key=lambda one: one.id):
            change = self.changes[one.id]
            there -= {change.drops} if change.drops is not None else set()
            there |= {change.adds} if change.adds is not None else set()
        return frozenset(there)

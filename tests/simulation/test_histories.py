"""Random histories of releases with migrations, against a database that knows who misses what.

The planner is told phases and what a release can stand; the database knows objects: what each migration adds
and takes, what each release needs. Nobody who serves may ever miss an object. Names are used again, so that
steps out of order fail in the rehearsal, as they would on a real copy.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from tidegate.core import migrations
from tidegate.core.migrations import Direction, Migration, MigrationPhase, Plan, Revert, Step, Target, Way

EXPAND, CONTRACT, BREAKING = MigrationPhase.EXPAND, MigrationPhase.CONTRACT, MigrationPhase.BREAKING
#: Releases of a history; one before the first has no migrations.
LAST = 6


@dataclass(frozen=True, slots=True)
class Change:
    """What a migration really does."""

    adds: frozenset[str] = frozenset()
    takes: frozenset[str] = frozenset()


@dataclass(slots=True)
class Database:
    """Its objects, and who lives on it."""

    objects: set[str]
    needs: dict[int, frozenset[str]]
    live: set[int] = field(default_factory=set)
    broken: int = 0

    def do(self, change: Change, *, revert: bool = False) -> bool:
        """Whether it worked; then everybody who is live must find what they need."""
        adds, takes = (change.takes, change.adds) if revert else (change.adds, change.takes)
        if adds & self.objects or not takes <= self.objects:
            return False
        self.objects = (self.objects | adds) - takes
        self.look()
        return True

    def look(self) -> None:
        self.broken += sum(not self.needs[release] <= self.objects for release in self.live)


class History:
    """Releases 1 to n with what each needs and brings; a database that goes from one to the other."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.changes: dict[str, Change] = {}
        self.sets: dict[int, list[Migration]] = {}
        self.strict = {number: self.chance.random() < 0.4 for number in range(1, LAST + 1)}
        needs: dict[int, frozenset[str]] = {}
        objects, dropped, brought = {"o0", "o1", "o2"}, list[str](), list[Migration]()
        for release in range(1, LAST + 1):
            for _ in range(self.chance.randint(0, 3)):
                brought.append(self._migration(release, objects, dropped))
            self.sets[release] = list(brought)
            needs[release] = frozenset(objects)
        self.database = Database({"o0", "o1", "o2"}, needs)
        self.applied: list[Migration] = []
        self.now = 0
        self.warm = 0

    def _migration(self, release: int, objects: set[str], dropped: list[str]) -> Migration:
        name = f"m{len(self.changes) + 1}"
        phase = self.chance.choices((EXPAND, CONTRACT, BREAKING), (6, 3, 1))[0] if objects else EXPAND
        adds, takes = set[str](), set[str]()
        if phase is not EXPAND:
            takes.add(self.chance.choice(sorted(objects)))
        if phase is not CONTRACT:
            again = [one for one in dropped if one not in objects]
            adds.add(self.chance.choice(again) if again and self.chance.random() < 0.2 else f"o.{name}")
        objects -= takes
        objects |= adds
        dropped += takes
        self.changes[name] = Change(frozenset(adds), frozenset(takes))
        revert = self.chance.choices((Revert.EXACT, Revert.LOSSY, Revert.NONE), (90, 5, 5))[0]
        return Migration(id=name, phase=phase, revert=revert, release=release)

    def target(self, release: int) -> Target:
        return Target(
            release=release,
            migrations=tuple(self.sets[release]),
            starts_ahead=not self.strict[release],
            warm=self.warm == release,
        )

    def rehearsed(self, plan: Plan) -> bool:
        """Whether all its steps work on a copy on which nobody lives."""
        copy = Database(set(self.database.objects), {})
        return all(
            copy.do(self.changes[step.id], revert=step.direction is Direction.DOWN)
            for step in (*plan.before, *plan.held, *plan.after)
        )

    def run(self, todo: Sequence[Step]) -> None:
        """The same for real."""
        for step in todo:
            revert = step.direction is Direction.DOWN
            assert self.database.do(self.changes[step.id], revert=revert), (
                "the rehearsal has said that it works"
            )
            if revert:
                self.applied = [one for one in self.applied if one.id != step.id]
            else:
                self.applied.append(next(one for one in self.sets[LAST] if one.id == step.id))

    def ahead(self, release: int) -> set[str]:
        return {one.id for one in self.applied} - {one.id for one in self.sets[release]}

    def flip(self, release: int, *, held: bool) -> None:
        """Serve by another release; it starts, unless it is warm, and the one before stays warm."""
        database = self.database
        database.broken += bool(self.ahead(release) and self.strict[release] and self.warm != release)
        database.live.add(release)
        database.look()
        database.live = {release}
        self.warm, self.now = (0 if held else self.now), release

    def go(self, release: int) -> Way:
        """As planned, or as planned again after a rehearsal that failed."""
        live = tuple(one.id for one in self.sets[self.now]) if self.now else ()
        target = self.target(release)
        plan = migrations.plan(self.applied, target, live=live)
        if plan.way is not Way.REFUSED and not self.rehearsed(plan):
            plan = migrations.plan(self.applied, target, live=live, ordered=True)
        if plan.way is Way.REFUSED:
            assert {one.revert for one in plan.blocked} == {Revert.NONE}
            return plan.way
        if plan.held:
            self.database.live.clear()
            self.run(plan.held)
        elif plan.before and self.warm != release:
            self.warm = 0
        self.run(plan.before)
        self.flip(release, held=bool(plan.held))
        reverts = [step for step in plan.after if step.direction is Direction.DOWN]
        if plan.after and (reverts or self.chance.random() < 0.6):
            self.warm = 0
            self.run(plan.after if self.chance.random() < 0.6 else reverts)
        assert self.ahead(release) == set(plan.ahead)
        assert not (plan.ahead and self.strict[release]), "it could not start again"
        return plan.way

    def step(self) -> Way:
        """To another release, newer or older."""
        return self.go(self.chance.choice([one for one in range(1, LAST + 1) if one != self.now]))


HISTORIES = 4_000
STEPS = 6


def test_no_release_that_is_live_ever_misses_what_it_needs() -> None:
    """Over 4 000 random histories, forward and back, in every way: whoever serves finds their schema."""
    seen: Counter[Way] = Counter()
    for seed in range(HISTORIES):
        history = History(seed)
        for _ in range(STEPS):
            seen[history.step()] += 1
            assert history.database.broken == 0, f"seed {seed}"
    assert all(seen[way] > HISTORIES / 40 for way in Way), seen


@pytest.mark.parametrize("habit", ["flip only", "all reverts, then flip", "flip, then all reverts"])
def test_what_others_do_breaks_releases_in_the_same_histories(habit: str) -> None:
    """The same check finds harm in half of the rollbacks over several releases, so that it can find some."""
    harmed = tried = 0
    for seed in range(HISTORIES // 10):
        history = History(seed)
        history.go(4)
        there = {one.id for one in history.applied}
        history.run(
            [Step(id=one.id, direction=Direction.UP) for one in history.sets[4] if one.id not in there]
        )
        back_ = [
            Step(id=one.id, direction=Direction.DOWN) for one in reversed(history.applied) if one.release > 1
        ]
        tried += bool(back_)
        if habit == "all reverts, then flip":
            history.run(back_)
        history.strict[1] = False
        history.flip(1, held=False)
        if habit == "flip, then all reverts":
            history.run(back_)
        harmed += history.database.broken > 0
    assert tried > HISTORIES / 20
    assert harmed > 0.5 * tried

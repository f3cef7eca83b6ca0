"""Which migrations run when, on the way from one release to any other of the history. Pure.

A database has one schema, and for a while two releases live on it. From that follows everything here:

- *expand* only adds: both releases live on it, so it is applied before traffic and may stay when we go back.
- *contract* takes away what only older releases need: applied when those are gone, reverted before they
  return. Its revert only adds, so that the newer release survives it.
- *breaking* leaves no moment at which both releases work: users' requests are held meanwhile.

Going back therefore reverts contracts out of their order and leaves expands where they are, unless the target
does not start on a schema that is ahead of it. Reverting everything in reverse order, as migration tools do,
breaks the release that is live. Each plan is rehearsed on a copy first; where it fails there, or where a tool
knows one line of versions only, steps are `ordered`: nothing is passed over, and requests are held meanwhile.

Neighbours: `migrators` observe phases, prove reverts and run scripts; this decides which and when.
"""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass


class MigrationPhase(enum.StrEnum):
    """Who can live on the schema once it is applied."""

    EXPAND = "expand"
    CONTRACT = "contract"
    BREAKING = "breaking"


class Revert(enum.StrEnum):
    """What the proof has shown of the way back: up, down, compared; up again, compared."""

    EXACT = "exact"
    """Schema and rows are as before; at most the order of columns differs."""
    LOSSY = "lossy"
    """The schema is as before, rows are not."""
    FAKE = "fake"
    """It ends without an error and leaves the schema as it was, or half of it."""
    BROKEN = "broken"
    """It fails, or applying again after it does."""
    NONE = "none"
    """There is no script, and the author says why."""

    @property
    def works(self) -> bool:
        """It brings the schema back."""
        return self in (Revert.EXACT, Revert.LOSSY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Migration:
    """A pair of scripts of a release."""

    id: str
    phase: MigrationPhase
    revert: Revert
    release: int
    """The first that brought it."""
    why: str = ""
    """The author's reason why there is no way back, or what the proof has found."""
    applies: bool = True
    """False: the proof has shown that it cannot be applied at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A release to go to, with what is known of it on this database."""

    release: int
    migrations: tuple[Migration, ...] = ()
    """All that it was made for, in order."""
    starts_ahead: bool = False
    """Proved: it starts, and passes its checks, on a schema that has more than it knows."""
    warm: bool = False
    """Instances of it run, so that it need not start."""


class Way(enum.StrEnum):
    """How to get there, the gentlest first."""

    FLIP = "flip"
    """Traffic moves; nothing is reverted."""
    FLIP_THEN_REVERT = "flip-then-revert"
    """Traffic moves; then the schema follows, so that the target can start again."""
    REVERT_THEN_FLIP = "revert-then-flip"
    """What was taken away comes back, then traffic moves."""
    PAUSE = "pause"
    """Requests are held while the schema changes."""
    REFUSED = "refused"
    """A revert that is needed does not exist or does not work, or the schema is of another line."""


class Direction(enum.StrEnum):
    """Which script of a migration runs."""

    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A script to run."""

    id: str
    direction: Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The way to a release: what runs when, each in this order."""

    way: Way
    release: int
    before: tuple[Step, ...] = ()
    """While the old release serves, before the target gets its first user."""
    held: tuple[Step, ...] = ()
    """While requests are held and nobody is served; then there is no canary."""
    after: tuple[Step, ...] = ()
    """When nothing of the old release runs any more: reverts at once, contracts after the soak time."""
    ahead: tuple[str, ...] = ()
    """Stay applied, although the target does not know them; newest first."""
    lossy: tuple[str, ...] = ()
    """Of the reverts those that lose rows: somebody has to agree to each."""
    blocked: tuple[Migration, ...] = ()
    """Reverts that are needed and do not work: why it is refused."""
    foreign: tuple[Migration, ...] = ()
    """Older than the target, and unknown to it: it was made beside them, which is refused too."""

    @property
    def automatic(self) -> bool:
        """Tidegate may do it without asking: nobody waits, nothing is lost."""
        return self.way not in (Way.PAUSE, Way.REFUSED) and not self.lossy


def plan(
    applied: Sequence[Migration], target: Target, *, live: Collection[str] = (), ordered: bool = False
) -> Plan:
    """How to go to a release.

    `applied`: what the ledger has, oldest first; `live`: ids of what the release that is live knows;
    `ordered`: see the module.
    """
    there, known = {one.id for one in applied}, {one.id for one in target.migrations}
    extra = [one for one in reversed(applied) if one.id not in known]
    pending = [one for one in target.migrations if one.id not in there]
    foreign = tuple(one for one in extra if one.release < target.release)
    if foreign:
        return Plan(way=Way.REFUSED, release=target.release, ahead=_ids(extra), foreign=foreign)
    first, later = _reverts(extra, target, live, all_go=ordered and bool(pending))
    early, late = _applied(pending, live)
    breaking = any(one.phase is MigrationPhase.BREAKING for one in (*extra, *pending))
    passed_over = ordered and (first != extra[: len(first)] or [*early, *late] != pending)
    if breaking or passed_over or (later and not target.warm):
        # Expands that are older than all that has to go may stay, if the target starts on them.
        least = extra[: extra.index(first[-1]) + 1] if ordered and first else first
        held = extra if later or len(first) == len(extra) else least
        return _judged(Way.PAUSE, target, extra, held=(held, pending))
    way = Way.REVERT_THEN_FLIP if first else Way.FLIP_THEN_REVERT if later else Way.FLIP
    return _judged(way, target, extra, before=(first, early), after=(later, late))


def nearest(
    applied: Sequence[Migration], targets: Iterable[Target], wanted: int, *, live: Collection[str] = ()
) -> Plan | None:
    """The plan to the oldest release after the wanted one that can be reached; None: there is none."""
    newer = sorted((one for one in targets if one.release > wanted), key=lambda one: one.release)
    plans = (plan(applied, one, live=live) for one in newer)
    return next((one for one in plans if one.way is not Way.REFUSED), None)


_Migrations = Sequence[Migration]


def _reverts(
    extra: _Migrations, target: Target, live: Collection[str], *, all_go: bool
) -> tuple[list[Migration], list[Migration]]:
    """What is reverted before traffic moves, and what not before the old release has gone."""
    first, later = list[Migration](), list[Migration]()
    for one in extra:
        if one.phase is not MigrationPhase.EXPAND:
            first.append(one)
        elif all_go or not target.starts_ahead:
            (later if one.id in live else first).append(one)
    return first, later


def _applied(pending: _Migrations, live: Collection[str]) -> tuple[list[Migration], list[Migration]]:
    """What is applied before traffic, and what when the old release has gone.

    A contract that the live release knows takes nothing away from it: made up for, if more is built on it.
    """
    expands = [at for at, one in enumerate(pending) if one.phase is MigrationPhase.EXPAND]
    last = expands[-1] if expands else -1
    early = [
        one
        for at, one in enumerate(pending)
        if one.phase is MigrationPhase.EXPAND or (one.id in live and at < last)
    ]
    return early, [one for one in pending if one not in early]


def _judged(
    way: Way,
    target: Target,
    extra: _Migrations,
    *,
    before: tuple[_Migrations, _Migrations] = ((), ()),
    held: tuple[_Migrations, _Migrations] = ((), ()),
    after: tuple[_Migrations, _Migrations] = ((), ()),
) -> Plan:
    """The plan, unless a revert does not work. Each part: what is reverted, then what is applied."""
    reverts = [one for downs, _ in (before, held, after) for one in downs]
    blocked = tuple(one for one in reverts if not one.revert.works)
    if blocked:
        return Plan(way=Way.REFUSED, release=target.release, ahead=_ids(extra), blocked=blocked)
    return Plan(
        way=way,
        release=target.release,
        before=_steps(*before),
        held=_steps(*held),
        after=_steps(*after),
        ahead=tuple(one.id for one in extra if one not in reverts),
        lossy=tuple(one.id for one in reverts if one.revert is Revert.LOSSY),
    )


def _steps(downs: _Migrations, ups: _Migrations) -> tuple[Step, ...]:
    return (
        *(Step(id=one.id, direction=Direction.DOWN) for one in downs),
        *(Step(id=one.id, direction=Direction.UP) for one in ups),
    )


def _ids(migrations: _Migrations) -> tuple[str, ...]:
    return tuple(one.id for one in migrations)

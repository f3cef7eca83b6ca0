"""What a database and a release are to each other, found out without changing either.

Neighbours: `trials` tries out what nobody has tried on this schema, `core.migrations` plans with the study.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from tidegate import errors, ports
from tidegate.core.ledgers import LedgerRow, RowState
from tidegate.core.migrations import Migration, MigrationPhase, Revert
from tidegate.core.schemas import Proof, Study
from tidegate.migrators import trials
from tidegate.migrators.proofs import chain, key_of
from tidegate.migrators.runner import Runner
from tidegate.migrators.scripts import SqlMigration

#: Of what nobody has tried, where nothing is tried either.
UNTRIED = "not tried on this schema yet: a rollout does so before it begins"


@dataclass(frozen=True, slots=True, kw_only=True)
class Studied:
    """A study, with the proofs that it rests on."""

    study: Study
    proofs: tuple[Proof, ...]
    """Of what is not applied, in order, as far as it can be applied."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trier:
    """How what is not known is tried out, if it is."""

    url: str
    clock: ports.Clock
    jitter: Callable[[], float]
    known: Sequence[Proof] = ()
    tries: bool = True


def study(runner: Runner, migrations: Sequence[SqlMigration], trier: Trier) -> Studied:
    """Look at an open ledger, and try out what nobody has tried.

    Raises SchemaError: somebody else has changed the schema, or a script is half way; MigrationError: the
    scripts do not follow on what is applied; DatabaseError, MissingProgramError: nothing can be tried.
    """
    standing = runner.open()
    if standing.drifted:
        raise errors.SchemaError(
            "The schema is not as Tidegate left it: somebody else has changed it.",
            hint="`tide migrate status` shows it. Undo the change, or take the schema as it is: "
            "tide migrate adopt.",
        )
    runner.check(migrations)
    brought = {one.id for one in migrations}
    applied = [row for row in standing.applied if not _goes_on(row, brought)]
    _refuse_half(applied, brought)
    there = {row.id: row.migration for row in applied}
    half = {row.id: row.migration for row in standing.applied if row.id not in there}
    pending = [one for one in migrations if one.id not in there and one.id not in half]
    fence = runner.fenced()
    proofs = _proved(runner, pending, standing.fingerprint, trier)
    found = {one.id: _migration(one, proof, tried=trier.tries) for one, proof in zip_longest(pending, proofs)}
    return Studied(
        study=Study(
            applied=tuple(there.values()),
            offered=tuple({**found, **half, **there}[one.id] for one in migrations),
            fingerprint=standing.fingerprint,
            fence=fence,
        ),
        proofs=proofs,
    )


def _goes_on(row: LedgerRow, brought: set[str]) -> bool:
    """Half applied, and the release has it: applying it again goes on where it stopped."""
    return row.state is RowState.APPLYING and row.id in brought


def _refuse_half(rows: Sequence[LedgerRow], brought: set[str]) -> None:
    """What stopped half way goes on in its own direction only."""
    for row in rows:
        if row.state is RowState.APPLYING:
            todo = f"`tide deploy --release r{row.release}` goes on where it stopped."
        elif row.state is RowState.REVERTING and row.id in brought:
            todo = "A rollback to a release that does not have it goes on where it stopped."
        else:
            continue
        raise errors.SchemaError(
            f"{row.id} of r{row.release} is half way ({row.state}, {row.done} statements are done).",
            hint=todo,
        )


def _proved(
    runner: Runner, pending: Sequence[SqlMigration], fingerprint: str, trier: Trier
) -> tuple[Proof, ...]:
    known = chain(pending, fingerprint, {proof.key: proof for proof in trier.known})
    if len(known) == len(pending) or not trier.tries:
        return known
    tried = trials.tried(runner.session, trier.url, pending, trier.clock, trier.jitter)
    by_id = {one.id: one for one in pending}
    return tuple(_proof(by_id[one.id], one) for one in tried)


def _proof(migration: SqlMigration, tried: trials.Tried) -> Proof:
    up_sha, down_sha, fp_before = key_of(migration, tried.fp_before)
    return Proof(
        up_sha=up_sha,
        down_sha=down_sha,
        fp_before=fp_before,
        fp_after=tried.fp_after,
        phase=tried.result.phase,
        revert=tried.result.revert,
        why=tried.result.why,
    )


def _migration(one: SqlMigration, proof: Proof | None, *, tried: bool) -> Migration:
    if proof is None:
        return Migration(
            id=one.id,
            phase=one.phase or MigrationPhase.BREAKING,
            revert=Revert.BROKEN,
            release=0,
            why="not tried, as one before it cannot be applied" if tried else UNTRIED,
            applies=not tried,
        )
    return Migration(
        id=one.id,
        phase=proof.phase,
        revert=proof.revert,
        release=0,
        why=one.no_way_back or proof.why,
        applies=bool(proof.fp_after),
    )

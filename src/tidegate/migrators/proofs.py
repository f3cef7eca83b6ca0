"""What trying a migration out has shown, so that it need not be tried again on the same schema.

A proof is of two scripts and of the schema that they were tried on, all by their digests: another byte, or
another schema, and it says nothing. Neighbours: `trials` makes them, the control plane keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from tidegate.core.schemas import Proof
from tidegate.migrators.scripts import SqlMigration


class Proofs(Protocol):
    """Where they are kept."""

    def known(self) -> tuple[Proof, ...]:
        """All of them. Raises StorageError."""

    def keep(self, proofs: Sequence[Proof]) -> None:
        """Add what is new. Raises StorageError, FencedError."""


def key_of(migration: SqlMigration, fingerprint: str) -> tuple[str, str, str]:
    """By which a proof is found: of these scripts, on the schema with this fingerprint."""
    down = migration.down.sha256 if migration.down else ""
    return migration.up.sha256, down, fingerprint


def chain(
    migrations: Sequence[SqlMigration], fingerprint: str, known: Mapping[tuple[str, str, str], Proof]
) -> tuple[Proof, ...]:
    """The proofs of migrations that follow each other, as far as they are known."""
    found: list[Proof] = []
    for one in migrations:
        proof = known.get(key_of(one, fingerprint))
        if proof is None:
            break
        found.append(proof)
        fingerprint = proof.fp_after
    return tuple(found)

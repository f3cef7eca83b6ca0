"""What trying migrations out has shown, in the state's database.

Neighbours: `migrators.processes` asks, and brings what is new.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from pydantic import TypeAdapter

from tidegate import ports
from tidegate.core.schemas import Proof
from tidegate.store import codec, proofs_sql
from tidegate.store.sqlite import SqliteStore

_PROOF: Final[codec.Codec[Proof]] = codec.Codec(kind="proof", adapter=TypeAdapter(Proof))


class SqliteProofs:
    """Proofs over a store. Threads may share it."""

    def __init__(self, store: SqliteStore, lease: ports.Lease) -> None:
        self._store: Final = store
        self._lease: Final = lease

    def known(self) -> tuple[Proof, ...]:
        """All of them. Raises StorageError."""
        return tuple(_PROOF.decode(text) for (text,) in self._store.rows(proofs_sql.ALL, {}))

    def keep(self, proofs: Sequence[Proof]) -> None:
        """Add what is new, replace what was tried again. Raises StorageError, FencedError."""
        with self._store.transaction(self._lease) as connection:
            for proof in proofs:
                up_sha, down_sha, fp_before = proof.key
                row = {"up_sha": up_sha, "down_sha": down_sha, "fp_before": fp_before}
                connection.execute(proofs_sql.KEEP, {**row, "proof": _PROOF.encode(proof)})

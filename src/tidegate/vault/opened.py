"""The vault of one control plane: its parts, put together.

Neighbours: the daemon opens it, `web.vault` answers with it; each part explains itself in its own module.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from tidegate import errors
from tidegate.vault import origins, secrets
from tidegate.vault.keys import Keys
from tidegate.vault.redaction import Redactor
from tidegate.vault.statements import Seals


class Rows(secrets.Rows, origins.Rows, Protocol):
    """What the vault keeps in the state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vault:
    """Everything that needs a key."""

    keys: Keys
    seals: Seals
    secrets: secrets.SealedSecrets
    origins: origins.SignedOrigins
    redactor: Redactor

    @classmethod
    def open(
        cls, folder: Path, rows: Rows, redactor: Redactor, *, now: Callable[[], float], version: str
    ) -> Self:
        """`folder`: of the keys. `version`: of Tidegate. Raises StorageError."""
        keys = Keys(folder)
        seals = Seals(keys, version=version)
        return cls(
            keys=keys,
            seals=seals,
            secrets=secrets.SealedSecrets(rows, keys, now=now, known=redactor.add),
            origins=origins.SignedOrigins(rows, seals, now=now),
            redactor=redactor,
        )

    def learn(self) -> tuple[errors.TidegateError, ...]:
        """Before anything is shown: hear all values. What cannot be opened is answered."""
        return self.secrets.learn()

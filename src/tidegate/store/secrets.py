"""Sealed secrets and provenances in the state's database.

Holds what it is given and cannot read it: keys are elsewhere. Invariants: a version has its number before it
is sealed, because the number is sealed with it; sealing again replaces all of an environment's rows or none.
Neighbours: `secrets_sql` has the statements, `vault` seals and signs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from tidegate import ports
from tidegate.core.model import EnvironmentKey
from tidegate.store import secrets_sql
from tidegate.store.sqlite import Row, SqliteStore


class SqliteSecrets:
    """Rows of sealed secrets, and of provenances. Every call raises StorageError, StoreError."""

    def __init__(self, store: SqliteStore, lease: ports.Lease) -> None:
        """`lease`: without it nothing is written. FencedError tells that it is over."""
        self._store: Final = store
        self._lease: Final = lease

    # --- secrets ----------------------------------------------------------------------------------

    def add(
        self, key: EnvironmentKey, name: str, seal: Callable[[int], ports.Sealed], *, at: float, by: str
    ) -> int:
        """A new version, sealed by `seal` when its number is known; the number."""
        place = {**_place(key), "name": name}
        with self._store.transaction(self._lease) as connection:
            ((version,),) = connection.execute(secrets_sql.NEXT_VERSION, place).fetchall()
            sealed = seal(version)
            row = {"version": version, "key_id": sealed.key_id, "sealed": sealed.data, "at": at, "by": by}
            connection.execute(secrets_sql.ADD_VERSION, {**place, **row})
        return int(version)

    def all(self, key: EnvironmentKey) -> tuple[ports.SealedSecret, ...]:
        """Sorted by name and version."""
        return tuple(map(_sealed, self._store.rows(secrets_sql.VERSIONS, _place(key))))

    def one(self, key: EnvironmentKey, name: str, version: int) -> ports.SealedSecret | None:
        """One version."""
        values = {**_place(key), "name": name, "version": version}
        return next(map(_sealed, self._store.rows(secrets_sql.VERSION, values)), None)

    def places(self) -> tuple[EnvironmentKey, ...]:
        """Environments that have secrets, sorted."""
        rows = self._store.rows(secrets_sql.PLACES, {})
        return tuple(EnvironmentKey(app=app, environment=environment) for app, environment in rows)

    def remove(self, key: EnvironmentKey, name: str) -> int:
        """All versions; how many there were."""
        with self._store.transaction(self._lease) as connection:
            return len(connection.execute(secrets_sql.REMOVE, {**_place(key), "name": name}).fetchall())

    def seal_again(self, key: EnvironmentKey, seal: Callable[[ports.SealedSecret], ports.Sealed]) -> int:
        """Replace what is sealed of every version of an environment, or of none; how many there are."""
        with self._store.transaction(self._lease) as connection:
            found = [_sealed(row) for row in connection.execute(secrets_sql.VERSIONS, _place(key)).fetchall()]
            for secret in found:
                sealed, record = seal(secret), secret.record
                row = {"name": record.name, "version": record.version}
                connection.execute(
                    secrets_sql.SEAL_AGAIN,
                    {**_place(key), **row, "key_id": sealed.key_id, "sealed": sealed.data},
                )
        return len(found)

    # --- provenances ------------------------------------------------------------------------------

    def keep_provenance(self, app: str, number: int, provenance: ports.Provenance, *, at: float) -> None:
        """Of a release, in the place of what there was."""
        values = {
            "app": app,
            "number": number,
            "envelope": provenance.envelope,
            "manifest": provenance.manifest,
            "at": at,
        }
        with self._store.transaction(self._lease) as connection:
            connection.execute(secrets_sql.KEEP_PROVENANCE, values)

    def provenance(self, app: str, number: int) -> ports.Provenance | None:
        """Of a release, as it was signed."""
        rows = self._store.rows(secrets_sql.PROVENANCE, {"app": app, "number": number})
        found = [ports.Provenance(envelope=envelope, manifest=manifest) for envelope, manifest in rows]
        return found[0] if found else None


def _place(key: EnvironmentKey) -> dict[str, Any]:
    return {"app": key.app, "environment": key.environment}


def _sealed(row: Row) -> ports.SealedSecret:
    name, version, key_id, sealed, at, by = row
    record = ports.SecretRecord(name=name, version=version, at=at, by=by)
    return ports.SealedSecret(record=record, sealed=ports.Sealed(key_id=key_id, data=sealed))

"""What the tests of the vault have in common: rows in memory, and a release that is signed."""

from __future__ import annotations

from collections.abc import Callable

from tidegate import ports
from tidegate.core import model
from tidegate.core.model import EnvironmentKey

STAGING = EnvironmentKey(app="shop", environment="staging")
PRODUCTION = EnvironmentKey(app="shop", environment="production")
DIGEST = f"sha256:{'d' * 64}"
RELEASE = model.Release(
    app="shop",
    number=7,
    digest=DIGEST,
    environments=(),
    revision="a" * 40,
    created_at=1_800_000_000.0,
    created_by="ada",
)
MANIFEST = "app: shop\n"
ORIGIN = ports.Origin(
    manifest=MANIFEST,
    repository="https://example.com/shop.git",
    command="make dist",
    how="built",
    started=1_800_000_000.0,
    finished=1_800_000_060.0,
    materials=("pkg:pypi/flask@3.1",),
)


class MemoryRows:
    """Sealed secrets and provenances, open to be tampered with."""

    def __init__(self) -> None:
        self.secrets: dict[tuple[EnvironmentKey, str, int], ports.SealedSecret] = {}
        self.newest: dict[tuple[EnvironmentKey, str], int] = {}
        self.provenances: dict[tuple[str, int], ports.Provenance] = {}

    def add(
        self, key: EnvironmentKey, name: str, seal: Callable[[int], ports.Sealed], *, at: float, by: str
    ) -> int:
        version = self.newest[key, name] = self.newest.get((key, name), 0) + 1
        record = ports.SecretRecord(name=name, version=version, at=at, by=by)
        self.secrets[key, name, version] = ports.SealedSecret(record=record, sealed=seal(version))
        return version

    def all(self, key: EnvironmentKey) -> tuple[ports.SealedSecret, ...]:
        found = [secret for (place, _, _), secret in self.secrets.items() if place == key]
        return tuple(sorted(found, key=lambda one: (one.record.name, one.record.version)))

    def one(self, key: EnvironmentKey, name: str, version: int) -> ports.SealedSecret | None:
        return self.secrets.get((key, name, version))

    def places(self) -> tuple[EnvironmentKey, ...]:
        return tuple(sorted({key for key, _, _ in self.secrets}, key=str))

    def remove(self, key: EnvironmentKey, name: str) -> int:
        found = [place for place in self.secrets if place[:2] == (key, name)]
        for place in found:
            del self.secrets[place]
        return len(found)

    def seal_again(self, key: EnvironmentKey, seal: Callable[[ports.SealedSecret], ports.Sealed]) -> int:
        sealed = {place: seal(secret) for place, secret in self.secrets.items() if place[0] == key}
        for place, again in sealed.items():
            record = self.secrets[place].record
            self.secrets[place] = ports.SealedSecret(record=record, sealed=again)
        return len(sealed)

    def keep_provenance(self, app: str, number: int, provenance: ports.Provenance, *, at: float) -> None:
        self.provenances[app, number] = provenance

    def provenance(self, app: str, number: int) -> ports.Provenance | None:
        return self.provenances.get((app, number))

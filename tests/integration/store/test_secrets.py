"""Sealed secrets and provenances in a real database: whole or not at all, by the lease's holder alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tidegate import errors, ports
from tidegate.core import model
from tidegate.core.model import EnvironmentKey
from tidegate.store.secrets import SqliteSecrets
from tidegate.store.sqlite import SqliteStore

KEY = EnvironmentKey(app="shop", environment="production")
OTHER = EnvironmentKey(app="shop", environment="staging")
FIRST = ports.Provenance(envelope="{1}", manifest="app: shop\n")


def sealed(number: int) -> ports.Sealed:
    return ports.Sealed(key_id="1.abc", data=b"\0sealed %d" % number)


class World:
    """A store, and rows in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = SqliteStore(path, ballast_bytes=4096)
        self.lease = self.store.acquire("me", ttl_s=15.0)
        self.rows = SqliteSecrets(self.store, self.lease)

    def add(self, name: str, key: EnvironmentKey = KEY) -> int:
        return self.rows.add(key, name, sealed, at=7.5, by="ada")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path / "tidegate.db")
    with closing(made.store):
        yield made


def test_rows_survive_a_restart_as_they_were(world: World) -> None:
    """Bytes, names, times and people."""
    assert [world.add(name) for name in ("B", "A", "B")] == [1, 1, 2]
    world.add("A", OTHER)
    world.store.close()
    with closing(SqliteStore(world.path, ballast_bytes=4096)) as store:
        rows = SqliteSecrets(store, store.acquire("me", ttl_s=15.0))
        assert rows.all(KEY) == tuple(
            ports.SealedSecret(
                record=ports.SecretRecord(name=name, version=version, at=7.5, by="ada"),
                sealed=sealed(version),
            )
            for name, version in (("A", 1), ("B", 1), ("B", 2))
        )
        assert rows.places() == (KEY, OTHER)
        assert rows.one(KEY, "B", 2) == rows.all(KEY)[2]
        assert rows.one(KEY, "B", 3) is None


def test_version_that_could_not_be_sealed_is_not_there_and_takes_no_number(world: World) -> None:
    """All of it happens in one transaction."""

    def fails(version: int) -> ports.Sealed:
        raise errors.StorageError(f"no key for version {version}")

    with pytest.raises(errors.StorageError, match="no key for version 1"):
        world.rows.add(KEY, "A", fails, at=1.0, by="ada")
    assert world.rows.all(KEY) == ()
    assert world.add("A") == 1


def test_sealing_again_is_done_for_all_or_for_none(world: World) -> None:
    """Half of it would leave values for which no key is kept."""
    for name in ("A", "B", "C"):
        world.add(name)
    world.add("A", OTHER)
    before = world.rows.all(KEY)

    def fails_at_c(secret: ports.SealedSecret) -> ports.Sealed:
        if secret.record.name == "C":
            raise errors.SealError
        return replace(secret.sealed, key_id="2.new")

    with pytest.raises(errors.SealError):
        world.rows.seal_again(KEY, fails_at_c)
    assert world.rows.all(KEY) == before
    assert world.rows.seal_again(KEY, lambda secret: replace(secret.sealed, key_id="2.new")) == 3
    assert {secret.sealed.key_id for secret in world.rows.all(KEY)} == {"2.new"}
    assert world.rows.all(OTHER)[0].sealed.key_id == "1.abc"


def test_who_has_lost_the_lease_writes_nothing(world: World) -> None:
    """Another control plane may have taken over."""
    world.store.release_lease(world.lease)
    world.store.acquire("somebody else", ttl_s=15.0)
    writes: tuple[Callable[[], object], ...] = (
        lambda: world.add("A"),
        lambda: world.rows.remove(KEY, "A"),
        lambda: world.rows.seal_again(KEY, lambda secret: secret.sealed),
        lambda: world.rows.keep_provenance("shop", 1, FIRST, at=1.0),
    )
    for write in writes:
        with pytest.raises(errors.FencedError):
            write()
    assert world.rows.all(KEY) == ()


def test_provenance_is_of_a_release_that_is_there(world: World) -> None:
    """Kept, replaced by a newer word, and of no release that does not exist."""
    made = model.Release(app="shop", number=0, digest=f"sha256:{'1' * 64}", environments=())
    release = world.store.add_release(world.lease, made)
    assert world.rows.provenance("shop", release.number) is None
    world.rows.keep_provenance("shop", release.number, FIRST, at=1.0)
    assert world.rows.provenance("shop", release.number) == FIRST
    newer = replace(FIRST, envelope="{2}")
    world.rows.keep_provenance("shop", release.number, newer, at=2.0)
    assert world.rows.provenance("shop", release.number) == newer
    with pytest.raises(errors.TidegateError):
        world.rows.keep_provenance("shop", 99, FIRST, at=1.0)
    assert world.rows.provenance("blog", release.number) is None


def test_backup_has_what_is_sealed_and_nothing_else(world: World, tmp_path: Path) -> None:
    """A copy of the state is of no use without the keys."""
    world.add("A")
    world.store.backup(tmp_path / "copy.db")
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("select name, version, sealed from secrets").fetchall() == [
            ("A", 1, sealed(1).data)
        ]

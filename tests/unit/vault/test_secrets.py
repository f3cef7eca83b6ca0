"""Secrets: a value opens in its own place with its own key, and nowhere else; it is in no sentence."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.vault.made import DIGEST, PRODUCTION, STAGING, MemoryRows
from tidegate import errors, ports
from tidegate.core import model
from tidegate.core.model import EnvironmentKey
from tidegate.vault import secrets
from tidegate.vault.keys import Keys
from tidegate.vault.secrets import SealedSecrets

VALUE = b"correct horse battery staple"

names = st.text(st.characters(codec="utf-8"), max_size=12)
places = st.tuples(names, names, names, st.integers(1, 10**6))


class World:
    """Secrets over rows that a test may change behind their back."""

    def __init__(self, folder: Path) -> None:
        self.rows = MemoryRows()
        self.keys = Keys(folder)
        self.known: set[bytes] = set()
        self.secrets = SealedSecrets(self.rows, self.keys, now=lambda: 1.0, known=self.known.add)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def aad(place: tuple[str, str, str, int]) -> bytes:
    app, environment, name, version = place
    return secrets.place(EnvironmentKey(app=app, environment=environment), name, version)


@given(one=places, other=places)
def test_value_opens_in_its_own_place_alone(
    one: tuple[str, str, str, int], other: tuple[str, str, str, int]
) -> None:
    """Under whatever other app, environment, name or version: however their letters are shifted about."""
    aes, nonce = AESGCM(b"k" * 32), b"n" * 12
    sealed = aes.encrypt(nonce, VALUE, aad(one))
    assert aes.decrypt(nonce, sealed, aad(one)) == VALUE
    if one != other:
        with pytest.raises(InvalidTag):
            aes.decrypt(nonce, sealed, aad(other))


@given(
    place=st.tuples(st.sampled_from([STAGING, PRODUCTION]), st.sampled_from(["A", "B"]), st.integers(1, 2)),
    other=st.tuples(st.sampled_from([STAGING, PRODUCTION]), st.sampled_from(["A", "B"]), st.integers(1, 2)),
)
def test_exchanged_rows_are_found_and_said(
    place: tuple[EnvironmentKey, str, int], other: tuple[EnvironmentKey, str, int]
) -> None:
    """Whoever can write the database cannot give one program another one's value, nor yesterday's."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        for key in (STAGING, PRODUCTION):
            for name in ("A", "B"):
                for version in (1, 2):
                    world.secrets.set(key, name, f"{key} {name} {version}".encode())
        rows = world.rows.secrets
        rows[place] = replace(rows[place], sealed=rows[other].sealed)
        if place == other:
            assert world.secrets.open(*place).decode() == f"{place[0]} {place[1]} {place[2]}"
            return
        with pytest.raises(errors.SealError) as refused:
            world.secrets.open(*place)
        assert f"The secret {place[1]} version {place[2]} of {place[0]}" in refused.value.message


def test_staging_key_has_nothing_to_open_in_production(world: World) -> None:
    """Not even with its row, its key id and its place in production's key file."""
    world.secrets.set(STAGING, "TOKEN", VALUE)
    world.secrets.set(PRODUCTION, "TOKEN", b"another value")
    moved = world.rows.secrets[STAGING, "TOKEN", 1]
    world.rows.secrets[PRODUCTION, "TOKEN", 1] = moved
    with pytest.raises(errors.SealError, match="sealed with a key that is not here"):
        world.secrets.open(PRODUCTION, "TOKEN", 1)


def test_stolen_key_file_does_not_help_either(tmp_path: Path) -> None:
    """Production with staging's key in the place of its own still refuses staging's value."""
    world = World(tmp_path)
    world.secrets.set(STAGING, "TOKEN", VALUE)
    folder = tmp_path / "environments"
    (folder / "shop.production-1.key").write_bytes((folder / "shop.staging-1.key").read_bytes())
    (folder / "shop.production-1.key").chmod(0o600)
    world.rows.secrets[PRODUCTION, "TOKEN", 1] = world.rows.secrets[STAGING, "TOKEN", 1]
    with pytest.raises(errors.SealError, match="changed in the database, or put there from another place"):
        world.secrets.open(PRODUCTION, "TOKEN", 1)


def test_any_edited_byte_is_found(world: World) -> None:
    """Of the nonce, of what is sealed, of the tag; and a row that was cut short."""
    world.secrets.set(STAGING, "TOKEN", VALUE)
    row = world.rows.secrets[STAGING, "TOKEN", 1]
    data = row.sealed.data
    assert VALUE not in data
    edits = [data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in range(len(data))]
    for edit in [*edits, b"", data[:5], data[:12], data[:20], data + b"x"]:
        changed = ports.Sealed(key_id=row.sealed.key_id, data=edit)
        world.rows.secrets[STAGING, "TOKEN", 1] = replace(row, sealed=changed)
        with pytest.raises(errors.SealError):
            world.secrets.open(STAGING, "TOKEN", 1)


def test_same_value_is_never_sealed_the_same_way_twice(world: World) -> None:
    """Who reads the database does not see that two secrets are equal, nor that one was set again."""
    for _ in range(3):
        world.secrets.set(STAGING, "TOKEN", VALUE)
    assert len({row.sealed.data for row in world.rows.secrets.values()}) == 3
    assert len({row.sealed.data[:12] for row in world.rows.secrets.values()}) == 3


def test_rotation_seals_every_version_with_a_new_key_and_destroys_the_old_one(world: World) -> None:
    """Who had the old key opens nothing any more; a rollback still does."""
    for value in (b"one", b"two"):
        world.secrets.set(STAGING, "TOKEN", value)
    world.secrets.set(PRODUCTION, "TOKEN", VALUE)
    before = world.keys.sealing(STAGING)
    old = dict(world.rows.secrets)
    assert world.secrets.rotate(STAGING) == 2
    assert [world.secrets.open(STAGING, "TOKEN", version) for version in (1, 2)] == [b"one", b"two"]
    assert world.keys.sealing_with(STAGING, before.id) is None
    assert world.rows.secrets[PRODUCTION, "TOKEN", 1] == old[PRODUCTION, "TOKEN", 1]
    for place in ((STAGING, "TOKEN", 1), (STAGING, "TOKEN", 2)):
        data = world.rows.secrets[place].sealed.data
        with pytest.raises(InvalidTag):
            AESGCM(before.secret).decrypt(data[:12], data[12:], secrets.place(*place))


def test_rotation_that_cannot_open_a_value_changes_nothing(world: World) -> None:
    """Else the last key that opens the others would be destroyed."""
    world.secrets.set(STAGING, "GOOD", VALUE)
    world.secrets.set(STAGING, "TOKEN", VALUE)
    row = world.rows.secrets[STAGING, "TOKEN", 1]
    broken = replace(row, sealed=replace(row.sealed, data=b"x" * 40))
    world.rows.secrets[STAGING, "TOKEN", 1] = broken
    before = dict(world.rows.secrets)
    with pytest.raises(errors.SealError):
        world.secrets.rotate(STAGING)
    assert world.rows.secrets == before
    assert world.secrets.open(STAGING, "GOOD", 1) == VALUE


def test_lost_key_is_said_and_never_replaced_unseen(tmp_path: Path) -> None:
    """A new key has another id, so that what the old one sealed is not called tampered with."""
    world = World(tmp_path)
    world.secrets.set(STAGING, "TOKEN", VALUE)
    (tmp_path / "environments" / "shop.staging-1.key").unlink()
    for _ in range(2):
        with pytest.raises(errors.SealError, match="sealed with a key that is not here") as refused:
            world.secrets.open(STAGING, "TOKEN", 1)
        assert "backup" in str(refused.value.hint)
        world.secrets.set(STAGING, "OTHER", VALUE)


def test_instances_are_given_what_was_pinned(world: World) -> None:
    """That version of each, as text, and nothing that was not asked for."""
    for value in (b"one", "zw\u00f6lf\n".encode()):
        world.secrets.set(STAGING, "TOKEN", value)
    world.secrets.set(STAGING, "UNUSED", VALUE)
    group = model.InstanceGroup(
        key=STAGING,
        placement=1,
        service="web",
        release=1,
        digest=DIGEST,
        run=("./web",),
        serves=True,
        check=model.Check(kind=model.CheckKind.HTTP),
        instances=1,
        environment=(),
        limits=model.Limits(),
        grace_s=1.0,
        secrets=(model.SecretVersion(name="TOKEN", version=2),),
    )
    assert world.secrets.given(group) == {"TOKEN": "zw\u00f6lf\n"}
    elsewhere = replace(group, key=PRODUCTION)
    with pytest.raises(errors.NotFoundError, match="has no version 2 in shop/production"):
        world.secrets.given(elsewhere)


def test_every_value_is_told_to_who_hides_it(world: World) -> None:
    """When it is set, and after a restart; a value that cannot be opened does not keep others from it."""
    world.secrets.set(STAGING, "A", b"first value")
    world.secrets.set(PRODUCTION, "B", b"second value")
    assert world.known == {b"first value", b"second value"}
    again: set[bytes] = set()
    row = world.rows.secrets[PRODUCTION, "B", 1]
    world.rows.secrets[PRODUCTION, "C", 1] = replace(row, record=replace(row.record, name="C"))
    anew = SealedSecrets(world.rows, world.keys, now=lambda: 1.0, known=again.add)
    (failed,) = anew.learn()
    assert again == world.known
    assert "The secret C" in failed.message


@pytest.mark.parametrize(
    ("value", "why"),
    [(b"x" * (64 * 1024 + 1), "has 65537 bytes"), (b"\xff\xfe", "is no text"), (b"a\0b", "is no text")],
    ids=["long", "bytes", "zero"],
)
def test_refusal_of_a_value_does_not_say_it(world: World, value: bytes, why: str) -> None:
    """Neither in its sentence nor in what is chained to it."""
    with pytest.raises(errors.RequestError, match=why) as refused:
        world.secrets.set(STAGING, "TOKEN", value)
    assert refused.value.__cause__ is None
    assert world.rows.secrets == {}


def test_largest_value_is_sealed(world: World) -> None:
    """64 KiB: half of what Linux gives a program in one variable."""
    value = b"x" * secrets.VALUE_BYTES_MAX
    world.secrets.set(STAGING, "TOKEN", value)
    assert world.secrets.open(STAGING, "TOKEN", 1) == value


def test_there_is_a_most_of_secrets(world: World) -> None:
    """All of them are given to a program together; another version of one is no other secret."""
    for number in range(secrets.NAMES_MAX):
        world.secrets.set(STAGING, f"S{number}", b"x")
    with pytest.raises(errors.RequestError, match="which is the most"):
        world.secrets.set(STAGING, "MORE", b"x")
    assert world.secrets.set(STAGING, "S1", b"y") == 2


def test_name_that_is_none_is_not_echoed(world: World) -> None:
    """Somebody may have given the value where the name belongs."""
    with pytest.raises(errors.RequestError) as refused:
        world.secrets.set(STAGING, "hunter2 is my password", b"x")
    with pytest.raises(errors.NotFoundError) as unknown:
        world.secrets.remove(STAGING, "hunter2 is my password")
    assert "hunter2" not in str(refused.value) + str(unknown.value)

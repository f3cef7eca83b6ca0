"""Key files: made once and whole, refused when others could have had them, replaced without loss of proof."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa

from tidegate import errors
from tidegate.core.model import EnvironmentKey
from tidegate.vault.keys import Keys

STAGING = EnvironmentKey(app="shop", environment="staging")
PRODUCTION = EnvironmentKey(app="shop", environment="production")


def files(folder: Path) -> dict[str, int]:
    """Every file below a folder, with its mode."""
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def pem_of(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> str:
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def test_keys_are_made_when_they_are_first_asked_for_and_only_for_their_owner(tmp_path: Path) -> None:
    """Whatever the umask; nothing but keys is in the folder."""
    before = os.umask(0)
    try:
        keys = Keys(tmp_path / "keys")
        assert files(tmp_path) == {}
        keys.signer()
        keys.sealing(STAGING)
        keys.audit_key()
    finally:
        os.umask(before)
    assert files(tmp_path / "keys") == {
        "audit.key": 0o600,
        "environments/shop.staging-1.key": 0o600,
        "signing-1.pem": 0o600,
    }
    folders = [path for path in tmp_path.rglob("*") if path.is_dir()]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}


def test_keys_are_the_same_after_a_restart(tmp_path: Path) -> None:
    """They are read from their files, never made twice."""
    first, second = Keys(tmp_path), Keys(tmp_path)
    assert first.signer().public_key.keyid == second.signer().public_key.keyid
    assert first.sealing(STAGING).secret == second.sealing(STAGING).secret
    assert first.audit_key() == second.audit_key()
    assert len(first.audit_key()) == 32


def test_no_two_keys_are_alike(tmp_path: Path) -> None:
    """Not of two environments, nor of a dash more in a name, nor of two versions."""
    keys = Keys(tmp_path)
    odd = EnvironmentKey(app="shop", environment="production-1")
    found = [keys.sealing(place).secret for place in (STAGING, PRODUCTION, odd)]
    found += [keys.rotate_sealing(PRODUCTION).secret, keys.audit_key()]
    assert len(set(found)) == len(found)
    assert {len(secret) for secret in found} == {32}


def test_threads_that_ask_first_get_the_same_key(tmp_path: Path) -> None:
    """What is made twice at once is made once."""
    keys, found = Keys(tmp_path), []
    start = threading.Barrier(8)

    def ask() -> None:
        start.wait()
        found.append((keys.sealing(STAGING).secret, keys.audit_key(), keys.signer().public_key.keyid))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o601])
@pytest.mark.parametrize("name", ["signing-1.pem", "audit.key", "environments/shop.staging-1.key"])
def test_private_key_that_others_can_reach_is_refused(tmp_path: Path, name: str, mode: int) -> None:
    """Who could have read it could have used it: an operator has to look."""
    keys = Keys(tmp_path)
    asks: dict[str, Callable[[], object]] = {
        "signing-1.pem": keys.signer,
        "audit.key": keys.audit_key,
        "environments/shop.staging-1.key": lambda: keys.sealing(STAGING),
    }
    ask = asks[name]
    ask()
    (tmp_path / name).chmod(mode)
    with pytest.raises(errors.StorageError, match=f"its mode {mode:04o} lets others") as refused:
        ask()
    assert "chmod 600" in str(refused.value)


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"\xff" * 64, b"0" * 63, b"0" * 65, b"G" * 64, b"x" * 70_000]
)
def test_damaged_key_is_refused_and_never_made_anew(tmp_path: Path, content: bytes) -> None:
    """A new key in its place would hide that all that was sealed is lost."""
    keys = Keys(tmp_path)
    keys.sealing(STAGING)
    path = tmp_path / "environments" / "shop.staging-1.key"
    path.write_bytes(content)
    with pytest.raises(errors.StorageError, match="cannot be used"):
        keys.sealing(STAGING)
    assert path.read_bytes() == content


def test_signing_key_that_is_none_is_refused(tmp_path: Path) -> None:
    """No text, and no key of another kind."""
    keys = Keys(tmp_path)
    keys.signer()
    path = tmp_path / "signing-1.pem"
    path.write_text("-----BEGIN PRIVATE KEY-----\nnone\n-----END PRIVATE KEY-----\n")
    with pytest.raises(errors.StorageError, match="no private key"):
        keys.signer()
    other = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(
        other.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    with pytest.raises(errors.StorageError, match="no Ed25519 key"):
        keys.signer()


def test_link_in_the_place_of_a_key_is_refused(tmp_path: Path) -> None:
    """It could lead to a file that somebody else keeps."""
    keys = Keys(tmp_path / "keys")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text("0" * 64)
    (tmp_path / "keys" / "audit.key").symlink_to(elsewhere)
    with pytest.raises(errors.StorageError):
        keys.audit_key()


def test_new_signing_key_leaves_the_public_half_of_the_old_one(tmp_path: Path) -> None:
    """What was signed before can be proved; nobody can sign with the old key any more."""
    keys = Keys(tmp_path)
    first = keys.own()[0]
    second = keys.rotate_signer()
    third = keys.rotate_signer()
    assert [key.id for key in keys.own()] == [third.id, second.id, first.id]
    assert all(key.own for key in keys.own())
    assert [name for name in files(tmp_path) if name.endswith(".pem")] == [
        "retired/signing-1.pem",
        "retired/signing-2.pem",
        "signing-3.pem",
    ]
    assert b"PRIVATE" not in (tmp_path / "retired" / "signing-1.pem").read_bytes()


def test_rotation_that_was_interrupted_signs_with_the_new_key(tmp_path: Path) -> None:
    """A kill between the new key and the end of the old one leaves both, and the newest counts."""
    keys = Keys(tmp_path)
    old = (tmp_path / "signing-1.pem", keys.signer().public_key.keyid)
    content = old[0].read_bytes()
    new = keys.rotate_signer()
    old[0].write_bytes(content)
    old[0].chmod(0o600)
    assert keys.signer().public_key.keyid == new.id
    assert [key.id for key in keys.own()] == [new.id, old[1]]


def test_lost_signing_key_is_followed_by_one_with_another_number(tmp_path: Path) -> None:
    """The number of a retired key is not given again."""
    keys = Keys(tmp_path)
    keys.rotate_signer()
    (tmp_path / "signing-2.pem").unlink()
    keys.rotate_signer()
    assert "retired/signing-1.pem" in files(tmp_path)
    assert "signing-3.pem" in files(tmp_path)


def test_trusted_key_is_known_by_its_name_until_it_is_taken_away(tmp_path: Path) -> None:
    """It is trusted at once, and at once no more."""
    keys, other = Keys(tmp_path / "here"), Keys(tmp_path / "there").own()[0]
    trusted = keys.trust("build-server", other.pem)
    assert (trusted.id, trusted.own) == (other.id, False)
    assert [(key.name, key.id) for key in keys.trusted()] == [("build-server", other.id)]
    keys.distrust("build-server")
    assert keys.trusted() == ()
    with pytest.raises(errors.NotFoundError):
        keys.distrust("build-server")


@pytest.mark.parametrize(
    "make",
    [lambda: ec.generate_private_key(ec.SECP256R1()), lambda: rsa.generate_private_key(65537, 2048)],
    ids=["ecdsa", "rsa"],
)
def test_builders_may_have_keys_of_other_kinds(tmp_path: Path, make: object) -> None:
    """Ed25519 is ours; who signs elsewhere has what they have."""
    pem = pem_of(make())  # type: ignore[operator] # parametrised
    assert Keys(tmp_path).trust("builder", pem).pem.strip() == pem.strip()


def test_what_is_no_good_key_is_not_trusted(tmp_path: Path) -> None:
    """No text, no private key, none that is too weak, none that signs in a way that we do not prove."""
    keys = Keys(tmp_path)
    private = (Path(tmp_path) / "signing-1.pem", keys.signer())[0].read_text()
    odd = dsa.generate_private_key(1024).public_key()  # noqa: S505 - weak on purpose
    weak = pem_of(rsa.generate_private_key(65537, 1024))  # noqa: S505 - weak on purpose
    pem, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    for text in ("", "no key", private, weak, odd.public_bytes(pem, form).decode()):
        with pytest.raises(errors.RequestError, match="no public key that could be trusted"):
            keys.trust("somebody", text)
    assert keys.trusted() == ()


def test_a_key_is_trusted_under_one_name(tmp_path: Path) -> None:
    """Not our own, not twice, and never in the place of another."""
    keys = Keys(tmp_path / "here")
    one, other = (Keys(tmp_path / name).own()[0].pem for name in ("one", "other"))
    with pytest.raises(errors.RequestError, match="own key"):
        keys.trust("me", keys.own()[0].pem)
    keys.trust("one", one)
    with pytest.raises(errors.RequestError, match="trusted already, as one"):
        keys.trust("again", one)
    with pytest.raises(errors.RequestError, match="Another key is trusted as one"):
        keys.trust("one", other)
    assert [key.name for key in keys.trusted()] == ["one"]


@pytest.mark.parametrize("name", ["", ".", "../x", "A", "a/b", "a" * 41, "-a", "a.pem"])
def test_names_of_trusted_keys_never_leave_the_folder(tmp_path: Path, name: str) -> None:
    """Neither when they are trusted nor when they are not any more."""
    keys = Keys(tmp_path / "here")
    with pytest.raises(errors.RequestError):
        keys.trust(name, Keys(tmp_path / "there").own()[0].pem)
    with pytest.raises(errors.RequestError):
        keys.distrust(name)


def test_trusted_key_that_others_can_change_is_refused(tmp_path: Path) -> None:
    """Who can write there decides what is trusted; who can only read does no harm."""
    keys = Keys(tmp_path / "here")
    keys.trust("one", Keys(tmp_path / "there").own()[0].pem)
    path = tmp_path / "here" / "trusted" / "one.pem"
    path.chmod(0o644)
    assert len(keys.trusted()) == 1
    path.chmod(0o664)
    with pytest.raises(errors.StorageError, match="lets others change it"):
        keys.trusted()


def test_sealing_key_is_found_by_its_id_and_never_taken_for_another(tmp_path: Path) -> None:
    """The id has the version and a hash, so that a key that was put in its place is noticed."""
    keys = Keys(tmp_path)
    old = keys.sealing(STAGING)
    new = keys.rotate_sealing(STAGING)
    assert (keys.sealing_with(STAGING, old.id), keys.sealing_with(STAGING, new.id)) == (old, new)
    assert keys.sealing(STAGING) == new
    path = tmp_path / "environments" / "shop.staging-1.key"
    path.write_text("ab" * 32)
    assert keys.sealing_with(STAGING, old.id) is None
    for odd in ("", "1", "x.y", "9." + old.id[2:], f"-{old.id}"):
        assert keys.sealing_with(STAGING, odd) is None


def test_old_sealing_keys_are_destroyed_when_nothing_needs_them(tmp_path: Path) -> None:
    """Those of other environments stay."""
    keys = Keys(tmp_path)
    keys.sealing(PRODUCTION)
    old = keys.sealing(STAGING)
    new = keys.rotate_sealing(STAGING)
    keys.forget_sealing(STAGING, before=new.version)
    assert keys.sealing_with(STAGING, old.id) is None
    assert keys.sealing(STAGING) == new
    assert "environments/shop.production-1.key" in files(tmp_path)


def test_key_is_not_in_what_is_printed_of_it(tmp_path: Path) -> None:
    """A traceback or a log may show the object."""
    key = Keys(tmp_path).sealing(STAGING)
    assert key.secret.hex() not in f"{key!r} {key} {key.id}"
    assert repr(key.secret)[2:-1] not in repr(key)


@pytest.mark.parametrize("part", ["", "A", "../x", "a.b", "a" * 41])
def test_environments_of_other_names_have_no_keys(tmp_path: Path, part: str) -> None:
    """The name becomes a file's, and no two share one."""
    with pytest.raises(errors.RequestError):
        Keys(tmp_path).sealing(EnvironmentKey(app=part, environment="staging"))
    with pytest.raises(errors.RequestError):
        Keys(tmp_path).sealing(EnvironmentKey(app="shop", environment=part))


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """On a disk that refuses, the sentence says which folder."""
    (tmp_path / "file").touch()
    with pytest.raises(errors.StorageError, match="Cannot make"):
        Keys(tmp_path / "file" / "keys")

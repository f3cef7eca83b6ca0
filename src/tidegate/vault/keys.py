"""The keys of a control plane, as files: what it signs with, seals with and chains with, and whom it trusts.

    keys/                       0700
      signing-2.pem             private Ed25519 key (PKCS 8): signs statements; the largest number is in use
      retired/signing-1.pem     public half of one that was replaced: what it signed stays valid
      audit.key                 chains the audit log
      environments/shop.production-3.key    seals secrets of one environment; older ones still open
      trusted/NAME.pem          public keys of others: they may say where an artifact comes from, no more

Hides file names and formats. Invariants: a key file appears whole, with mode 0600, or not at all, and is
never overwritten; a private key that others can read, or that is not ours, is refused rather than used.
Nothing is kept in memory: a key that is taken away counts no more from the next question on.
Neighbours: `statements` signs with these, `secrets` seals with these, the audit log asks for `audit_key`.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from securesystemslib.signer import CryptoSigner, SSlibKey

from tidegate import errors
from tidegate.core.model import EnvironmentKey

KEY_BYTES: Final = 32
#: A PEM file of the largest RSA key that anybody uses is a tenth of this.
FILE_BYTES_MAX: Final = 64 * 1024
#: Below this, an RSA key is no proof any more (NIST SP 800-131A).
RSA_BITS_MIN: Final = 2048
TRUSTED_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_SIGNING: Final = re.compile(r"signing-([1-9][0-9]{0,8})\.pem")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A key that proves signatures."""

    name: str
    """`own`, or what we call whom we trust."""
    own: bool
    """Of this control plane, now or before."""
    key: SSlibKey

    @property
    def id(self) -> str:
        """The same for everybody who has the key."""
        return str(self.key.keyid)

    @property
    def pem(self) -> str:
        """To be handed to others."""
        return _pem(self.key)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class SealingKey:
    """A key that seals secrets of one environment."""

    version: int
    secret: bytes

    @property
    def id(self) -> str:
        """Tells keys apart without showing them: it stands beside what was sealed."""
        return f"{self.version}.{hashlib.sha256(b'tidegate key id' + self.secret).hexdigest()[:16]}"


class Keys:
    """All keys of one control plane. Threads may share it."""

    def __init__(self, folder: Path) -> None:
        """`folder`: made if it is missing. Raises StorageError."""
        self._folder: Final = folder
        self._turn: Final = threading.Lock()
        for made in (folder, self._retired, self._environments, self._trusted):
            with _storage_errors("make", made):
                made.mkdir(mode=0o700, parents=True, exist_ok=True)

    # --- signing ----------------------------------------------------------------------------------

    def signer(self) -> CryptoSigner:
        """What signs now; made when it is first asked for. Raises StorageError."""
        with self._turn:
            number = max(self._signing_numbers(self._folder), default=0)
            if number == 0:
                number = 1 + max(self._signing_numbers(self._retired), default=0)
                _make(self._signing(number), _new_signing_key())
            return self._signer(number)

    def rotate_signer(self) -> PublicKey:
        """Sign with a new key from now on; of the old one the public half is kept. Raises StorageError."""
        old = self.signer()
        with self._turn:
            numbers = self._signing_numbers(self._folder)
            new = 1 + max((*numbers, *self._signing_numbers(self._retired)), default=0)
            # In this order: whenever it stops, what was signed can be proved, and something can sign.
            _make(self._retired / f"signing-{max(numbers)}.pem", _pem(old.public_key).encode())
            _make(self._signing(new), _new_signing_key())
            for number in numbers:
                _remove(self._signing(number))
            return PublicKey(name="own", own=True, key=self._signer(new).public_key)

    def own(self) -> tuple[PublicKey, ...]:
        """Our own public keys, the one in use first. Raises StorageError."""
        current = self.signer().public_key
        retired = [_public(self._retired / f"signing-{n}.pem") for n in self._signing_numbers(self._retired)]
        others = [key for key in reversed(retired) if key.keyid != current.keyid]
        return tuple(PublicKey(name="own", own=True, key=key) for key in (current, *others))

    def _signer(self, number: int) -> CryptoSigner:
        path = self._signing(number)
        try:
            key = serialization.load_pem_private_key(_private(path), password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise _unusable(path, "it is no private key without a password") from error
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise _unusable(path, "it is no Ed25519 key")
        return CryptoSigner(key)

    def _signing(self, number: int) -> Path:
        return self._folder / f"signing-{number}.pem"

    @staticmethod
    def _signing_numbers(folder: Path) -> list[int]:
        return sorted(int(found[1]) for name in _names(folder) if (found := _SIGNING.fullmatch(name)))

    # --- whom we trust ----------------------------------------------------------------------------

    def trusted(self) -> tuple[PublicKey, ...]:
        """Keys of others, sorted by name. Raises StorageError."""
        paths = [self._trusted / name for name in sorted(_names(self._trusted)) if name.endswith(".pem")]
        return tuple(PublicKey(name=path.stem, own=False, key=_public(path)) for path in paths)

    def trust(self, name: str, pem: str) -> PublicKey:
        """Believe what this key says of where artifacts come from. Raises RequestError, StorageError."""
        _check_trusted_name(name)
        try:
            key = _public_key(pem.encode())
        except ValueError as error:
            raise errors.RequestError(
                f"That is no public key that could be trusted: {error}.",
                hint="`tide key show` of the other control plane prints it.",
            ) from error
        if key.keyid in {known.id for known in self.own()}:
            raise errors.RequestError("That is this control plane's own key: it is trusted anyway.")
        found = next((known for known in self.trusted() if known.id == key.keyid), None)
        if found is not None:
            raise errors.RequestError(f"That key is trusted already, as {found.name}.")
        if not _make(self._trusted / f"{name}.pem", _pem(key).encode()):
            raise errors.RequestError(
                f"Another key is trusted as {name}.",
                hint=f"`tide key distrust {name}` first, or choose a name.",
            )
        return PublicKey(name=name, own=False, key=key)

    def distrust(self, name: str) -> None:
        """Believe that key no more: nothing that only it has signed starts again.

        Raises RequestError, NotFoundError, StorageError.
        """
        _check_trusted_name(name)
        path = self._trusted / f"{name}.pem"
        if path.name not in _names(self._trusted):
            raise errors.NotFoundError(f"No key is trusted as {name}.", hint="`tide key list` shows them.")
        _remove(path)

    # --- sealing ----------------------------------------------------------------------------------

    def sealing(self, key: EnvironmentKey) -> SealingKey:
        """The newest key of an environment; made when it is first asked for. Raises StorageError."""
        with self._turn:
            version = max(self._sealing_versions(key), default=0)
            if version == 0:
                version = 1
                _make(self._sealing(key, version), _new_secret())
            return self._sealing_key(key, version)

    def sealing_with(self, key: EnvironmentKey, key_id: str) -> SealingKey | None:
        """The key of an environment that has this id; None: it is not in the folder. Raises StorageError."""
        version = key_id.partition(".")[0]
        if not version.isdecimal() or int(version) not in self._sealing_versions(key):
            return None
        found = self._sealing_key(key, int(version))
        return found if found.id == key_id else None

    def rotate_sealing(self, key: EnvironmentKey) -> SealingKey:
        """Seal with a new key from now on; older ones still open. Raises StorageError."""
        with self._turn:
            version = 1 + max(self._sealing_versions(key), default=0)
            _make(self._sealing(key, version), _new_secret())
            return self._sealing_key(key, version)

    def forget_sealing(self, key: EnvironmentKey, *, before: int) -> None:
        """Destroy keys older than version `before`: nothing is sealed with them any more. StorageError."""
        with self._turn:
            for version in self._sealing_versions(key):
                if version < before:
                    _remove(self._sealing(key, version))

    def _sealing_key(self, key: EnvironmentKey, version: int) -> SealingKey:
        return SealingKey(version=version, secret=_secret(self._sealing(key, version)))

    def _sealing(self, key: EnvironmentKey, version: int) -> Path:
        return self._environments / f"{_file_name(key)}-{version}.key"

    def _sealing_versions(self, key: EnvironmentKey) -> list[int]:
        pattern = re.compile(re.escape(_file_name(key)) + r"-([1-9][0-9]{0,8})\.key")
        return sorted(
            int(found[1]) for name in _names(self._environments) if (found := pattern.fullmatch(name))
        )

    # --- the audit log ----------------------------------------------------------------------------

    def audit_key(self) -> bytes:
        """32 random bytes that chain the audit log; the same for ever. Raises StorageError."""
        path = self._folder / "audit.key"
        with self._turn:
            if not path.exists():
                _make(path, _new_secret())
            return _secret(path)

    # --- folders ----------------------------------------------------------------------------------

    @property
    def _retired(self) -> Path:
        return self._folder / "retired"

    @property
    def _environments(self) -> Path:
        return self._folder / "environments"

    @property
    def _trusted(self) -> Path:
        return self._folder / "trusted"


def _new_signing_key() -> bytes:
    return ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _new_secret() -> bytes:
    """As text, so that it survives any way of keeping a copy."""
    return f"{secrets.token_hex(KEY_BYTES)}\n".encode()


def _secret(path: Path) -> bytes:
    text = _private(path).decode("ascii", "replace").strip()
    if not re.fullmatch(f"[0-9a-f]{{{2 * KEY_BYTES}}}", text):
        raise _unusable(path, f"it does not hold {2 * KEY_BYTES} hexadecimal digits")
    return bytes.fromhex(text)


def _file_name(key: EnvironmentKey) -> str:
    """Neither part can hold a dot, so that no two environments share a name."""
    if not all(re.fullmatch(r"[a-z][a-z0-9-]{0,39}", part) for part in (key.app, key.environment)):
        raise errors.RequestError(f"{key} cannot have keys: it is no name of an app and an environment.")
    return f"{key.app}.{key.environment}"


def _check_trusted_name(name: str) -> None:
    if not TRUSTED_NAME.fullmatch(name):
        raise errors.RequestError(
            "The name of a trusted key has small letters, digits and dashes, at most 40, e.g. `build-server`."
        )


# --- files -----------------------------------------------------------------------------------------


def _private(path: Path) -> bytes:
    """A file that nobody else could have read. Raises StorageError."""
    return _read(path, forbidden=0o077, hint=f"chmod 600 {path}, and think about who may have read it.")


def _public(path: Path) -> SSlibKey:
    """A key that nobody else could have written. Raises StorageError."""
    try:
        return _public_key(
            _read(path, forbidden=0o022, hint=f"chmod 600 {path}, and compare it with its owner's.")
        )
    except ValueError as error:
        raise _unusable(path, str(error)) from error


def _public_key(pem: bytes) -> SSlibKey:
    """Raises ValueError for what is no key, or too weak to prove anything."""
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("it is no public key in PEM") from error
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < RSA_BITS_MIN:
        raise ValueError(f"RSA with {key.key_size} bits is too weak, {RSA_BITS_MIN} are the least")
    if isinstance(key, ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
        return SSlibKey.from_crypto(key)
    raise ValueError("it is neither Ed25519 nor ECDSA nor RSA")


def _pem(key: SSlibKey) -> str:
    """The public key as PEM; of Ed25519 keys the library keeps only the 32 bytes."""
    public = str(key.keyval["public"])
    if key.keytype != "ed25519":
        return public
    return (
        ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def _read(path: Path, *, forbidden: int, hint: str) -> bytes:
    with _storage_errors("read", path):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode) or about.st_size > FILE_BYTES_MAX:
                raise _unusable(path, "it is no small regular file")
            if about.st_uid != os.geteuid():
                raise _unusable(path, "it belongs to another user")
            if about.st_mode & forbidden:
                raise errors.StorageError(
                    f"The key {path} is refused: its mode {stat.S_IMODE(about.st_mode):04o} lets others "
                    f"{'read' if forbidden & 0o044 else 'change'} it.",
                    hint=hint,
                )
            return file.read(FILE_BYTES_MAX)


def _make(path: Path, content: bytes) -> bool:
    """Write a new private file, whole and durable; False if there is one of that name, which stays."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with _storage_errors("write", path):
        try:
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            os.link(partial, path)  # unlike a rename, it never replaces what is there
        except FileExistsError:
            return False
        finally:
            partial.unlink(missing_ok=True)
        _sync(path.parent)
    return True


def _remove(path: Path) -> None:
    with _storage_errors("remove", path):
        path.unlink(missing_ok=True)
        _sync(path.parent)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _names(folder: Path) -> list[str]:
    with _storage_errors("read", folder):
        return [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]


@contextmanager
def _storage_errors(what: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise errors.StorageError(
            f"Cannot {what} {path}: {error.strerror}.",
            hint="Keys that are lost come back only from your backup of that folder.",
        ) from error


def _unusable(path: Path, why: str) -> errors.StorageError:
    return errors.StorageError(
        f"The key {path} cannot be used: {why}.", hint="Put it back from your backup of the keys."
    )

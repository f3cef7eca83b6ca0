"""Secrets of environments: sealed where they are stored, opened only where they are given to a program.

A value is sealed with AES-256-GCM under a key of its environment. App, environment, name and version are
sealed with it, so that a value opens in its own place alone: with staging's key there is nothing to open
production's with, and a row that was moved in the database fails as one that was edited does.

Invariants: a value is in no error, no log and no file; what cannot be opened is never given as something
else. Neighbours: `keys` has the keys, `store.secrets` the rows, `redaction` hears of every value.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tidegate import errors, ports
from tidegate.core import model
from tidegate.core.model import EnvironmentKey
from tidegate.vault.keys import Keys, SealingKey

#: Linux gives a program no variable above 128 KiB (MAX_ARG_STRLEN, execve(2)).
VALUE_BYTES_MAX: Final = 64 * 1024
#: All of them are given to a program together, beside its configuration (ARG_MAX is 2 MiB).
NAMES_MAX: Final = 200
NONCE_BYTES: Final = 12
NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")
_PURPOSE: Final = b"tidegate secret 1"


class Rows(Protocol):
    """Where sealed values are kept."""

    def add(
        self, key: EnvironmentKey, name: str, seal: Callable[[int], ports.Sealed], *, at: float, by: str
    ) -> int:
        """A new version, sealed when its number is known."""

    def all(self, key: EnvironmentKey) -> tuple[ports.SealedSecret, ...]:
        """Sorted by name and version."""

    def one(self, key: EnvironmentKey, name: str, version: int) -> ports.SealedSecret | None:
        """One version."""

    def places(self) -> tuple[EnvironmentKey, ...]:
        """Environments that have secrets."""

    def remove(self, key: EnvironmentKey, name: str) -> int:
        """All versions; how many there were."""

    def seal_again(self, key: EnvironmentKey, seal: Callable[[ports.SealedSecret], ports.Sealed]) -> int:
        """Every version of an environment, or none."""


class SealedSecrets:
    """`ports.Secrets` with the keys of this control plane. Threads may share it."""

    def __init__(
        self, rows: Rows, keys: Keys, *, now: Callable[[], float], known: Callable[[bytes], None]
    ) -> None:
        """`now`: Unix seconds. `known`: is told each value that this process has seen, to hide it."""
        self._rows: Final = rows
        self._keys: Final = keys
        self._now: Final = now
        self._known: Final = known
        # A value that is sealed while keys are exchanged would be sealed with the one that is destroyed.
        self._turn: Final = threading.Lock()

    def versions(self, key: EnvironmentKey) -> tuple[model.SecretVersion, ...]:
        newest = {record.name: record.version for record in self.kept(key)}
        return tuple(model.SecretVersion(name=name, version=newest[name]) for name in sorted(newest))

    def kept(self, key: EnvironmentKey) -> tuple[ports.SecretRecord, ...]:
        return tuple(found.record for found in self._rows.all(key))

    def set(self, key: EnvironmentKey, name: str, value: bytes, *, by: str = "") -> int:
        _check(name, value)
        names = {record.name for record in self.kept(key)}
        if name not in names and len(names) >= NAMES_MAX:
            raise errors.RequestError(
                f"{key} has {len(names)} secrets already, which is the most.",
                hint="Put several values into one, as a file.",
            )
        self._known(value)
        with self._turn:
            sealing = self._keys.sealing(key)
            return self._rows.add(
                key, name, lambda version: _sealed(sealing, key, name, version, value), at=self._now(), by=by
            )

    def remove(self, key: EnvironmentKey, name: str) -> int:
        count = self._rows.remove(key, name) if NAME.fullmatch(name) else 0
        if not count:
            raise errors.NotFoundError(
                f"{name if NAME.fullmatch(name) else 'That'} is not set in {key}.",
                hint=f"`tide secret list {key.environment}` shows what is.",
            )
        return count

    def open(self, key: EnvironmentKey, name: str, version: int) -> bytes:
        found = self._rows.one(key, name, version)
        if found is None:
            raise errors.NotFoundError(
                f"The secret {name} has no version {version} in {key}: it was removed.",
                hint=f"`tide secret set {key.environment} {name}` sets a new one.",
            )
        return self._opened(key, found)

    def rotate(self, key: EnvironmentKey) -> int:
        """Seal every version with a new key, and destroy the old ones; how many versions there are.

        Raises SealError, and then the old key stays; StorageError, StoreError.
        """
        with self._turn:
            sealing = self._keys.rotate_sealing(key)
            count = self._rows.seal_again(
                key,
                lambda found: _sealed(
                    sealing, key, found.record.name, found.record.version, self._opened(key, found)
                ),
            )
            self._keys.forget_sealing(key, before=sealing.version)
            return count

    def given(self, group: model.InstanceGroup) -> dict[str, str]:
        """What the instances of a group are given, by variable. Raises NotFoundError, SealError."""
        return {used.name: self.open(group.key, used.name, used.version).decode() for used in group.secrets}

    def learn(self) -> tuple[errors.TidegateError, ...]:
        """Hear every value once, so that none is shown; what cannot be opened is answered, not raised."""
        failed: list[errors.TidegateError] = []
        for key in self._rows.places():
            for found in self._rows.all(key):
                try:
                    self._opened(key, found)
                except errors.TidegateError as error:
                    failed.append(error)
        return tuple(failed)

    def _opened(self, key: EnvironmentKey, found: ports.SealedSecret) -> bytes:
        record = found.record
        sealing = self._keys.sealing_with(key, found.sealed.key_id)
        if sealing is None:
            raise errors.SealError(
                f"The secret {record.name} version {record.version} of {key} was sealed with a key that is "
                "not here.",
                hint="Put the folder of keys back from your backup, or set the secret again.",
            )
        value = _opened(sealing, key, found)
        self._known(value)
        return value


def _check(name: str, value: bytes) -> None:
    """The value is in no message."""
    if not NAME.fullmatch(name):
        raise errors.RequestError(
            "That is no name of an environment variable.",
            hint="It has letters, digits and _, does not begin with a digit, and is not longer than 100.",
        )
    if not value:
        raise errors.RequestError(f"The value of {name} is empty.", hint="`tide secret rm` removes a secret.")
    if len(value) > VALUE_BYTES_MAX:
        raise errors.RequestError(
            f"The value of {name} has {len(value)} bytes; {VALUE_BYTES_MAX} are the most.",
            hint="Keep large files elsewhere, and the key to them here.",
        )
    try:
        zero = "\0" in value.decode()
    except UnicodeDecodeError:
        zero = True
    if zero:
        raise errors.RequestError(
            f"The value of {name} is no text: no program can be given it as a variable.",
            hint="Encode it, e.g. with base64, and decode it in the app.",
        )


def _sealed(sealing: SealingKey, key: EnvironmentKey, name: str, version: int, value: bytes) -> ports.Sealed:
    # Random nonces of 96 bits are safe for 2^32 values under one key (NIST SP 800-38D).
    nonce = os.urandom(NONCE_BYTES)
    data = nonce + AESGCM(sealing.secret).encrypt(nonce, value, place(key, name, version))
    return ports.Sealed(key_id=sealing.id, data=data)


def _opened(sealing: SealingKey, key: EnvironmentKey, found: ports.SealedSecret) -> bytes:
    record, data = found.record, found.sealed.data
    try:
        return AESGCM(sealing.secret).decrypt(
            data[:NONCE_BYTES], data[NONCE_BYTES:], place(key, record.name, record.version)
        )
    except (InvalidTag, ValueError) as error:
        raise errors.SealError(
            f"The secret {record.name} version {record.version} of {key} cannot be opened: it was changed in "
            "the database, or put there from another place.",
            hint=f"Set it again: `tide secret set {key.environment} {record.name}`.",
        ) from error


def place(key: EnvironmentKey, name: str, version: int) -> bytes:
    """Where alone a value opens. Each part with its length before it, so that no two places are the same."""
    parts = (_PURPOSE, key.app.encode(), key.environment.encode(), name.encode(), str(version).encode())
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)

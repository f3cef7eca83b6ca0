"""Seals and secrets in memory, without a key; and what every implementation of the two ports promises.

    @pytest.mark.parametrize("check", vault.SEALS_CHECKS, ids=lambda check: check.__name__)
    def test_seals(check, make): check(make())

The fakes keep every promise but secrecy: whoever reads their memory reads the values. Tests that are not
about keys use them; what is about keys is tested on the real ones.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Final

from tidegate import errors, ports
from tidegate.core import model

KEY: Final = model.EnvironmentKey(app="shop", environment="production")
OTHER: Final = model.EnvironmentKey(app="shop", environment="staging")
DIGEST: Final = f"sha256:{'7' * 64}"
#: One claim of each sort.
CLAIMS: Final[ports.Claims] = {
    "app": "shop",
    "digest": DIGEST,
    "environment": "staging",
    "release": 7,
    "identity": "sha256:8888",
    "at": 1_800_000_000.25,
    "grounds": ("pass staging #3", "approved by ada — 'yes'"),
    "none": (),
    "empty": "",
}


class PlainSeals:
    """`ports.Seals` with a checksum for a signature."""

    def seal(self, kind: str, claims: ports.Claims) -> str:
        if kind not in ("provenance", "pass", "approval", "admission"):
            raise errors.SealError(f"There are no statements of the kind {kind!r}.")
        if not claims.get("app") or not re.fullmatch("sha256:[0-9a-f]{64}", str(claims.get("digest"))):
            raise errors.SealError("A statement needs `app` and `digest`: whose artifact it is about.")
        body = json.dumps([kind, {n: list(v) if isinstance(v, tuple) else v for n, v in claims.items()}])
        return f"{hashlib.sha256(body.encode()).hexdigest()} {body}"

    def opened(self, kind: str, envelope: str) -> Mapping[str, ports.Claim]:
        checksum, _, body = envelope.partition(" ")
        if checksum != hashlib.sha256(body.encode()).hexdigest():
            raise errors.SealError
        sealed, claims = json.loads(body)
        if sealed != kind:
            raise errors.SealError(f"The statement is no {kind}.")
        return {name: tuple(v) if isinstance(v, list) else v for name, v in claims.items()}


class MemorySecrets:
    """`ports.Secrets` in a dictionary."""

    def __init__(self, now: Callable[[], float] = lambda: 0.0) -> None:
        """`now`: Unix seconds."""
        self._now: Final = now
        self._values: dict[tuple[model.EnvironmentKey, str, int], tuple[bytes, ports.SecretRecord]] = {}
        self._newest: dict[tuple[model.EnvironmentKey, str], int] = {}

    def versions(self, key: model.EnvironmentKey) -> tuple[model.SecretVersion, ...]:
        newest = {record.name: record.version for record in self.kept(key)}
        return tuple(model.SecretVersion(name=name, version=newest[name]) for name in sorted(newest))

    def kept(self, key: model.EnvironmentKey) -> tuple[ports.SecretRecord, ...]:
        records = [record for (place, _, _), (_, record) in self._values.items() if place == key]
        return tuple(sorted(records, key=lambda record: (record.name, record.version)))

    def set(self, key: model.EnvironmentKey, name: str, value: bytes, *, by: str = "") -> int:
        if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name) or b"\0" in value or not value:
            raise errors.RequestError("No program can be given that.")
        version = self._newest.get((key, name), 0) + 1
        self._newest[key, name] = version
        record = ports.SecretRecord(name=name, version=version, at=self._now(), by=by)
        self._values[key, name, version] = (value, record)
        return version

    def remove(self, key: model.EnvironmentKey, name: str) -> int:
        found = [place for place in self._values if place[:2] == (key, name)]
        if not found:
            raise errors.NotFoundError(f"{name} is not set in {key}.")
        for place in found:
            del self._values[place]
        return len(found)

    def open(self, key: model.EnvironmentKey, name: str, version: int) -> bytes:
        if (key, name, version) not in self._values:
            raise errors.NotFoundError(f"{name} has no version {version} in {key}.")
        return self._values[key, name, version][0]


def _equal(actual: object, expected: object) -> None:
    if actual != expected:
        raise AssertionError(f"{actual!r}\n  instead of\n{expected!r}")


# --- seals -----------------------------------------------------------------------------------------


def _is_refused(action: Callable[[], object], error: type[errors.TidegateError]) -> None:
    try:
        action()
    except error:
        return
    raise AssertionError(f"{error.__name__} was expected")


def check_what_was_sealed_is_opened(seals: ports.Seals) -> None:
    """Every sort of claim comes back as it went in, and the text can be stored anywhere."""
    sealed = seals.seal("pass", CLAIMS)
    _equal(dict(seals.opened("pass", sealed)), dict(CLAIMS))
    _equal([c for c in sealed if not (c.isascii() and c.isprintable())], [])


def check_lists_are_tuples_afterwards(seals: ports.Seals) -> None:
    """A list is as good as a tuple, and comes back as one."""
    sealed = seals.seal("admission", {**CLAIMS, "grounds": ["one", "two"]})
    _equal(seals.opened("admission", sealed)["grounds"], ("one", "two"))


def check_kinds_are_told_apart(seals: ports.Seals) -> None:
    """A pass is no admission, and what has no kind is not sealed at all."""
    sealed = seals.seal("pass", CLAIMS)
    _is_refused(lambda: seals.opened("admission", sealed), errors.SealError)
    _is_refused(lambda: seals.opened("provenance", sealed), errors.SealError)
    _is_refused(lambda: seals.seal("blessing", CLAIMS), errors.SealError)


def check_statement_is_about_an_artifact(seals: ports.Seals) -> None:
    """Without app and digest there is nothing to state."""
    for missing in ("app", "digest"):
        claims = {name: value for name, value in CLAIMS.items() if name != missing}
        _is_refused(lambda claims=claims: seals.seal("pass", claims), errors.SealError)  # type: ignore[misc]
    _is_refused(lambda: seals.seal("pass", {**CLAIMS, "digest": "sha256:short"}), errors.SealError)


def check_edited_statement_is_refused(seals: ports.Seals) -> None:
    """Whatever character is changed, left out or added."""
    sealed = seals.seal("admission", CLAIMS)
    _equal(dict(seals.opened("admission", sealed)), dict(CLAIMS))
    edits = [sealed[:-1], sealed[1:], sealed + " ", "", "{}", "[]", sealed * 2]
    edits += [sealed[:at] + chr(ord(sealed[at]) ^ 1) + sealed[at + 1 :] for at in range(len(sealed))]
    for edit in edits:
        _is_refused(lambda edit=edit: seals.opened("admission", edit), errors.SealError)  # type: ignore[misc]


SEALS_CHECKS: Final[tuple[Callable[[ports.Seals], None], ...]] = (
    check_what_was_sealed_is_opened,
    check_lists_are_tuples_afterwards,
    check_kinds_are_told_apart,
    check_statement_is_about_an_artifact,
    check_edited_statement_is_refused,
)

# --- secrets ---------------------------------------------------------------------------------------


def check_value_comes_back(secrets: ports.Secrets) -> None:
    """Byte by byte, in its environment."""
    value = "p\u00e4ss wo'rd\n".encode()
    _equal(secrets.set(KEY, "TOKEN", value, by="ada"), 1)
    _equal(secrets.open(KEY, "TOKEN", 1), value)
    _equal(secrets.versions(KEY), (model.SecretVersion(name="TOKEN", version=1),))
    (record,) = secrets.kept(KEY)
    _equal((record.name, record.version, record.by), ("TOKEN", 1, "ada"))


def check_versions_are_kept(secrets: ports.Secrets) -> None:
    """A rollback opens the version that it had; the newest is what a new rollout gets."""
    _equal([secrets.set(KEY, "TOKEN", value) for value in (b"one", b"two", b"three")], [1, 2, 3])
    secrets.set(KEY, "ALIAS", b"a")
    _equal([secrets.open(KEY, "TOKEN", version) for version in (1, 2, 3)], [b"one", b"two", b"three"])
    _equal([(found.name, found.version) for found in secrets.versions(KEY)], [("ALIAS", 1), ("TOKEN", 3)])
    kept = [(record.name, record.version) for record in secrets.kept(KEY)]
    _equal(kept, [("ALIAS", 1), ("TOKEN", 1), ("TOKEN", 2), ("TOKEN", 3)])


def check_environments_share_nothing(secrets: ports.Secrets) -> None:
    """The same name elsewhere is another secret, or none."""
    secrets.set(KEY, "TOKEN", b"production's")
    _equal((secrets.versions(OTHER), secrets.kept(OTHER)), ((), ()))
    _is_refused(lambda: secrets.open(OTHER, "TOKEN", 1), errors.NotFoundError)
    secrets.set(OTHER, "TOKEN", b"staging's")
    _equal(secrets.open(KEY, "TOKEN", 1), b"production's")
    secrets.remove(OTHER, "TOKEN")
    _equal(secrets.open(KEY, "TOKEN", 1), b"production's")


def check_removed_is_gone_for_good(secrets: ports.Secrets) -> None:
    """No version is left, and none of their numbers is given again: it would be another value."""
    secrets.set(KEY, "TOKEN", b"one")
    secrets.set(KEY, "TOKEN", b"two")
    _equal(secrets.remove(KEY, "TOKEN"), 2)
    _equal(secrets.versions(KEY), ())
    _equal(secrets.kept(KEY), ())
    _is_refused(lambda: secrets.open(KEY, "TOKEN", 2), errors.NotFoundError)
    _is_refused(lambda: secrets.remove(KEY, "TOKEN"), errors.NotFoundError)
    _equal(secrets.set(KEY, "TOKEN", b"three"), 3)


def check_what_no_program_can_be_given_is_refused(secrets: ports.Secrets) -> None:
    """A name that is no variable's, an empty value, one with a zero byte."""
    for name in ("", "1ST", "WITH SPACE", "A=B", "\u00c4"):
        _is_refused(lambda name=name: secrets.set(KEY, name, b"x"), errors.RequestError)  # type: ignore[misc]
    for value in (b"", b"a\0b"):
        _is_refused(lambda value=value: secrets.set(KEY, "T", value), errors.RequestError)  # type: ignore[misc]
    _equal(secrets.kept(KEY), ())


SECRETS_CHECKS: Final[tuple[Callable[[ports.Secrets], None], ...]] = (
    check_value_comes_back,
    check_versions_are_kept,
    check_environments_share_nothing,
    check_removed_is_gone_for_good,
    check_what_no_program_can_be_given_is_refused,
)

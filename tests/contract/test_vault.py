"""The same promises, kept by the seals and secrets without keys and by the real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tidegate import ports
from tidegate.store.secrets import SqliteSecrets
from tidegate.store.sqlite import SqliteStore
from tidegate.testing import vault
from tidegate.vault.keys import Keys
from tidegate.vault.secrets import SealedSecrets
from tidegate.vault.statements import Seals


def _plain(folder: Path) -> ports.Seals:
    return vault.PlainSeals()


def _signed(folder: Path) -> ports.Seals:
    return Seals(Keys(folder), version="1.2.3")


@pytest.mark.parametrize("make", [_plain, _signed])
@pytest.mark.parametrize("check", vault.SEALS_CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_seals(
    check: Callable[[ports.Seals], None], make: Callable[[Path], ports.Seals], tmp_path: Path
) -> None:
    """Seals keep every promise of their port."""
    check(make(tmp_path))


def _in_memory(folder: Path, stack: ExitStack) -> ports.Secrets:
    return vault.MemorySecrets()


def _sealed(folder: Path, stack: ExitStack) -> ports.Secrets:
    store = stack.enter_context(closing(SqliteStore(folder / "tidegate.db", ballast_bytes=4096)))
    rows = SqliteSecrets(store, store.acquire("me", ttl_s=15.0))
    return SealedSecrets(rows, Keys(folder / "keys"), now=lambda: 1.0, known=lambda value: None)


@pytest.fixture(params=[_in_memory, _sealed])
def secrets(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ports.Secrets]:
    with ExitStack() as stack:
        yield request.param(tmp_path, stack)


@pytest.mark.parametrize(
    "check", vault.SECRETS_CHECKS, ids=lambda check: check.__name__.removeprefix("check_")
)
def test_secrets(check: Callable[[ports.Secrets], None], secrets: ports.Secrets) -> None:
    """Secrets keep every promise of their port."""
    check(secrets)

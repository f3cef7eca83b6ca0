"""The same promises, kept by the seals and secrets without keys and by the real ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tidegate import ports
from tidegate.testing import vault
from tidegate.vault.keys import Keys
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

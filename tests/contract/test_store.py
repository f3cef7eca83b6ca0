"""The same promises, kept by the store in memory and by the one on SQLite.

Another database joins with one more factory in `FACTORIES`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tidegate.store import sqlite
from tidegate.testing import store as memory
from tidegate.testing import store_checks

Clock = Callable[[], float]
Maker = Callable[[Clock, Path, ExitStack], store_checks.CompleteStore]


def _in_memory(clock: Clock, folder: Path, stack: ExitStack) -> store_checks.CompleteStore:
    return memory.MemoryStore(clock=clock)


def _in_memory_through_codec(clock: Clock, folder: Path, stack: ExitStack) -> store_checks.CompleteStore:
    return memory.MemoryStore(clock=clock, through_codec=True)


def _on_sqlite(clock: Clock, folder: Path, stack: ExitStack) -> store_checks.CompleteStore:
    path = folder / "state" / "tidegate.db"
    return stack.enter_context(closing(sqlite.SqliteStore(path, clock=clock, ballast_bytes=4096)))


FACTORIES: dict[str, Maker] = {
    "memory": _in_memory,
    "memory-through-codec": _in_memory_through_codec,
    "sqlite": _on_sqlite,
}


@pytest.fixture(params=FACTORIES, ids=str)
def factory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[store_checks.Factory]:
    make = FACTORIES[request.param]
    with ExitStack() as stack:
        yield lambda clock: make(clock, tmp_path, stack)


@pytest.mark.parametrize(
    "check", store_checks.CHECKS, ids=lambda check: check.__name__.removeprefix("check_")
)
def test_store(check: store_checks.StoreCheck, factory: store_checks.Factory) -> None:
    """A store keeps every promise of its port."""
    check(factory)

"""The same promises, kept by the series in memory and by the one on SQLite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tidegate import ports
from tidegate.store.series import SqliteSeries
from tidegate.testing import series_checks
from tidegate.testing.series import MemorySeries

Maker = Callable[[Path, ExitStack], ports.Series]


def _in_memory(folder: Path, stack: ExitStack) -> ports.Series:
    return MemorySeries()


def _on_sqlite(folder: Path, stack: ExitStack) -> ports.Series:
    return stack.enter_context(closing(SqliteSeries(folder / "series.db")))


FACTORIES: dict[str, Maker] = {"memory": _in_memory, "sqlite": _on_sqlite}


@pytest.fixture(params=FACTORIES, ids=str)
def factory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[series_checks.Factory]:
    make = FACTORIES[request.param]
    with ExitStack() as stack:
        yield lambda: make(tmp_path, stack)


@pytest.mark.parametrize(
    "check", series_checks.CHECKS, ids=lambda check: check.__name__.removeprefix("check_")
)
def test_series(check: series_checks.SeriesCheck, factory: series_checks.Factory) -> None:
    """A series keeps every promise of its port."""
    check(factory)

"""A data file that a killed process left torn is found, and no other."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

import pytest
from coverage import CoverageData, CoverageException

from tests.meta import coverage_files

pytestmark = pytest.mark.filterwarnings("ignore:unclosed database:ResourceWarning")


def measured(file: Path, *, branches: bool) -> Path:
    """A data file of two modules."""
    data = CoverageData(str(file))
    if branches:
        data.add_arcs({"/src/one.py": {(-1, 1), (1, 2)}, "/src/two.py": {(-1, 1)}})
    else:
        data.add_lines({"/src/one.py": {1, 2}, "/src/two.py": {1}})
    data.write()
    data.close(force=True)
    return file


def tear(file: Path) -> None:
    """What a process killed between two pages leaves: the row of a module is there and its name is not."""
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        database.execute("PRAGMA writable_schema = ON")
        database.execute("UPDATE file SET path = NULL WHERE path = '/src/two.py'")


@pytest.mark.parametrize("branches", [True, False], ids=["branches", "lines"])
def test_healthy_files_are_kept(tmp_path: Path, branches: bool) -> None:
    """With branches or without: what combines is not touched."""
    measured(tmp_path / ".coverage.host.1.x", branches=branches)
    measured(tmp_path / ".coverage.host.2.x", branches=branches)

    assert list(coverage_files.torn(tmp_path)) == []


@pytest.mark.parametrize("branches", [True, False], ids=["branches", "lines"])
def test_torn_file_is_found_among_healthy_ones(tmp_path: Path, branches: bool) -> None:
    """The very error that ended a run, and those before and after it stay."""
    measured(tmp_path / ".coverage.host.1.x", branches=branches)
    broken = measured(tmp_path / ".coverage.host.2.x", branches=branches)
    measured(tmp_path / ".coverage.host.3.x", branches=branches)
    tear(broken)

    with pytest.raises(CoverageException, match="user-defined function raised"):
        CoverageData(no_disk=True).update(CoverageData(str(broken), read_only=True))
    assert list(coverage_files.torn(tmp_path)) == [broken]


@pytest.mark.parametrize("size", [0, 1, 4096, 5000], ids=["empty", "a byte", "a page", "half a page"])
def test_file_cut_short_is_found(tmp_path: Path, size: int) -> None:
    """Its process had not yet written all of it."""
    file = measured(tmp_path / ".coverage.host.1.x", branches=True)
    file.write_bytes(file.read_bytes()[:size])

    assert list(coverage_files.torn(tmp_path)) == [file]

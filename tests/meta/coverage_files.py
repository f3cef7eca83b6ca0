"""Which of coverage's data files cannot be read to the end, so that one of them does not spoil the whole run.

Tests kill control planes with SIGKILL, some of them in the instant when they write down which lines they
ran. Coverage.py writes without a journal (a lost measurement is no loss), so such a file can be torn: its
tables are there, a row is not. `coverage combine` passes over a file that it cannot open, but ends in an
error on one that breaks while it is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from coverage import CoverageData, CoverageException


def torn(folder: Path) -> Iterator[Path]:
    """The data files of processes in `folder` (`.coverage.HOST.PID.X`) that cannot be combined, in order."""
    for file in sorted(folder.glob(".coverage.*")):
        # Each into an empty target of its own: what a torn file leaves behind must not touch the next one.
        into = CoverageData(no_disk=True)
        data = CoverageData(str(file), read_only=True)
        try:
            into.update(data)
        except CoverageException:
            yield file
        finally:
            data.close(force=True)
            into.close(force=True)

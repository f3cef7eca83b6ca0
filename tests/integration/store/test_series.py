"""The series on a real disk: killed, damaged, full, locked, and how large it grows."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.store import series_worker as worker
from tidegate import errors, ports
from tidegate.core import series
from tidegate.store.series import SqliteSeries
from tidegate.testing.series_checks import KEY, START, point, row, served

pytestmark = pytest.mark.real
FOR_EVER = {"since": 0, "until": 2**40, "limit": 2**40}


@contextmanager
def adding(path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that adds batches until it is killed."""
    process = subprocess.Popen(
        [sys.executable, "-m", worker.__name__, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def sums(kept: SqliteSeries) -> set[int]:
    """Requests by every way of counting them: they must be one number."""
    (mark,) = kept.marks(KEY) or ()
    points = kept.points(KEY, worker.ROLLOUT)
    tiers = [worker.requests(kept.rows(KEY, step_s=step_s, **FOR_EVER)) for step_s in ports.KEPT_S]
    return {mark.requests, sum(each.canary.requests for each in points), *tiers}


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_kill_9_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    """Killed in the middle of batches, rows, points and the counters that they cover are of one moment."""
    path = tmp_path / "series.db"
    chance = random.Random(8)
    for _ in range(8):
        with adding(path) as process:
            assert process.stdout is not None
            said = [int(process.stdout.readline()) for _ in range(chance.randint(1, 12))]
            time.sleep(chance.random() * 0.01)  # so that the kill falls anywhere in a batch
            process.kill()
            said += [int(line) for line in process.stdout if line.endswith("\n")]
        with closing(SqliteSeries(path)) as kept:
            (total,) = sums(kept)
            # The last batch may have been written without having been said.
            assert total // (worker.SECONDS * worker.REQUESTS) in (said[-1], said[-1] + 1)
            assert total % (worker.SECONDS * worker.REQUESTS) == 0


def test_series_is_there_after_a_restart(tmp_path: Path) -> None:
    """What was added is found by the next process, and added to."""
    path = tmp_path / "series.db"
    for number in (1, 2):
        with closing(SqliteSeries(path)) as kept:
            kept.add((worker.batch(number),))
    with closing(SqliteSeries(path)) as kept:
        assert sums(kept) == {2 * worker.SECONDS * worker.REQUESTS}


@pytest.mark.parametrize("damage", ["garbage", "header", "page", "empty"])
def test_damaged_file_is_set_aside_and_a_new_one_begun(tmp_path: Path, damage: str) -> None:
    """The error says what became of it, and the next call works: with a new file, or with what is sound."""
    path = tmp_path / "series.db"
    with closing(SqliteSeries(path)) as kept:
        for number in range(1, 40):
            kept.add((worker.batch(number),))
    whole = path.read_bytes()
    page = 4096
    path.write_bytes(
        {
            "garbage": b"\xff" * len(whole),
            "header": b"\0" * 100 + whole[100:],
            "page": whole[:page] + b"\xff" * (len(whole) - page),
            "empty": b"",
        }[damage]
    )
    with closing(SqliteSeries(path)) as kept:
        if damage == "empty":
            assert kept.marks(KEY) is None
            return
        with pytest.raises(errors.StorageError, match="damaged; a new one is begun"):
            kept.add((worker.batch(41),))
        assert path.with_name("series.db.damaged").exists()
        assert kept.marks(KEY) is None
        kept.add((worker.batch(1),))
        assert sums(kept) == {worker.SECONDS * worker.REQUESTS}


def test_damaged_cells_are_an_error_of_the_disk(tmp_path: Path) -> None:
    """Counts that cannot be read are never half read."""
    path = tmp_path / "series.db"
    with closing(SqliteSeries(path)) as kept:
        kept.add((worker.batch(1),))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("update served set latencies = x'80'")
        connection.commit()
    with closing(SqliteSeries(path)) as kept, pytest.raises(errors.StorageError, match="damaged"):
        kept.rows(KEY, step_s=1, **FOR_EVER)


def test_file_of_another_program_is_left_alone(tmp_path: Path) -> None:
    """It is named, every time, and not touched."""
    path = tmp_path / "series.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table theirs (id)")
    with closing(SqliteSeries(path)) as kept:
        for _ in range(2):
            with pytest.raises(errors.StorageError, match="another program"):
                kept.add((worker.batch(1),))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("select name from sqlite_master").fetchall() == [("theirs",)]


def test_folder_that_is_no_folder_is_an_error_until_it_is_mended(tmp_path: Path) -> None:
    """Nothing is opened before it is needed, and each call tries again."""
    folder = tmp_path / "state"
    folder.write_text("in the way")
    with closing(SqliteSeries(folder / "series.db")) as kept:
        with pytest.raises(errors.StorageError):
            kept.add((worker.batch(1),))
        folder.unlink()
        folder.mkdir()
        kept.add((worker.batch(1),))
        assert sums(kept) == {worker.SECONDS * worker.REQUESTS}


def test_locked_file_is_waited_for_briefly(tmp_path: Path) -> None:
    """A strange program that holds the file costs a failed batch, not the writer's life."""
    path = tmp_path / "series.db"
    with closing(SqliteSeries(path, busy_timeout_s=0.05)) as kept:
        kept.add((worker.batch(1),))
        with closing(sqlite3.connect(path, isolation_level=None)) as stranger:
            stranger.execute("begin immediate")
            with pytest.raises(errors.StoreError, match="locked"):
                kept.add((worker.batch(2),))
        kept.add((worker.batch(2),))
        assert sums(kept) == {2 * worker.SECONDS * worker.REQUESTS}


def test_closed_series_refuses(tmp_path: Path) -> None:
    """After the end nothing is opened again."""
    kept = SqliteSeries(tmp_path / "series.db")
    kept.close()
    kept.close()
    with pytest.raises(errors.StoreError, match="closed"):
        kept.marks(KEY)
    assert not (tmp_path / "series.db").exists()


def test_failed_batch_leaves_nothing_behind(tmp_path: Path) -> None:
    """All of a batch or nothing, also when the last part of it cannot be written."""
    bad = ports.InstanceCounts(service="web", instance=0, requests=((5, -1),), errors=())
    with closing(SqliteSeries(tmp_path / "series.db")) as kept:
        kept.add((worker.batch(1),))
        with pytest.raises(ValueError, match="above zero"):
            kept.add((worker.batch(2), ports.Recorded(key=KEY, instances=(bad,))))
        assert sums(kept) == {worker.SECONDS * worker.REQUESTS}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with little room."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: a full disk; to mount a small one needs root")
    point_ = tmp_path / "disk"
    point_.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "none", str(point_)]
    answer = subprocess.run(mount, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        pytest.skip(f"NOT TESTED: a full disk; mount says: {answer.stderr.strip()}")
    try:
        yield point_
    finally:
        subprocess.run(["umount", "--lazy", str(point_)], check=True)


def until_refused(kept: SqliteSeries, *, after: int) -> tuple[int, errors.StorageError]:
    """Add batches until one is refused: the last one that was not, and the refusal."""
    for number in range(after + 1, 2000):
        try:
            kept.add((worker.batch(number),))
        except errors.StorageError as error:
            return number - 1, error
    raise AssertionError("the disk never became full")


def test_full_disk_refuses_whole_batches(small_disk: Path) -> None:
    """What was acknowledged stays, what was refused is not there, and room again is enough to go on."""
    filler = small_disk / "filler"
    with closing(SqliteSeries(small_disk / "series.db")) as kept:
        kept.add((worker.batch(1),))
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"\0" * 4096)
        written, error = until_refused(kept, after=1)
        assert "full" in str(error)
        assert sums(kept) == {written * worker.SECONDS * worker.REQUESTS}
        filler.unlink()
        kept.add((worker.batch(written + 1),))
        assert sums(kept) == {(written + 1) * worker.SECONDS * worker.REQUESTS}


# --- size ------------------------------------------------------------------------------------------

#: Latencies of a busy service: 40 buckets in use.
BUSY = served(5000, latencies=tuple((60 + bucket, 1 + 7 * bucket) for bucket in range(40)))


def size(kept: SqliteSeries, path: Path) -> int:
    """Of the file, when its log was written back."""
    kept.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("pragma wal_checkpoint(truncate)").fetchall()
    return path.stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize(("step_s", "bytes_max"), [(1, 200), (60, 200), (3600, 200)])
def test_size_of_a_busy_service_is_what_the_module_says(tmp_path: Path, step_s: int, bytes_max: int) -> None:
    """Bytes per kept row of each tier, pages and all."""
    path = tmp_path / "series.db"
    kept = SqliteSeries(path)
    number = 2000
    for begin in range(0, number, 500):
        rows = tuple(
            series.Row(at=START + at * step_s, placement=1, release=1, service="web", served=BUSY)
            for at in range(begin, begin + 500)
        )
        kept.add((ports.Recorded(key=KEY, rows=rows),))
    found = sum(len(kept.rows(KEY, step_s=each, **FOR_EVER)) for each in ports.KEPT_S)
    assert size(kept, path) / found < bytes_max


@pytest.mark.slow
def test_size_of_a_long_rollout_is_what_the_module_says(tmp_path: Path) -> None:
    """Bytes per point, with forty buckets on both sides."""
    path = tmp_path / "series.db"
    kept = SqliteSeries(path)
    side = series.Side(requests=5000, errors=3, latencies=BUSY.latencies)
    points = tuple(
        (7, replace(point(START + at), canary=side, stable=side)) for at in range(series.POINTS_MAX)
    )
    kept.add((ports.Recorded(key=KEY, points=points),))
    assert size(kept, path) / series.POINTS_MAX < 360


@pytest.mark.slow
def test_size_stays_the_same_over_days(tmp_path: Path) -> None:
    """Old rows make room for new ones: the file of a longer time is no larger."""
    path = tmp_path / "series.db"
    sizes = []
    kept = SqliteSeries(path)
    for minute in range(150):
        rows = tuple(row(START + 60 * minute + second, 5) for second in range(60))
        kept.add((ports.Recorded(key=KEY, rows=rows),))
        kept.forget(START + 60.0 * minute)
        if minute in (74, 149):
            sizes.append(size(kept, path))
            kept = SqliteSeries(path)
    kept.close()
    assert sizes[1] < 1.1 * sizes[0]

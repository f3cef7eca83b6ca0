"""The store on a disk that is full, read-only or not ours. Small file systems need root to be mounted."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tidegate import errors, ports
from tidegate.core import model
from tidegate.store import sqlite

KEY = model.EnvironmentKey(app="shop", environment="production")
SIZE_BYTES = 4 * 1024 * 1024
BALLAST_BYTES = 512 * 1024

pytestmark = pytest.mark.real


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with little room."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: a full disk; to mount a small one needs root")
    point = tmp_path / "disk"
    point.mkdir(mode=0o700)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES},mode=700", "none", str(point)]
    answer = subprocess.run(mount, capture_output=True, text=True, check=False)
    if answer.returncode != 0:
        pytest.skip(f"NOT TESTED: a full disk; mount says: {answer.stderr.strip()}")
    try:
        yield point
    finally:
        subprocess.run(["umount", "--lazy", str(point)], check=True)


def fill(path: Path) -> None:
    """Leave not one free block."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"\0" * 4096)


def state(size: int) -> model.EnvironmentState:
    return model.EnvironmentState(key=KEY, next_id=size, halted="x" * size)


def refused(
    store: sqlite.SqliteStore, lease: ports.Lease, versioned: ports.Versioned
) -> tuple[ports.Versioned, errors.StorageError]:
    """Commit for as long as the log has room; what was acknowledged last, and the refusal."""
    event = model.Event(reason=model.Reason.READY)
    for _ in range(100):
        try:
            versioned = store.commit(lease, versioned, state(100_000), (event,), at=2.0)
        except errors.StorageError as error:
            return versioned, error
    pytest.fail("the disk never was full")


def test_full_disk_refuses_then_leaves_room_for_the_abort(small_disk: Path) -> None:
    """A full disk refuses the commit and loses nothing; the ballast then gives room for those that follow."""
    path = small_disk / "state" / "tidegate.db"
    with closing(sqlite.SqliteStore(path, ballast_bytes=BALLAST_BYTES)) as store:
        ballast = path.with_name("tidegate.db.ballast")
        assert ballast.stat().st_blocks * 512 >= BALLAST_BYTES
        lease = store.acquire("control plane", ttl_s=60.0)
        versioned = store.commit(lease, store.load(KEY), state(1), (), at=1.0)
        filler = small_disk / "filler"
        fill(filler)
        versioned, error = refused(store, lease, versioned)
        assert "is full" in str(error)
        assert "reserve was given up" in str(error)
        assert not ballast.exists()
        assert store.load(KEY) == versioned
        assert len(store.events(KEY)) == versioned.version - 1
        aborted = store.commit(lease, versioned, state(100_000), (), at=3.0)
        assert store.load(KEY) == aborted
        assert {finding.name: finding.ok for finding in store.check()}["state: soundness"]
        assert not ballast.exists()
        filler.unlink()
        store.commit(lease, aborted, state(1), (), at=4.0)
        assert ballast.exists()


def test_full_disk_does_not_keep_the_control_plane_down(small_disk: Path) -> None:
    """On a disk that is full at the start, the ballast gives room to open the state and to commit."""
    path = small_disk / "state" / "tidegate.db"
    with closing(sqlite.SqliteStore(path, ballast_bytes=BALLAST_BYTES)) as store:
        lease = store.acquire("control plane", ttl_s=60.0)
        store.commit(lease, store.load(KEY), state(5), (), at=1.0)
    fill(small_disk / "filler")
    with closing(sqlite.SqliteStore(path, ballast_bytes=BALLAST_BYTES)) as store:
        assert store.load(KEY).state == state(5)
        with suppress(errors.StorageError):
            store.acquire("control plane", ttl_s=60.0)
        lease = store.acquire("control plane", ttl_s=60.0)
        assert store.commit(lease, store.load(KEY), state(6), (), at=1.0).version == 2


def test_backup_without_room_leaves_state_and_ballast_alone(small_disk: Path, tmp_path: Path) -> None:
    """A backup that does not fit fails by itself: no half of it stays, and the reserve is not for it."""
    path = tmp_path / "data" / "tidegate.db"
    with closing(sqlite.SqliteStore(path, ballast_bytes=BALLAST_BYTES)) as store:
        fill(small_disk / "filler")
        with pytest.raises(errors.StorageError, match="could not be written"):
            store.backup(small_disk / "backup.db")
        assert [file.name for file in small_disk.iterdir()] == ["filler"]
        assert path.with_name("tidegate.db.ballast").exists()


def test_read_only_disk_is_refused(small_disk: Path) -> None:
    """A folder on a disk that is mounted read-only cannot hold the state, and the error says which."""
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(errors.StorageError, match=f"{small_disk / 'state'} cannot be used: Read-only"):
        sqlite.SqliteStore(small_disk / "state" / "tidegate.db")
    with pytest.raises(errors.StorageError, match=f"{small_disk} cannot be used"):
        sqlite.SqliteStore(small_disk / "tidegate.db")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere: the read-only disk stands for it")
def test_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    """A folder that we may not write cannot hold the state, and the error says which."""
    tmp_path.chmod(0o500)
    with pytest.raises(errors.StorageError, match=f"{tmp_path} cannot be used"):
        sqlite.SqliteStore(tmp_path / "tidegate.db")


def test_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    """A data folder that is a file is an error of the machine, named by its path."""
    (tmp_path / "state").write_text("")
    with pytest.raises(errors.StorageError, match=r"state cannot be used"):
        sqlite.SqliteStore(tmp_path / "state" / "tidegate.db")

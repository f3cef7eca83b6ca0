"""The store among processes: killed, locked out, kept waiting."""

from __future__ import annotations

import random
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.store import worker
from tidegate import errors
from tidegate.core import model
from tidegate.store import sqlite

pytestmark = [pytest.mark.real, pytest.mark.slow]
KEY = worker.KEY


@pytest.mark.timeout(240)
def test_no_acknowledged_commit_is_lost_to_kill_9(tmp_path: Path) -> None:
    """Killed twenty times in the middle of writing, the file is sound and has all that was acknowledged."""
    path = tmp_path / "tidegate.db"
    chance = random.Random(20)
    for _ in range(20):
        with worker.started("commit", path) as process:
            acknowledged = [int(worker.said(process)) for _ in range(chance.randint(1, 40))]
            time.sleep(chance.random() * 0.01)  # so that the kill falls anywhere in a commit
            process.kill()
            assert process.stdout is not None
            acknowledged += [int(line) for line in process.stdout if line.endswith("\n")]
        with closing(sqlite.SqliteStore(path, ballast_bytes=0)) as store:
            versioned = store.load(KEY)
            # The last commit may have been done without having been said.
            assert versioned.version in (acknowledged[-1], acknowledged[-1] + 1)
            assert versioned.state.next_id == versioned.version
            assert len(store.events(KEY, limit=100_000)) == versioned.version
            assert {finding.name: finding.ok for finding in store.check()}["state: soundness"]


def test_second_control_plane_is_refused_by_name(tmp_path: Path) -> None:
    """While one process has the folder, another is refused with its pid; when it has died, it is free."""
    path = tmp_path / "tidegate.db"
    with worker.started("hold", path) as process:
        assert worker.said(process) == "ready"
        with pytest.raises(errors.LeaseHeldError, match=f"in use by process {process.pid}"):
            sqlite.SqliteStore(path, ballast_bytes=0)
        process.kill()
        process.wait()
        sqlite.SqliteStore(path, ballast_bytes=0).close()


def test_lease_of_a_killed_control_plane_is_free_at_once(tmp_path: Path) -> None:
    """After kill -9 the next one need not wait for the lease, and its epoch is larger."""
    path = tmp_path / "tidegate.db"
    with worker.started("commit", path) as process:
        worker.said(process)
    with closing(sqlite.SqliteStore(path, ballast_bytes=0)) as store:
        lease = store.acquire("next", ttl_s=15.0)
        assert lease.epoch == 2
        store.commit(lease, store.load(KEY), model.EnvironmentState(key=KEY), (), at=0.0)


def test_commit_waits_for_a_stranger(tmp_path: Path) -> None:
    """A commit waits while a strange program has the file locked for two seconds; reads do not."""
    path = tmp_path / "tidegate.db"
    with closing(sqlite.SqliteStore(path, busy_timeout_s=30.0, ballast_bytes=0)) as store:
        lease = store.acquire("control plane", ttl_s=60.0)
        with worker.started("lock", path) as stranger:
            assert worker.said(stranger) == "ready"
            assert stranger.stdin is not None
            release = threading.Timer(2.0, stranger.stdin.close)
            start = time.monotonic()
            release.start()
            assert store.load(KEY).version == 0
            assert time.monotonic() - start < 1.5
            store.commit(lease, store.load(KEY), model.EnvironmentState(key=KEY), (), at=0.0)
            assert 1.5 < time.monotonic() - start < 25.0
            release.join()
        assert store.load(KEY).version == 1


def test_commit_gives_up_on_a_stranger_in_bounded_time(tmp_path: Path) -> None:
    """A lock that lasts longer than the limit is refused in time, and nothing has changed."""
    path = tmp_path / "tidegate.db"
    with closing(sqlite.SqliteStore(path, busy_timeout_s=0.5, ballast_bytes=0)) as store:
        lease = store.acquire("control plane", ttl_s=60.0)
        versioned = store.load(KEY)
        state = model.EnvironmentState(key=KEY, next_id=7)
        with worker.started("lock", path) as stranger:
            assert worker.said(stranger) == "ready"
            start = time.monotonic()
            with pytest.raises(errors.StoreError, match="locked by another program"):
                store.commit(lease, versioned, state, (worker.EVENT,), at=0.0)
            assert 0.4 < time.monotonic() - start < 5.0
            assert (store.load(KEY), store.events(KEY)) == (versioned, ())
        store.commit(lease, versioned, state, (), at=0.0)


def test_opening_gives_up_on_a_stranger_in_bounded_time(tmp_path: Path) -> None:
    """A folder whose database is locked can be opened, and the first write says who is in the way."""
    path = tmp_path / "tidegate.db"
    sqlite.SqliteStore(path, ballast_bytes=0).close()
    with worker.started("lock", path) as stranger:
        assert worker.said(stranger) == "ready"
        start = time.monotonic()
        with (
            pytest.raises(errors.StoreError, match="locked by another program"),
            closing(sqlite.SqliteStore(path, busy_timeout_s=0.3, ballast_bytes=0)) as store,
        ):
            store.acquire("control plane", ttl_s=60.0)
        assert time.monotonic() - start < 5.0

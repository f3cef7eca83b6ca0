"""Store: commits per second of Tidegate's store, beside the bare database with the same settings and rows.

Both write to files in the same folder, in turns, and wait for the disk at each commit (synchronous=FULL).
Neighbour: `tests.support.builders`, from which the states come.
"""

from __future__ import annotations

import sqlite3
import statistics
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from bench import figures, machine, report
from tests.support import builders
from tidegate.core import model
from tidegate.store import codec, sql
from tidegate.store.sqlite import SqliteStore


def measure(*, quick: bool) -> report.Section:
    """Run the part."""
    rounds, commits = (5, 40) if quick else (15, 100)
    state = builders.environment().live("r1").incoming("r2", phase=model.Phase.HOLDING).state
    found: dict[str, list[float]] = {"raw sqlite3, the same rows": [], "SqliteStore.commit": []}
    cpu: dict[str, list[float]] = {name: [] for name in found}
    with machine.folder() as root:
        (root / "raw").mkdir()
        for number in range(rounds):
            for name, run in (("raw sqlite3, the same rows", _raw), ("SqliteStore.commit", _store)):
                busy_s, begun_s = time.process_time(), time.monotonic()
                run(root / f"{name.split()[0]}-{number}", state, commits)
                found[name].append((time.monotonic() - begun_s) / commits)
                cpu[name].append((time.process_time() - busy_s) / commits)
    raw, ours = found.values()
    rows = tuple(
        (
            name,
            figures.thousands(1 / statistics.median(found[name])),
            figures.milliseconds(statistics.median(found[name])),
            f"{statistics.median(cpu[name]) * 1e6:.0f}",
            figures.times(figures.median_ratio(found[name], raw)),
            figures.times(figures.median_ratio(cpu[name], cpu["raw sqlite3, the same rows"])),
        )
        for name in found
    )
    size = len(codec.STATE.encode(state))
    return report.Section(
        name="store",
        title="Commits",
        method=(
            f"{rounds} rounds of {commits} commits each, in turns; a state of {size:,} bytes with a rollout, "
            "its history record and one event per commit. Write-ahead log, synchronous=FULL. Times contain "
            "opening and closing the file, once a round, and encoding the state."
        ),
        tables=(
            report.Table(
                heading=("", "commits/s", "ms/commit", "CPU us/commit", "time ratio", "CPU ratio"), rows=rows
            ),
        ),
        findings=(
            f"Lease, versions and typed records: {figures.times(figures.median_ratio(ours, raw))} the time.",
        ),
    )


def _event() -> model.Event:
    return model.Event(reason=model.Reason.HELD, rollout=2, release=2, detail="held for 10 s")


def _store(path: Path, state: model.EnvironmentState, commits: int) -> None:
    with closing(SqliteStore(path, ballast_bytes=0)) as store:
        lease = store.acquire("bench", ttl_s=60.0)
        versioned = store.load(state.key)
        for number in range(commits):
            changed = replace(state, seen_router=number)
            versioned = store.commit(lease, versioned, changed, (_event(),), at=float(number))


def _raw(path: Path, state: model.EnvironmentState, commits: int) -> None:
    """One transaction a commit: replace the state, replace the rollout, append the event."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("pragma journal_mode = wal").fetchall()
        connection.execute("pragma synchronous = full")
        for step in sql.STEPS:
            for statement in step:
                connection.execute(statement)
        text, event = codec.STATE.encode(state), codec.EVENT.encode(_event())
        rollout = codec.ROLLOUT.encode(state.rollout) if state.rollout else ""
        for number in range(commits):
            connection.execute("begin immediate")
            connection.execute(
                "insert or replace into environments values ('shop', 'production', ?, 1, ?)",
                (number + 1, text),
            )
            connection.execute(
                "insert or replace into rollouts values ('shop', 'production', 2, '', ?, ?, null)",
                (rollout, float(number)),
            )
            connection.execute(
                "insert into events (app, environment, at, record) values ('shop', 'production', ?, ?)",
                (float(number), event),
            )
            connection.execute("commit")

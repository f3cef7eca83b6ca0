"""Locks: what users notice of an ALTER TABLE that meets a long report, with Tidegate's runner and without.

Open loop: requests arrive at a fixed rate whether or not the ones before are answered, as users do; a closed
loop would stop asking while everything waits. Neighbours: `tests.support.postgres` starts the server,
`tidegate.migrators.runner` is what is measured.
"""

from __future__ import annotations

import itertools
import queue
import random
import threading
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psycopg

from bench import figures, machine, report
from tests.support import migrations, postgres
from tidegate.clock import SystemClock
from tidegate.migrators.databases import open_session
from tidegate.migrators.runner import Author, Runner

ROWS: Final = 20_000
WORKERS: Final = 24
"""Connections of the app. More than the rate needs: so that waiting requests are seen to pile up."""
RATE: Final = 60.0
REPORT_S: Final = 6.0
BY_HAND_PAUSE_S: Final = 0.5
"""Between two tries of those who try by hand."""
BEFORE_S: Final = 2.0
AFTER_S: Final = 3.0
ADD: Final = "ALTER TABLE users ADD COLUMN note{n} text"
DROP: Final = "ALTER TABLE users DROP COLUMN note{n}"

TIDEGATE: Final = -1.0
#: Names of the rows, each with the longest wait for a lock in every try; None: no migration, 0: no limit.
WAYS: Final[dict[str, float | None]] = {
    "no migration": None,
    "no lock_timeout": 0,
    "lock_timeout 2 s, tried again": 2.0,
    "lock_timeout 500 ms, tried again": 0.5,
    "lock_timeout 100 ms, tried again": 0.1,
    "Tidegate": TIDEGATE,
}


@dataclass(slots=True)
class Seen:
    """What the users saw in one run."""

    latencies: list[float] = field(default_factory=list)
    """Seconds, from when the request was due."""
    answered_at: list[float] = field(default_factory=list)
    failed: int = 0
    tries: int = 0
    took_s: float = 0.0
    """The migration, from its beginning."""

    @property
    def longest_silence_s(self) -> float:
        """The longest time in which nobody got an answer."""
        ends = sorted(self.answered_at)
        return max((later - sooner for sooner, later in itertools.pairwise(ends)), default=0.0)


def measure(*, quick: bool) -> report.Section:
    """Run the part."""
    rounds = 1 if quick else 3
    server = postgres.Server()
    try:
        with machine.folder() as folder:
            seen: dict[str, list[Seen]] = {name: [] for name in WAYS}
            for _, (name, lock_s) in itertools.product(range(rounds), WAYS.items()):
                seen[name].append(_run(server, folder, lock_s))
    finally:
        server.close()
    return _section(seen, rounds)


def _run(server: postgres.Server, folder: Path, lock_s: float | None) -> Seen:
    database = server.database()
    with server.connect(database) as connection:
        connection.execute("CREATE TABLE users (id integer PRIMARY KEY, name text, visits integer)")
        connection.execute(f"INSERT INTO users SELECT i, 'user ' || i, 0 FROM generate_series(1, {ROWS}) i")  # noqa: S608
        connection.execute("VACUUM ANALYZE users")
    seen, stop = Seen(), threading.Event()
    threads = [threading.Thread(target=_users, args=(server, database, seen, stop))]
    threads.append(threading.Thread(target=_report, args=(server, database)))
    threads[0].start()
    time.sleep(BEFORE_S)
    threads[1].start()
    time.sleep(0.3)
    if lock_s is not None:
        _migrate(server.url(database), folder, lock_s, seen)
    else:
        time.sleep(REPORT_S)
    time.sleep(AFTER_S)
    stop.set()
    for thread in threads:
        thread.join()
    return seen


def _report(server: postgres.Server, database: str) -> None:
    with server.connect(database) as connection:
        connection.execute(f"SELECT pg_sleep({REPORT_S}) FROM users LIMIT 1")  # noqa: S608


def _users(server: postgres.Server, database: str, seen: Seen, stop: threading.Event) -> None:
    """Requests at a fixed rate, answered by as many connections as an app has."""
    due: queue.SimpleQueue[float | None] = queue.SimpleQueue()
    lock = threading.Lock()
    workers = [
        threading.Thread(target=_serve, args=(server, database, (due, seen, lock), number))
        for number in range(WORKERS)
    ]
    for worker in workers:
        worker.start()
    begun = time.monotonic()
    for number in itertools.count():
        at = begun + number / RATE
        if stop.wait(max(at - time.monotonic(), 0.0)):
            break
        due.put(at)
    for _ in workers:
        due.put(None)
    for worker in workers:
        worker.join()


Work = tuple["queue.SimpleQueue[float | None]", Seen, threading.Lock]


def _serve(server: postgres.Server, database: str, work: Work, number: int) -> None:
    due, seen, lock = work
    rng = random.Random(number)
    with server.connect(database) as connection:
        while (at := due.get()) is not None:
            failed = not _request(connection, rng)
            now = time.monotonic()
            with lock:
                seen.latencies.append(now - at)
                seen.answered_at.append(now)
                seen.failed += failed


def _request(connection: psycopg.Connection[tuple[object, ...]], rng: random.Random) -> bool:
    """One in five writes."""
    user = rng.randint(1, ROWS)
    try:
        if rng.random() < 0.2:
            connection.execute("UPDATE users SET visits = visits + 1 WHERE id = %s", (user,))
        else:
            connection.execute("SELECT name, visits FROM users WHERE id = %s", (user,)).fetchone()
    except psycopg.Error:
        return False
    return True


_NUMBER = itertools.count()


def _migrate(url: str, folder: Path, lock_s: float, seen: Seen) -> None:
    """By Tidegate's runner, or as people do it by hand: the same limit in every try."""
    n = next(_NUMBER)
    begun = time.monotonic()
    if lock_s == TIDEGATE:
        (migration,) = migrations.made(
            folder / str(n), ("note", f"{ADD.format(n=n)};", f"{DROP.format(n=n)};")
        )
        with closing(open_session(url, clock=SystemClock())) as session:
            runner = Runner(
                session=session,
                app="bench",
                environment="bench",
                clock=SystemClock(),
                jitter=random.Random(n).random,
                tell=_counted(seen),
            )
            runner.open()
            runner.up(migration, Author())
    else:
        _by_hand(url, ADD.format(n=n), lock_s, seen)
    seen.took_s = time.monotonic() - begun


def _by_hand(url: str, statement: str, lock_s: float, seen: Seen) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"SET lock_timeout = {lock_s * 1000:.0f}".encode())
        while True:
            seen.tries += 1
            try:
                connection.execute(statement.encode())
            except psycopg.errors.LockNotAvailable:
                time.sleep(BY_HAND_PAUSE_S)
            else:
                return


def _counted(seen: Seen) -> Callable[[object], None]:
    def count(progress: object) -> None:
        seen.tries += bool(getattr(progress, "statement", 0))

    return count


def _section(seen: dict[str, list[Seen]], rounds: int) -> report.Section:
    pooled = {name: [latency for run in runs for latency in run.latencies] for name, runs in seen.items()}
    calm = figures.percentile(pooled["no migration"], 99)
    rows = tuple(
        (
            name,
            str(len(pooled[name])),
            str(sum(run.failed for run in runs)),
            figures.milliseconds(figures.percentile(pooled[name], 99)),
            figures.times(figures.percentile(pooled[name], 99) / calm),
            figures.milliseconds(max(pooled[name])),
            str(sum(latency > 1 for latency in pooled[name])),
            f"{max(run.longest_silence_s for run in runs):.2f}",
            f"{max(run.tries for run in runs)}",
            f"{max(run.took_s for run in runs):.1f}",
        )
        for name, runs in seen.items()
    )
    ours = figures.percentile(pooled["Tidegate"], 99) / calm
    silence = max(run.longest_silence_s for run in seen["Tidegate"])
    method = (
        f"{rounds} rounds, in turns; PostgreSQL on this machine, {ROWS:,} rows, {RATE:.0f} requests/s by the "
        f"clock, one in five writes, on {WORKERS} connections. A report reads for {REPORT_S:.0f} s "
        "when a column is added to it. Latencies count from when a request was due."
    )
    finding = (
        f"With Tidegate's limit p99 is {figures.times(ours)} that without a migration (aim: at most 4), the "
        f"longest time without an answer is {silence:.2f} s (aim: below 1)."
    )
    heading = ("", "requests", "failed", "p99, ms", "of no migration", "max, ms", "over 1 s")
    return report.Section(
        name="locks",
        title="ALTER TABLE behind a long report",
        method=method,
        tables=(report.Table(heading=(*heading, "longest silence, s", "tries", "took, s"), rows=rows),),
        findings=(finding,),
    )

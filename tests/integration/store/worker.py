"""The other process of these tests: `python -m tests.integration.store.worker MODE DATABASE`.

Says `ready` or the version of each acknowledged commit, one a line, and goes on until its input ends.
"""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tidegate.core import model
from tidegate.store import sqlite

KEY: Final = model.EnvironmentKey(app="shop", environment="production")
EVENT: Final = model.Event(reason=model.Reason.READY, detail="x" * 300)


@contextmanager
def started(mode: str, path: Path) -> Iterator[subprocess.Popen[str]]:
    """The worker's process, killed at the end of the block if it still lives."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.integration.store.worker", mode, str(path)],
        stdin=subprocess.PIPE,
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
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def say(line: object) -> None:
    """To the test, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def said(process: subprocess.Popen[str]) -> str:
    """The worker's next line."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def hold(path: Path) -> None:
    """Have the store open."""
    sqlite.SqliteStore(path, ballast_bytes=0)
    say("ready")
    sys.stdin.read()


def lock(path: Path) -> None:
    """Be a stranger that keeps a write transaction open."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("begin immediate")
    say("ready")
    sys.stdin.read()
    connection.execute("rollback")


def commit(path: Path) -> None:
    """Commit as fast as possible: the version, as a number and as one event, is all that changes."""
    store = sqlite.SqliteStore(path, ballast_bytes=0)
    lease = store.acquire(f"worker {os.getpid()}", ttl_s=60.0)
    versioned = store.load(KEY)
    while True:
        state = model.EnvironmentState(key=KEY, next_id=versioned.version + 1)
        versioned = store.commit(lease, versioned, state, (EVENT,), at=0.0)
        say(versioned.version)


if __name__ == "__main__":
    {"hold": hold, "lock": lock, "commit": commit}[sys.argv[1]](Path(sys.argv[2]))

"""The process that runs scripts: `python -m tidegate.migrators.worker`, with its order on standard input.

A process of its own, so that a script that hangs or a library that crashes takes nothing else along, and so
that the password of the database is in no other process's memory, and in nobody's `ps`. It may be killed at
any moment and started again with the same order: what is done is in the ledger.

Input: one JSON object, `Order`. Output: a JSON object a line: {"progress": ...} while it works, then one of
{"done": ["0003_a up", ...]} and {"error": {"kind", "message", "hint"}}. Exit status: 0, or that of the error.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tidegate import errors
from tidegate.clock import SystemClock
from tidegate.core.migrations import Direction
from tidegate.migrators import scripts
from tidegate.migrators.databases import LOCK_WAIT_S, open_session
from tidegate.migrators.runner import LOCK_WAIT_S as SCRIPT_LOCK_WAIT_S
from tidegate.migrators.runner import Author, Progress, Runner
from tidegate.migrators.scripts import SqlMigration

ORDER_BYTES_MAX: Final = 1024 * 1024
RECONNECTS_MAX: Final = 5
RECONNECT_PAUSE_S: Final = 1.0


class OrderedStep(BaseModel):
    """A script to run."""

    model_config = ConfigDict(extra="forbid")

    id: str
    direction: Direction


class Order(BaseModel):
    """What to do."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(repr=False)
    """Of the database."""
    app: str
    environment: str
    folder: Path | None = None
    """With the migrations of the release; reverts come from the ledger."""
    steps: Annotated[list[OrderedStep], Field(max_length=scripts.SCRIPTS_MAX)]
    release: int = 0
    digest: str = ""
    by: str = ""
    lock_wait_s: float = Field(default=SCRIPT_LOCK_WAIT_S, gt=0)
    runner_wait_s: float = Field(default=LOCK_WAIT_S, gt=0)


Say = Callable[[dict[str, Any]], None]


def work(order: Order, say: Say) -> list[str]:
    """All steps; those that were done. A lost connection is made again. Raises TidegateError."""
    migrations = {one.id: one for one in scripts.read(order.folder)} if order.folder else {}
    done: list[str] = []
    clock = SystemClock()
    for attempt in range(RECONNECTS_MAX + 1):
        try:
            with closing(open_session(order.url, clock=clock, wait_s=order.runner_wait_s)) as session:
                runner = Runner(
                    session=session,
                    app=order.app,
                    environment=order.environment,
                    clock=clock,
                    jitter=random.random,
                    lock_wait_s=order.lock_wait_s,
                    tell=lambda progress: say({"progress": _told(progress)}),
                )
                runner.open()
                runner.check(migrations.values())
                ran = (step for step in order.steps if _step(runner, step, migrations, order))
                done.extend(f"{step.id} {step.direction}" for step in ran)
                return done
        except errors.LostDatabaseError as error:
            if attempt == RECONNECTS_MAX:
                raise
            say({"progress": {"waits": error.message}})
            clock.sleep(RECONNECT_PAUSE_S)
    raise AssertionError("unreachable")


def _step(runner: Runner, step: OrderedStep, migrations: dict[str, SqlMigration], order: Order) -> bool:
    author = Author(release=order.release, digest=order.digest, by=order.by)
    if step.direction is Direction.DOWN:
        return runner.down(step.id, author)
    if step.id not in migrations:
        raise errors.NotFoundError(f"The release has no migration {step.id}.")
    return runner.up(migrations[step.id], author)


def _told(progress: Progress) -> dict[str, Any]:
    return {
        "id": progress.id,
        "statement": progress.statement,
        "statements": progress.statements,
        "waits": progress.waits,
    }


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(f"{json.dumps(line)}\n")
    sys.stdout.flush()


def main() -> int:
    """Exit status."""
    try:
        order = Order.model_validate_json(sys.stdin.buffer.read(ORDER_BYTES_MAX))
    except ValidationError as error:
        places = ", ".join(".".join(map(str, one["loc"])) for one in error.errors(include_input=False))
        _say({"error": {"kind": "request", "message": f"The order is not valid: {places}.", "hint": None}})
        return 2
    try:
        _say({"done": work(order, _say)})
    except errors.TidegateError as error:
        _say({"error": {"kind": error.kind, "message": error.message, "hint": error.hint}})
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())

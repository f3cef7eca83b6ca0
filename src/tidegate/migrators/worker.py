"""The process that works on a database: `python -m tidegate.migrators.worker`, its order on standard input.

A process of its own, so that a script that hangs or a library that crashes takes nothing else along, and so
that the password of the database is in no other process's memory, and in nobody's `ps`. It may be killed at
any moment and started again with the same order: what is done is in the ledger.

Input: one line with a JSON object, `Order`. When the input ends after it, whoever gave the order is gone, and
so is the worker: an order of yesterday is not carried out today. Output: a JSON object a line: {"progress":
...} while it works, then {"done": [...], "study": ..., "proofs": [...]} or {"error": {"kind", "message",
"hint"}}. Exit status: 0, or that of the error.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import random
import re
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tidegate import errors
from tidegate.clock import SystemClock
from tidegate.core.ledgers import LedgerRow
from tidegate.core.migrations import Direction, Step
from tidegate.core.schemas import Proof
from tidegate.migrators import scripts, studies
from tidegate.migrators.databases import LOCK_WAIT_S, open_session
from tidegate.migrators.runner import LOCK_WAIT_S as SCRIPT_LOCK_WAIT_S
from tidegate.migrators.runner import Author, Progress, Runner
from tidegate.migrators.scripts import SqlMigration
from tidegate.migrators.session import Session

ORDER_BYTES_MAX: Final = 16 * 1024 * 1024
RECONNECTS_MAX: Final = 5
RECONNECT_PAUSE_S: Final = 1.0


class Order(BaseModel):
    """What to do."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(repr=False)
    """Of the database."""
    app: str
    environment: str
    folder: Path | None = None
    """With the migrations of the release; None: it has none. Reverts come from the ledger."""
    steps: Annotated[list[Step], Field(max_length=scripts.SCRIPTS_MAX)]
    """None: only a study."""
    release: int = 0
    digest: str = ""
    by: str = ""
    fence: int = 0
    only: list[int] = []
    """Not empty: releases that may be connected to the database."""
    proofs: list[Proof] = []
    """What was tried before."""
    user: tuple[int, int] | None = None
    """User and group to become."""
    action: Literal["work", "look", "resolve", "adopt"] = "work"
    """`work`: the steps, or a study. The others are what people ask for, see `asked`."""
    id: str = ""
    finished: bool = False
    """With `resolve`: the statement in doubt was done."""
    why: str = ""
    tries: bool = True
    """A study tries out what nobody has tried."""
    lock_wait_s: float = Field(default=SCRIPT_LOCK_WAIT_S, gt=0)
    runner_wait_s: float = Field(default=LOCK_WAIT_S, gt=0)


Say = Callable[[dict[str, Any]], None]


def work(order: Order, say: Say) -> dict[str, Any]:
    """All steps, and what is true then. A lost connection is made again. Raises TidegateError."""
    migrations = _brought(order)
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
                    fence=order.fence,
                    tell=lambda progress: say({"progress": _told(progress)}),
                )
                return _on_session(runner, migrations, order, done)
        except errors.LostDatabaseError as error:
            if attempt == RECONNECTS_MAX:
                raise
            say({"progress": {"waits": _discreetly(order.url)(error.message)}})
            clock.sleep(RECONNECT_PAUSE_S)
    raise AssertionError("unreachable")


def _brought(order: Order) -> tuple[SqlMigration, ...]:
    if order.folder is None:
        return ()
    if not order.folder.is_dir():
        raise errors.NotFoundError(
            f"The package of r{order.release} has no folder {order.folder.name}.",
            hint="`migrations.path` in tidegate.yaml names it; it has to be in the package.",
        )
    return scripts.read(order.folder)


def _on_session(
    runner: Runner, migrations: tuple[SqlMigration, ...], order: Order, done: list[str]
) -> dict[str, Any]:
    if order.action != "work":
        return _asked(runner, migrations, order)
    trier = studies.Trier(
        url=order.url,
        clock=runner.clock,
        jitter=runner.jitter,
        known=order.proofs,
        tries=order.tries and not order.steps,
    )
    if order.steps:
        runner.open()
        runner.refuse_late()
        runner.check(migrations)
        _refuse_others(runner.session, order)
        proved = {(proof.up_sha, proof.down_sha): proof for proof in order.proofs}
        by_id = {one.id: one for one in migrations}
        found = {
            one.id: proved.get((one.up.sha256, one.down.sha256 if one.down else "")) for one in migrations
        }
        acting = replace(runner, proofs={id_: proof for id_, proof in found.items() if proof})
        done += [f"{step.direction} {step.id}" for step in order.steps if _step(acting, step, by_id, order)]
    studied = studies.study(runner, migrations, trier)
    return {
        "done": done,
        "study": asdict(studied.study),
        "proofs": [asdict(proof) for proof in studied.proofs],
    }


def _asked(runner: Runner, migrations: tuple[SqlMigration, ...], order: Order) -> dict[str, Any]:
    """What stands, after what somebody has said of it."""
    author = Author(release=order.release, digest=order.digest, by=order.by)
    runner.open()
    if order.action == "resolve":
        runner.resolve(order.id, author, done=order.finished)
    elif order.action == "adopt":
        runner.adopt(author, order.why)
    standing = runner.look()
    applied = {row.id for row in standing.applied}
    return {
        "rows": [_row(row) for row in standing.applied],
        "pending": [one.id for one in migrations if one.id not in applied],
        "fingerprint": standing.fingerprint,
        "drifted": standing.drifted,
        "events": [asdict(event) for event in runner.events()],
    }


def _row(row: LedgerRow) -> dict[str, Any]:
    """Without its scripts."""
    found = asdict(row.migration)
    more = {name: getattr(row, name) for name in ("state", "done", "doubtful", "by", "at", "took_s")}
    return {**found, **more}


def _refuse_others(session: Session, order: Order) -> None:
    """What is run now takes away what these still use."""
    name = re.compile(rf"{re.escape(order.app)}\.{re.escape(order.environment)}\.r([0-9]+)")
    there = [int(found[1]) for one in session.connected() if (found := name.fullmatch(one))]
    others = sorted({release for release in there if release not in order.only})
    if order.only and others:
        listed = ", ".join(f"r{release} ({there.count(release)} connections)" for release in others)
        raise errors.SchemaError(
            f"Still connected to the database: {listed}.",
            hint="What is run now would take away what it uses. It is tried again when it has gone.",
        )


def _step(runner: Runner, step: Step, migrations: dict[str, SqlMigration], order: Order) -> bool:
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


#: Shorter ones are words that messages are made of.
HIDDEN_MIN: Final = 3


def _discreetly(url: str) -> Callable[[str], str]:
    """Without the password: a library that cannot make sense of an address may repeat a part of it."""
    try:
        password = urlsplit(url).password or ""
    except ValueError:
        password = url.rpartition("@")[0].rpartition(":")[2]
    hidden = {one for one in (password, unquote(password)) if len(one) >= HIDDEN_MIN}

    def told(text: str) -> str:
        for one in hidden:
            text = text.replace(one, "***")
        return text

    return told


def _end_with(orders: int) -> None:
    """Wait until whoever gave the order has gone, and go too: whatever is open is rolled back.

    `orders`: a descriptor, since a thread that waits in a buffered reader would hold up the end.
    """
    while os.read(orders, 1):
        pass
    os._exit(1)


def _become(user: tuple[int, int]) -> None:
    """Whoever runs the app: what is made belongs to it, and what it may not do cannot be done.

    What is imported later comes first: the library may lie where only we can look.
    """
    with contextlib.suppress(ImportError):
        importlib.import_module("tidegate.migrators.postgres")
    uid, gid = user
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)


def main() -> int:
    """Exit status."""
    orders = sys.stdin.buffer
    try:
        order = Order.model_validate_json(orders.readline(ORDER_BYTES_MAX))
    except ValidationError as error:
        places = ", ".join(".".join(map(str, one["loc"])) for one in error.errors(include_input=False))
        _say({"error": {"kind": "request", "message": f"The order is not valid: {places}.", "hint": None}})
        return 2
    threading.Thread(target=_end_with, args=(orders.fileno(),), daemon=True).start()
    told = _discreetly(order.url)
    try:
        if order.user is not None:
            _become(order.user)
        _say(work(order, _say))
    except errors.TidegateError as error:
        hint = told(error.hint) if error.hint else None
        _say({"error": {"kind": error.kind, "message": told(error.message), "hint": hint}})
        return error.exit_status
    except OSError as error:
        message = f"This machine does not let the migrations run: {error.strerror}."
        _say({"error": {"kind": "machine", "message": message, "hint": None}})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

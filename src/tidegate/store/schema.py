"""How a database file gets today's schema, and how a whole copy of it is made.

Hides `user_version`, `application_id` and VACUUM INTO. Invariants: a file that is not ours, or is newer than
this code, is left untouched; before the first step of an upgrade there is a checked copy of what was.

Neighbours: `sql` has the steps, `sqlite` opens the file and maps the errors that escape from here.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from tidegate import errors
from tidegate.store import files

#: Marks the file as ours: `tide` in ASCII.
APPLICATION_ID: Final = int.from_bytes(b"tide")

Steps = Sequence[Sequence[str]]


def version(connection: sqlite3.Connection, steps: Steps, path: Path) -> int:
    """Steps done in the file. Changes nothing. Raises NewerStateError, or StorageError if it is not ours."""
    done = _pragma(connection, "user_version")
    owner = _pragma(connection, "application_id")
    empty = connection.execute("select count(*) from sqlite_master").fetchone()[0] == 0
    if owner != APPLICATION_ID and not (empty and owner == 0 and done == 0):
        raise errors.StorageError(
            f"{path} is the database of another program. Nothing was touched.",
            hint="Use another data folder, or move that file away.",
        )
    if done > len(steps):
        raise errors.NewerStateError(
            f"{path} has schema {done}, and this Tidegate knows {len(steps)}: a newer Tidegate wrote it. "
            "Nothing was touched.",
            hint="Upgrade this Tidegate, or restore the backup from before the upgrade.",
        )
    return done


def upgrade(connection: sqlite3.Connection, steps: Steps, path: Path) -> None:
    """Do the steps that are missing, each in one transaction; a file with data is copied before."""
    done = version(connection, steps, path)
    if 0 < done < len(steps):
        copy(connection, path.with_name(f"{path.stem}.backup-{done}{path.suffix}"))
    for number, statements in enumerate(steps[done:], done + 1):
        connection.execute("begin immediate")
        try:
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"pragma application_id = {APPLICATION_ID}")
            connection.execute(f"pragma user_version = {number}")
            connection.execute("commit")
        except sqlite3.Error:
            connection.execute("rollback")
            raise


def copy(connection: sqlite3.Connection, target: Path) -> None:
    """A complete, checked, durable copy under the target's name; until then under another one.

    Raises sqlite3.Error, OSError, or StorageError if the copy is not sound.
    """
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        files.create(partial)
        connection.execute("vacuum into ?", (str(partial),))
        with closing(sqlite3.connect(f"{partial.absolute().as_uri()}?mode=ro", uri=True)) as copied:
            (answer,) = copied.execute("pragma integrity_check(1)").fetchone()
        if answer != "ok":
            raise errors.StorageError(f"The copy of the database is not sound: {answer}")
        files.sync(partial)
        partial.replace(target)
        files.sync(target.parent)
    finally:
        partial.unlink(missing_ok=True)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    (answer,) = connection.execute(f"pragma {name}").fetchone()
    return int(answer)

"""What SQLite says when it fails, as an error of Tidegate: what happened, whose fault, what to do.

Hides result codes. Invariant: whatever escapes a transaction as an error left nothing behind, so each of
these sentences may say so.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tidegate import errors
from tidegate.store import files

PRIMARY_CODE: Final = 0xFF  # an extended code says more in its upper bits

_NO_ROOM: Final = frozenset(
    {
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR_WRITE,  # over quota
        sqlite3.SQLITE_IOERR_SHMSIZE,  # no room for the index of the write-ahead log
    }
)

#: By primary result code: the class, what happened, what to do.
_FAILURES: Final[dict[int, tuple[type[errors.TidegateError], str, str]]] = {
    sqlite3.SQLITE_BUSY: (
        errors.StoreError,
        "{path} is locked by another program. Nothing was changed; it will be tried again.",
        "A backup program or an SQLite shell may have it open: let it finish.",
    ),
    sqlite3.SQLITE_READONLY: (
        errors.StorageError,
        "{path} cannot be written. Nothing was changed.",
        "It and its folder must belong to the user of the control plane, on a disk that is not read-only.",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        errors.StorageError,
        "{path} cannot be opened. Nothing was changed.",
        "It and its folder must belong to the user of the control plane.",
    ),
    sqlite3.SQLITE_CORRUPT: (
        errors.StorageError,
        "{path} is damaged. Apps go on running and serving; nothing was changed.",
        "Check the disk, and restore the last backup.",
    ),
    sqlite3.SQLITE_IOERR: (
        errors.StorageError,
        "The disk of {path} reported an error. Nothing was acknowledged.",
        "Check the disk: the system's log says more.",
    ),
    sqlite3.SQLITE_CONSTRAINT: (
        errors.ConflictError,
        "This is stored already, or its request key belongs to another rollout. Nothing was changed.",
        "Load the state again.",
    ),
}
_FAILURES[sqlite3.SQLITE_LOCKED] = _FAILURES[sqlite3.SQLITE_BUSY]
_FAILURES[sqlite3.SQLITE_PERM] = _FAILURES[sqlite3.SQLITE_READONLY]
_FAILURES[sqlite3.SQLITE_NOTADB] = _FAILURES[sqlite3.SQLITE_CORRUPT]


@contextmanager
def translated(path: Path, ballast: files.Ballast | None = None) -> Iterator[None]:
    """Raise the block's errors as ours; a full disk gives up the ballast, for the commits that follow."""
    try:
        yield
    except (OverflowError, UnicodeEncodeError) as error:
        raise errors.RequestError("A number is too large, or a text has no UTF-8.") from error
    except OSError as error:
        raise errors.StorageError(f"The folder of {path} cannot be used: {error.strerror}.") from error
    except sqlite3.Error as error:
        if is_full(error):
            raise _full(path, released=ballast is not None and ballast.release()) from error
        raise _failure(path, error) from error


def is_full(error: sqlite3.Error) -> bool:
    """Whether there was no room for what was to be written."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code in _NO_ROOM or code & PRIMARY_CODE == sqlite3.SQLITE_FULL


def _full(path: Path, *, released: bool) -> errors.StorageError:
    reserve = " The reserve was given up, so that what runs can still be aborted." if released else ""
    return errors.StorageError(
        f"The disk of {path} is full. Nothing was changed.{reserve}",
        hint=f"Free some room in {path.parent}.",
    )


def _failure(path: Path, error: sqlite3.Error) -> errors.TidegateError:
    code = getattr(error, "sqlite_errorcode", 0) & PRIMARY_CODE
    if code not in _FAILURES:
        return errors.StoreError(f"SQLite refused: {error}. Nothing was changed.")
    kind, message, hint = _FAILURES[code]
    return kind(message.format(path=path), hint=hint)

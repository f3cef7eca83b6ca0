"""Each failure of SQLite as a sentence of ours."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from tidegate import errors
from tidegate.store import failures, files

PATH = Path("/data/tidegate.db")


def failure(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("internal words")
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("code", "kind", "sentence"),
    [
        (sqlite3.SQLITE_FULL, errors.StorageError, "is full"),
        (sqlite3.SQLITE_IOERR_WRITE, errors.StorageError, "is full"),
        (sqlite3.SQLITE_IOERR_FSYNC, errors.StorageError, "reported an error"),
        (sqlite3.SQLITE_READONLY, errors.StorageError, "cannot be written"),
        (sqlite3.SQLITE_CANTOPEN, errors.StorageError, "cannot be opened"),
        (sqlite3.SQLITE_CORRUPT, errors.StorageError, "is damaged"),
        (sqlite3.SQLITE_NOTADB, errors.StorageError, "is damaged"),
        (sqlite3.SQLITE_CONSTRAINT_UNIQUE, errors.ConflictError, "stored already"),
    ],
)
def test_failure_says_what_happened_and_what_to_do(
    code: int, kind: type[errors.TidegateError], sentence: str
) -> None:
    """A known result code becomes the error of whose fault it is, with a hint, and chains its cause."""
    cause = failure(code)
    with pytest.raises(kind, match=sentence) as caught, failures.translated(PATH):
        raise cause
    assert caught.value.hint
    assert caught.value.__cause__ is cause
    assert "internal words" not in str(caught.value)


@pytest.mark.parametrize("code", [sqlite3.SQLITE_BUSY, sqlite3.SQLITE_BUSY_SNAPSHOT, sqlite3.SQLITE_LOCKED])
def test_locked_file_is_nobodys_conflict(code: int) -> None:
    """A stranger's lock is a plain refusal of the store: trying again is right, loading again is not."""
    with (
        pytest.raises(errors.StoreError, match="locked by another program") as caught,
        failures.translated(PATH),
    ):
        raise failure(code)
    assert not isinstance(caught.value, errors.ConflictError)


def test_unknown_failure_keeps_sqlites_words() -> None:
    """A result code without a sentence of ours is passed on with SQLite's."""
    with pytest.raises(errors.StoreError, match="internal words"), failures.translated(PATH):
        raise sqlite3.ProgrammingError("internal words")


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_FSYNC])
def test_only_a_full_disk_gives_up_the_ballast(code: int, tmp_path: Path) -> None:
    """The reserve is given up when there is no room, and said so; it is kept when something else is wrong."""
    ballast = files.Ballast(path=tmp_path / "ballast", size_bytes=4096)
    ballast.ensure()
    with pytest.raises(errors.StorageError) as caught, failures.translated(PATH, ballast):
        raise failure(code)
    full = code == sqlite3.SQLITE_FULL
    assert ballast.exists is not full
    assert ("reserve was given up" in str(caught.value)) is full

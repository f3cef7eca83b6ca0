"""The session for the address of a database.

    postgresql://user:password@host/database   also postgres://, and as SQLAlchemy writes it: postgresql+psycopg://
    sqlite:////absolute/path.db

An address holds a password: it stands in no message. Neighbours: `sqlite`, `postgres`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from tidegate import errors, ports
from tidegate.migrators.session import Session
from tidegate.migrators.sqlite import SqliteSession

LOCK_WAIT_S: Final = 600.0
"""Another runner may have a long script."""

_DATABASE: Final = re.compile(r"(?P<server>^[a-z0-9+_]+://[^/?]*)(/[^?]*)?")
_SCHEME: Final = re.compile(r"(?P<engine>[a-z0-9]+)(\+[a-z0-9_]+)?://")


def open_session(url: str, *, clock: ports.Clock, wait_s: float = LOCK_WAIT_S) -> Session:
    """Connect, with the lock of whoever runs migrations where the engine has locks.

    Raises SchemaError: no address, or of an engine that is not known; MissingProgramError: its library is
    not installed; DatabaseError.
    """
    match = _SCHEME.match(url)
    engine = match["engine"] if match else ""
    if engine == "sqlite":
        return SqliteSession(_file(url))
    if match and engine in ("postgresql", "postgres"):
        try:
            from tidegate.migrators.postgres import PostgresSession  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise errors.MissingProgramError(
                "The library for PostgreSQL is not installed.",
                hint="Install it into the environment of `tide`: pip install 'tidegate[postgres]'.",
            ) from error
        address = f"postgresql://{url[match.end() :]}"
        return PostgresSession(address, clock=clock, wait_s=wait_s)
    raise errors.SchemaError(
        f"The address of the database begins with {ascii(engine)[1:-1] or 'no scheme'}, which is not known."
        if match
        else "The address of the database is none.",
        hint="Known are postgresql://user@host/name and sqlite:////absolute/path.",
    )


def address_of(url: str, *, database: str) -> str:
    """Of another database on the same PostgreSQL server, for the same role."""
    return _DATABASE.sub(rf"\g<server>/{database}", url, count=1)


def _file(url: str) -> Path:
    path = unquote(urlsplit(url).path)
    # sqlite:////data/app.db: an empty host, a slash, and an absolute path.
    file = Path(path[1:]) if path.startswith("//") else Path(path)
    if urlsplit(url).netloc or not file.is_absolute() or file.name == "":
        raise errors.SchemaError(
            "The address of the SQLite database has no absolute path.",
            hint="Like this, with four slashes: sqlite:////data/app.db.",
        )
    return file

"""A database of its own with the schema of another, in which scripts can be tried out, and then it is gone.

Only the schema is copied, never a row. The copy has to have the fingerprint of what it was copied from:
otherwise what is tried on it proves nothing, and it is refused.

    SQLite       a file in a temporary folder, made by the statements that the original keeps
    PostgreSQL   a database on the same server, by pg_dump; its role needs CREATEDB

Neighbours: `seeds` fills it, `trials` runs scripts on it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from tidegate import errors, ports
from tidegate.core import catalogs
from tidegate.migrators.databases import address_of, open_session
from tidegate.migrators.session import LEDGER_PREFIX, Limits, Session

DUMP_S_MAX: Final = 120.0
_SCHEMA: Final = f"""
    SELECT sql FROM sqlite_schema
    WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND tbl_name NOT LIKE '{LEDGER_PREFIX}%'
    ORDER BY CASE type WHEN 'table' THEN 1 WHEN 'view' THEN 2 ELSE 3 END, rowid
"""  # noqa: S608 - our own name


@contextmanager
def copied(original: Session, url: str, clock: ports.Clock) -> Iterator[Session]:
    """A session on a copy of the schema. `url`: of the original.

    Raises DatabaseError: the role may not make databases; MissingProgramError: no pg_dump, or too old a one;
    SchemaError: the copy is not like the original.
    """
    made = _sqlite(original, clock) if original.engine == "sqlite" else _postgres(original, url, clock)
    with made as session:
        found = catalogs.changes(original.catalog(), session.catalog())
        if found:
            raise errors.SchemaError(
                f"The schema cannot be copied faithfully: {found[0]}.",
                hint="Nothing can be tried out on a copy that differs. Please report this schema.",
            )
        yield session


@contextmanager
def _sqlite(original: Session, clock: ports.Clock) -> Iterator[Session]:
    with (
        tempfile.TemporaryDirectory(prefix="tide-scratch-") as folder,
        closing(open_session(f"sqlite:///{folder}/scratch.db", clock=clock)) as session,
    ):
        with session.transaction(Limits()):
            for (statement,) in original.rows(_SCHEMA):
                session.run(statement)
        yield session


@contextmanager
def _postgres(original: Session, url: str, clock: ports.Clock) -> Iterator[Session]:
    name = f"tidegate_scratch_{secrets.token_hex(8)}"
    schema = _dumped(url)
    try:
        original.run_alone(f"CREATE DATABASE {name} TEMPLATE template0", Limits())
    except errors.DatabaseError as error:
        raise errors.DatabaseError(
            f"No scratch database can be made: {error.message}",
            hint="The role of the test environment's database needs the right CREATEDB.",
        ) from error
    try:
        with closing(open_session(address_of(url, database=name), clock=clock)) as session:
            session.run_alone(schema, Limits())
            session.run_alone("RESET ALL", Limits())
            yield session
    finally:
        original.run_alone(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)", Limits())


def _dumped(url: str) -> str:
    """The statements that make the schema. The address goes by the environment: argv is everybody's."""
    from tidegate.migrators.postgres import variables_of  # noqa: PLC0415 - an extra

    program = shutil.which("pg_dump")
    if program is None:
        raise errors.MissingProgramError(
            "pg_dump is not there, by which the schema is copied.",
            hint="Debian, Ubuntu: apt-get install postgresql-client.",
        )
    only = ("--schema-only", "--no-owner", "--no-privileges", "--no-comments")
    try:
        done = subprocess.run(
            [program, *only, f"--exclude-table={LEDGER_PREFIX}*"],
            env={"PATH": os.environ.get("PATH", ""), "HOME": str(Path.home()), **variables_of(url)},
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=DUMP_S_MAX,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise errors.DatabaseError(f"pg_dump took more than {DUMP_S_MAX:.0f} s for the schema.") from None
    if done.returncode:
        told = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise errors.DatabaseError(
            f"pg_dump cannot copy the schema: {told[-1]}",
            hint="Its version must not be older than the server's.",
        )
    # Of psql: \\restrict and \\unrestrict, since the releases of August 2025.
    lines = done.stdout.decode().splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith(("\\restrict ", "\\unrestrict ")))

"""An app on a database, and its releases: each brings migrations and writes by what its own schema is.

`PROGRAM` goes into a package. Each request writes a row and reads it back by the statements of its release,
which lie in `statements.json`; what fails is answered 500 with the reason. Connections are kept, as an app's
are, and statements are prepared on PostgreSQL after the fifth time.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROGRAM: Final = """
import json, os, queue, sqlite3, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

URL, RELEASE = os.environ["DATABASE_URL"], os.environ["TIDEGATE_RELEASE"]
STATEMENTS = json.loads(Path("statements.json").read_text())
POOL = queue.SimpleQueue()


def connected():
    if URL.startswith("sqlite"):
        connection = sqlite3.connect(URL.removeprefix("sqlite:///"), timeout=20, isolation_level=None,
                                     check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        return connection
    import psycopg
    return psycopg.connect(URL, autocommit=True)


def served():
    try:
        connection = POOL.get_nowait()
    except queue.Empty:
        connection = connected()
    try:
        for statement in STATEMENTS:
            rows = connection.execute(statement)
            if rows.description:
                rows.fetchall()
    finally:
        POOL.put(connection)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        status, text = 200, "fine"
        if self.path != "/healthz":
            try:
                served()
            except Exception as error:
                status, text = 500, f"{type(error).__name__}: {error}"
                print(text, flush=True)
        body = text.encode()
        self.send_response(status)
        self.send_header("X-Release", RELEASE)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One release."""

    statements: tuple[str, ...]
    """Of each request."""
    migrations: tuple[tuple[str, str, str], ...] = ()
    """That it brings beside all before: id, up, down."""


def write(package: Path, versions: tuple[Version, ...]) -> None:
    """The package of the last of these versions, with the migrations of all of them."""
    folder = package / "migrations"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for version in versions:
        for id_, up, down in version.migrations:
            (folder / f"{id_}.up.sql").write_text(f"{up}\n")
            (folder / f"{id_}.down.sql").write_text(f"{down}\n")
    (package / "app.py").write_text(PROGRAM)
    (package / "statements.json").write_text(json.dumps(versions[-1].statements))

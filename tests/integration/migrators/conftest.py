"""Empty databases of every engine; the servers are started once for each worker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import postgres
from tidegate.clock import SystemClock
from tidegate.migrators.databases import open_session
from tidegate.migrators.session import Session


@dataclass(frozen=True, slots=True)
class Database:
    """An empty database."""

    engine: str
    url: str
    server: postgres.Server | None = None

    def open(self, wait_s: float = 5.0) -> Session:
        """A connection, with the lock."""
        return open_session(self.url, clock=SystemClock(), wait_s=wait_s)


class Servers:
    """Each is started when the first test asks for it."""

    def __init__(self) -> None:
        self._started: dict[Path, postgres.Server] = {}

    def get(self, programs: Path) -> postgres.Server:
        if programs not in self._started:
            self._started[programs] = postgres.Server(programs)
        return self._started[programs]

    def close(self) -> None:
        for server in self._started.values():
            server.close()


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    found = Servers()
    yield found
    found.close()


Make = Callable[[str], Database]
POSTGRES = postgres.programs()
ENGINES = ["sqlite", *(str(folder) for folder in POSTGRES)]


def _made(engine: str, servers: Servers, folder: Path) -> Database:
    if engine == "sqlite":
        return Database("sqlite", f"sqlite:///{folder}/app.db")
    server = servers.get(Path(engine))
    return Database("postgresql", server.url(server.database()), server)


def _named(engine: str) -> str:
    """sqlite, or which PostgreSQL."""
    parts = Path(engine).parts
    return engine if len(parts) < 2 else f"postgresql-{parts[-2]}"


@pytest.fixture(params=ENGINES, ids=_named)
def every(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> Database:
    """Of each engine and version in turn."""
    return _made(request.param, servers, tmp_path)


@pytest.fixture(params=ENGINES[1:], ids=_named)
def every_postgres(request: pytest.FixtureRequest, servers: Servers) -> Database:
    """Of each version in turn."""
    return _made(request.param, servers, Path())


@pytest.fixture(params=ENGINES[:2], ids=_named)
def database(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> Database:
    """Of each engine in turn, in the version that production has."""
    return _made(request.param, servers, tmp_path)


@pytest.fixture
def pg(servers: Servers) -> Database:
    """Of the PostgreSQL that production has."""
    return _made(str(POSTGRES[0]), servers, Path())

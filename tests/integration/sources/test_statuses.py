"""Status reports against a forge of our own on loopback, which records what it is sent."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tidegate import errors
from tidegate.pushes import Forge, How, Push, Source, Status, StatusReport
from tidegate.sources import statuses
from tidegate.store.sources import SqliteSources
from tidegate.store.sqlite import SqliteStore

pytestmark = pytest.mark.real
REVISION = "a" * 40
TOKEN = "token-5d1f"
STATUS = Status(push=1, context="tidegate/production", state="failure", description="went back")


class RecordedForge:
    """Answers as it is told to, and keeps every request."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.location = ""
        self.asked: list[tuple[str, dict[str, str], Any]] = []
        forge = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"null"
                headers = {name.lower(): value for name, value in self.headers.items()}
                forge.asked.append((self.path, headers, json.loads(body)))
                self.send_response(forge.answers.pop(0) if forge.answers else 201)
                if forge.location:
                    self.send_header("Location", forge.location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_GET = do_POST  # noqa: N815 - its name there

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def forge() -> Iterator[RecordedForge]:
    made = RecordedForge()
    yield made
    made.close()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    path.chmod(0o600)
    return path


def report(kind: Forge, url: str, token_file: Path, project: str = "acme/shop") -> StatusReport:
    return StatusReport(forge=kind, url=url, project=project, token_file=str(token_file))


@pytest.mark.parametrize(
    ("kind", "path", "header", "body"),
    [
        (
            Forge.GITHUB,
            f"/api/repos/acme/shop/statuses/{REVISION}",
            ("authorization", f"Bearer {TOKEN}"),
            {"state": "failure", "context": "tidegate/production", "description": "went back"},
        ),
        (
            Forge.GITLAB,
            f"/api/projects/acme%2Fshop/statuses/{REVISION}",
            ("private-token", TOKEN),
            {"state": "failed", "name": "tidegate/production", "description": "went back"},
        ),
        (
            Forge.GITEA,
            f"/api/repos/acme/shop/statuses/{REVISION}",
            ("authorization", f"token {TOKEN}"),
            {"state": "failure", "context": "tidegate/production", "description": "went back"},
        ),
    ],
    ids=list(Forge),
)
def test_each_forge_is_told_in_its_own_words(
    forge: RecordedForge, token_file: Path, *, kind: Forge, path: str, header: tuple[str, str], body: Any
) -> None:
    """Path, header and words are those of the forge's documentation."""
    statuses.tell(report(kind, f"{forge.url}/api", token_file), REVISION, STATUS)
    ((asked_path, headers, asked_body),) = forge.asked
    assert (asked_path, asked_body) == (path, body)
    assert headers[header[0]] == header[1]


def test_redirect_is_not_followed(forge: RecordedForge, token_file: Path) -> None:
    """A forge, or who plays it, cannot send our token elsewhere."""
    forge.answers, forge.location = [302], f"{forge.url}/elsewhere"
    with pytest.raises(errors.SourceError):
        statuses.tell(report(Forge.GITHUB, forge.url, token_file), REVISION, STATUS)
    assert len(forge.asked) == 1


def test_proxy_of_the_environment_is_not_used(
    forge: RecordedForge, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody's environment variable gets our token."""
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    statuses.tell(report(Forge.GITHUB, forge.url, token_file), REVISION, STATUS)
    assert len(forge.asked) == 1


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o604])
def test_token_that_others_may_read_is_not_used(forge: RecordedForge, token_file: Path, mode: int) -> None:
    """A token file of another mode than 0600 is refused, without showing what is in it."""
    token_file.chmod(mode)
    with pytest.raises(errors.SourceError) as refused:
        statuses.tell(report(Forge.GITHUB, forge.url, token_file), REVISION, STATUS)
    assert TOKEN not in str(refused.value)
    assert forge.asked == []


def test_address_that_is_not_allowed_is_never_asked(token_file: Path) -> None:
    """An address that came into the database by another way than the API is refused here too."""
    with pytest.raises(statuses.GivenUpError):
        statuses.tell(report(Forge.GITHUB, "http://169.254.169.254", token_file), REVISION, STATUS)


class World:
    """A push in a store, and the thread's work, step by step."""

    def __init__(self, folder: Path, forge: RecordedForge, token_file: Path) -> None:
        self.store = SqliteStore(folder / "tidegate.db", ballast_bytes=0)
        self.lease = self.store.acquire("test", ttl_s=60.0)
        self.rows = SqliteSources(self.store)
        self.now = 100.0
        self.rows.keep(self.lease, Source(app="shop", report=report(Forge.GITHUB, forge.url, token_file)))
        made = Push(app="shop", ref="refs/heads/main", revision=REVISION, how=How.PUSH, queued_at=0.0)
        assert self.rows.enqueue(self.lease, made) is not None
        self.reporter = statuses.Reporter(
            statuses.Parts(
                statuses=self.rows,
                push=self.rows.push,
                source=self.rows.source,
                lease=self.lease,
                now=lambda: self.now,
                prepare=lambda: None,
            )
        )


@pytest.fixture
def world(tmp_path: Path, forge: RecordedForge, token_file: Path) -> Iterator[World]:
    made = World(tmp_path, forge, token_file)
    yield made
    made.store.close()


def test_state_is_told_once(world: World, forge: RecordedForge) -> None:
    """The same state is told once, another one again."""
    for state in ("pending", "pending", "success"):
        status = Status(push=1, context="tidegate/production", state=state, description="")
        world.rows.want(world.lease, status)
        world.reporter.step()
    assert [body["state"] for *_, body in forge.asked] == ["pending", "success"]


def test_forge_that_is_down_is_told_later(world: World, forge: RecordedForge) -> None:
    """What is not taken is told again after a while, and only the newest state of it."""
    forge.answers = [503, 503]
    world.rows.want(world.lease, Status(push=1, context="c", state="pending", description=""))
    world.reporter.step()
    world.reporter.step()
    assert len(forge.asked) == 1
    world.now += statuses.PAUSE_S
    world.reporter.step()
    world.rows.want(world.lease, Status(push=1, context="c", state="success", description=""))
    world.reporter.step()
    world.now += statuses.PAUSE_S_MAX
    world.reporter.step()
    assert [body["state"] for *_, body in forge.asked] == ["pending", "pending", "success"]


def test_refusal_is_final(world: World, forge: RecordedForge) -> None:
    """A wrong token or project is not tried for ever."""
    forge.answers = [404]
    world.rows.want(world.lease, STATUS)
    world.reporter.step()
    world.now += 10 * statuses.PAUSE_S_MAX
    world.reporter.step()
    assert len(forge.asked) == 1


def test_attempts_are_bounded(world: World, forge: RecordedForge) -> None:
    """A forge that is gone is given up in the end."""
    forge.answers = [500] * 100
    world.rows.want(world.lease, STATUS)
    for _ in range(statuses.ATTEMPTS_MAX + 5):
        world.reporter.step()
        world.now += statuses.PAUSE_S_MAX
    assert len(forge.asked) == statuses.ATTEMPTS_MAX

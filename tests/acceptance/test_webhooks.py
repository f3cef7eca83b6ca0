"""Webhooks and polling of a repository elsewhere, through the installed command and a real port."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support import sample, webhooks
from tests.support.ports import Ports
from tests.support.repository import Repository
from tests.support.tide import Tide, wait_for
from tidegate import client
from tidegate.pushes import Forge

pytestmark = [pytest.mark.real, pytest.mark.slow]


class Watched:
    """An app whose repository lies elsewhere, and the forge that tells of it."""

    def __init__(self, tide: Tide, hooks_port: int) -> None:
        self.tide, self.port = tide, hooks_port
        self.settled = 0
        self.there = Repository(tide.root / "there")
        #: A commit that was never the branch's newest while anybody looked.
        self.first = self.commit("one")
        self.commit("one and a half")
        kept = self.add("--hook", "github")
        self.secret = kept["hook_secret"].encode()

    def add(self, *options: str) -> Any:
        words = ("source", "add", "--remote", str(self.there.folder), *options, "--json")
        return self.tide.ok("--app", "shop", *words).json

    def commit(self, note: str) -> str:
        whole = {
            "app": "shop",
            "artifact": {"build": "mkdir dist && cp app.py conduct.json dist/", "package": "dist/"},
            "services": {"web": sample.service("web", route="shop.test")},
            "environments": {"live": {"strategy": "switch"}},
        }
        self.there.folder.joinpath("tidegate.yaml").write_text(sample.text(whole), "utf-8")
        sample.write_package(self.there.folder, {"note": note})
        return self.there.commit(note=note)

    def send(self, sent: webhooks.Sent) -> int:
        """Send it to the real port; the status."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("POST", "/hooks/shop", body=sent.body, headers=sent.headers)
            return connection.getresponse().status
        finally:
            connection.close()

    def tell(self, revision: str, *, key: bytes | None = None, delivery: str = "d-1") -> int:
        sent = webhooks.sent(Forge.GITHUB, key or self.secret, revision=revision, delivery=delivery)
        return self.send(sent)

    def pushes(self) -> list[dict[str, Any]]:
        with client.Client(self.tide.socket) as connection:
            return connection.pushes("shop")

    def state(self, revision: str) -> str:
        """Of the newest push of that commit; empty: there is none."""
        return next((push["state"] for push in self.pushes() if push["revision"] == revision), "")

    def wait_live(self, release: str) -> None:
        wait_for(
            lambda: self.tide.get("/", host="shop.test").release == release, seconds=40, why=self.pushes()
        )

    def refused(self) -> list[dict[str, Any]]:
        with client.Client(self.tide.socket) as connection:
            return connection.audit(outcome="refused", limit=200)

    def refusals(self) -> list[str]:
        return [entry["reason"] for entry in self.refused()]

    def settle(self) -> None:
        """Wait until every webhook so far has been heeded: they are, in the order in which they came."""
        self.settled += 1
        delivery = f"settle-{self.settled}."
        assert self.tell("f" * 40, delivery=delivery) == 202
        wait_for(lambda: any(f"webhook {delivery}" in entry["detail"] for entry in self.refused()))


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    """One control plane with a port for webhooks; the tests add commits to one repository."""
    tide, ports = Tide(), Ports()
    try:
        port = ports.block[0]
        tide.ok("up", "--hooks-port", port)
        yield Watched(tide, port)
    finally:
        tide.close()
        ports.close()


def test_webhook_brings_the_newest_commit_live(watched: Watched) -> None:
    """A signed webhook is heard at once, and the branch's newest commit becomes live."""
    watched.settle()  # one that was sent before could be the first to find the commit
    newest = watched.commit("two")
    assert watched.tell(newest, delivery="new-1") == 202
    wait_for(lambda: watched.state(newest) == "released", seconds=40)
    push = watched.pushes()[0]
    assert (push["how"], push["delivery"]) == ("webhook", "new-1")
    watched.wait_live(f"r{push['release']}")


def test_replayed_and_old_webhooks_bring_nothing_back(watched: Watched) -> None:
    """A webhook again is 409, an old one under a new id is heard and builds nothing."""
    newest = watched.commit("three")
    assert watched.tell(newest, delivery="replay") == 202
    assert watched.tell(newest, delivery="replay") == 409
    wait_for(lambda: watched.state(newest))
    before = len(watched.pushes())
    assert watched.tell(watched.first, delivery="old") == 202
    later = watched.commit("four")
    assert watched.tell(later, delivery="later") == 202
    wait_for(lambda: watched.state(later))
    assert len(watched.pushes()) == before + 1
    assert watched.first not in {push["revision"] for push in watched.pushes()}
    assert "replayed" in watched.refusals()


def test_forged_webhooks_are_refused_and_written_down(watched: Watched) -> None:
    """A wrong signature is 401 and in the audit log; a commit of no branch builds nothing."""
    before = len(watched.pushes())
    assert watched.tell(watched.first, key=b"x" * 43, delivery="forged") == 401
    assert watched.tell("e" * 40, delivery="stray") == 202
    wait_for(lambda: "not-on-branch" in watched.refusals())
    assert "bad-signature" in watched.refusals()
    assert len(watched.pushes()) == before


def test_gigabyte_is_refused_without_being_read(watched: Watched) -> None:
    """A body of a gigabyte is answered before it is sent, announced or not; the port goes on answering."""
    sent = webhooks.sent(Forge.GITHUB, watched.secret, revision=watched.first)
    head = "".join(f"{name}: {value}\r\n" for name, value in sent.headers.items())
    for more in (f"Content-Length: {10**9}", "Transfer-Encoding: chunked"):
        with socket.create_connection(("127.0.0.1", watched.port), timeout=10) as connection:
            connection.sendall(f"POST /hooks/shop HTTP/1.1\r\nHost: x\r\n{head}{more}\r\n\r\n".encode())
            sent_bytes = _pour(connection)
            assert b" 413 " in connection.recv(1000)
        assert sent_bytes < 64 * 1024 * 1024
    assert watched.tell(watched.first, key=b"x" * 43) == 401


def _pour(connection: socket.socket) -> int:
    """Send chunks until an answer comes, or nobody takes any more; how many bytes that were."""
    connection.settimeout(0.5)
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    poured = 0
    try:
        while poured < 2**30:
            poured += connection.send(chunk)
            connection.setblocking(False)
            try:
                if connection.recv(1, socket.MSG_PEEK):
                    break
            except BlockingIOError:
                pass
            connection.settimeout(0.5)
    except (TimeoutError, ConnectionError):
        pass
    connection.settimeout(10)
    return poured


def test_secret_is_changed_without_a_gap(watched: Watched) -> None:
    """After a rotation both secrets are believed, after the next one the older is not."""
    old = watched.secret
    new = watched.tide.ok("--app", "shop", "source", "secret", "--json").json["hook_secret"].encode()
    for number, key in enumerate((old, new)):
        assert watched.tell(watched.first, key=key, delivery=f"rotation-{number}") == 202
    watched.secret = (
        watched.tide.ok("--app", "shop", "source", "secret", "--json").json["hook_secret"].encode()
    )
    assert watched.tell(watched.first, key=old, delivery="rotation-9") == 401


def test_secret_is_shown_once_only(watched: Watched) -> None:
    """No later answer shows the secret, and no file but its own has it."""
    shown = watched.tide.ok("--app", "shop", "source", "show", "--json").out
    assert watched.secret.decode() not in shown
    found = [
        path.relative_to(watched.tide.home)
        for path in watched.tide.home.rglob("*")
        if path.is_file() and watched.secret in path.read_bytes()
    ]
    assert [str(path) for path in found] == ["repositories/webhooks/shop"]


def test_nobody_pushes_to_a_watched_source(watched: Watched) -> None:
    """What is built from elsewhere is pushed there."""
    path = watched.tide.ok("--app", "shop", "source", "show", "--json").json["repository"]
    status, said = watched.there.run("push", path, "HEAD:refs/heads/mine")
    assert status == 1
    assert "push there" in said


def test_polling_finds_commits_by_itself(watched: Watched) -> None:
    """Without any webhook a commit is found, and a remote that is gone is said to be."""
    watched.settle()
    watched.add("--poll", "5s", "--hook", "github")
    newest = watched.commit("polled")
    wait_for(lambda: watched.state(newest), seconds=30)
    assert watched.pushes()[0]["how"] == "poll"
    watched.there.folder.rename(watched.tide.root / "away")
    try:
        wait_for(lambda: watched.tide.ok("source", "list", "--json").json[0]["trouble"], seconds=30)
    finally:
        (watched.tide.root / "away").rename(watched.there.folder)

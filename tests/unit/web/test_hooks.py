"""The webhooks' own application: what strangers get, what is read, and what is done with it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support import webhooks
from tidegate import errors
from tidegate.pushes import Forge, Source
from tidegate.sources import forges
from tidegate.web import hooks

KEY = b"k" * 43
REVISION = "a" * 40
SHOP = Source(app="shop", remote="/srv/shop.git", hook=Forge.GITHUB)


@dataclass
class World:
    """What the application is given, and what it did."""

    sources: dict[str, Source] = field(default_factory=lambda: {"shop": SHOP})
    keys: tuple[bytes, ...] = (KEY,)
    heard: list[forges.Told] = field(default_factory=list)
    refused: list[tuple[str, str, str]] = field(default_factory=list)
    now: float = 0.0
    broken: bool = False
    read: int = 0

    def hear(self, _source: Source, told: forges.Told) -> bool:
        if self.broken:
            raise errors.StorageError("The disk is full.")
        known = {told.delivery for told in self.heard} | {told.body for told in self.heard}
        if {told.delivery, told.body} & known:
            return False
        self.heard.append(told)
        return True

    def app(self) -> hooks.Hooks:
        return hooks.Hooks(
            hooks.Context(
                source=self.sources.get,
                keys=lambda _app: self.keys,
                hear=self.hear,
                refused=lambda *about: self.refused.append(about),
                monotonic=lambda: self.now,
            )
        )


@dataclass(frozen=True)
class Answer:
    status: int
    text: str
    headers: dict[str, str]


async def _asked(
    world: World, app: hooks.Hooks, sent: webhooks.Sent, *, pieces: Iterable[bytes], method: str, path: str
) -> Answer:
    waiting = list(pieces)
    answered: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        piece = waiting.pop(0) if waiting else b""
        world.read += len(piece)
        return {"type": "http.request", "body": piece, "more_body": bool(waiting)}

    async def send(message: Any) -> None:
        answered.append(message)

    headers = [(name.encode(), value.encode("latin-1")) for name, value in sent.headers.items()]
    await app({"type": "http", "method": method, "path": path, "headers": headers}, receive, send)
    start, body = answered
    return Answer(
        start["status"],
        body["body"].decode().strip(),
        {name.decode(): value.decode() for name, value in start["headers"]},
    )


def ask(
    world: World,
    sent: webhooks.Sent,
    *,
    app: hooks.Hooks | None = None,
    pieces: Iterable[bytes] | None = None,
    method: str = "POST",
    path: str = "/hooks/shop",
) -> Answer:
    """One request, without a server."""
    body = [sent.body] if pieces is None else pieces
    return asyncio.run(_asked(world, app or world.app(), sent, pieces=body, method=method, path=path))


def right(**about: str) -> webhooks.Sent:
    return webhooks.sent(Forge.GITHUB, KEY, **{"revision": REVISION, **about})


@pytest.mark.parametrize("forge", list(Forge))
def test_signed_webhook_is_heard(forge: Forge) -> None:
    """Each forge's webhook is heard, and answered at once."""
    world = World(sources={"shop": Source(app="shop", remote="/srv/shop.git", hook=forge)})
    answer = ask(world, webhooks.sent(forge, KEY, revision=REVISION))
    assert answer.status == 202
    (told,) = world.heard
    assert (told.ref, told.revision) == ("refs/heads/main", REVISION)


def test_unsigned_request_is_refused_unread() -> None:
    """Without a signature no byte of the body is read, and the connection is closed."""
    world = World()
    answer = ask(world, webhooks.Sent({}, b"x" * 1000))
    assert (answer.status, answer.headers["connection"], world.read) == (401, "close", 0)


def test_wrong_signature_is_refused_and_written_down() -> None:
    """A stranger learns that it is wrong, and no more; the audit log has it."""
    world = World()
    answer = ask(world, webhooks.sent(Forge.GITHUB, b"x" * 43, revision=REVISION))
    assert (answer.status, answer.text, world.heard) == (401, "Not signed.", [])
    assert [(app, reason) for app, reason, _ in world.refused] == [("shop", "bad-signature")]


def test_stranger_cannot_tell_which_apps_are_there() -> None:
    """An app that has no webhooks, or is not there, is answered as a wrong signature is."""
    world = World(sources={"shop": SHOP, "quiet": Source(app="quiet")})
    wrong = webhooks.sent(Forge.GITHUB, b"x" * 43, revision=REVISION)
    answers = {ask(world, wrong, path=f"/hooks/{app}").text for app in ("shop", "quiet", "nobody")}
    statuses = {ask(world, wrong, path=f"/hooks/{app}").status for app in ("shop", "quiet", "nobody")}
    assert (answers, statuses) == ({"Not signed."}, {401})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/hooks/shop"),
        ("POST", "/"),
        ("POST", "/hooks/"),
        ("POST", "/hooks/shop/"),
        ("POST", "/hooks/../x"),
        ("POST", "/v1/status"),
        ("PUT", "/hooks/shop"),
    ],
)
def test_everything_else_is_not_there(method: str, path: str) -> None:
    """The port has one kind of address."""
    assert ask(World(), right(), method=method, path=path).status == 404


def test_replay_is_refused() -> None:
    """The same webhook again is refused, also under another id: its body is known."""
    world = World()
    app = world.app()
    assert ask(world, right(), app=app).status == 202
    assert ask(world, right(), app=app).status == 409
    again = right()
    assert (
        ask(world, webhooks.Sent({**again.headers, "x-github-delivery": "d-2"}, again.body), app=app).status
        == 409
    )
    assert len(world.heard) == 1


def test_large_body_is_refused_by_its_announced_length() -> None:
    """A gigabyte that is announced is not read at all."""
    world = World()
    sent = right()
    huge = webhooks.Sent({**sent.headers, "content-length": str(10**9)}, sent.body)
    assert (ask(world, huge).status, world.read) == (413, 0)


def test_large_body_without_a_length_is_read_no_further_than_allowed() -> None:
    """A body that is sent in pieces without an end is given up at the limit."""
    world = World()
    answer = ask(world, right(), pieces=[b"x" * 65536] * 16384)
    assert (answer.status, answer.headers["connection"]) == (413, "close")
    assert world.read <= hooks.BODY_BYTES_MAX + 65536


@pytest.mark.parametrize("length", ["-1", "1e3", "abc", "٣", "9" * 5000], ids=ascii)
def test_strange_length_is_refused(length: str) -> None:
    """A length that is no number is not guessed at."""
    world = World()
    sent = right()
    headers = {**sent.headers, "content-length": length.encode("utf-8").decode("latin-1")}
    assert (ask(world, webhooks.Sent(headers, sent.body)).status, world.read) == (413, 0)


def test_body_is_parsed_after_its_signature() -> None:
    """What cannot be parsed is 400 when it is signed, and 401 when it is not: nobody looked."""
    world = World()
    assert ask(world, webhooks.signed(Forge.GITHUB, KEY, b"[" * 100_000)).status == 400
    assert ask(world, webhooks.signed(Forge.GITHUB, b"x" * 43, b"[" * 100_000)).status == 401


def test_flood_of_strangers_is_turned_away() -> None:
    """Too many requests at once are answered before anything is looked at; later ones come in again."""
    world = World()
    app = world.app()
    nothing = webhooks.Sent({}, b"")
    statuses = [ask(world, nothing, app=app).status for _ in range(int(hooks.STRANGERS[0]) + 1)]
    assert (set(statuses[:-1]), statuses[-1]) == ({401}, 429)
    world.now += 1.0
    assert ask(world, right(), app=app).status == 202


def test_too_many_signed_webhooks_wait() -> None:
    """Who knows the secret cannot fill the disk either."""
    world = World()
    app = world.app()
    statuses = [ask(world, right(delivery=f"d-{n}"), app=app).status for n in range(int(hooks.SIGNED[0]) + 1)]
    assert (set(statuses[:-1]), statuses[-1]) == ({202}, 429)


def test_flood_of_wrong_signatures_fills_no_log() -> None:
    """Of wrong signatures a few are written down."""
    world = World()
    app = world.app()
    wrong = webhooks.sent(Forge.GITHUB, b"x" * 43, revision=REVISION)
    for _ in range(100):
        ask(world, wrong, app=app)
    assert len(world.refused) == int(hooks.WRITTEN_DOWN[0])


def test_full_disk_is_said_without_detail() -> None:
    """What cannot be taken down is not acknowledged, so that the forge shows it, and says nothing of us."""
    answer = ask(World(broken=True), right())
    assert (answer.status, answer.text) == (503, "Try again later.")


def test_header_that_is_sent_twice_counts_as_none() -> None:
    """Two signatures are no signature: which one would be meant?"""
    world = World()
    sent = right()
    name = "x-hub-signature-256"

    async def twice() -> int:
        answered: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": sent.body}

        async def send(message: Any) -> None:
            answered.append(message)

        headers = [(n.encode(), v.encode()) for n, v in sent.headers.items()]
        headers.append((name.encode(), sent.headers[name].encode()))
        scope = {"type": "http", "method": "POST", "path": "/hooks/shop", "headers": headers}
        await world.app()(scope, receive, send)
        return int(answered[0]["status"])

    assert asyncio.run(twice()) == 401


@pytest.mark.serial
def test_unsigned_request_costs_less_than_a_millisecond() -> None:
    """A stranger's request takes less than a millisecond of our time, whatever it carries."""
    world = World()
    app = world.app()
    sent = webhooks.Sent({f"x-{n}": "v" * 100 for n in range(30)}, b"x" * 1_000_000)
    count = 150

    async def many() -> float:
        begun = time.perf_counter()
        for _ in range(count):
            await _asked(world, app, sent, pieces=[sent.body], method="POST", path="/hooks/shop")
        return time.perf_counter() - begun

    assert asyncio.run(many()) / count < 0.001

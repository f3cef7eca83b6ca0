"""Requests while the router changes: none is lost, none goes where it should not."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Self

import pytest

from tests.integration.haproxy.world import HOST, KEY, TCP, WEB, World, backend, eventually, free_ports
from tests.support.http_load import Load, Plan, ask, ask_all, exchange
from tests.support.web_app import WebApp, WebSocket
from tidegate.core import model, sequential
from tidegate.core.counters import USER_SHARDS
from tidegate.haproxy import RouterSettings

pytestmark = pytest.mark.real


@pytest.mark.parametrize("keep_alive", [True, False])
def test_no_request_fails_over_flips(world: World, blue: WebApp, green: WebApp, keep_alive: bool) -> None:
    """Forty flips between two releases under load fail no request, and both answer."""
    both = (backend(0, [blue]), backend(1, [green]))
    world.apply(world.table(*both))
    with Load(Plan(port=world.port, host=HOST, users=6, keep_alive=keep_alive)) as load:
        for flip in range(40):
            world.router.apply(world.table(*both, stable=flip % 2), key="flip")
            load.wait_for(20)
    assert load.tally.failed == Counter()
    assert min(load.tally.by_app["blue"], load.tally.by_app["green"]) > 100


def test_no_request_begun_after_a_flip_reaches_the_old_release(
    world: World, blue: WebApp, green: WebApp
) -> None:
    """Once `apply` has returned, every request begun then is answered by the new release."""
    both = (backend(0, [blue]), backend(1, [green]))
    world.apply(world.table(*both))
    with Load(Plan(port=world.port, host=HOST, users=4)):
        for flip in range(20):
            world.router.apply(world.table(*both, stable=flip % 2), key="flip")
            answers = {ask(world.port, HOST).app for _ in range(5)}
            assert answers == {("blue", "green")[flip % 2]}


def test_no_request_fails_over_exposure_changes(world: World, blue: WebApp, green: WebApp) -> None:
    """Forty changes of the exposure under load of users with cookies fail no request."""
    both = (backend(0, [blue]), backend(1, [green]))
    world.apply(world.table(*both))
    with Load(Plan(port=world.port, host=HOST, users=12, cookies=True)) as load:
        for step in range(40):
            world.router.apply(world.table(*both, canary=1, exposure_bps=step * 250), key="step")
            load.wait_for(20)
    assert load.tally.failed == Counter()
    assert load.tally.by_app["green"] > 0


def test_no_request_fails_over_reloads_and_websockets_stay(world: World, blue: WebApp, green: WebApp) -> None:
    """Structure changes reload HAProxy; requests of all kinds and open WebSockets do not notice."""
    world.apply(world.table(backend(0, [blue])))
    kept = Load(Plan(port=world.port, host=HOST, users=4)).start()
    closing = Load(Plan(port=world.port, host=HOST, users=4, keep_alive=False)).start()
    thinking = Load(Plan(port=world.port, host=HOST, users=30, think_s=0.05)).start()
    with WebSocket(world.port, host=HOST) as talk:
        assert talk.ask("before") == "blue:before"
        for change in range(6):
            check = model.Check(kind=model.CheckKind.HTTP, path=f"/healthz?{change}")
            before = world.processes().worker
            world.apply(world.table(backend(0, [blue], check=check), backend(1, [green])))
            assert world.processes().worker != before
            assert talk.ask(str(change)) == f"blue:{change}"
            kept.wait_for(50)
    tallies = [load.stop() for load in (kept, closing, thinking)]
    assert [tally.failed for tally in tallies] == [Counter(), Counter(), Counter()]


def test_a_flip_does_not_cut_websockets(world: World, blue: WebApp, green: WebApp) -> None:
    """A WebSocket on the old release goes on there after the flip; a new one reaches the new release."""
    both = (backend(0, [blue]), backend(1, [green]))
    world.apply(world.table(*both))
    with WebSocket(world.port, host=HOST) as old:
        state = world.apply(world.table(*both, stable=1))
        assert {(one.slot, one.sessions) for one in state.servers} == {(0, 1), (1, 0)}
        with WebSocket(world.port, host=HOST) as new:
            assert (old.ask("x"), new.ask("x")) == ("blue:x", "green:x")


def test_servers_come_and_go_under_load(world: World, blue: WebApp, green: WebApp) -> None:
    """Servers are added, rested and deleted ten times under load without a failed request."""
    world.apply(world.table(backend(0, [blue])))
    with Load(Plan(port=world.port, host=HOST, users=6)) as load:
        for _ in range(10):
            world.apply(world.table(backend(0, [blue, green])))
            load.wait_for(40)
            both = backend(0, [blue, green])
            resting = replace(both, servers=(both.servers[0], replace(both.servers[1], ready=False)))
            world.apply(world.table(resting))
            eventually(lambda: _sessions(world, green) == 0)
            world.apply(world.table(backend(0, [blue])))
    assert load.tally.failed == Counter()
    assert load.tally.by_app["green"] > 50


def test_a_new_server_gets_nothing_before_its_check_passed(world: World, blue: WebApp, green: WebApp) -> None:
    """An instance that is not healthy yet, and slow to say so, gets no request until its check passes."""
    green.healthy, green.health_delay_s = False, 0.3
    world.apply(world.table(backend(0, [blue])))
    table = world.table(backend(0, [blue, green]))
    with Load(Plan(port=world.port, host=HOST, users=6)) as load:
        for _ in range(5):
            world.router.apply(table, key="test")
            load.wait_for(50)
        assert green.requests["/"] == 0
        assert green.requests["/healthz"] > 0
        green.healthy, green.health_delay_s = True, 0.0
        world.apply(table)
        eventually(lambda: green.requests["/"] > 0)
    assert load.tally.failed == Counter()


def test_a_dead_instance_costs_no_request(world: World, blue: WebApp, green: WebApp) -> None:
    """When one of two instances dies under load, every GET is answered by the other."""
    world.apply(world.table(backend(0, [blue, green])))
    with Load(Plan(port=world.port, host=HOST, users=8)) as load:
        load.wait_for(200)
        green.stop()
        load.wait_for(400)
    assert load.tally.failed == Counter()
    state = world.router.observe(KEY)
    assert {(one.port, one.up) for one in state.servers} == {(blue.port, True), (green.port, False)}


def test_an_instance_that_comes_back_is_used_again_soon(world: World, blue: WebApp) -> None:
    """A server that was marked down by a refused connection takes requests within a second of its return."""
    (port,) = free_ports(1)
    first = WebApp("first", port=port)
    world.apply(world.table(backend(0, [port])))
    first.stop()
    assert ask(world.port, HOST).status == 503
    with WebApp("second", port=port):
        eventually(lambda: ask(world.port, HOST).app == "second", timeout_s=2.0)


def test_only_repeatable_requests_are_repeated(world: World, blue: WebApp, green: WebApp) -> None:
    """A POST that died in the app is reported, not sent twice; a GET is tried again."""
    world.apply(world.table(backend(0, [blue, green])))
    assert ask(world.port, HOST, "/reset", method="POST", headers=["Content-Length: 0"]).status == 502
    assert blue.requests["/reset"] + green.requests["/reset"] == 1
    ask(world.port, HOST, "/reset")
    assert blue.requests["/reset"] + green.requests["/reset"] > 2


def test_unknown_host_is_told_so(world: World, blue: WebApp) -> None:
    """A host that no service has gets 404 with a sentence, also when there is only one service."""
    world.apply(world.table(backend(0, [blue])))
    answer = ask(world.port, "other.example.com")
    assert (answer.status, answer.body) == (404, b"No service answers to this host name.\n")
    assert ask(world.port, f"{HOST.upper()}:{world.port}").app == "blue"


def test_catch_all_host_answers_whatever_is_asked(world: World, blue: WebApp, green: WebApp) -> None:
    """The host `*` takes every host that no other service has."""
    every = model.PublicService(service="web", hosts=("*",), identity=model.UserIdentity.COOKIE)
    shop = model.PublicService(service="shop", hosts=(HOST,), identity=model.UserIdentity.COOKIE)
    shops = backend(0, [green], service="shop")
    world.apply(world.table(shops, backend(0, [blue]), services=(shop, every)))
    assert (ask(world.port, HOST).app, ask(world.port, "127.0.0.1").app) == ("green", "blue")


def test_environment_without_release_asks_for_patience(world: World) -> None:
    """A known host whose environment routes to nothing gets 503 with Retry-After."""
    world.apply(world.table(backend(0, []), stable=None))
    answer = ask(world.port, HOST)
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")


def test_internal_ports_lead_to_their_own_slot(world: World, blue: WebApp, green: WebApp) -> None:
    """A link port reaches its slot whatever the public route says; an unused one answers 503."""
    links = world.settings.link_ports
    slots = (backend(0, [blue], link_port=links[0]), backend(1, [green], link_port=links[1]))
    world.apply(world.table(*slots, stable=0))
    answers = [ask(port, "localhost") for port in links[:3]]
    assert [answer.app for answer in answers] == ["blue", "green", ""]
    assert answers[2].status == 503


def test_internal_services_need_no_host(world: World, blue: WebApp, green: WebApp) -> None:
    """A service without hosts is reached by its link port only."""
    link = world.settings.link_ports[0]
    api = backend(0, [green], service="api", check=TCP, link_port=link)
    world.apply(world.table(api, backend(0, [blue])))
    assert (ask(link, "api").app, ask(world.port, "api").status) == ("green", 404)


def test_headers_of_the_proxy_cannot_be_forged(world: World, blue: WebApp) -> None:
    """What a client claims about its address or its preview never reaches the app."""
    world.apply(world.table(backend(0, [blue])))
    forged = [
        "X-Forwarded-For: 6.6.6.6",
        "X-Forwarded-Server: evil",
        "X_Forwarded_For: 6.6.6.6",
        "Forwarded: for=6.6.6.6",
        "X-Real-IP: 6.6.6.6",
        "Proxy: http://evil",
        "X-Tidegate-Preview: guess",
    ]
    body = ask(world.port, HOST, "/headers", headers=forged).body.decode()
    assert "6.6.6.6" not in body
    assert "evil" not in body
    assert "guess" not in body
    assert (
        f'"x-forwarded-for": "127.0.0.1", "x-forwarded-host": "{HOST}", "x-forwarded-proto": "http"' in body
    )


def test_requests_that_could_be_read_in_two_ways_are_refused(world: World, blue: WebApp) -> None:
    """Two hosts, or two lengths, are answered 400 before an app sees them."""
    world.apply(world.table(backend(0, [blue])))
    two_hosts = f"GET / HTTP/1.1\r\nHost: {HOST}\r\nHost: evil.example\r\n\r\n"
    two_lengths = f"POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"
    for text in (two_hosts, two_lengths):
        assert exchange(world.port, [text.encode()])[0].status == 400
    assert blue.requests["/"] == 0


def test_traffic_is_counted_exactly(world: World, blue: WebApp, green: WebApp) -> None:
    """Requests, status classes, 5xx answers and latencies of each slot add up to what was sent."""
    both = (backend(0, [blue]), backend(1, [green]))
    world.apply(world.table(*both))
    before = world.router.observe(KEY)
    exchange(
        world.port,
        [f"GET /status/{s} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode() for s in [200] * 70 + [500] * 7],
    )
    world.apply(world.table(*both, stable=1))
    ask_all(world.port, HOST, ["X-A: 1"] * 40)
    after = world.router.observe(KEY)
    assert {one.process for one in after.traffic} == {one.process for one in before.traffic}
    counts = {one.slot: (one.requests, one.errors, one.classes) for one in after.traffic}
    nothing = (0, 0, (0, 0, 0, 0, 0))
    assert counts == {
        0: (77, 7, (0, 70, 0, 0, 7)),
        1: (40, 0, (0, 40, 0, 0, 0)),
        2: nothing,
        3: nothing,
    }
    assert {one.slot: _measured(one) for one in after.traffic} == {0: 77, 1: 40, 2: 0, 3: 0}


@pytest.mark.parametrize("keep_alive", [True, False])
def test_every_answer_is_measured_over_reloads(world: World, blue: WebApp, keep_alive: bool) -> None:
    """Under load and over a reload, the latencies of both processes add up to the clients' answers.

    Each look until the old process ends has its counts; what it counted after the last one is lost with it,
    so a WebSocket keeps it.
    """
    world.apply(world.table(backend(0, [blue])))
    with (
        WebSocket(world.port, host=HOST),
        Load(Plan(port=world.port, host=HOST, users=8, keep_alive=keep_alive)) as load,
    ):
        load.wait_for(200)
        world.wire.reload(timeout_s=5)
        load.wait_for(200)
        load.stop()
        eventually(lambda: sum(one.requests for one in _traffic(world)) == load.tally.ok)
        traffic = _traffic(world)
    assert load.tally.failed == Counter()
    assert len({one.process for one in traffic}) == 2
    measured = Counter({one.process: _measured(one) for one in traffic if one.requests})
    # The WebSocket has been answered, and is counted as a request when it ends.
    assert measured.total() == load.tally.ok + 1
    assert len(measured) == 2


def test_latencies_are_of_users_and_in_their_buckets(world: World, blue: WebApp) -> None:
    """A slow answer is in the bucket of its time; calls between services are not measured."""
    link = world.settings.link_ports[0]
    world.apply(world.table(backend(0, [blue], link_port=link)))
    ask_all(link, HOST, ["X-A: 1"] * 20)
    exchange(world.port, [f"GET /slow?ms=300 HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()])
    (one,) = (one for one in _traffic(world) if one.slot == 0)
    assert one.requests == 21
    ((bucket, count),) = one.latencies
    assert count == 1
    # HAProxy reads its clock once per turn of its loop: a few milliseconds.
    assert sequential.bucket_edge_s(bucket + 1) > 0.28
    assert sequential.bucket_edge_s(bucket) < 5.0


def test_errors_are_counted_by_parts_of_the_users(world: World, blue: WebApp) -> None:
    """Errors of two addresses are in their two parts; good answers and other services' calls in none."""
    link = world.settings.link_ports[0]
    world.apply(world.table(backend(0, [blue], link_port=link)))
    ask(link, HOST, "/status/500")
    _ask_from("127.0.0.2", world.port, (200, 404))
    assert [one.user_errors for one in _traffic(world)] == [()] * model.SLOTS
    _ask_from("127.0.0.2", world.port, (500, 200, 503, 501, 404, 505, 599))
    _ask_from("127.0.0.3", world.port, (200, 500, 302))
    _ask_from("127.0.0.2", world.port, (502,))
    errors = {_user_shard("127.0.0.2"): 6, _user_shard("127.0.0.3"): 1}
    (one,) = (one for one in _traffic(world) if one.slot == 0)
    assert (one.errors, dict(one.user_errors)) == (8, errors)
    world.wire.reload(timeout_s=5)
    _ask_from("127.0.0.3", world.port, (500, 200))
    newest = [one for one in _traffic(world) if one.slot == 0 and one.requests == 2]
    assert [one.user_errors for one in newest] == [((_user_shard("127.0.0.3"), 1),)]


def _ask_from(address: str, port: int, statuses: tuple[int, ...]) -> None:
    """One request after the other over one connection from this address, answered so."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=10.0, source_address=(address, 0))
    with contextlib.closing(client):
        for status in statuses:
            client.request("GET", f"/status/{status}", headers={"Host": HOST})
            answer = client.getresponse()
            answer.read()
            assert answer.status == status


def _user_shard(address: str) -> int:
    """xxHash32 of the four bytes of an address, as its specification has it, in twentieths."""
    value = (0x165667B1 + 4 + int.from_bytes(socket.inet_aton(address), "little") * 0xC2B2AE3D) % 2**32
    value = (value << 17 | value >> 15) % 2**32 * 0x27D4EB2F % 2**32
    value = (value ^ value >> 15) * 0x85EBCA77 % 2**32
    value = (value ^ value >> 13) * 0xC2B2AE3D % 2**32
    return (value ^ value >> 16) % USER_SHARDS


def test_what_the_app_does_not_answer_is_an_error_and_not_a_latency(world: World, blue: WebApp) -> None:
    """A connection that the app cuts instead of an answer is a 502 once, however often it was tried."""
    world.apply(world.table(backend(0, [blue])))
    for method in ("GET", "POST"):
        assert ask(world.port, HOST, "/reset", method=method).status == 502
    (one,) = (one for one in _traffic(world) if one.slot == 0)
    assert (one.requests, one.errors, one.unanswered, one.latencies) == (2, 2, 0, ())


@pytest.mark.parametrize("stall_s", [0.0, 60.0], ids=["cut", "stalled"])
def test_an_answer_that_does_not_end_is_unanswered(tmp_path: Path, stall_s: float) -> None:
    """An answer that is broken off, or stands still for too long, is counted once, beside its 200."""
    port, *links = free_ports(5)
    settings = RouterSettings(port=port, link_ports=tuple(links), response_timeout_s=0.3, drain_s=0)
    world = World(tmp_path / "router", settings)
    with Halves(stall_s) as app, contextlib.closing(world):
        world.router.start()
        world.apply(world.table(backend(0, [app.port], check=TCP)))
        for _ in range(3):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(f"GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
                while client.recv(1000):
                    pass
        eventually(lambda: sum(one.requests for one in _traffic(world)) == 3)
        (one,) = (one for one in _traffic(world) if one.slot == 0)
    assert (one.unanswered, one.errors, one.classes, _measured(one)) == (3, 0, (0, 3, 0, 0, 0), 3)


def test_environments_do_not_touch_each_other(world: World, blue: WebApp, green: WebApp) -> None:
    """A second environment comes, flips and goes without a failed request in the first."""
    world.apply(world.table(backend(0, [blue])))
    other = model.EnvironmentKey(app="shop", environment="production-two")
    public = model.PublicService(
        service="web", hosts=("two.example.com",), identity=model.UserIdentity.COOKIE
    )
    with Load(Plan(port=world.port, host=HOST, users=4)) as load:
        world.apply(world.table(backend(0, [green]), services=(public,), key=other))
        assert ask(world.port, "two.example.com").app == "green"
        world.apply(world.table(stable=None, services=(), key=other))
        assert ask(world.port, "two.example.com").status == 404
        load.wait_for(50)
    assert load.tally.failed == Counter()
    assert set(load.tally.by_app) == {"blue"}
    assert WEB.hosts == (HOST,)


def test_two_threads_apply_at_once(world: World, blue: WebApp, green: WebApp) -> None:
    """Two environments applied from two threads at the same time both come out right."""
    keys = [model.EnvironmentKey(app=f"app{i}", environment="test") for i in range(2)]
    problems: list[BaseException] = []

    def work(index: int) -> None:
        public = model.PublicService(
            service="web", hosts=(f"{index}.example.com",), identity=model.UserIdentity.COOKIE
        )
        try:
            for flip in range(10):
                slots = (backend(0, [blue]), backend(1, [green]))
                world.apply(world.table(*slots, stable=flip % 2, services=(public,), key=keys[index]))
        except BaseException as error:  # noqa: BLE001 - handed to the test's own thread
            problems.append(error)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert [ask(world.port, f"{index}.example.com").app for index in range(2)] == ["green", "green"]


def test_slow_clients_do_not_hold_up_others(world: World, blue: WebApp) -> None:
    """A hundred clients that never finish their request leave room for the others."""
    world.apply(world.table(backend(0, [blue])))
    slow = [socket.create_connection(("127.0.0.1", world.port)) for _ in range(100)]
    try:
        for client in slow:
            client.sendall(b"GET / HTTP/1.1\r\nHost: ")
        assert ask(world.port, HOST).app == "blue"
    finally:
        for client in slow:
            client.close()


class Halves:
    """An app that begins an answer, waits, and cuts the connection."""

    def __init__(self, stall_s: float) -> None:
        self._ended = threading.Event()
        self._stall_s = stall_s
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                self._threads.append(threading.Thread(target=self._answer, args=(client,), daemon=True))
                self._threads[-1].start()

    def _answer(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            if client.recv(10_000):
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
                self._ended.wait(self._stall_s)


def _traffic(world: World) -> tuple[model.Traffic, ...]:
    return world.router.observe(KEY).traffic


def _measured(one: model.Traffic) -> int:
    return sum(count for _, count in one.latencies)


def _sessions(world: World, app: WebApp) -> int | None:
    return next(one.sessions for one in world.router.observe(KEY).servers if one.port == app.port)


def test_instances_are_counted_apart(world: World, blue: WebApp, green: WebApp) -> None:
    """Each server has its own answers and errors; a request that none answered is no server's."""
    world.apply(world.table(backend(0, [blue, green])))
    for path in ("/", "/status/500", "/reset", "/status/404") * 4:
        ask(world.port, HOST, path)
    answered = {one.port: one for one in world.router.observe(KEY).servers}
    for app in (blue, green):
        failed, fine = app.requests["/status/500"], app.requests["/"] + app.requests["/status/404"]
        assert (answered[app.port].requests, answered[app.port].errors) == (failed + fine, failed)
    assert sum(one.requests for one in answered.values()) == 12

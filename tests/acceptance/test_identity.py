"""Who may do what, on a real control plane, by the installed command: tokens, the kernel's word, the log.

Nothing here is a fake: the peer is a process, the token is in its environment, the log is the state's file.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support import sample
from tests.support.tide import App, Done, Tide, wait_for
from tidegate import client, errors
from tidegate.core.roles import Role
from tidegate.web import identity

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(180)]

TOKEN = re.compile(r"tide_[A-Za-z0-9_-]{43}\n")
#: Asks for the status over the socket that is its argument.
STRANGER = r"""
import socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
connection.sendall(b"GET /v1/status HTTP/1.1\r\nHost: x\r\nX-Tidegate-By: root\r\nConnection: close\r\n\r\n")
print(connection.makefile("rb").read().decode())
"""
REFUSED = "that needs the role"

#: Commands and the least role for each. Most are refused for another reason then, which is as good.
COMMANDS = {
    Role.VIEWER: (
        ("status",), ("status", "production"), ("history", "production"), ("events", "production"),
        ("releases",), ("show", "r1"), ("plan", "production", "--release", "r1"), ("doctor",), ("pipeline",),
        ("audit",), ("audit", "verify"), ("secret", "list", "production"), ("key", "list"),
    ),
    Role.DEPLOYER: (
        ("logs", "production"), ("preview", "production"), ("deploy", "production"),
        ("deploy", "production", "--release", "r1"), ("promote", "production"), ("pause", "production"),
        ("resume", "production"), ("abort", "production"), ("rollback", "production"),
    ),
    Role.APPROVER: (("approve", "production", "--release", "r1"),),
    Role.ADMIN: (
        ("token", "list"), ("token", "create", "eve", "--role", "admin"), ("token", "revoke", "nobody"),
        ("backup", "copy.db"), ("secret", "rm", "production", "KEY"), ("secret", "rotate", "production"),
        ("key", "rotate"), ("down",), ("down", "--all"),
    ),
}  # fmt: skip
#: Not done by those who may.
DONE = ("down", "deploy")
CASES = [(least, words) for least, every in COMMANDS.items() for words in every]


@contextmanager
def holding(tide: Tide, token: str) -> Iterator[None]:
    """Commands of this block find the token where a program would put it."""
    tide.environ["TIDEGATE_TOKEN"] = token
    try:
        yield
    finally:
        del tide.environ["TIDEGATE_TOKEN"]


def made(tide: Tide, name: str, *words: str) -> str:
    """A new token."""
    done = tide.ok("token", "create", name, *words)
    assert TOKEN.fullmatch(done.out)
    return done.out.strip()


def with_token(app: App, token: str, *words: object) -> Done:
    with holding(app.tide, token):
        return app.run(*words)


def raw(tide: Tide, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    """A request as a forger would write it."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(tide.socket)), base_url="http://x") as http:
        return http.request(method, path, headers=headers, json={} if method == "POST" else None)


def log(tide: Tide, *words: object) -> list[dict[str, Any]]:
    """Entries, newest first."""
    found: list[dict[str, Any]] = tide.ok("audit", "--json", "--limit", "1000", *words).json
    return found


@pytest.fixture(scope="module")
def shop(shared: Tide) -> App:
    app = shared.app("shop", services={"web": sample.service("web", route="*")})
    app.open()
    return app


def test_every_route_of_a_running_control_plane_has_a_rule(shared: Tide) -> None:
    """Neither more nor less: the table of rules is the table of routes."""
    paths = raw(shared, "/openapi.json").json()["paths"]
    routes = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    assert routes == set(identity.ROUTES) - {"GET /openapi.json"}


@pytest.mark.parametrize("role", list(Role))
def test_each_role_may_run_its_commands_and_no_others(shop: App, role: Role) -> None:
    """Every command with a token of each role: what is refused says which role it needs, and does nothing."""
    token = made(shop.tide, f"only-{role}", "--role", role)
    before = shop.tide.pid
    for least, words in CASES:
        if (role.includes(least) and least is not role) or (least is role and words[0] in DONE):
            continue  # seen with a lower role already, or it would do it
        done = with_token(shop, token, *words)
        assert (REFUSED in done.err) == (not role.includes(least)), (words, done)
        if REFUSED in done.err:
            assert done.status == 2
            assert f"the role {least}" in done.err
    assert shop.tide.pid == before
    refused = {e["action"] for e in log(shop.tide, "--by", f"only-{role}") if e["reason"] == "forbidden"}
    assert ("tokens" in refused) == (role is not Role.ADMIN)
    assert ("abort" in refused) == (role is Role.VIEWER)
    assert ("approve" in refused) == (role in (Role.VIEWER, Role.DEPLOYER))


def test_a_token_counts_in_its_environments_only(shop: App) -> None:
    """Another environment of the same app is refused, and not even shown."""
    token = made(shop.tide, "elsewhere", "--role", "deployer", "--environment", "shop/staging")
    done = with_token(shop, token, "pause", "production")
    assert (done.status, "needs the role deployer for shop/production" in done.err) == (2, True)
    assert with_token(shop, token, "status", "production").status == 2
    with holding(shop.tide, token):
        assert shop.tide.ok("status", "--json").json["environments"] == []
    (entry,) = log(shop.tide, "--by", "elsewhere", "--outcome", "refused", "--environment", "production")[-1:]
    assert (entry["action"], entry["app"], entry["token"] is not None) == ("pause", "shop", True)


def test_an_expired_and_a_revoked_token_are_nobodys(shop: App) -> None:
    """From the very next request on; the refusal names the token, and root falls back to nothing."""
    with client.Client(shop.tide.socket) as connection:
        short = connection.create_token("short", role="admin", environments=["*/*"], expires_s=0.2)["token"]
    expired = wait_for(lambda: (done := with_token(shop, short, "status")).status == 2 and done)
    assert expired
    assert "The token short has expired." in expired.err
    token = made(shop.tide, "gone", "--role", "admin", "--expires", "1h")
    assert with_token(shop, token, "token", "list").status == 0
    shop.ok("token", "revoke", "gone")
    assert "The token gone was revoked." in with_token(shop, token, "status").err
    assert shop.run("token", "revoke", "gone").status == 2
    names = {one["name"] for one in shop.ok("token", "list", "--json").json}
    assert names.isdisjoint({"gone", "short"})
    everything = {one["name"]: one for one in shop.ok("token", "list", "--all", "--json").json}
    assert everything["gone"]["revoked_at"] > everything["gone"]["created_at"]


def test_who_asked_cannot_be_forged(shop: App) -> None:
    """No header makes somebody of anybody: history and log show who was proved."""
    token = made(shop.tide, "robot", "--role", "deployer")
    path = "/v1/apps/shop/environments/production/pause"
    forged = {
        "X-Tidegate-By": "root", "X-Forwarded-User": "root", "X-Remote-User": "root", "Peer": "0",
        "Authorization": f"Bearer {token}",
    }  # fmt: skip
    assert raw(shop.tide, path, "POST", **forged).status_code == 409
    assert log(shop.tide)[0]["by"] == "robot"
    spoken = raw(shop.tide, path, "POST", **forged, **{"X-Tidegate-For": "root"})
    assert (spoken.status_code, spoken.json()["type"]) == (403, "forbidden")
    made_by = shop.tide.ok("token", "list", "--json").json[0]["created_by"]
    assert log(shop.tide, "--by", made_by)


def test_a_token_cannot_have_the_name_of_a_user(shop: App) -> None:
    """History shows only a name: one that is root's must be root."""
    for name in ("root", "nobody", "tidegate", "root for alice", "../x", ""):
        assert shop.run("token", "create", name, "--role", "viewer").status == 2
    made(shop.tide, "twice", "--role", "viewer")
    assert "already" in shop.run("token", "create", "twice", "--role", "viewer").err


def test_another_user_of_the_machine_is_nobody(shop: App) -> None:
    """Also if the socket were open to everybody: the kernel says who asks."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: another user of the machine; to become one needs root")

    def asked() -> str:
        words = ["/usr/bin/python3", "-I", "-c", STRANGER, str(shop.tide.socket)]
        done = subprocess.run(
            words,
            user=65534,
            group=65534,
            extra_groups=[],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
        )
        return done.stdout or done.stderr

    assert "Permission denied" in asked() or "PermissionError" in asked()
    shop.tide.socket.chmod(0o666)
    try:
        assert asked().startswith("HTTP/1.1 401")
    finally:
        shop.tide.socket.chmod(0o600)


def test_no_token_is_left_anywhere(shop: App) -> None:
    """Not in the state, the log, the command lines, or an answer: only its hash is kept."""
    token = made(shop.tide, "secret", "--role", "viewer")
    with_token(shop, token, "status")
    raw(shop.tide, f"/v1/{token}", Authorization=f"Bearer {token}")
    raw(shop.tide, f"/v1/apps/{token}/environments/{token}/pause", "POST", Authorization=f"Bearer {token}x")
    shop.run("token", "revoke", token)
    shop.run("token", "create", token, "--role", "viewer")
    shown = shop.ok("audit", "--json", "--limit", "1000").out + shop.ok("token", "list", "--json").out
    files = [path for path in shop.tide.home.rglob("*") if path.is_file()]
    assert token not in shown
    assert [path for path in files if token.encode() in path.read_bytes()] == []
    with pytest.raises(errors.RequestError, match="not a token"), client.Client(Path("x"), token="tide_\n"):
        pass


def test_an_edited_byte_of_the_log_is_named(tide: Tide) -> None:
    """200 changes, some of them refused; then one byte of the database is another, and its entry is named."""
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    with client.Client(tide.socket) as connection:
        for number in range(200):
            one_change(connection, chance, number)
    proof = tide.ok("audit", "verify", "--json").json
    assert (proof["ok"], proof["count"] >= 200) == (True, True), seed
    accepted = log(tide, "--outcome", "accepted")
    tide.ok("down")
    database = tide.home / "state" / "tidegate.db"
    content = database.read_bytes()
    probes = [e for e in accepted if e["detail"].startswith("token probe-")]
    entry = chance.choice([e for e in probes if content.count(e["detail"].encode()) == 1])
    changed = entry["detail"].replace("probe", "prove")
    database.write_bytes(content.replace(entry["detail"].encode(), changed.encode()))
    tide.up()
    done = tide.run("audit", "verify")
    assert done.status == 1
    assert f"entry {entry['sequence']} changed: is not what was written" in done.out, seed
    assert done.out.count("entry") == 1
    assert tide.run("audit", "verify", "--after", str(entry["sequence"])).status == 0
    checkpoint = f"{proof['count']}:{proof['head']}"
    assert (
        tide.run("audit", "verify", "--checkpoint", checkpoint, "--after", str(entry["sequence"])).status == 0
    )
    assert tide.run("audit", "verify", "--checkpoint", f"{10**9}:{proof['head']}").status == 1


def one_change(connection: client.Client, chance: random.Random, number: int) -> None:
    """Accepted or refused, whichever: it is written down."""
    place = client.Place("shop", "production")
    try:
        match chance.randrange(4):
            case 0 | 1:
                connection.create_token(
                    f"probe-{number}", role="viewer", environments=["*/*"], expires_s=None
                )
            case 2:
                connection.revoke_token(f"probe-{chance.randrange(number + 1)}")
            case _:
                connection.act(place, chance.choice(["pause", "resume", "abort", "rollback"]))
    except errors.ReportedError:
        return

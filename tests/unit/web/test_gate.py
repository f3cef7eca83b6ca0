"""The gate before every route: who may do what, as a matrix, and what is written down of it."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import json
import re
from collections.abc import Iterator, MutableMapping
from dataclasses import replace
from typing import Any, cast

import httpx
import pytest
from fastapi import FastAPI
from starlette.types import Receive, Send

from tests.support.asking import OWNER, Anything, as_user
from tidegate import errors, ports
from tidegate.core import roles
from tidegate.core.roles import NEEDS, Role
from tidegate.testing.audit import MemoryAudit, MemoryTokens
from tidegate.web import api, gate, identity

NOW = 1_800_000_000.0
STRANGER = OWNER + 1
DEPLOY = "/v1/apps/shop/environments/production/deploy"
ABORT = "/v1/apps/shop/environments/production/abort"
LOOK = "/v1/apps/shop/environments/production"
STATUS = "/v1/status"
FULL = errors.StorageError("The disk is full.", hint="Free some room.")

#: Every rule, with an address that it is for.
ADDRESSES = [
    (method, re.sub(r"\{\w+\}", "shop", path), rule)
    for (method, _, path), rule in ((route.partition(" "), rule) for route, rule in identity.ROUTES.items())
]
RULES = [pytest.param(*address, id=f"{address[0]} {address[1]}") for address in ADDRESSES]


def text_of(name: str) -> str:
    """The token of that name."""
    return f"tide_{hashlib.sha256(name.encode()).hexdigest()[:43]}"


class Door:
    """The gate before an application that answers what the test wants."""

    def __init__(self) -> None:
        self.now = NOW
        self.tokens = MemoryTokens()
        self.audit = MemoryAudit()
        self.status = 200
        self.reached: list[str] = []
        self.seen: list[str] = []
        """What was in the audit log when the application was reached."""
        trust = identity.Trust(owner=OWNER, tokens=self.tokens, now=lambda: self.now)
        self.gate = gate.Gate(self._answer, trust=trust, audit=self.audit)

    async def _answer(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        self.reached.append(f"{scope['method']} {scope['path']}")
        self.seen += [entry.outcome for entry in self.audit.entries]
        if self.status == 500:
            raise RuntimeError("a mistake of ours")
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    def give(self, role: Role, *scope: str, name: str = "ci", expires_at: float | None = None) -> str:
        """A token; the value for the header."""
        token = ports.Token(
            id=0,
            name=name,
            role=role,
            scope=tuple(roles.reach(part) for part in scope or ("*/*",)),
            created_at=NOW,
            created_by="ada",
            expires_at=expires_at,
        )
        self.tokens.add(token, hashlib.sha256(text_of(name).encode()).hexdigest())
        return f"Bearer {text_of(name)}"

    def ask(
        self, path: str, method: str = "POST", *, uid: int | None = OWNER, **headers: str
    ) -> tuple[int, dict[str, Any]]:
        """Status and body."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}

        async def asking() -> tuple[int, dict[str, Any]]:
            transport = httpx.ASGITransport(as_user(self.gate, uid), raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://tidegate") as http:
                answer = await http.request(method, path, headers=sent)
                return answer.status_code, json.loads(answer.content or b"{}")

        return asyncio.run(asking())

    @property
    def log(self) -> list[tuple[str, str, str, str]]:
        """By whom, what, how it ended, why."""
        return [(entry.by, entry.action, entry.outcome, entry.reason) for entry in self.audit.entries]


@pytest.fixture
def door() -> Door:
    return Door()


# --- who may do what -----------------------------------------------------------------------------------


def routes_of(app: FastAPI) -> Iterator[str]:
    for path, methods in app.openapi()["paths"].items():
        yield from (f"{method.upper()} {path}" for method in methods)


def test_every_route_has_a_rule() -> None:
    """A new route without one is answered with 404 for everybody, and fails here."""
    assert set(routes_of(api.create_app(cast("api.Context", Anything())))) <= set(identity.ROUTES)


@pytest.mark.parametrize(("method", "path", "rule"), RULES)
@pytest.mark.parametrize("role", list(Role))
def test_a_route_is_for_the_role_of_its_action_and_those_above(
    door: Door, role: Role, method: str, path: str, rule: identity.Rule
) -> None:
    """Every route and every role: let in, or refused with 403 and the role that is needed."""
    status, problem = door.ask(path, method, authorization=door.give(role))
    if role.includes(NEEDS[rule.action]):
        assert (status, len(door.reached)) == (200, 1)
    else:
        assert (status, problem["type"], door.reached) == (403, "forbidden", [])
        assert f"needs the role {NEEDS[rule.action]}" in problem["title"]
        assert door.log == [("ci", rule.action.value, "refused", "forbidden")]


@pytest.mark.parametrize(("method", "path", "rule"), RULES)
def test_no_route_is_open_to_who_proves_nothing(
    door: Door, method: str, path: str, rule: identity.Rule
) -> None:
    """Neither over the network without a token, nor for another user of this machine."""
    for uid in (None, STRANGER):
        status, problem = door.ask(path, method, uid=uid)
        assert (status, problem["type"]) == (401, "unauthenticated")
        assert "TIDEGATE_TOKEN" in problem["detail"]
    assert door.reached == []
    assert door.log == [("", rule.action.value, "refused", "unauthenticated")] * 2


@pytest.mark.parametrize(("method", "path", "rule"), RULES)
def test_a_token_of_another_app_opens_no_route_of_this_one(
    door: Door, method: str, path: str, rule: identity.Rule
) -> None:
    """Nor any that concerns the whole control plane; only those whose handler looks at the scope itself."""
    status, problem = door.ask(path, method, authorization=door.give(Role.ADMIN, "blog/*"))
    if rule.by_handler:
        assert (status, len(door.reached)) == (200, 1)
    else:
        assert (status, door.reached) == (403, [])
        assert problem["detail"] == "This token is for blog/*."


@pytest.mark.parametrize(
    ("scope", "status"), [("shop/staging", 403), ("shop/pro*", 200), ("*/production", 200)]
)
def test_a_token_works_in_its_environments_only(door: Door, scope: str, status: int) -> None:
    """The environment of the path counts, not what a body says."""
    assert door.ask(DEPLOY, authorization=door.give(Role.DEPLOYER, scope))[0] == status


@pytest.mark.parametrize("uid", [0, OWNER], ids=["root", "owner"])
def test_root_and_the_owner_of_the_control_plane_are_admins(door: Door, uid: int) -> None:
    """Over the Unix socket, by the kernel's word."""
    assert door.ask("/v1/shutdown", uid=uid)[0] == 200
    assert {entry.role for entry in door.audit.entries} == {"admin"}


@pytest.mark.parametrize("path", ["/v1/nothing", "/v1/status/", "/v1//status", "/V1/status", "/"])
def test_what_has_no_rule_is_not_there(door: Door, path: str) -> None:
    """For those too who may do everything."""
    status, problem = door.ask(path, "GET")
    assert (status, problem["type"], door.reached) == (404, "not-found", [])


def test_a_method_without_a_rule_is_not_there(door: Door) -> None:
    """A look is no leave to change."""
    for method, path in (("DELETE", DEPLOY), ("POST", STATUS), ("HEAD", STATUS), ("OPTIONS", STATUS)):
        assert door.ask(path, method)[0] == 404
    assert door.reached == []


# --- how it is proved ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sent",
    [
        "Bearer ", "Bearer tide_short", "Basic cm9vdDo=", f"Bearer {text_of('nobody')}", text_of("ci"),
        f"Bearer {text_of('ci')} ", f"Bearer {text_of('ci')}x", f"Bearer  {text_of('ci')}",
        f"Bearer {text_of('ci').upper()}",
    ],
    ids=["empty", "short", "basic", "unknown", "bare", "space after", "longer", "two spaces", "upper case"],
)  # fmt: skip
def test_what_is_no_token_proves_nothing_even_here(door: Door, sent: str) -> None:
    """Root with a wrong token is nobody: who shows less is never given more, nor told what they sent."""
    door.give(Role.ADMIN)
    status, problem = door.ask(STATUS, "GET", uid=0, authorization=sent)
    assert (status, door.reached) == (401, [])
    assert "tide_" not in json.dumps(problem)
    assert "tide_" not in str(door.audit.entries)


def test_two_tokens_at_once_prove_nothing(door: Door) -> None:
    """Which one counts would depend on who reads them."""
    door.give(Role.ADMIN)

    async def asking() -> int:
        transport = httpx.ASGITransport(as_user(door.gate))
        async with httpx.AsyncClient(transport=transport, base_url="http://tidegate") as http:
            one = ("Authorization", f"Bearer {text_of('ci')}")
            return (await http.get(STATUS, headers=[one, one])).status_code

    assert asyncio.run(asking()) == 401


def test_an_expired_token_is_refused_from_that_second_on(door: Door) -> None:
    """With its name, so that its owner knows which one."""
    token = door.give(Role.ADMIN, expires_at=NOW + 60)
    door.now = NOW + 59.9
    assert door.ask(STATUS, "GET", authorization=token)[0] == 200
    door.now = NOW + 60
    status, problem = door.ask(STATUS, "GET", authorization=token)
    assert (status, problem["title"]) == (401, "The token ci has expired.")


def test_a_revoked_token_is_refused_at_once(door: Door) -> None:
    """The very next request."""
    token = door.give(Role.ADMIN)
    door.tokens.revoke("ci", by="ada", at=NOW)
    assert door.ask(STATUS, "GET", authorization=token) == (
        401,
        {**PROBLEM, "title": "The token ci was revoked."},
    )


PROBLEM = {
    "type": "unauthenticated",
    "status": 401,
    "detail": "An admin makes another with `tide token create`.",
    "reason": None,
    "exit_status": 2,
    "problems": [],
}


def test_a_name_in_a_header_is_not_believed(door: Door) -> None:
    """Who asks is who was proved, whatever they say."""
    token = door.give(Role.DEPLOYER)
    door.ask(DEPLOY, authorization=token, x_tidegate_by="root")
    assert {entry.by for entry in door.audit.entries} == {"ci"}


def test_only_an_admin_may_speak_for_somebody(door: Door) -> None:
    """A hook of `git push` may name who pushed; a token that may only deploy may not."""
    door.ask(DEPLOY, uid=0, x_tidegate_for="alice")
    assert [entry.by for entry in door.audit.entries] == ["root for alice"] * 2
    status, problem = door.ask(DEPLOY, authorization=door.give(Role.APPROVER), x_tidegate_for="alice")
    assert (status, problem["type"], len(door.reached)) == (403, "forbidden", 1)
    assert door.log[-1] == ("", "deploy", "refused", "forbidden")
    assert door.ask(DEPLOY, uid=0, x_tidegate_for="a" * 101)[0] == 400


def test_a_token_remembers_when_it_was_used(door: Door) -> None:
    """To the hour."""
    door.ask(STATUS, "GET", authorization=door.give(Role.VIEWER))
    assert [token.used_at for token in door.tokens.all()] == [NOW - NOW % 3600]


# --- what is written down ------------------------------------------------------------------------------


def test_a_change_is_written_down_before_it_and_after_it(door: Door) -> None:
    """Who, what, where, as which role; and the second entry says of which it is the end."""
    door.ask(DEPLOY, authorization=door.give(Role.DEPLOYER))
    assert door.seen == ["asked"]
    first, second = door.audit.entries
    assert (first.at, first.by, first.role, first.token) == (NOW, "ci", "deployer", 1)
    assert (first.action, first.app, first.environment) == ("deploy", "shop", "production")
    assert second == replace(first, outcome="accepted", of=1)


def test_what_only_looks_is_not_written_down(door: Door) -> None:
    """A plan is asked for by POST, and changes nothing."""
    for path, method in ((LOOK, "GET"), (f"{LOOK}/plan", "POST"), (STATUS, "GET")):
        assert door.ask(path, method)[0] == 200
    assert door.log == []


@pytest.mark.parametrize(("status", "reason"), [(409, "status-409"), (500, "status-500")])
def test_a_change_that_fails_is_written_down_as_refused(door: Door, status: int, reason: str) -> None:
    """Also when the mistake is ours."""
    door.status = status
    assert door.ask(DEPLOY)[0] == status
    assert [entry[1:] for entry in door.log] == [("deploy", "asked", ""), ("deploy", "refused", reason)]


def test_what_cannot_be_written_down_is_not_done(door: Door) -> None:
    """A full disk lets no change pass unseen; the answer says what still works."""
    door.audit.failing = FULL
    status, problem = door.ask(DEPLOY)
    assert (status, problem["type"], door.reached) == (503, "audit", [])
    assert problem["title"].startswith("The audit log cannot be written, so nothing was changed")
    assert "Abort and rollback work" in problem["detail"]


@pytest.mark.parametrize("action", ["abort", "rollback"])
def test_what_leads_home_always_works_and_is_written_down_later(door: Door, action: str) -> None:
    """In the order in which it was asked, before the next change."""
    door.audit.failing = FULL
    assert door.ask(f"{LOOK}/{action}")[0] == 200
    assert door.log == []
    door.audit.failing = None
    door.ask(DEPLOY)
    assert [entry[1:3] for entry in door.log] == [
        (action, "asked"), (action, "accepted"), ("deploy", "asked"), ("deploy", "accepted"),
    ]  # fmt: skip
    assert [entry.detail for entry in door.audit.entries[:2]] == ["(written down later)"] * 2


def test_looking_works_on_a_full_disk(door: Door) -> None:
    """With a token too, whose last use cannot be remembered then."""
    token = door.give(Role.VIEWER)
    door.audit.failing = FULL
    assert door.ask(STATUS, "GET", authorization=token)[0] == 200
    assert door.ask(DEPLOY, authorization=token)[0] == 403


def test_a_flood_of_nobodies_is_counted(door: Door) -> None:
    """The first ones of a minute are written down, and then how many there were: it fills no disk."""
    for _ in range(gate.UNKNOWN_A_MINUTE + 12):
        door.ask(DEPLOY, uid=None)
    assert len(door.audit.entries) == gate.UNKNOWN_A_MINUTE
    door.now += 60
    door.ask(DEPLOY, uid=None)
    assert door.audit.entries[-1].detail.endswith("(12 more like this a moment before)")
    door.ask(DEPLOY, authorization=door.give(Role.VIEWER))
    assert door.log[-1] == ("ci", "deploy", "refused", "forbidden")


def test_no_entry_holds_more_of_an_address_than_a_name(door: Door) -> None:
    """A path may be long, and hold what it should not."""
    secret = text_of("ci")
    door.ask(f"/v1/apps/{'x' * 5000}/environments/{secret}/deploy", uid=None)
    (entry,) = door.audit.entries
    assert (len(entry.app), entry.environment) == (gate.NAME_MAX, "tide_***")


@pytest.mark.parametrize(("first", "second"), list(itertools.product([0, 1], [0, 1])))
def test_an_answer_that_goes_on_ends_with_its_token(door: Door, first: int, second: int) -> None:
    """Who follows logs gets no more of them once the token is revoked; asked every few seconds."""
    token = door.give(Role.DEPLOYER)

    async def following(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"one ", "more_body": True})
        if first:
            door.tokens.revoke("ci", by="ada", at=door.now)
        if second:
            door.now += gate.PROVED_S
        await send({"type": "http.response.body", "body": b"two", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    trust = identity.Trust(owner=OWNER, tokens=door.tokens, now=lambda: door.now)
    app = gate.Gate(following, trust=trust, audit=door.audit)

    async def asking() -> str:
        transport = httpx.ASGITransport(as_user(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://tidegate") as http:
            return (await http.get(f"{LOOK}/logs", headers={"Authorization": token})).text

    assert asyncio.run(asking()) == ("one " if first and second else "one two")


#: Asked for by POST because of their bodies; they change nothing.
QUESTIONS = {
    "POST /v1/apps/{app}/environments/{environment}/plan",
    "POST /v1/apps/{app}/environments/{environment}/plan-rollback-group",
    "POST /v1/apps/{app}/source/check",
}


def test_what_is_no_question_is_written_down() -> None:
    """No change is left out of the log because of its action, but for those that are known to be none."""
    silent = {
        route
        for route, rule in identity.ROUTES.items()
        if rule.action in roles.LOOKING and not route.startswith("GET ")
    }
    assert silent <= QUESTIONS

"""The routes about tokens and the audit log: what they answer, to whom, and what they refuse."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
import structlog
from fastapi import FastAPI
from structlog.testing import capture_logs

from tests.support.asking import OWNER, as_user
from tests.support.tide import wait_for
from tidegate import errors, ports, telemetry
from tidegate.core import roles
from tidegate.testing.audit import MemoryAudit, MemoryTokens, entry
from tidegate.web import audit, gate, identity, tokens

NOW = 1_800_000_000.0


class Desk:
    """Only these routes, behind the gate."""

    def __init__(self) -> None:
        self.tokens = MemoryTokens()
        self.audit = MemoryAudit()
        trust = identity.Trust(owner=OWNER, tokens=self.tokens, now=lambda: NOW)
        app = FastAPI()
        app.add_middleware(gate.Gate, trust=trust, audit=self.audit)
        app.add_exception_handler(errors.TidegateError, _on_error)
        tokens.add(app, self.tokens, lambda: NOW)
        audit.add(app, self.audit)
        self.app = as_user(app)

    def ask(self, method: str, path: str, body: Any = None, *, token: str = "") -> httpx.Response:
        async def asking() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            async with httpx.AsyncClient(transport=transport, base_url="http://tidegate") as http:
                return await http.request(method, path, json=body, headers=headers)

        return asyncio.run(asking())

    def make(self, name: str, role: str = "viewer", *environments: str) -> str:
        """A token."""
        body = {"name": name, "role": role, "environments": list(environments) or ["*/*"]}
        answer = self.ask("POST", "/v1/tokens", body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["token"])


async def _on_error(_request: Any, error: Exception) -> Any:
    assert isinstance(error, errors.TidegateError)
    return gate.answer(error)


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_token_is_answered_once_and_only_its_hash_is_kept(desk: Desk) -> None:
    """256 random bits, which no other token has; no cache keeps the answer."""
    body = {"name": "ci", "role": "deployer", "environments": ["shop/*", "*/test", "shop/*"], "expires_s": 60}
    answer = desk.ask("POST", "/v1/tokens", body)
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    text, about = answer.json()["token"], answer.json()["about"]
    assert re.fullmatch(r"tide_[A-Za-z0-9_-]{43}", text)
    assert (about["role"], about["environments"]) == ("deployer", ["*/test", "shop/*"])
    assert (about["created_at"], about["expires_at"]) == (NOW, NOW + 60)
    assert desk.tokens.find(hashlib.sha256(text.encode()).hexdigest()) is not None
    assert desk.make("another") != text
    assert text not in json.dumps(desk.ask("GET", "/v1/tokens").json())
    assert text not in str(desk.audit.entries)


def test_what_was_made_and_revoked_stands_in_the_log(desk: Desk) -> None:
    """By whom, with which role and reach."""
    desk.make("ci", "deployer", "shop/*")
    assert desk.ask("DELETE", "/v1/tokens/ci").json()["revoked_at"] == NOW
    told = [record.detail for record in desk.audit.entries if record.outcome == "accepted"]
    assert told == ["token ci, deployer, shop/*", "token ci"]


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"name": "root"}, 400),
        ({"name": "tidegate"}, 400),
        ({"name": f"tide_{'x' * 43}"}, 400),
        ({"name": "root for alice"}, 422),
        ({"name": "-rf"}, 422),
        ({"name": "x" * 65}, 422),
        ({"role": "emperor"}, 422),
        ({"environments": []}, 422),
        ({"environments": ["shop"]}, 400),
        ({"expires_s": 0}, 422),
        ({"expires_s": -1}, 422),
        ({"expires_s": 1e12}, 422),
        ({"more": 1}, 422),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_token_is_not_made(desk: Desk, changes: dict[str, Any], status: int) -> None:
    """A name that could be another's, a reach that means nothing, a life that never ends by mistake."""
    body = {"name": "ci", "role": "viewer", "environments": ["*/*"], "expires_s": 60} | changes
    assert desk.ask("POST", "/v1/tokens", body).status_code == status
    assert desk.tokens.all() == ()


def test_who_may_see_some_environments_sees_their_entries_only(desk: Desk) -> None:
    """Neither other apps, nor what concerns the whole control plane; as many as were asked for."""
    token = desk.make("eu", "viewer", "shop/pro*")
    before = len(desk.audit.entries)
    for number in range(1, 1500):
        environment = "production" if number % 100 == 0 else "staging"
        desk.audit.append(entry(app="shop", environment=environment, release=number))
    desk.audit.append(entry(app="blog", environment="production"))
    desk.audit.append(entry(app="shop", release=9000))  # of the app, in no environment

    def seen(query: str) -> list[int]:
        return [one["release"] for one in desk.ask("GET", f"/v1/audit?{query}", token=token).json()]

    assert seen("limit=3") == [9000, 1400, 1300]
    assert seen("limit=1000") == [9000, *range(1400, 0, -100)]
    assert seen(f"before={before + 300}") == [200, 100]
    assert desk.ask("GET", "/v1/audit?limit=1").json()[0]["release"] == 9000


def test_the_proof_concerns_the_whole_log(desk: Desk) -> None:
    """Who may not see all of it is not told whether all of it is right."""
    answer = desk.ask("GET", "/v1/audit/verify").json()
    assert answer == {"ok": True, "count": 0, "head": "00" * 32, "faults": []}
    token = desk.make("eu", "admin", "shop/*")
    assert desk.ask("GET", "/v1/audit/verify", token=token).status_code == 403


@pytest.mark.parametrize("query", ["count=5", f"head={'0' * 64}", "count=5&head=xyz", "after=-1"])
def test_half_a_checkpoint_is_refused(desk: Desk, query: str) -> None:
    """Nothing is proved by what is not compared."""
    assert desk.ask("GET", f"/v1/audit/verify?{query}").status_code in (400, 422)


class _Broken(MemoryAudit):
    def checkpoint(self) -> ports.AuditCheckpoint:
        raise errors.StorageError("The disk is gone.")


@pytest.mark.parametrize(
    ("make", "said"), [(MemoryAudit, "audit checkpoint"), (_Broken, "audit checkpoint not known")]
)
def test_checkpoints_are_said_at_the_start_again_and_at_the_end(
    make: Callable[[], MemoryAudit], said: str
) -> None:
    """Whoever keeps the control plane's log elsewhere can prove later that nothing was cut off."""
    with capture_logs() as lines:
        checkpoints = audit.Checkpoints(make(), every_s=0.001)
        checkpoints.start()
        wait_for(lambda: len(lines) > 2)
        checkpoints.stop()
        last = len(lines)
        checkpoints.stop()
    assert {line["event"] for line in lines} == {said}
    assert len(lines) == last


@pytest.fixture
def forgotten() -> Iterator[None]:
    """How logs are made in this test is forgotten after it."""
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("forgotten")
def test_a_token_in_a_line_of_the_log_is_unreadable(capsys: pytest.CaptureFixture[str]) -> None:
    """Wherever it stands in what was logged."""
    token = f"tide_{'x' * 43}"
    telemetry.configure()
    telemetry.logger("test").error(f"with {token}", detail={"nested": [token]})
    line = capsys.readouterr().err
    assert token not in line
    assert json.loads(line)["detail"] == {"nested": ["tide_***"]}
    assert roles.redacted(line) == line

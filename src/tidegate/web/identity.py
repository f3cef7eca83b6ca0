"""Who asks, and what they may: identity by token or by the kernel's word, and the rule of every route.

Invariants: a route that is not in `ROUTES` is not there; a token that was sent counts, also where none is
needed, so that nobody falls back to more than they showed; no answer echoes a token.

Neighbours: `core.roles` says what an action needs, `peer` whom the kernel sees, `gate` asks both before every
handler; handlers ask for `Asking` (who), `By` (their name for the history) and `Noting` (what else the audit
entry shall say).
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Final

from fastapi import Depends, Request

from tidegate import errors, ports
from tidegate.core import roles
from tidegate.core.roles import Action, Asker
from tidegate.web import peer

#: A local admin may name whom they speak for, as a hook of `git push` does.
ON_BEHALF_OF: Final = "x-tidegate-for"

_TOKEN: Final = re.compile(rb"[Bb]earer (tide_[A-Za-z0-9_-]{43})")
_NAMED: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f]{1,100}")
#: Of the request's scope: only the gate puts it there.
KEY: Final = "tidegate.asked"


@dataclass(frozen=True, slots=True)
class Rule:
    """What a route asks of its asker."""

    action: Action
    by_handler: bool = False
    """The route names no app, and its handler looks at the scope; else it takes a scope of everything."""


_APP: Final = "/v1/apps/{app}"
_ENVIRONMENT: Final = _APP + "/environments/{environment}"

#: Every route of the API: what is not here is answered with 404, and a test finds it.
ROUTES: Final[Mapping[str, Rule]] = {
    "GET /openapi.json": Rule(Action.LOOK, by_handler=True),
    "GET /v1/status": Rule(Action.LOOK, by_handler=True),
    "GET /v1/findings": Rule(Action.LOOK),
    "GET /v1/audit": Rule(Action.READ_AUDIT, by_handler=True),
    "GET /v1/audit/verify": Rule(Action.READ_AUDIT),
    "GET /v1/tokens": Rule(Action.TOKENS),
    "POST /v1/tokens": Rule(Action.TOKENS),
    "DELETE /v1/tokens/{name}": Rule(Action.TOKENS),
    "POST /v1/backup": Rule(Action.BACKUP),
    "POST /v1/shutdown": Rule(Action.SHUTDOWN),
    "POST /v1/packages": Rule(Action.UPLOAD, by_handler=True),
    "GET /v1/packages/{digest}": Rule(Action.UPLOAD, by_handler=True),
    "POST /v1/releases": Rule(Action.ADD_RELEASE, by_handler=True),
    "POST /v1/releases/import": Rule(Action.ADD_RELEASE, by_handler=True),
    f"GET {_APP}/releases": Rule(Action.LOOK),
    f"GET {_APP}/releases/{{number}}": Rule(Action.LOOK),
    f"GET {_APP}/releases/{{number}}/proof": Rule(Action.UPLOAD),
    f"POST {_APP}/releases/{{number}}/repair": Rule(Action.UPLOAD),
    f"GET {_APP}/releases/{{number}}/export": Rule(Action.UPLOAD),
    f"GET {_ENVIRONMENT}/configuration": Rule(Action.LOOK),
    f"GET {_ENVIRONMENT}/secrets": Rule(Action.LOOK),
    f"PUT {_ENVIRONMENT}/secrets/{{name}}": Rule(Action.SECRETS),
    f"DELETE {_ENVIRONMENT}/secrets/{{name}}": Rule(Action.SECRETS),
    f"POST {_ENVIRONMENT}/secrets-key": Rule(Action.SECRETS),
    "GET /v1/keys": Rule(Action.LOOK),
    "POST /v1/keys": Rule(Action.KEYS),
    "POST /v1/keys/rotate": Rule(Action.KEYS),
    "DELETE /v1/keys/{name}": Rule(Action.KEYS),
    f"POST {_ENVIRONMENT}/deploy": Rule(Action.DEPLOY),
    f"POST {_ENVIRONMENT}/rollback": Rule(Action.ROLLBACK),
    f"POST {_ENVIRONMENT}/rollback-group": Rule(Action.ROLLBACK),
    f"POST {_ENVIRONMENT}/plan-rollback-group": Rule(Action.PLAN),
    f"POST {_ENVIRONMENT}/approve": Rule(Action.APPROVE),
    f"POST {_ENVIRONMENT}/withdraw": Rule(Action.ABORT),
    f"GET {_APP}/pipeline": Rule(Action.LOOK),
    f"GET {_APP}/promotions/{{promotion}}": Rule(Action.LOOK),
    f"POST {_ENVIRONMENT}/abort": Rule(Action.ABORT),
    f"POST {_ENVIRONMENT}/pause": Rule(Action.PAUSE),
    f"POST {_ENVIRONMENT}/resume": Rule(Action.RESUME),
    f"POST {_ENVIRONMENT}/promote": Rule(Action.PROMOTE),
    f"POST {_ENVIRONMENT}/plan": Rule(Action.PLAN),
    f"GET {_ENVIRONMENT}/schema": Rule(Action.LOOK),
    f"GET {_ENVIRONMENT}/schema/plan": Rule(Action.PLAN),
    f"POST {_ENVIRONMENT}/schema/resolve": Rule(Action.MIGRATE),
    f"POST {_ENVIRONMENT}/schema/adopt": Rule(Action.MIGRATE),
    f"GET {_ENVIRONMENT}": Rule(Action.LOOK),
    f"GET {_ENVIRONMENT}/history": Rule(Action.LOOK),
    f"GET {_ENVIRONMENT}/events": Rule(Action.LOOK),
    f"GET {_ENVIRONMENT}/preview": Rule(Action.PREVIEW),
    f"GET {_ENVIRONMENT}/logs": Rule(Action.READ_LOGS),
    f"GET {_ENVIRONMENT}/rollouts/{{rollout}}/points": Rule(Action.LOOK),
    f"GET {_ENVIRONMENT}/series": Rule(Action.LOOK),
    "GET /v1/sources": Rule(Action.LOOK, by_handler=True),
    "GET /v1/pushes": Rule(Action.LOOK, by_handler=True),
    f"GET {_APP}/source": Rule(Action.LOOK),
    f"PUT {_APP}/source": Rule(Action.SOURCES),
    f"DELETE {_APP}/source": Rule(Action.SOURCES),
    f"POST {_APP}/source/secret": Rule(Action.SOURCES),
    f"POST {_APP}/source/build": Rule(Action.DEPLOY),
    f"POST {_APP}/source/check": Rule(Action.LOOK),
    f"POST {_APP}/source/receive": Rule(Action.DEPLOY),
    f"GET {_APP}/pushes": Rule(Action.LOOK),
    f"GET {_APP}/pushes/{{push}}": Rule(Action.LOOK),
    f"GET {_APP}/pushes/{{push}}/output": Rule(Action.READ_LOGS),
}


@dataclass(slots=True, kw_only=True)
class Note:
    """What the audit entry of a request says beside who, which action and where: for the handler to fill."""

    app: str = ""
    environment: str = ""
    release: int | None = None
    detail: str = ""


@dataclass(slots=True, kw_only=True)
class Asked:
    """A request on its way, and what its entry will say."""

    asker: Asker
    note: Note
    problem: Mapping[str, Any] = field(default_factory=dict)


def _asked(request: Request) -> Asked:
    found = request.scope.get(KEY)
    if not isinstance(found, Asked):
        raise errors.UnauthenticatedError
    return found


def _asker(request: Request) -> Asker:
    return _asked(request).asker


def _by(request: Request) -> str:
    return _asked(request).asker.by


def _note(request: Request) -> Note:
    return _asked(request).note


#: For a handler: who asks.
Asking = Annotated[Asker, Depends(_asker)]
#: The same, as history shows it.
By = Annotated[str, Depends(_by)]
#: What else the audit entry shall say.
Noting = Annotated[Note, Depends(_note)]


def tell(request: Request, problem: Mapping[str, Any]) -> None:
    """The request ends with this problem: its entry will say why."""
    found = request.scope.get(KEY)
    if isinstance(found, Asked):
        found.problem = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """Whom to trust."""

    owner: int
    """User id of the control plane."""
    tokens: ports.Tokens
    now: Callable[[], float]

    def prove(self, headers: Sequence[tuple[bytes, bytes]], from_here: peer.Peer | None) -> Asker:
        """Who asks. Raises UnauthenticatedError, ForbiddenError, RequestError."""
        given = [value for name, value in headers if name == b"authorization"]
        # A token that was sent counts, also where none is needed: it may allow less.
        asker = self._of_token(given) if given else self._of_peer(from_here)
        named = [value for name, value in headers if name == ON_BEHALF_OF.encode()]
        return asker if not named else _on_behalf(asker, named)

    def _of_token(self, given: list[bytes]) -> Asker:
        found = _TOKEN.fullmatch(given[0])
        if found is None or len(given) > 1:
            raise errors.UnauthenticatedError(
                "What was sent is not a token of Tidegate.", hint="Put one into TIDEGATE_TOKEN."
            )
        digest = hashlib.sha256(found[1]).hexdigest()
        token = self.tokens.find(digest)
        if token is None:
            raise errors.UnauthenticatedError(
                "This token is not known here.", hint="An admin makes one with `tide token create`."
            )
        if token.revoked_at is not None:
            raise errors.UnauthenticatedError(
                f"The token {token.name} was revoked.",
                hint="An admin makes another with `tide token create`.",
            )
        now = self.now()
        if token.expires_at is not None and token.expires_at <= now:
            raise errors.UnauthenticatedError(
                f"The token {token.name} has expired.",
                hint="An admin makes another with `tide token create`.",
            )
        with contextlib.suppress(errors.TidegateError):  # a full disk keeps nobody from looking, or aborting
            self.tokens.used(token, at=now)
        return Asker(name=token.name, role=token.role, scope=token.scope, token_id=token.id)

    def _of_peer(self, found: peer.Peer | None) -> Asker:
        if found is None or found.uid not in (0, self.owner):
            raise errors.UnauthenticatedError(
                "The request does not prove who asks.",
                hint="Send a token: put it into TIDEGATE_TOKEN; an admin makes one with `tide token create`.",
            )
        return Asker(name=found.name, role=roles.Role.ADMIN)


def _on_behalf(asker: Asker, named: list[bytes]) -> Asker:
    asker.demand(Action.ON_BEHALF)
    text = named[0].decode("utf-8", "replace")
    if len(named) > 1 or not _NAMED.fullmatch(text):
        raise errors.RequestError("Whom the request is for is not a name of at most 100 characters.")
    return replace(asker, on_behalf_of=text)


@dataclass(frozen=True, slots=True)
class Found:
    """Which rule is meant, and where."""

    rule: Rule
    app: str | None
    environment: str | None

    def allow(self, asker: Asker) -> None:
        """Go on only if the asker may. Raises ForbiddenError."""
        if self.rule.by_handler:
            asker.demand_role(self.rule.action)
        else:
            asker.demand(self.rule.action, self.app, self.environment)


def _compiled() -> Iterator[tuple[str, re.Pattern[str], Rule]]:
    for route, rule in ROUTES.items():
        method, _, path = route.partition(" ")
        pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path))
        yield method, re.compile(pattern), rule


_COMPILED: Final = tuple(_compiled())


def find(method: str, path: str) -> Found | None:
    """The rule of a request; None: nothing is there."""
    for its_method, pattern, rule in _COMPILED:
        match = pattern.fullmatch(path) if its_method == method else None
        if match is not None:
            values = match.groupdict()
            return Found(rule, values.get("app"), values.get("environment"))
    return None

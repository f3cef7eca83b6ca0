"""Routes about tokens: make, list, revoke.

Invariant: the text of a token is made here, answered once, and kept nowhere. Neighbours: `store.tokens` keeps
what it allows, `identity` asks whose one is.
"""

from __future__ import annotations

import hashlib
import pwd
import secrets
from collections.abc import Callable

from fastapi import FastAPI, Response
from pydantic import BaseModel, ConfigDict, Field

from tidegate import errors, ports
from tidegate.core import roles
from tidegate.web import schemas
from tidegate.web.identity import Asking, Noting

#: 256 bits: nobody guesses one, so that its hash needs no salt and no stretching.
TOKEN_BYTES = 32
#: Names that history shows for something else.
TAKEN = ("tidegate",)
NAME = r"^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$"
EXPIRES_S_MAX = 10 * 366 * 24 * 3600.0


class NewToken(BaseModel):
    """What a token shall allow."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=NAME)
    role: roles.Role
    environments: list[str] = Field(default=["*/*"], min_length=1, max_length=100)
    expires_s: float | None = Field(default=None, gt=0, le=EXPIRES_S_MAX)


def add(app: FastAPI, tokens: ports.Tokens, now: Callable[[], float]) -> None:
    """Put the routes into the application."""

    @app.post("/v1/tokens", status_code=201)
    def create(body: NewToken, asker: Asking, note: Noting, response: Response) -> schemas.NewToken:
        _refuse_name(body.name)
        scope = tuple(sorted({roles.reach(text) for text in body.environments}, key=str))
        note.detail = f"token {body.name}, {body.role}, {', '.join(str(part) for part in scope)}"
        text = f"tide_{secrets.token_urlsafe(TOKEN_BYTES)}"
        at = now()
        token = ports.Token(
            id=0,
            name=body.name,
            role=body.role,
            scope=scope,
            created_at=at,
            created_by=asker.by,
            expires_at=None if body.expires_s is None else at + body.expires_s,
        )
        kept = tokens.add(token, hashlib.sha256(text.encode()).hexdigest())
        response.headers["Cache-Control"] = "no-store"
        return schemas.NewToken(token=text, about=_shown(kept))

    @app.get("/v1/tokens")
    def every() -> list[schemas.Token]:
        return [_shown(token) for token in tokens.all()]

    @app.delete("/v1/tokens/{name}")
    def revoke(name: str, asker: Asking, note: Noting) -> schemas.Token:
        note.detail = f"token {name}"
        return _shown(tokens.revoke(name, by=asker.by, at=now()))


def _refuse_name(name: str) -> None:
    """History shows only names: one that could be another's would prove nothing, and a token is no name."""
    if roles.redacted(name) != name:
        raise errors.RequestError("That is a token, not a name for one.", hint="Name what it is for.")
    try:
        pwd.getpwnam(name)
    except KeyError:
        if name not in TAKEN:
            return
    raise errors.RequestError(
        f"{name} is a user of this machine, or Tidegate itself: history could not tell who it was.",
        hint="Choose another name, e.g. what the token is for.",
    )


def _shown(token: ports.Token) -> schemas.Token:
    return schemas.Token(
        id=token.id,
        name=token.name,
        role=token.role.value,
        environments=[str(part) for part in token.scope],
        created_at=token.created_at,
        created_by=token.created_by,
        expires_at=token.expires_at,
        used_at=token.used_at,
        revoked_at=token.revoked_at,
        revoked_by=token.revoked_by,
    )

"""Tokens in the store's own file: their SHA-256, and what they allow.

Hides rows. Invariants: the text of a token is never here; a name is one token's until that is revoked; what
was revoked stays so, and is kept, so that the history can say whose name that was; a row that was edited in
the database (another role, another scope, no longer revoked) is nobody's: each has a code, with a key that
is not there.

Neighbours: `audit_sql` has the statements, `web.tokens` makes the texts, `web.identity` asks whose one is.
"""

from __future__ import annotations

import hmac
from contextlib import suppress
from dataclasses import replace
from typing import Final

from tidegate import errors, ports
from tidegate.core import roles
from tidegate.store import audit_chain, audit_sql
from tidegate.store.sqlite import Row, SqliteStore

#: Of `used_at`: an entry per request would be a write per look.
COARSE_S: Final = 3600.0


class SqliteTokens:
    """`ports.Tokens` over a store. Threads may share it."""

    def __init__(self, store: SqliteStore, lease: ports.Lease, *, key: bytes) -> None:
        """`key`: that of the audit log."""
        self._store: Final = store
        self._lease: Final = lease
        self._key: Final = key

    def add(self, token: ports.Token, digest: str) -> ports.Token:
        row = {
            "digest": digest,
            "name": token.name,
            "role": token.role.value,
            "scope": _scope(token),
            "created_at": token.created_at,
            "created_by": token.created_by,
            "expires_at": token.expires_at,
        }
        with self._store.transaction(self._lease) as connection:
            if connection.execute(audit_sql.IN_FORCE, row).fetchall():
                raise errors.RequestError(
                    f"There is a token {token.name} already.",
                    hint=f"Revoke it with `tide token revoke {token.name}`, or choose another name.",
                )
            ((number,),) = connection.execute(audit_sql.ISSUE, row).fetchall()
            added = replace(token, id=number)
            connection.execute(audit_sql.SEAL, {"id": number, "mac": self._code(added, digest)})
        return added

    def find(self, digest: str) -> ports.Token | None:
        for *row, kept, mac in self._store.rows(audit_sql.FIND, {"digest": digest}):
            # The index has found it by a hash that nobody can choose; comparing takes as long for any other.
            if not hmac.compare_digest(kept, digest):
                continue
            name = str(row[1])
            with suppress(ValueError, TypeError, errors.RequestError):
                token = _token(tuple(row))
                if hmac.compare_digest(self._code(token, digest), mac):
                    return token
            raise errors.UnauthenticatedError(
                f"The token {name} was changed in the database: it counts no more.",
                hint="An admin makes another with `tide token create`, and looks at who can write there.",
            )
        return None

    def all(self) -> tuple[ports.Token, ...]:
        return tuple(_token(row) for row in self._store.rows(audit_sql.ISSUED, {}))

    def revoke(self, name: str, *, by: str, at: float) -> ports.Token:
        with self._store.transaction(self._lease) as connection:
            rows = connection.execute(audit_sql.IN_FORCE, {"name": name}).fetchall()
            if not rows:
                raise errors.NotFoundError(
                    f"There is no token {name}, or it was revoked before.",
                    hint="`tide token list` shows them.",
                )
            token = _token(rows[0][:-2])
            revoked = replace(token, revoked_at=at, revoked_by=by)
            mac = self._code(revoked, rows[0][-2])
            connection.execute(audit_sql.REVOKE, {"id": token.id, "at": at, "by": by, "mac": mac})
        return revoked

    def used(self, token: ports.Token, *, at: float) -> None:
        hour = at - at % COARSE_S
        if token.used_at is not None and token.used_at >= hour:
            return
        with self._store.transaction(self._lease) as connection:
            connection.execute(audit_sql.USE, {"id": token.id, "at": hour})

    def _code(self, token: ports.Token, digest: str) -> bytes:
        """Of all that matters in its row."""
        values = (
            digest,
            token.name,
            token.role.value,
            _scope(token),
            token.created_at,
            token.created_by,
            token.expires_at,
            token.revoked_at,
        )
        return audit_chain.code(self._key, b"token", token.id, values)


def _scope(token: ports.Token) -> str:
    return " ".join(str(part) for part in token.scope)


def _token(row: Row) -> ports.Token:
    number, name, role, scope, created_at, created_by, expires_at, used_at, revoked_at, revoked_by = row
    return ports.Token(
        id=number,
        name=name,
        role=roles.Role(role),
        scope=tuple(roles.reach(part) for part in scope.split()),
        created_at=created_at,
        created_by=created_by,
        expires_at=expires_at,
        used_at=used_at,
        revoked_at=revoked_at,
        revoked_by=revoked_by,
    )

"""What every audit log and every keeper of tokens promises: the fakes, and the ones in the state's file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tidegate import ports
from tidegate.store.audit import SqliteAudit
from tidegate.store.sqlite import SqliteStore
from tidegate.store.tokens import SqliteTokens
from tidegate.testing import audit

KEY = b"k" * 32


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(tmp_path / "state.db", ballast_bytes=0)
    yield opened
    opened.close()


@pytest.fixture(params=["memory", "sqlite"])
def log(request: pytest.FixtureRequest, store: SqliteStore, tmp_path: Path) -> ports.AuditLog:
    if request.param == "memory":
        return audit.MemoryAudit()
    lease = store.acquire("test", ttl_s=60)
    return SqliteAudit(store, lease, key=KEY, checkpoint=tmp_path / "audit.checkpoint")


@pytest.fixture(params=["memory", "sqlite"])
def tokens(request: pytest.FixtureRequest, store: SqliteStore) -> ports.Tokens:
    if request.param == "memory":
        return audit.MemoryTokens()
    return SqliteTokens(store, store.acquire("test", ttl_s=60), key=KEY)


@pytest.mark.parametrize("check", audit.AUDIT_CHECKS, ids=lambda check: check.__name__)
def test_every_audit_log(check: Callable[[ports.AuditLog], None], log: ports.AuditLog) -> None:
    """The fake log and the real one keep the same promises."""
    check(log)


@pytest.mark.parametrize("check", audit.TOKENS_CHECKS, ids=lambda check: check.__name__)
def test_every_keeper_of_tokens(check: Callable[[ports.Tokens], None], tokens: ports.Tokens) -> None:
    """The fake keeper and the real one keep the same promises."""
    check(tokens)

"""The audit log and tokens in memory; and what every implementation of the two ports promises.

    @pytest.mark.parametrize("check", audit.AUDIT_CHECKS, ids=lambda check: check.__name__)
    def test_audit(check, make): check(make())

The fake log is no proof of anything: whoever has the process can change it. What chains and finds is tested
on the real one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from tidegate import errors, ports
from tidegate.core import roles


class MemoryAudit:
    """`ports.AuditLog` in a list."""

    def __init__(self) -> None:
        self.entries: Final[list[ports.AuditEntry]] = []
        self.failing: errors.TidegateError | None = None
        """What every append raises, as a full disk would."""

    def append(self, entry: ports.AuditEntry) -> int:
        if self.failing is not None:
            raise self.failing
        self.entries.append(entry)
        return len(self.entries)

    def records(self, wanted: ports.AuditWanted, *, limit: int) -> tuple[ports.AuditRecord, ...]:
        answered = {entry.of for entry in self.entries}
        found = [
            ports.AuditRecord(sequence=number, entry=entry)
            for number, entry in enumerate(self.entries, 1)
            if number < wanted.before
            and wanted.app in ("", entry.app)
            and wanted.environment in ("", entry.environment)
            and (wanted.by in ("", entry.by) or entry.by.startswith(f"{wanted.by} for "))
            and wanted.outcome in ("", entry.outcome)
            and not (entry.outcome == "asked" and number in answered)
        ]
        return tuple(reversed(found))[:limit]

    def checkpoint(self) -> ports.AuditCheckpoint:
        return ports.AuditCheckpoint(count=len(self.entries), head="00" * 32)

    def verify(self, *, after: int = 0, known: ports.AuditCheckpoint | None = None) -> ports.AuditProof:
        return ports.AuditProof(checkpoint=self.checkpoint(), faults=())


class MemoryTokens:
    """`ports.Tokens` in a dictionary."""

    def __init__(self) -> None:
        self._tokens: Final[dict[str, ports.Token]] = {}

    def add(self, token: ports.Token, digest: str) -> ports.Token:
        if any(other.name == token.name and other.revoked_at is None for other in self._tokens.values()):
            raise errors.RequestError(f"There is a token {token.name} already.")
        self._tokens[digest] = replace(token, id=len(self._tokens) + 1)
        return self._tokens[digest]

    def find(self, digest: str) -> ports.Token | None:
        return self._tokens.get(digest)

    def all(self) -> tuple[ports.Token, ...]:
        return tuple(reversed(self._tokens.values()))

    def revoke(self, name: str, *, by: str, at: float) -> ports.Token:
        for digest, token in self._tokens.items():
            if token.name == name and token.revoked_at is None:
                self._tokens[digest] = replace(token, revoked_at=at, revoked_by=by)
                return self._tokens[digest]
        raise errors.NotFoundError(f"There is no token {name}, or it was revoked before.")

    def used(self, token: ports.Token, *, at: float) -> None:
        for digest, other in self._tokens.items():
            if other.id == token.id:
                self._tokens[digest] = replace(other, used_at=at - at % 3600)


# --- what every audit log promises -------------------------------------------------------------------


def entry(**about: object) -> ports.AuditEntry:
    """An entry, with what matters to the caller."""
    plain = ports.AuditEntry(at=1_800_000_000.5, by="ada", role="admin", action="deploy", outcome="accepted")
    return replace(plain, **about)  # type: ignore[arg-type]


def check_numbers_are_given_from_one_on(log: ports.AuditLog) -> None:
    """The first is 1, and the newest is shown first."""
    _equal([log.append(entry(release=number)) for number in (4, 5, 6)], [1, 2, 3])
    shown = log.records(ports.AuditWanted(), limit=2)
    _equal([(record.sequence, record.entry.release) for record in shown], [(3, 6), (2, 5)])


def check_an_entry_comes_back_as_it_was(log: ports.AuditLog) -> None:
    """Every field, whatever stands in it."""
    whole = entry(
        app="shop",
        environment="production",
        release=7,
        outcome="refused",
        reason="forbidden",
        detail="sea — 潮 'quoted'\n; drop table audit",
        token=3,
    )
    log.append(whole)
    (record,) = log.records(ports.AuditWanted(), limit=9)
    _equal(record.entry, whole)


def check_what_was_answered_is_shown_once(log: ports.AuditLog) -> None:
    """The answer stands for both; what has none is shown, because nobody knows how it ended."""
    asked = log.append(entry(outcome="asked"))
    log.append(entry(outcome="asked", action="abort"))
    log.append(entry(of=asked))
    shown = [(r.entry.action, r.entry.outcome) for r in log.records(ports.AuditWanted(), limit=9)]
    _equal(shown, [("deploy", "accepted"), ("abort", "asked")])


def check_only_what_is_wanted_is_shown(log: ports.AuditLog) -> None:
    """By app, environment, name (also of whom it was for), outcome, and number."""
    log.append(entry(app="shop", environment="test"))
    log.append(entry(app="blog", environment="production", by="ada for bob"))
    log.append(entry(app="shop", environment="production", by="adam", outcome="refused"))
    for wanted, numbers in (
        (ports.AuditWanted(app="shop"), [3, 1]),
        (ports.AuditWanted(environment="production"), [3, 2]),
        (ports.AuditWanted(by="ada"), [2, 1]),
        (ports.AuditWanted(outcome="refused"), [3]),
        (ports.AuditWanted(before=3), [2, 1]),
        (ports.AuditWanted(app="shop", environment="test", by="adam"), []),
    ):
        _equal([record.sequence for record in log.records(wanted, limit=9)], numbers)


def check_an_untouched_log_is_proved(log: ports.AuditLog) -> None:
    """Empty or not, nothing is wrong with it."""
    _equal(log.verify(), ports.AuditProof(checkpoint=log.checkpoint(), faults=()))
    for _ in range(3):
        log.append(entry())
    known = log.checkpoint()
    log.append(entry())
    proof = log.verify(known=known)
    _equal((proof.checkpoint, proof.faults), (log.checkpoint(), ()))
    _equal((known.count, proof.checkpoint.count), (3, 4))
    _equal(len(proof.checkpoint.head), 64)


AUDIT_CHECKS: Final[tuple[Callable[[ports.AuditLog], None], ...]] = (
    check_numbers_are_given_from_one_on,
    check_an_entry_comes_back_as_it_was,
    check_what_was_answered_is_shown_once,
    check_only_what_is_wanted_is_shown,
    check_an_untouched_log_is_proved,
)


# --- what every keeper of tokens promises ------------------------------------------------------------

DIGEST: Final = "7" * 64


def token(name: str = "ci") -> ports.Token:
    """A token for one environment."""
    return ports.Token(
        id=0,
        name=name,
        role=roles.Role.DEPLOYER,
        scope=(roles.Reach("shop", "*"), roles.Reach("*", "test")),
        created_at=1_800_000_000.25,
        created_by="ada",
        expires_at=1_800_003_600.0,
    )


def check_a_token_is_found_by_its_digest_only(tokens: ports.Tokens) -> None:
    """As it was added, under a number of its own."""
    kept = tokens.add(token(), DIGEST)
    _equal(kept, replace(token(), id=kept.id))
    _equal(tokens.find(DIGEST), kept)
    _equal(tokens.find("8" * 64), None)
    _equal(tokens.add(token("other"), "9" * 64).id != kept.id, wanted=True)


def check_a_name_is_one_tokens_until_it_is_revoked(tokens: ports.Tokens) -> None:
    """Two tokens of one name at a time would make history ambiguous."""
    first = tokens.add(token(), DIGEST)
    try:
        tokens.add(token(), "8" * 64)
    except errors.RequestError:
        tokens.revoke("ci", by="bob", at=5.0)
    second = tokens.add(token(), "9" * 64)
    _equal([known.id for known in tokens.all()], [second.id, first.id])


def check_a_revoked_token_stays_revoked(tokens: ports.Tokens) -> None:
    """It is still found, so that its refusal can say why; it cannot be revoked again."""
    tokens.add(token(), DIGEST)
    revoked = tokens.revoke("ci", by="bob", at=5.0)
    _equal((revoked.revoked_at, revoked.revoked_by), (5.0, "bob"))
    _equal(tokens.find(DIGEST), revoked)
    try:
        tokens.revoke("ci", by="eve", at=6.0)
    except errors.NotFoundError:
        return
    raise AssertionError("it was revoked twice")


def check_its_last_use_is_known_to_the_hour(tokens: ports.Tokens) -> None:
    """Not finer: that would be a write for every request."""
    kept = tokens.add(token(), DIGEST)
    _equal(kept.used_at, None)
    tokens.used(kept, at=7250.0)
    _equal(tokens.find(DIGEST), replace(kept, used_at=7200.0))


TOKENS_CHECKS: Final[tuple[Callable[[ports.Tokens], None], ...]] = (
    check_a_token_is_found_by_its_digest_only,
    check_a_name_is_one_tokens_until_it_is_revoked,
    check_a_revoked_token_stays_revoked,
    check_its_last_use_is_known_to_the_hour,
)


def _equal(found: object, wanted: object) -> None:
    if found != wanted:
        raise AssertionError(f"found {found!r}, wanted {wanted!r}")

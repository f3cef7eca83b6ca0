"""The audit log and the tokens in a real file: who edits it is found, and a full disk lets nothing pass."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.store.test_disk import fill, small_disk
from tidegate import errors, ports
from tidegate.core import roles
from tidegate.store.audit import SqliteAudit
from tidegate.store.sqlite import SqliteStore
from tidegate.store.tokens import SqliteTokens
from tidegate.testing.audit import DIGEST, entry, token

__all__ = ["small_disk"]  # a fixture

KEY = b"k" * 32
#: Puts entry 22 after entry 20.
SKIPPING = """
    insert into audit
    select 22, at, asker, role, token, action, app, environment, release, outcome, reason, detail, answers,
        mac
    from audit where sequence = 5
"""
#: Of a text that somebody else has.
OTHER_DIGEST = "8" * 64
FORGED = """
    insert into tokens (digest, name, role, scope, created_at, created_by)
    select replace(digest, '7', '8'), 'eve', 'admin', '*/*', 0, 'root' from tokens
"""
TRIGGERS = ("audit_next", "audit_no_update", "audit_no_delete")


class Kept:
    """A log of 20 entries in a file that others can edit."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "state.db"
        self.checkpoint = folder / "audit.checkpoint"
        self.open()
        for number in range(1, 21):
            self.log.append(entry(app="shop", release=number, detail=f"the {number}th"))

    def open(self) -> None:
        self.store = SqliteStore(self.path, ballast_bytes=0)
        self.lease = self.store.acquire("test", ttl_s=60)
        self.log = SqliteAudit(
            self.store, self.lease, key=KEY, checkpoint=self.checkpoint, now=lambda: 1_800_000_001.0
        )
        self.tokens = SqliteTokens(self.store, self.lease, key=KEY)

    def append_for_ever(self) -> None:
        while True:
            self.log.append(entry(detail="x" * 4000))

    def edit(self, *statements: str) -> None:
        """As somebody would who has the file and knows SQL."""
        with closing(sqlite3.connect(self.path)) as connection:
            for trigger in TRIGGERS:
                connection.execute(f"drop trigger if exists {trigger}")
            for statement in statements:
                connection.execute(statement)
            connection.commit()

    @property
    def faults(self) -> list[tuple[str, int, int]]:
        return [(fault.what, fault.first, fault.last) for fault in self.log.verify().faults]


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(tmp_path)
    yield made
    made.store.close()


@pytest.mark.parametrize(
    "statement",
    [
        "update audit set detail = 'nothing' where sequence = 5",
        "update audit set mac = zeroblob(32)",
        "delete from audit where sequence = 20",
        "insert or replace into audit select * from audit where sequence = 5",
        SKIPPING,
    ],
    ids=["update", "forge", "delete", "replace", "gap"],
)
def test_sql_can_only_append(kept: Kept, statement: str) -> None:
    """Who is honest, or careless, is refused by the table itself."""
    with closing(sqlite3.connect(kept.path)) as connection, pytest.raises(sqlite3.IntegrityError):
        connection.execute(statement)
    assert kept.faults == []


@pytest.mark.parametrize(
    ("statement", "fault"),
    [
        ("update audit set asker = 'eve' where sequence = 5", ("changed", 5, 5)),
        ("update audit set at = at + 0.001 where sequence = 1", ("changed", 1, 1)),
        ("update audit set release = null where sequence = 20", ("changed", 20, 20)),
        ("update audit set detail = cast(x'ff00fe' as text) where sequence = 7", ("changed", 7, 7)),
        ("update audit set mac = x'' where sequence = 5", ("changed", 5, 5)),
        ("delete from audit where sequence between 5 and 7", ("missing", 5, 7)),
        ("delete from audit where sequence = 1", ("missing", 1, 1)),
        ("delete from audit where sequence > 15", ("cut", 16, 20)),
        ("delete from audit", ("cut", 1, 20)),
    ],
    ids=["who", "when", "what", "no text", "code", "some", "first", "last", "all"],
)
def test_an_edit_around_the_triggers_is_named(
    kept: Kept, statement: str, fault: tuple[str, int, int]
) -> None:
    """Which entry, and what was done to it."""
    kept.edit(statement)
    assert kept.faults == [fault]


def test_an_edited_byte_of_the_file_is_named(kept: Kept) -> None:
    """Without SQL: in the database's own pages, while no control plane runs."""
    kept.store.close()
    content = bytearray(kept.path.read_bytes())
    assert content.count(b"the 13th") == 1
    content[content.index(b"the 13th") + 4] ^= 1
    kept.path.write_bytes(content)
    kept.open()
    assert kept.faults == [("changed", 13, 13)]


def test_a_log_that_was_cut_says_so_when_it_goes_on(kept: Kept) -> None:
    """To write more does not hide it: neither while the control plane runs, nor after its next start."""
    kept.edit("delete from audit where sequence > 15")
    assert kept.log.append(entry()) == 17
    assert kept.faults == [("noted", 16, 16)]
    kept.store.close()
    kept.edit("delete from audit where sequence > 12")
    kept.open()
    kept.log.append(entry())
    assert kept.faults == [("noted", 13, 13)]
    (noted,) = kept.log.records(ports.AuditWanted(outcome="found"), limit=9)
    assert noted.entry.detail == (
        "The audit log was changed: the log went on to entry 17, and now ends with entry 12."
    )
    assert kept.log.verify(after=13).faults == ()


def test_a_log_that_was_cut_and_filled_up_again_is_found(kept: Kept) -> None:
    """As many entries as before, but not those."""
    kept.store.close()
    old = kept.path.read_bytes()
    kept.open()
    for _ in range(3):
        kept.log.append(entry())
    kept.store.close()
    checkpoint = kept.checkpoint.read_bytes()
    kept.path.write_bytes(old)
    kept.checkpoint.unlink()
    kept.open()
    for _ in range(5):
        kept.log.append(entry(by="eve"))
    kept.checkpoint.write_bytes(checkpoint)
    assert kept.faults == [("checkpoint", 23, 23)]


def test_a_checkpoint_that_was_kept_elsewhere_is_compared(kept: Kept) -> None:
    """Who has the folder with the keys too cannot cut off what somebody else has noted."""
    noted = kept.log.checkpoint()
    kept.log.append(entry())
    assert kept.log.verify(known=noted).faults == ()
    kept.edit("delete from audit where sequence > 18")
    kept.checkpoint.unlink()
    faults = kept.log.verify(known=noted).faults
    assert [(fault.what, fault.first, fault.last) for fault in faults] == [
        ("checkpoint", 18, 18),
        ("cut", 19, 20),
    ]


@pytest.mark.parametrize("text", ["", "nonsense", "[]", "{}"])
def test_a_checkpoint_that_is_none_is_a_fault(kept: Kept, text: str) -> None:
    """Whoever takes it away could have cut the log."""
    kept.checkpoint.write_text(text)
    assert kept.faults == [("checkpoint", 20, 20)]


def test_a_checkpoint_cannot_be_made_without_the_key(kept: Kept) -> None:
    """One that says less than was seen is none."""
    kept.edit("delete from audit where sequence > 15")
    said = json.loads(kept.checkpoint.read_text())
    head = kept.log.checkpoint().head
    kept.checkpoint.write_text(json.dumps({**said, "count": 15, "head": head}))
    assert kept.faults == [("checkpoint", 15, 15)]


def test_a_checkpoint_may_lag_behind(kept: Kept) -> None:
    """A power cut between an entry and its checkpoint is no fault, and the next entry mends it."""
    before = kept.checkpoint.read_bytes()
    kept.log.append(entry())
    kept.store.close()
    kept.checkpoint.write_bytes(before)
    kept.open()
    assert kept.faults == []
    kept.log.append(entry())
    assert kept.faults == []
    assert json.loads(kept.checkpoint.read_text())["count"] == 22


def test_threads_append_without_a_gap(kept: Kept) -> None:
    """Each gets a number of its own, and every entry is bound to the one before."""
    numbers: list[int] = []

    def writing() -> None:
        numbers.extend(kept.log.append(entry()) for _ in range(25))

    threads = [threading.Thread(target=writing) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(21, 121))
    assert kept.faults == []


def test_a_control_plane_that_lost_its_lease_writes_nothing(kept: Kept) -> None:
    """What another one writes stays in one piece."""
    kept.store.acquire("test", ttl_s=60)
    with pytest.raises(errors.FencedError):
        kept.log.append(entry())
    assert kept.log.checkpoint().count == 20


@pytest.mark.real
def test_a_full_disk_refuses_an_entry_and_keeps_the_log_whole(small_disk: Path) -> None:
    """What was refused is not there, not even in part; with room it goes on."""
    made = Kept(small_disk)
    filler = small_disk / "filler"
    fill(filler)
    with pytest.raises(errors.StorageError, match="is full"):
        made.append_for_ever()
    count = made.log.checkpoint().count
    assert made.faults == []
    filler.unlink()
    assert made.log.append(entry()) == count + 1
    assert made.faults == []
    made.store.close()


# --- tokens --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "update tokens set role = 'admin'",
        "update tokens set scope = '*/*'",
        "update tokens set expires_at = null",
        "update tokens set revoked_at = null, revoked_by = ''",
        "update tokens set name = 'other'",
        "update tokens set role = 'emperor'",
        "update tokens set scope = 'Everything'",
        "update tokens set mac = x''",
        "update tokens set digest = replace(digest, '7', '8')",
        FORGED,
    ],
    ids=["role", "scope", "expiry", "revoked", "name", "no role", "no scope", "code", "digest", "new"],
)
def test_a_token_that_was_edited_in_the_database_is_nobodys(kept: Kept, statement: str) -> None:
    """Who can write there cannot give anybody a role, nor take back that a token was revoked."""
    kept.tokens.add(token(), DIGEST)
    if "revoked" in statement:
        kept.tokens.revoke("ci", by="ada", at=5.0)
    kept.edit(statement)
    with pytest.raises(errors.UnauthenticatedError, match="was changed in the database"):
        kept.tokens.find(OTHER_DIGEST if "replace(" in statement else DIGEST)


def test_a_token_survives_its_use_and_the_next_start(kept: Kept) -> None:
    """Its last use is no part of what it allows."""
    added = kept.tokens.add(token(), DIGEST)
    kept.tokens.used(added, at=7250.0)
    kept.store.close()
    kept.open()
    found = kept.tokens.find(DIGEST)
    assert found is not None
    assert (found.role, found.used_at) == (roles.Role.DEPLOYER, 7200.0)

"""The store's file: private, upgraded with a copy, never mistaken, backed up whole."""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tidegate import errors, ports
from tidegate.core import model
from tidegate.store import doctor, files, schema, sql, sqlite

KEY = model.EnvironmentKey(app="shop", environment="production")
EVENT = model.Event(reason=model.Reason.READY)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "tidegate.db"


@pytest.fixture
def store(path: Path) -> Iterator[sqlite.SqliteStore]:
    with closing(sqlite.SqliteStore(path, ballast_bytes=8192)) as opened:
        yield opened


def commit(store: sqlite.SqliteStore, next_id: int) -> ports.Versioned:
    lease = store.acquire("control plane", ttl_s=60.0)
    state = model.EnvironmentState(key=KEY, next_id=next_id)
    return store.commit(lease, store.load(KEY), state, (EVENT,), at=1.0)


def execute(path: Path, *statements: str) -> None:
    """Be an SQLite shell."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def content(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(path.parent.iterdir()) if file.suffix == ".db"}


def test_state_outlives_the_process(path: Path) -> None:
    """What was committed is there when the file is opened again."""
    with closing(sqlite.SqliteStore(path, ballast_bytes=0)) as store:
        committed = commit(store, 7)
    with closing(sqlite.SqliteStore(path, ballast_bytes=0)) as store:
        assert store.load(KEY) == committed
        assert [record.event for record in store.events(KEY)] == [EVENT]


def test_files_are_private_whatever_the_umask(path: Path) -> None:
    """All that the store makes is for its owner only, also under a umask that forgets that."""
    umask = os.umask(0)
    try:
        with closing(sqlite.SqliteStore(path, ballast_bytes=8192)) as store:
            commit(store, 1)
            store.backup(path.with_name("backup.db"))
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    finally:
        os.umask(umask)
    assert set(modes.values()) == {0o600}
    suffixes = ("", "-shm", "-wal", ".ballast", ".lock")
    assert set(modes) == {f"tidegate.db{suffix}" for suffix in suffixes} | {"backup.db"}


def test_same_process_cannot_open_it_twice(store: sqlite.SqliteStore, path: Path) -> None:
    """A second store upon the same file is refused, and the first is none the worse."""
    with pytest.raises(errors.LeaseHeldError, match=f"in use by process {os.getpid()}"):
        sqlite.SqliteStore(path)
    commit(store, 1)


def test_lease_of_a_former_process_is_nobodys(path: Path) -> None:
    """A lease found at the opening is free, though another boot's clock would still date it far ahead."""
    with closing(sqlite.SqliteStore(path, clock=lambda: 1e6, ballast_bytes=0)) as store:
        store.acquire("first", ttl_s=60.0)
    with closing(sqlite.SqliteStore(path, clock=lambda: 1.0, ballast_bytes=0)) as store:
        assert store.acquire("second", ttl_s=60.0).epoch == 2
        with pytest.raises(errors.LeaseHeldError):
            store.acquire("third", ttl_s=60.0)


def test_default_clock_is_that_of_the_machine(store: sqlite.SqliteStore) -> None:
    """Without a clock of a test, a lease is held against others by the time of the machine."""
    store.acquire("first", ttl_s=60.0)
    with pytest.raises(errors.LeaseHeldError, match=r"in use by first for another (59|60) s"):
        store.acquire("second", ttl_s=60.0)


@pytest.mark.parametrize("statement", ["update events set record = ''", "delete from events"])
def test_history_of_events_cannot_be_changed(store: sqlite.SqliteStore, path: Path, statement: str) -> None:
    """Not even an SQLite shell changes or removes an event by mistake."""
    commit(store, 1)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"):
        execute(path, statement)
    assert len(store.events(KEY)) == 1


def test_reads_go_on_beside_writes(store: sqlite.SqliteStore) -> None:
    """Threads that read see whole commits only, while another writes."""
    lease = store.acquire("control plane", ttl_s=60.0)
    done = threading.Event()
    torn: list[ports.Versioned] = []
    reads = [0, 0]

    def read(number: int) -> None:
        while not done.is_set():
            versioned = store.load(KEY)
            reads[number] += 1
            if versioned.version and versioned.state.next_id != versioned.version:
                torn.append(versioned)

    readers = [threading.Thread(target=read, args=(number,)) for number in range(2)]
    for reader in readers:
        reader.start()
    try:
        for version in range(1, 101):
            state = model.EnvironmentState(key=KEY, next_id=version)
            store.commit(lease, store.load(KEY), state, (), at=1.0)
    finally:
        done.set()
        for reader in readers:
            reader.join()
    assert not torn
    assert all(reads)
    assert store.load(KEY).version == 100


def test_closed_store_says_so(path: Path) -> None:
    """Reading and writing after the end are refusals, not crashes; closing twice is nothing."""
    store = sqlite.SqliteStore(path, ballast_bytes=0)
    store.close()
    store.close()
    with pytest.raises(errors.StoreError, match="was closed"):
        store.load(KEY)
    with pytest.raises(errors.StoreError):
        store.acquire("control plane", ttl_s=1.0)


def test_hostile_values_are_refused(store: sqlite.SqliteStore) -> None:
    """Numbers too large for the database and texts without UTF-8 are the caller's mistake."""
    with pytest.raises(errors.RequestError):
        store.release("shop", 2**70)
    with pytest.raises(errors.RequestError):
        store.releases("\ud800")
    assert store.releases("'; drop table releases; --") == ()
    assert store.events(KEY, after=-1, limit=-1) == ()


# --- files that are not as expected ----------------------------------------------------------------------


def test_database_of_another_program_is_left_alone(path: Path) -> None:
    """A file that another program made is refused and stays as it was."""
    path.parent.mkdir(mode=0o700)
    execute(path, "create table invoices (number integer)")
    before = content(path)
    with pytest.raises(errors.StorageError, match="database of another program"):
        sqlite.SqliteStore(path)
    assert content(path) == before


def test_file_that_is_no_database_is_left_alone(path: Path) -> None:
    """A file that is not SQLite's is refused as damaged and stays as it was."""
    path.parent.mkdir(mode=0o700)
    path.write_bytes(b"once upon a time " * 1000)
    before = content(path)
    with pytest.raises(errors.StorageError, match="is damaged"):
        sqlite.SqliteStore(path)
    assert content(path) == before


def test_damaged_page_is_reported(path: Path) -> None:
    """A database that the disk has damaged is an error of the storage when it is read, and for the doctor."""
    with closing(sqlite.SqliteStore(path, ballast_bytes=0)) as store:
        for next_id in range(1, 40):
            commit(store, next_id)
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * (path.stat().st_size - 8192))
    with (
        pytest.raises(errors.StorageError, match="is damaged"),
        closing(sqlite.SqliteStore(path, ballast_bytes=0)) as store,
    ):
        store.events(KEY, limit=1000)


@pytest.mark.parametrize(
    "statement",
    [
        f"pragma user_version = {len(sql.STEPS) + 1}",
        "update environments set schema = schema + 1",
    ],
    ids=["schema-of-the-database", "schema-of-a-record"],
)
def test_newer_state_is_left_alone(path: Path, statement: str) -> None:
    """A state that a newer Tidegate wrote is refused at the start, before anything is changed."""
    with closing(sqlite.SqliteStore(path, ballast_bytes=0)) as store:
        commit(store, 1)
    execute(path, statement)
    before = content(path)
    with pytest.raises(errors.NewerStateError, match="a newer Tidegate wrote"):
        sqlite.SqliteStore(path)
    assert content(path) == before


# --- upgrades and copies ---------------------------------------------------------------------------------

NEXT_STEPS = (*sql.STEPS, ("alter table releases add column note text not null default ''",))


def test_upgrade_keeps_a_copy_of_what_was(path: Path) -> None:
    """Before its first step an upgrade copies the database whole; the data is in both."""
    with closing(sqlite.SqliteStore(path, ballast_bytes=0)) as store:
        commit(store, 7)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        schema.upgrade(connection, NEXT_STEPS, path)
        assert schema.version(connection, NEXT_STEPS, path) == len(NEXT_STEPS)
        assert connection.execute("select version from environments").fetchall() == [(1,)]
    backup = path.with_name(f"tidegate.backup-{len(sql.STEPS)}.db")
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    with closing(sqlite.SqliteStore(backup, ballast_bytes=0)) as store:
        assert store.load(KEY).state.next_id == 7
    with pytest.raises(errors.NewerStateError):
        sqlite.SqliteStore(path)


def test_upgrade_that_fails_leaves_the_version_before(path: Path) -> None:
    """A step that fails is undone whole, and the release before still opens the file."""
    with closing(sqlite.SqliteStore(path, ballast_bytes=0)) as store:
        commit(store, 7)
    broken = (*sql.STEPS, ("create table half (x integer) strict", "alter table nothing add column x"))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        with pytest.raises(sqlite3.OperationalError):
            schema.upgrade(connection, broken, path)
        assert connection.execute("select 1 from sqlite_master where name = 'half'").fetchall() == []
    with closing(sqlite.SqliteStore(path, ballast_bytes=0)) as store:
        assert store.load(KEY).state.next_id == 7


def test_new_file_needs_no_copy(store: sqlite.SqliteStore, path: Path) -> None:
    """The first opening upgrades from nothing, and copies nothing."""
    assert list(content(path)) == ["tidegate.db"]


def test_backup_is_a_whole_state(store: sqlite.SqliteStore, tmp_path: Path) -> None:
    """A backup opens like the state it was made from, also when it replaces an older one."""
    target = tmp_path / "backup" / "today.db"
    target.parent.mkdir(mode=0o700)
    commit(store, 6)
    store.backup(target)
    committed = commit(store, 7)
    store.backup(target)
    assert [file.name for file in target.parent.iterdir()] == ["today.db"]
    with closing(sqlite.SqliteStore(target, ballast_bytes=0)) as copied:
        assert copied.load(KEY) == committed


@pytest.mark.parametrize("suffix", sqlite.OWN_SUFFIXES)
def test_backup_upon_the_state_itself_is_refused(store: sqlite.SqliteStore, path: Path, suffix: str) -> None:
    """A backup may not take the name of a file that the state is made of."""
    commit(store, 7)
    with pytest.raises(errors.RequestError, match="belongs to the state itself"):
        store.backup(path.parent / ".." / path.parent.name / f"{path.name}{suffix}")
    assert store.load(KEY).state.next_id == 7


def test_backup_into_nowhere_is_refused(store: sqlite.SqliteStore, tmp_path: Path) -> None:
    """A folder that is not there is the machine's fault, and said so."""
    with pytest.raises(errors.StorageError, match=r"could not be written: .*No such file"):
        store.backup(tmp_path / "nowhere" / "backup.db")


# --- doctor ----------------------------------------------------------------------------------------------


def test_check_finds_a_fresh_state_in_order(store: sqlite.SqliteStore) -> None:
    """A new state on a good disk has nothing to complain of, and is as durable as promised."""
    findings = {finding.name: finding for finding in store.check()}
    assert [finding for finding in findings.values() if not finding.ok] == []
    assert findings["state: durability"].detail == "every commit is on the disk when acknowledged"


def test_check_finds_what_others_can_read(store: sqlite.SqliteStore, path: Path) -> None:
    """A file that was opened to others is named, with the command that closes it."""
    path.chmod(0o644)
    finding = next(finding for finding in store.check() if finding.name == "state: privacy")
    assert (finding.ok, str(path) in finding.detail, "chmod" in finding.hint) == (False, True, True)


def test_check_finds_the_missing_reserve(store: sqlite.SqliteStore, path: Path) -> None:
    """A state without its ballast is told how to get it back; the next commit brings it."""
    path.with_name("tidegate.db.ballast").unlink()
    finding = next(finding for finding in store.check() if finding.name == "state: room")
    assert (finding.ok, "Free" in finding.hint) == (False, True)
    commit(store, 1)
    assert all(finding.ok for finding in store.check())


@pytest.mark.parametrize(("version", "warns"), [((3, 51, 2), True), ((3, 51, 3), False), ((3, 40, 1), True)])
def test_check_warns_of_the_wal_reset_bug(version: tuple[int, int, int], warns: bool) -> None:
    """Before SQLite 3.51.3 a second writer can damage the file: not our doing, but said."""
    finding = doctor._version(version)
    assert (finding.ok, "Litestream" in finding.hint) == (True, warns)


def test_check_judges_settings(path: Path) -> None:
    """A setting that is not as durability needs it is named."""
    settings = {**doctor.SETTINGS, "synchronous": "1"}
    ballast = files.Ballast(path=path, size_bytes=0)
    found = {finding.name: finding for finding in doctor.findings(path, ballast, settings, "page 7 is gone")}
    assert (found["state: durability"].ok, found["state: durability"].detail) == (
        False,
        "not as required: synchronous",
    )
    assert not found["state: soundness"].ok


def test_release_with_other_text_is_recognised_by_value(store: sqlite.SqliteStore, path: Path) -> None:
    """A release stored by an older version, as another text, is still the same release."""
    strategy = model.Strategy(
        kind=model.StrategyKind.SWITCH, stages=(model.Stage(exposure_bps=model.FULL_EXPOSURE, hold_s=0.0),)
    )
    spec = model.EnvironmentSpec(services=(), strategy=strategy)
    release = model.Release(app="shop", number=0, digest="sha256:0", environments=(("production", spec),))
    lease = store.acquire("control plane", ttl_s=60.0)
    first = store.add_release(lease, release)
    execute(path, "update releases set spec = spec || ' '")
    assert store.add_release(lease, replace(release, revision="later")) == first
    assert len(store.releases("shop")) == 1

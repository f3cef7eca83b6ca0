"""A folder of SQL files is the migrations that it says, or an error that names everything that is wrong."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from tidegate.core.migrations import MigrationPhase
from tidegate.errors import MigrationError
from tidegate.migrators import scripts

UP, DOWN = "ALTER TABLE users ADD COLUMN email text;\n", "ALTER TABLE users DROP COLUMN email;\n"
GOOD = {"0007_add_email.up.sql": UP, "0007_add_email.down.sql": DOWN}


def folder(tmp_path: Path, files: Mapping[str, str | bytes]) -> Path:
    for name, body in files.items():
        (tmp_path / name).write_bytes(body if isinstance(body, bytes) else body.encode())
    return tmp_path


def test_files_of_one_number_are_a_migration(tmp_path: Path) -> None:
    """In the order of their numbers, whatever their names; what is no SQL may lie beside them."""
    files = GOOD | {
        "10000_late.up.sql": "CREATE TABLE b (n int)",
        "10000_late.down.sql": "DROP TABLE b",
        "0008_z.up.sql": "CREATE TABLE a (n int)",
        "0008_z.down.sql": "DROP TABLE a",
        "0008_z.verify.sql": "SELECT 1 FROM a",
        "README.md": "About these.",
    }
    found = scripts.read(folder(tmp_path, files))
    assert [one.id for one in found] == ["0007_add_email", "0008_z", "10000_late"]
    email, a, _ = found
    assert (email.up.body, email.down and email.down.body, email.verify) == (UP, DOWN, None)
    assert (email.number, email.phase, email.up.transaction) == (7, None, True)
    assert a.verify
    assert a.verify.statements[0].text == "SELECT 1 FROM a"


def test_head_says_how_it_runs(tmp_path: Path) -> None:
    """Comments above the first statement; others are comments."""
    up = (
        "-- The mail of each user. See: issue 12\n-- phase: contract\n--transaction: off\n"
        "-- lock_timeout: 250ms\n-- statement-timeout: 5m\n"
        "-- replaces: [0003_a, 0004_b]\n\n" + UP
    )
    down = f"-- lock_timeout: 1s\n{DOWN}-- Note: it is gone\n"
    (one,) = scripts.read(folder(tmp_path, {"0007_m.up.sql": up, "0007_m.down.sql": down}))
    assert (one.phase, one.replaces) == (MigrationPhase.CONTRACT, ("0003_a", "0004_b"))
    assert (one.up.transaction, one.up.lock_timeout_s, one.up.statement_timeout_s) == (False, 0.25, 300.0)
    assert one.down
    assert (one.down.transaction, one.down.lock_timeout_s) == (True, 1.0)


def test_way_back_may_be_given_up_with_a_reason(tmp_path: Path) -> None:
    """It is shown to whoever wants to go back past it."""
    up = f'-- down: none "the old rows are merged"\n{UP}'
    (one,) = scripts.read(folder(tmp_path, {"0007_m.up.sql": up}))
    assert (one.down, one.no_way_back) == (None, "the old rows are merged")


@pytest.mark.parametrize("same", ["A;\n", "A;", "A;\n\n\n", "A;\r\n", "A;\r\n\r\n"])
def test_checksum_counts_what_git_and_editors_do_not_change(tmp_path: Path, same: str) -> None:
    """Line ends, and how many of them there are at the end."""
    (one,) = scripts.read(folder(tmp_path, {"0001_a.up.sql": same, "0001_a.down.sql": "B"}))
    assert one.up.sha256 == hashlib.sha256(b"A;\n").hexdigest()


@pytest.mark.parametrize("other", ["A; ", " A;", "a;", "A;\n--", "A\n;"])
def test_checksum_counts_everything_else(tmp_path: Path, other: str) -> None:
    """Nothing cleverer: what is the same to a database is hers to say."""
    (one,) = scripts.read(folder(tmp_path, {"0001_a.up.sql": other, "0001_a.down.sql": "B"}))
    assert one.up.sha256 != hashlib.sha256(b"A;\n").hexdigest()


MISTAKES: list[tuple[str, dict[str, str | bytes | None], str]] = [
    (
        "no down",
        {"0007_add_email.down.sql": None},
        r"0007_add_email: has no down script \(add 0007_add_email",
    ),
    ("no up", {"0007_add_email.up.sql": None}, "0007_add_email: has no up script"),
    ("empty down", {"0007_add_email.down.sql": ""}, r"email\.down\.sql: has no statement \(.*-- down: none"),
    ("only comments", {"0007_add_email.up.sql": "-- later\n"}, r"up\.sql: has no statement$"),
    (
        "same number",
        {"0007_b.up.sql": UP, "0007_b.down.sql": DOWN},
        "0007_b: has the number of 0007_add_email",
    ),
    ("same number in another width", {"00007_b.up.sql": UP, "00007_b.down.sql": DOWN}, "has the number of"),
    ("name", {"7_b.up.sql": UP}, r"7_b\.up\.sql: is not the name of a migration"),
    ("capital", {"0008_B.up.sql": UP}, "is not the name"),
    ("suffix", {"0008_b.up.SQL": UP}, "is not the name"),
    ("no kind", {"0008_b.sql": UP}, "is not the name"),
    ("hostile name", {"0008_\x1b[2J.up.sql": UP}, r"0008_\\x1b\[2J\.up\.sql: is not the name"),
    (
        "latin-1",
        {"0007_add_email.up.sql": b"SELECT 1;\nSELECT 'caf\xe9'"},
        "line 2: holds a byte that is not UTF-8",
    ),
    ("mark", {"0007_add_email.up.sql": b"\xef\xbb\xbfSELECT 1"}, "byte order mark"),
    ("NUL", {"0007_add_email.up.sql": b"SELECT 1;\n\0"}, "line 2: holds a NUL"),
    ("open literal", {"0007_add_email.up.sql": "SELECT 1;\nSELECT 'a"}, "line 2: a literal is not closed"),
    (
        "own transaction",
        {"0007_add_email.up.sql": "BEGIN;\nSELECT 1;\nCOMMIT;"},
        "line 3: COMMIT begins or ends",
    ),
    ("start", {"0007_add_email.up.sql": "START TRANSACTION"}, "START begins or ends a transaction"),
    ("psql", {"0007_add_email.up.sql": "\\set x 1\nSELECT 1"}, "line 1: a command of psql"),
    ("copy", {"0007_add_email.up.sql": "COPY t (a)\nfrom STDIN;"}, "COPY FROM STDIN has no input"),
    (
        "phase",
        {"0007_add_email.up.sql": f"-- phase: expnd\n{UP}"},
        "line 1: should be expand, contract or break",
    ),
    ("transaction", {"0007_add_email.up.sql": f"-- transaction: none\n{UP}"}, "should be on or off"),
    ("timeout", {"0007_add_email.up.sql": f"-- lock_timeout: 100\n{UP}"}, "should be a duration like 100ms"),
    ("no time", {"0007_add_email.up.sql": f"-- lock_timeout: 0s\n{UP}"}, "should be more than 0"),
    ("too long", {"0007_add_email.up.sql": f"-- statement_timeout: 2d\n{UP}"}, "at most 24h"),
    (
        "no reason",
        {"0007_add_email.up.sql": f'-- down: none " "\n{UP}'},
        'should be none "why there is no way',
    ),
    ("rerun", {"0007_add_email.up.sql": f"-- rerun: after-rollback\n{UP}"}, "rerun is not in this version"),
    ("replaces", {"0007_add_email.up.sql": f"-- replaces: 3, 4\n{UP}"}, "should be ids of migrations"),
    ("both", {"0007_add_email.up.sql": f'-- down: none "x"\n{UP}'}, "has a down script and says"),
    (
        "unknown",
        {"0007_add_email.up.sql": f"-- lock_timeuot: 1s\n{UP}"},
        r"no directive lock_timeuot \(did you mea",
    ),
    (
        "twice",
        {"0007_add_email.up.sql": f"-- phase: expand\n-- phase: expand\n{UP}"},
        "line 2: .*there twice",
    ),
    (
        "below",
        {"0007_add_email.up.sql": f"{UP}-- transaction: off\n"},
        "line 2: .* below the first statement",
    ),
    ("of the up", {"0007_add_email.down.sql": f"-- phase: expand\n{DOWN}"}, "phase belongs in the up script"),
    (
        "still there",
        {"0008_b.up.sql": f"-- replaces: 0007_add_email\n{UP}", "0008_b.down.sql": DOWN},
        "0008_b: replaces 0007_add_email, which is still here",
    ),
]


@pytest.mark.parametrize(
    ("change", "message"), [case[1:] for case in MISTAKES], ids=[case[0] for case in MISTAKES]
)
def test_mistake_is_named_with_what_would_be_right(
    tmp_path: Path, change: dict[str, str | bytes | None], message: str
) -> None:
    """And nothing of the folder is used."""
    files = {name: body for name, body in (GOOD | change).items() if body is not None}
    with pytest.raises(MigrationError) as found:
        scripts.read(folder(tmp_path, files))
    assert re.search(message, str(found.value), re.MULTILINE), str(found.value)
    assert str(found.value).isprintable() or set(str(found.value)) - {"\n"} <= {*map(chr, range(32, 127))}
    assert (found.value.exit_status, found.value.http_status) == (2, 422)


def test_all_mistakes_come_at_once(tmp_path: Path) -> None:
    """In the order of the files; whether the first has a way back, nobody knows before it can be read."""
    files = {"0001_a.up.sql": "-- phase: x\n-- rerun: y\nSELECT 1", "0002_b.down.sql": "", "3.sql": ""}
    with pytest.raises(MigrationError) as found:
        scripts.read(folder(tmp_path, files))
    lines = str(found.value).splitlines()
    assert lines[0] == "The folder of migrations has 5 mistakes:"
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        "0001_a.up.sql",
        "0001_a.up.sql",
        "0002_b",
        "0002_b.down.sql",
        "3.sql",
    ]


def test_folder_in_place_of_a_file_is_told(tmp_path: Path) -> None:
    """Not a traceback."""
    folder(tmp_path, GOOD)
    (tmp_path / "0008_b.up.sql").mkdir()
    with pytest.raises(MigrationError, match=r"0008_b\.up\.sql: is not a file"):
        scripts.read(tmp_path)


def test_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file, and of the folder."""
    folder(tmp_path, GOOD)
    monkeypatch.setattr(scripts, "SCRIPT_BYTES_MAX", len(UP) - 1)
    with pytest.raises(MigrationError, match="is larger than"):
        scripts.read(tmp_path)
    monkeypatch.setattr(scripts, "SCRIPTS_MAX", 1)
    with pytest.raises(MigrationError, match="has 2 files; 1 are allowed"):
        scripts.read(tmp_path)

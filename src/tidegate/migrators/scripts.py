"""Migrations as SQL files, as they travel with an artifact: `0007_add_email.up.sql` and what belongs to it.

    NNNN_name.up.sql       applies it
    NNNN_name.down.sql     reverts it; or the up says `-- down: none "why"`
    NNNN_name.verify.sql   optional: returns rows, or fails, unless it is applied

Comments above the first statement may be directives, one a line, `-- key: value`:

    phase              expand, contract or breaking; without it, what was observed counts
    transaction        on, or off for what cannot run in one (CREATE INDEX CONCURRENTLY)
    lock_timeout       how long a statement waits for a lock before it is tried again
    statement_timeout  how long a statement may take
    down               none "why": there is no way back
    replaces           ids of migrations that this one is made of: 0003_a, 0004_b

Everything wrong is told at once, each with its file and line. Nothing is guessed: a file that looks like one
of these and is none is an error, as a migration that is quietly left out is found in production.
"""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tidegate.core.migrations import MigrationPhase
from tidegate.errors import MigrationError, Problem
from tidegate.manifest import scalars
from tidegate.migrators import statements
from tidegate.migrators.statements import Statement

SCRIPT_BYTES_MAX: Final = 4 * 1024 * 1024
"""Of one file. Rows by the thousand belong in a job that can be watched and stopped."""
SCRIPTS_MAX: Final = 10_000
"""Files of one artifact. The biggest known chains have some thousand migrations."""
TIMEOUT_S_MAX: Final = 24 * 3600.0

_NAME = re.compile(r"(?P<id>(?P<number>[0-9]{4,9})_[a-z0-9][a-z0-9_-]{0,99})\.(?P<kind>up|down|verify)\.sql")
_ID = re.compile(r"[0-9]{4,9}_[a-z0-9][a-z0-9_-]{0,99}")
_DIRECTIVE = re.compile(r"--[ \t]*(?P<key>[A-Za-z_-]{2,40})[ \t]*:[ \t]*(?P<value>.*?)[ \t]*")
_NO_WAY_BACK = re.compile(r'none[ \t]+"(?P<why>[^"]*[^"\s][^"]*)"')
_EXAMPLE = "0007_add_email.up.sql"
_TRANSACTION = frozenset({"BEGIN", "COMMIT", "ROLLBACK", "END", "ABORT", "SAVEPOINT", "RELEASE"})
_TRANSACTION_OF_TWO = frozenset({("START", "TRANSACTION"), ("PREPARE", "TRANSACTION")})


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One file: what runs, and how."""

    body: str
    """With line ends of one character."""
    sha256: str
    """Of the body in UTF-8 with exactly one line end at its end: what editors change does not count."""
    statements: tuple[Statement, ...]
    transaction: bool = True
    lock_timeout_s: float | None = None
    statement_timeout_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlMigration:
    """What belongs together under one number."""

    id: str
    up: Script
    down: Script | None
    verify: Script | None = None
    no_way_back: str = ""
    """Why there is no down."""
    phase: MigrationPhase | None = None
    """As declared; observed otherwise."""
    replaces: tuple[str, ...] = ()

    @property
    def number(self) -> int:
        """Its place in the order."""
        return int(self.id.partition("_")[0])


def script_of(name: str, body: str) -> Script:
    """A script that was kept, e.g. in a ledger; `name`: for messages. Raises MigrationError."""
    problems: list[Problem] = []
    found = _parsed(name, body, frozenset(_READERS), problems)
    if found is None:
        raise MigrationError(tuple(problems))
    return found.script


def read(folder: Path) -> tuple[SqlMigration, ...]:
    """The migrations of a folder, in order.

    Raises MigrationError: all that is wrong, by file. OSError: the folder cannot be read.
    """
    problems: list[Problem] = []
    files = dict(_files(folder, problems))
    made = [_migration(id_, parts, problems) for id_, parts in sorted(files.items(), key=_place)]
    problems += _clashes(files, {one.id: one.replaces for one in made if one})
    if problems:
        raise MigrationError(tuple(sorted(problems, key=lambda problem: problem.path)))
    return tuple(one for one in made if one)


_Parts = Mapping[str, Path]
"""The files of one migration by kind: up, down, verify."""


def _place(item: tuple[str, _Parts]) -> tuple[int, str]:
    return int(item[0].partition("_")[0]), item[0]


def _files(folder: Path, problems: list[Problem]) -> dict[str, dict[str, Path]]:
    """The files by migration and kind. Only names that end like SQL are looked at: a README may lie there."""
    found: dict[str, dict[str, Path]] = {}
    names = sorted(path.name for path in folder.iterdir())
    if len(names) > SCRIPTS_MAX:
        raise MigrationError((Problem(folder.name, f"has {len(names)} files; {SCRIPTS_MAX} are allowed"),))
    for name in names:
        if not name.lower().endswith(".sql"):
            continue
        match = _NAME.fullmatch(name)
        if match is None:
            hint = (
                f"four digits or more, _, small letters, then .up.sql, .down.sql or .verify.sql: {_EXAMPLE}"
            )
            problems.append(Problem(_shown(name), "is not the name of a migration", hint))
        elif not (folder / name).is_file():
            problems.append(Problem(name, "is not a file"))
        else:
            found.setdefault(match["id"], {})[match["kind"]] = folder / name
    return found


def _shown(name: str) -> str:
    """A hostile name, for a message."""
    return ascii(name[:100])[1:-1]


def _clashes(files: Mapping[str, _Parts], replaces: Mapping[str, Sequence[str]]) -> Iterator[Problem]:
    """What does not fit together, though each migration is right."""
    by_number: dict[int, str] = {}
    for id_ in sorted(files):
        first = by_number.setdefault(int(id_.partition("_")[0]), id_)
        if first != id_:
            hint = "two branches took the same one: give the newer the next free number"
            yield Problem(id_, f"has the number of {first}", hint)
    for id_, old in replaces.items():
        for one in old:
            if one in files:
                yield Problem(id_, f"replaces {one}, which is still here", "remove it, or the directive")


def _migration(id_: str, parts: _Parts, problems: list[Problem]) -> SqlMigration | None:
    """One migration, or None and what is wrong with it."""
    known = len(problems)
    if "up" not in parts:
        problems.append(Problem(id_, "has no up script", f"add {id_}.up.sql"))
    read_parts = {kind: _read_script(path, _DIRECTIVES[kind], problems) for kind, path in parts.items()}
    up = read_parts.get("up")
    no_way_back = up.directives.no_way_back if up else ""
    if up and "down" not in parts and not no_way_back:
        hint = f'add {id_}.down.sql, or say in the up script: -- down: none "why there is no way back"'
        problems.append(Problem(id_, "has no down script", hint))
    if "down" in parts and no_way_back:
        problems.append(Problem(id_, "has a down script and says `-- down: none`", "remove one of them"))
    if up is None or len(problems) > known:
        return None
    down, verify = read_parts.get("down"), read_parts.get("verify")
    said = up.directives
    return SqlMigration(
        id=id_,
        up=up.script,
        down=down.script if down else None,
        verify=verify.script if verify else None,
        no_way_back=no_way_back,
        phase=said.phase,
        replaces=said.replaces,
    )


# --- one file --------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Directives:
    """What the head of a file says."""

    phase: MigrationPhase | None = None
    transaction: bool = True
    lock_timeout_s: float | None = None
    statement_timeout_s: float | None = None
    no_way_back: str = ""
    replaces: tuple[str, ...] = ()
    seen: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Read:
    script: Script
    directives: _Directives


def _read_script(path: Path, allowed: frozenset[str], problems: list[Problem]) -> _Read | None:
    """A file, or None and what is wrong with it."""
    try:
        return _parsed(path.name, _body(path), allowed, problems)
    except scalars.Mistake as mistake:
        problems.append(Problem(path.name, *_told(mistake)))
        return None


def _parsed(name: str, body: str, allowed: frozenset[str], problems: list[Problem]) -> _Read | None:
    """A script, or None and what is wrong with it."""
    known = len(problems)
    try:
        found = tuple(statements.split(body))
    except statements.UnfinishedError as error:
        problems.append(Problem(name, str(error)))
        return None
    if not found:
        hint = (
            'a migration that cannot be reverted says so: -- down: none "why"'
            if "phase" not in allowed
            else ""
        )
        problems.append(Problem(name, "has no statement", hint))
    problems += [Problem(name, *_told(mistake)) for mistake in _unfit(found)]
    head = found[0].line if found else body.count("\n") + 2
    directives = _directives(name, body, (head, allowed), problems)
    if len(problems) > known:
        return None
    script = Script(
        body=body,
        sha256=hashlib.sha256(f"{body.rstrip(_LINE_END)}{_LINE_END}".encode()).hexdigest(),
        statements=found,
        transaction=directives.transaction,
        lock_timeout_s=directives.lock_timeout_s,
        statement_timeout_s=directives.statement_timeout_s,
    )
    return _Read(script, directives)


_LINE_END = "\n"


def _told(mistake: scalars.Mistake) -> tuple[str, str]:
    return mistake.message, mistake.hint


def _body(path: Path) -> str:
    """The text of a file. Raises Mistake: it is none, or too long."""
    with path.open("rb") as file:
        data = file.read(SCRIPT_BYTES_MAX + 1)
    if len(data) > SCRIPT_BYTES_MAX:
        raise scalars.Mistake(f"is larger than {SCRIPT_BYTES_MAX // 1024} KiB")
    if data.startswith(b"\xef\xbb\xbf"):
        raise scalars.Mistake("begins with a byte order mark", "save it as UTF-8 without one")
    try:
        body = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise scalars.Mistake(f"line {line}: holds a byte that is not UTF-8", "save it as UTF-8") from None
    if "\0" in body:
        raise scalars.Mistake(f"line {body.count(_LINE_END, 0, body.index(chr(0))) + 1}: holds a NUL")
    return body.replace("\r\n", _LINE_END)


def _unfit(found: Sequence[Statement]) -> Iterator[scalars.Mistake]:
    """Statements that mean something else here than where they were tried."""
    for one in found:
        where = f"line {one.line}:"
        if one.text.startswith("\\"):
            yield scalars.Mistake(f"{where} a command of psql, not SQL", "only SQL runs here")
        elif one.words[:2] in _TRANSACTION_OF_TWO or not _TRANSACTION.isdisjoint(one.words[:1]):
            hint = "each script runs in a transaction of its own; `-- transaction: off` runs it in none"
            yield scalars.Mistake(f"{where} {one.words[0]} begins or ends a transaction", hint)
        elif one.words[:1] == ("COPY",) and re.search(r"\bfrom\s+stdin\b", one.text, re.IGNORECASE):
            yield scalars.Mistake(f"{where} COPY FROM STDIN has no input here", "use INSERT")


def _directives(
    name: str, body: str, head: tuple[int, frozenset[str]], problems: list[Problem]
) -> _Directives:
    """What the comments above the first statement say. `head`: its line, and the keys allowed here."""
    first_line, allowed = head
    said = _Directives()
    for number, line in enumerate(body.split(_LINE_END), start=1):
        match = _DIRECTIVE.fullmatch(line)
        if match is None:
            continue
        try:
            _directive(
                match["key"].lower().replace("-", "_"), match["value"], (number < first_line, allowed), said
            )
        except scalars.Mistake as mistake:
            problems.append(Problem(name, f"line {number}: {mistake.message}", mistake.hint))
    return said


def _directive(key: str, value: str, place: tuple[bool, frozenset[str]], said: _Directives) -> None:
    """Take one in. Raises Mistake. A comment may look alike; none is one letter off a key by chance."""
    above, allowed = place
    if key not in _READERS:
        close = difflib.get_close_matches(key, _READERS, n=1, cutoff=0.8) if above else []
        if close:
            raise scalars.Mistake(f"there is no directive {key}", f"did you mean {close[0]}?")
        return
    if not above:
        hint = "move it up; if it is a comment, write it without the colon"
        raise scalars.Mistake(f"the directive {key} stands below the first statement", hint)
    if key not in allowed:
        raise scalars.Mistake(f"the directive {key} belongs in the up script")
    if key in said.seen:
        raise scalars.Mistake(f"the directive {key} is there twice")
    said.seen.add(key)
    _READERS[key](value, said)


def _phase(value: str, said: _Directives) -> None:
    if value not in set(MigrationPhase):
        raise scalars.not_this("expand, contract or breaking", value)
    said.phase = MigrationPhase(value)


def _transaction(value: str, said: _Directives) -> None:
    if value not in ("on", "off"):
        raise scalars.not_this("on or off", value)
    said.transaction = value == "on"


def _timeout_s(value: str) -> float:
    seconds = scalars.duration_s(value, "a duration like 100ms or 5s")
    if not 0 < seconds <= TIMEOUT_S_MAX:
        raise scalars.not_this("more than 0 and at most 24h", value)
    return seconds


def _lock_timeout(value: str, said: _Directives) -> None:
    said.lock_timeout_s = _timeout_s(value)


def _statement_timeout(value: str, said: _Directives) -> None:
    said.statement_timeout_s = _timeout_s(value)


def _down(value: str, said: _Directives) -> None:
    match = _NO_WAY_BACK.fullmatch(value)
    if match is None:
        raise scalars.not_this('none "why there is no way back"', value)
    said.no_way_back = match["why"].strip()


def _rerun(_value: str, _said: _Directives) -> None:
    hint = "what an older release has written meanwhile, a migration of its own can make up for"
    raise scalars.Mistake("rerun is not in this version of Tidegate", hint)


def _replaces(value: str, said: _Directives) -> None:
    ids = [one.strip() for one in value.removeprefix("[").removesuffix("]").split(",")]
    if not all(_ID.fullmatch(one) for one in ids):
        raise scalars.not_this("ids of migrations: 0003_a, 0004_b", value)
    said.replaces = tuple(ids)


_READERS: Mapping[str, Callable[[str, _Directives], None]] = {
    "phase": _phase,
    "transaction": _transaction,
    "lock_timeout": _lock_timeout,
    "statement_timeout": _statement_timeout,
    "down": _down,
    "rerun": _rerun,
    "replaces": _replaces,
}
_HOW = frozenset({"transaction", "lock_timeout", "statement_timeout"})
_DIRECTIVES: Mapping[str, frozenset[str]] = {"up": frozenset(_READERS), "down": _HOW, "verify": _HOW}

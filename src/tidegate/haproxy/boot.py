"""What a restart of HAProxy brings up: the files in the router's folder.

Hides names, format and atomic writing of the files, and the lock that keeps two control planes from
writing at once. Neighbours: `config` renders the text, `runtime` decides when it is written.

Per environment there is one record, `tables/<app>.<environment>.json`, the source of the rest: HAProxy's
own files are rendered from all records. The record is written last, and counts only as long as HAProxy's
files agree with it: a crash in between, or a hand in the files, shows as "nothing there" and is put right.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pydantic

from tidegate.core import model
from tidegate.errors import RouterError, StorageError
from tidegate.haproxy import config, supervisor

#: Version of the record's format; a reader refuses a newer one.
FORMAT: Final = 1
LOCK: Final = "apply.lock"
#: Longer than any change takes: who waits so long is told instead of being held.
LOCK_TIMEOUT_S: Final = 30.0
LOCK_POLL_S: Final = 0.01
TABLES: Final = "tables"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One environment, as it was applied last."""

    format: int
    table: model.RouteTable
    structure: config.Structure


_RECORD: Final = pydantic.TypeAdapter(Record)


class BootFiles:
    """The files of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._seen: dict[Path, tuple[tuple[int, int, int], Record]] = {}

    def make_folder(self) -> None:
        """Make the folder, for nobody else to list or to read. Raises StorageError.

        It may be passed through: HAProxy's unprivileged processes meet on sockets in it that are theirs.
        """
        with _storage("made"):
            for folder in (self._folder, self._folder / TABLES, self._folder / supervisor.ENVIRONMENTS):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.chmod(0o711)

    def prepare(self) -> None:
        """Write what HAProxy reads beside `base.cfg`: of the environments, from their records.

        Raises RouterError, StorageError.
        """
        self._write(self._folder / config.BUCKETS, config.buckets_text())
        self._write(self._folder / config.HOLD, config.hold_text())
        records = self.records()
        for record in records:
            self._write_configuration(record)
        self._write_maps(records)

    def write_base(self, text: str) -> bool:
        """Write what environments share; whether it has changed. Raises StorageError."""
        return self._write(self._folder / supervisor.BASE, text)

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Only one control plane at a time changes files and HAProxy. Raises StorageError."""
        with _storage("locked"):
            lock = os.open(self._folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _lock_within(lock, LOCK_TIMEOUT_S)
            yield
        finally:
            os.close(lock)

    def record(self, key: model.EnvironmentKey) -> Record | None:
        """What was applied last; None: nothing ever. Raises RouterError, StorageError."""
        return self._load(self._table(key))

    def records(self) -> list[Record]:
        """All environments, sorted by name. Raises RouterError, StorageError."""
        with _storage("read"):
            paths = sorted((self._folder / TABLES).glob("*.json"))
        return [record for path in paths if (record := self._load(path)) is not None]

    def agrees(self, record: Record) -> bool:
        """Whether HAProxy's own files say the same as the record. Raises RouterError, StorageError."""
        text = config.environment_text(record.table, record.structure)
        if self.read(self._configuration(record.table.key)) != text:
            return False
        prefix = config.owner_prefix(record.table.key)
        for name, wanted in config.map_entries(record.table).items():
            lines = (line.partition(" ")[::2] for line in self.read(self._folder / name).splitlines())
            found = sorted(entry for entry in lines if config.owned(name, prefix, entry))
            if found != sorted(wanted.items()):
                return False
        return True

    def write(self, record: Record) -> None:
        """Make the record what a restart brings up.

        Raises RouterError when it collides with another environment's, StorageError.
        """
        others = [one for one in self.records() if one.table.key != record.table.key]
        self._write_configuration(record)
        self._write_maps([*others, record])
        self._write(self._table(record.table.key), _RECORD.dump_json(record).decode(), durable=True)

    def read(self, path: Path) -> str:
        """Text of a file, empty if there is none. Raises StorageError."""
        with _storage("read"):
            try:
                return path.read_text(encoding="utf-8", errors="replace")
            except FileNotFoundError:
                return ""

    @contextlib.contextmanager
    def candidate(self, text: str) -> Iterator[Path]:
        """A configuration beside those in force, to be tried out."""
        with tempfile.NamedTemporaryFile("w", dir=self._folder, prefix="candidate-", suffix=".cfg") as file:
            file.write(text)
            file.flush()
            yield Path(file.name)

    def _write_configuration(self, record: Record) -> None:
        text = config.environment_text(record.table, record.structure)
        self._write(self._configuration(record.table.key), text)

    def _write_maps(self, records: list[Record]) -> None:
        tables = [record.table for record in records]
        for name in config.MAPS:
            self._write(self._folder / name, config.map_text(config.merged(name, tables)))

    def _load(self, path: Path) -> Record | None:
        try:
            with _storage("read"), path.open("rb") as file:
                stat = os.fstat(file.fileno())
                stamp = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
                seen = self._seen.get(path)
                if seen is not None and seen[0] == stamp:
                    return seen[1]
                text = file.read()
        except StorageError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise
        record = _parsed(path, text)
        self._seen[path] = (stamp, record)
        return record

    def _write(self, path: Path, text: str, *, durable: bool = False) -> bool:
        """Replace a file, or leave it alone if it says the same already; whether it was replaced.

        `durable`: what it says is on the disk when this returns. Only the records need that: what HAProxy
        reads is made from them at each start, and synchronising is most of the time of a flip. The folder is
        not synchronised: after a power cut the file may be the one before, never half of one, and the control
        plane, which must then start the router anyway, applies its newest table again.
        """
        if self.read(path) == text and path.exists():
            return False
        with _storage("written"):
            descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            temporary = Path(name)
            try:
                with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                    file.write(text)
                    if durable:
                        file.flush()
                        os.fsync(file.fileno())
                temporary.replace(path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
        return True

    def _table(self, key: model.EnvironmentKey) -> Path:
        return self._folder / TABLES / f"{config.environment_name(key)}.json"

    def _configuration(self, key: model.EnvironmentKey) -> Path:
        return self._folder / supervisor.ENVIRONMENTS / f"{config.environment_name(key)}.cfg"


def _lock_within(lock: int, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise RouterError("Another control plane keeps the router to itself for too long.") from error
            time.sleep(LOCK_POLL_S)
        else:
            return


def _parsed(path: Path, text: bytes) -> Record:
    try:
        record = _RECORD.validate_json(text, strict=True)
    except pydantic.ValidationError as error:
        raise RouterError(
            f"The router's record {path.name} cannot be read: it is damaged or written by a newer Tidegate.",
            hint="Restore it from a backup; the router goes on with what it has.",
        ) from error
    if record.format != FORMAT or path.stem != config.environment_name(record.table.key):
        raise RouterError(f"The router's record {path.name} was not written by this Tidegate.")
    return record


@contextlib.contextmanager
def _storage(done: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        message = f"The router's files cannot be {done}: {error.strerror} ({error.filename})."
        raise StorageError(message) from error

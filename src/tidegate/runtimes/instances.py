"""Instance folders: what is kept of an instance on disk, and what is true of it now.

Hides the layout, and how it is proved that a shim or an app lives. Beside the runtime's folder, which only
Tidegate may enter, lie the folders that apps use, each owned by its app's user:

    <folder>/<group id>/<index>/    spec.json, state.json, lock, stop, output.log
    <folder>/.lock, .users.json, .port, .revision
    <folder>/../data/<app>.<environment>/   survives releases      <folder>/../tmp/<instance>/   does not
    <folder>/../logs/<group id>/<index>.log     output of instances that are gone

Invariants: an instance folder appears whole, by rename; no secret is written; an instance is alive only if
the kernel says so now (a lock that is held, or a pid with its start time in this boot).

Neighbours: process.py (the runtime), plan.py (what the shim writes), launching.py (starts shims).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate import errors
from tidegate.core import model
from tidegate.runtimes import output, procfs
from tidegate.runtimes import plan as plans

_SPEC = "spec.json"
_GROUP_ID = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([0-9]+)\.([A-Za-z0-9_-]+)")
_LOCK_WAIT_S = 15.0

#: struct flock of 64-bit Linux: type, whence, start, length, pid.
_FLOCK = "hhqqi"


@contextlib.contextmanager
def storage_errors(action: str) -> Iterator[None]:
    """Turn an OSError into a StorageError that says what could not be done and why."""
    try:
        yield
    except OSError as error:
        raise storage_error(action, error.errno, str(error.strerror or error)) from error


def storage_error(action: str, number: int | None, reason: str) -> errors.StorageError:
    """The error for a system call that was refused."""
    if number in {errno.ENOSPC, errno.EDQUOT}:
        return errors.StorageError(
            f"{action}: the disk is full.", hint="Free some space; it goes on by itself."
        )
    if number in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return errors.StorageError(f"{action}: {reason}.", hint="Check who owns the data folder.")
    return errors.StorageError(f"{action}: {reason}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What an instance was made from; the environment, which holds secrets, is left out."""

    group: model.InstanceGroup
    port: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One instance, seen now."""

    name: str
    group_id: str
    index: int
    folder: Path
    spec: Spec | None
    """None: damaged."""
    state: plans.State | None
    """What its shim wrote last; None: nothing readable."""
    boot: str
    shim: int | None
    """Process id of the shim that holds the lock."""
    app: procfs.Identity | None
    """The app's process, if it is alive."""
    stopping: bool

    @property
    def gone(self) -> bool:
        return self.shim is None and self.app is None

    @property
    def is_job(self) -> bool:
        if self.spec is None:
            return parts(self.group_id)[2] == model.VERIFY_SERVICE
        return self.spec.group.verify is not None

    @property
    def passed(self) -> bool | None:
        """The outcome of a job; None: it has none, and what is not running then has to run again."""
        return self.state["passed"] if self.is_job and self.state is not None else None


class Layout:
    """Paths below and beside the runtime's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder.parent / "data"
        self.temporary = folder.parent / "tmp"
        self.logs = folder.parent / "logs"
        self.users = folder / ".users.json"
        self.last_port = folder / ".port"
        self.revision = folder / ".revision"
        #: Makes names unique on a machine with several Tidegates.
        self.mark = hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]

    def group(self, group_id: str) -> Path:
        return self.folder / group_id

    def instance(self, group_id: str, index: int) -> Path:
        return self.folder / group_id / str(index)

    def temporary_of(self, name: str) -> Path:
        return self.temporary / f"{self.mark}.{name}"

    def data_of(self, key: model.EnvironmentKey) -> Path:
        return self.data / f"{key.app}.{key.environment}"

    def create(self) -> None:
        """Make the folders. Raises StorageError."""
        with storage_errors(f"{self.folder} cannot be made"):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.chmod(0o700)
            self.logs.mkdir(mode=0o700, exist_ok=True)
            for shared in (self.data, self.temporary):  # apps pass through, and cannot list what is there
                shared.mkdir(mode=0o711, exist_ok=True)
                shared.chmod(0o711)

    @contextlib.contextmanager
    def locked(self, *, wait_s: float = _LOCK_WAIT_S) -> Iterator[None]:
        """Alone, also against another process with the same folder.

        Raises RuntimeAdapterError if others take longer than `wait_s`, StorageError.
        """
        with storage_errors(f"{self.folder} cannot be locked"):
            handle = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(handle, time.monotonic() + wait_s)
            yield
        finally:
            os.close(handle)

    def groups(self) -> list[str]:
        """Ids of all groups, sorted. RuntimeAdapterError if it cannot look: that is not "no groups"."""
        try:
            names = os.listdir(self.folder)
        except OSError as error:
            raise errors.RuntimeAdapterError(
                f"The instances' folder {self.folder} cannot be read: {error.strerror}.",
                hint="The apps go on running; mount the disk or give the folder back to Tidegate's user.",
            ) from error
        return sorted(name for name in names if _GROUP_ID.fullmatch(name))

    def indexes(self, group_id: str) -> list[int]:
        """Indexes of the group's instances, sorted; empty if there is no such group. RuntimeAdapterError."""
        if not _GROUP_ID.fullmatch(group_id):
            return []
        try:
            return sorted(int(name) for name in os.listdir(self.group(group_id)) if name.isdecimal())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise errors.RuntimeAdapterError(
                f"The folder of {group_id} cannot be read: {error.strerror}.",
                hint="Its instances go on running.",
            ) from error


def _lock(handle: int, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise errors.RuntimeAdapterError(
                    "Another start or stop of instances takes too long.", hint="It is tried again."
                ) from None
            time.sleep(0.02)


def parts(group_id: str) -> tuple[model.EnvironmentKey, int, str]:
    """Environment, placement and service that the id names. ValueError if it is no id of a group."""
    match = _GROUP_ID.fullmatch(group_id)
    if match is None:
        raise ValueError(group_id)
    app, environment, placement, service = match.groups()
    return model.EnvironmentKey(app=app, environment=environment), int(placement), service


# --- the spec -----------------------------------------------------------------------------------------


def write_new(layout: Layout, group: model.InstanceGroup, index: int, port: int | None) -> None:
    """Make the instance's folder, whole or not at all. OSError if the disk refuses."""
    folder = layout.instance(group.id, index)
    draft = folder.with_name(f".{index}.new")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(mode=0o700, parents=True)
    write_spec(draft, group, port)
    draft.rename(folder)


def write_spec(folder: Path, group: model.InstanceGroup, port: int | None) -> None:
    """Write, or replace atomically, the spec in an instance's folder. OSError if the disk refuses."""
    fields = dataclasses.asdict(group)
    del fields["environment"]
    content = json.dumps({"group": fields, "port": port}, indent=1).encode()
    temporary = folder / f"{_SPEC}.new"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(folder / _SPEC)


def read_spec(folder: Path) -> Spec | None:
    """The spec in an instance's folder; None if it cannot be read."""
    try:
        content = json.loads((folder / _SPEC).read_bytes())
        fields = content["group"]
        check = {**fields["check"], "command": tuple(fields["check"]["command"])}
        check["kind"] = model.CheckKind(check["kind"])
        fields |= {
            "key": model.EnvironmentKey(**fields["key"]),
            "run": tuple(fields["run"]),
            "check": model.Check(**check),
            "limits": model.Limits(**fields["limits"]),
            "secrets": tuple(model.SecretVersion(**secret) for secret in fields.get("secrets", ())),
            "verify": _verify(fields.get("verify")),
            "environment": (),
        }
        return Spec(group=model.InstanceGroup(**fields), port=content["port"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _verify(fields: dict[str, Any] | None) -> model.Verify | None:
    if fields is None:
        return None
    smoke = tuple(model.Smoke(**one) for one in fields["smoke"])
    return model.Verify(**{**fields, "run": tuple(fields["run"]), "smoke": smoke})


# --- what is true now ---------------------------------------------------------------------------------


def look(layout: Layout, group_id: str, index: int) -> Look | None:
    """The instance as it is now; None: it has no folder."""
    folder = layout.instance(group_id, index)
    if not folder.is_dir():
        return None
    boot, name = procfs.boot_id(), f"{group_id}.{index}"
    shim = shim_of(folder)
    state = plans.read_state(str(folder))
    app = None if state is None else plans.app_of(state, boot)
    if (
        state is None and shim is None
    ):  # no shim, no readable word of it: only the marks of a process can tell
        marks = dict(zip(plans.MARKS, (name, str(layout.temporary_of(name))), strict=True))
        app = procfs.first_leader(procfs.marked(procfs.every(), marks))
    return Look(
        name=name,
        group_id=group_id,
        index=index,
        folder=folder,
        spec=read_spec(folder),
        state=state,
        boot=boot,
        shim=shim,
        app=app if app is not None and procfs.alive(app) else None,
        stopping=(folder / plans.STOP).exists(),
    )


def shim_of(folder: Path) -> int | None:
    """Process id of the shim that holds the instance's lock, as the kernel names it; None: nobody does."""
    try:
        handle = os.open(folder / plans.LOCK, os.O_RDWR)
    except OSError:
        return None
    try:
        question = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(handle, fcntl.F_GETLK, question))
    finally:
        os.close(handle)
    return None if kind == fcntl.F_UNLCK else int(pid)


# --- the end ------------------------------------------------------------------------------------------


def sweep(layout: Layout, seen: Look, *, kept_groups: int) -> None:
    """Put away what is left of an instance that was stopped and is gone: its last output is kept.

    Called under the lock. OSError if the disk refuses; then it is tried again later.
    """
    logs = layout.logs / seen.group_id
    logs.mkdir(mode=0o700, parents=True, exist_ok=True)
    for suffix in (".1", ""):
        with contextlib.suppress(FileNotFoundError):
            (seen.folder / f"{plans.OUTPUT}{suffix}").replace(logs / f"{seen.index}.log{suffix}")
    shutil.rmtree(layout.temporary_of(seen.name), ignore_errors=True)
    shutil.rmtree(seen.folder)
    with contextlib.suppress(OSError):  # other instances are left
        seen.folder.parent.rmdir()
    _forget_oldest(layout, kept_groups)


def _forget_oldest(layout: Layout, kept_groups: int) -> None:
    kept = sorted(layout.logs.iterdir(), key=lambda folder: folder.stat().st_mtime, reverse=True)
    for folder in kept[kept_groups:]:
        shutil.rmtree(folder, ignore_errors=True)


def outputs(layout: Layout, group_id: str) -> dict[int, Path]:
    """Output files of a group by index: those of its instances, else those that were kept."""
    if not _GROUP_ID.fullmatch(group_id):
        return {}
    found = {}
    with contextlib.suppress(OSError):
        for file in (layout.logs / group_id).iterdir():
            if file.suffix == ".log" and file.stem.isdecimal():
                found[int(file.stem)] = file
    for index in layout.indexes(group_id):
        file = layout.instance(group_id, index) / plans.OUTPUT
        if file.exists():
            found[index] = file
    return dict(sorted(found.items()))


def last_output(layout: Layout, group_id: str, count: int) -> dict[int, list[str]]:
    """The last lines of each instance's output, oldest first; of a file that vanishes meanwhile, none."""
    found = {}
    for index, file in outputs(layout, group_id).items():
        with contextlib.suppress(OSError):
            found[index] = output.last_lines(str(file), count)
    return found

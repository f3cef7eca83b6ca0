"""The folder that the database lives in: whose it is, who has it open, and the room kept for bad days.

Hides permissions, the lock file, the kinds of file system, and the ballast. Invariants:

- one control plane per database: the lock is the kernel's, so it ends with the process, however that ends;
- what is created here is readable by its owner only;
- the ballast is only ever made when twice its size is free, so that it never causes what it is for.

Never opens the database file once SQLite has it: closing such a descriptor would drop SQLite's own locks.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tidegate import errors

PRIVATE_FOLDER: Final = 0o700
PRIVATE_FILE: Final = 0o600

#: SQLite's write-ahead log needs memory shared by all who have the file open: not possible over a network,
#: nor (in general) through a program in user space.
NETWORK_FILE_SYSTEMS: Final = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "9p", "ceph", "glusterfs", "lustre", "gpfs"}
    | {"beegfs", "ocfs2", "gfs2", "orangefs", "fuse"}
)

_MOUNTS: Final = Path("/proc/self/mountinfo")


def prepare(folder: Path) -> None:
    """Make the folder if it is not there. Raises StorageError if it cannot hold a database."""
    try:
        folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
    except OSError as error:
        raise _unusable(folder, error) from error
    kind = filesystem_type(_MOUNTS.read_text() if _MOUNTS.exists() else "", folder.resolve())
    if is_network(kind):
        raise errors.StorageError(
            f"The data folder {folder} is on a network file system ({kind}), where SQLite can lose data.",
            hint="Use a folder on a disk of this machine.",
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _unusable(folder, PermissionError(errno.EACCES, os.strerror(errno.EACCES)))


def create(path: Path) -> None:
    """Make an empty private file, and its name durable, unless there is one. Raises OSError."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE))
        sync(path.parent)


def sync(path: Path) -> None:
    """Make a closed file's content, or a folder's names, survive a power cut. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def filesystem_type(mounts: str, path: Path) -> str:
    """Type of the file system that holds the absolute path, from the text of mountinfo; empty: unknown."""
    best, kind = -1, ""
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        columns = left.split(" ")
        if len(columns) > 4 and right:  # noqa: PLR2004 (proc_pid_mountinfo(5): the fifth is the mount point)
            point = Path(_unescaped(columns[4]))
            depth = len(point.parts)
            if depth >= best and path.is_relative_to(point):
                best, kind = depth, right.partition(" ")[0]
    return kind


def is_network(kind: str) -> bool:
    """Whether a file system of this type keeps its files elsewhere; `fuse.*` may, so it counts."""
    return kind.partition(".")[0] in NETWORK_FILE_SYSTEMS


def free_bytes(folder: Path) -> int:
    """Room for us on the folder's disk; 0 if it cannot be told."""
    try:
        status = os.statvfs(folder)
    except OSError:
        return 0
    return status.f_bavail * status.f_frsize


class Lock:
    """The right of this process to the database, for as long as it lives."""

    def __init__(self, path: Path) -> None:
        """Take the lock. Raises LeaseHeldError with the pid of its holder, StorageError."""
        try:
            self._descriptor = os.open(
                path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, PRIVATE_FILE
            )
        except OSError as error:
            raise _unusable(path.parent, error) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._descriptor, 32, 0).decode("ascii", "replace").strip()
            os.close(self._descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise _unusable(path.parent, error) from error
            who = f"process {holder}" if re.fullmatch(r"[0-9]+", holder) else "another process"
            raise errors.LeaseHeldError(
                f"The data folder {path.parent} is in use by {who}.",
                hint="Stop that control plane with `tide down`, or use another data folder.",
            ) from error
        self._note(f"{os.getpid()}\n")

    def close(self) -> None:
        """Give the lock back. The file stays: to unlink it would let two hold a lock of that name."""
        self._note("")
        os.close(self._descriptor)

    def _note(self, text: str) -> None:
        # A courtesy to whoever meets the lock; on a full disk it is the lock that counts.
        with contextlib.suppress(OSError):
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, text.encode(), 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ballast:
    """Room on the disk that is given up when it is full, so that an abort can still be recorded."""

    path: Path
    size_bytes: int

    @property
    def exists(self) -> bool:
        return self.path.exists()

    def ensure(self) -> None:
        """Make it, if it is not there and there is plenty of room."""
        if self.size_bytes <= 0 or self.exists or free_bytes(self.path.parent) < 2 * self.size_bytes:
            return
        with contextlib.suppress(OSError):
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, PRIVATE_FILE)
            try:
                os.posix_fallocate(descriptor, 0, self.size_bytes)
            except OSError:
                self.path.unlink(missing_ok=True)
            finally:
                os.close(descriptor)

    def release(self) -> bool:
        """Give it up; whether there was any."""
        try:
            self.path.unlink()
        except OSError:
            return False
        return True


def _unusable(folder: Path, error: OSError) -> errors.StorageError:
    return errors.StorageError(
        f"The data folder {folder} cannot be used: {error.strerror}.",
        hint="It must be a folder that the user of the control plane may read and write.",
    )


def _unescaped(text: str) -> str:
    """Of mountinfo's octal escapes: a space is 040 after a backslash."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)

"""Folders through file descriptors, and what an error of the disk means to a person.

Every step goes from an open folder to a name in it, never along a path and never through a link, so that
nobody who changes the tree meanwhile can lead it elsewhere. Nothing here knows what a package is.
Neighbours: `folder` reads with it, `unpack` and `content` write with it.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tidegate.errors import StorageError

FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
NEW_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

WHY = {
    errno.ENOSPC: ("the disk is full", "Free some space there and try again."),
    errno.EDQUOT: ("the disk quota is used up", "Free some space there and try again."),
    errno.EFBIG: ("a file would be bigger than allowed here", "Raise the file size limit (ulimit -f)."),
    errno.EACCES: ("permission denied", "Let the user who runs Tidegate own that folder."),
    errno.EPERM: ("permission denied", "Let the user who runs Tidegate own that folder."),
    errno.EROFS: ("the file system is read-only", "Mount it writable, or choose another folder."),
    errno.EMFILE: ("too many open files", "Raise the limit of open files (ulimit -n)."),
    errno.ENOENT: ("it is not there", "Create it, or choose another folder."),
    errno.ENOTDIR: ("it is not a folder", "Move that file away, or choose another folder."),
}


@contextmanager
def storage_errors(doing: str, path: Path) -> Iterator[None]:
    """Turn an `OSError` inside into a `StorageError` such as `Cannot <doing> <path>: the disk is full`."""
    try:
        yield
    except OSError as error:
        why, hint = WHY.get(error.errno or 0, (error.strerror or str(error), None))
        raise StorageError(f"Cannot {doing} {path}: {why}.", hint=hint) from error


@contextmanager
def opened(path: str | Path, flags: int = FOLDER_FLAGS, *, dir_fd: int | None = None) -> Iterator[int]:
    """A file descriptor, closed at the end; a folder unless other flags are given."""
    descriptor = os.open(path, flags, 0o600, dir_fd=dir_fd)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def opened_below(root_fd: int, path: str) -> Iterator[int]:
    """The folder at a `/`-separated path below an open one (`""`: itself), no link followed on the way."""
    with ExitStack() as stack:
        descriptor = root_fd
        for name in filter(None, path.split("/")):
            descriptor = stack.enter_context(opened(name, dir_fd=descriptor))
        yield descriptor


def names(folder_fd: int) -> list[str]:
    """Everything in an open folder, in no order."""
    with os.scandir(folder_fd) as entries:
        return [entry.name for entry in entries]


def write_all(descriptor: int, data: bytes) -> None:
    """Write every byte; a disk that is nearly full takes only some at first."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def sync_file_system(path: Path) -> None:
    """Put everything on the disk that was written so far to the file system that holds this folder.

    One call for a whole tree: `fsync` for each of 20 000 files takes minutes on a disk that honours it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with opened(path) as descriptor:
        if libc.syncfs(descriptor) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut."""
    with opened(path) as descriptor:
        os.fsync(descriptor)


def remove_tree(name: str, *, dir_fd: int) -> None:
    """Remove a file, a link itself, or a folder with all that is in it, also where it is read-only."""
    if not stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=dir_fd)
        return
    with opened(name, dir_fd=dir_fd) as descriptor:
        os.fchmod(descriptor, 0o700)
        for child in names(descriptor):
            remove_tree(child, dir_fd=descriptor)
    os.rmdir(name, dir_fd=dir_fd)

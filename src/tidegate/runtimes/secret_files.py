"""Secrets that an app reads from files: in memory, for as long as its instance lives.

Hides where memory can be used as files, and who may read there. A folder for each instance lies in a folder
of Tidegate's own; the app's user may read the files in it, and change nothing about the folder. The shim
makes them before each start of the app and removes them at the instance's end. Standard library only.

Invariants: nothing is ever written where it could reach a disk (swap excepted); nothing is followed or used
that somebody else has put there. Neighbours: process.py (chooses the place), shim.py.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Mapping

_IN_MEMORY = frozenset({"tmpfs", "ramfs"})


def places(mounts: str = "/proc/self/mounts") -> list[str]:
    """Folders in memory in which we might be allowed to make one, those that fewer may write to first."""
    candidates = ["/run", f"/run/user/{os.geteuid()}", "/dev/shm"]  # noqa: S108 - what is found is checked
    kinds: dict[str, str] = {}
    with contextlib.suppress(OSError), open(mounts, encoding="utf-8", errors="replace") as file:
        for line in file:
            _, mount, kind, *_ = line.split()
            kinds[mount.rstrip("/")] = kind
    return [place for place in candidates if _kind(place, kinds) in _IN_MEMORY]


def _kind(place: str, kinds: Mapping[str, str]) -> str:
    """Of the file system that holds the place."""
    while place and place not in kinds:
        place = place.rpartition("/")[0]
    return kinds.get(place, "")


def base(name: str, candidates: Iterable[str]) -> str | None:
    """Our own folder of that name, in the first place that lets us have it; None: nowhere."""
    for place in candidates:
        path = at(place, name)
        with contextlib.suppress(OSError):
            _make_own(path)
            return path
    return None


def at(place: str, name: str) -> str:
    """Where our own folder of that name is in this place, if it is there."""
    return f"{place}/tidegate-{name}"


def give(folder: str, files: Mapping[str, str], *, user: int | None, group: int | None) -> None:
    """Write the files, readable for that user alone. OSError if that is refused."""
    _make_own(os.path.dirname(folder))  # it goes with the last instance that had files in it
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder, 0o700)
    if group is not None:
        os.chown(folder, -1, group)
        os.chmod(folder, 0o710)  # noqa: S103 - the app's own group passes through
    for name, content in files.items():
        path = f"{folder}/{name}"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o400)
        with open(handle, "wb") as file:
            file.write(content.encode("utf-8", "surrogateescape"))
            if user is not None and group is not None:
                os.fchown(handle, user, group)


def take_away(folder: str) -> None:
    """Remove them; nothing happens if they are gone."""
    around = os.path.dirname(folder)
    with contextlib.suppress(OSError):
        if _is_own(around):
            with contextlib.suppress(FileNotFoundError):
                for name in os.listdir(folder):
                    os.unlink(f"{folder}/{name}")
                os.rmdir(folder)
            os.rmdir(around)  # refused while others have files in it


def _make_own(path: str) -> None:
    """Make the folder that the folders of instances lie in. OSError if it is somebody else's."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o711)
    if not _is_own(path):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), path)
    os.chmod(path, 0o711)  # noqa: S103 - apps pass through, and cannot list what is there


def _is_own(path: str) -> bool:
    """Whether nobody else can have put anything there. OSError if there is nothing."""
    found = os.lstat(path)
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022

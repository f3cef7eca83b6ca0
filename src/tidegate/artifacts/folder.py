"""A folder on disk, member by member, in the order of an archive.

One walk serves three readers: packing (`emit` into a compressor), verifying (`emit` into a hash, with
`require_sealed`) and naming what is different (`differences`). Nothing is followed: links are read, files are
opened only when they are what the walk saw. Memory does not grow with the size of files.
Neighbours: `members` judges each member, `archive` renders it, `package` and `content` run it.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice

from tidegate.artifacts import archive, disk
from tidegate.artifacts.members import (
    MIB,
    Census,
    Kind,
    Member,
    PackageLimits,
    refusal,
    shown,
    vet_path,
    vet_target,
)
from tidegate.errors import ArtifactError

READ_BYTES = MIB

SEALED_FOLDER_MODE = 0o555
SEALED_FILE_MODE = 0o444
SEALED_EXECUTABLE_MODE = 0o555

FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
"""Non-blocking, because a file that was swapped for a named pipe would hang us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Something in a folder, not yet judged."""

    path: str
    """Relative to the root; bytes that are not UTF-8 are lone surrogates, as `os.fsdecode` makes them."""
    name: str
    folder_fd: int
    """Open folder that holds it; valid until the walk goes on."""
    status: os.stat_result
    """Of the thing itself, links not followed."""


def walk(
    root_fd: int, limits: PackageLimits, *, enter: Callable[[str], bool] = lambda _: True
) -> Generator[Found]:
    """Everything below an open folder, depth first, names by their bytes.

    `enter(path)` is asked after a folder was handed out: whether to go into it.

    Raises:
        ArtifactError: a folder cannot be read, or has more entries than a whole package may have.
    """
    levels: list[tuple[str, int, Iterator[str]]] = []

    def descend(prefix: str, name: str, parent_fd: int) -> None:
        with _reading_errors(prefix or "."):
            folder_fd = os.open(name, disk.FOLDER_FLAGS, dir_fd=parent_fd)
            levels.append((prefix, folder_fd, iter(())))
            levels[-1] = (prefix, folder_fd, iter(_names(prefix, folder_fd, limits)))

    try:
        descend("", ".", root_fd)
        while levels:
            prefix, folder_fd, names = levels[-1]
            name = next(names, None)
            if name is None:
                os.close(levels.pop()[1])
                continue
            path = prefix + name
            with _reading_errors(path):
                status = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
            yield Found(path=path, name=name, folder_fd=folder_fd, status=status)
            if stat.S_ISDIR(status.st_mode) and enter(path):
                descend(f"{path}/", name, folder_fd)
    finally:
        for _, folder_fd, _ in levels:
            os.close(folder_fd)


def _names(prefix: str, folder_fd: int, limits: PackageLimits) -> list[str]:
    with os.scandir(folder_fd) as entries:
        names = [entry.name for entry in islice(entries, limits.members_max + 1)]
    if len(names) > limits.members_max:
        raise refusal(prefix or ".", f"holds more than {limits.members_max} members, as many as are allowed")
    return sorted(names, key=os.fsencode)


@contextmanager
def _reading_errors(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise refusal(
            os.fsencode(path),
            f"cannot be read ({error.strerror or error})",
            "Make it readable for the user who runs this command.",
        ) from error


def describe(found: Found, limits: PackageLimits) -> Member:
    """The member that this would be in a package.

    Raises:
        ArtifactError: it cannot be one.
    """
    path = vet_path(os.fsencode(found.path), limits)
    mode = found.status.st_mode
    if stat.S_ISREG(mode):
        # The owner's bit decides, as in git: the others depend on the umask of whoever built it.
        executable = bool(mode & stat.S_IXUSR)
        return Member(path=path, kind=Kind.FILE, executable=executable, size_bytes=found.status.st_size)
    if stat.S_ISDIR(mode):
        return Member(path=path, kind=Kind.FOLDER)
    if stat.S_ISLNK(mode):
        with _reading_errors(path):
            target = os.fsencode(os.readlink(found.name, dir_fd=found.folder_fd))
        return Member(path=path, kind=Kind.LINK, target=vet_target(path, target, limits))
    raise refusal(
        path,
        f"is a {_special_name(mode)}",
        "Packages hold files, folders and links; the service can create it.",
    )


def _special_name(mode: int) -> str:
    names = ((stat.S_ISSOCK, "socket"), (stat.S_ISFIFO, "named pipe"), (stat.S_ISCHR, "character device"))
    return next((name for is_that, name in names if is_that(mode)), "block device")


def content(found: Found) -> Iterator[bytes]:
    """The bytes of a file, in pieces of at most 1 MiB, as many as its status says.

    Raises:
        ArtifactError: it cannot be read, is not the file that the walk saw, or changed while it was read.
    """
    with (
        _reading_errors(found.path),
        disk.opened(found.name, FILE_FLAGS, dir_fd=found.folder_fd) as descriptor,
    ):
        _require_same(found, os.fstat(descriptor))
        left = found.status.st_size
        while left:
            piece = os.read(descriptor, min(left, READ_BYTES))
            if not piece:
                break
            left -= len(piece)
            yield piece
        _require_same(found, os.fstat(descriptor), complete=left == 0)


def _require_same(found: Found, now: os.stat_result, *, complete: bool = True) -> None:
    def identity(status: os.stat_result) -> tuple[int, ...]:
        return status.st_dev, status.st_ino, status.st_mode, status.st_size, status.st_mtime_ns

    if not complete or identity(now) != identity(found.status):
        raise refusal(
            found.path, "changed while it was read", "Is a build or an editor still writing into the folder?"
        )


def require_sealed(found: Found) -> None:
    """Refuse what has other permissions than the store gave it.

    Raises:
        ArtifactError: naming both.
    """
    mode = found.status.st_mode
    if stat.S_ISLNK(mode):
        return
    expected = {SEALED_FOLDER_MODE} if stat.S_ISDIR(mode) else {SEALED_FILE_MODE, SEALED_EXECUTABLE_MODE}
    if stat.S_IMODE(mode) not in expected:
        raise refusal(found.path, f"has mode {stat.S_IMODE(mode):04o}, which is not what the store gave it")


def emit(
    root_fd: int,
    sink: Callable[[bytes], object],
    limits: PackageLimits,
    judge: Callable[[Found], None] = lambda _: None,
) -> Census:
    """Write the canonical archive of an open folder into `sink`, piece by piece.

    `judge` may refuse what was found before it is read.

    Raises:
        ArtifactError: something in the folder cannot be in a package, or cannot be read.
    """
    census = Census(limits)
    with closing(walk(root_fd, limits)) as everything:
        for found in everything:
            judge(found)
            member = describe(found, limits)
            census.admit(member)
            sink(archive.header(member))
            if member.kind is Kind.FILE:
                for piece in content(found):
                    sink(piece)
                sink(archive.padding(member.size_bytes))
    census.finish()
    sink(archive.END)
    return census


def differences(
    root_fd: int, members: Iterable[tuple[Member, Iterator[bytes]]], limits: PackageLimits
) -> Iterator[str]:
    """What an open, sealed folder has otherwise than an archive: `'bin/api' has other content`.

    Raises:
        ArtifactError: from reading the archive.
    """
    expected = {member.path: (member, _sha256(content)) for member, content in members}
    folders = {path for path, (member, _) in expected.items() if member.kind is Kind.FOLDER}
    if stat.S_IMODE(os.fstat(root_fd).st_mode) != SEALED_FOLDER_MODE:
        yield "its root folder has another mode"
    try:
        with closing(walk(root_fd, limits, enter=folders.__contains__)) as everything:
            for found in everything:
                wanted = expected.pop(found.path, None)
                change = "was added" if wanted is None else _change(found, *wanted, limits)
                if change:
                    yield f"{shown(os.fsencode(found.path))} {change}"
    except ArtifactError as error:
        yield f"not all of it can be read ({error.message})"
        return
    for path in expected:
        yield f"{shown(path)} is missing"


def _change(found: Found, wanted: Member, sha256: bytes, limits: PackageLimits) -> str:
    """How a thing on disk differs from the member it should be; empty if it does not."""
    try:
        member = describe(found, limits)
        if member.kind is not wanted.kind:
            return f"is a {member.kind.value}, not a {wanted.kind.value}"
        if member.target != wanted.target:
            return f"points to {shown(member.target)}, not to {shown(wanted.target)}"
        if member.size_bytes != wanted.size_bytes:
            return f"has {member.size_bytes} bytes, not {wanted.size_bytes}"
        if member.kind is Kind.FILE and _sha256(content(found)) != sha256:
            return "has other content"
        mode = stat.S_IMODE(found.status.st_mode)
        if member.kind is not Kind.LINK and mode != sealed_mode(wanted):
            return f"has mode {mode:04o}, not {sealed_mode(wanted):04o}"
    except ArtifactError as error:
        return f"cannot be compared ({error.message})"
    return ""


def sealed_mode(member: Member) -> int:
    """The permissions of a file or folder in the store: everybody reads, nobody writes."""
    if member.kind is Kind.FOLDER:
        return SEALED_FOLDER_MODE
    return SEALED_EXECUTABLE_MODE if member.executable else SEALED_FILE_MODE


def _sha256(pieces: Iterable[bytes]) -> bytes:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.digest()

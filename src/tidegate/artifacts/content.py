"""The packages on this machine, by digest: unpacked and read-only, checked before use.

Layout of the root (0711, so that an app that runs as another user can reach its own tree by its name, and
cannot list the others):

    <64 hex digits>/tree/              what was packed: folders and programs 0555, files 0444
    <64 hex digits>/archive.tar.zst    what came in; goes to other machines, and repairs the tree
    <64 hex digits>/damaged-<random>/  a tree that was repaired; instances may still run from it
    incoming-<random>/                 0700, locked by whoever fills or empties it

Invariants: a package appears whole, by one rename, or not at all; what a crash leaves is an `incoming` folder
without a lock, which the next start removes; nothing with a digest's name has another content unless
somebody changed it afterwards, which `verify` finds.
Neighbours: `unpack` writes the tree, `folder` checks it; the daemon decides what to keep, runtimes ask for
`path`.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from tidegate.artifacts import disk, folder, transport
from tidegate.artifacts.archive import ArchiveReader, Package
from tidegate.artifacts.members import PackageLimits, shown
from tidegate.artifacts.unpack import unpack
from tidegate.errors import ArtifactError, NotFoundError, StorageError

TREE = "tree"
ARCHIVE = "archive.tar.zst"
INCOMING = "incoming-"
DAMAGED = "damaged-"
HEX = re.compile(r"[0-9a-f]{64}")

TRAVERSABLE_MODE = 0o711
ARCHIVE_MODE = 0o400

GRACE_S = 3600.0
"""A package is stored before its release is recorded; within this time nobody can tell that it is unused."""

DIFFERENCES_SHOWN = 5


class ContentStore:
    """Packages by digest in one folder. Processes and threads may use the same one at the same time."""

    def __init__(self, root: Path, *, limits: PackageLimits | None = None) -> None:
        """Makes the folder if it is missing, and removes what crashes have left in it.

        Raises:
            StorageError: the folder cannot be used.
        """
        self._root = root
        self._limits = limits or PackageLimits()
        with disk.storage_errors("use the package store", root):
            root.mkdir(parents=True, exist_ok=True)
            root.chmod(TRAVERSABLE_MODE)
        self.sweep()

    def add(self, stream: transport.Readable, *, digest: str | None = None) -> Package:
        """Take a package as `package.pack` writes it, from front to back; adding it again changes nothing.

        Args:
            stream: the zstd archive, from anybody.
            digest: what it must be, if that is known.

        Raises:
            ArtifactError: hostile, damaged, too big, or another digest; nothing is left behind.
            StorageError: it cannot be written; nothing is left behind.
        """
        expected = None if digest is None else _hex(digest)
        with disk.storage_errors("store the package in", self._root), self._incoming() as incoming:
            fresh = incoming / "package"
            _make_folder(fresh, TRAVERSABLE_MODE)
            with (fresh / ARCHIVE).open("xb") as copy:
                package = self._unpack(_Tee(stream, copy.write, self._root), fresh / TREE, expected)
                os.fchmod(copy.fileno(), ARCHIVE_MODE)
            disk.sync_file_system(fresh)
            self._publish(fresh, package.digest)
        return package

    def path(self, digest: str) -> Path:
        """The unpacked, read-only tree. It is not checked here: see `verify`.

        Raises:
            NotFoundError: it is not on this machine.
            ArtifactError: this is no digest.
        """
        return self._existing(digest, TREE)

    def archive(self, digest: str) -> Path:
        """The zstd archive, for another machine; raises as `path`."""
        return self._existing(digest, ARCHIVE)

    def verify(self, digest: str) -> None:
        """Read the whole tree and compare it with its digest: content, permissions, missing and added files.

        Raises:
            StorageError: it is not what was packed; the differences are named.
            NotFoundError: it is not on this machine.
            ArtifactError: this is no digest.
        """
        tree = self._existing(digest, TREE)
        with disk.storage_errors("check the package in", tree):
            if not os.path.lexists(tree):
                raise _damaged(digest, ["its files are missing"])
            with disk.opened(tree) as root_fd:
                if not self._is_intact(root_fd, digest):
                    raise _damaged(digest, self._differences(root_fd, digest))

    def verify_archive(self, digest: str) -> None:
        """Read the kept archive and compare it with its digest: what `repair` and other machines rely on.

        Raises:
            ArtifactError: it is damaged, or this is no digest.
            StorageError: it cannot be read.
            NotFoundError: the package is not on this machine.
        """
        archive = self._existing(digest, ARCHIVE)
        with disk.storage_errors("check the archive of the package in", archive):
            with archive.open("rb") as stream:
                reader = ArchiveReader(transport.inflate(stream, self._limits), self._limits)
                for _ in reader.members():
                    pass  # what is not read is hashed all the same
            if reader.package.digest != digest:
                raise ArtifactError(
                    f"The archive of {digest} holds another package: {reader.package.digest}.",
                    hint="Remove the package, and deploy its source again.",
                )

    def repair(self, digest: str) -> None:
        """Unpack the kept archive again, beside a damaged tree, and put it in its place.

        The damaged tree stays until the package is removed, because instances may run from it.

        Raises:
            ArtifactError: the archive is damaged too.
            NotFoundError: the package is not on this machine.
            StorageError: it cannot be written.
        """
        archive = self._existing(digest, ARCHIVE)
        place = self._place(digest)
        with disk.storage_errors("repair the package in", place), self._incoming() as incoming:
            with archive.open("rb") as stream:
                self._unpack(stream, incoming / TREE, _hex(digest))
            (incoming / TREE).chmod(0o700)  # a sealed folder can be renamed, but not moved to another one
            disk.sync_file_system(incoming)
            with self._locked():
                if os.path.lexists(place / TREE):
                    (place / TREE).rename(place / f"{DAMAGED}{secrets.token_hex(8)}")
                (incoming / TREE).rename(place / TREE)
                with disk.opened(place / TREE) as tree_fd:
                    os.fchmod(tree_fd, folder.SEALED_FOLDER_MODE)
                    os.fsync(tree_fd)
                disk.sync_folder(place)

    def digests(self) -> tuple[str, ...]:
        """All packages that are here, sorted.

        Raises:
            StorageError: the store cannot be read.
        """
        with disk.storage_errors("read the package store", self._root):
            names = [place.name for place in self._root.iterdir()]
        return tuple(sorted(f"sha256:{name}" for name in names if HEX.fullmatch(name)))

    def remove(self, digest: str) -> None:
        """Remove a package; nothing happens if it is not here.

        Raises:
            ArtifactError: this is no digest.
            StorageError: it cannot be removed.
        """
        self._remove(digest, younger_than_s=None)

    def collect(self, keep: Collection[str], *, grace_s: float = GRACE_S) -> tuple[str, ...]:
        """Remove every package that is neither kept nor younger than `grace_s`.

        `keep` is all that the history can go back to. The answer is what was removed, sorted.

        Raises:
            ArtifactError: `keep` holds something that is no digest; nothing was removed.
            StorageError: something cannot be removed.
        """
        kept = {_hex(digest) for digest in keep}
        candidates = [digest for digest in self.digests() if _hex(digest) not in kept]
        return tuple(digest for digest in candidates if self._remove(digest, younger_than_s=grace_s))

    def sweep(self) -> None:
        """Remove what crashed processes have left; what living ones fill or empty stays.

        Raises:
            StorageError: it cannot be removed.
        """
        with disk.storage_errors("clean up in", self._root), disk.opened(self._root) as root_fd:
            for name in disk.names(root_fd):
                if name.startswith(INCOMING):
                    self._sweep_one(name, root_fd)

    @staticmethod
    def _sweep_one(name: str, root_fd: int) -> None:
        try:
            with disk.opened(name, dir_fd=root_fd) as descriptor:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                disk.remove_tree(name, dir_fd=root_fd)
        except (BlockingIOError, FileNotFoundError):
            return  # somebody works in it, or was faster

    def _place(self, digest: str) -> Path:
        return self._root / _hex(digest)

    def _existing(self, digest: str, part: str) -> Path:
        place = self._place(digest)
        with disk.storage_errors("read the package store", self._root):
            if not place.is_dir():
                raise NotFoundError(
                    f"The package {digest} is not on this machine.", hint="Deploy its release again."
                )
        return place / part

    def _unpack(self, stream: transport.Readable, tree: Path, expected: str | None) -> Package:
        """Fill and seal a new folder; everything is checked before it returns."""
        reader = ArchiveReader(transport.inflate(stream, self._limits), self._limits)
        _make_folder(tree, 0o700)
        with disk.opened(tree) as root_fd:
            unpack(reader, root_fd)
        package = reader.package
        if expected is not None and package.digest != f"sha256:{expected}":
            raise ArtifactError(
                f"Package refused: its digest is {package.digest}, not sha256:{expected} as announced.",
                hint="It was changed or damaged on the way: send it again.",
            )
        return package

    def _publish(self, fresh: Path, digest: str) -> None:
        place = self._place(digest)
        with self._locked() as root_fd:
            if place.exists():
                os.utime(place)  # its grace begins anew: somebody is about to use it
            else:
                fresh.rename(place)
                os.fsync(root_fd)

    def _remove(self, digest: str, *, younger_than_s: float | None) -> bool:
        """Whether it was there, and old enough."""
        place = self._place(digest)
        with (
            disk.storage_errors("remove the package in", place),
            self._incoming() as incoming,
            self._locked() as root_fd,
        ):
            if not place.exists():
                return False
            # The wall clock is all that survives a restart; a jump of it costs the grace, no kept package.
            if younger_than_s is not None and time.time() - place.stat().st_mtime < younger_than_s:
                return False
            place.rename(incoming / "package")
            os.fsync(root_fd)
        return True

    @contextmanager
    def _locked(self) -> Iterator[int]:
        """Nobody else publishes or removes meanwhile. Held for a rename, never for reading or writing."""
        with disk.opened(self._root) as root_fd:
            fcntl.flock(root_fd, fcntl.LOCK_EX)
            yield root_fd

    @contextmanager
    def _incoming(self) -> Iterator[Path]:
        """A new private folder, locked as long as we live, gone afterwards with all that is still in it."""
        with disk.opened(self._root) as root_fd:
            while True:
                place = Path(tempfile.mkdtemp(prefix=INCOMING, dir=self._root))
                descriptor = _lock_own(place)
                if descriptor is not None:
                    break
            try:
                yield place
            finally:
                try:
                    disk.remove_tree(place.name, dir_fd=root_fd)
                finally:
                    os.close(descriptor)

    def _is_intact(self, root_fd: int, digest: str) -> bool:
        sha256 = hashlib.sha256()
        try:
            folder.emit(root_fd, sha256.update, self._limits, folder.require_sealed)
        except ArtifactError:
            return False
        root_is_sealed = os.fstat(root_fd).st_mode & 0o7777 == folder.SEALED_FOLDER_MODE
        return root_is_sealed and sha256.hexdigest() == _hex(digest)

    def _differences(self, root_fd: int, digest: str) -> list[str]:
        """What is wrong with a damaged tree: the first few things, by name."""
        with self.archive(digest).open("rb") as stream:
            reader = ArchiveReader(transport.inflate(stream, self._limits), self._limits)
            try:
                found = folder.differences(root_fd, reader.members(), self._limits)
                return list(islice(found, DIFFERENCES_SHOWN + 1))
            except ArtifactError as error:
                return [f"its archive is damaged too ({error.message})"]


class _Tee:
    """Hands on what is read, after writing it down; an error of the disk is told from one of the stream."""

    def __init__(self, stream: transport.Readable, copy: Callable[[bytes], object], path: Path) -> None:
        self._stream = stream
        self._copy = copy
        self._path = path

    def read(self, size: int, /) -> bytes:
        piece = self._stream.read(size)
        with disk.storage_errors("store the package in", self._path):
            self._copy(piece)
        return piece


def _damaged(digest: str, found: list[str]) -> StorageError:
    more = ["and more"] if len(found) > DIFFERENCES_SHOWN else []
    what = "; ".join([*found[:DIFFERENCES_SHOWN], *more]) or "it changed while it was read"
    return StorageError(
        f"The package {digest} on this machine is not what was built: {what}.",
        hint="Repair it from the archive that was kept with it, or remove it and deploy the release again.",
    )


def _hex(digest: str) -> str:
    """The hex digits of a digest, which are safe as a file name."""
    algorithm, _, digits = digest.partition(":")
    if algorithm != "sha256" or not HEX.fullmatch(digits):
        raise ArtifactError(f"{shown(digest)} is not a digest: sha256: and 64 hex digits.")
    return digits


def _make_folder(path: Path, mode: int) -> None:
    path.mkdir()
    path.chmod(mode)  # mkdir's own mode is cut by the umask


def _lock_own(place: Path) -> int | None:
    """Lock a folder just made; None if a sweep was faster (it takes what is not locked yet)."""
    try:
        descriptor = os.open(place, disk.FOLDER_FLAGS)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if place.exists():
            return descriptor
    except BlockingIOError:
        pass
    os.close(descriptor)
    return None

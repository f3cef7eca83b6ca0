"""From a folder to a package: one archive, one digest, the same on any machine.

Hides in what order and with what permissions things are written. The identity is the sha256 of the archive
*before* compression (`archive`), so that a new zstd does not make a new artifact of the same files.
Neighbours: `folder` walks, `transport` compresses, `content` takes what comes out.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tidegate.artifacts import disk, folder, transport
from tidegate.artifacts.archive import Package, package_of
from tidegate.artifacts.members import PackageLimits
from tidegate.errors import ArtifactError

__all__ = ["Package", "pack"]


def pack(
    source: Path,
    out: transport.Writable | Path,
    *,
    limits: PackageLimits | None = None,
    progress: Callable[[int], None] | None = None,
) -> Package:
    """Pack a folder into a zstd archive, streaming.

    Args:
        source: the folder; only its content is packed, not its name.
        out: a binary stream, or a file that appears when it is complete and not before.
        limits: how big the package may be.
        progress: called with the number of archive bytes (before compression) so far.

    Raises:
        ArtifactError: the folder is missing or empty, or holds what a package must not: named, with a hint.
        StorageError: `out` cannot be written.
    """
    if not isinstance(out, Path):
        return _pack_into(source, out, limits or PackageLimits(), progress)
    if out.absolute().parent.resolve().is_relative_to(source.resolve()):
        raise ArtifactError(f"The package {out} would be part of itself.", hint="Write it elsewhere.")
    with disk.storage_errors("write", out), _appearing(out) as stream:
        return _pack_into(source, stream, limits or PackageLimits(), progress)


def _pack_into(
    source: Path, out: transport.Writable, limits: PackageLimits, progress: Callable[[int], None] | None
) -> Package:
    sha256 = hashlib.sha256()
    deflater = transport.Deflater(_Stream(out), limits)
    done_bytes = 0

    def sink(data: bytes) -> None:
        nonlocal done_bytes
        sha256.update(data)
        deflater.write(data)
        done_bytes += len(data)
        if progress is not None:
            progress(done_bytes)

    with _opened_source(source) as root_fd:
        census = folder.emit(root_fd, sink, limits)
    deflater.finish()
    return package_of(sha256.hexdigest(), census)


class _Stream:
    """The stream that is written, with its errors told apart from those of the folder that is read."""

    def __init__(self, out: transport.Writable) -> None:
        self._out = out
        name = getattr(out, "name", None)  # of an anonymous temporary file: its descriptor
        self._path = Path(name if isinstance(name, str) else "the package")

    def write(self, data: bytes) -> None:
        with disk.storage_errors("write", self._path):
            self._out.write(data)


@contextmanager
def _opened_source(source: Path) -> Iterator[int]:
    try:
        # The folder itself may be reached through a link; nothing below it is.
        descriptor = os.open(source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise ArtifactError(
            f"The folder {source} cannot be packed: {error.strerror or error}.",
            hint="Does the build write into the folder that `artifact.package` names?",
        ) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _appearing(path: Path) -> Iterator[IO[bytes]]:
    """A file that gets its name only when it is complete and on the disk."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as stream:
        partial = Path(stream.name)
        try:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink()
            raise
    disk.sync_folder(path.parent)

"""A release in one file, to be handed from one control plane to another.

    provenance.json     the signed envelope
    tidegate.yaml       the manifest, whose digest is signed
    archive.tar.zst     the package, whose digest is signed

The file is a plain tar that any tar can unpack, with these members in this order and nothing that says
when or by whom it was written: the same release gives the same file. It is rendered here, and what is read
is rendered again and compared, so that no trick of the tar format has to be known to be harmless.

Invariants: memory is bounded whatever arrives; nothing is believed of a file but what is signed.
Neighbours: `origins` has envelope and manifest, the content store the archive; `web.vault` hands it on.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Protocol

from tidegate import errors, ports
from tidegate.vault.envelopes import ENVELOPE_BYTES_MAX

PROVENANCE: Final = "provenance.json"
MANIFEST: Final = "tidegate.yaml"
ARCHIVE: Final = "archive.tar.zst"

MANIFEST_BYTES_MAX: Final = 1024 * 1024
#: As much as the API takes in of a package.
ARCHIVE_BYTES_MAX: Final = 4 * 1024**3
CHUNK_BYTES: Final = 1024 * 1024

_BLOCK: Final = 512
_SIZE: Final = slice(124, 135)


class Readable(Protocol):
    """What can be read from front to back."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A release that came in a file; nothing of it is proved yet."""

    provenance: ports.Provenance
    archive: Readable
    """Reads the package, and ends where it ends."""


def written(provenance: ports.Provenance, archive: Path) -> Iterator[bytes]:
    """The file, piece by piece. Raises StorageError."""
    for name, text in ((PROVENANCE, provenance.envelope), (MANIFEST, provenance.manifest)):
        content = text.encode()
        yield _header(name, len(content)) + content + _padding(len(content))
    try:
        with archive.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            yield _header(ARCHIVE, size)
            while piece := file.read(CHUNK_BYTES):
                yield piece
            yield _padding(size) + bytes(2 * _BLOCK)
    except OSError as error:
        raise errors.StorageError(f"Cannot read the archive {archive}: {error.strerror}.") from error


def read(file: IO[bytes]) -> Bundle:
    """What stands in the file, up to the package, which is read by whoever takes it. Raises ArtifactError."""
    envelope = _text(file, PROVENANCE, ENVELOPE_BYTES_MAX)
    manifest = _text(file, MANIFEST, MANIFEST_BYTES_MAX)
    size = _size(file, ARCHIVE, ARCHIVE_BYTES_MAX)
    provenance = ports.Provenance(envelope=envelope, manifest=manifest)
    return Bundle(provenance=provenance, archive=_Part(file, size))


class _Part:
    """The next bytes of a file, as a file of their own."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file: Final = file
        self._left = size

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end. Raises ArtifactError if the file ends before."""
        wanted = min(size, self._left)
        piece = self._file.read(wanted)
        if wanted and not piece:
            raise _no_release("it ends in the middle of the package")
        self._left -= len(piece)
        return piece


def _text(file: IO[bytes], name: str, size_max: int) -> str:
    size = _size(file, name, size_max)
    content = file.read(size)
    padding = file.read(len(_padding(size)))
    if len(content) != size or padding != _padding(size):
        raise _no_release(f"it ends in the middle of {name}")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise _no_release(f"{name} is no text") from error


def _size(file: IO[bytes], name: str, size_max: int) -> int:
    """Of the member that comes next; its header is just as it would be written here."""
    block = file.read(_BLOCK)
    digits = block[_SIZE]
    if len(block) != _BLOCK or not digits.isdigit() or set(digits) & set(b"89"):
        raise _no_release(f"{name} is missing")
    size = int(digits, 8)
    if block != _header(name, size):
        raise _no_release(f"{name} is missing, or written in another way")
    if size > size_max:
        raise _no_release(f"{name} has {size} bytes, and {size_max} are the most")
    return size


def _header(name: str, size: int) -> bytes:
    """A header of POSIX tar (ustar) of a regular file; time, owner and rights are always the same."""
    fields = (
        name.encode().ljust(100, b"\0"),
        b"0000644\0" + b"0000000\0" * 2,
        b"%011o\0" % size,
        b"00000000000\0",
        b" " * 8,
        b"0".ljust(101, b"\0"),
        b"ustar\x0000".ljust(72, b"\0"),
        b"0000000\0" * 2,
    )
    block = b"".join(fields).ljust(_BLOCK, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)


def _no_release(why: str) -> errors.ArtifactError:
    return errors.ArtifactError(
        f"That is no exported release: {why}.", hint="`tide release export` writes one."
    )

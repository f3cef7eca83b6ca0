"""zstd in and out, with a budget, so that a few bytes cannot become a full disk.

Invariants: memory is bounded whatever arrives (about 32 MiB for the worst input, 8 MiB window); an archive is
exactly one complete zstd frame, nothing before, nothing after. Packing keeps to the same budget as unpacking,
and measures a little more strictly, so that what could be packed can be unpacked.
Neighbours: `package` compresses with it, `content` feeds `archive.ArchiveReader` from it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import zstandard

from tidegate.artifacts.members import MIB, PackageLimits
from tidegate.errors import ArtifactError

LEVEL = 3
"""zstd's own default: about as fast as sha256 and the disk; higher levels save little on programs."""

WINDOW_BYTES_MAX = 8 * MIB
"""Memory of the decoder. What every decoder must support; all levels up to 19 stay below it."""

READ_BYTES = MIB

SLICE_BYTES = 1024
"""Compressed bytes decoded at once. Four bytes can become 128 KiB, so this can become 32 MiB and no more."""


class Readable(Protocol):
    """A binary stream that can be read once, from front to back."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""


class Writable(Protocol):
    """A binary stream that can be written."""

    def write(self, data: bytes, /) -> object:
        """Take all bytes."""


class Budget:
    """Counts both sides of the compression and refuses a bomb."""

    def __init__(self, limits: PackageLimits) -> None:
        self._limits = limits
        self.packed_bytes = 0
        self.unpacked_bytes = 0

    def check(self) -> None:
        """Call after counting.

        Raises:
            ArtifactError: too many bytes on one side, or too many for each other.
        """
        limits = self._limits
        if max(self.packed_bytes, self.unpacked_bytes) > limits.bytes_max:
            raise ArtifactError(
                f"Package refused: it is bigger than {limits.bytes_max} bytes.",
                hint="Leave out what the service does not need to run, or raise the limit.",
            )
        ratio_counts = self.unpacked_bytes > limits.ratio_free_bytes
        if ratio_counts and self.unpacked_bytes > limits.ratio_max * self.packed_bytes:
            raise ArtifactError(
                f"Package refused: {self.packed_bytes} bytes unpack to {self.unpacked_bytes} and more; "
                f"beyond {limits.ratio_free_bytes} bytes, {limits.ratio_max} times as much is allowed.",
                hint="It is a bomb, or holds big files of zeros: let the service create them instead.",
            )


def inflate(source: Readable, limits: PackageLimits) -> Iterator[bytes]:
    """The content of one zstd frame, in pieces of at most 33 MiB.

    Raises:
        ArtifactError: not one whole zstd frame, over budget, or the source broke off.
    """
    # The library offers no limit on what one call returns, so each call gets little (SLICE_BYTES).
    decoder = zstandard.ZstdDecompressor(max_window_size=WINDOW_BYTES_MAX).decompressobj()
    budget = Budget(limits)
    while not decoder.eof:
        block = _read(source)
        if not block:
            raise ArtifactError("Package refused: the archive is cut short.", hint="Send the package again.")
        ready = bytearray()
        for start in range(0, len(block), SLICE_BYTES):
            if decoder.eof:
                raise _trailing()
            ready += _decoded(decoder, block[start : start + SLICE_BYTES], budget)
            if len(ready) >= READ_BYTES:
                yield bytes(ready)
                ready.clear()
        if ready:
            yield bytes(ready)
    if decoder.unused_data or _read(source):
        raise _trailing()


def _decoded(decoder: zstandard.ZstdDecompressionObj, piece: bytes, budget: Budget) -> bytes:
    try:
        unpacked = decoder.decompress(piece)
    except zstandard.ZstdError as error:
        raise ArtifactError(
            f"Package refused: it is not a zstd archive, or damaged ({error}).",
            hint="Send the package again.",
        ) from error
    budget.packed_bytes += len(piece)
    budget.unpacked_bytes += len(unpacked)
    budget.check()
    return unpacked


def _trailing() -> ArtifactError:
    return ArtifactError("Package refused: something follows the end of the archive.")


def _read(source: Readable) -> bytes:
    try:
        return source.read(READ_BYTES)
    except OSError as error:
        raise ArtifactError(
            f"The package could not be read to its end ({error.strerror or error}).", hint="Send it again."
        ) from error


class Deflater:
    """Compresses into a stream as one frame, keeping to the budget."""

    def __init__(self, out: Writable, limits: PackageLimits) -> None:
        self._out = out
        self._budget = Budget(limits)
        # The checksum lets any zstd tell a damaged copy; Tidegate itself goes by the digest.
        self._encoder = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compressobj()

    def write(self, data: bytes) -> None:
        """Compress some more.

        Raises:
            ArtifactError: over budget.
            OSError: from the stream.
        """
        self._budget.unpacked_bytes += len(data)
        self._emit(self._encoder.compress(data))

    def finish(self) -> None:
        """Close the frame (not the stream); raises as `write`."""
        self._emit(self._encoder.flush())

    def _emit(self, packed: bytes) -> None:
        self._budget.packed_bytes += len(packed)
        self._budget.check()
        if packed:
            self._out.write(packed)

"""Hostile archives: refused by name, nothing left behind, nothing touched outside."""

from __future__ import annotations

import io
import resource
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.artifacts import archives
from tests.unit.artifacts.corpus import CORPUS, GOOD, Evil
from tidegate.artifacts.content import ContentStore
from tidegate.artifacts.members import GIB, MIB, PackageLimits
from tidegate.errors import ArtifactError


def refused(store: ContentStore, data: bytes) -> str:
    """The message with which an archive is refused."""
    with pytest.raises(ArtifactError) as caught:
        store.add(archives.stream(data))
    return str(caught.value)


@pytest.mark.parametrize("evil", CORPUS, ids=[evil.name for evil in CORPUS])
def test_a_hostile_archive_is_refused_and_leaves_nothing(
    store: ContentStore, root: Path, outside: Path, evil: Evil
) -> None:
    """Each known attack is refused with a message that names it, and the store is as empty as before."""
    message = refused(store, evil.data)
    for words in evil.says:
        assert words in message
    assert message.isprintable()
    assert list(root.iterdir()) == []


def test_the_harmless_neighbour_of_the_attacks_is_taken(store: ContentStore) -> None:
    """The hand-made archives differ from an accepted one only in the attack."""
    members = (
        archives.folder(b"a"),
        archives.file(b"a/run", b"#!", mode=b"0000755"),
        archives.link(b"b", b"a/run"),
        GOOD,
        archives.long_file(b"x" * 101),
        archives.long_file("é".encode()),
    )
    package = store.add(archives.stream(archives.archive(*members)))
    assert (package.files, package.size_bytes) == (4, 8)
    store.verify(package.digest)


def zero_file(name: bytes, size_bytes: int) -> Iterator[bytes]:
    """Blocks of a member that is all zeros."""
    yield archives.raw_block(archives.header(name, size=size_bytes))
    yield from archives.zeros(size_bytes)


def test_a_small_archive_of_ten_gigabytes_of_zeros_is_refused_fast(store: ContentStore, root: Path) -> None:
    """A bomb is stopped by the ratio long before it fills the disk, and its pieces are removed."""
    blocks = [block for number in range(100) for block in zero_file(b"zeros%03d" % number, 100 * MIB)]
    blocks.append(archives.raw_block(archives.END))
    bomb = archives.handmade_frame(iter(blocks))
    assert len(bomb) < MIB
    started = time.process_time()
    message = refused(store, bomb)
    assert time.process_time() - started < 2
    assert "unpack to" in message
    assert "250 times" in message
    assert list(root.iterdir()) == []


def test_a_file_that_says_it_has_ten_gigabytes_is_refused_at_its_header(store: ContentStore) -> None:
    """What is announced too big is refused before a byte of it is written."""
    bomb = archives.handmade_frame(zero_file(b"zeros", 7 * GIB))
    assert "'zeros' has 7516192768 bytes" in refused(store, bomb)


def test_a_bomb_costs_little_memory(store: ContentStore) -> None:
    """The densest input is decoded in small steps, so that it cannot exhaust memory."""
    bomb = archives.handmade_frame(zero_file(b"zeros", 3 * GIB))
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(store, bomb)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 256 * 1024


def test_many_empty_files_count_as_bytes_and_members(root: Path) -> None:
    """A bomb of inodes is stopped like a bomb of bytes."""
    store = ContentStore(root, limits=PackageLimits(members_max=1000))
    members = [archives.file(b"f%05d" % number, b"") for number in range(1001)]
    assert "'f01000' is one member too many; 1000" in refused(store, archives.archive(*members))
    assert list(root.iterdir()) == []


class Endless(io.RawIOBase):
    """A zstd frame that goes on for ever and decodes to nothing."""

    def __init__(self) -> None:
        self.sent_bytes = 0

    def read(self, size: int = -1, /) -> bytes:
        start = archives.handmade_frame(iter(()))[:6] if self.sent_bytes == 0 else b""
        piece = start + archives.raw_block(b"") * ((size - len(start)) // 3)
        self.sent_bytes += len(piece)
        return piece


def test_an_endless_stream_is_refused(root: Path) -> None:
    """Compressed bytes are counted too, so that a stream which unpacks to nothing ends."""
    store = ContentStore(root, limits=PackageLimits(bytes_max=4 * MIB))
    stream = Endless()
    with pytest.raises(ArtifactError, match="bigger than 4194304 bytes"):
        store.add(stream)
    assert stream.sent_bytes < 6 * MIB
    assert list(root.iterdir()) == []


class InTwoParts(io.BytesIO):
    """A stream whose first read ends where the archive ends, and that then goes on."""

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(len(archives.archive(GOOD)) if self.tell() == 0 else size)


def test_what_follows_later_is_refused_too(store: ContentStore, root: Path) -> None:
    """The stream has to end with the archive, also when the rest comes in a packet of its own."""
    with pytest.raises(ArtifactError, match="follows the end"):
        store.add(InTwoParts(archives.archive(GOOD) + b"evil"))
    assert list(root.iterdir()) == []


def test_many_small_contents_beyond_the_limit_are_refused(root: Path) -> None:
    """Headers and padding count: a million tiny files are as big as what they occupy."""
    store = ContentStore(root, limits=PackageLimits(bytes_max=100_000))
    members = [archives.file(b"f%05d" % number, b"x") for number in range(200)]
    assert "bigger than 100000 bytes" in refused(store, archives.archive(*members))
    assert list(root.iterdir()) == []

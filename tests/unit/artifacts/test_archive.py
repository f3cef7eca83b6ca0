"""The canonical form: written in one way, readable by any tar, and known by heart."""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Iterator

import pytest

from tests.unit.artifacts import archives
from tidegate.artifacts.archive import END, MADE_AT_S, ArchiveReader, header, padding
from tidegate.artifacts.members import Kind, Member, PackageLimits
from tidegate.errors import ArtifactError

MEMBERS = (
    (Member(path="bin", kind=Kind.FOLDER), b""),
    (Member(path="bin/api", kind=Kind.FILE, executable=True, size_bytes=3), b"#!x"),
    (Member(path="bin/run", kind=Kind.LINK, target="api"), b""),
    (Member(path="empty", kind=Kind.FILE), b""),
    (Member(path="l" * 100, kind=Kind.FILE, size_bytes=512), b"y" * 512),
    (Member(path="l" * 101, kind=Kind.FILE, size_bytes=513), b"z" * 513),
    (Member(path="m" * 100, kind=Kind.FOLDER), b""),
    (Member(path="n", kind=Kind.LINK, target="./" * 60 + "empty"), b""),
    (Member(path="o", kind=Kind.LINK, target="p-größe"), b""),
    (Member(path="p-größe", kind=Kind.FILE, size_bytes=1), b"g"),
)

TAR = b"".join(header(member) + content + padding(len(content)) for member, content in MEMBERS) + END


def read(tar: bytes, piece_bytes: int = 1 << 20) -> list[tuple[Member, bytes]]:
    return [(member, b"".join(content)) for member, content in reader_of(tar, piece_bytes).members()]


def reader_of(tar: bytes, piece_bytes: int = 1 << 20) -> ArchiveReader:
    pieces: Iterator[bytes] = (tar[at : at + piece_bytes] for at in range(0, len(tar), piece_bytes))
    return ArchiveReader(pieces, PackageLimits())


def test_the_form_never_changes() -> None:
    """The digest of a known tree is pinned: another one would make every package a new artifact."""
    assert (
        hashlib.sha256(TAR).hexdigest() == "1dd2ec4bd63779568966363d3f6ac0fdd763f75956296f4405a7bd188bf40272"
    )


def test_a_header_is_what_was_written_by_hand() -> None:
    """The rendered header equals one that is put together field by field from the tar standard."""
    assert header(Member(path="a", kind=Kind.FILE, size_bytes=8)) == archives.header(b"a", size=8)
    executable = Member(path="a", kind=Kind.FILE, executable=True)
    assert header(executable) == archives.header(b"a", mode=b"0000755")
    assert header(Member(path="a", kind=Kind.FOLDER)) == archives.header(b"a/", b"5")
    assert header(Member(path="a", kind=Kind.LINK, target="b")) == archives.header(b"a", b"2", target=b"b")


def test_any_tar_can_read_it() -> None:
    """The standard library's tar reader finds the same members, long and non-ASCII names included."""
    with tarfile.open(fileobj=io.BytesIO(TAR)) as tar:
        found = {}
        for info in tar:
            assert (info.uid, info.gid, info.uname, info.gname, info.mtime) == (0, 0, "", "", MADE_AT_S)
            stream = tar.extractfile(info) if info.isfile() else None
            found[info.name] = (info.type, info.mode, info.linkname, stream.read() if stream else b"")
    types = {Kind.FILE: tarfile.REGTYPE, Kind.FOLDER: tarfile.DIRTYPE, Kind.LINK: tarfile.SYMTYPE}
    for member, content in MEMBERS:
        mode = 0o755 if member.executable or member.kind is not Kind.FILE else 0o644
        assert found.pop(member.path) == (types[member.kind], mode, member.target, content)
    assert found == {}


@pytest.mark.parametrize("piece_bytes", [1, 511, 512, 513, 1 << 20])
def test_reading_gives_back_what_was_written(piece_bytes: int) -> None:
    """Members and contents come back, however the stream is cut into pieces."""
    assert read(TAR, piece_bytes) == list(MEMBERS)


def test_the_digest_is_that_of_the_whole_archive_even_if_contents_are_not_looked_at() -> None:
    """A caller that skips contents gets the same package."""
    reader = reader_of(TAR)
    paths = [member.path for member, _ in reader.members()]
    assert len(paths) == len(MEMBERS)
    assert reader.package.digest == f"sha256:{hashlib.sha256(TAR).hexdigest()}"
    assert reader.package.files == 5
    assert reader.package.size_bytes == 3 + 512 + 513 + 1


def test_no_other_bytes_mean_the_same_tree() -> None:
    """Whatever byte outside of contents is changed, the archive is refused or has other members."""
    changed = 0
    for position in range(0, len(TAR), 7):
        evil = bytearray(TAR)
        evil[position] ^= 0x01
        try:
            members = read(bytes(evil))
        except ArtifactError:
            continue
        changed += 1
        assert members != list(MEMBERS)
    assert changed > 0

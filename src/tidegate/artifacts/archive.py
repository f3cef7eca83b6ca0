"""The one way in which a package is written as bytes, and a reader that accepts nothing else.

The bytes are a POSIX tar that any tar can unpack, reduced to one form per tree: members in the order that
`members.Census` asks for, owner 0, one constant time, mode 0644 or 0755, a PAX record only where a name is
longer than 100 bytes or not ASCII. They are rendered here and not by a library, because a digest must not
change when a library is upgraded. The reader parses a member, renders it again and compares: what is not
byte for byte what `header` writes is refused, so that no two archives mean the same tree, and no trick of
the tar format (there are many) has to be known to be harmless.

Invariant: the sha256 of these bytes is the identity of a package; the compressed form has none.
Neighbours: `folder` renders a tree with it, `unpack` writes what the reader yields, `transport` compresses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tidegate.artifacts.members import (
    FILE_BYTES_MAX,
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

BLOCK_BYTES = 512
ZERO_BLOCK = bytes(BLOCK_BYTES)
END = ZERO_BLOCK * 2
"""Two empty blocks close an archive."""

MADE_AT_S = 315_532_800
"""The time of every member: 1980-01-01, the oldest that zip files hold and that tar does not warn about."""

NAME_FIELD_BYTES = 100
EXTENSION_NAME = "././@PaxHeader"
EXTENSION_BYTES_MAX = 8 * 1024
"""Two records, each with a path of at most `PackageLimits.path_bytes_max`, with room for a higher limit."""

FILE_MODE = 0o644
EXECUTABLE_MODE = 0o755
SPECIAL_MODE_BITS = 0o7000
"""setuid, setgid, sticky: a package that needs them wants more than to be run."""

KIND_OF_TYPE = {b"0": Kind.FILE, b"2": Kind.LINK, b"5": Kind.FOLDER}
TYPE_OF_KIND = {kind: letter for letter, kind in KIND_OF_TYPE.items()}
REFUSED_TYPES = {
    b"1": "a hard link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a named pipe",
    b"K": "a GNU long link name",
    b"L": "a GNU long name",
    b"S": "a sparse file",
    b"g": "a global header",
    b"x": "a second extension header",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """What is known of a package once it was packed or read to the end."""

    digest: str
    """`sha256:` + 64 hex digits, of the archive before compression."""
    size_bytes: int
    """Of all files together, unpacked."""
    files: int
    """How many files; folders and links are not counted."""


def package_of(hexdigest: str, census: Census) -> Package:
    """The package whose archive has this sha256 (hex) and whose members the census admitted."""
    return Package(digest=f"sha256:{hexdigest}", size_bytes=census.content_bytes, files=census.files)


def header(member: Member) -> bytes:
    """What stands before a member's content: a whole number of blocks."""
    name = f"{member.path}/" if member.kind is Kind.FOLDER else member.path
    mode = EXECUTABLE_MODE if member.executable or member.kind is not Kind.FILE else FILE_MODE
    records = _record("path", name) + _record("linkpath", member.target)
    extension = b""
    if records:
        extension = _block(EXTENSION_NAME, b"x", mode=FILE_MODE, size_bytes=len(records))
        extension += records + padding(len(records))
    letter = TYPE_OF_KIND[member.kind]
    return extension + _block(name, letter, mode=mode, size_bytes=member.size_bytes, target=member.target)


def padding(size_bytes: int) -> bytes:
    """What fills the last block of a content of this size."""
    return bytes(-size_bytes % BLOCK_BYTES)


def _record(key: str, value: str) -> bytes:
    """A PAX record if the value does not fit into its header field; its length counts its own digits."""
    if value.isascii() and len(value) <= NAME_FIELD_BYTES:
        return b""
    body = f" {key}={value}\n".encode()
    length = len(body)
    while len(str(length)) + len(body) != length:
        length = len(str(length)) + len(body)
    return str(length).encode() + body


def _block(name: str, letter: bytes, *, mode: int, size_bytes: int, target: str = "") -> bytes:
    before = b"".join(
        (
            _text(name),
            b"%07o\0" % mode,
            b"%07o\0" % 0,  # user
            b"%07o\0" % 0,  # group
            b"%011o\0" % size_bytes,
            b"%011o\0" % MADE_AT_S,
        )
    )
    after = letter + _text(target) + b"ustar\x0000" + bytes(64) + b"%07o\0" % 0 * 2 + bytes(167)
    checksum = sum(before) + sum(after) + 8 * ord(" ")
    return before + b"%06o\0 " % checksum + after


def _text(value: str) -> bytes:
    """A name field; where the value does not fit, a readable stand-in for the PAX record that holds it."""
    return value.encode("ascii", "replace")[:NAME_FIELD_BYTES].ljust(NAME_FIELD_BYTES, b"\0")


class ArchiveReader:
    """Reads a hostile archive, member by member, with bounded memory.

    `members()` is run once, to its end; then `package` is known.
    """

    def __init__(self, chunks: Iterator[bytes], limits: PackageLimits) -> None:
        """`chunks`: the uncompressed archive, in pieces of any size."""
        self._chunks = chunks
        self._limits = limits
        self._buffer = b""
        self._offset = 0
        self._sha256 = hashlib.sha256()
        self.census = Census(limits)

    @property
    def package(self) -> Package:
        """What was read; its digest is that of the whole archive only after the last member."""
        return package_of(self._sha256.hexdigest(), self.census)

    def members(self) -> Iterator[tuple[Member, Iterator[bytes]]]:
        """Every member with its content, in order, each admitted by the census before it is handed out.

        Content that the caller leaves unread is read (and hashed) before the next member.

        Raises:
            ArtifactError: the archive is damaged, not canonical, or holds what a package must not.
        """
        while (block := self._exactly(BLOCK_BYTES)) != ZERO_BLOCK:
            member = self._member(block)
            self.census.admit(member)
            content = self._content(member)
            yield member, content
            for _ in content:
                pass
            fill = padding(member.size_bytes)
            if self._exactly(len(fill)) != fill:
                raise refusal(member.path, "is followed by bytes that belong to no member")
        if self._exactly(BLOCK_BYTES) != ZERO_BLOCK or self._some(1):
            raise ArtifactError("Package refused: something follows the end of the archive.")
        self.census.finish()

    def _content(self, member: Member) -> Iterator[bytes]:
        left = member.size_bytes
        while left:
            piece = self._some(left)
            if not piece:
                raise refusal(member.path, "is cut short", "Send the package again.")
            left -= len(piece)
            yield piece

    def _member(self, block: bytes) -> Member:
        raw = block
        records: Mapping[bytes, bytes] = {}
        fields = _Fields(block)
        if fields.letter == b"x":
            size_bytes = fields.number(124, 12, "size")
            if size_bytes > EXTENSION_BYTES_MAX:
                raise refusal(fields.name, f"has an extension header of {size_bytes} bytes")
            body = self._exactly(size_bytes)
            raw += body + self._exactly(-size_bytes % BLOCK_BYTES)
            records = _records(body, fields.name)
            block = self._exactly(BLOCK_BYTES)
            raw += block
            fields = _Fields(block)
        member = self._decode(fields, records)
        if header(member) != raw:
            raise refusal(
                member.path,
                "has a header that Tidegate does not write (owner, time, mode or form)",
                "Pack the folder with Tidegate, so that the same content has the same digest everywhere.",
            )
        return member

    def _decode(self, fields: _Fields, records: Mapping[bytes, bytes]) -> Member:
        """The member that a header claims, with each attack refused by its own name."""
        raw_name = records.get(b"path", fields.name)
        kind = KIND_OF_TYPE.get(fields.letter)
        if kind is None:
            what = REFUSED_TYPES.get(fields.letter, f"a member of the unknown type {shown(fields.letter)}")
            raise refusal(raw_name, f"is {what}", "Packages hold files, folders and links between them.")
        if kind is Kind.FOLDER and raw_name.endswith(b"/"):
            raw_name = raw_name[:-1]
        path = vet_path(raw_name, self._limits)
        mode = fields.number(100, 8, "mode")
        if mode & SPECIAL_MODE_BITS:
            raise refusal(
                path, f"has special permission bits, {mode & SPECIAL_MODE_BITS:04o} (setuid, setgid)"
            )
        size_bytes = fields.number(124, 12, "size")
        if kind is not Kind.FILE and size_bytes:
            raise refusal(path, f"is a {kind.value} with content")
        target = ""
        if kind is Kind.LINK:
            target = vet_target(path, records.get(b"linkpath", fields.target), self._limits)
        executable = kind is Kind.FILE and bool(mode & 0o100)
        return Member(path=path, kind=kind, executable=executable, size_bytes=size_bytes, target=target)

    def _exactly(self, count: int) -> bytes:
        pieces = []
        while count:
            piece = self._some(count)
            if not piece:
                raise ArtifactError(
                    "Package refused: the archive is cut short.", hint="Send the package again."
                )
            pieces.append(piece)
            count -= len(piece)
        return b"".join(pieces)

    def _some(self, count_max: int) -> bytes:
        """At most `count_max` bytes, at least one; none at the end. Everything that is read passes here."""
        while self._offset == len(self._buffer):
            self._buffer, self._offset = next(self._chunks, b""), 0
            if not self._buffer:
                return b""
        piece = self._buffer[self._offset : self._offset + count_max]
        self._offset += len(piece)
        self._sha256.update(piece)
        return piece


class _Fields:
    """The fields of one header block, with a checksum that is right."""

    def __init__(self, block: bytes) -> None:
        self._block = block
        name, prefix = _until_zero(block[:100]), _until_zero(block[345:500])
        self.name = prefix + b"/" + name if prefix else name
        self.letter = block[156:157]
        self.target = _until_zero(block[157:257])
        checksum = sum(block[:148]) + sum(block[156:]) + 8 * ord(" ")
        if self.number(148, 8, "checksum") != checksum:
            raise refusal(self.name, "has a damaged header", "Send the package again.")

    def number(self, start: int, length: int, what: str) -> int:
        """The octal number in a field; GNU's binary form of huge numbers is refused like other rubbish."""
        digits = self._block[start : start + length].rstrip(b"\0 ")
        if not digits.isdigit() or b"8" in digits or b"9" in digits:
            raise refusal(self.name, f"has {shown(digits)} where its {what} should be")
        number = int(digits, 8)
        if number > FILE_BYTES_MAX:
            raise refusal(self.name, f"has {number} as its {what}")
        return number


def _until_zero(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _records(body: bytes, name: bytes) -> Mapping[bytes, bytes]:
    """The records of a PAX header. Whether they are in their one form shows when they are rendered."""
    records: dict[bytes, bytes] = {}
    while body:
        digits, _, rest = body.partition(b" ")
        length = int(digits) if digits.isdigit() and len(digits) <= len(str(EXTENSION_BYTES_MAX)) else 0
        key, _, value = body[len(digits) + 1 : length].partition(b"=")
        whole = bool(rest) and length <= len(body) and value.endswith(b"\n")
        if not whole or key not in {b"path", b"linkpath"} or key in records:
            raise refusal(name, "has an extension header with anything but one path and one link path")
        records[key] = value[:-1]
        body = body[length:]
    return records

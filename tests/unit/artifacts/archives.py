"""Archives made by hand, for tests: every byte of a tar header can be chosen, and so can every zstd block.

Written without the code under test, so that a mistake there is not repeated here. The defaults give the form
that Tidegate accepts; each hostile archive differs from it in the one thing that it is about.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import zstandard

BLOCK = 512
END = bytes(2 * BLOCK)
MADE_AT = b"02263523000"  # 1980-01-01 in octal seconds
RLE_BYTES = 128 * 1024


def header(name: bytes, letter: bytes = b"0", *, size: int | bytes = 0, **fields: bytes) -> bytes:
    """One header block; `fields` are those of the layout below, by name."""
    mode = b"0000755" if letter in {b"2", b"5"} else b"0000644"
    size_field = size if isinstance(size, bytes) else b"%011o\0" % size
    layout = (
        (name, 100),
        (fields.get("mode", mode), 8),
        (fields.get("uid", b"0000000"), 8),
        (fields.get("gid", b"0000000"), 8),
        (size_field, 12),
        (fields.get("mtime", MADE_AT), 12),
        (b"        ", 8),
        (letter, 1),
        (fields.get("target", b""), 100),
        (fields.get("magic", b"ustar\x0000"), 8),
        (fields.get("uname", b""), 32),
        (fields.get("gname", b""), 32),
        (fields.get("device", b"0000000"), 8),
        (fields.get("device", b"0000000"), 8),
        (fields.get("prefix", b""), 155),
        (b"", 12),
    )
    block = b"".join(value.ljust(length, b"\0") for value, length in layout)
    assert len(block) == BLOCK
    checksum = fields.get("checksum", b"%06o\0 " % sum(block))
    return block[:148] + checksum + block[156:]


def padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % BLOCK)


def file(name: bytes, content: bytes = b"x", **fields: bytes) -> bytes:
    return header(name, b"0", size=len(content), **fields) + padded(content)


def folder(name: bytes, **fields: bytes) -> bytes:
    return header(name + b"/", b"5", **fields)


def link(name: bytes, target: bytes) -> bytes:
    return header(name, b"2", target=target)


def record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    digits = next(n for n in range(1, 9) if len(str(n + len(body))) == n)
    return str(digits + len(body)).encode() + body


def extension(*records: bytes, letter: bytes = b"x") -> bytes:
    body = b"".join(records)
    return header(b"././@PaxHeader", letter, size=len(body)) + padded(body)


def long_file(name: bytes, content: bytes = b"x") -> bytes:
    """A file whose name does not fit into 100 ASCII bytes."""
    stand_in = name.decode("utf-8", "replace").encode("ascii", "replace")[:100]
    return extension(record(b"path", name)) + file(stand_in, content)


def compressed(tar: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(tar)


def archive(*members: bytes) -> bytes:
    """A whole package: members, end, zstd."""
    return compressed(b"".join(members) + END)


def handmade_frame(blocks: Iterator[bytes]) -> bytes:
    """A zstd frame without a size and without a checksum, window 8 MiB, from `raw_block` and `zeros`."""
    return b"\x28\xb5\x2f\xfd\x00\x68" + b"".join(blocks) + (1).to_bytes(3, "little")


def raw_block(data: bytes) -> bytes:
    return (len(data) << 3).to_bytes(3, "little") + data


def zeros(count: int) -> Iterator[bytes]:
    """Blocks of four bytes that each become 128 KiB of zeros."""
    full, rest = divmod(count, RLE_BYTES)
    for length in [RLE_BYTES] * full + [rest] * (rest > 0):
        yield (length << 3 | 1 << 1).to_bytes(3, "little") + b"\0"


def stream(data: bytes) -> io.BytesIO:
    return io.BytesIO(data)


def everything_below(root: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and content (or link target) of all that is in a folder, to see whether anything changed."""
    found: dict[str, tuple[int, bytes]] = {}
    for path in sorted(root.rglob("*")):
        status = path.lstat()
        if path.is_symlink():
            content = str(path.readlink()).encode()
        else:
            content = path.read_bytes() if path.is_file() else b""
        found[str(path.relative_to(root))] = (status.st_mode, content)
    return found

"""Evil archives, each with the one thing that is wrong with it, and what the refusal must say.

Grouped by what they attack. The name of a case is its test's id.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import zstandard

from tests.unit.artifacts import archives
from tests.unit.artifacts.archives import (
    END,
    archive,
    extension,
    file,
    folder,
    header,
    link,
    long_file,
    record,
)

GOOD = file(b"good", b"good")
"""Comes first where it can, so that something was already written when the attack is met."""


@dataclass(frozen=True, slots=True)
class Evil:
    name: str
    data: bytes
    says: tuple[str, ...]
    """All of these are in the message: the member, and what is wrong with it."""


def _names() -> Iterator[Evil]:
    yield Evil("absolute path", archive(file(b"/etc/passwd")), ("'/etc/passwd'", "absolute path"))
    yield Evil("absolute folder", archive(folder(b"/etc")), ("'/etc'", "absolute path"))
    yield Evil("dot dot", archive(file(b"../evil")), ("'../evil'", "climbs out"))
    yield Evil(
        "dot dot inside", archive(folder(b"a"), file(b"a/../../evil")), ("'a/../../evil'", "climbs out")
    )
    yield Evil("dot dot folder", archive(folder(b"..")), ("'..'", "climbs out"))
    yield Evil("dot", archive(folder(b".")), ("'.'", "plain path"))
    yield Evil("dot slash", archive(file(b"./evil")), ("'./evil'", "plain path"))
    yield Evil("double slash", archive(folder(b"a"), file(b"a//evil")), ("'a//evil'", "plain path"))
    yield Evil("file that ends like a folder", archive(file(b"evil/")), ("'evil/'", "plain path"))
    yield Evil("empty name", archive(file(b"")), ("''", "empty name"))
    yield Evil(
        "prefix field absolute", archive(file(b"passwd", prefix=b"/etc")), ("'/etc/passwd'", "absolute")
    )
    yield Evil("prefix field climbs", archive(file(b"evil", prefix=b"..")), ("'../evil'", "climbs out"))
    yield Evil("newline", archive(file(b"a\nb")), (repr("a\nb"), "control character"))
    yield Evil("escape sequence", archive(file(b"\x1b]0;owned\x07")), ("x1b]0;owned", "control character"))
    yield Evil("c1 control", archive(long_file("a\u009bb".encode())), (repr("a\u009bb"), "control character"))
    yield Evil(
        "bidi override", archive(long_file("a\u202eb".encode())), (repr("a\u202eb"), "turns text around")
    )
    yield Evil("not utf-8", archive(long_file(b"caf\xe9")), ("caf\\\\xe9", "not UTF-8"))
    yield Evil("overlong utf-8", archive(long_file(b"\xc0\xaeetc")), ("xc0", "not UTF-8"))
    yield Evil("name too long", archive(long_file(b"x" * 256)), ("xxx", "longer than 255 bytes"))
    yield Evil("path too long", archive(long_file(b"/".join([b"d" * 250] * 5))), ("ddd", "1024 are allowed"))
    yield Evil("too deep", archive(long_file(b"/".join([b"d"] * 65))), ("d/d/d", "64 are allowed"))
    yield Evil("same name twice", archive(GOOD, file(b"good", b"evil")), ("'good'", "twice"))
    yield Evil("folder as file", archive(folder(b"a"), file(b"a")), ("'a'", "twice"))
    yield Evil("other case", archive(file(b"Evil"), file(b"evil")), ("'evil'", "'Evil'", "only in case"))
    yield Evil(
        "other unicode form",
        archive(long_file("e\u0301".encode()), long_file("é".encode())),
        ("'é'", "Unicode form"),
    )


def _links() -> Iterator[Evil]:
    yield Evil("absolute link", archive(GOOD, link(b"l", b"/etc")), ("'l'", "absolute path '/etc'"))
    yield Evil("link out", archive(GOOD, link(b"l", b"../precious")), ("'l'", "leads out"))
    yield Evil("link to parent", archive(link(b"l", b"..")), ("'l'", "leads out"))
    yield Evil(
        "chain of links out",
        archive(link(b"a", b"b"), folder(b"b"), link(b"b/c", b"../..")),
        ("'b/c'", "leads out"),
    )
    yield Evil(
        "link through a link out",
        archive(folder(b"a"), folder(b"a/b"), link(b"c", b"a/b"), link(b"d", b"c/../../..")),
        ("'d'", "leads out"),
    )
    yield Evil("written through a link", archive(link(b"a", b".."), file(b"a/evil")), ("'a/evil'", "a link"))
    yield Evil("link replaced by a folder", archive(link(b"a", b"../folder"), folder(b"a")), ("'a'", "twice"))
    yield Evil(
        "dangling link", archive(GOOD, link(b"l", b"nowhere")), ("'l'", "'nowhere'", "not in the package")
    )
    yield Evil("link to itself", archive(GOOD, link(b"l", b"l")), ("'l'", "circle"))
    yield Evil("link through a file", archive(GOOD, link(b"l", b"good/../good")), ("'l'", "not a folder"))
    yield Evil("empty link", archive(GOOD, link(b"l", b"")), ("'l'", "empty link target"))
    yield Evil("link with newline", archive(GOOD, link(b"l", b"a\nb")), ("'l'", "control character"))
    yield Evil(
        "absolute link in an extension",
        archive(extension(record(b"linkpath", b"/" + b"x" * 100)), link(b"l", b"/" + b"x" * 99)),
        ("'l'", "absolute path"),
    )
    yield Evil("hard link", archive(GOOD, header(b"l", b"1", target=b"good")), ("'l'", "hard link"))
    yield Evil(
        "hard link out", archive(GOOD, header(b"l", b"1", target=b"../precious")), ("'l'", "hard link")
    )


def _kinds() -> Iterator[Evil]:
    for letter, what in (
        (b"3", "character device"),
        (b"4", "block device"),
        (b"6", "named pipe"),
        (b"7", "unknown type"),
        (b"\0", "unknown type"),
        (b"A", "unknown type"),
        (b"L", "GNU long name"),
        (b"K", "GNU long link name"),
        (b"S", "sparse file"),
        (b"g", "global header"),
    ):
        member = header(b"evil", letter)
        yield Evil(f"type {letter!r}", archive(GOOD, member), ("'evil'", what))
    yield Evil("setuid", archive(GOOD, file(b"su", mode=b"0004755")), ("'su'", "special permission", "4000"))
    yield Evil("setgid", archive(GOOD, file(b"su", mode=b"0002755")), ("'su'", "special permission", "2000"))
    yield Evil("sticky folder", archive(GOOD, folder(b"t", mode=b"0001755")), ("'t'", "special permission"))
    yield Evil("folder with content", archive(header(b"a/", b"5", size=1)), ("'a'", "with content"))
    yield Evil("link with content", archive(header(b"a", b"2", size=1, target=b".")), ("'a'", "with content"))


def _forms() -> Iterator[Evil]:
    """Harmless to look at, but a second way to write the same tree."""
    other = "header that Tidegate does not write"
    for field, value in (
        ("mode", b"0000777"),
        ("mode", b"644"),
        ("uid", b"0001750"),
        ("gid", b"0001750"),
        ("mtime", b"00000000000"),
        ("magic", b"ustar  \0"),
        ("magic", b""),
        ("uname", b"root"),
        ("gname", b"root"),
        ("device", b""),
        ("prefix", b"a"),
        ("target", b"x"),
    ):
        yield Evil(f"{field} {value!r}", archive(GOOD, file(b"m", **{field: value})), ("m'", other))
    yield Evil("bytes after the name", archive(file(b"a\0b")), ("'a'", other))
    yield Evil("executable folder form", archive(folder(b"a", mode=b"0000700")), ("'a'", other))
    yield Evil("folder without slash", archive(header(b"a", b"5")), ("'a'", other))
    yield Evil("needless extension", archive(extension(record(b"path", b"a")), file(b"a")), ("'a'", other))
    yield Evil(
        "other stand-in", archive(extension(record(b"path", b"x" * 101)), file(b"y" * 100)), ("xxx", other)
    )


def _extensions() -> Iterator[Evil]:
    anything_but = "anything but one path and one link path"
    name = b"x" * 101
    yield Evil("size in an extension", archive(extension(record(b"size", b"9")), GOOD), (anything_but,))
    yield Evil(
        "sparse in an extension", archive(extension(record(b"GNU.sparse.name", b"e")), GOOD), (anything_but,)
    )
    yield Evil(
        "path twice", archive(extension(record(b"path", name), record(b"path", name)), GOOD), (anything_but,)
    )
    yield Evil("no record", archive(extension(b"rubbish"), GOOD), (anything_but,))
    yield Evil("record without end", archive(extension(b"9 path=x"), GOOD), (anything_but,))
    yield Evil("record of length 0", archive(extension(b"0 path=x\n"), GOOD), (anything_but,))
    yield Evil("record too long", archive(extension(b"99 path=x\n"), GOOD), (anything_but,))
    yield Evil("record of huge length", archive(extension(b"9" * 4000 + b" path=x\n"), GOOD), (anything_but,))
    yield Evil("negative length", archive(extension(b"-9 path=x\n"), GOOD), (anything_but,))
    yield Evil(
        "zero byte in path", archive(extension(record(b"path", b"a\0" + name)), GOOD), ("control character",)
    )
    yield Evil("absolute in an extension", archive(long_file(b"/" + name)), ("'/xxx", "absolute path"))
    yield Evil("climbs in an extension", archive(long_file(b"../" + name)), ("'../xxx", "climbs out"))
    yield Evil(
        "extension after extension",
        archive(extension(record(b"path", name)), extension(record(b"path", name)), GOOD),
        ("second extension header",),
    )
    huge = header(b"././@PaxHeader", b"x", size=1024**3)
    yield Evil("huge extension", archive(GOOD, huge), ("extension header of 1073741824 bytes",))
    yield Evil("extension without member", archive(GOOD, extension(record(b"path", name))), ("checksum",))


def _damage() -> Iterator[Evil]:
    damaged = "damaged header"
    yield Evil("wrong checksum", archive(GOOD, file(b"m", checksum=b"000000\0 ")), ("'m'", damaged))
    yield Evil("no checksum", archive(GOOD, file(b"m", checksum=b"        ")), ("'m'", "checksum"))
    yield Evil("size not octal", archive(GOOD, header(b"m", size=b"0000000000z")), ("'m'", "size"))
    yield Evil("size with an 8", archive(GOOD, header(b"m", size=b"00000000008")), ("'m'", "size"))
    yield Evil("size negative", archive(GOOD, header(b"m", size=b"-0000000001")), ("'m'", "size"))
    yield Evil(
        "size binary", archive(GOOD, header(b"m", size=b"\x80" + bytes(10) + b"\x01")), ("'m'", "size")
    )
    yield Evil("size of 12 digits", archive(GOOD, header(b"m", size=b"777777777777")), ("'m'", "size"))
    yield Evil("size beyond limit", archive(GOOD, header(b"m", size=2**33 - 1)), ("'m'", "bigger than"))
    yield Evil(
        "bytes in the padding", archive(header(b"m", size=1) + b"m".ljust(512, b"x")), ("'m'", "no member")
    )
    yield Evil("out of order", archive(file(b"b"), file(b"a")), ("'a'", "out of order"))
    yield Evil("missing folder", archive(file(b"a/b")), ("'a/b'", "missing"))
    yield Evil("file as folder", archive(file(b"a"), file(b"a/b")), ("'a/b'", "a file"))
    yield Evil("nothing in it", archive(), ("empty",))
    for count in (0, 1, 100, 511, 512, 513, 1023):
        tar = (GOOD + file(b"m", b"m" * 600) + END)[: 1024 + 512 + count]
        yield Evil(f"cut {count} bytes after the header", archives.compressed(tar), ("cut short",))
    yield Evil("no end", archives.compressed(GOOD), ("cut short",))
    yield Evil("half an end", archives.compressed(GOOD + END[:512]), ("cut short",))
    yield Evil("one empty block", archives.compressed(GOOD + END[:512] + GOOD + END), ("follows the end",))
    yield Evil("blocks after the end", archives.compressed(GOOD + END + END), ("follows the end",))
    yield Evil("member after the end", archives.compressed(GOOD + END + GOOD + END), ("follows the end",))


def _transport() -> Iterator[Evil]:
    good = archive(GOOD)
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"evil"
    yield Evil("nothing", b"", ("cut short",))
    yield Evil("not zstd", b"PK\x03\x04" + bytes(1000), ("not a zstd archive",))
    yield Evil("plain tar", GOOD + END, ("not a zstd archive",))
    yield Evil("zstd cut in the checksum", good[:-1], ("cut short",))
    yield Evil("zstd cut", good[: len(good) // 2], ("cut short",))
    yield Evil("rubbish after the frame", good + b"evil", ("follows the end",))
    yield Evil("second frame", good + good, ("follows the end",))
    yield Evil("hidden frame after", good + skippable, ("follows the end",))
    yield Evil("hidden frame before", skippable + good, ("follows the end",))
    yield Evil("much rubbish after the frame", good + bytes(3_000_000), ("follows the end",))
    yield Evil("wrong zstd checksum", good[:-1] + bytes([good[-1] ^ 1]), ("damaged",))
    window = zstandard.ZstdCompressionParameters(window_log=27, write_content_size=False)
    big_window = zstandard.ZstdCompressor(compression_params=window).compressobj()
    yield Evil("window of 128 MiB", big_window.compress(GOOD + END) + big_window.flush(), ("damaged",))
    words = zstandard.train_dictionary(1024, [f"word {n} of many words {n}".encode() for n in range(500)])
    with_dictionary = zstandard.ZstdCompressor(dict_data=words).compress(GOOD + END)
    yield Evil("needs a dictionary", with_dictionary, ("damaged",))


CORPUS = tuple(
    evil for group in (_names, _links, _kinds, _forms, _extensions, _damage, _transport) for evil in group()
)

"""Packages of any tree, and of any rubbish.

Safety first: whatever bytes arrive, nothing is written outside the store, and what is refused leaves nothing.
What is accepted is sound and canonical: it verifies, and packing its tree again gives the same digest.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import zstandard
from hypothesis import given, note
from hypothesis import strategies as st

from tests.unit.artifacts import archives
from tidegate.artifacts.content import ContentStore
from tidegate.artifacts.members import DIRECTION_CHARACTERS, PackageLimits, same_name_key
from tidegate.artifacts.package import Package, pack
from tidegate.errors import ArtifactError

File = tuple[bytes, bool]
"""Content, executable."""
Tree = dict[str, "File | Tree"]

NAMES = st.one_of(
    st.text(
        st.characters(
            exclude_categories=["Cc", "Cs", "Zl", "Zp"],
            exclude_characters=["/", *sorted(DIRECTION_CHARACTERS)],
        ),
        min_size=1,
        max_size=12,
    ).filter(lambda name: name not in {".", ".."}),
    st.integers(95, 105).map("long".ljust),
    st.sampled_from(["a", "a-b", "a.b", "ab", "bin", "node_modules", "-rf", "~", "\\"]),
)
FILES = st.tuples(st.binary(max_size=1500), st.booleans())


def folders(children: st.SearchStrategy[File | Tree]) -> st.SearchStrategy[Tree]:
    pairs = st.lists(st.tuples(NAMES, children), max_size=5, unique_by=lambda pair: same_name_key(pair[0]))
    return pairs.map(dict)


TREES = folders(st.recursive(FILES, folders, max_leaves=12)).filter(bool)


def paths(tree: Tree, prefix: str = "") -> Iterator[str]:
    for name, child in tree.items():
        yield prefix + name
        if isinstance(child, dict):
            yield from paths(child, f"{prefix}{name}/")


def write(tree: Tree, folder: Path, *, turn: int) -> None:
    """Write a tree; `turn` changes all that must not matter: order, time, permissions."""
    folder.mkdir(mode=0o700 | turn)
    items = list(tree.items())
    for name, child in items if turn else reversed(items):
        if isinstance(child, dict):
            write(child, folder / name, turn=turn)
            continue
        content, executable = child
        (folder / name).write_bytes(content)
        (folder / name).chmod((0o700 if executable else 0o600) | turn)
        os.utime(folder / name, (turn, turn * 1000))


@contextmanager
def place() -> Iterator[Path]:
    """A folder that is gone afterwards; everything in it but the store is the outside."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@given(TREES, st.randoms(use_true_random=False))
def test_the_same_content_has_the_same_digest_and_comes_back(tree: Tree, seeded: Random) -> None:
    """Order, time and permissions of the builder's disk do not matter; all that is kept comes back."""
    with place() as folder:
        write(tree, folder / "one", turn=0)
        write(tree, folder / "two", turn=0o044)
        targets = seeded.sample(sorted(paths(tree)), k=min(2, len(list(paths(tree)))))
        for number, target in enumerate(targets):
            for copy in ("one", "two"):
                (folder / copy / f"\U0001f517{number}").symlink_to(target)
        out = io.BytesIO()
        package = pack(folder / "one", out)
        assert pack(folder / "two", io.BytesIO()) == package

        store = ContentStore(folder / "store")
        assert store.add(io.BytesIO(out.getvalue()), digest=package.digest) == package
        store.verify(package.digest)
        kept = archives.everything_below(store.path(package.digest))
        given_files = archives.everything_below(folder / "one")
        assert {name: content for name, (_, content) in kept.items()} == {
            name: content for name, (_, content) in given_files.items()
        }
        for name, (mode, _) in given_files.items():
            assert kept[name][0] & 0o100 == mode & 0o100
        store.remove(package.digest)


LIMITS = PackageLimits(bytes_max=1 << 20, members_max=50, ratio_free_bytes=1 << 16)


def offer(store: ContentStore, data: bytes) -> tuple[Package | None, str]:
    """The package, or the message with which it was refused."""
    try:
        return store.add(io.BytesIO(data)), ""
    except ArtifactError as error:
        note(str(error))
        return None, str(error)


def try_to_add(data: bytes) -> Package | None:
    """Offer an archive to an empty store and check all that must hold, whether it is taken or not."""
    with place() as folder:
        (folder / "precious").write_bytes(b"precious")
        store = ContentStore(folder / "store", limits=LIMITS)
        package, message = offer(store, data)
        assert message.isprintable()
        assert len(list((folder / "store").iterdir())) == (0 if package is None else 1)
        if package is not None:
            store.verify(package.digest)
            assert pack(store.path(package.digest), io.BytesIO()) == package
            store.remove(package.digest)
        assert sorted(path.name for path in folder.iterdir()) == ["precious", "store"]
        assert (folder / "precious").read_bytes() == b"precious"
        return package


GOOD_TAR = b"".join(
    (
        archives.folder(b"a"),
        archives.file(b"a/run", b"#!/bin/sh\n", mode=b"0000755"),
        archives.folder(b"a/sub"),
        archives.link(b"a/sub/up", b"../run"),
        archives.long_file(b"b" * 120, b"long"),
        archives.link(b"c", b"a"),
        archives.END,
    )
)
GOOD = archives.compressed(GOOD_TAR)


def test_the_archive_that_is_damaged_below_is_sound() -> None:
    """Without damage it is taken, so that the properties below are about the damage."""
    assert try_to_add(GOOD) is not None


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_a_changed_byte_of_the_compressed_archive_is_noticed(position: int, change: int) -> None:
    """The archive is refused, or is exactly the one before: the checksum of zstd stands for the rest."""
    evil = bytearray(GOOD)
    evil[position] ^= change
    package = try_to_add(bytes(evil))
    assert package in (None, try_to_add(GOOD))


@given(st.integers(0, len(GOOD_TAR) - 1), st.integers(1, 255))
def test_a_changed_byte_inside_never_keeps_the_digest(position: int, change: int) -> None:
    """Compressed again by an attacker: it is refused, or another package with another digest."""
    evil = bytearray(GOOD_TAR)
    evil[position] ^= change
    package = try_to_add(archives.compressed(bytes(evil)))
    assert package != try_to_add(GOOD)


@given(st.integers(0, len(GOOD) - 1))
def test_a_cut_archive_is_refused(length: int) -> None:
    """Every prefix of an archive is refused."""
    assert try_to_add(GOOD[:length]) is None


EVIL_NAMES = st.one_of(
    st.lists(
        st.sampled_from([b"a", b"A", b"b", b"..", b".", b"", b"store", b"precious", b"\n", b"\xff"]),
        max_size=4,
    )
    .map(b"/".join)
    .filter(lambda name: len(name) <= 100),
    st.sampled_from([b"a", b"a/b", b"b", b"c", b"/etc/passwd", b"../precious"]),
)
EVIL_MEMBERS = st.one_of(
    st.builds(archives.file, EVIL_NAMES, st.binary(max_size=20)),
    st.builds(archives.folder, EVIL_NAMES.filter(lambda name: len(name) < 100)),
    st.builds(archives.link, EVIL_NAMES, EVIL_NAMES),
    st.builds(archives.long_file, EVIL_NAMES),
    st.builds(
        archives.header,
        EVIL_NAMES,
        st.binary(min_size=1, max_size=1),
        size=st.integers(0, 2000),
        target=EVIL_NAMES,
        mode=st.sampled_from([b"0000644", b"0000755", b"0004755", b"0000000", b"7777777"]),
    ),
    st.builds(
        lambda key, value: archives.extension(archives.record(key, value)),
        st.sampled_from([b"path", b"linkpath", b"size", b"GNU.sparse.name"]),
        EVIL_NAMES,
    ),
    st.binary(min_size=512, max_size=512),
)


@given(st.lists(EVIL_MEMBERS, max_size=6), st.booleans())
def test_whatever_members_come_the_outside_is_untouched(members: list[bytes], sort: bool) -> None:
    """Hostile members in any combination: refused without a trace, or a sound package."""
    tar = b"".join(sorted(members) if sort else members) + archives.END
    try_to_add(archives.compressed(tar))


@given(st.binary(max_size=2000))
def test_rubbish_is_refused(data: bytes) -> None:
    """Bytes that nobody meant as an archive are refused, alone and inside of zstd."""
    assert try_to_add(data) is None
    assert try_to_add(zstandard.compress(data)) is None

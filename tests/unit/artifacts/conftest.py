"""A store in a folder of its own, beside files that nobody may touch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.artifacts import archives
from tidegate.artifacts.content import ContentStore


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the store is; `tmp_path` around it is the outside."""
    return tmp_path / "outside" / "store"


@pytest.fixture
def store(root: Path) -> Iterator[ContentStore]:
    """An empty store; what is in it at the end is removed, also what is read-only."""
    opened = ContentStore(root)
    yield opened
    for digest in opened.digests():
        opened.remove(digest)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A small built app: a program, a page, an empty folder, links between them."""
    folder = tmp_path / "dist"
    (folder / "bin").mkdir(parents=True)
    (folder / "empty").mkdir()
    (folder / "bin" / "api").write_bytes(b"#!/bin/sh\nexec true\n")
    (folder / "bin" / "api").chmod(0o755)
    (folder / "index.html").write_bytes(b"<h1>hello</h1>\n")
    (folder / "bin" / "start").symlink_to("api")
    (folder / "current").symlink_to("bin")
    return folder


@pytest.fixture
def outside(root: Path) -> Iterator[Path]:
    """The folder around the store; fails the test if anything in it, but not in the store, is changed."""
    folder = root.parent
    folder.mkdir(exist_ok=True)
    (folder / "precious").write_bytes(b"precious")
    (folder / "folder").mkdir()
    before = untouched(folder, root)
    yield folder
    assert untouched(folder, root) == before


def untouched(folder: Path, root: Path) -> dict[str, tuple[int, bytes]]:
    """Everything in the folder, but not in the store."""
    store = root.relative_to(folder).as_posix()
    found = archives.everything_below(folder)
    return {name: value for name, value in found.items() if not f"{name}/".startswith(f"{store}/")}

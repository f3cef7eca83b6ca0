"""The files that the meta tests read, as values; hides the walking and parsing.

Neighbours: `tidy`, `purity` (rules over one Source each) and the test modules that apply them.
"""

from __future__ import annotations

import ast
import pathlib
from collections.abc import Iterator
from dataclasses import dataclass

ROOT = pathlib.Path(__file__).resolve().parents[2]
CODE_FOLDERS = ("src", "tests", "bench")
# Made by tools, or not ours: never read.
SKIPPED_FOLDERS = frozenset({"__pycache__", "build", "dist", "node_modules"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One Python module: its path from the repository's root with forward slashes, its text, its tree."""

    path: str
    text: str
    tree: ast.Module


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One broken rule. `size` is what the ratchet compares: lines, parameters, or 1."""

    rule: str
    path: str
    symbol: str
    size: int
    hint: str

    @property
    def key(self) -> str:
        """Stable over edits elsewhere in the file: no line number in it."""
        return f"{self.path}::{self.symbol} {self.rule}"

    def __str__(self) -> str:
        """One line for a person."""
        return f"{self.key} = {self.size}: {self.hint}"


def source(path: str, text: str) -> Source:
    """Parse text as the module at that path. Raises SyntaxError."""
    return Source(path=path, text=text, tree=ast.parse(text, filename=path))


def python_sources(root: pathlib.Path = ROOT) -> tuple[Source, ...]:
    """Every module of src, tests and bench, in order of path."""
    paths = sorted(path for folder in CODE_FOLDERS for path in _files(root / folder) if path.suffix == ".py")
    return tuple(source(path.relative_to(root).as_posix(), path.read_text("utf-8")) for path in paths)


def texts(root: pathlib.Path = ROOT) -> Iterator[tuple[str, str]]:
    """Path and text of every text file of the repository, code and prose alike."""
    for path in sorted(_files(root)):
        try:
            yield path.relative_to(root).as_posix(), path.read_text("utf-8")
        except UnicodeDecodeError:  # an image or an archive
            continue


def _files(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            hidden = entry.name.startswith(".") and entry.name != ".ci"
            if not hidden and entry.name not in SKIPPED_FOLDERS and not entry.name.endswith(".egg-info"):
                yield from _files(entry)
        elif entry.is_file() and not entry.name.startswith(".coverage"):
            yield entry

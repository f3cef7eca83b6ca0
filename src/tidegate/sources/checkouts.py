"""Clean folders with exactly one commit.

    <root>/<random>/source     the commit, with a repository of its own that knows nothing else
    <root>/<random>/home       HOME and TMPDIR of the build

Hides how a commit becomes files. Invariants: the folder is new and private; its repository is a copy of this
one commit, without hooks, so that a build can neither run something later nor change what others build from;
nothing is left when the build is over, or at the next start. Neighbours: `repositories` keeps the commit,
`engine.workshop` builds in the folder.
"""

from __future__ import annotations

import os
import secrets
import shutil
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from tidegate import errors
from tidegate.sources.git import Git
from tidegate.sources.repositories import KEPT, Repositories


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Where one build happens."""

    root: Path
    committed_at: int

    @property
    def source(self) -> Path:
        return self.root / "source"

    @property
    def home(self) -> Path:
        return self.root / "home"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkouts:
    """Makes and removes them."""

    root: Path
    repositories: Repositories

    def manifest(self, app: str, revision: str, path: str) -> str:
        """The text of tidegate.yaml as it was committed. Raises NotFoundError, SourceError, RequestError."""
        return self.repositories.file(app, revision, path)

    def make(self, app: str, revision: str, *, owner: tuple[int, int] | None = None) -> Room:
        """A new folder with that commit. `owner`: user and group that will build in it; None: ours.

        Raises SourceError, StorageError.
        """
        room = Room(
            root=self.root / secrets.token_hex(8),
            committed_at=self.repositories.committed_at(app, revision),
        )
        try:
            self.root.mkdir(mode=0o711, parents=True, exist_ok=True)
            room.root.mkdir(mode=0o700)
            room.source.mkdir(mode=0o700)
            room.home.mkdir(mode=0o700)
            self._fill(app, revision, room.source)
            if owner is not None:
                _give(room.root, owner)
        except OSError as error:
            self.remove(room.root)
            raise errors.StorageError(f"The checkout {room.root} failed: {error.strerror}.") from error
        except BaseException:
            self.remove(room.root)
            raise
        return room

    def _fill(self, app: str, revision: str, folder: Path) -> None:
        own = Git(repository=folder / ".git", work_tree=folder)
        own.local("init", "--quiet", "--template=", "--initial-branch=main")
        # A file address, so that git copies this one commit instead of linking to all of them.
        address = f"file://{quote(str(self.repositories.path(app)))}"
        ref = f"{KEPT}{revision}"
        own.local("fetch", "--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head", "--", address, ref)
        own.local("checkout", "--quiet", "--force", "--detach", revision, "--")

    def remove(self, root: Path) -> None:
        """All of a room, also what the build has made unwritable."""
        _remove(root)

    def clear(self) -> None:
        """Remove all: of a control plane that was killed."""
        if self.root.exists():
            for folder in self.root.iterdir():
                _remove(folder)


def _give(folder: Path, owner: tuple[int, int]) -> None:
    for path, names, files in os.walk(folder):
        for name in (*names, *files):
            os.chown(Path(path) / name, *owner, follow_symlinks=False)
    os.chown(folder, *owner, follow_symlinks=False)


def _remove(folder: Path) -> None:
    if os.geteuid() != 0:  # root may remove everything, and must not be led elsewhere by a link
        for path, names, _ in os.walk(folder):
            for name in names:
                below = Path(path) / name
                if not below.is_symlink():
                    below.chmod(0o700)
    shutil.rmtree(folder, ignore_errors=True)

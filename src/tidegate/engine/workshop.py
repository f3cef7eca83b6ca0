"""One build: from a commit to a package in the content store.

Hides the order: checkout, build command, end of all its processes, pack, take in. Invariants: the manifest
is the committed one, whatever the build does to the file; the build's environment is made of names that are
listed here, so that nothing of the control plane's own reaches it; the package folder lies in the checkout,
whatever links a commit brings; nothing of the build is left when this returns. Neighbours: `builds` decides
what is built when; the daemon hands in everything that touches the world.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, Protocol

from tidegate import errors, manifest
from tidegate.manifest import Manifest
from tidegate.pushes import Push, Source

#: Of the control plane's environment: what finds programs, and how they write. Nothing else is handed on.
INHERITED: Final = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH")
Log = Callable[[str], None]


class Room(Protocol):
    """A folder with one commit."""

    @property
    def root(self) -> Path:
        """All of it."""

    @property
    def source(self) -> Path:
        """The commit."""

    @property
    def home(self) -> Path:
        """Empty and writable."""

    @property
    def committed_at(self) -> int:
        """Unix seconds."""


class Checkouts(Protocol):
    """Makes folders with one commit."""

    def manifest(self, app: str, revision: str, path: str) -> str:
        """A committed text. Raises TidegateError."""

    def make(self, app: str, revision: str, *, owner: tuple[int, int] | None = None) -> Room:
        """A new folder, of that user and group. Raises TidegateError."""

    def remove(self, root: Path) -> None:
        """Remove a room, by its root."""

    def clear(self) -> None:
        """Remove all."""


class Build(Protocol):
    """Runs a build command."""

    def __call__(
        self,
        command: str,
        *,
        folder: Path,
        env: Mapping[str, str],
        log: Log,
        timeout_s: float,
        account: tuple[int, int] | None = None,
    ) -> None:
        """To its end. Raises TidegateError."""


class Packed(Protocol):
    """A package."""

    @property
    def digest(self) -> str:
        """`sha256:` + hex."""

    @property
    def size_bytes(self) -> int:
        """Unpacked."""

    @property
    def files(self) -> int:
        """Number of regular files."""


class Content(Protocol):
    """The content store."""

    def add(self, stream: IO[bytes], *, digest: str | None = None) -> object:
        """Take a package in. Raises TidegateError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """How the processes of a build are told from all others."""

    variable: str
    """Of the environment."""
    value: Callable[[int], str]
    """By push."""
    end: Callable[[int | None], object]
    """Kill those of a push; None: of all that this control plane ever built."""
    end_user: Callable[[int], object] = lambda _user: None
    """Kill all that a user of builds runs: also those that have thrown the mark away."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """What came of it."""

    manifest: Manifest
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """Builds. Safe to call from any thread."""

    checkouts: Checkouts
    build: Build
    pack: Callable[[Path, IO[bytes]], Packed]
    content: Content
    marks: Marks
    scripts: Callable[[Path, Manifest], None] = lambda _package, _manifest: None
    """Raises TidegateError if the migrations that the package brings are not valid."""
    account: Callable[[str], tuple[int, int] | None] = lambda _app: None
    """User and group that an app is built as; None: ours."""

    def make(self, source: Source, push: Push, log: Log) -> Built:
        """Build a push. Raises TidegateError."""
        text = self.checkouts.manifest(push.app, push.revision, source.manifest)
        parsed = manifest.parse(text)
        _refuse_unless_meant(parsed, push)
        account = self.account(push.app)
        room = self.checkouts.make(push.app, push.revision, owner=account)
        try:
            base = (room.source / source.manifest).parent
            if parsed.artifact.build is not None:
                log(f"build  {parsed.artifact.build}")
                try:
                    self.build(
                        parsed.artifact.build,
                        folder=base,
                        env=self._environment(room, push),
                        log=log,
                        timeout_s=source.time_limit_s,
                        account=account,
                    )
                finally:
                    self.marks.end(push.id)
                    if account is not None:
                        self.marks.end_user(account[0])
            digest = self._packed(_inside(room.source, base / parsed.artifact.package), parsed, log)
        finally:
            self.checkouts.remove(room.root)
        return Built(manifest=parsed, digest=digest)

    def _packed(self, folder: Path, parsed: Manifest, log: Log) -> str:
        with tempfile.TemporaryFile() as archive:
            packed = self.pack(folder, archive)
            log(f"package  {packed.files} files, {packed.size_bytes / 1e6:.1f} MB, {packed.digest}")
            # Packing has refused links that lead out of the folder: no file of ours is read as a script.
            self.scripts(folder, parsed)
            archive.seek(0)
            self.content.add(archive, digest=packed.digest)
            return packed.digest

    def _environment(self, room: Room, push: Push) -> dict[str, str]:
        return {
            **{name: os.environ[name] for name in INHERITED if name in os.environ},
            "HOME": str(room.home),
            "TMPDIR": str(room.home),
            "CI": "true",
            # The same commit is the same second: what writes times into files can be built again.
            "SOURCE_DATE_EPOCH": str(room.committed_at),
            self.marks.variable: self.marks.value(push.id),
        }

    def clear(self) -> None:
        """End and remove what a control plane that was killed has left."""
        self.marks.end(None)
        self.checkouts.clear()


def _refuse_unless_meant(parsed: Manifest, push: Push) -> None:
    if parsed.app != push.app:
        raise errors.RequestError(
            f"The commit's manifest is of the app {parsed.app}, and this repository is of {push.app}.",
            hint="One app has one source: `tide source add --app` makes another.",
        )
    if push.to and parsed.environment(push.to) is None:
        known = ", ".join(name for name, _ in parsed.environments)
        raise errors.RequestError(
            f"The commit's manifest does not name the environment {push.to}.", hint=f"It names: {known}."
        )


def _inside(root: Path, folder: Path) -> Path:
    """The folder, if it is one and lies below the root. Raises BuildError."""
    found = folder.resolve()
    if not found.is_relative_to(root.resolve()):
        raise errors.BuildError("The folder that `artifact.package` names leads out of the checkout.")
    return found

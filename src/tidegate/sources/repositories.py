"""The bare repository of each app, under one folder: pushed to, or filled from its remote.

    <root>/<app>.git       with our configuration and our hooks

Hides git's files and commands. Invariants: a commit that a push row names is kept by a ref of ours, whatever
is force-pushed or collected; what is asked for by name is answered with the whole name of a commit; refs of a
remote are fetched one by one, under checked names. Neighbours: `git` runs the commands, `hooks` are put in
place here, `checkouts` takes commits out.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tidegate import errors
from tidegate.pushes import Source
from tidegate.sources import hooks, refs
from tidegate.sources.git import Git

APP: Final = re.compile(r"[a-z][a-z0-9-]{0,39}", re.ASCII)
#: The first that asks a hook how each pushed ref ended (proc-receive).
GIT_MIN: Final = (2, 29)
#: A manifest is less.
FILE_BYTES_MAX: Final = 1024 * 1024
#: What one push may send.
PUSH_BYTES_MAX: Final = 4 * 1024**3
REFS_MAX: Final = 20_000

KEPT: Final = f"{refs.OWN}keep/"

_CONFIGURATION: Final = {
    "core.bare": "true",
    "core.logAllRefUpdates": "false",
    "core.fsync": "committed",  # what was acknowledged survives a power cut
    "transfer.fsckObjects": "true",  # no commit with a `.git` or a link out of its tree
    "receive.hideRefs": "refs/tidegate",
    "receive.maxInputSize": str(PUSH_BYTES_MAX),
    "receive.denyDeleteCurrent": "ignore",
    "receive.shallowUpdate": "false",
}
#: These have several values.
_HANDED_TO_US: Final = ("refs/heads", "refs/tags")


@dataclass(frozen=True, slots=True)
class Repositories:
    """All of them."""

    root: Path
    interpreter: Path = Path(sys.executable)

    def path(self, app: str) -> Path:
        """Where the app's lies, there or not."""
        if not APP.fullmatch(app):
            raise errors.NotFoundError("There is no app of that name.")
        return self.root / f"{app}.git"

    def create(self, app: str) -> tuple[str, ...]:
        """Make it, or put right what is not as it should be; names of hooks that were changed.

        Raises SourceError, StorageError, RequestError.
        """
        path = self.path(app)
        hooks.text(self.interpreter)  # refuse before anything is there
        self.require_git()
        if not (path / "HEAD").exists():
            try:
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise errors.StorageError(f"{path} cannot be made: {error.strerror}.") from error
            git = Git(repository=path)
            git.local("init", "--quiet", "--bare", "--template=", "--initial-branch=main", "--", str(path))
            hooks.keep(path / "hooks", self.interpreter)
        return self.verify(app)

    def require_git(self) -> str:
        """Git is there, and can do what is needed; its version. Raises MissingProgramError, SourceError."""
        found = Git(repository=self.root).version()
        name = ".".join(str(number) for number in found)
        if found < GIT_MIN:
            wanted = ".".join(str(number) for number in GIT_MIN)
            raise errors.MissingProgramError(
                f"git {name} is too old to take pushes.", hint=f"Install git {wanted} or newer."
            )
        return name

    def verify(self, app: str) -> tuple[str, ...]:
        """Configuration and hooks are ours; names of hooks that were not.

        A user's configuration cannot turn the hooks off: the repository's own says where they are.
        """
        path, git = self.path(app), Git(repository=self.path(app))
        for name, value in {**_CONFIGURATION, "core.hooksPath": str(path / "hooks")}.items():
            git.local("config", "--file", str(path / "config"), "--replace-all", name, value)
        self._hand_to_us(git, path / "config")
        return hooks.keep(path / "hooks", self.interpreter)

    def _hand_to_us(self, git: Git, file: Path) -> None:
        name = "receive.procReceiveRefs"
        first, *more = _HANDED_TO_US
        git.local("config", "--file", str(file), "--replace-all", name, first)
        for value in more:
            git.local("config", "--file", str(file), "--add", name, value)

    def remove(self, app: str) -> None:
        """Its files. Raises StorageError."""
        try:
            shutil.rmtree(self.path(app))
        except FileNotFoundError:
            return
        except OSError as error:
            raise errors.StorageError(f"{self.path(app)} cannot be removed: {error.strerror}.") from error

    # --- looking ----------------------------------------------------------------------------------

    def heads(self, app: str) -> dict[str, str]:
        """Branches and tags that are here, each with its commit; refs that lead to no commit are left out."""
        git = Git(repository=self.path(app))
        form = "--format=%(refname) %(objecttype) %(objectname) %(*objecttype) %(*objectname)"
        found: dict[str, str] = {}
        for line in git.local("for-each-ref", form, "refs/heads", "refs/tags").splitlines():
            ref, *kinds = line.split(" ")
            for kind, name in zip(kinds[0::2], kinds[1::2], strict=False):
                if kind == "commit" and refs.is_revision(name) and not refs.trouble(ref):
                    found[ref] = name
        return found

    def commit(self, app: str, name: str) -> str:
        """Whole name of the commit that a checked ref or whole name leads to. Raises SourceError."""
        answered = Git(repository=self.path(app)).local(
            "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"
        )
        if not refs.is_revision(answered.strip()):
            raise errors.SourceError("git answered something else than a commit.")
        return answered.strip()

    def contains(self, app: str, head: str, revision: str) -> bool:
        """Whether the commit is an ancestor of `head`, or it; false if it is not here at all."""
        git = Git(repository=self.path(app))
        try:
            git.local("cat-file", "-e", f"{_revision(revision)}^{{commit}}")
        except errors.SourceError:
            return False
        return git.succeeds("merge-base", "--is-ancestor", revision, _revision(head))

    def file(self, app: str, revision: str, path: str) -> str:
        """The text of a file in a commit, without a file system in between that could lead elsewhere.

        Raises NotFoundError, SourceError, RequestError.
        """
        git = Git(repository=self.path(app))
        listed = git.local("ls-tree", "-z", "--full-tree", _revision(revision), "--", path).rstrip("\0")
        about, _, name = listed.partition("\t")
        if name != path or not about.startswith("100"):
            raise errors.NotFoundError(
                f"The commit has no file {path}.", hint="Commit it, or name another with --manifest."
            )
        blob = about.split(" ")[2]
        if int(git.local("cat-file", "-s", blob)) > FILE_BYTES_MAX:
            raise errors.RequestError(f"{path} is larger than {FILE_BYTES_MAX} bytes.")
        try:
            return git.raw("cat-file", "blob", blob).decode("utf-8")
        except UnicodeDecodeError as error:
            raise errors.RequestError(f"{path} is not UTF-8.") from error

    def committed_at(self, app: str, revision: str) -> int:
        """Unix seconds."""
        git = Git(repository=self.path(app))
        said = git.local("show", "--no-patch", "--format=%ct", "--end-of-options", _revision(revision))
        return int(said.strip() or 0)

    # --- changing ---------------------------------------------------------------------------------

    def pin(self, app: str, revision: str) -> None:
        """Keep the commit, whatever becomes of its branch."""
        git = Git(repository=self.path(app))
        git.local("update-ref", "--no-deref", f"{KEPT}{_revision(revision)}", revision)

    def unpin(self, app: str, *, but: Iterable[str]) -> None:
        """Keep no others than these."""
        git, wanted = Git(repository=self.path(app)), frozenset(but)
        for line in git.local("for-each-ref", "--format=%(refname)", KEPT.rstrip("/")).splitlines():
            if line.removeprefix(KEPT) not in wanted:
                git.local("update-ref", "--no-deref", "-d", line)

    def move(self, app: str, ref: str, *, to: str, was: str) -> None:
        """Set a checked ref, if it still is where it was. Raises SourceError."""
        git = Git(repository=self.path(app))
        git.local("update-ref", "--no-deref", ref, _revision(to), _revision(was))

    # --- remotes ----------------------------------------------------------------------------------

    def remote_heads(self, source: Source) -> dict[str, str]:
        """Branches and tags of the remote that the source means, as the server says. Raises SourceError."""
        git = Git(repository=self.path(source.app), credentials=source.credentials)
        listed = git.remote("ls-remote", "--quiet", "--heads", "--tags", "--", source.remote)
        lines = listed.splitlines()
        if len(lines) > REFS_MAX:
            raise errors.SourceError(f"The remote has more than {REFS_MAX} branches and tags.")
        pairs = [line.partition("\t") for line in lines]
        # A tag of its own (annotated) is listed twice; what it leads to comes second, under ref^{}.
        named = [(ref.removesuffix("^{}"), revision) for revision, _, ref in pairs]
        return {
            ref: revision
            for ref, revision in named
            if refs.is_revision(revision) and refs.is_meant(source, ref)
        }

    def fetch(self, source: Source, ref: str) -> str:
        """The commit that the remote's ref leads to, now that it is here. Raises SourceError."""
        if refs.trouble(ref):
            raise errors.SourceError("The remote has a ref with a name that is not taken.")
        git = Git(repository=self.path(source.app), credentials=source.credentials)
        git.remote(
            "fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-gc", "--force",
            "--", source.remote, f"+{ref}:{ref}",
        )  # fmt: skip
        return self.commit(source.app, ref)


def _revision(text: str) -> str:
    if not refs.is_revision(text):
        raise errors.RequestError("That is not the whole name of a commit.")
    return text

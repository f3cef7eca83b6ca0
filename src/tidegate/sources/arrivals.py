"""From what is pushed, told or found to rows of the queue.

Hides the order in which a commit becomes safe: first it is here, then a ref of ours keeps it, then its row is
committed. Invariants:

- what is built is what a branch leads to, now: of Tidegate's own repository, or of the remote as it was
  fetched. A webhook is a reason to look and names nothing that is built, so that an old or a forged one
  brings nothing back;
- a commit that a branch leads to is queued once, whoever tells of it first, and however often;
- what was pushed while a control plane died is found when it starts.

Neighbours: `repositories` has the commits, `tidegate.store.sources` the rows, `watching` calls `look`, the
API everything else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from tidegate import errors, manifest, ports, pushes
from tidegate.pushes import How, Push, Source
from tidegate.sources import forges, refs, remotes
from tidegate.sources.keys import Keys
from tidegate.sources.repositories import Repositories

#: Newest pushes of an app whose commits are kept, whatever was force-pushed since.
COMMITS_KEPT: Final = 200


class Store(pushes.Sources, pushes.Pushes, Protocol):
    """Both of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrivals:
    """Sources, and what comes of them. Safe to call from any thread."""

    store: Store
    lease: ports.Lease
    repositories: Repositories
    keys: Keys
    now: Callable[[], float]
    wake: Callable[[], None] = lambda: None
    """Called after each new push."""
    hinted: Callable[[], None] = lambda: None
    """Called after each webhook that was believed."""
    refused: Callable[[str, str, str], None] = lambda _app, _reason, _detail: None
    """Told of what was refused: app, stable reason, sentence."""
    _turn: threading.Lock = field(default_factory=threading.Lock)

    # --- sources ----------------------------------------------------------------------------------

    def add(self, source: Source) -> str:
        """Take a source, or change it; the new secret of its webhooks, if it has none yet.

        Raises RequestError, SourceError, StorageError.
        """
        _check(source)
        self.repositories.create(source.app)
        self.store.keep(self.lease, source)
        if source.hook is None:
            self.keys.drop(source.app)
            return ""
        return "" if self.keys.valid(source.app) else self.keys.make(source.app)

    def rotate(self, app: str) -> str:
        """A new secret; the one before stays valid. Raises NotFoundError, RequestError."""
        if self.known(app).hook is None:
            raise errors.RequestError(
                f"{app} has no webhooks.", hint="`tide source add --hook github` lets it have some."
            )
        return self.keys.make(app)

    def remove(self, app: str) -> None:
        """The source, its repository and its secrets; the history stays. Raises NotFoundError."""
        self.known(app)
        self.store.drop(self.lease, app, at=self.now())
        self.keys.drop(app)
        self.repositories.remove(app)
        self.wake()

    def known(self, app: str) -> Source:
        """The app's source. Raises NotFoundError."""
        found = self.store.source(app)
        if found is None:
            raise errors.NotFoundError(f"{app} has no source.", hint="`tide source add` makes one.")
        return found

    # --- git push ---------------------------------------------------------------------------------

    def check(self, app: str, names: tuple[str, ...]) -> tuple[str, ...]:
        """Why these refs cannot be pushed, a sentence each; none: they can."""
        source = self.known(app)
        if source.remote:
            return (f"{app} is built from {source.remote}: push there.",)
        return tuple(f"{name!a} is refused: {why}." for name in names if (why := refs.trouble(name)))

    def meant(self, app: str, ref: str) -> bool:
        """Whether commits of this ref are built."""
        return refs.is_meant(self.known(app), ref)

    def receive(self, app: str, ref: str, *, by: str) -> Push | None:
        """Queue what a ref of our repository leads to now; None: not meant, or known already."""
        source = self.known(app)
        if not refs.is_meant(source, ref):
            return None
        return self._queue(source, ref, self.repositories.commit(app, ref), how=How.PUSH, by=by)

    def recover(self) -> tuple[tuple[str, errors.TidegateError], ...]:
        """After a start: hooks are as they should be, and what was pushed meanwhile is queued.

        What is not in order, by app: it holds up no other.
        """
        troubles: list[tuple[str, errors.TidegateError]] = []
        for source in self.store.sources():
            try:
                self._recovered(source)
            except errors.FencedError:
                raise
            except errors.TidegateError as error:
                troubles.append((source.app, error))
        return tuple(troubles)

    def _recovered(self, source: Source) -> None:
        self.repositories.create(source.app)
        if source.remote:
            return
        seen = self.store.seen(source.app)
        for ref, revision in sorted(self.repositories.heads(source.app).items()):
            if refs.is_meant(source, ref) and seen.get(ref) != revision:
                self._queue(source, ref, revision, how=How.PUSH, by="")

    # --- webhooks ---------------------------------------------------------------------------------

    def hear(self, source: Source, told: forges.Told) -> bool:
        """Take down a webhook that was believed; False: it was heard before."""
        meant = refs.is_meant(source, told.ref)
        hint = pushes.Hint(
            app=source.app,
            delivery=told.delivery,
            body=told.body,
            ref=told.ref,
            revision=told.revision,
            at=self.now(),
        )
        heard = self.store.hear(self.lease, hint, heeded=not meant)
        if heard and meant:
            self.hinted()
        elif not heard:
            self.refused(source.app, "replayed", f"the webhook {told.delivery} was heard before")
        return heard

    # --- looking ----------------------------------------------------------------------------------

    def look(self, app: str, *, everything: bool) -> tuple[Push, ...]:
        """Look at the remote: after webhooks at their refs, else at `everything`; what was queued.

        Raises SourceError; then the webhooks wait for the next look.
        """
        source = self.known(app)
        hints = tuple(hint for hint in self.store.hints() if hint.app == app)
        heads = self.repositories.remote_heads(source)
        queued: list[Push] = []
        for hint in hints:
            queued += self._heeded(source, hint, heads)
        if everything:
            queued += self._looked(source, heads)
        return tuple(queued)

    def _heeded(self, source: Source, hint: pushes.Hint, heads: dict[str, str]) -> list[Push]:
        """What comes of one webhook."""
        made: Push | None = None
        if hint.ref not in heads:
            why = f"{refs.short(hint.ref)} is not there, or not built"
        else:
            head = self.repositories.fetch(source, hint.ref)
            if self.repositories.contains(source.app, head, hint.revision):
                why = ""
                made = self._queue(source, hint.ref, head, how=How.WEBHOOK, delivery=hint.delivery)
            else:
                why = f"{hint.revision[:12]} is not on {refs.short(hint.ref)}"
        self.store.heed(self.lease, hint.id)
        if why:
            self.refused(source.app, "not-on-branch", f"the webhook {hint.delivery}: {why}")
        return [made] if made else []

    def _looked(self, source: Source, heads: dict[str, str]) -> list[Push]:
        seen = self.store.seen(source.app)
        queued: list[Push] = []
        for ref, revision in sorted(heads.items()):
            if seen.get(ref) == revision:
                continue
            if not seen and ref.startswith(refs.TAG):
                # Tags that were there before anybody looked are the past, not news.
                self.store.note(self.lease, source.app, ref, revision)
                continue
            made = self._queue(source, ref, self.repositories.fetch(source, ref), how=How.POLL)
            queued += [made] if made else []
        return queued

    # --- by hand ----------------------------------------------------------------------------------

    def build(self, app: str, ref: str, *, by: str) -> Push:
        """Queue what a ref leads to now, once more. Raises NotFoundError, RequestError, SourceError."""
        source = self.known(app)
        if not ref:
            ref = _only(source)
        if not refs.is_meant(source, ref):
            raise errors.RequestError(
                f"{refs.short(ref)!a} of {app} is not built.", hint=f"Built are: {described(source)}."
            )
        revision = (
            self.repositories.fetch(source, ref) if source.remote else self.repositories.commit(app, ref)
        )
        made = self._queue(source, ref, revision, how=How.ASKED, by=by)
        if made is None:
            raise errors.NotFoundError(f"{refs.short(ref)!a} of {app} is not there.")
        return made

    def _last_environment(self, source: Source, revision: str) -> str:
        """The end of the pipeline, as the commit says; empty where it says nothing: its build will fail."""
        try:
            text = self.repositories.file(source.app, revision, source.manifest)
            return manifest.parse(text).environments[-1][0]
        except errors.TidegateError:
            return ""

    def tidy(self, app: str) -> None:
        """Let go of commits that no recent push names."""
        with self._turn:
            kept = {push.revision for push in self.store.newest(app, limit=COMMITS_KEPT)}
            kept |= {push.revision for push in self.store.waiting() if push.app == app}
            self.repositories.unpin(app, but=kept)

    def _queue(
        self, source: Source, ref: str, revision: str, *, how: How, by: str = "", delivery: str = ""
    ) -> Push | None:
        push = Push(
            app=source.app,
            ref=ref,
            revision=revision,
            to=source.to or self._last_environment(source, revision),
            by=by,
            how=how,
            delivery=delivery,
            queued_at=self.now(),
        )
        with self._turn:
            self.repositories.pin(source.app, revision)
            queued = self.store.enqueue(self.lease, push, again=how is How.ASKED)
        if queued is not None:
            self.wake()
        return queued


def described(source: Source) -> str:
    """Which refs are built, for people."""
    return ", ".join([*source.branches, *(f"tag {pattern}" for pattern in source.tags)])


def _only(source: Source) -> str:
    plain = [branch for branch in source.branches if not set("*?") & set(branch)]
    if len(plain) != 1:
        raise errors.RequestError("Which branch?", hint=f"Built are: {described(source)}.")
    return f"{refs.BRANCH}{plain[0]}"


def _check(source: Source) -> None:
    """Raises RequestError for a source that cannot be meant."""
    patterns = (*source.branches, *source.tags)
    if not patterns or len(patterns) > refs.PATTERNS_MAX:
        raise errors.RequestError(f"A source builds 1 to {refs.PATTERNS_MAX} branches and tags.")
    for pattern in patterns:
        if why := refs.pattern_trouble(pattern):
            raise errors.RequestError(f"{pattern!a} is no pattern of branches or tags.", hint=why)
    if source.remote:
        remotes.checked(source.remote)
    elif source.poll_s is not None or source.hook is not None or source.credentials:
        raise errors.RequestError(
            "Polling, webhooks and credentials belong to a remote repository.", hint="Name it with --remote."
        )
    if source.remote and source.poll_s is None and source.hook is None:
        raise errors.RequestError(
            "Nothing would ever look at the remote.", hint="Add --poll 60s, or --hook github, or both."
        )
    if source.credentials:
        remotes.checked_file(source.credentials)
    if source.report is not None:
        remotes.checked_api(source.report.url)
        remotes.checked_project(source.report.project)
        remotes.checked_file(source.report.token_file)
    if source.manifest.startswith(("/", "-", ":")) or ".." in source.manifest.split("/"):
        raise errors.RequestError("The manifest is named by its path in the repository.")

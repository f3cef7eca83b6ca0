"""Where releases come from: the values and protocols that sources, engine, store and web share.

A *source* says which repository of an app is built; a *push* is one commit of it on its way to be a release.
Like `ports`, on which it rests: values and promises only. Neighbours: `sources` knows git and the forges,
`engine.builds` carries pushes on, `store.sources` keeps them.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol

from tidegate.ports import Lease


class Forge(enum.StrEnum):
    """What kind of server a remote repository lies on."""

    GITHUB = "github"
    GITLAB = "gitlab"
    GITEA = "gitea"
    """And Forgejo, which speaks the same."""


class OnPush(enum.StrEnum):
    """What becomes of older pushes of an app when a newer one comes."""

    QUEUE = "queue"
    """Each is built and delivered, in their order."""
    SUPERSEDE = "supersede"
    """What has not been delivered never will be; a rollout in progress goes home."""


class PushState(enum.StrEnum):
    """How far a push has come."""

    QUEUED = "queued"
    BUILDING = "building"
    RELEASED = "released"
    """Built; handed on when it has a `promotion`."""
    FAILED = "failed"
    SUPERSEDED = "superseded"

    @property
    def ended(self) -> bool:
        return self in (PushState.FAILED, PushState.SUPERSEDED)


class How(enum.StrEnum):
    """How a push was heard of."""

    PUSH = "push"
    WEBHOOK = "webhook"
    POLL = "poll"
    ASKED = "asked"
    """`tide source build`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """Where the state of a commit is reported to."""

    forge: Forge
    url: str
    """Of the API, e.g. `https://api.github.com`."""
    project: str
    """`owner/name`, or the number of a project at GitLab."""
    token_file: str
    """Absolute path; read anew for each report, never kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where the releases of an app come from: one repository, which branches and tags, and where to."""

    app: str
    branches: tuple[str, ...] = ("main",)
    """Patterns."""
    tags: tuple[str, ...] = ()
    """Patterns."""
    to: str = ""
    """Environment; empty: the last of the pipeline in the commit's own manifest."""
    on_push: OnPush = OnPush.QUEUE
    manifest: str = "tidegate.yaml"
    """Path in the repository."""
    time_limit_s: float = 3600.0
    """Of a build."""
    remote: str = ""
    """Repository that is watched; empty: commits are pushed to Tidegate's own."""
    credentials: str = ""
    """Absolute path of a file for the remote: git's credential store, or a key of ssh."""
    poll_s: float | None = None
    hook: Forge | None = None
    """Whose webhooks are believed."""
    report: StatusReport | None = None
    added_at: float = 0.0
    added_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """One commit of a branch or tag on its way to be a release."""

    id: int = 0
    app: str
    ref: str
    """Full name, e.g. `refs/heads/main`."""
    revision: str
    """Of the commit, in full."""
    to: str = ""
    state: PushState = PushState.QUEUED
    by: str = ""
    how: How
    delivery: str = ""
    """Of a webhook: its id."""
    queued_at: float
    started_at: float | None = None
    ended_at: float | None = None
    """When it was released, failed or superseded."""
    attempt: int = 0
    """How often its build was begun."""
    release: int | None = None
    promotion: str | None = None
    """What the delivery answered: how it is called where it goes on. None: not handed on yet."""
    detail: str = ""

    @property
    def name(self) -> str:
        return f"#{self.id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """A webhook that was believed: a reason to look at the remote, no more."""

    id: int = 0
    app: str
    delivery: str
    body: str
    """Hash of what was sent."""
    ref: str
    revision: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What is to be told of a push in one environment, and what was told."""

    push: int
    context: str
    """E.g. `tidegate/production`."""
    state: str
    """`pending`, `success` or `failure`."""
    description: str
    attempts: int = 0
    due_at: float = 0.0


class Sources(Protocol):
    """Sources, and the webhooks they were sent. Writes raise FencedError, StorageError."""

    def keep(self, lease: Lease, source: Source) -> None:
        """Add it, or replace the app's."""

    def source(self, app: str) -> Source | None:
        """Of one app."""

    def sources(self) -> tuple[Source, ...]:
        """All, by app."""

    def drop(self, lease: Lease, app: str, *, at: float) -> None:
        """Remove it; its pushes stay in the history, and those that wait are superseded."""

    def hear(self, lease: Lease, hint: Hint, *, heeded: bool) -> bool:
        """Take down a webhook; False if one of this id or with this body was heard before.

        `heeded`: there is nothing to look after.
        """

    def hints(self) -> tuple[Hint, ...]:
        """Webhooks that nobody has looked after yet, oldest first."""

    def heed(self, lease: Lease, hint: int) -> None:
        """It was looked after."""


class Pushes(Protocol):
    """The queue of pushes, committed. Writes raise FencedError, StorageError."""

    def seen(self, app: str) -> dict[str, str]:
        """Newest known commit of each ref, as `enqueue` and `note` were told."""

    def note(self, lease: Lease, app: str, ref: str, revision: str) -> None:
        """Know this commit without building it."""

    def enqueue(self, lease: Lease, push: Push, *, again: bool = False) -> Push | None:
        """Put a push into the queue; None if its commit is the newest known one of its ref already.

        `again`: build it nevertheless. Where the app's source supersedes, everything older that was not
        delivered is superseded by the same transaction.
        """

    def start(self, lease: Lease, push: int, *, at: float) -> Push | None:
        """Queued to building; None if it is not queued, or another of its app is building."""

    def settle(self, lease: Lease, push: Push, *, was: PushState) -> bool:
        """Write state, release, promotion, detail, end; False if it is not `was` any more, or delivered."""

    def restart(self, lease: Lease, *, attempts_max: int, at: float) -> None:
        """After a start: what was building is queued again, or has failed after so many attempts."""

    def push(self, push: int) -> Push | None:
        """One of them."""

    def newest(self, app: str | None = None, *, limit: int = 50) -> tuple[Push, ...]:
        """Newest first."""

    def waiting(self) -> tuple[Push, ...]:
        """Queued, building, or released and not delivered, oldest first."""


class Statuses(Protocol):
    """The outbox of status reports: one row per push and context, so that it is bounded by the pushes."""

    def want(self, lease: Lease, status: Status) -> None:
        """Let this be told; nothing happens if it was told, or waits to be, already."""

    def due(self, *, at: float, limit: int = 20) -> tuple[Status, ...]:
        """What is to be told by now, most overdue first."""

    def told(self, lease: Lease, status: Status) -> None:
        """It was told, or given up."""

    def retry(self, lease: Lease, status: Status, *, due_at: float) -> None:
        """It was not; once more, later."""

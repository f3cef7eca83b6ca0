"""What the engine asks of the outside world: small, declarative protocols.

Each has a fake and a conformance suite in `tidegate.testing`; each real adapter passes the same suite.
Adapters never decide, never retry, keep no rollout's state; calls are synchronous, bounded, safe to repeat.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from tidegate.core import model, roles, schemas, series
from tidegate.core.promotions import Pass, PipelineState, Promotion
from tidegate.core.replay import Replay
from tidegate.core.sequential import Counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One result of an adapter's self-check, for `tide doctor`."""

    name: str
    ok: bool
    detail: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One line of output of an instance."""

    group_id: str
    index: int
    text: str


class Runtime(Protocol):
    """Runs groups of instances. Labels what it makes, so that `observe` rebuilds the world from nothing."""

    def apply(self, group: model.InstanceGroup, *, key: str) -> None:
        """Start what is missing of the group; returns before instances are ready.

        Never starts an instance twice. Raises RuntimeAdapterError, MachineError.
        """

    def observe(self, environment: model.EnvironmentKey) -> model.RuntimeState:
        """All groups of the environment, stopping ones included.

        Raises RuntimeAdapterError if it cannot look: never an empty answer instead.
        """

    def remove(self, group_id: str, *, key: str) -> None:
        """Begin to stop the group; returns at once. `observe` shows it until the last instance is gone."""

    def logs(self, group_id: str, *, tail: int, follow: bool = False) -> Iterator[LogLine | None]:
        """Last `tail` lines of each instance, oldest first, also of a group that has ended lately.

        With `follow` it goes on until the group is gone, and yields None whenever there is nothing new:
        it never blocks, so that the caller can stop or look elsewhere.
        """

    def check(self) -> tuple[Finding, ...]:
        """What on this machine would keep it from working."""


class Router(Protocol):
    """Sends requests to instances."""

    def apply(self, table: model.RouteTable, *, key: str) -> None:
        """Bring running router and boot files closer to the table; the loop calls again until they agree.

        The route is changed atomically for all services. Raises StaleRouteError if a larger fence is in
        force, RouterError if the router does not answer.
        """

    def observe(self, environment: model.EnvironmentKey) -> model.RouteState:
        """What is really held, read back. Raises RouterError if it cannot look."""

    def check(self) -> tuple[Finding, ...]:
        """What on this machine would keep it from working."""


class Migrator(Protocol):
    """Runs migrations, one job of an environment at a time; what was done is in the database's ledger."""

    def apply(self, job: schemas.MigrationJob) -> None:
        """Begin a job that it does not know; returns at once. Raises MigratorError."""

    def observe(self, key: model.EnvironmentKey) -> tuple[schemas.JobStatus, ...]:
        """Jobs that it knows, for as long as its process lives. Raises MigratorError."""

    def remove(self, key: model.EnvironmentKey, job_id: str) -> None:
        """Forget a job, and kill it first if it runs; `observe` shows it until it is gone."""


class Clock(Protocol):
    """Time, so that tests can own it."""

    def monotonic(self) -> float:
        """Seconds that only grow, suspended time included (CLOCK_BOOTTIME)."""

    def now(self) -> float:
        """Unix seconds, for display only."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """The right to write: `epoch` grows with each change of holder."""

    holder: str
    epoch: int
    ttl_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Versioned:
    """A state and the version to hand back with the next commit."""

    version: int
    state: model.EnvironmentState


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """An event of the append-only history."""

    sequence: int
    at: float
    key: model.EnvironmentKey
    event: model.Event


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRecord:
    """A rollout of the history."""

    key: model.EnvironmentKey
    rollout: model.Rollout
    started_at: float
    ended_at: float | None


class Store(Protocol):
    """Durable state. One writer, named by its lease; every commit is compare-and-set and fenced."""

    def acquire(self, holder: str, *, ttl_s: float) -> Lease:
        """Take the lease, with a new epoch. Raises LeaseHeldError while another holder's has not expired."""

    def renew(self, lease: Lease) -> None:
        """Extend the lease. Raises FencedError if it is no longer ours."""

    def release_lease(self, lease: Lease) -> None:
        """Give the lease back; no error if it is lost already."""

    def environments(self) -> tuple[model.EnvironmentKey, ...]:
        """All that have a state, sorted."""

    def load(self, key: model.EnvironmentKey) -> Versioned:
        """The state; version 0 and an empty state if there is none. Raises NewerStateError."""

    def commit(
        self,
        lease: Lease,
        versioned: Versioned,
        state: model.EnvironmentState,
        events: tuple[model.Event, ...],
        *,
        at: float,
    ) -> Versioned:
        """Replace `versioned` by `state` and append the events, in one transaction.

        The state's `rollout` and `last` are written to the history too. Raises FencedError, ConflictError,
        StorageError; then nothing was written.
        """

    def add_release(self, lease: Lease, release: model.Release) -> model.Release:
        """Store under the next number, or return the release that has the same digest and environments."""

    def releases(self, app: str, *, limit: int = 50) -> tuple[model.Release, ...]:
        """Newest first."""

    def release(self, app: str, number: int) -> model.Release | None:
        """One release."""

    def history(self, key: model.EnvironmentKey, *, limit: int = 50) -> tuple[RolloutRecord, ...]:
        """Newest first."""

    def rollout_by_request_key(self, key: model.EnvironmentKey, request_key: str) -> RolloutRecord | None:
        """The rollout that was asked for under this idempotency key."""

    def events(
        self, key: model.EnvironmentKey, *, after: int = 0, limit: int = 500
    ) -> tuple[EventRecord, ...]:
        """Oldest first, with a sequence above `after`."""

    def reserve_link_ports(
        self, lease: Lease, key: model.EnvironmentKey, services: tuple[str, ...], available: tuple[int, ...]
    ) -> tuple[model.Link, ...]:
        """A port per service and slot, the same at every call; of `app/service` one, whatever the slot.

        Raises RefusedError when none is left.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionedPipeline:
    """The pipeline of an app and the version to hand back with the next commit."""

    version: int
    state: PipelineState


class Pipelines(Protocol):
    """Durable state of pipelines, by app; written as `Store` writes states."""

    def apps(self) -> tuple[str, ...]:
        """All that have a pipeline, or an environment, sorted."""

    def load(self, app: str) -> VersionedPipeline:
        """Version 0 and an empty one if there is none. Raises NewerStateError."""

    def commit(
        self,
        lease: Lease,
        versioned: VersionedPipeline,
        state: PipelineState,
        *,
        passes: tuple[Pass, ...] = (),
        events: tuple[tuple[str, model.Event], ...] = (),
        at: float,
    ) -> VersionedPipeline:
        """Replace it, keep the passes, and append each event to its environment's, in one transaction.

        Promotions are kept for ever. Raises FencedError, ConflictError, StorageError.
        """

    def commit_together(
        self, lease: Lease, changes: tuple[tuple[VersionedPipeline, PipelineState], ...], *, at: float
    ) -> None:
        """Replace those of several apps, all or none of them. Raises as `commit` does."""

    def promotions(self, app: str, *, limit: int = 50) -> tuple[Promotion, ...]:
        """Newest first."""

    def promotion(self, app: str, promotion_id: int) -> Promotion | None:
        """One, under way or ended."""

    def promotion_by_key(self, app: str, key: str) -> Promotion | None:
        """The one that was asked for under this idempotency key."""

    def passes(self, app: str, identity: str) -> tuple[Pass, ...]:
        """What an identity has passed, oldest first; whether a seal is whole was not looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceCounts:
    """What one instance of the live release answered: `(tick, count)`, ticks of `TICK_S` since 1970."""

    service: str
    instance: int
    requests: Counted
    errors: Counted


@dataclass(frozen=True, slots=True, kw_only=True)
class UserCounts:
    """What all users of the live release were answered, and which part of them had the errors."""

    requests: Counted = ()
    """`(tick, requests)`, ticks as above."""
    errors: Counted = ()
    """`(USER_SHARDS * tick + part, errors)`: sorted by time, as everything that the series keeps."""


#: Length of a row's stretch in the series, in seconds -> for how long such rows are kept.
KEPT_S: Final = {1: 3600, 60: 7 * 24 * 3600, 3600: 400 * 24 * 3600}
#: Length of a tick of `InstanceCounts` and `UserCounts`.
TICK_S: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """The newest replay of an environment's own last day."""

    at: float
    """Unix seconds at which it ended."""
    replay: Replay


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What was seen of one environment since the last time that something was recorded."""

    key: model.EnvironmentKey
    marks: tuple[model.Traffic, ...] = ()
    """Counters of the router that have grown: they cover the rows."""
    ended: tuple[str, ...] = ()
    """Processes of the router whose counters will not be seen again."""
    rows: tuple[series.Row, ...] = ()
    """Of seconds."""
    points: tuple[tuple[int, series.Point], ...] = ()
    """Each with its rollout."""
    instances: tuple[InstanceCounts, ...] = ()
    users: UserCounts = UserCounts()


class Series(Protocol):
    """What was answered, second by second. May be lost at any time: no decision rests on it alone.

    Seconds are kept for an hour, minutes for a week, hours for 400 days, the points of an environment's last
    500 rollouts, instances and users for a day. Every call raises StorageError or StoreError when the series
    cannot be used; it may work again later.
    """

    def marks(self, key: model.EnvironmentKey) -> tuple[model.Traffic, ...] | None:
        """The router's counters that the rows cover, by process, service, slot; None: never recorded."""

    def add(self, recorded: tuple[Recorded, ...]) -> None:
        """Add all of it, or nothing.

        Each row to its second, its minute and its hour; each point to its rollout, and to the point of the
        same second if there is one; counts of instances and of users to theirs.
        """

    def rows(
        self, key: model.EnvironmentKey, *, since: int, until: int, step_s: int, limit: int = 20_000
    ) -> tuple[series.Row, ...]:
        """From `since`, before `until`, of seconds (1), minutes (60) or hours (3600), oldest first."""

    def points(self, key: model.EnvironmentKey, rollout: int) -> tuple[series.Point, ...]:
        """Oldest first, at most `core.series.POINTS_MAX`."""

    def instances(self, key: model.EnvironmentKey, *, since: int, until: int) -> tuple[InstanceCounts, ...]:
        """Counts of the ticks that begin from `since` on and before `until`, by service and instance."""

    def users(self, key: model.EnvironmentKey, *, since: int, until: int) -> UserCounts:
        """The same of the users."""

    def keep_noise(self, key: model.EnvironmentKey, noise: Noise) -> None:
        """Replace what is known of its noise."""

    def noise(self, key: model.EnvironmentKey) -> Noise | None:
        """As kept last."""

    def forget(self, now: float) -> None:
        """Remove what is too old at this Unix second."""


Claim = str | int | float | Sequence[str]
#: What a statement says, by name. `app` and `digest` are always there: whose artifact it is about.
Claims = Mapping[str, Claim]


class Seals(Protocol):
    """Signs statements and proves them, so that one that was edited in the database is found."""

    def seal(self, kind: str, claims: Claims) -> str:
        """The statement as text, to be stored. `kind`: `pass`, `approval`, `admission`, `provenance`.

        Raises SealError for a kind or for claims that no statement can hold, MachineError without a key.
        """

    def opened(self, kind: str, envelope: str) -> Mapping[str, Claim]:
        """What was sealed, sequences as tuples. Raises SealError unless every byte is as it was sealed.

        A statement of another kind is refused too: a pass is no admission.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """How an artifact came to be, as whoever brought it says: what its release does not say itself."""

    manifest: str = ""
    """Text of tidegate.yaml."""
    repository: str = ""
    command: str = ""
    """That built it; empty: nothing was built."""
    how: str = "sent"
    """`sent` by somebody who had it built, or `built` by this control plane from a clean checkout."""
    started: float = 0.0
    """Unix seconds."""
    finished: float = 0.0
    materials: tuple[str, ...] = ()
    """Addresses of what else went into it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Of a release, as it is kept."""

    envelope: str
    """Signed."""
    manifest: str
    """Its text; the envelope has its digest."""


class Origins(Protocol):
    """Signed provenances of releases."""

    def sign(self, release: model.Release, origin: Origin) -> None:
        """Sign where a release that has its number comes from; what a trusted key has signed stays.

        Raises SealError, MachineError, StoreError.
        """

    def prove(self, release: model.Release) -> Claims:
        """What a trusted key says of it. Raises SealError: nobody does, or of something else."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretRecord:
    """One version of a secret, without its value."""

    name: str
    version: int
    """From 1; never used again, also when the secret was removed."""
    at: float
    """Unix seconds, for display only."""
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """What nobody can read without a key."""

    key_id: str
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedSecret:
    """One version of a secret as it is stored."""

    record: SecretRecord
    sealed: Sealed


class Secrets(Protocol):
    """Values that an environment's services are given, sealed to that environment."""

    def versions(self, key: model.EnvironmentKey) -> tuple[model.SecretVersion, ...]:
        """The newest version of each secret that is set, sorted by name."""

    def kept(self, key: model.EnvironmentKey) -> tuple[SecretRecord, ...]:
        """Every version that can be opened, sorted by name and version."""

    def set(self, key: model.EnvironmentKey, name: str, value: bytes, *, by: str = "") -> int:
        """Seal a new version; its number. Those before are kept, so that a rollback finds them.

        Raises RequestError for a name or value that cannot be given to a program, MachineError, StoreError.
        """

    def remove(self, key: model.EnvironmentKey, name: str) -> int:
        """Forget all versions; how many there were. Raises NotFoundError if there are none."""

    def open(self, key: model.EnvironmentKey, name: str, version: int) -> bytes:
        """The value. Raises NotFoundError, and SealError if it was changed or belongs elsewhere."""


#: `asked`: let in, and how it ended is another entry; `found`: the control plane saw it by itself.
AuditOutcome = Literal["asked", "accepted", "refused", "found"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """Who did what, or tried to, or what was found: never a secret, never the body of a request."""

    at: float
    """Unix seconds."""
    by: str
    """A proved name (`core.roles.Asker.by`), or `tidegate`; empty: nobody knows."""
    role: str
    """Of the asker; empty: none was proved."""
    action: str
    """A `core.roles.Action`, or another word for what the control plane does by itself."""
    app: str = ""
    environment: str = ""
    release: int | None = None
    outcome: AuditOutcome
    reason: str = ""
    """Why it was refused, as machines name it."""
    detail: str = ""
    """A sentence for people."""
    token: int | None = None
    """Number of the token that was used."""
    of: int | None = None
    """Number of the entry that was written before, when it was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord:
    """An entry of the audit log, and its number: the first is 1, and none is left out."""

    sequence: int
    entry: AuditEntry


class Audit(Protocol):
    """The audit log: what is in it cannot be changed unnoticed."""

    def append(self, entry: AuditEntry) -> int:
        """Write it down, durably; its number. Raises StorageError, StoreError: then it is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditWanted:
    """Which entries somebody wants to see; an empty text: any."""

    app: str = ""
    environment: str = ""
    by: str = ""
    outcome: str = ""
    before: int = 2**62
    """Only with a smaller number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFault:
    """Rows of the audit log that are not as they were written."""

    first: int
    last: int
    what: str
    """`changed`, `missing`, `moved`, `cut` (at the end), `checkpoint`, or `noted` (found before, by us)."""
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditCheckpoint:
    """How far the log went: what is kept elsewhere proves later that nothing was cut off."""

    count: int
    head: str
    """Code of the last row, as hex digits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditProof:
    """The log as it was found."""

    checkpoint: AuditCheckpoint
    faults: tuple[AuditFault, ...]


class AuditLog(Audit, Protocol):
    """The audit log for those who read it."""

    def records(self, wanted: AuditWanted, *, limit: int) -> tuple[AuditRecord, ...]:
        """Newest first. What was asked for is left out where it is followed by how it ended."""

    def verify(self, *, after: int = 0, known: AuditCheckpoint | None = None) -> AuditProof:
        """Walk along the whole log; faults up to row `after` are known and left out.

        `known`: a checkpoint that was kept elsewhere, to be found in the log.
        """

    def checkpoint(self) -> AuditCheckpoint:
        """How far the log goes now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A token as it is kept: without what would let anybody use it."""

    id: int
    name: str
    role: roles.Role
    scope: tuple[roles.Reach, ...]
    created_at: float
    created_by: str
    expires_at: float | None
    """Unix seconds; None: never."""
    used_at: float | None = None
    """To the hour."""
    revoked_at: float | None = None
    revoked_by: str = ""


class Tokens(Protocol):
    """Tokens by the SHA-256 of their text, as hex digits."""

    def add(self, token: Token, digest: str) -> Token:
        """Keep a new one; `id` is given here. Raises RefusedError if one of that name is not revoked."""

    def find(self, digest: str) -> Token | None:
        """The token of that text, also an expired or a revoked one."""

    def all(self) -> tuple[Token, ...]:
        """Newest first."""

    def revoke(self, name: str, *, by: str, at: float) -> Token:
        """The one of that name that is not revoked yet is from now on. Raises NotFoundError."""

    def used(self, token: Token, *, at: float) -> None:
        """Remember when it was used, to the hour."""

"""The values that the whole of Tidegate speaks in.

Hides nothing; holds no behaviour beyond derived properties. All values are frozen and made only of
tuples, enums, numbers and strings, so that they compare, hash and serialise without surprise.

Identity rules (reliability.md 2.3):
- a *placement* is one release put into one environment, with all its instances, in one router slot.
  Its id comes from a counter in the committed state and is never used again; every name of a group,
  instance or server derives from it.
- `None` in an `Observation` means "could not look", never "is not there".
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Final, Self

from tidegate.core import counters, migrations, parts, policy, reasons, schemas, sequential
from tidegate.core.policy import AnalysisPolicy
from tidegate.core.sequential import Histogram, Plan

Reason = reasons.Reason
Refusal = reasons.Refusal
Traffic = counters.Traffic
Analysis = counters.Analysis
CheckKind = parts.CheckKind
Check = parts.Check
UserIdentity = parts.UserIdentity
Limits = parts.Limits
SecretUse = parts.SecretUse
SecretVersion = parts.SecretVersion
Smoke = parts.Smoke
Verify = parts.Verify
Approvals = parts.Approvals
Freeze = parts.Freeze
Endpoint = parts.Endpoint
Link = parts.Link
ForeignLink = parts.ForeignLink

#: Service name of the group that verifies a placement: no service of a manifest can have it.
VERIFY_SERVICE: Final = "_verify"

#: Variable by which libpq is told what to call a connection.
CONNECTION_NAME: Final = "PGAPPNAME"

#: Exposure is counted in basis points: 10 000 is everybody.
FULL_EXPOSURE: Final = 10_000

#: Router slots per environment: live, incoming, and two that are warm or being retired.
SLOTS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentKey:
    """Names one environment of one app."""

    app: str
    environment: str

    def __str__(self) -> str:
        return f"{self.app}/{self.environment}"


# --- what a user wants ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec:
    """One service as an environment runs it, fully resolved."""

    name: str
    run: tuple[str, ...]
    """argv, no shell. `$NAME` and `${NAME}` are filled from the instance's environment."""
    serves: bool
    """Has a port and takes requests. False: a worker, replaced after the services that serve."""
    check: Check
    instances: int = 1
    needs: tuple[str, ...] = ()
    """Services of the same app."""
    foreign: tuple[str, ...] = ()
    """Services of other apps, as `app/service`, sorted."""
    hosts: tuple[str, ...] = ()
    """Public host names; empty: only reached by services that need it."""
    identity: UserIdentity = UserIdentity.COOKIE
    limits: Limits = parts.UNLIMITED
    ready_timeout_s: float = 60.0
    """From start to ready; then the rollout is aborted."""
    drain_s: float = 60.0
    """How long open connections (WebSockets, downloads) may outlive the routing before they are cut."""
    grace_s: float = 10.0
    """From SIGTERM to SIGKILL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One step of a strategy."""

    exposure_bps: int
    hold_s: float | None
    """Observed seconds to stay; None: until somebody says `promote`."""


class StrategyKind(enum.StrEnum):
    """Names of the strategies."""

    SWITCH = "switch"
    CANARY = "canary"


@dataclass(frozen=True, slots=True, kw_only=True)
class Strategy:
    """How a release takes over. The last stage always has full exposure."""

    kind: StrategyKind
    stages: tuple[Stage, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentSpec:
    """Everything that a release says about one environment: kept whole, so that a rollback restores it."""

    services: tuple[ServiceSpec, ...]
    """In dependency order: a service stands after all that it needs."""
    strategy: Strategy
    config: tuple[tuple[str, str], ...] = ()
    """Configuration of the environment, sorted by name."""
    keep_warm_s: float = 600.0
    """How long the replaced release's instances stay, so that going back is a flip; also how long a
    crash loop of the new one rolls it back."""
    analysis: AnalysisPolicy = policy.DEFAULT
    """How a canary is judged from its traffic."""
    secrets: tuple[SecretUse, ...] = ()
    """Sorted by name."""
    verify: Verify | None = None
    soak_s: float = 0.0
    """Observed seconds that a release must be live here before it may enter the next environment."""
    approvals: Approvals | None = None
    """Before a release may enter; None: nobody is asked."""
    freezes: tuple[Freeze, ...] = ()
    migrations: schemas.MigrationsUse | None = None
    """None: the release brings no migrations."""

    def service(self, name: str) -> ServiceSpec | None:
        return next((service for service in self.services if service.name == name), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Immutable: one artifact and one manifest, numbered per app."""

    app: str
    number: int
    digest: str
    """`sha256:` + 64 hex digits."""
    environments: tuple[tuple[str, EnvironmentSpec], ...]
    """In the order of the pipeline."""
    revision: str = ""
    """Source revision, as the builder said it."""
    created_at: float = 0.0
    """Unix seconds, for display only."""
    created_by: str = ""

    @property
    def name(self) -> str:
        return f"r{self.number}"

    def environment(self, name: str) -> EnvironmentSpec | None:
        return next((spec for key, spec in self.environments if key == name), None)


# --- what is committed ---------------------------------------------------------------------------


class Role(enum.StrEnum):
    """What a placement is for."""

    INCOMING = "incoming"
    LIVE = "live"
    STANDBY = "standby"
    RETIRING = "retiring"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A release in an environment, with its instances, in one router slot."""

    id: int
    release: int
    digest: str
    slot: int
    role: Role
    spec: EnvironmentSpec
    links: tuple[Link, ...] = ()
    foreign: tuple[ForeignLink, ...] = ()
    secrets: tuple[SecretVersion, ...] = ()
    admission: str = ""
    """Sealed statement that this release may run in this environment; its instances start only with it."""
    emergency: str = ""
    """Not empty: why it came here past the gates."""
    endpoints: tuple[Endpoint, ...] = ()
    cleared: tuple[str, ...] = ()
    """Services of a retiring placement whose connections have ended (or were given their time)."""
    idle_s: float = 0.0
    """Observed seconds since no new request is routed to it."""
    live_s: float = 0.0
    """Observed seconds since it became live, counted up to `keep_warm_s`."""
    crash_baseline: int = 0
    """Crashes counted when it was taken over or became live: older ones are not held against it."""
    predecessor: int | None = None
    """Placement that it replaced by a deploy: where a crash loop sends it back to. None after a rollback."""
    migrations: tuple[str, ...] = ()
    """Ids of those that its release knows, as found when the schema was made ready for it."""
    starts_ahead: bool = False
    """See `RolloutRequest`."""
    settled: bool = False
    """The schema is as this release wants it: nothing is left to be applied or reverted."""
    stranded: bool = False
    """Live, and the schema cannot be brought back to what it needs: its users' requests stay held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Who answers: one value, applied atomically for all services of an environment."""

    stable: int | None = None
    """Slot that answers by default; None: nothing is deployed."""
    canary: int | None = None
    """Slot that answers the exposed users."""
    exposure_bps: int = 0
    salt: str = ""
    """Of the rollout: another rollout exposes other users."""
    preview: str = ""
    """Token that lets its bearer see the canary at any exposure; empty: nobody."""
    hold_s: int = 0
    """Not 0: new requests wait in the router until this is 0 again, and are answered by 503 with Retry-After
    after so many seconds. The bearer of the preview token does not wait."""
    fence: int = 0
    """Grows with every change; a smaller one is refused by the router's adapter."""


class Phase(enum.StrEnum):
    """Where a rollout stands. Transitions: `core.lifecycle`."""

    QUEUED = "queued"
    MIGRATING = "migrating"
    STARTING = "starting"
    VERIFYING = "verifying"
    SHIFTING = "shifting"
    HOLDING = "holding"
    FINISHING = "finishing"
    ABORTING = "aborting"
    SUCCEEDED = "succeeded"
    ABORTED = "aborted"

    @property
    def ended(self) -> bool:
        return self in (Phase.SUCCEEDED, Phase.ABORTED)


class RolloutKind(enum.StrEnum):
    """Forward, or back."""

    DEPLOY = "deploy"
    ROLLBACK = "rollback"


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRequest:
    """What somebody asked for, with everything from outside that the core may not look up itself."""

    kind: RolloutKind
    release: int
    digest: str
    spec: EnvironmentSpec
    strategy: Strategy
    links: tuple[Link, ...] = ()
    foreign: tuple[ForeignLink, ...] = ()
    secrets: tuple[SecretVersion, ...] = ()
    admission: str = ""
    emergency: str = ""
    """Not empty: why the gates were bypassed; shown for as long as the release is live."""
    salt: str = ""
    preview: str = ""
    by: str = ""
    why: str = ""
    key: str = ""
    """Idempotency key: the same key is the same rollout."""
    automatic: bool = False
    """Asked for by Tidegate itself."""
    at: float = 0.0
    """Unix seconds, for display only."""
    plan: Plan = sequential.PLAIN
    """How much one stretch of evidence may count: from the stable release's own last day."""
    past: Histogram = sequential.NOTHING
    """Latencies of the stable release before the rollout."""
    accepted: tuple[str, ...] = ()
    """Ids of migrations that may go forward without a way back, or back with a loss: somebody said so."""
    starts_ahead: bool = False
    """Proved: the release starts on a schema that has more than it knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """Putting one release into one environment."""

    id: int
    request: RolloutRequest
    phase: Phase
    placement: int | None = None
    """The incoming placement; None while queued."""
    created_placement: bool = False
    """False: it took over a warm one."""
    previous_release: int | None = None
    stage: int = 0
    ready_services: int = 0
    """Most services that were ready while starting: each one more gives the next its own time."""
    phase_s: float = 0.0
    """Control plane seconds in this phase, not counted while paused: deadlines."""
    held_s: float = 0.0
    """Observed healthy seconds at the stage's exposure: hold times."""
    unready_s: float = 0.0
    stable_down_s: float = 0.0
    paused: bool = False
    reason: Reason = Reason.REQUESTED
    detail: str = ""
    exposure_reached_bps: int = 0
    analysis: Analysis | None = None
    """None: nobody was exposed yet, or there is nothing to compare with."""
    migration: migrations.Plan | None = None
    """What runs on the database on the way; None: not known yet, or nothing."""

    @property
    def strategy(self) -> Strategy:
        return self.request.strategy

    @property
    def current_stage(self) -> Stage:
        return self.strategy.stages[min(self.stage, len(self.strategy.stages) - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentState:
    """The committed record of one environment: all that decisions rest on."""

    key: EnvironmentKey
    next_id: int = 1
    """Of placements and rollouts; never re-used."""
    placements: tuple[Placement, ...] = ()
    route: Route = Route()
    rollout: Rollout | None = None
    last: Rollout | None = None
    """The rollout that ended last."""
    pending: RolloutRequest | None = None
    """Starts when the current rollout has gone home."""
    schema: schemas.SchemaWork | None = None
    """What is being done to the database."""
    halted: str = ""
    """Not empty: observe only, and why."""
    foreign_id: int = 0
    """Largest placement id that was seen without ever having been given out by this state."""
    seen_runtime: int = 0
    seen_router: int = 0
    """Newest revisions seen: observations that go back in time are dropped."""

    def placement(self, placement_id: int | None) -> Placement | None:
        return next((p for p in self.placements if p.id == placement_id), None)

    def in_role(self, role: Role) -> tuple[Placement, ...]:
        return tuple(p for p in self.placements if p.role is role)

    @property
    def live(self) -> Placement | None:
        return next(iter(self.in_role(Role.LIVE)), None)

    @property
    def incoming(self) -> Placement | None:
        return self.placement(self.rollout.placement) if self.rollout else None

    def with_placement(self, placement: Placement) -> Self:
        """The state with the placement of that id replaced."""
        return replace(
            self, placements=tuple(placement if p.id == placement.id else p for p in self.placements)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One line of the history: what was decided and why. The engine stamps the time."""

    reason: Reason
    rollout: int | None = None
    release: int | None = None
    phase: Phase | None = None
    exposure_bps: int | None = None
    detail: str = ""


# --- what is asked of the adapters ----------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceGroup:
    """One service of one placement, with all its instances: what a runtime is asked to run."""

    key: EnvironmentKey
    placement: int
    service: str
    release: int
    digest: str
    run: tuple[str, ...]
    serves: bool
    check: Check
    instances: int
    environment: tuple[tuple[str, str], ...]
    """Configuration and links (`API_URL`), sorted by name; the runtime adds PORT and TIDEGATE_*."""
    limits: Limits
    grace_s: float
    secrets: tuple[SecretVersion, ...] = ()
    admission: str = ""
    verify: Verify | None = None
    """Set: a job, not a service. One instance without a port runs once to its end; see `InstanceStatus`."""

    @property
    def id(self) -> str:
        return group_id(self.key, self.placement, self.service)

    @property
    def connection_name(self) -> str:
        """What its connections to a database are called there."""
        return f"{self.key.app}.{self.key.environment}.r{self.release}"


def group_id(key: EnvironmentKey, placement: int, service: str) -> str:
    """Name of a group, e.g. `shop.production.7.api`; parts never contain a dot."""
    return f"{key.app}.{key.environment}.{placement}.{service}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One instance in the router."""

    name: str
    host: str
    port: int
    ready: bool = True
    """False: known, but takes no new connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """The servers of one service in one slot."""

    service: str
    slot: int
    check: Check
    servers: tuple[Server, ...]
    link_port: int | None = None
    """Loopback port on which services of the same placement reach it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicService:
    """A service with host names."""

    service: str
    hosts: tuple[str, ...]
    identity: UserIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteTable:
    """All that the router must hold for one environment."""

    key: EnvironmentKey
    route: Route
    services: tuple[PublicService, ...] = ()
    backends: tuple[Backend, ...] = ()
    """Every service in every slot that a placement occupies, sorted by (service, slot)."""
    foreign: tuple[ForeignLink, ...] = ()
    """What this environment calls of other apps, sorted by service."""


# --- what is observed ------------------------------------------------------------------------------


class InstanceState(enum.StrEnum):
    """Where an instance stands, as the runtime proves it."""

    STARTING = "starting"
    RUNNING = "running"
    BACKOFF = "backoff"
    STOPPING = "stopping"
    EXITED = "exited"


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceStatus:
    """One instance as the runtime sees it."""

    index: int
    state: InstanceState
    host: str = "127.0.0.1"
    port: int | None = None
    ready: bool | None = None
    """Answer of the readiness check; None: not asked yet. Of a job: None until it has ended, then `EXITED`
    and whether it succeeded."""
    crashes: int = 0
    """Unasked ends since it was created."""
    recent_crashes: int = 0
    """Of these, within the last five minutes."""
    pid: int | None = None
    exit: str = ""
    """How it ended last, e.g. `exit status 1`, `killed by SIGKILL (out of memory)`."""
    check: str = ""
    """What the readiness check said last, e.g. `GET /missing answered 404`, `connection refused`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStatus:
    """One group as the runtime sees it: rebuilt from the world, not from memory."""

    id: str
    placement: int
    service: str
    instances: tuple[InstanceStatus, ...]

    @property
    def ready_count(self) -> int:
        return sum(1 for instance in self.instances if instance.ready)

    @property
    def crashes(self) -> int:
        return sum(instance.crashes for instance in self.instances)


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeState:
    """What the runtime really runs for one environment, rebuilt from the world."""

    revision: int
    """Grows with every look, over restarts of the control plane and of the host too."""
    groups: tuple[GroupStatus, ...]
    """Those that are being stopped included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """One server as the running router sees it, over all its processes."""

    service: str
    slot: int
    name: str
    host: str
    port: int
    up: bool
    """Passed its checks (or has none) and takes requests."""
    ready: bool
    """Administrative state: takes new connections."""
    sessions: int | None = 0
    """Connections now, those in processes of before a reload included; None: unknown."""
    requests: int = 0
    """Answered since the newest process of the router started, by that process."""
    errors: int = 0
    """Of them: 5xx. A request without an answer is the router's own error, and no server's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteState:
    """What the router really holds for one environment, read back."""

    revision: int
    """Grows with every look, over restarts of the control plane and of the host too."""
    boot: RouteTable | None
    """What a restart of the router would bring up; None: nothing."""
    route: Route | None
    """What the running router does now; None: it does not know the environment."""
    servers: tuple[ServerStatus, ...]
    current: bool = True
    """The running router was loaded with the structure (services, hosts, checks) of `boot`."""
    traffic: tuple[Traffic, ...] = ()
    processes: tuple[str, ...] = ()
    """Those of the router that answer requests, sorted: after a reload the old one still does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One look at the world. `None` = could not look."""

    runtime: RuntimeState | None
    routes: RouteState | None
    jobs: tuple[schemas.JobStatus, ...] | None = None
    """Of the migrator, for this environment."""

    @property
    def groups(self) -> tuple[GroupStatus, ...] | None:
        """What runs; None: could not look."""
        return self.runtime.groups if self.runtime is not None else None

"""Adapters that pass commands and looks on to the world, with faults on the way.

Every outcome of a command is possible: done, refused, lost, done late, done twice, done by halves, and each
of these with or without an answer. A look can fail, lag, or go back in time with its own older revision.
Neighbours: `world` holds the truth, `profiles` the rates, `control` runs the loop on these adapters.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from tests.simulation.checkers.base import Violation
from tests.simulation.profiles import CALM, Faults
from tests.simulation.world import Crash, World
from tidegate import errors, ports
from tidegate.core import model, reconcile, schemas
from tidegate.core.effects import ApplyGroup, ApplyRoutes, RemoveGroup
from tidegate.testing.store import MemoryStore

_EFFECT_FATES = ("crash_effect", "depose", "late", "lost", "twice", "refused", "partial")
_STEPS = ("boot", "reload", "servers", "route", "removals")
T = TypeVar("T", model.RuntimeState, model.RouteState)
LATE_MAX_S = 25.0
ZOMBIE_COMMIT_MAX_S = 60.0


class Fates:
    """Decides what happens to each effect, look and commit; one for all adapters of a universe."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.faults: Faults = CALM
        self.hung = False
        """The leader hangs: what it still sends comes late."""
        self.troubled = False
        """Something went wrong since this was last reset: the step does not count as a repair."""
        self.lag_s = 0.0
        self._fates: list[tuple[str, float]] = []

    def set(self, faults: Faults) -> None:
        """Begin to use these rates."""
        self.faults = faults
        self.lag_s = 0.0
        rates = [(name, float(getattr(faults, name))) for name in _EFFECT_FATES]
        self._fates = [(name, rate) for name, rate in rates if rate]

    def effect(self, kind: str, land: Callable[[], None]) -> None:
        """Let a command take its way. Raises what its sender sees."""
        if self.hung:
            self._late(land)
            return
        for name, rate in self._fates:
            if self.world.rng.random() < rate and (name != "partial" or kind == "routes"):
                self.world.reached[f"effect {name}"] += 1
                self.world.note(f"  {kind} is {name}")
                self.troubled = True
                self._suffer(name, kind, land)
                return
        land()

    def _suffer(self, name: str, kind: str, land: Callable[[], None]) -> None:
        rng = self.world.rng
        answered = rng.random() < 0.5
        if name == "crash_effect":
            if answered:
                land()
            raise Crash
        if name == "depose":
            self.hung = True
            self._late(land)
        elif name == "late":
            self._late(land)
            self._unless(answered, kind)
        elif name == "lost":
            self._unless(answered, kind)
        elif name == "twice":
            land()
            self._late(land)
        elif name == "partial":
            self.world.stop_before_step = rng.choice(_STEPS)
            land()
            self.world.stop_before_step = ""
        else:
            self._unless(answered=False, kind=kind)

    def _late(self, land: Callable[[], None]) -> None:
        self.world.later(self.world.rng.uniform(0.2, LATE_MAX_S), land)

    @staticmethod
    def _unless(answered: bool, kind: str) -> None:
        if not answered and kind in ("migrate", "stop migration"):
            raise errors.MigratorError("The migrator has not answered in time.")
        if not answered and kind == "routes":
            raise errors.RouterError("The router has not answered in time.")
        if not answered:
            raise errors.RuntimeAdapterError("The runtime has not answered in time.")

    def blind(self, rate: float) -> bool:
        """Whether this look gets no answer."""
        failed = rate > 0 and self.world.rng.random() < rate
        if failed:
            self.world.reached["blind look"] += 1
            self.troubled = True
        return failed


class Recent(Generic[T]):
    """The last answers about one environment, so that an older one can be shown again.

    Never the newest of those shown: an adapter promises that each look has a revision of its own.
    """

    def __init__(self, fates: Fates) -> None:
        self._fates = fates
        self._answers: deque[tuple[float, T]] = deque(maxlen=12)
        self._newest_shown = 0

    def shown(self, answer: T) -> T:
        """The answer, or an older one instead."""
        faults = self._fates.faults
        chosen = self._chosen(answer) if faults.stale or faults.lag else answer
        self._newest_shown = max(self._newest_shown, chosen.revision)
        return chosen

    def _chosen(self, answer: T) -> T:
        world, fates = self._fates.world, self._fates
        self._answers.append((world.now, answer))
        if fates.lag_s > 0:
            world.reached["lagging look"] += 1
            fates.troubled = True
            old = [known for at, known in self._answers if at <= world.now - fates.lag_s]
            unseen = [known for known in old if known.revision > self._newest_shown]
            return unseen[-1] if unseen else next(iter(old), answer)
        if world.rng.random() < fates.faults.stale:
            world.reached["stale look"] += 1
            fates.troubled = True
            return world.rng.choice([old for _, old in self._answers if old.revision != self._newest_shown])
        return answer


class SimRuntime:
    """`ports.Runtime` of a universe."""

    def __init__(self, fates: Fates) -> None:
        self._fates = fates
        self._world = fates.world
        self._recent: dict[model.EnvironmentKey, Recent[model.RuntimeState]] = {}
        self.last: model.RuntimeState | None = None
        """What the last look showed; None: it got no answer."""

    def apply(self, group: model.InstanceGroup, *, key: str) -> None:
        self._fates.effect("apply", lambda: self._world.land_group(group))

    def remove(self, group_id: str, *, key: str) -> None:
        self._fates.effect("remove", lambda: self._world.land_remove(group_id))

    def observe(self, environment: model.EnvironmentKey) -> model.RuntimeState:
        self.last = None
        if self._fates.blind(self._fates.faults.blind_runtime):
            raise errors.RuntimeAdapterError("The runtime does not answer.")
        state = self._world.runtime.observe(environment)
        recent = self._recent.setdefault(environment, Recent(self._fates))
        self.last = recent.shown(state)
        return self.last

    def logs(self, group_id: str, *, tail: int, follow: bool = False) -> Iterator[ports.LogLine | None]:
        return self._world.runtime.logs(group_id, tail=tail, follow=follow)

    def check(self) -> tuple[ports.Finding, ...]:
        return self._world.runtime.check()


class SimRouter:
    """`ports.Router` of a universe. The loop looks at it after the runtime: then the look is complete."""

    def __init__(self, fates: Fates, runtime: SimRuntime, store: SimStore) -> None:
        self._fates = fates
        self._runtime = runtime
        self._store = store
        self._world = fates.world
        self._recent: dict[model.EnvironmentKey, Recent[model.RouteState]] = {}

    def apply(self, table: model.RouteTable, *, key: str) -> None:
        self._fates.effect("routes", lambda: self._world.land_routes(table))

    def observe(self, environment: model.EnvironmentKey) -> model.RouteState:
        shown = None
        try:
            shown = self._observe(environment)
            return shown
        finally:
            look = model.Observation(runtime=self._runtime.last, routes=shown)
            self._store.observed[environment] = look
            self._world.looked(environment, look)

    def _observe(self, environment: model.EnvironmentKey) -> model.RouteState:
        if self._fates.blind(self._fates.faults.blind_router):
            raise errors.RouterError("The router does not answer.")
        state = self._world.router.observe(environment)
        recent = self._recent.setdefault(environment, Recent(self._fates))
        return recent.shown(state)

    def check(self) -> tuple[ports.Finding, ...]:
        return self._world.router.check()


class SimMigrator:
    """`ports.Migrator` of one process of the control plane, on the databases of the universe."""

    def __init__(self, fates: Fates) -> None:
        self._fates = fates
        self._migrator = fates.world.migrator()
        self._dead = False

    def apply(self, job: schemas.MigrationJob) -> None:
        self._fates.effect("migrate", lambda: None if self._dead else self._migrator.apply(job))

    def remove(self, key: model.EnvironmentKey, job_id: str) -> None:
        self._fates.effect("stop migration", lambda: self._migrator.remove(key, job_id))

    def observe(self, key: model.EnvironmentKey) -> tuple[schemas.JobStatus, ...]:
        asked = bool(self._fates.world.history.migrations)  # other universes stay as they were
        if asked and self._fates.blind(self._fates.faults.blind_runtime):
            raise errors.MigratorError("The migrator does not answer.")
        return self._migrator.observe(key)

    def die(self) -> None:
        """Its process ends: what it was still told is heard by nobody."""
        self._dead = True
        self._migrator.die()


class SimStore(MemoryStore):
    """The store of a universe: a commit can kill its caller, before or after, or come too late."""

    def __init__(self, fates: Fates) -> None:
        super().__init__(clock=lambda: fates.world.clock.elapsed)
        self._fates = fates
        self.observed: dict[model.EnvironmentKey, model.Observation] = {}
        """What the leader decided on last, for the effects of a commit that comes late."""

    def peek(self, key: model.EnvironmentKey) -> model.EnvironmentState:
        """The committed state, for those who look at the truth many times a second."""
        stored = self._tables.states.get(key)
        return stored.state if stored is not None else model.EnvironmentState(key=key)

    @property
    def epoch(self) -> int:
        """Of the leader."""
        return self._tables.epoch

    def commit(
        self,
        lease: ports.Lease,
        versioned: ports.Versioned,
        state: model.EnvironmentState,
        events: tuple[model.Event, ...],
        *,
        at: float,
    ) -> ports.Versioned:
        fates, world = self._fates, self._fates.world
        rng, faults = world.rng, fates.faults
        if faults.hang_commit and rng.random() < faults.hang_commit:
            world.note("  the leader hangs before a commit")
            delay_s = rng.uniform(1.0, ZOMBIE_COMMIT_MAX_S)
            world.later(delay_s, lambda: self._commit_late(lease, versioned, state, events))
            raise Crash
        if faults.crash_commit and rng.random() < faults.crash_commit:
            done = rng.random() < 0.5
            world.reached[f"crash {'after' if done else 'before'} commit"] += 1
            if done:
                self._commit(lease, versioned, state, events, at)
            raise Crash
        return self._commit(lease, versioned, state, events, at)

    def _commit(
        self,
        lease: ports.Lease,
        versioned: ports.Versioned,
        state: model.EnvironmentState,
        events: tuple[model.Event, ...],
        at: float,
    ) -> ports.Versioned:
        world = self._fates.world
        before = self.load(state.key)
        result = super().commit(lease, versioned, state, events, at=at)
        if lease.epoch != self.epoch:
            raise Violation("DEPOSED-COMMIT", f"epoch {lease.epoch} has written, {self.epoch} leads")
        if before.version != versioned.version:
            raise Violation(
                "LOST-UPDATE", f"version {before.version} was overwritten from {versioned.version}"
            )
        world.committed_now(before.state, state, events)
        return result

    def _commit_late(
        self,
        lease: ports.Lease,
        versioned: ports.Versioned,
        state: model.EnvironmentState,
        events: tuple[model.Event, ...],
    ) -> None:
        world = self._fates.world
        observed = self.observed.get(state.key)
        try:
            self._commit(lease, versioned, state, events, world.clock.now())
        except errors.StoreError:
            world.reached["late commit refused"] += 1
            raise
        world.reached["late commit accepted"] += 1
        for effect in reconcile.reconcile(state, observed) if observed else ():
            match effect:
                case ApplyGroup(group=group):
                    world.land_group(group)
                case RemoveGroup(group_id=group_id):
                    world.land_remove(group_id)
                case ApplyRoutes(table=table):
                    world.land_routes(table)

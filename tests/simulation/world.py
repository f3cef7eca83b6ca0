"""The world of one universe: what runs, what is routed, what is committed, and the clock over all of it.

Holds the truth. Commands reach it through `adapters`, which let faults happen on the way; each command that
lands is shown to the checkers first. Nothing here decides which fault happens: that is `faults`.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from tests.simulation import scenario, schema
from tests.simulation.profiles import Faults
from tidegate import errors
from tidegate.core import model, schemas
from tidegate.core.migrations import Migration, Step
from tidegate.testing import fakes

if TYPE_CHECKING:
    from tests.simulation.checkers.base import Checker
    from tests.simulation.faults import SimStore

#: Controller-up seconds after which an injected loss of instances must have been repaired.
REPAIR_S = 45.0
#: What a process knows of the world before its first look, and after a blind one.
NOTHING_SEEN = model.Observation(runtime=None, routes=None)


class Crash(BaseException):
    """The control plane's process dies here. Not an Exception: nobody may catch it on the way."""


class World:
    """One universe."""

    def __init__(self, seed: int, faults: Faults, *, keys: tuple[model.EnvironmentKey, ...] = ()) -> None:
        """`keys`: the environments; without them, one or two as the seed has it."""
        self.rng = random.Random(seed)
        self.faults = faults
        self.clock = fakes.ManualClock()
        self.runtime = fakes.FakeRuntime(
            clock=self.clock,
            reuse_ports=self.rng.random() < 0.5,
            remembers_reboot=self.rng.random() < 0.5,
        )
        self.router = fakes.FakeRouter(
            clock=self.clock, reachable=self.runtime.serves, on_step=self._router_step
        )
        two = self.rng.random() < faults.two_environments
        one = (scenario.PRODUCTION,)
        self.keys = keys or ((*one, scenario.STAGING) if two else one)
        self.databases: dict[model.EnvironmentKey, fakes.Database] = {}
        self.history = schema.History()
        self.offered: dict[str, tuple[Migration, ...]] = {}
        """Migrations that a release brings, by digest."""
        self._migrators: list[fakes.FakeMigrator] = []
        for key in self.keys:
            database = fakes.Database()
            database.on_step = partial(self._schema_changed, key)
            self.databases[key] = database
        self.store: SimStore
        """Set by the universe: it needs the world."""
        self.checkers: list[Checker] = []
        self.reached: Counter[str] = Counter()
        self.trace: list[str] = []
        self.process = 0
        """Number of the newest process of the control plane; another one has no memory of it."""
        self.acting = 0
        """Number of the process whose step it is: an older one that hung can wake up for a last one."""
        self.landing_late = False
        self.restored = False
        #: Users' requests per environment and slot that were answered, and that failed.
        self.served: defaultdict[tuple[model.EnvironmentKey, int], tuple[int, int]] = defaultdict(
            lambda: (0, 0)
        )
        self.router_restarts = 0
        self.stopped_servers: set[tuple[model.EnvironmentKey, str]] = set()
        self.stop_before_step = ""
        self.releases: dict[str, scenario.Release] = {}
        self._seen: dict[tuple[int, model.EnvironmentKey], model.Observation] = {}
        self._newest_seen: dict[tuple[int, model.EnvironmentKey], tuple[int, int]] = {}
        self._went_back: set[tuple[int, model.EnvironmentKey]] = set()
        self._repair_s = dict.fromkeys(self.keys, 0.0)
        self._tampered_s = dict.fromkeys(self.keys, 0.0)
        self._routes: dict[model.EnvironmentKey, model.Route | None] = dict.fromkeys(self.keys)
        self._late: list[tuple[float, int, Callable[[], None]]] = []
        self._late_count = 0

    # --- the truth ---

    @property
    def now(self) -> float:
        return self.clock.elapsed

    def committed(self, key: model.EnvironmentKey) -> model.EnvironmentState:
        return self.store.peek(key)

    def character(self, digest: str) -> scenario.Character:
        return self.releases[digest].character

    def drain_s(self, digest: str, service: str) -> float:
        """The drain time of a service that the state has forgotten."""
        spec = self.releases[digest].spec.service(service)
        return spec.drain_s if spec else 0.0

    def true_look(self, key: model.EnvironmentKey) -> model.Observation:
        return model.Observation(runtime=self.runtime.observe(key), routes=self.router.observe(key))

    def restored_below(self, key: model.EnvironmentKey) -> bool:
        """The state is older than what runs, and the acting process was shown it, or the state says so."""
        state = self.committed(key)
        if not self.restored or not (state.halted or (self.acting, key) in self._went_back):
            return False
        return _from_the_future(state, self.runtime.groups_of(key))

    def note(self, text: str) -> None:
        """One line of the trace, which is the universe's fingerprint."""
        self.trace.append(f"{self.now:8.2f} {text}")

    # --- what the control plane knows of it ---

    def seen(self, key: model.EnvironmentKey) -> model.Observation:
        """What the acting process was shown in its last step: the truth, as old as a look may be.

        Without what that process could know to be outdated: a look no newer than one that it was shown
        before, or than one that was committed.
        """
        return self._seen.get((self.acting, key), NOTHING_SEEN)

    def looked(self, key: model.EnvironmentKey, look: model.Observation) -> None:
        """The acting process was shown this."""
        who, state = (self.acting, key), self.committed(key)
        known = self._newest_seen.get(who, (0, 0))
        newest = (max(known[0], state.seen_runtime), max(known[1], state.seen_router))
        runtime = look.runtime if look.runtime and look.runtime.revision > newest[0] else None
        routes = look.routes if look.routes and look.routes.revision > newest[1] else None
        self._newest_seen[who] = (
            runtime.revision if runtime else newest[0],
            routes.revision if routes else newest[1],
        )
        self._seen[who] = model.Observation(runtime=runtime, routes=routes)
        if runtime and _from_the_future(state, runtime.groups):
            self._went_back.add(who)
        if self.acting != self.process:
            return  # what it counts is never committed
        for checker in self.checkers:
            checker.on_look(key, runtime=runtime is not None, router=routes is not None)

    # --- excuses ---

    def excuse_capacity(self, key: model.EnvironmentKey) -> None:
        """An injected fault has taken instances away."""
        self._repair_s[key] = REPAIR_S

    def capacity_excused(self, key: model.EnvironmentKey) -> bool:
        return self._repair_s[key] > 0 or self._tampered_s[key] > 0

    def tampered(self, key: model.EnvironmentKey) -> bool:
        return self._tampered_s[key] > 0

    def controlled(self, key: model.EnvironmentKey, seconds: float) -> None:
        """The control plane has made a complete step, with both looks answered and no fault on its way."""
        self._repair_s[key] = max(0.0, self._repair_s[key] - seconds)
        self._tampered_s[key] = max(0.0, self._tampered_s[key] - seconds)

    # --- what lands ---

    def committed_now(
        self, before: model.EnvironmentState, after: model.EnvironmentState, events: tuple[model.Event, ...]
    ) -> None:
        key = after.key
        for event in events:
            self.note(f"{key} {event.reason} rollout {event.rollout} {event.detail}")
            self.reached[f"event: {event.reason}"] += 1
        for checker in self.checkers:
            checker.on_commit(key, before, after, events)

    def land_group(self, group: model.InstanceGroup) -> None:
        for checker in self.checkers:
            checker.on_apply(group)
        self.note(f"start {group.id}")
        self.runtime.apply(group, key="")
        # After a reset of the machine a port is handed out anew: whoever has it now was not stopped.
        self.stopped_servers -= {(group.key, name) for name in self._server_names(group.id)}

    def land_remove(self, group_id: str) -> None:
        app, environment, _, _ = group_id.split(".")
        key = model.EnvironmentKey(app=app, environment=environment)
        for checker in self.checkers:
            checker.on_remove(key, group_id)
        self.note(f"stop {group_id}")
        self.stopped_servers |= {(key, name) for name in self._server_names(group_id)}
        for instance in self.runtime.instances(group_id):
            if instance.port is not None:
                self.router.cut_address(instance.port)
        self.runtime.remove(group_id, key="")

    def _server_names(self, group_id: str) -> set[str]:
        """Of its instances, as the router names them."""
        placement = group_id.split(".")[2]
        return {
            f"p{placement}-{instance.index}-{instance.port}"
            for instance in self.runtime.instances(group_id)
            if instance.port is not None
        }

    def land_routes(self, table: model.RouteTable) -> None:
        """Raises what the router raises, with what was done until then shown to the checkers."""
        key = table.key
        self.router.settle()
        self.note(f"route {key} fence {table.route.fence} {table.route.exposure_bps} bps")
        sessions = len(self.router.sessions)
        held = self.router.server_names(key)
        try:
            self.router.apply(table, key="")
        except errors.StaleRouteError:
            self.reached["stale route refused"] += 1
            raise
        finally:
            self._routed(key, table)
            cut = sessions - len(self.router.sessions)
            if cut:
                gone = tuple(name for name in held if name not in self.router.server_names(key))
                for checker in self.checkers:
                    checker.on_removed_servers(key, cut, gone)

    def _routed(self, key: model.EnvironmentKey, command: model.RouteTable | None) -> None:
        before, after = self._routes[key], self.router.route(key)
        if after is None:
            return
        self._routes[key] = after
        for checker in self.checkers:
            checker.on_route(key, before, after, command)

    def _router_step(self, step: str) -> None:
        if step == self.stop_before_step:
            self.stop_before_step = ""
            raise errors.RouterError("The connection to the router was lost.")

    # --- databases ---

    def migrator(self) -> fakes.FakeMigrator:
        """Of a process of the control plane that starts."""
        made = fakes.FakeMigrator(
            clock=self.clock,
            databases=self.databases,
            offered=self.offered,
            lasts_s=lambda job: 0.5 if job.studies else float(len(job.steps)),
            fails=self._migration_fails,
        )
        self._migrators.append(made)
        return made

    def _migration_fails(self, job: schemas.MigrationJob) -> str:
        if self.faults.migration_fails and self.rng.random() < self.faults.migration_fails:
            self.reached["migration fails"] += 1
            return "the database has no time"
        return ""

    def _schema_changed(self, key: model.EnvironmentKey, step: Step) -> None:
        self.note(f"{key}: {step.direction} {step.id}")
        self.reached[f"migration {step.direction}"] += 1
        for checker in self.checkers:
            checker.on_schema(key, step)

    # --- what comes late ---

    def later(self, delay_s: float, land: Callable[[], None]) -> None:
        """Let a command land when the world has moved on."""
        self._late_count += 1
        self._late.append((self.now + delay_s, self._late_count, land))

    def land_late(self) -> None:
        """All that is due."""
        due = sorted((entry for entry in self._late if entry[0] <= self.now), key=lambda entry: entry[:2])
        if not due:
            return
        self._late = [entry for entry in self._late if entry[0] > self.now]
        self.landing_late = True
        for _, _, land in due:
            self.reached["late effect landed"] += 1
            try:
                land()
            except errors.TidegateError as error:
                self.note(f"late command refused: {error.kind}")
        self.landing_late = False

    @property
    def waits_for_late(self) -> bool:
        return bool(self._late)

    # --- what happens to the machine ---

    def crash_instance(self, group_id: str, index: int, how: str) -> None:
        """`how`: crash, exit or hang."""
        group = self.runtime.group(group_id)
        self.note(f"{how} {group_id} {index}")
        self.reached[f"instance {how}"] += 1
        self.excuse_capacity(group.key)
        if how != "hang":
            self.lose_sessions(group_id, index)
        if how == "hang":
            self.runtime.hang(group_id, index, seconds=self.rng.uniform(0.5, 6.0))
        elif how == "exit":
            self.runtime.exit(group_id, index)
        else:
            self.runtime.crash(group_id, index)

    def lose_sessions(self, group_id: str, index: int) -> None:
        """A process ends by itself: its sessions end with it, and nobody has cut them."""
        for instance in self.runtime.instances(group_id):
            if instance.index == index and instance.port is not None:
                self.router.cut_address(instance.port)

    def reload_router(self) -> None:
        self.note("router reloads")
        self.reached["router reload"] += 1
        self.router.reload()
        self._after_restart()

    def kill_router(self) -> None:
        if self.router.down:
            return
        self.note("router is killed")
        self.reached["router kill"] += 1
        self.router.kill()
        self.later(self.rng.uniform(0.5, 4.0), self._start_router)

    def _start_router(self) -> None:
        if self.router.down:
            self.note("router starts")
            self.router.start()
            self._after_restart()

    def answer(self, key: model.EnvironmentKey, slot: int, requests: int, failed: int) -> None:
        """Users were answered."""
        self.router.answered(key, model.Traffic(service="web", slot=slot, requests=requests, errors=failed))
        before = self.served[key, slot]
        self.served[key, slot] = (before[0] + requests, before[1] + failed)

    def _after_restart(self) -> None:
        self.router_restarts += 1
        for key in self.keys:
            self._routed(key, None)

    def reboot(self) -> None:
        """A hard reset: no process is left, no command is under way any more."""
        self.note("the machine is reset")
        self.reached["reboot"] += 1
        self._late.clear()
        self.runtime.reboot()
        for migrator in self._migrators:
            migrator.die()
        self.router.kill()
        self.clock.reboot()
        self.later(self.rng.uniform(0.5, 3.0), self._start_router)
        for key in self.keys:
            self.excuse_capacity(key)

    def tamper(self, key: model.EnvironmentKey) -> None:
        """Somebody edits the running route, and does not think of the fence."""
        route = self.router.route(key)
        if route is None or route.canary is None:
            return
        self.note(f"{key}: route is changed by hand")
        self.reached["tampered"] += 1
        share = self.rng.choice((0, 1_000, 9_000))
        self.router.tamper(key, replace(route, exposure_bps=share))
        self._routes[key] = self.router.route(key)
        self._tampered_s[key] = 10.0

    def tick(self) -> None:
        """One second passes in the world, before anybody acts."""
        self.clock.advance(1.0)
        self.land_late()
        self.router.settle()
        for migrator in self._migrators:
            migrator.advance()
        self._drop_dead_sessions()

    def _drop_dead_sessions(self) -> None:
        for session in list(self.router.sessions):
            owner = self.runtime.owner(session.port)
            if owner is None or owner[2] is not model.InstanceState.RUNNING:
                self.router.cut_address(session.port)

    def check(self) -> None:
        for checker in self.checkers:
            checker.on_tick()


def all_serving(
    placement: model.Placement, groups: tuple[model.GroupStatus, ...] | None, *, at_least: int | None = None
) -> bool:
    """Every service with traffic has (all of, or `at_least`) its instances ready; not so if nobody looked."""
    ready = {group.service: group.ready_count for group in groups or () if group.placement == placement.id}
    return all(
        ready.get(service.name, 0) >= (at_least or service.instances)
        for service in placement.spec.services
        if service.serves
    )


def _from_the_future(state: model.EnvironmentState, groups: tuple[model.GroupStatus, ...]) -> bool:
    """A group has a placement id that the state has never given out."""
    return any(group.placement >= state.next_id for group in groups)

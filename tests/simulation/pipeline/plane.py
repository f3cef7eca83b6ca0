"""The control plane of a universe: the real parts, put together as the daemon does, in a process that dies.

One leads; one that was deposed without knowing it may make a last step beside its successor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from tests.simulation.pipeline.world import APP, KEYS, Crash, World
from tidegate import errors, ports
from tidegate.core import model, requests, sequential
from tidegate.core.model import EnvironmentKey
from tidegate.core.promotions import Promotion
from tidegate.engine import delivery, loop
from tidegate.engine.gates import Gates
from tidegate.engine.operations import Operations
from tidegate.engine.pipelines import Pipelines
from tidegate.testing import fakes
from tidegate.testing.vault import MemorySecrets

TTL_S: Final = 1e9
#: Steps in one second, while there is something to do.
STEPS: Final = 4
#: Between two looks at an environment in which nothing moves.
IDLE_S: Final = 2.0

Answer = TypeVar("Answer")


class Origins:
    """Nobody asks in this world where anything comes from."""

    def sign(self, release: model.Release, origin: ports.Origin) -> None:
        """Kept nowhere."""

    def prove(self, release: model.Release) -> ports.Claims:
        return {}


class Memory:
    """Nothing is known of any past."""

    def past(self, key: EnvironmentKey, live: model.Placement) -> sequential.Histogram:
        return sequential.NOTHING

    def plan(self, key: EnvironmentKey) -> sequential.Plan:
        return sequential.PLAIN


class Process:
    """The parts of one process, all of one lease."""

    def __init__(self, world: World) -> None:
        self.world = world
        lease = world.store.acquire("tidegate", ttl_s=TTL_S)
        adapters = loop.Adapters(
            store=world.store,
            runtime=world.runtime,
            router=world.router,
            migrator=fakes.FakeMigrator(clock=world.clock),
            clock=world.clock,
        )
        self.lease: Final = lease
        self.controller: Final = loop.Controller(adapters, lease, renewed_at=world.clock.monotonic())
        door = Gates(
            store=world.store,
            kept=world.kept,
            seals=world.seals,
            content=world.content,
            clock=world.clock,
            found=lambda _key, _release, _what: world.reached.update(["tampering found"]),
        )
        self.operations: Final = Operations(
            controller=self.controller,
            store=world.store,
            lease=lease,
            clock=world.clock,
            content=world.content,
            link_ports=tuple(range(9_000, 9_200)),
            memory=Memory(),
            secrets=MemorySecrets(),
            origins=Origins(),
            gates=door,
            wake=lambda: None,
        )
        self.pipelines: Final = Pipelines(
            store=world.store,
            kept=world.kept,
            lease=lease,
            clock=world.clock,
            gates=door,
            enter=self._enter,
            send_home=self._send_home,
            wake=lambda: None,
        )
        self.delivery: Final = delivery.Delivery(
            operations=self.operations, pipelines=self.pipelines, gates=door
        )
        self.views: dict[EnvironmentKey, loop.View] = {}

    def _enter(self, key: EnvironmentKey, release: model.Release, promotion: Promotion) -> requests.Decision:
        self.world.may_crash("before a rollout begins")
        entered = delivery.enter(self.operations, key, release, promotion)
        self.world.may_crash("after a rollout has begun")
        return entered

    def _send_home(self, key: EnvironmentKey, rollout: int) -> None:
        self.world.may_crash("before a rollout goes home")
        try:
            self.operations.steer(key, lambda state: requests.abort(state, by="tidegate", rollout=rollout))
        except errors.RequestError:
            return
        self.world.reached["sent home"] += 1
        self.world.may_crash("after a rollout was sent home")

    def look(self, key: EnvironmentKey) -> bool:
        view = self.controller.step(key)
        self.views[key] = view
        self.world.checker.looked(key)
        return view.changed

    def carry_on(self) -> bool:
        known = {key: self.views[key] for key in self.world.store.environments() if key in self.views}
        return self.pipelines.step(APP, known)


class ControlPlane:
    """Starts a process, and another one when it has died."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.process: Process | None = None
        self._deposed: Process | None = None
        self._back_at = 0.0
        self._stalled_until = 0.0
        self._blind_until = 0.0
        self._engrossed_until = 0.0
        self._suspended_until = 0.0

    def start(self) -> None:
        if self.process is None and (self.world.calm or self.world.clock.elapsed >= self._back_at):
            self.process = Process(self.world)

    def strike(self) -> None:
        """Faults of this second."""
        world, rates = self.world, self.world.faults
        now = world.clock.elapsed
        if world.strikes(rates.depose) and self.process is not None:
            world.note("another control plane takes over")
            world.reached["deposed"] += 1
            self._deposed, self.process = self.process, None
            self._back_at = now
        if world.strikes(rates.blind):
            self._blind_until = now + world.rng.uniform(1.0, 8.0)
            world.reached["blind"] += 1
        if world.strikes(rates.stalled):
            self._stalled_until = now + world.rng.uniform(2.0, 40.0)
            world.reached["stalled"] += 1
        if world.strikes(rates.engrossed):
            self._engrossed_until = now + world.rng.uniform(3.0, 20.0)
            world.reached["engrossed"] += 1
        if world.strikes(rates.suspended):
            self._suspended_until = now + world.rng.uniform(2.0, 20.0)
            world.reached["suspended"] += 1
        world.runtime.blind = not world.calm and now < self._blind_until

    def tick(self) -> None:
        """What the control plane does in a second."""
        if not self.world.calm and self.world.clock.elapsed < self._suspended_until:
            return
        self.start()
        self._last_step_of_the_deposed()
        if self.world.calm or self.world.clock.elapsed >= self._stalled_until:
            for key in KEYS:
                self._looked(key)
        if not self.world.calm and self.world.clock.elapsed < self._engrossed_until:
            return
        for _ in range(STEPS):
            process = self.process
            if process is None or not self._stepped(process):
                return

    def _looked(self, key: EnvironmentKey) -> None:
        state, now = self.world.store.load(key).state, self.world.clock.elapsed
        idle = state.rollout is None and state.pending is None and len(state.placements) < 2
        if idle and now - self.world.checker.looked_at(key) < IDLE_S:
            return
        for _ in range(STEPS):
            process = self.process
            if process is None or key not in self.world.store.environments():
                return
            if not self.guarded(lambda p=process: p.look(key)):  # type: ignore[misc]
                return

    def _stepped(self, process: Process) -> bool:
        changed = self.guarded(lambda: self._carried_on(process))
        return bool(changed)

    def _carried_on(self, process: Process) -> bool:
        self.world.checker.begin_step(process)
        changed = process.carry_on()
        self.world.checker.on_step()
        return changed

    def _last_step_of_the_deposed(self) -> None:
        deposed, self._deposed = self._deposed, None
        if deposed is None:
            return
        for act in (deposed.carry_on, lambda: deposed.look(KEYS[0])):
            try:
                act()
            except errors.FencedError:
                self.world.reached["fenced"] += 1
            except (errors.TidegateError, Crash):
                continue

    def guarded(self, act: Callable[[], Answer]) -> Answer | None:
        """Its answer; None when the control plane has died of it, or could not do it."""
        try:
            return act()
        except Crash:
            self.process = None
            self._back_at = self.world.clock.elapsed + self.world.rng.choice((0.0, 0.0, 2.0, 15.0))
        except errors.FencedError:
            self.process = None
            self._back_at = self.world.clock.elapsed
        except errors.RequestError:
            raise
        except errors.TidegateError as error:
            self.world.reached[f"trouble: {error.kind}"] += 1
        return None

"""The control plane of a universe: a process with a lease that steps, dies, hangs, and comes back.

The code in it is the real one: `engine.loop.Controller` on the adapters of `faults`.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.simulation.faults import Fates, SimMigrator, SimRouter, SimRuntime, SimStore
from tests.simulation.world import Crash, World
from tidegate import errors
from tidegate.core import model, requests
from tidegate.engine.loop import Adapters, Controller

LEASE_S = 6.0
#: Between two steps when the first one changed something.
SOON_S = 0.3

Decide = Callable[[model.EnvironmentState], requests.Decision]


class ControlPlane:
    """At most one process leads; one that hung too long may wake up beside its successor."""

    def __init__(self, world: World, fates: Fates, store: SimStore) -> None:
        self._world = world
        self._fates = fates
        runtime = SimRuntime(fates)
        router = SimRouter(fates, runtime, store)
        self._runtime, self._router = runtime, router
        self._store = store
        self._leader: Controller | None = None
        self._migrator = SimMigrator(fates)
        """Of the newest process: another one has no memory of its jobs."""
        self._holder = "a"
        self._back_at = 0.0
        self._sleepers: list[tuple[float, int, Controller]] = []
        """When each wakes up, and the number of its process."""

    @property
    def runs(self) -> bool:
        return self._leader is not None

    def tick(self) -> None:
        """Start if it is time, then make the steps of this second."""
        self._wake_sleepers()
        if self._leader is None and self._world.now >= self._back_at:
            self._start()
        for key in self._world.keys:
            self._guarded(lambda k=key: self._steps(k))  # type: ignore[misc]

    def request(self, key: model.EnvironmentKey, decide: Decide) -> requests.Decision | None:
        """Press a button; None when nobody answers."""
        answer: list[requests.Decision] = []
        leader = self._leader
        if leader is not None:
            self._guarded(lambda: answer.append(leader.request(key, decide)))
        return answer[0] if answer else None

    def die(self, *, hang: bool = False) -> None:
        """The process is killed; with `hang` it is only stopped and wakes up beside its successor."""
        if self._leader is None:
            return
        rng = self._world.rng
        self._world.note("the control plane hangs" if hang else "the control plane dies")
        self._world.reached["control plane death"] += 1
        if not hang:
            self._migrator.die()  # its workers hear that it is gone
        if hang:
            self._sleepers.append(
                (self._world.now + rng.uniform(1.0, 30.0), self._world.process, self._leader)
            )
        self._leader = None
        self._back_at = self._world.now + rng.choice((0.0, 0.5, 2.0, 6.0))
        if hang or rng.random() < 0.3:
            self._holder = "b" if self._holder == "a" else "a"

    def stall(self, seconds: float) -> None:
        """It does nothing for a while, and does not know it."""
        if self._leader is None:
            return
        self._world.note(f"the control plane stalls for {seconds:.0f} s")
        self._world.reached["stall"] += 1
        self._stalled_until = self._world.now + seconds

    _stalled_until = 0.0

    def forget_sleepers(self) -> None:
        """A reset of the machine ends hung processes too."""
        self._sleepers.clear()

    # --- inside ---

    def _start(self) -> None:
        world = self._world
        asked_at = world.clock.monotonic()
        try:
            lease = self._store.acquire(self._holder, ttl_s=LEASE_S)
        except errors.LeaseHeldError:
            return
        world.process += 1
        world.acting = world.process
        world.reached["control plane start"] += 1
        world.note(f"control plane {self._holder} leads with epoch {lease.epoch}")
        self._stalled_until = 0.0
        self._migrator = SimMigrator(self._fates)
        adapters = Adapters(
            store=self._store,
            runtime=self._runtime,
            router=self._router,
            migrator=self._migrator,
            clock=world.clock,
        )
        self._leader = Controller(adapters, lease, renewed_at=asked_at)

    def _steps(self, key: model.EnvironmentKey) -> None:
        leader = self._leader
        if leader is None or self._world.now < self._stalled_until:
            return
        self._fates.troubled = False
        leader.renew_if_due()
        view = leader.step(key)
        if not self._fates.troubled and not view.failures:
            self._world.controlled(key, 1.0)
        if view.changed and not self._fates.hung:
            self._world.clock.advance(SOON_S / len(self._world.keys))
            leader.step(key)

    def _guarded(self, act: Callable[[], object]) -> None:
        try:
            act()
        except Crash:
            self.die()
        except errors.ConflictError:
            self._world.reached["conflict"] += 1
        except errors.FencedError:
            self._world.reached["fenced"] += 1
            self.die()
        except errors.RefusedError as error:
            self._world.reached[f"refused: {error.reason}"] += 1
        if self._fates.hung:
            self._fates.hung = False
            self.die(hang=True)

    def _wake_sleepers(self) -> None:
        due = [(process, sleeper) for at, process, sleeper in self._sleepers if at <= self._world.now]
        self._sleepers = [entry for entry in self._sleepers if entry[0] > self._world.now]
        for process, sleeper in due:
            self._world.acting = process
            for key in self._world.keys:
                try:
                    sleeper.step(key)
                except errors.FencedError:
                    self._world.reached["sleeper fenced"] += 1
                except (errors.ConflictError, Crash):
                    self._world.reached["sleeper stopped"] += 1
        self._world.acting = self._world.process

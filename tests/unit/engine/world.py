"""A clock, a runtime and a router of a few lines: they show what they are given, and note what is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.support.builders import KEY, Scene, perfect
from tidegate import errors, ports
from tidegate.core import model
from tidegate.core.model import EnvironmentKey
from tidegate.engine import loop
from tidegate.testing.fake_migrator import FakeMigrator
from tidegate.testing.store import MemoryStore

TTL_S = 12.0


class World:
    """Runtime, router and clock in one; `calls` holds everything that was asked, in order."""

    def __init__(self) -> None:
        self.time_s = 100.0
        self.calls: list[str] = []
        self.observed = model.Observation(runtime=None, routes=None)
        """What each look shows; its revision is that of the first one."""
        self.looks = 0
        self.failing: dict[str, Exception] = {}
        """By the first word of a call."""
        self.slow_s = 0.0
        """How long each effect takes."""

    # --- clock ---

    def monotonic(self) -> float:
        return self.time_s

    def now(self) -> float:
        return 1_700_000_000.0 + self.time_s

    def sleep(self, seconds: float) -> None:
        self.time_s += seconds

    def _called(self, call: str) -> None:
        self.calls.append(call)
        name = call.split(maxsplit=1)[0]
        if not name.startswith("observe"):
            self.time_s += self.slow_s
        failure = self.failing.get(name)
        if failure is not None:
            raise failure

    def revised(self, revision: int) -> int:
        """Of this look: each has one of its own, as the ports promise."""
        self.looks += 1
        return revision + self.looks - 1

    def check(self) -> tuple[ports.Finding, ...]:
        return ()


class Runtime:
    """`ports.Runtime` of the world."""

    def __init__(self, world: World) -> None:
        self.world = world

    def apply(self, group: model.InstanceGroup, *, key: str) -> None:
        self.world._called(f"apply {key}")

    def observe(self, environment: EnvironmentKey) -> model.RuntimeState:
        self.world._called("observe-runtime")
        seen = self.world.observed.runtime
        if seen is None:
            raise errors.RuntimeAdapterError("blind")
        return replace(seen, revision=self.world.revised(seen.revision))

    def remove(self, group_id: str, *, key: str) -> None:
        self.world._called(f"remove {key}")

    def logs(self, group_id: str, *, tail: int, follow: bool = False) -> Iterator[ports.LogLine]:
        return iter(())

    def check(self) -> tuple[ports.Finding, ...]:
        return ()


class Router:
    """`ports.Router` of the world."""

    def __init__(self, world: World) -> None:
        self.world = world

    def apply(self, table: model.RouteTable, *, key: str) -> None:
        self.world._called(f"route {key}")

    def observe(self, environment: EnvironmentKey) -> model.RouteState:
        self.world._called("observe-router")
        seen = self.world.observed.routes
        if seen is None:
            raise errors.RouterError("blind")
        return replace(seen, revision=self.world.revised(seen.revision))

    def check(self) -> tuple[ports.Finding, ...]:
        return ()


class Plant:
    """A controller on a store in memory, and the world that it sees."""

    def __init__(self) -> None:
        self.world = World()
        self.on_commit: Callable[[], None] = lambda: None
        """Called before each commit."""
        self.store = MemoryStore(
            clock=self.world.monotonic, through_codec=True, before_commit=self._before_commit
        )
        self.lease = self.store.acquire("one", ttl_s=TTL_S)
        self.controller = self.another(self.lease)

    def _before_commit(self) -> None:
        self.on_commit()

    def another(self, lease: ports.Lease) -> loop.Controller:
        """A controller of that lease."""
        world = self.world
        adapters = loop.Adapters(
            store=self.store,
            runtime=Runtime(world),
            router=Router(world),
            migrator=FakeMigrator(),
            clock=world,
        )
        return loop.Controller(adapters, lease, renewed_at=world.monotonic())

    def holds(self, scene: Scene, key: EnvironmentKey = KEY) -> model.EnvironmentState:
        """Commit a state, and show the world in which everything of it came through."""
        state = replace(scene.state, key=key)
        versioned = self.store.load(key)
        self.store.commit(self.lease, versioned, state, (), at=0.0)
        self.world.observed = perfect(state)
        return state

    @property
    def state(self) -> model.EnvironmentState:
        return self.store.load(KEY).state

    @property
    def effects(self) -> list[str]:
        """What the world was asked to do, looks left out."""
        return [call for call in self.world.calls if not call.startswith("observe")]

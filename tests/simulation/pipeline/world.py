"""The world of a universe: three environments, releases good and bad, and the database that they share.

Holds the truth that the checkers judge by, and the points at which the control plane can die or be refused.
Neighbours: `plane` (the process), `people` (who asks), `checker` (what must never happen).
"""

from __future__ import annotations

import datetime as dt
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from tidegate import errors, ports
from tidegate.core import model, strategy
from tidegate.core.model import Approvals, EnvironmentKey, EnvironmentSpec, Freeze, Verify
from tidegate.core.promotions import PipelineState
from tidegate.testing import fake_runtime, fakes
from tidegate.testing.pipelines import MemoryPipelines
from tidegate.testing.store import MemoryStore
from tidegate.testing.vault import PlainSeals

if TYPE_CHECKING:
    from tests.simulation.pipeline.checker import Checker

APP: Final = "shop"
NAMES: Final = ("test", "staging", "production")
KEYS: Final = tuple(EnvironmentKey(app=APP, environment=name) for name in NAMES)
READY_TIMEOUT_S: Final = 6.0
VERIFY_TIMEOUT_S: Final = 5.0


class Crash(BaseException):
    """The control plane's process dies here. Not an Exception: nobody may catch it on the way."""


class Violation(AssertionError):
    """Something happened that must never happen."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"{rule}: {detail}")
        self.rule = rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Rates of one universe: a probability per opportunity, or per second where it says so."""

    crash: float = 0.0
    """Before and after each commit, and each other step of the control plane that shows outside."""
    refused: float = 0.0
    """A commit fails, and nothing is written."""
    seal_fails: float = 0.0
    conflict: float = 0.0
    """Somebody else commits while a decision is made."""
    depose: float = 0.0
    """Per second: another control plane takes over, and the one before does not know it yet."""
    blind: float = 0.0
    """Per second: the runtime cannot be looked at for a while."""
    stalled: float = 0.0
    """Per second: nobody looks at the environments for a while, and the pipelines go on."""
    engrossed: float = 0.0
    """Per second: the pipelines do not go on for a while, since a large package is read; all else does."""
    suspended: float = 0.0
    """Per second: the whole control plane does nothing for a while, and does not know it."""
    wall_jump: float = 0.0
    """Per second."""
    tamper: float = 0.0
    """Per second: somebody edits the database."""
    instance: float = 0.0
    """Per second: an instance hangs for a while."""
    bad_release: float = 0.0


def faults(rng: random.Random) -> Faults:
    """A few turned up, others off."""

    def rate(extreme: float) -> float:
        dice = rng.random()
        return 0.0 if dice < 0.5 else extreme * (1.0 if dice > 0.9 else rng.uniform(0.05, 0.4))

    return Faults(
        crash=rate(0.05),
        refused=rate(0.15),
        seal_fails=rate(0.1),
        conflict=rate(0.4),
        depose=rate(0.03),
        blind=rate(0.04),
        stalled=rate(0.1),
        engrossed=rate(0.1),
        suspended=rate(0.05),
        wall_jump=rate(0.1),
        tamper=rate(0.2),
        instance=rate(0.2),
        bad_release=rng.choice((0.0, 0.2, 0.5)),
    )


class Seals(PlainSeals):
    """Seals whose key can be out of reach for a moment."""

    def __init__(self, world: World) -> None:
        self._world = world

    def seal(self, kind: str, claims: ports.Claims) -> str:
        if self._world.strikes(self._world.faults.seal_fails):
            self._world.reached["seal failed"] += 1
            raise errors.MachineError("The key cannot be read.")
        return super().seal(kind, claims)


class Content:
    """Packages; whose bytes were changed is known."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self.changed: set[str] = set()

    def digests(self) -> set[str]:
        return self.known

    def collect(self, keep: Any) -> tuple[str, ...]:
        return ()

    def verify(self, digest: str) -> None:
        if digest in self.changed:
            raise errors.ArtifactError("A byte was changed.")


class World:
    """One universe."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.faults = faults(self.rng)
        self.calm = False
        """Faults have stopped."""
        self.clock = fakes.ManualClock()
        self.ends: dict[tuple[str, str], fake_runtime.JobEnd] = {}
        """How the checks of a package end, by digest and environment."""
        self.runtime = fakes.FakeRuntime(clock=self.clock, jobs=self._job)
        self.router = fakes.FakeRouter(clock=self.clock, reachable=self.runtime.serves)
        self.meanwhile: Callable[[], None] = lambda: None
        """What somebody else does while a decision is made."""
        self._busy = False
        self.store = MemoryStore(
            clock=self.clock.monotonic, before_commit=self.before_commit, after_commit=self._after
        )
        self.kept = Kept(self)
        self.seals = Seals(self)
        self.content = Content()
        self.releases: dict[int, model.Release] = {}
        self.checker: Checker
        """Set by the universe: it needs the world."""
        self.reached: Counter[str] = Counter()
        self.trace: list[str] = []
        self.rules = _rules(self.rng, self.clock.now())

    def note(self, text: str) -> None:
        self.trace.append(f"{self.clock.elapsed:8.2f} {text}")

    def strikes(self, rate: float) -> bool:
        return not self.calm and rate > 0 and self.rng.random() < rate

    # --- crash points ---

    def may_crash(self, where: str) -> None:
        if not self._busy and self.strikes(self.faults.crash):
            self.note(f"the control plane dies {where}")
            self.reached[f"crash {where}"] += 1
            raise Crash

    def before_commit(self) -> None:
        """Somebody else is faster, or the commit fails, or the process dies."""
        if self._busy:
            return
        if self.strikes(self.faults.conflict):
            self._busy = True
            try:
                self.reached["conflict"] += 1
                self.meanwhile()
            finally:
                self._busy = False
        if self.strikes(self.faults.refused):
            self.reached["commit refused"] += 1
            raise errors.StorageError("The disk is full.")
        self.may_crash("before a commit")

    def _after(self) -> None:
        for key in KEYS:
            self.checker.on_environment(key, self.store.load(key).state)
        self.may_crash("after a commit")

    # --- releases ---

    def release(self) -> model.Release:
        """The next one, as a build would make it."""
        rng = self.rng
        number = len(self.releases) + 1
        before = self.releases.get(number - 1)
        names = list(NAMES)
        if rng.random() < 0.15:
            names.remove(rng.choice(NAMES[:2]))
        digest = f"sha256:{number:064x}"
        same = before is not None and rng.random() < 0.15
        if same and before is not None:  # only a configuration has changed
            digest = before.digest
            specs = tuple((name, replace(spec, config=_config(number))) for name, spec in before.environments)
        else:
            rules = self.rules if rng.random() < 0.6 else _rules(rng, self.clock.now())
            specs = tuple((name, replace(rules[name], config=_config(number))) for name in names)
            self._character(digest)
        found = model.Release(app=APP, number=number, digest=digest, environments=specs)
        self.content.known.add(digest)
        self.releases[number] = found
        return found

    def _character(self, digest: str) -> None:
        rng = self.rng
        behaviour = fake_runtime.Behaviour(ready_after_s=rng.choice((0.0, 0.5, 2.0)))
        if rng.random() < self.faults.bad_release:
            if rng.random() < 0.4:
                behaviour = replace(behaviour, crash_after_s=0.5, restart_after_s=(0.5,))
                self.reached["release crashes"] += 1
            else:
                where, after_s = rng.choice(NAMES), rng.choice((0.5, 60.0))
                self.ends[digest, where] = fake_runtime.JobEnd(
                    after_s=after_s, passed=False, exit="exit status 1"
                )
                self.reached["checks fail"] += 1
        self.runtime.behaviours[digest] = behaviour

    def _job(self, group: model.InstanceGroup) -> fake_runtime.JobEnd:
        fine = fake_runtime.JobEnd(after_s=1.0)
        return self.ends.get((group.digest, group.key.environment), fine)


class Kept(MemoryPipelines):
    """The pipelines of the world, with its crash points."""

    def __init__(self, world: World) -> None:
        super().__init__(world.store)
        self._world = world

    def commit(
        self, lease: ports.Lease, versioned: ports.VersionedPipeline, state: PipelineState, **more: Any
    ) -> ports.VersionedPipeline:
        world = self._world
        world.before_commit()
        committed = super().commit(lease, versioned, state, **more)
        world.checker.on_pipeline(versioned.state, state, more.get("passes", ()))
        world.may_crash("after a commit")
        return committed


def _config(number: int) -> tuple[tuple[str, str], ...]:
    return (("RELEASE", str(number)),)


def _rules(rng: random.Random, now: float) -> dict[str, EnvironmentSpec]:
    """What stands before each environment."""
    web = model.ServiceSpec(
        name="web",
        run=("./web",),
        serves=True,
        check=model.Check(kind=model.CheckKind.HTTP),
        hosts=("shop.example.com",),
        ready_timeout_s=READY_TIMEOUT_S,
        drain_s=1.0,
        grace_s=1.0,
    )
    found = {}
    for name in NAMES:
        canary = strategy.canary((model.Stage(exposure_bps=1_000, hold_s=1.0),))
        found[name] = EnvironmentSpec(
            services=(replace(web, hosts=(f"{name}.example.com",)),),
            strategy=canary if rng.random() < 0.2 else strategy.SWITCH,
            keep_warm_s=rng.choice((0.0, 5.0)),
            verify=Verify(run=("./smoke",), timeout_s=VERIFY_TIMEOUT_S) if rng.random() < 0.5 else None,
            soak_s=rng.choice((0.0, 0.0, 3.0, 6.0, 25.0)),
            approvals=_approvals(rng) if rng.random() < (0.6 if name == "production" else 0.1) else None,
            freezes=_freezes(rng, now) if rng.random() < 0.2 else (),
        )
    return found


def _approvals(rng: random.Random) -> Approvals:
    return Approvals(
        count=rng.choice((1, 2)),
        roles=rng.choice(((), (), ("approver",), ("admin",))),
        expires_s=rng.choice((2.0, 6.0, 1e6)),
        not_by_requester=rng.random() < 0.5,
    )


def _freezes(rng: random.Random, now: float) -> tuple[Freeze, ...]:
    since = now + rng.uniform(-30.0, 60.0)
    until = since + rng.choice((10.0, 40.0, 1e7))
    return (Freeze(zone="UTC", dates=(_local(since), _local(until))),)


def _local(at: float) -> str:
    return dt.datetime.fromtimestamp(int(at), dt.UTC).replace(tzinfo=None).isoformat()

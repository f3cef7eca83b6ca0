"""One seed, one universe: chaos for some minutes of virtual time, then quiet, then judgement."""

from __future__ import annotations

import hashlib
import random
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

from tests.simulation import profiles, scenario, schema
from tests.simulation.checkers.base import Violation
from tests.simulation.checkers.effects import EffectChecker
from tests.simulation.checkers.evidence import EvidenceChecker
from tests.simulation.checkers.exposure import ExposureChecker, bucket
from tests.simulation.checkers.quiescence import QuiescenceChecker, unsettled
from tests.simulation.checkers.records import RecordChecker
from tests.simulation.checkers.schemas import SchemaChecker
from tests.simulation.checkers.traffic import TrafficChecker
from tests.simulation.checkers.verification import VerificationChecker
from tests.simulation.control import ControlPlane
from tests.simulation.faults import Fates, SimStore
from tests.simulation.profiles import CALM, Faults
from tests.simulation.world import World
from tidegate import errors
from tidegate.core import model, requests
from tidegate.core.model import Phase, RolloutKind
from tidegate.testing import fakes

CHECKERS = (
    TrafficChecker,
    EffectChecker,
    ExposureChecker,
    EvidenceChecker,
    RecordChecker,
    SchemaChecker,
    VerificationChecker,
    QuiescenceChecker,
)
CHAOS_S = 110
QUIET_MAX_S = 420
#: Requests of users per second and environment.
REQUESTS_PER_S = 40
#: A session begins with this probability per second and slot.
SESSION_RATE = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a universe."""

    seed: int
    profile: str
    violation: str = ""
    detail: str = ""
    seconds: float = 0.0
    rollouts: int = 0
    digest: str = ""
    reached: Counter[str] = field(default_factory=Counter)
    trace: tuple[str, ...] = ()


class Universe:
    """Runs one seed under one profile."""

    def __init__(self, seed: int, profile: str, *, keys: tuple[model.EnvironmentKey, ...] = ()) -> None:
        faults = profiles.draw(profile, random.Random(f"{profile}/{seed}"))
        self.seed = seed
        self.profile = profile
        self.faults: Faults = faults
        self.world = World(seed, faults, keys=keys)
        self.fates = Fates(self.world)
        self.store = SimStore(self.fates)
        self.world.store = self.store
        self.control = ControlPlane(self.world, self.fates, self.store)
        self.world.checkers = [checker(self.world) for checker in CHECKERS]
        self.app = scenario.app(self.world.rng)
        #: Of their own, so that more or fewer requests leave everything else as it is.
        self._users = random.Random(f"users/{seed}")
        self._checks = random.Random(f"checks/{seed}")
        self._schemas = random.Random(f"schemas/{seed}")
        self._migrates = self.faults.migrations > 0
        self._check_ends: dict[str, fakes.JobEnd] = {}
        self.world.runtime.jobs = lambda group: self._check_ends.get(group.digest, fakes.JobEnd())
        self._number = 0
        self._requests: list[model.RolloutRequest] = []
        self._press_count = 0
        self._restore_at = self.world.rng.uniform(40, 90) if self._chance(faults.restore) else None
        self._backup_at = self.world.rng.uniform(10, 40)
        self._backup: object = None

    def run(self) -> Result:
        """Until it is quiet or something that must not happen has happened."""
        return self._judged(self._chaos, self._quiet)

    def run_quiet(self) -> Result:
        """Without any fault or request, from whatever state was committed."""
        return self._judged(self._quiet)

    def begin_with(self, state: model.EnvironmentState) -> None:
        """Commit a state that was saved elsewhere."""
        lease = self.store.acquire("a", ttl_s=1.0)
        self.store.commit(lease, self.store.load(state.key), state, (), at=0.0)

    def _judged(self, *parts: Callable[[], None]) -> Result:
        violation = detail = ""
        try:
            for part in parts:
                part()
        except Violation as error:
            violation, detail = error.name, str(error)
        except Exception as error:  # noqa: BLE001  # whatever the core raises is a finding
            violation, detail = f"RAISED-{type(error).__name__}", traceback.format_exc()
        return self._result(violation, detail)

    def _result(self, violation: str, detail: str) -> Result:
        world = self.world
        rollouts = sum(len(self.store.history(key, limit=10_000)) for key in world.keys)
        for key in world.keys:
            for record in self.store.history(key, limit=10_000):
                rollout = record.rollout
                world.reached[f"{rollout.phase}: {rollout.reason}"] += 1
                if rollout.request.automatic:
                    world.reached["auto-rollback"] += 1
                if rollout.phase is Phase.SUCCEEDED and not rollout.created_placement:
                    world.reached["flip of a warm standby"] += 1
        return Result(
            seed=self.seed,
            profile=self.profile,
            violation=violation,
            detail=detail,
            seconds=world.now,
            rollouts=rollouts,
            digest=hashlib.blake2b("\n".join(world.trace).encode(), digest_size=12).hexdigest(),
            reached=world.reached,
            trace=tuple(world.trace),
        )

    # --- chaos ---

    def _chaos(self) -> None:
        self.fates.set(self.faults)
        self._deploy(scenario.PRODUCTION)
        for _ in range(CHAOS_S):
            self.world.tick()
            self._misfortune()
            self._people()
            self._go_back_in_time()
            self.control.tick()
            self._traffic()
            self.world.check()

    def _chance(self, rate: float) -> bool:
        return rate > 0 and self.world.rng.random() < rate

    def _misfortune(self) -> None:
        faults, world, rng = self.faults, self.world, self.world.rng
        if self._chance(faults.crash):
            self.control.die()
        if self._chance(faults.stall):
            self.control.stall(rng.uniform(2.0, 20.0))
        for how, rate in (
            ("crash", faults.instance_crash),
            ("exit", faults.instance_exit),
            ("hang", faults.instance_hang),
        ):
            if self._chance(rate):
                self._hurt_instance(how)
        if self._chance(faults.reload):
            world.reload_router()
        if self._chance(faults.router_kill):
            world.kill_router()
        if self._chance(faults.reboot):
            self.control.die()
            self.control.forget_sleepers()
            world.reboot()
        if self._chance(faults.wall_jump):
            world.reached["wall clock jump"] += 1
            world.clock.jump(rng.choice((-10_800.0, 10_800.0)))
        if self._chance(faults.suspend):
            world.reached["suspend"] += 1
            world.note("the machine is suspended")
            world.clock.advance(rng.uniform(5.0, 30.0))
        if self._chance(faults.lag):
            self.fates.lag_s = rng.choice((0.0, 1.0, 3.0, 6.0))
        if self._chance(faults.tamper):
            world.tamper(rng.choice(world.keys))

    def _hurt_instance(self, how: str) -> None:
        running = [
            (group.id, instance.index)
            for key in self.world.keys
            for group in self.world.runtime.groups_of(key)
            for instance in group.instances
            if instance.state is model.InstanceState.RUNNING
        ]
        if running:
            self.world.crash_instance(*self.world.rng.choice(running), how)

    def _go_back_in_time(self) -> None:
        if self._restore_at is None:
            return
        now, world = self.world.now, self.world
        if self._backup is None and now >= self._backup_at:
            self._backup = self.store.snapshot()
        elif self._backup is not None and now >= self._restore_at:
            before = {key: self.store.load(key).version for key in world.keys}
            self.control.die()
            self.store.restore(self._backup)  # type: ignore[arg-type]
            if any(self.store.load(key).version < before[key] for key in world.keys):
                world.restored = True
                world.note("the state goes back to a backup")
                world.reached["restore"] += 1
            self._restore_at = None

    # --- people ---

    def _people(self) -> None:
        rng = self.world.rng
        if self._chance(self.faults.deploy):
            self._deploy(rng.choice(self.world.keys))
        if self._chance(self.faults.press):
            self._press(rng.choice(self.world.keys))

    def _deploy(self, key: model.EnvironmentKey) -> None:
        rng = self.world.rng
        dice = rng.random()
        supersede = rng.random() < 0.6
        if dice < 0.15 and self._requests:
            request = rng.choice(self._requests)  # pressed once more
        elif dice < 0.3:
            self._roll_back(key, supersede=supersede)
            return
        elif dice < 0.4 and self._number:
            release = self.world.releases[f"sha256:{rng.randint(1, self._number):064x}"]
            request = self._asked(release, RolloutKind.DEPLOY)
        else:
            request = self._asked(self._new_release(), RolloutKind.DEPLOY)
        self._start(key, request, supersede=supersede)

    def _new_release(self) -> scenario.Release:
        self._number += 1
        bad = self._number > 1 and self.world.rng.random() < self.faults.bad_release
        release = scenario.release(self._number, self.app, self.world.rng, bad=bad)
        if self._number > 1 and self._users.random() < self.faults.bad_release / 2:
            release = scenario.failing(release, self._users)
        if self._checks.random() < self.faults.verify:
            release, self._check_ends[release.digest] = scenario.verified(release, self._checks)
        if self._migrates:
            release = self._with_migrations(release)
        self.world.releases[release.digest] = release
        self.world.runtime.behaviours[release.digest] = release.character.behaviour
        self.world.note(f"release {release.number} is {release.character.name}")
        return release

    def _with_migrations(self, release: scenario.Release) -> scenario.Release:
        """Built on all releases before it; the first ones of some universes know nothing of the database."""
        world, dice = self.world, self._schemas.random()
        if not world.history.migrations and dice > self.faults.migrations:
            return release
        brought = world.history.release(release.number, release.digest, self._schemas)
        world.offered[release.digest] = brought
        return replace(release, spec=replace(release.spec, migrations=schema.USE))

    def _asked(self, release: scenario.Release, kind: RolloutKind) -> model.RolloutRequest:
        self._press_count += 1
        immediate = kind is RolloutKind.ROLLBACK
        request = scenario.request(
            release, self.app, kind=kind, key=f"k{self._press_count}", immediate=immediate
        )
        if self._migrates:
            dice = self._schemas.random()
            everything = tuple(one.id for one in self.world.history.migrations)
            request = replace(
                request, accepted=everything if dice < 0.8 else (), starts_ahead=self._schemas.random() < 0.7
            )
        self._requests.append(request)
        return request

    def _roll_back(self, key: model.EnvironmentKey, *, supersede: bool) -> None:
        history = tuple(record.rollout for record in self.store.history(key))
        try:
            past = requests.rollback_target(self.world.committed(key), history, None)
        except errors.RefusedError:
            return
        release = self.world.releases[past.digest]
        self.world.reached["rollback asked for"] += 1
        self._start(key, self._asked(release, RolloutKind.ROLLBACK), supersede=supersede)

    def _start(self, key: model.EnvironmentKey, request: model.RolloutRequest, *, supersede: bool) -> None:
        if self.store.rollout_by_request_key(key, request.key) is not None:
            self.world.reached["button pressed twice"] += 1
            return
        self.world.note(f"{key}: deploy release {request.release} ({request.key})")
        self.control.request(key, lambda state: requests.start(state, request, supersede=supersede))

    def _press(self, key: model.EnvironmentKey) -> None:
        rng = self.world.rng
        button = rng.choice(("pause", "resume", "promote", "promote fully", "abort"))
        self.world.note(f"{key}: {button}")
        if button == "abort":
            self.control.request(key, partial(requests.abort, by="sim"))
        elif button == "pause":
            self.control.request(key, partial(requests.pause, by="sim"))
        elif button == "resume":
            self.control.request(key, partial(requests.resume, by="sim"))
        else:
            full = button == "promote fully"
            self.control.request(key, partial(requests.promote, by="sim", full=full))

    # --- users ---

    def _traffic(self) -> None:
        world = self.world
        for key in world.keys:
            route = world.router.route(key)
            if route is None or route.hold_s:
                continue
            self._ask(key, route)
            exposed = sum(1 for user in range(24) if bucket(route.salt, user) < route.exposure_bps)
            if route.stable is not None and exposed < 24:
                self._requests_to(key, route.stable)
            if route.canary is not None and exposed:
                self._requests_to(key, route.canary)

    def _ask(self, key: model.EnvironmentKey, route: model.Route) -> None:
        """What users ask for in a second, and what they are answered."""
        world, share = self.world, route.exposure_bps / model.FULL_EXPOSURE if route.canary is not None else 0
        if world.router.down:
            return
        to_canary = sum(self._users.random() < share for _ in range(REQUESTS_PER_S))
        for slot, requests_to in ((route.canary, to_canary), (route.stable, REQUESTS_PER_S - to_canary)):
            if slot is None or not requests_to:
                continue
            failing = self._failing(key, slot)
            failed = sum(self._users.random() < failing for _ in range(requests_to))
            world.answer(key, slot, requests_to, failed)

    def _failing(self, key: model.EnvironmentKey, slot: int) -> float:
        """Share of requests that fail: all, if no instance is there to answer."""
        servers = [server for _, server in self.world.router.candidates(key, "web", slot)]
        owners = [self.world.runtime.owner(server.port) for server in servers]
        answering = [owner[0] for owner in owners if owner and owner[2] is model.InstanceState.RUNNING]
        if not answering:
            return 1.0
        return self.world.character(self.world.runtime.group(answering[0]).digest).errors

    def _requests_to(self, key: model.EnvironmentKey, slot: int) -> None:
        world, rng = self.world, self.world.rng
        for service in self.app.services:
            if not service.serves:
                continue
            candidates = [
                (name, server)
                for name, server in world.router.candidates(key, service.name, slot)
                if world.runtime.serves(server.host, server.port)
            ]
            if not candidates:
                continue
            name, server = rng.choice(candidates)
            if rng.random() < SESSION_RATE:
                world.router.open_session(key, (service.name, slot, name), seconds=rng.uniform(1.0, 30.0))
            self._strain(server.port)

    def _strain(self, port: int) -> None:
        owner = self.world.runtime.owner(port)
        if owner is None:
            return
        group_id, index, _ = owner
        rate = self.world.character(self.world.runtime.group(group_id).digest).crashes_per_s_of_traffic
        if self._chance(rate):
            self.world.note(f"{group_id} {index} breaks under traffic")
            self.world.lose_sessions(group_id, index)
            self.world.runtime.crash(group_id, index, how="exit status 139")

    # --- quiet ---

    def _quiet(self) -> None:
        self.world.note("faults stop")
        self.fates.set(CALM)
        self.world.faults = replace(CALM, lag=self.faults.lag)
        problem = "not looked at"
        for second in range(QUIET_MAX_S):
            self.world.tick()
            self._let_go()
            self.control.tick()
            self._traffic()
            self.world.check()
            if second > 5 and self.control.runs and not self.world.waits_for_late:
                problem = self._problem()
                if not problem:
                    break
        for checker in self.world.checkers:
            checker.on_end()

    def _problem(self) -> str:
        if self.world.restored:
            return ""
        for key in self.world.keys:
            state = self.world.committed(key)
            problem = "" if state.halted else unsettled(self.world, key, state)
            if problem:
                return problem
        return ""

    def _let_go(self) -> None:
        """People take back what would hold a rollout for ever."""
        for key in self.world.keys:
            rollout = self.world.committed(key).rollout
            if rollout is None or rollout.phase is Phase.ABORTING:
                continue
            if rollout.paused:
                self.control.request(key, partial(requests.resume, by="sim"))
            elif rollout.phase is Phase.HOLDING and rollout.current_stage.hold_s is None:
                self.control.request(key, partial(requests.promote, by="sim"))

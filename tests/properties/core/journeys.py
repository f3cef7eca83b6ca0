"""Reachable states by arbitrary journeys: requests and looks at a world that is distorted in many ways.

A journey starts with nothing and makes every state that it visits by the core's own functions, so that all
are valid; what it looks at is anything that a runtime and a router could show. Invariants: a look is a value
drawn without knowledge of the state (fates are dealt out in turn), so that examples shrink well.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields, replace
from typing import Any, Final

from hypothesis import strategies as st

from tests.support.builders import (
    COMMAND,
    environment,
    group,
    perfect,
    request,
    service,
    spec,
    worker,
)
from tests.support.builders import servers as shown
from tidegate import errors
from tidegate.core import advance, placements, reconcile, requests, routing, strategy
from tidegate.core.effects import Effect
from tidegate.core.model import (
    EnvironmentSpec,
    EnvironmentState,
    GroupStatus,
    InstanceState,
    InstanceStatus,
    Observation,
    Role,
    RouteState,
    ServerStatus,
    Stage,
)

HOSTED: Final = ("shop.example.com",)
STRATEGIES: Final = (
    strategy.SWITCH,
    strategy.canary((Stage(exposure_bps=500, hold_s=2.0), Stage(exposure_bps=5000, hold_s=0.0))),
    strategy.canary((Stage(exposure_bps=100, hold_s=None), Stage(exposure_bps=200, hold_s=1.0))),
)
CASTS: Final = (
    (service(hosts=HOSTED, drain_s=3.0),),
    (service("api", instances=2, drain_s=2.0), service(hosts=HOSTED, needs=("api",), check=COMMAND)),
    (service("api"), service(hosts=HOSTED, needs=("api",), drain_s=0.0), worker(needs=("api",))),
    (worker(),),
)


@st.composite
def specs(draw: st.DrawFn) -> EnvironmentSpec:
    """What a release may say about its environment."""
    return spec(
        *draw(st.sampled_from(CASTS)),
        strategy=draw(st.sampled_from(STRATEGIES)),
        keep_warm_s=draw(st.sampled_from((0.0, 3.0, 600.0))),
    )


Changes = dict[str, Any] | None

#: What may become of an instance, as it is seen; None: it is not.
FATES: Final[dict[str, Changes]] = {
    "fine": {},
    "unready": {"ready": False},
    "not-asked": {"ready": None},
    "starting": {"ready": False, "state": InstanceState.STARTING},
    "looping": {
        "ready": False,
        "state": InstanceState.BACKOFF,
        "crashes": 5,
        "recent_crashes": 5,
        "exit": "exit status 1",
    },
    "crashed": {"crashes": 1, "recent_crashes": 1},
    "ended": {"ready": False, "state": InstanceState.EXITED},
    "moved": {"port": 30_000},
    "missing": None,
}

#: What may become of a server in the router, as it is seen; None: it is not.
SERVERS: Final[dict[str, Changes]] = {
    "fine": {},
    "busy": {"sessions": 3},
    "unknown": {"sessions": None},
    "down": {"up": False},
    "resting": {"ready": False},
    "missing": None,
}


class Held(enum.Enum):
    """Which table the router holds."""

    COMMITTED = "committed"
    OLDER = "older"
    NONE = "none"
    FOREIGN = "foreign"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How the world differs from the one in which every effect came through."""

    runtime: bool = True
    router: bool = True
    stale: bool = False
    """It goes back in time."""
    fates: tuple[str, ...] = ("fine",)
    servers: tuple[str, ...] = ("fine",)
    running: Held = Held.COMMITTED
    boot: Held = Held.COMMITTED
    lingering: bool = False
    """Cleared services still run."""
    orphan: bool = False
    dt_s: float = 1.0

    def __repr__(self) -> str:
        odd = [f.name for f in fields(self) if getattr(self, f.name) != f.default]
        return f"Look({', '.join(f'{name}={getattr(self, name)!r}' for name in odd)})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """As short as `repr`: Hypothesis would print every field of every service."""
        printer.text(repr(self))


GOOD: Final = Look()


def dealt(fates: dict[str, Changes]) -> st.SearchStrategy[tuple[str, ...]]:
    """Fates for one after the other, in turn."""
    return st.lists(st.sampled_from(sorted(fates)), min_size=1, max_size=4).map(tuple)


def looks() -> st.SearchStrategy[Look]:
    """Anything from perfect to hopeless; most have one fault, because faults hide each other."""
    faults: dict[str, st.SearchStrategy[Any]] = {
        "runtime": st.just(False),
        "router": st.just(False),
        "stale": st.just(True),
        "fates": dealt(FATES),
        "servers": dealt(SERVERS),
        "running": st.sampled_from(Held),
        "boot": st.sampled_from((Held.OLDER, Held.NONE)),
        "dt_s": st.sampled_from((0.0, 0.3, 60.0, -5.0)),
    }
    always: dict[str, st.SearchStrategy[Any]] = {"lingering": st.booleans(), "orphan": st.booleans()}
    single = [st.builds(Look, **{name: fault}, **always) for name, fault in faults.items()]
    either = {name: st.just(getattr(GOOD, name)) | fault for name, fault in faults.items()}
    return st.one_of(*single, st.builds(Look, **either, **always))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request of somebody."""

    what: str
    release: int = 1
    wanted: EnvironmentSpec = spec()  # noqa: RUF009  # frozen
    supersede: bool = False
    key: str = ""

    def __repr__(self) -> str:
        if self.what != "start":
            return f"Ask({self.what})"
        cast = "+".join(service.name for service in self.wanted.services)
        shares = [stage.exposure_bps for stage in self.wanted.strategy.stages]
        return (
            f"Ask(start r{self.release}: {cast} {shares}, warm {self.wanted.keep_warm_s:g}, "
            f"supersede={self.supersede}, key={self.key!r})"
        )

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """As short as `repr`: Hypothesis would print every field of every service."""
        printer.text(repr(self))


def asks() -> st.SearchStrategy[Ask]:
    """Anything that people ask, in any order."""
    return st.builds(
        Ask,
        what=st.sampled_from(("start", "start", "start", "abort", "pause", "resume", "promote", "full")),
        release=st.integers(1, 4),
        wanted=specs(),
        supersede=st.booleans(),
        key=st.sampled_from(("", "", "a", "b")),
    )


Steps = tuple[Look | Ask, ...]


def deployed(release: int, wanted: EnvironmentSpec) -> Steps:
    """A release asked for, and time enough for it to become live by a switch."""
    return (Ask(what="start", release=release, wanted=wanted, supersede=True), *[GOOD] * 7)


def beginnings() -> st.SearchStrategy[Steps]:
    """Nothing, a live release, or one that has just replaced another: else there is nothing to lose."""
    one = st.builds(deployed, st.just(1), specs())
    switched = specs().map(lambda wanted: replace(wanted, strategy=strategy.SWITCH))
    two = st.builds(lambda first, wanted: first + deployed(2, wanted), one, switched)
    return st.just(()) | one | two | two


@st.composite
def steps(draw: st.DrawFn) -> Steps:
    """A journey in legs: a request or a look that lasts, then good looks that carry it on."""
    journey = draw(beginnings())
    for _ in range(draw(st.integers(4, 12))):
        if draw(st.sampled_from((True, True, False))):
            journey += (draw(looks()),) * draw(st.integers(1, 6))
        else:
            journey += tuple(draw(st.lists(asks() | st.just(GOOD), min_size=1, max_size=4)))
        journey += (GOOD,) * draw(st.integers(0, 9))
    return journey


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """One step of a journey by a look."""

    before: EnvironmentState
    look: Look
    seen: Observation
    outcome: advance.Outcome
    effects: tuple[Effect, ...]

    @property
    def after(self) -> EnvironmentState:
        return self.outcome.state


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One step of a journey by a request."""

    before: EnvironmentState
    ask: Ask
    decision: requests.Decision | None
    """None: refused."""

    @property
    def after(self) -> EnvironmentState:
        return self.decision.state if self.decision else self.before


def travel(steps: Steps) -> list[Tick | Asked]:
    """Every step with what it led to."""
    state, earlier, travelled = environment().state, environment().state, list[Tick | Asked]()
    for number, step in enumerate(steps, start=1):
        if isinstance(step, Ask):
            asked = Asked(before=state, ask=step, decision=decided(state, step))
            travelled.append(asked)
            state = asked.decision.state if asked.decision else state
        else:
            seen = world(state, earlier, step, revision=0 if step.stale else number)
            outcome = advance.advance(state, seen, step.dt_s)
            effects = reconcile.reconcile(outcome.state, seen)
            travelled.append(Tick(before=state, look=step, seen=seen, outcome=outcome, effects=effects))
            earlier, state = state, outcome.state
    return travelled


def decided(state: EnvironmentState, ask: Ask) -> requests.Decision | None:
    """The decision, or None if it was refused."""
    try:
        return act(state, ask)
    except errors.RefusedError:
        return None


def act(state: EnvironmentState, ask: Ask) -> requests.Decision:
    """Raises RefusedError."""
    if ask.what == "start":
        asked_for = request(f"r{ask.release}", ask.wanted, key=ask.key)
        if state.live is None:
            asked_for = requests.with_strategy(asked_for, strategy.for_first_release(asked_for.strategy))
        return requests.start(state, asked_for, supersede=ask.supersede)
    if ask.what in ("promote", "full"):
        return requests.promote(state, by="ada", full=ask.what == "full")
    steer = {"abort": requests.abort, "pause": requests.pause, "resume": requests.resume}
    return steer[ask.what](state, by="ada")


# --- the world -------------------------------------------------------------------------------------


def world(state: EnvironmentState, earlier: EnvironmentState, look: Look, *, revision: int) -> Observation:
    """What a look shows of a state; `earlier`: the state before, whose route may still be held."""
    whole = perfect(state, revision=revision)
    assert whole.runtime is not None
    assert whole.routes is not None
    runtime = replace(whole.runtime, groups=_groups(state, look, whole.runtime.groups))
    routes = _routes(earlier, look, whole.routes)
    return Observation(runtime=runtime if look.runtime else None, routes=routes if look.router else None)


def _groups(state: EnvironmentState, look: Look, groups: tuple[GroupStatus, ...]) -> tuple[GroupStatus, ...]:
    if look.lingering:
        groups += tuple(
            group(state, placement, s)
            for placement in state.in_role(Role.RETIRING)
            for s in placement.spec.services
            if placements.group(placement, s.name, groups) is None
        )
    fates = [FATES[look.fates[number % len(look.fates)]] for number in range(len(groups))]
    seen = tuple(
        _fated(g, changes, number)
        for number, (g, changes) in enumerate(zip(groups, fates, strict=True))
        if changes is not None
    )
    if look.orphan and state.next_id > 1:
        alone = InstanceStatus(index=0, state=InstanceState.RUNNING, port=29_000, ready=True)
        ghost = GroupStatus(id="shop.production.1.ghost", placement=1, service="ghost", instances=(alone,))
        seen += (ghost,)
    return seen


def _fated(seen: GroupStatus, changes: dict[str, Any], number: int) -> GroupStatus:
    moved = {"port": changes["port"] + number} if "port" in changes else {}
    first = replace(seen.instances[0], **(changes | moved))
    return replace(seen, instances=(first, *seen.instances[1:]))


def _routes(earlier: EnvironmentState, look: Look, whole: RouteState) -> RouteState:
    fates = [SERVERS[look.servers[number % len(look.servers)]] for number in range(len(whole.servers))]
    servers: tuple[ServerStatus, ...] = tuple(
        replace(s, **changes) for s, changes in zip(whole.servers, fates, strict=True) if changes is not None
    )
    boot, route = whole.boot, whole.route
    if look.boot is Held.NONE:
        boot = None
    elif look.boot is Held.OLDER and boot is not None:
        boot = routing.route_table(earlier)
    if look.running is Held.NONE:
        route = None
    elif look.running is Held.OLDER and route is not None:
        route, servers = earlier.route, shown(routing.route_table(earlier))
    elif look.running is Held.FOREIGN and route is not None:
        route = replace(route, exposure_bps=7_777, fence=route.fence + 3)
    return replace(whole, servers=servers, boot=boot, route=route)

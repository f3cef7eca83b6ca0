"""States and observations in one line each, for tests of the core.

    scene = environment().live("r1").incoming("r2", phase=Phase.HOLDING)
    outcome = advance.advance(scene.state, perfect(scene.state), 1.0)

`perfect(state)` is the world in which every effect of a state has come through: all that shall run is ready,
the router holds the route, no connection is open. The functions below it take a part of that world away.
Invariants: everything is a frozen value; ids, ports and addresses follow from placement, service and index.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from tidegate.core import model, placements, routing, strategy
from tidegate.core.model import (
    Check,
    CheckKind,
    Endpoint,
    EnvironmentKey,
    EnvironmentSpec,
    EnvironmentState,
    GroupStatus,
    InstanceState,
    InstanceStatus,
    Observation,
    Phase,
    Placement,
    Role,
    Rollout,
    RolloutKind,
    RolloutRequest,
    RouteState,
    RuntimeState,
    ServerStatus,
    ServiceSpec,
    Stage,
    Strategy,
)

KEY: Final = EnvironmentKey(app="shop", environment="production")
HTTP: Final = Check(kind=CheckKind.HTTP, path="/healthz")
ALIVE: Final = Check(kind=CheckKind.ALIVE)
COMMAND: Final = Check(kind=CheckKind.COMMAND, command=("./check",))

#: Two steps, held for 10 s each.
CANARY: Final = strategy.canary((Stage(exposure_bps=500, hold_s=10.0), Stage(exposure_bps=5000, hold_s=10.0)))
#: One step that waits for somebody's `promote`.
MANUAL: Final = strategy.canary((Stage(exposure_bps=500, hold_s=None),))


def service(name: str = "web", **changes: Any) -> ServiceSpec:
    """A service with traffic; `changes`: fields of ServiceSpec."""
    fields: dict[str, Any] = {"name": name, "run": (f"./bin/{name}",), "serves": True, "check": HTTP}
    return ServiceSpec(**(fields | changes))


def worker(name: str = "mailer", **changes: Any) -> ServiceSpec:
    """A service without traffic."""
    return service(name, **({"serves": False, "check": ALIVE} | changes))


WEB: Final = service("web", hosts=("shop.example.com",))
API: Final = service("api")
WEB_WITH_API: Final = (API, service("web", hosts=("shop.example.com",), needs=("api",)))


def spec(*services: ServiceSpec, **changes: Any) -> EnvironmentSpec:
    """One web service by a canary, unless told otherwise; `changes`: fields of EnvironmentSpec."""
    return EnvironmentSpec(services=services or (WEB,), **({"strategy": CANARY} | changes))


def number(release: str) -> int:
    """The number of a release by its name, `r2` -> 2."""
    return int(release.removeprefix("r"))


def digest(release: str) -> str:
    """The digest that a release of that name has here."""
    return f"sha256:{number(release):064x}"


def request(release: str = "r2", wanted: EnvironmentSpec | None = None, **changes: Any) -> RolloutRequest:
    """A deploy by the strategy of its spec; `changes`: fields of RolloutRequest."""
    wanted = wanted or spec()
    fields: dict[str, Any] = {
        "kind": RolloutKind.DEPLOY,
        "release": number(release),
        "digest": digest(release),
        "spec": wanted,
        "strategy": wanted.strategy,
        "salt": f"salt-{release}",
        "preview": f"preview-{release}",
        "by": "ada",
    }
    return RolloutRequest(**(fields | changes))


def port(placement_id: int, name: str, index: int) -> int:
    """Where an instance listens: another one for each."""
    return 20_000 + placement_id * 100 + sum(name.encode()) % 10 * 10 + index


def endpoints(placement_id: int, wanted: EnvironmentSpec) -> tuple[Endpoint, ...]:
    """Every instance that takes traffic, as committed when all were ready."""
    return tuple(
        Endpoint(service=s.name, index=i, host="127.0.0.1", port=port(placement_id, s.name, i))
        for s in sorted(wanted.services, key=lambda s: s.name)
        if s.serves
        for i in range(s.instances)
    )


# --- states ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scene:
    """A state under construction; each method returns the next one."""

    state: EnvironmentState

    def live(self, release: str, wanted: EnvironmentSpec | None = None, **changes: Any) -> Scene:
        """A release that everybody gets; the one before becomes a standby."""
        state = self.state
        for old in state.in_role(Role.LIVE):
            state = state.with_placement(replace(old, role=Role.STANDBY))
        scene = Scene(state)._placed(release, Role.LIVE, wanted, changes)
        placement = scene.state.placements[-1]
        return Scene(routing.moved(scene.state, stable=placement.slot, canary=None, exposure_bps=0))

    def standby(self, release: str, wanted: EnvironmentSpec | None = None, **changes: Any) -> Scene:
        """A release that is kept warm."""
        return self._placed(release, Role.STANDBY, wanted, changes)

    def retiring(self, release: str, wanted: EnvironmentSpec | None = None, **changes: Any) -> Scene:
        """A release on its way out."""
        return self._placed(release, Role.RETIRING, wanted, changes)

    def queued(self, release: str, wanted: EnvironmentSpec | None = None, **changes: Any) -> Scene:
        """A rollout that has no placement yet; `changes`: fields of Rollout."""
        live = self.state.live
        rollout = Rollout(
            id=self.state.next_id,
            request=request(release, wanted),
            phase=Phase.QUEUED,
            previous_release=live.release if live else None,
        )
        state = replace(self.state, next_id=rollout.id + 1, rollout=replace(rollout, **changes))
        return Scene(state)

    def incoming(
        self,
        release: str,
        wanted: EnvironmentSpec | None = None,
        *,
        phase: Phase = Phase.HOLDING,
        stage: int = 0,
        **changes: Any,
    ) -> Scene:
        """A rollout with its placement and the route of its phase; `changes`: fields of Rollout."""
        queued = self.queued(release, wanted)
        placed = queued._placed(release, Role.INCOMING, wanted, {})
        placement, rollout = placed.state.placements[-1], placed.state.rollout
        assert rollout is not None
        if phase is Phase.FINISHING:
            stage = len(rollout.strategy.stages) - 1
        rollout = replace(rollout, phase=phase, stage=stage, placement=placement.id, created_placement=True)
        state = replace(placed.state, rollout=replace(rollout, **changes))
        if phase is Phase.ABORTING:
            state = routing.moved(state, canary=None, exposure_bps=0, preview="")
        elif phase not in (Phase.MIGRATING, Phase.STARTING):
            state = routing.moved(
                state,
                canary=placement.slot,
                exposure_bps=0 if phase is Phase.VERIFYING else rollout.current_stage.exposure_bps,
                salt=rollout.request.salt,
                preview=rollout.request.preview,
            )
        return Scene(state)

    def pending(self, release: str, wanted: EnvironmentSpec | None = None, **changes: Any) -> Scene:
        """A request that waits for the current rollout to go home."""
        return self.having(pending=request(release, wanted, **changes))

    def last(self, release: str, phase: Phase = Phase.SUCCEEDED, **changes: Any) -> Scene:
        """The rollout that ended last; `changes`: fields of its request."""
        ended = Rollout(id=self.state.next_id, request=request(release, **changes), phase=phase)
        return self.having(next_id=self.state.next_id + 1, last=ended)

    def having(self, **changes: Any) -> Scene:
        """The same with other fields of the state."""
        return Scene(replace(self.state, **changes))

    def _placed(
        self, release: str, role: Role, wanted: EnvironmentSpec | None, changes: dict[str, Any]
    ) -> Scene:
        state, wanted = self.state, wanted or spec()
        slot = placements.free_slot(state)
        assert slot is not None, "all slots are taken"
        placement = Placement(
            id=state.next_id,
            release=number(release),
            digest=digest(release),
            slot=slot,
            role=role,
            spec=wanted,
            endpoints=endpoints(state.next_id, wanted),
        )
        placement = replace(placement, **changes)
        return Scene(replace(state, next_id=placement.id + 1, placements=(*state.placements, placement)))


def environment() -> Scene:
    """Nothing was ever deployed."""
    return Scene(EnvironmentState(key=KEY))


def placed(state: EnvironmentState, release: str) -> Placement:
    """The newest placement of a release."""
    return [p for p in state.placements if p.release == number(release)][-1]


def going(state: EnvironmentState) -> Rollout:
    """The rollout in progress, which must be there."""
    assert state.rollout is not None
    return state.rollout


# --- the world -------------------------------------------------------------------------------------


def perfect(state: EnvironmentState, *, revision: int = 1) -> Observation:
    """Every effect of the state has come through, and nobody is connected to what is retiring."""
    return Observation(
        runtime=RuntimeState(revision=revision, groups=_groups(state)),
        routes=_routes(state, revision),
    )


def _groups(state: EnvironmentState) -> tuple[GroupStatus, ...]:
    return tuple(
        group(state, placement, s)
        for placement in state.placements
        for s in placements.wanted_services(state, placement)
        if placement.role is not Role.RETIRING or s.name not in placement.cleared
    )


def group(state: EnvironmentState, placement: Placement, s: ServiceSpec) -> GroupStatus:
    """A group with all instances ready."""
    return GroupStatus(
        id=model.group_id(state.key, placement.id, s.name),
        placement=placement.id,
        service=s.name,
        instances=tuple(
            InstanceStatus(
                index=index,
                state=InstanceState.RUNNING,
                port=port(placement.id, s.name, index) if s.serves else None,
                ready=True,
            )
            for index in range(s.instances)
        ),
    )


def _routes(state: EnvironmentState, revision: int) -> RouteState:
    table = routing.route_table(state)
    nothing = table.route.fence == 0 and not any(backend.servers for backend in table.backends)
    return RouteState(
        revision=revision,
        boot=None if nothing else table,
        route=None if nothing else table.route,
        servers=() if nothing else servers(table),
    )


def servers(table: model.RouteTable) -> tuple[ServerStatus, ...]:
    """What a router shows that has just taken the table."""
    return tuple(
        ServerStatus(
            service=backend.service,
            slot=backend.slot,
            name=server.name,
            host=server.host,
            port=server.port,
            up=True,
            ready=server.ready,
        )
        for backend in table.backends
        for server in backend.servers
    )


def blind_runtime(seen: Observation) -> Observation:
    """The runtime could not be looked at."""
    return replace(seen, runtime=None)


def blind_router(seen: Observation) -> Observation:
    """The router could not be looked at."""
    return replace(seen, routes=None)


def with_instances(
    seen: Observation, placement: Placement, name: str, *, index: int | None = None, **changes: Any
) -> Observation:
    """Instances of one group are otherwise; `changes`: fields of InstanceStatus."""
    assert seen.runtime is not None
    groups = tuple(
        replace(
            g,
            instances=tuple(
                replace(i, **changes) if index is None or i.index == index else i for i in g.instances
            ),
        )
        if g.placement == placement.id and g.service == name
        else g
        for g in seen.runtime.groups
    )
    return replace(seen, runtime=replace(seen.runtime, groups=groups))


def with_groups(seen: Observation, *groups: GroupStatus) -> Observation:
    """More groups run."""
    assert seen.runtime is not None
    return replace(seen, runtime=replace(seen.runtime, groups=(*seen.runtime.groups, *groups)))


def without_groups(seen: Observation, placement: Placement, *names: str) -> Observation:
    """Groups of a placement do not run; without names: none of them."""
    assert seen.runtime is not None
    groups = tuple(
        g for g in seen.runtime.groups if g.placement != placement.id or (names and g.service not in names)
    )
    return replace(seen, runtime=replace(seen.runtime, groups=groups))


def with_routes(seen: Observation, **changes: Any) -> Observation:
    """The router holds something else; `changes`: fields of RouteState."""
    assert seen.routes is not None
    return replace(seen, routes=replace(seen.routes, **changes))


def with_servers(seen: Observation, slot: int, of: str | None = None, **changes: Any) -> Observation:
    """Servers of a slot (and of a service) are otherwise; `changes`: fields of ServerStatus."""
    assert seen.routes is not None
    changed = tuple(
        replace(s, **changes) if s.slot == slot and of in (None, s.service) else s
        for s in seen.routes.servers
    )
    return with_routes(seen, servers=changed)


def stages(*shares_bps: int, hold_s: float | None = 0.0) -> Strategy:
    """A canary of these shares, each held as long."""
    return strategy.canary(tuple(Stage(exposure_bps=share, hold_s=hold_s) for share in shares_bps))

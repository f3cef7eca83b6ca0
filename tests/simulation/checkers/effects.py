"""What is done to the world, and when.

ACTED-TWICE, NAMES, ORDER, LINKS, TRAFFIC-ON-STOPPED, CUT-SESSIONS, WENT-BACK, STRANGER.

Excuses:
- ORDER of starts: readiness in the very look that the step rests on (`World.seen`) counts, however old that
  is: looks may lag, and the machine may be suspended right after one;
- ORDER of stops: a dependent that runs, but not in the very look that the step rests on;
- ORDER of starts and stops: an effect that lands late was right when it was sent;
- WENT-BACK: until the acting process is shown an instance that the state does not know, or a state that says
  so is committed, nobody can know that it is old; an effect that lands late was sent before;
- STRANGER (the router is given an address at which somebody else listens): in a restored backup, one at which
  a look since then has shown the placement's own instance; looks may lag, and what is down keeps its address;
- NAMES: a restored backup has forgotten which ids were given out;
- CUT-SESSIONS: in a restored backup, a server that it does not know, until a look since then has shown the
  instance ready. Else none; a drain ends when its time has truly passed without a new request, or with no
  session.
"""

from __future__ import annotations

from tests.simulation.checkers.base import Checker, Violation
from tests.simulation.world import World
from tidegate.core import model


class EffectChecker(Checker):
    """Judges each effect when it lands."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._digests: dict[tuple[model.EnvironmentKey, int], str] = {}
        self._servers: dict[tuple[model.EnvironmentKey, str], tuple[int, str, int]] = {}
        self._routed_at: dict[tuple[model.EnvironmentKey, int], float] = {}
        self._seen_at: dict[tuple[model.EnvironmentKey, int, int], bool] = {}
        """Placements and ports that looks have shown since a backup was restored; whether ever ready."""
        self._committed_at: set[tuple[model.EnvironmentKey, int, int]] = set()
        """Those that were in a committed state since then, the backup's own included."""

    def on_tick(self) -> None:
        now = self.world.now
        for key in self.world.keys:
            self._note_routed(key, now)
            self._check_counts(key)

    def on_look(self, key: model.EnvironmentKey, *, runtime: bool, router: bool) -> None:
        if self.world.restored:
            self._note_committed(key, self.world.committed(key))
            for group in self.world.seen(key).groups or ():
                self._note_seen(key, group)

    def _note_seen(self, key: model.EnvironmentKey, group: model.GroupStatus) -> None:
        for instance in group.instances:
            if instance.port is not None:
                address = (key, group.placement, instance.port)
                self._seen_at[address] = self._seen_at.get(address, False) or bool(instance.ready)

    def _note_committed(self, key: model.EnvironmentKey, state: model.EnvironmentState) -> None:
        for placement in state.placements:
            self._committed_at |= {(key, placement.id, endpoint.port) for endpoint in placement.endpoints}

    def _note_routed(self, key: model.EnvironmentKey, now: float) -> None:
        route = self.world.router.route(key)
        if route is None:
            return
        for placement in self.world.committed(key).placements:
            if placement.slot in (route.stable, route.canary):
                self._routed_at[key, placement.id] = now

    def _check_counts(self, key: model.EnvironmentKey) -> None:
        counts: dict[tuple[int, str], int] = {}
        for group in self.world.runtime.groups_of(key):
            name = (group.placement, group.service)
            counts[name] = counts.get(name, 0) + len(group.instances)
        for placement in self.world.committed(key).placements:
            for service in placement.spec.services:
                count = counts.get((placement.id, service.name), 0)
                if count > service.instances:
                    detail = f"{count} instances of {service.name} of placement {placement.id}"
                    raise Violation("ACTED-TWICE", f"{key}: {detail} instead of {service.instances}")

    def on_apply(self, group: model.InstanceGroup) -> None:
        known = self._digests.setdefault((group.key, group.placement), group.digest)
        if known != group.digest and not self.world.restored:
            raise Violation("NAMES", f"{group.key}: placement {group.placement} was {known}")
        self._check_went_back(group.key, f"start {group.id}")
        placement = self.world.committed(group.key).placement(group.placement)
        if placement is None or self.world.landing_late:
            return
        self._check_links(group, placement)
        service = placement.spec.service(group.service)
        if service is None or self.world.runtime.instances(group.id):
            return
        for needed in service.needs:
            needed_id = model.group_id(group.key, placement.id, needed)
            seen = self._seen_group(group.key, needed_id)
            if not _is_ready(self.world.runtime.instances(needed_id)) and not (
                seen and _is_ready(seen.instances)
            ):
                raise Violation("ORDER", f"{group.id} is started before {needed_id} is ready")

    def _seen_group(self, key: model.EnvironmentKey, group_id: str) -> model.GroupStatus | None:
        groups = self.world.seen(key).groups or ()
        return next((group for group in groups if group.id == group_id), None)

    def _check_links(self, group: model.InstanceGroup, placement: model.Placement) -> None:
        """What a service calls is answered by its own release: the link leads into its own slot."""
        links = {link.service: link.port for link in placement.links if link.slot == placement.slot}
        variables = dict(group.environment)
        service = placement.spec.service(group.service)
        for needed in service.needs if service else ():
            told = variables.get(f"{needed.upper()}_URL")
            if links and told != f"http://127.0.0.1:{links.get(needed)}":
                raise Violation("LINKS", f"{group.id} finds {needed} at {told}, not in slot {placement.slot}")

    def on_remove(self, key: model.EnvironmentKey, group_id: str) -> None:
        self._check_went_back(key, f"stop {group_id}")
        instances = self.world.runtime.instances(group_id)
        if not instances:
            return
        group = self.world.runtime.group(group_id)
        placement = self.world.committed(key).placement(group.placement)
        ports = {instance.port for instance in instances}
        route = self.world.router.route(key)
        routed = (route.stable, route.canary) if route else ()
        if group.serves and placement is not None and placement.slot in routed:
            raise Violation("TRAFFIC-ON-STOPPED", f"{group_id} is stopped in slot {placement.slot}")
        boot = self.world.router.boot(key)
        for backend in boot.backends if boot else ():
            held = {server.port for server in backend.servers} & ports
            if held and backend.slot in (boot.route.stable, boot.route.canary):  # type: ignore[union-attr]
                raise Violation("TRAFFIC-ON-STOPPED", f"{group_id} is stopped and a restart routes to it")
        self._check_sessions(key, group, placement)
        self._check_dependents(key, group, placement)

    def _check_sessions(
        self, key: model.EnvironmentKey, group: model.InstanceGroup, placement: model.Placement | None
    ) -> None:
        ports = {instance.port for instance in self.world.runtime.instances(group.id)}
        open_sessions = [session for session in self.world.router.sessions if session.port in ports]
        if not open_sessions:
            return
        service = placement.spec.service(group.service) if placement else None
        drain_s = service.drain_s if service else self.world.drain_s(group.digest, group.service)
        self._check_drained(key, group.placement, drain_s, f"{len(open_sessions)} of {group.id}")

    def _check_drained(self, key: model.EnvironmentKey, placement: int, drain_s: float, what: str) -> None:
        idle_s = self.world.now - self._routed_at.get((key, placement), -1e9)
        # The route may have changed right after the second at which it was last noted.
        if idle_s + 1.0 < drain_s:
            raise Violation("CUT-SESSIONS", f"{what} after {idle_s:.1f} s instead of {drain_s:g} s")
        self.world.reached["drain deadline"] += 1

    def on_removed_servers(self, key: model.EnvironmentKey, cut: int, servers: tuple[str, ...]) -> None:
        for name in servers:
            placement_id, port = _parts(name)
            if self._is_forgotten((key, placement_id, port)):
                continue
            placement = self.world.committed(key).placement(placement_id)
            drain_s = max((s.drain_s for s in placement.spec.services), default=0.0) if placement else 0.0
            self._check_drained(key, placement_id, drain_s, f"{cut} of server {name}")

    def _is_forgotten(self, address: tuple[model.EnvironmentKey, int, int]) -> bool:
        """A restored backup does not know the address, and nobody could learn it since."""
        return self.world.restored and address not in self._committed_at and not self._seen_at.get(address)

    def _check_dependents(
        self, key: model.EnvironmentKey, group: model.InstanceGroup, placement: model.Placement | None
    ) -> None:
        if placement is None or self.world.landing_late:
            return
        blind = self.world.seen(key).groups is None
        for dependent in placement.spec.services:
            dependent_id = model.group_id(key, placement.id, dependent.name)
            if group.service not in dependent.needs or not self.world.runtime.instances(dependent_id):
                continue
            if blind or self._seen_group(key, dependent_id):
                raise Violation("ORDER", f"{group.id} is stopped before {dependent_id}")

    def _check_went_back(self, key: model.EnvironmentKey, what: str) -> None:
        if self.world.restored_below(key) and not self.world.landing_late:
            raise Violation("WENT-BACK", f"{what} although the state is older than the world")

    def on_route(
        self,
        key: model.EnvironmentKey,
        before: model.Route | None,
        after: model.Route | None,
        command: model.RouteTable | None,
    ) -> None:
        if command is None:
            return
        self._check_went_back(key, f"route with fence {command.route.fence}")
        for backend in command.backends:
            for server in backend.servers:
                placement, index, _ = server.name.removeprefix("p").split("-")
                identity = (int(placement), backend.service, int(index))
                known = self._servers.setdefault((key, f"{backend.service}/{server.name}"), identity)
                if known != identity and not self.world.restored:
                    raise Violation("NAMES", f"{key}: server {server.name} is used again")
        if after is not None and after.fence == command.route.fence and not self.world.landing_late:
            self._check_strangers(key)

    def _check_strangers(self, key: model.EnvironmentKey) -> None:
        for name in self.world.router.server_names(key):
            placement, port = _parts(name)
            owner = self.world.runtime.owner(port)
            if owner is None or (key, placement, port) in self._seen_at:
                continue
            if not owner[0].startswith(f"{key.app}.{key.environment}.{placement}."):
                raise Violation("STRANGER", f"{key}: at {name} listens {owner[0]}")


def _is_ready(instances: tuple[model.InstanceStatus, ...]) -> bool:
    return any(instance.ready for instance in instances)


def _parts(server: str) -> tuple[int, int]:
    """Placement id and port in the name of a server."""
    placement, _, port = server.removeprefix("p").split("-")
    return int(placement), int(port)

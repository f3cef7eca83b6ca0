"""What a placement is seen to be: readiness, crash loops, connections, and when it is gone.

All of it is asked of an `Observation`; a part that could not be looked at (`None`) answers no question.
Neighbours: `advance` decides with these, `reconcile` gates effects with them.
"""

from __future__ import annotations

from dataclasses import replace

from tidegate.core import model, routing, strategy
from tidegate.core.model import (
    Endpoint,
    EnvironmentState,
    GroupStatus,
    Observation,
    Placement,
    Reason,
    Role,
    RolloutKind,
    RolloutRequest,
)

Groups = tuple[GroupStatus, ...]


def fresh(state: EnvironmentState, observed: Observation) -> Observation:
    """Without what goes back in time: an old view of the world counts as none."""
    if observed.runtime is not None and observed.runtime.revision < state.seen_runtime:
        observed = replace(observed, runtime=None)
    if observed.routes is not None and observed.routes.revision < state.seen_router:
        observed = replace(observed, routes=None)
    return observed


def warm(state: EnvironmentState, request: RolloutRequest) -> Placement | None:
    """The standby that a request can take over: same artifact, same configuration and secrets."""
    return next(
        (
            placement
            for placement in reversed(state.in_role(Role.STANDBY))
            if placement.digest == request.digest
            and placement.release == request.release
            and same_configuration(placement, request)
        ),
        None,
    )


def free_slot(state: EnvironmentState) -> int | None:
    """The lowest slot without a placement."""
    taken = {placement.slot for placement in state.placements}
    return next((slot for slot in range(model.SLOTS) if slot not in taken), None)


def wanted_services(state: EnvironmentState, placement: Placement) -> tuple[model.ServiceSpec, ...]:
    """Services of a placement that shall run now, in dependency order.

    Those without traffic run once: in the live release, and in the incoming one when everybody is exposed.
    """
    phase = state.rollout.phase if state.rollout is not None else None
    incoming = placement.role is Role.INCOMING
    if incoming and phase is model.Phase.MIGRATING:
        return ()  # nothing of it may meet the schema before it fits
    held = state.route.hold_s > 0
    workers = (placement.role is Role.LIVE and not held) or (incoming and phase is model.Phase.FINISHING)
    return tuple(service for service in placement.spec.services if service.serves or workers)


def group(placement: Placement, service: str, groups: Groups) -> GroupStatus | None:
    """The group of a service, if it was seen."""
    return next((g for g in groups if g.placement == placement.id and g.service == service), None)


def with_endpoints(state: EnvironmentState, observed: Observation) -> EnvironmentState:
    """Commit the address of each instance that is ready: from then on the router may know it.

    An instance that moved to another port (a host that booted again) loses its old address at once: somebody
    else may listen there. One that is not ready stays known: the router has checks of its own, and a server
    that cannot be reached is better than an empty backend. Commands are not asked by the router, so their
    answers take a server out of rotation and back; no answer changes nothing.
    """
    if observed.groups is None:
        return state
    for placement in state.placements:
        if placement.role is not Role.RETIRING:
            state = state.with_placement(_with_endpoints(placement, observed.groups))
    return state


def without_lost_addresses(state: EnvironmentState, groups: Groups) -> EnvironmentState:
    """Without the addresses of instances that do not run: for a state that may be older than the world.

    Since then the runtime may have given them to others, whose answers no user of ours must get (simulation:
    seed 211839 of profile restore).
    """
    seen = {(g.placement, g.service, i.index): i.port for g in groups for i in g.instances}
    for placement in state.placements:
        kept = tuple(
            endpoint
            for endpoint in placement.endpoints
            if seen.get((placement.id, endpoint.service, endpoint.index), 0) in (None, endpoint.port)
        )
        if kept != placement.endpoints:
            state = state.with_placement(replace(placement, endpoints=kept))
    return state


def with_crash_baselines(state: EnvironmentState, observed: Observation) -> EnvironmentState:
    """A baseline follows counters that began anew (the host has booted), or it would forgive too many."""
    if observed.groups is None:
        return state
    for placement in state.placements:
        baseline = min(placement.crash_baseline, crashes(placement, observed.groups))
        if baseline < placement.crash_baseline:
            state = state.with_placement(replace(placement, crash_baseline=baseline))
    return state


def _with_endpoints(placement: Placement, groups: Groups) -> Placement:
    known = {(endpoint.service, endpoint.index): endpoint for endpoint in placement.endpoints}
    for service in placement.spec.services:
        seen = group(placement, service.name, groups) if service.serves else None
        for instance in seen.instances if seen else ():
            key = (service.name, instance.index)
            if instance.ready and instance.port is not None:
                known[key] = Endpoint(
                    service=service.name, index=instance.index, host=instance.host, port=instance.port
                )
            elif key in known and instance.port not in (None, known[key].port):
                del known[key]
            elif key in known and instance.ready is False and service.check.kind is model.CheckKind.COMMAND:
                known[key] = replace(known[key], in_rotation=False)
    endpoints = tuple(known[key] for key in sorted(known))
    return placement if endpoints == placement.endpoints else replace(placement, endpoints=endpoints)


def ready_to_serve(placement: Placement, observed: Observation) -> bool:
    """Every instance that takes traffic is ready, and the router has seen it up in this placement's slot."""
    serving = (service for service in placement.spec.services if service.serves)
    return all(_serving(placement, service, observed) >= service.instances for service in serving)


def serves_at_all(placement: Placement, observed: Observation) -> bool:
    """At least one instance of each service with traffic is ready, and up in the router."""
    serving = (service for service in placement.spec.services if service.serves)
    return all(_serving(placement, service, observed) > 0 for service in serving)


def _serving(placement: Placement, service: model.ServiceSpec, observed: Observation) -> int:
    """Instances that runtime and router both see in order; what could not be looked at counts as none."""
    seen = group(placement, service.name, observed.groups or ())
    if seen is None or observed.routes is None:
        return 0
    up = routing.servers_up(observed.routes, service=service.name, slot=placement.slot)
    return min(seen.ready_count, up)


def all_ready(placement: Placement, groups: Groups) -> bool:
    """Every instance of every service, those without traffic included, is ready."""
    return all(_ready(placement, service, groups) for service in placement.spec.services)


def _ready(placement: Placement, service: model.ServiceSpec, groups: Groups) -> bool:
    seen = group(placement, service.name, groups)
    return seen is not None and seen.ready_count >= service.instances


def needs_are_ready(placement: Placement, service: model.ServiceSpec, observed: Observation) -> bool:
    """All that a service needs is ready, and reachable through the router, so that it may start.

    A release that starts for the first time waits for every instance; one that comes back after a reboot
    for one of each, because a broken instance must not keep the rest down. Of a service of another app only
    the address must be in force: whether somebody answers there is the gate's business.
    """
    if observed.groups is None or observed.routes is None:
        return not service.needs and not service.foreign
    if not routing.foreign_in_force(service.foreign, observed.routes):
        return False
    for needed in (placement.spec.service(name) for name in service.needs):
        if needed is None:
            continue
        count = needed.instances if placement.role is Role.INCOMING else 1
        seen = group(placement, needed.name, observed.groups)
        up = routing.servers_up(observed.routes, service=needed.name, slot=placement.slot)
        if seen is None or seen.ready_count < count or (needed.serves and up < count):
            return False
    return True


def not_ready(state: EnvironmentState, placement: Placement, observed: Observation) -> str:
    """For people: which services are waited for, what checks said, and how instances ended last."""
    if observed.groups is None:
        return "the runtime could not be asked"
    waiting = []
    for service in wanted_services(state, placement):
        seen = group(placement, service.name, observed.groups)
        count = seen.ready_count if seen else 0
        if count < service.instances:
            exits = sorted({i.exit for i in seen.instances if i.exit}) if seen else []
            said = sorted({i.check for i in seen.instances if i.check and not i.ready}) if seen else []
            why = f" ({'; '.join(said)})" if said else ""
            ended = f", last ended with {'; '.join(exits)}" if exits else ""
            waiting.append(f"{service.name} {count} of {service.instances} ready{why}{ended}")
    return ", ".join(waiting) or "the router has not seen the instances up"


def service_without_ready(placement: Placement, groups: Groups) -> model.ServiceSpec | None:
    """A service with traffic of which no instance is ready. A process not asked yet counts as ready."""
    for service in placement.spec.services:
        seen = group(placement, service.name, groups) if service.serves else None
        if service.serves and (seen is None or all(_is_down(instance) for instance in seen.instances)):
            return service
    return None


def _is_down(instance: model.InstanceStatus) -> bool:
    without_process = (model.InstanceState.BACKOFF, model.InstanceState.EXITED)
    return instance.ready is False or instance.state in without_process


def boot_limit_s(placement: Placement, service: model.ServiceSpec, groups: Groups) -> float:
    """How long a service without a ready instance may still be on its way up: 0 if it crashed or hangs.

    A host that booted again shows it as absent, ended or starting, without a crash.
    """
    seen = group(placement, service.name, groups)
    on_the_way = (model.InstanceState.STARTING, model.InstanceState.EXITED)
    instances = seen.instances if seen else ()
    booting = not instances or any(i.state in on_the_way and i.recent_crashes == 0 for i in instances)
    return service.ready_timeout_s if booting else 0.0


def crashes(placement: Placement, groups: Groups) -> int:
    """Most crashes that one instance of the placement has had."""
    counts = [i.crashes for g in groups if g.placement == placement.id for i in g.instances]
    return max(counts, default=0)


def crash_loop(placement: Placement, groups: Groups, *, limit: int, recent_only: bool) -> str:
    """Which instance loops and how it ends; empty if none does. One crash is not a loop.

    `recent_only`: of the crashes since the baseline, only those of the last minutes count.
    """
    for seen in groups:
        for instance in seen.instances if seen.placement == placement.id else ():
            count = instance.crashes - placement.crash_baseline
            if recent_only:
                count = min(count, instance.recent_crashes)
            if count >= limit:
                ended = f" ({instance.exit})" if instance.exit else ""
                return f"instance {instance.index} of {seen.service} crashed {count} times{ended}"
    return ""


def is_live(state: EnvironmentState, request: RolloutRequest) -> bool:
    """The request asks for what is live already, configuration and versions of secrets included."""
    live = state.live
    if live is None or (live.release, live.digest) != (request.release, request.digest):
        return False
    return same_configuration(live, request)


def is_to_verify(placement: Placement, rollout: model.Rollout) -> bool:
    """Its own checks have to pass first: not of instances that were live already, and not on the way back."""
    forward = rollout.request.kind is RolloutKind.DEPLOY
    return placement.spec.verify is not None and rollout.created_placement and forward


def verify_job(placement: Placement, groups: Groups) -> model.InstanceStatus | None:
    """The one instance that runs the release's own checks; None: it was not seen."""
    seen = group(placement, model.VERIFY_SERVICE, groups)
    return next(iter(seen.instances), None) if seen is not None else None


def same_configuration(of: Placement | RolloutRequest, request: RolloutRequest) -> bool:
    """What would run is set up just as the other is: a new version of a secret is another configuration."""
    return of.spec == request.spec and of.secrets == request.secrets


def ready_services(placement: Placement, groups: Groups) -> int:
    """How many services have all their instances ready."""
    return sum(1 for service in placement.spec.services if _ready(placement, service, groups))


def waiting_limit_s(state: EnvironmentState, placement: Placement, observed: Observation) -> float:
    """How long to wait for the next service: those that may start now have the time that they ask for."""
    wanted = wanted_services(state, placement)
    groups = observed.groups
    waiting = [
        service
        for service in wanted
        if groups is not None
        and not _ready(placement, service, groups)
        and needs_are_ready(placement, service, observed)
    ]
    counted = waiting or wanted or placement.spec.services
    return max((service.ready_timeout_s for service in counted), default=0.0)


def start_limit_s(placement: Placement) -> float:
    """Services start one after the other, so their times add up."""
    return sum(service.ready_timeout_s for service in placement.spec.services)


def end_limit_s(placement: Placement) -> float:
    """Connections of all services end together, their processes one after the other."""
    services = placement.spec.services
    drain_s = max((service.drain_s for service in services), default=0.0)
    return drain_s + sum(service.grace_s for service in services)


def idled(placement: Placement, observed: Observation, dt_s: float) -> Placement:
    """Counts the time in which no new request could reach the placement."""
    routes = observed.routes
    if routes is None or placement.slot in routing.routed_slots(routes.route):
        return placement
    return replace(placement, idle_s=placement.idle_s + dt_s)


def with_cleared(placement: Placement, observed: Observation) -> Placement:
    """Mark services of a retiring placement whose servers may leave the router, dependents first.

    A service is cleared when neither the running router nor its boot files send requests to it, the
    services that need it have stopped, and its connections have ended or had `drain_s`. Unknown is not zero.
    """
    routes, groups = observed.routes, observed.groups
    if routes is None or groups is None or routes.boot is None:
        return placement
    if placement.slot in routing.routed_slots(routes.route) + routing.routed_slots(routes.boot.route):
        return placement
    cleared = set(placement.cleared)
    for service in reversed(placement.spec.services):
        if service.name in cleared or not dependents_gone(placement, service, groups):
            continue
        if not service.serves or _connections_ended(placement, service, routes):
            cleared.add(service.name)
    return replace(placement, cleared=tuple(sorted(cleared)))


def _connections_ended(placement: Placement, service: model.ServiceSpec, routes: model.RouteState) -> bool:
    if placement.idle_s >= service.drain_s:
        return True
    sessions = [s.sessions for s in routes.servers if s.service == service.name and s.slot == placement.slot]
    return placement.idle_s > 0 and all(count == 0 for count in sessions)


def dependents_gone(placement: Placement, service: model.ServiceSpec, groups: Groups) -> bool:
    """No group of a service that needs this one is left."""
    return not any(
        service.name in dependent.needs and group(placement, dependent.name, groups) is not None
        for dependent in placement.spec.services
    )


def out_of_router(placement: Placement, service: str, routes: model.RouteState) -> bool:
    """Neither the running router nor its boot files hold a server of the service in this slot."""
    running = any(server.service == service and server.slot == placement.slot for server in routes.servers)
    boot = routes.boot is not None and any(
        backend.service == service and backend.slot == placement.slot and backend.servers
        for backend in routes.boot.backends
    )
    return not running and not boot


def is_gone(placement: Placement, state: EnvironmentState, observed: Observation) -> bool:
    """Nothing of the placement is left in the world: its slot may be used again."""
    routes, groups = observed.routes, observed.groups
    if routes is None or groups is None or any(g.placement == placement.id for g in groups):
        return False
    if placement.slot in routing.routed_slots(state.route):
        return False
    return all(out_of_router(placement, s.name, routes) for s in placement.spec.services if s.serves)


def flip_back(state: EnvironmentState, standby: Placement, detail: str) -> RolloutRequest:
    """The request by which Tidegate itself goes back to a warm release."""
    return RolloutRequest(
        kind=RolloutKind.ROLLBACK,
        release=standby.release,
        digest=standby.digest,
        spec=standby.spec,
        strategy=strategy.SWITCH,
        links=standby.links,
        foreign=standby.foreign,
        secrets=standby.secrets,
        admission=standby.admission,
        emergency=standby.emergency,
        salt=f"back-{state.next_id}",
        by="tidegate",
        automatic=True,
        why=f"{Reason.AUTO_ROLLBACK.value}: {detail}",
    )

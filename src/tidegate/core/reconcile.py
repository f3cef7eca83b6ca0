"""Mechanism: from a committed state and one look at the world to the effects that bring them together. Pure.

    reconcile(state, observed) -> effects

Level-triggered: it compares, it does not remember. Called again after a crash it asks for what is missing.

- A look that goes back in time counts as none, as in `advance`: a group must not be stopped because the
  router is seen as it was before the group's servers came.
- The job that verifies a release runs while its rollout is verifying, and not before the route shows it.
- A group is started when what it needs is ready, and only when the runtime could be looked at.
- A group is stopped only when the running router *and* its boot files are seen without its servers.
- Groups of placements that the state has given out and forgotten are stopped; those it has never given
  out are not touched (`advance` halts).
- A job of the migrator begins when it was seen to do no other; what is no longer wanted is ended.
- The route needs no gate: it is written as committed, also when the router could not be looked at.
"""

from __future__ import annotations

from typing import Final

from tidegate.core import migrating, model, parts, placements, routing, spec
from tidegate.core.effects import ApplyGroup, ApplyRoutes, Effect, RemoveGroup, RunMigration, StopMigration
from tidegate.core.model import (
    EnvironmentState,
    GroupStatus,
    InstanceState,
    Observation,
    Phase,
    Placement,
    Role,
)
from tidegate.core.schemas import JobState

#: From SIGTERM to SIGKILL of a job that is no longer wanted.
VERIFY_GRACE_S: Final = 5.0


def reconcile(state: EnvironmentState, observed: Observation) -> tuple[Effect, ...]:
    """Effects in the order in which they should be done: the way of the traffic first."""
    if state.halted:
        return ()
    observed = placements.fresh(state, observed)
    return (
        *_routes(state, observed),
        *_starts(state, observed),
        *_stops(state, observed),
        *_migrations(state, observed),
    )


def _routes(state: EnvironmentState, observed: Observation) -> tuple[Effect, ...]:
    if routing.nothing_yet(state):
        return ()
    table = routing.route_table(state)
    if observed.routes is not None and routing.agrees(table, observed.routes):
        return ()
    return (ApplyRoutes(table=table),)


def _starts(state: EnvironmentState, observed: Observation) -> tuple[Effect, ...]:
    groups = observed.groups
    if groups is None:
        return ()
    services = tuple(
        ApplyGroup(group=instance_group(state, placement, service))
        for placement in state.placements
        if placement.role is not Role.RETIRING and not _goes_home(state, placement)
        for service in placements.wanted_services(state, placement)
        if _incomplete(placements.group(placement, service.name, groups), service)
        and placements.needs_are_ready(placement, service, observed)
    )
    return services + _jobs(state, observed)


def _goes_home(state: EnvironmentState, placement: Placement) -> bool:
    """Nothing more of it is started: it may never have run, since the schema does not fit it."""
    aborting = state.rollout is not None and state.rollout.phase is Phase.ABORTING
    return aborting and placement.role is Role.INCOMING


def _jobs(state: EnvironmentState, observed: Observation) -> tuple[Effect, ...]:
    incoming, routes = _verified(state), observed.routes
    if incoming is None or routes is None or not routing.in_force(state.route, routes):
        return ()
    job = placements.verify_job(incoming, observed.groups or ())
    if job is not None and (job.state is not InstanceState.EXITED or job.ready is not None):
        return ()  # it runs, or has an outcome: one that ended without (the host was reset) runs again
    return (ApplyGroup(group=verify_group(state, incoming)),)


def _verified(state: EnvironmentState) -> Placement | None:
    """The placement whose job shall run now."""
    verifying = state.rollout is not None and state.rollout.phase is Phase.VERIFYING
    return state.incoming if verifying else None


def _migrations(state: EnvironmentState, observed: Observation) -> tuple[Effect, ...]:
    """The one job that is wanted, begun when the migrator was seen to do no other."""
    if observed.jobs is None:
        return ()
    wanted = migrating.wanted_job(state)
    stops = tuple(
        StopMigration(environment=state.key, job_id=job.id)
        for job in observed.jobs
        if wanted is None or job.id != wanted.id
    )
    known = any(wanted is not None and job.id == wanted.id for job in observed.jobs)
    busy = any(job.state is JobState.RUNNING for job in observed.jobs)
    if wanted is None or known or busy:
        return stops
    return (*stops, RunMigration(environment=state.key, job=wanted))


def _incomplete(seen: GroupStatus | None, service: model.ServiceSpec) -> bool:
    """Something of the group is not there, or will not come back by itself."""
    if seen is None or len(seen.instances) != service.instances:
        return True
    return any(instance.state is model.InstanceState.EXITED for instance in seen.instances)


def _stops(state: EnvironmentState, observed: Observation) -> tuple[Effect, ...]:
    routes, groups = observed.routes, observed.groups
    if groups is None or routes is None:
        return ()
    return tuple(RemoveGroup(group_id=seen.id) for seen in groups if _may_stop(state, seen, observed, routes))


def _may_stop(
    state: EnvironmentState, seen: GroupStatus, observed: Observation, routes: model.RouteState
) -> bool:
    placement = state.placement(seen.placement)
    if placement is None:
        return seen.placement < state.next_id and not _serves_somewhere(seen, routes)
    service = placement.spec.service(seen.service)
    if service is None:
        wanted = seen.service == model.VERIFY_SERVICE and _verified(state) == placement
        return not wanted and not _serves_somewhere(seen, routes)
    if placement.role is not Role.RETIRING:
        return service not in placements.wanted_services(state, placement)
    if not placements.dependents_gone(placement, service, observed.groups or ()):
        return False
    if not service.serves:
        return True
    return service.name in placement.cleared and placements.out_of_router(placement, service.name, routes)


def _serves_somewhere(seen: GroupStatus, routes: model.RouteState) -> bool:
    """A server of the running router or of its boot files has the address of one of the group's instances."""
    addresses = {(instance.host, instance.port) for instance in seen.instances}
    running = {(server.host, server.port) for server in routes.servers}
    booted = {
        (server.host, server.port)
        for backend in (routes.boot.backends if routes.boot else ())
        for server in backend.servers
    }
    return bool(addresses & (running | booted))


def instance_group(
    state: EnvironmentState, placement: Placement, service: model.ServiceSpec
) -> model.InstanceGroup:
    """What the runtime is asked to run."""
    links = _links(placement, service.needs) | _foreign(placement, service.foreign)
    return model.InstanceGroup(
        key=state.key,
        placement=placement.id,
        service=service.name,
        release=placement.release,
        digest=placement.digest,
        run=service.run,
        serves=service.serves,
        check=service.check,
        instances=service.instances,
        environment=tuple(sorted((_names(state, placement) | dict(placement.spec.config) | links).items())),
        limits=service.limits,
        grace_s=service.grace_s,
        secrets=placement.secrets,
        admission=placement.admission,
    )


def verify_group(state: EnvironmentState, placement: Placement) -> model.InstanceGroup:
    """The job that tries a release: it finds it by plain addresses that lead to this release alone."""
    serving = [service for service in placement.spec.services if service.serves]
    links = _links(placement, tuple(service.name for service in serving))
    links |= _foreign(placement, tuple(link.service for link in placement.foreign))
    front = next((service for service in serving if service.hosts), next(iter(serving), None))
    own = {"TIDEGATE_PREVIEW_HEADER": f"{routing.PREVIEW_HEADER}: {state.route.preview}"}
    if front is not None and spec.link_variable(front.name) in links:
        own["TIDEGATE_URL"] = links[spec.link_variable(front.name)]
    verify = placement.spec.verify or model.Verify()
    return model.InstanceGroup(
        key=state.key,
        placement=placement.id,
        service=model.VERIFY_SERVICE,
        release=placement.release,
        digest=placement.digest,
        run=verify.run,
        serves=False,
        check=model.Check(kind=model.CheckKind.ALIVE),
        instances=1,
        environment=tuple(
            sorted((_names(state, placement) | dict(placement.spec.config) | links | own).items())
        ),
        limits=parts.UNLIMITED,
        grace_s=VERIFY_GRACE_S,
        secrets=placement.secrets,
        admission=placement.admission,
        verify=verify,
    )


def _names(state: EnvironmentState, placement: Placement) -> dict[str, str]:
    """What libpq calls its connections in the database: there it is seen when the last has gone."""
    if placement.spec.migrations is None:
        return {}
    name = f"{state.key.app}.{state.key.environment}.r{placement.release}"
    return {model.CONNECTION_NAME: name}


def _links(placement: Placement, services: tuple[str, ...]) -> dict[str, str]:
    """Where each of them answers at this placement's own release, by variable."""
    return {
        spec.link_variable(link.service): f"http://127.0.0.1:{link.port}"
        for link in placement.links
        if link.service in services and link.slot == placement.slot
    }


def _foreign(placement: Placement, services: tuple[str, ...]) -> dict[str, str]:
    """Where services of other apps answer, by variable."""
    return {
        spec.link_variable(link.service): f"http://127.0.0.1:{link.port}"
        for link in placement.foreign
        if link.service in services
    }

"""From what the loop saw to what the API answers. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate import errors, ports
from tidegate.core import analysis, migrating, model, placements, routing, verdicts
from tidegate.core import plan as core_plan
from tidegate.engine import loop, traffic
from tidegate.web import schemas


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """Where the public port is."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """As a client on this machine would write it."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "::", "*", "") else self.host  # noqa: S104 - compared, not bound
        return f"http://{host}:{self.port}"

    def url_of(self, host: str | None) -> str:
        """The same for a host name that the router tells apart from others; None: any host will do."""
        return self.url if host is None else f"http://{host}:{self.port}"


def environment(view: loop.View, meter: traffic.TrafficMeter, listening: Listening) -> schemas.Environment:
    """Everything about one environment."""
    state = view.state
    live = state.live
    hosts = _hosts(state)
    return schemas.Environment(
        app=state.key.app,
        environment=state.key.environment,
        live=live.release if live else None,
        exposure_bps=state.route.exposure_bps if state.route.canary is not None else 0,
        rollout=rollout(state.rollout) if state.rollout else None,
        last=rollout(state.last) if state.last else None,
        pending_release=state.pending.release if state.pending else None,
        migrating=_migrating(view),
        placements=[_placement(state, placement, view.observed, meter) for placement in state.placements],
        hosts=hosts,
        url=listening.url_of(_host_to_ask(hosts)) if hosts else None,
        halted=state.halted,
        emergency=state.live.emergency if state.live else "",
        failures=[failure.error.message for failure in view.failures],
        observed_at=view.at,
    )


def _migrating(view: loop.View) -> str:
    work = view.state.schema
    if work is None:
        return ""
    job = next((job for job in view.observed.jobs or () if job.id == work.job), None)
    if job is not None and job.progress:
        return job.progress
    if work.failure:
        return f"tried again soon: {work.failure}"
    if work.plan is None:
        return "looks at the schema, and tries out what is new"
    return migrating.described(work.plan)


def _hosts(state: model.EnvironmentState) -> list[str]:
    return sorted({host for service in routing.route_table(state).services for host in service.hosts})


def _host_to_ask(hosts: list[str]) -> str | None:
    """The name without which the router does not know what is meant; None: every name is answered."""
    return None if "*" in hosts else next(iter(hosts), None)


def plan(planned: core_plan.Plan) -> schemas.Plan:
    """What a rollout would do."""
    return schemas.Plan(
        release=planned.release,
        previous_release=planned.previous_release,
        no_op=planned.no_op,
        flip=planned.flip,
        steps=list(planned.steps),
        judged=planned.judged,
    )


def preview(state: model.EnvironmentState, listening: Listening) -> schemas.Preview:
    """How to see the incoming release. Raises NotFoundError when there is none."""
    if not state.route.preview:
        raise errors.NotFoundError(
            f"No release is on its way into {state.key}.", hint="A preview exists while a rollout runs."
        )
    hosts = _hosts(state)
    return schemas.Preview(
        header=routing.PREVIEW_HEADER,
        token=state.route.preview,
        cookie="tidegate_preview",
        address=listening.url if hosts else None,
        host=_host_to_ask(hosts),
    )


def _placement(
    state: model.EnvironmentState,
    placement: model.Placement,
    observed: model.Observation,
    meter: traffic.TrafficMeter,
) -> schemas.Placement:
    total, rate = meter.total(placement.id), meter.rate(placement.id)
    return schemas.Placement(
        id=placement.id,
        release=placement.release,
        digest=placement.digest,
        role=placement.role.value,
        slot=placement.slot,
        exposure_bps=_exposure_bps(state.route, placement.slot),
        traffic=schemas.Traffic(
            requests=total.requests,
            errors=total.errors,
            requests_per_second=round(rate.requests_per_second, 2),
            errors_per_second=round(rate.errors_per_second, 2),
        ),
        services=[_service(placement, service, observed) for service in placement.spec.services],
    )


def _exposure_bps(route: model.Route, slot: int) -> int:
    if slot == route.canary:
        return route.exposure_bps
    return model.FULL_EXPOSURE - route.exposure_bps if slot == route.stable else 0


def _service(
    placement: model.Placement, service: model.ServiceSpec, observed: model.Observation
) -> schemas.Service:
    group = placements.group(placement, service.name, observed.groups or ())
    instances = group.instances if group else ()
    up: int | None = None
    connections: int | None = None
    if observed.routes is not None and service.serves:
        up = routing.servers_up(observed.routes, service=service.name, slot=placement.slot)
        held = [s for s in observed.routes.servers if (s.service, s.slot) == (service.name, placement.slot)]
        known = [server.sessions for server in held if server.sessions is not None]
        connections = sum(known) if len(known) == len(held) else None
    return schemas.Service(
        name=service.name,
        wanted=service.instances,
        ready=group.ready_count if group else 0,
        serves=service.serves,
        up=up,
        connections=connections,
        instances=[_instance(instance) for instance in instances],
    )


def _instance(instance: model.InstanceStatus) -> schemas.Instance:
    return schemas.Instance(
        index=instance.index,
        state=instance.state.value,
        ready=instance.ready,
        pid=instance.pid,
        port=instance.port,
        crashes=instance.crashes,
        exit=instance.exit,
        check=instance.check,
    )


def rollout(value: model.Rollout) -> schemas.Rollout:
    """A rollout as it stands."""
    return schemas.Rollout(
        id=value.id,
        kind=value.request.kind.value,
        release=value.request.release,
        previous_release=value.previous_release,
        strategy=value.strategy.kind.value,
        stages=[
            schemas.Stage(exposure_bps=stage.exposure_bps, hold_s=stage.hold_s)
            for stage in value.strategy.stages
        ],
        stage=value.stage,
        phase=value.phase.value,
        held_s=round(value.held_s, 2),
        paused=value.paused,
        exposure_reached_bps=value.exposure_reached_bps,
        reason=value.reason.value,
        detail=value.detail,
        by=value.request.by,
        why=value.request.why,
        placement=value.placement,
        started_at=value.request.at or None,
        evidence=_evidence(value),
    )


def _evidence(value: model.Rollout) -> schemas.Evidence | None:
    found = analysis.verdict(value)
    if found is None:
        return None
    return schemas.Evidence(
        verdict=found.kind.value,
        finding=found.finding.value,
        metric=found.metric.value if found.metric else None,
        sentence=found.sentence,
        combined=found.combined,
        abort_bound=found.abort_bound,
        no_worse=found.no_worse,
        promote_bound=found.promote_bound,
        metrics=[
            schemas.MetricEvidence(metric=part.metric.value, log_evidence=part.log_evidence)
            for part in found.evidence
        ],
        canary=_compared(found.canary, found.canary_latency),
        stable=_compared(found.stable, found.stable_latency),
        waits=analysis.waits_for_evidence(value),
    )


def _compared(seen: verdicts.Share, latency: verdicts.Latency | None) -> schemas.Compared:
    return schemas.Compared(
        requests=seen.requests,
        errors=seen.errors,
        share=seen.value,
        low=seen.low,
        high=seen.high,
        p50_ms=latency.p50_ms if latency else None,
        p99_ms=latency.p99_ms if latency else None,
    )


def recorded(record: ports.RolloutRecord) -> schemas.Rollout:
    """A rollout of the history."""
    times = {"started_at": record.started_at, "ended_at": record.ended_at}
    return rollout(record.rollout).model_copy(update=times)


def release(value: model.Release, *, kept: bool) -> schemas.Release:
    """A release; `kept`: its package is on this machine."""
    return schemas.Release(
        app=value.app,
        number=value.number,
        digest=value.digest,
        revision=value.revision,
        environments=[name for name, _ in value.environments],
        created_at=value.created_at,
        created_by=value.created_by,
        kept=kept,
    )


def event(record: ports.EventRecord) -> schemas.Event:
    """A line of the history."""
    happened = record.event
    return schemas.Event(
        sequence=record.sequence,
        at=record.at,
        reason=happened.reason.value,
        rollout=happened.rollout,
        release=happened.release,
        phase=happened.phase.value if happened.phase else None,
        exposure_bps=happened.exposure_bps,
        detail=happened.detail,
    )

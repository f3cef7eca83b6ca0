"""From a valid definition to what each environment is to be: defaults and overrides filled in.

Hides which value wins: an environment's own, else the service's, else the default. What comes out is complete
in itself, so that a release can be rolled back to years later whatever the defaults are then.

Neighbours: `definition` says what was written, `core.spec` has the rules between values, `core.strategy` the
stages. No rule is decided here: values are only brought into the form in which the rules take them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tidegate.core import spec, strategy
from tidegate.core.model import Check, CheckKind, EnvironmentSpec, Limits, ServiceSpec, Stage, Strategy
from tidegate.core.policy import AnalysisPolicy
from tidegate.core.spec import DeclaredService, Fault, HostClaim, Where
from tidegate.manifest import gates, migration_sections
from tidegate.manifest.definition import (
    AnalysisSection,
    CanarySection,
    EnvironmentSection,
    HealthSection,
    LimitsSection,
    ManifestSection,
    OverrideSection,
    ServiceSection,
)

ONLY_ENVIRONMENT = "production"


def pipeline(definition: ManifestSection) -> dict[str, EnvironmentSection]:
    """Environments in order; one if none is written."""
    return definition.environments or {ONLY_ENVIRONMENT: EnvironmentSection()}


def faults(
    definition: ManifestSection, known: frozenset[str], wrong: frozenset[Where] = frozenset()
) -> Iterator[Fault]:
    """What is wrong between values. `known`: names of all services that were written.

    `wrong`: places of what was cut out because it was wrong alone.
    """
    certain = not any("services" in where for where in wrong)
    services = declared(definition)
    needed = spec.addressed_names(services)
    yield from spec.service_faults(services, known)
    yield from spec.foreign_faults(definition.app, services)
    yield from spec.host_faults(tuple(_claims(definition)))
    for name, environment in pipeline(definition).items():
        yield from spec.config_faults(name, environment.config, needed)
        yield from _override_faults(name, environment, known)
        yield from _database_faults(name, definition, environment, wrong)
        if environment.strategy and environment.strategy.canary:
            shares = [step.share for step in environment.strategy.canary.steps]
            yield from spec.share_faults(("environments", name, "strategy", "canary", "steps"), shares)
    yield from gates.faults(definition, pipeline(definition), services, known, certain=certain)


def _override_faults(name: str, environment: EnvironmentSection, known: frozenset[str]) -> Iterator[Fault]:
    for service in environment.services:
        if service not in known:
            close = spec.suggestion(service, known)
            yield Fault(
                where=("environments", name, "services", service),
                message=f"there is no service {service}",
                hint=f"did you mean {close}?" if close else "name a key of services",
            )


def _database_faults(
    name: str, definition: ManifestSection, environment: EnvironmentSection, wrong: frozenset[Where]
) -> Iterator[Fault]:
    """Who runs migrations has to say where the database is."""
    if any(_may_name_database(where, name) for where in wrong):
        return
    if definition.migrations is None and environment.migrations.changes_something:
        yield Fault(
            where=("environments", name, "migrations"),
            message="changes nothing: there are no migrations at the top of the file",
            hint="for example migrations: migrations/ there",
        )
    use = migration_sections.resolved(definition.migrations, environment.migrations)
    if use is None or use.database in environment.config:
        return
    forms = {one.name: one.as_file for one in gates.secrets(environment)}
    if forms.get(use.database) is False:
        return
    where: Where = ("environments", name) if name in definition.environments else ("migrations",)
    if use.database in forms:
        message = f"{name} has {use.database} as a file; migrations need it as a variable"
        yield Fault(where=where, message=message, hint=f"environments.{name}.secrets: [{use.database}]")
        return
    yield Fault(
        where=where,
        message=f"{name} does not say where its database is: it has no {use.database}",
        hint=f"environments.{name}: {{secrets: [{use.database}]}}, or migrations: off there",
    )


def _may_name_database(where: Where, environment: str) -> bool:
    """Whether what was cut out here may have said it: what nobody could read is no second mistake."""
    match where:
        case ("migrations",) | ("migrations", "database") | ("environments",):
            return True
        case ("environments", name):
            return environment in (name, ONLY_ENVIRONMENT)  # which stands in when none is left
        case ("environments", name, "config" | "secrets" | "migrations", *_):
            return name == environment
    return False


def declared(definition: ManifestSection) -> tuple[DeclaredService, ...]:
    """The services as far as they touch each other."""
    overrides = [environment.services for environment in pipeline(definition).values()]
    return tuple(
        DeclaredService(
            name=name,
            needs=tuple(name for name in service.needs if "/" not in name),
            foreign=tuple(sorted(name for name in service.needs if "/" in name)),
            routed=any((service.route, *(o[name].route for o in overrides if name in o))),
            port=service.port,
            checks=_checks(service.health),
        )
        for name, service in definition.services.items()
    )


def _checks(health: HealthSection | None) -> tuple[CheckKind, ...]:
    if health is None:
        return ()
    written = (
        (CheckKind.HTTP, health.path),
        (CheckKind.TCP, health.tcp),
        (CheckKind.COMMAND, health.command),
    )
    return tuple(kind for kind, value in written if value is not None)


def _claims(definition: ManifestSection) -> Iterator[HostClaim]:
    for name, environment in pipeline(definition).items():
        for service, section in definition.services.items():
            own = environment.services.get(service, OverrideSection()).route
            place = ("environments", name, "services", service, "route")
            for host in section.route if own is None else own:
                yield HostClaim(
                    environment=name,
                    service=service,
                    host=host,
                    where=("services", service, "route") if own is None else place,
                    own=own is not None,
                )


def environments(definition: ManifestSection) -> tuple[tuple[str, EnvironmentSpec], ...]:
    """Every environment, complete, in the order of the pipeline. The definition must be without faults."""
    services = declared(definition)
    needs = {service.name: service.needs for service in services}
    order = {name: index for index, name in enumerate(spec.dependency_order(needs))}
    ordered = sorted(services, key=lambda service: order[service.name])
    written = pipeline(definition)
    last = next(reversed(written))
    return tuple(
        (
            name,
            _environment(definition, environment, ordered, _strategy(name, environment, last=name == last)),
        )
        for name, environment in written.items()
    )


def _environment(
    definition: ManifestSection,
    environment: EnvironmentSection,
    services: Iterable[DeclaredService],
    chosen: Strategy,
) -> EnvironmentSpec:
    declarations = tuple(services)
    needed = spec.needed_names(declarations)
    running = tuple(
        _service(
            service,
            definition.services[service.name],
            environment.services.get(service.name, OverrideSection()),
            needed,
        )
        for service in declarations
    )
    return EnvironmentSpec(
        services=running,
        strategy=chosen,
        config=tuple(sorted(environment.config.items())),
        keep_warm_s=environment.keep_warm,
        analysis=_analysis(definition.analysis, environment.analysis),
        secrets=gates.secrets(environment),
        verify=gates.verify(definition, environment, running),
        soak_s=environment.soak,
        approvals=gates.approvals(environment),
        freezes=gates.freezes(environment),
        migrations=migration_sections.resolved(definition.migrations, environment.migrations),
    )


def _service(
    declaration: DeclaredService, section: ServiceSection, override: OverrideSection, needed: frozenset[str]
) -> ServiceSpec:
    health = section.health or HealthSection()
    return ServiceSpec(
        name=declaration.name,
        run=section.run,
        serves=spec.serves(declaration, needed),
        check=Check(
            kind=spec.check_kind(declaration, needed),
            path=health.path or "/",
            command=health.command or (),
            interval_s=health.interval,
            timeout_s=health.timeout,
        ),
        instances=override.instances or section.instances,
        needs=declaration.needs,
        foreign=declaration.foreign,
        hosts=section.route if override.route is None else override.route,
        identity=section.user_by,
        limits=_limits(section.limits, override.limits),
        ready_timeout_s=health.deadline,
        drain_s=section.drain,
        grace_s=section.grace,
    )


def _limits(base: LimitsSection, override: LimitsSection) -> Limits:
    return Limits(
        memory_bytes=override.memory or base.memory,
        cpus=override.cpus or base.cpus,
        processes=override.processes or base.processes,
        open_files=override.open_files or base.open_files,
    )


def _strategy(name: str, environment: EnvironmentSection, *, last: bool) -> Strategy:
    if environment.strategy is not None:
        written = environment.strategy.canary
        return strategy.SWITCH if written is None else _canary(written)
    return _canary(CanarySection()) if spec.canary_by_default(name, last=last) else strategy.SWITCH


def _canary(section: CanarySection) -> Strategy:
    return strategy.canary(
        tuple(
            Stage(exposure_bps=step.share, hold_s=step.hold if step.holds else section.every)
            for step in section.steps
        )
    )


def _analysis(everywhere: AnalysisSection, here: AnalysisSection) -> AnalysisPolicy:
    """Key by key: what is written here, else what is written for all environments, else the default."""
    written = {
        name: getattr(section, name) for section in (everywhere, here) for name in section.model_fields_set
    }
    section = AnalysisSection().model_copy(update=written)
    return AnalysisPolicy(
        enabled=section.enabled,
        false_abort=section.false_abort,
        margin=section.margin,
        allowance=section.allowance,
        latency_margin_buckets=section.latency_margin,
        promote_early=section.promote_early,
        soak_s=section.soak,
        warmup_s=section.warmup,
        warmup_requests=section.warmup_requests,
        on_little_evidence=section.on_little_evidence,
        max_error_share=section.max_error_share,
        max_p99_ms=section.max_p99,
        overdue_s=section.overdue,
    )

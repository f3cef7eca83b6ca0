"""The closed union of things that the core can ask the world to do.

Every effect is idempotent and named: doing it twice, or again after a crash, changes nothing more.
`tide plan` prints `describe()`; the engine executes the same objects.
"""

from __future__ import annotations

from dataclasses import dataclass

from tidegate.core import model, schemas


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyGroup:
    """Have this group's instances run."""

    group: model.InstanceGroup

    @property
    def key(self) -> str:
        return f"apply:{self.group.id}"

    def describe(self) -> str:
        group = self.group
        plural = "" if group.instances == 1 else "s"
        return f"run {group.instances} instance{plural} of {group.service} at r{group.release} in {group.key}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveGroup:
    """Stop this group's instances: SIGTERM, grace, SIGKILL."""

    group_id: str

    @property
    def key(self) -> str:
        return f"remove:{self.group_id}"

    def describe(self) -> str:
        return f"stop {self.group_id}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyRoutes:
    """Have the router, its boot files included, hold exactly this table."""

    table: model.RouteTable

    @property
    def key(self) -> str:
        return f"routes:{self.table.key}:{self.table.route.fence}"

    def describe(self) -> str:
        route = self.table.route
        if route.stable is None and route.canary is None:
            return f"route nothing for {self.table.key}"
        share = (
            f"{route.exposure_bps / 100:g} % of users to slot {route.canary}"
            if route.canary is not None
            else "all"
        )
        servers = sum(len(backend.servers) for backend in self.table.backends)
        return f"route {self.table.key}: stable slot {route.stable}, {share}, {servers} servers"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunMigration:
    """Have the migrator do this job."""

    environment: model.EnvironmentKey
    job: schemas.MigrationJob

    @property
    def key(self) -> str:
        return f"migrate:{self.environment}:{self.job.id}"

    def describe(self) -> str:
        name = f"r{self.job.release} in {self.environment}"
        if self.job.studies:
            return f"see what {name} needs of its database"
        return f"{', '.join(f'{step.direction} {step.id}' for step in self.job.steps)} for {name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StopMigration:
    """End a job that is no longer wanted, and forget it."""

    environment: model.EnvironmentKey
    job_id: str

    @property
    def key(self) -> str:
        return f"stop-migration:{self.environment}:{self.job_id}"

    def describe(self) -> str:
        return f"end job {self.job_id} on the database of {self.environment}"


Effect = ApplyGroup | RemoveGroup | ApplyRoutes | RunMigration | StopMigration

"""Carries out one effect through its adapter; a failure is a value, because the loop will ask again.

What is expected to fail (an adapter, this machine, a damaged artifact) is caught here and nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from tidegate import errors, ports
from tidegate.core.effects import ApplyGroup, ApplyRoutes, Effect, RemoveGroup, RunMigration, StopMigration


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An effect or a look that did not come through in this step."""

    key: str
    """Names what failed; the same in each step until it succeeds."""
    error: errors.TidegateError


def execute(
    effect: Effect, *, runtime: ports.Runtime, router: ports.Router, migrator: ports.Migrator
) -> Failure | None:
    """Do it; None when it came through."""
    try:
        _dispatch(effect, runtime, router, migrator)
    except (errors.AdapterError, errors.MachineError, errors.ArtifactError) as error:
        return Failure(key=effect.key, error=error)
    return None


def _dispatch(effect: Effect, runtime: ports.Runtime, router: ports.Router, migrator: ports.Migrator) -> None:
    match effect:
        case ApplyGroup(group=group):
            runtime.apply(group, key=effect.key)
        case RemoveGroup(group_id=group_id):
            runtime.remove(group_id, key=effect.key)
        case ApplyRoutes(table=table):
            router.apply(table, key=effect.key)
        case RunMigration(job=job):
            migrator.apply(job)
        case StopMigration(environment=environment, job_id=job_id):
            migrator.remove(environment, job_id)
        case _:
            assert_never(effect)

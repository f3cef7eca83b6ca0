"""Carrying out one effect: the right call, and failures as values."""

from __future__ import annotations

import pytest

from tests.support.builders import WEB, environment, placed
from tests.unit.engine.world import Router, Runtime, World
from tidegate import errors
from tidegate.core import reconcile, routing
from tidegate.core.effects import ApplyGroup, ApplyRoutes, Effect, RemoveGroup
from tidegate.engine import execute
from tidegate.testing.fake_migrator import FakeMigrator

STATE = environment().live("r1").state
START = ApplyGroup(group=reconcile.instance_group(STATE, placed(STATE, "r1"), WEB))
STOP = RemoveGroup(group_id="shop.production.1.web")
ROUTE = ApplyRoutes(table=routing.route_table(STATE))


def done(effect: Effect, world: World) -> execute.Failure | None:
    return execute.execute(effect, runtime=Runtime(world), router=Router(world), migrator=FakeMigrator())


@pytest.mark.parametrize(
    ("effect", "call"),
    [
        (START, "apply apply:shop.production.1.web"),
        (STOP, "remove remove:shop.production.1.web"),
        (ROUTE, "route routes:shop/production:1"),
    ],
    ids=["start", "stop", "route"],
)
def test_effect_is_one_call_under_its_key(effect: Effect, call: str) -> None:
    """Each kind has its own port, and nothing else is asked."""
    world = World()
    assert done(effect, world) is None
    assert world.calls == [call]


@pytest.mark.parametrize(
    "error",
    [
        errors.RuntimeAdapterError("no"),
        errors.RouterError("no"),
        errors.StaleRouteError("no"),
        errors.StorageError("no"),
        errors.PortTakenError("no"),
        errors.ArtifactError("no"),
    ],
    ids=lambda error: error.kind,
)
def test_expected_failure_is_a_value(error: errors.TidegateError) -> None:
    """Adapter, machine and damaged packages: the loop will ask again, under the same key."""
    world = World()
    world.failing["apply"] = error
    assert done(START, world) == execute.Failure(key=START.key, error=error)


@pytest.mark.parametrize("error", [errors.FencedError(), RuntimeError("a defect")], ids=["fenced", "defect"])
def test_other_errors_are_not_swallowed(error: Exception) -> None:
    """A lost lease ends the loop; a defect is not hidden as a failure of the world."""
    world = World()
    world.failing["route"] = error
    with pytest.raises(type(error)):
        done(ROUTE, world)

"""A release tries itself before anybody sees it: when the job runs, and what its outcome does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support.builders import WEB_WITH_API, environment, going, perfect, placed, spec, without_groups
from tidegate.core import advance, model, reconcile
from tidegate.core.effects import ApplyGroup, RemoveGroup
from tidegate.core.model import (
    EnvironmentState,
    GroupStatus,
    InstanceState,
    InstanceStatus,
    Link,
    Observation,
    Phase,
    Reason,
    RolloutKind,
    Verify,
)

VERIFIED = spec(
    *WEB_WITH_API, verify=Verify(run=("./bin/smoke",), timeout_s=30.0), config=(("LEVEL", "info"),)
)


def state_in(phase: Phase, **changes: Any) -> EnvironmentState:
    return environment().live("r1").incoming("r2", VERIFIED, phase=phase, **changes).state


def with_job(
    state: EnvironmentState, *, ready: bool | None, how: InstanceState = InstanceState.EXITED, exit_: str = ""
) -> Observation:
    """The perfect world, and the job as it stands."""
    seen, placement = perfect(state), placed(state, "r2")
    assert seen.runtime is not None
    job = GroupStatus(
        id=model.group_id(state.key, placement.id, model.VERIFY_SERVICE),
        placement=placement.id,
        service=model.VERIFY_SERVICE,
        instances=(InstanceStatus(index=0, state=how, ready=ready, exit=exit_),),
    )
    return replace(seen, runtime=replace(seen.runtime, groups=(*seen.runtime.groups, job)))


def jobs(state: EnvironmentState, seen: Observation) -> list[model.InstanceGroup]:
    effects = reconcile.reconcile(state, seen)
    return [e.group for e in effects if isinstance(e, ApplyGroup) and e.group.verify is not None]


def removed(state: EnvironmentState, seen: Observation) -> list[str]:
    return [e.group_id for e in reconcile.reconcile(state, seen) if isinstance(e, RemoveGroup)]


def test_release_with_checks_of_its_own_is_verified_before_it_is_exposed() -> None:
    """All instances are ready: nobody sees them yet but the bearer of the preview token."""
    before = state_in(Phase.STARTING)
    outcome = advance.advance(before, perfect(before), 1.0)
    state = outcome.state
    assert (going(state).phase, going(state).reason) == (Phase.VERIFYING, Reason.VERIFYING)
    assert (state.route.canary, state.route.exposure_bps) == (placed(state, "r2").slot, 0)
    assert state.route.preview == going(state).request.preview
    assert [event.reason for event in outcome.events] == [Reason.VERIFYING]


@pytest.mark.parametrize("changes", [{"created_placement": False}, {}])
def test_way_back_and_warm_instances_are_not_verified_again(changes: dict[str, Any]) -> None:
    """What was live already goes on at once: on the night of an outage nobody waits for a smoke test."""
    state = state_in(Phase.STARTING, **changes)
    if not changes:
        back = replace(going(state).request, kind=RolloutKind.ROLLBACK)
        state = replace(state, rollout=replace(going(state), request=back))
    assert going(advance.advance(state, perfect(state), 1.0).state).phase is Phase.SHIFTING


def test_job_finds_the_new_release_and_nothing_else() -> None:
    """Its addresses are those of the incoming slot, its configuration is the environment's."""
    state = state_in(Phase.VERIFYING)
    slot = placed(state, "r2").slot
    links = (
        Link(service="api", slot=slot, port=21001),
        Link(service="web", slot=slot, port=21002),
        Link(service="web", slot=slot + 1, port=21003),
    )
    state = state.with_placement(replace(placed(state, "r2"), links=links, admission="sealed"))
    (job,) = jobs(state, perfect(state))
    variables = dict(job.environment)
    assert variables["TIDEGATE_URL"] == variables["WEB_URL"] == "http://127.0.0.1:21002"
    assert (variables["API_URL"], variables["LEVEL"]) == ("http://127.0.0.1:21001", "info")
    assert variables["TIDEGATE_PREVIEW_HEADER"] == f"X-Tidegate-Preview: {state.route.preview}"
    assert (job.run, job.serves, job.instances, job.admission) == (("./bin/smoke",), False, 1, "sealed")


def test_job_begins_when_the_route_shows_the_release() -> None:
    """Before that the preview would answer with the old one."""
    state = state_in(Phase.VERIFYING)
    seen = perfect(state)
    assert seen.routes is not None
    assert seen.routes.route is not None
    early = replace(seen.routes, route=replace(seen.routes.route, fence=state.route.fence - 1))
    assert jobs(state, replace(seen, routes=early)) == []
    assert len(jobs(state, seen)) == 1


@pytest.mark.parametrize(
    ("how", "ready", "again"),
    [
        (InstanceState.RUNNING, None, False),
        (InstanceState.EXITED, True, False),
        (InstanceState.EXITED, False, False),
        (InstanceState.EXITED, None, True),
    ],
)
def test_job_runs_once_to_an_outcome(how: InstanceState, ready: bool | None, again: bool) -> None:
    """Only one that ended without an outcome, because the machine was reset, runs again."""
    state = state_in(Phase.VERIFYING)
    assert bool(jobs(state, with_job(state, ready=ready, how=how))) is again


@pytest.mark.parametrize("phase", [p for p in Phase if not p.ended and p is not Phase.VERIFYING])
def test_job_that_is_not_wanted_is_stopped(phase: Phase) -> None:
    """In every other phase, the way home included."""
    if phase is Phase.QUEUED:
        return
    state = state_in(phase)
    name = model.group_id(state.key, placed(state, "r2").id, model.VERIFY_SERVICE)
    assert name in removed(state, with_job(state, ready=None, how=InstanceState.RUNNING))
    assert jobs(state, perfect(state)) == []


def test_job_is_left_alone_while_it_is_wanted() -> None:
    """It is no service of the release, and still its own."""
    state = state_in(Phase.VERIFYING)
    assert removed(state, with_job(state, ready=None, how=InstanceState.RUNNING)) == []


def test_passed_checks_begin_the_first_stage() -> None:
    """The history says why."""
    state = state_in(Phase.VERIFYING)
    after = advance.advance(state, with_job(state, ready=True), 1.0).state
    assert (going(after).phase, going(after).reason) == (Phase.SHIFTING, Reason.VERIFIED)
    assert after.route.exposure_bps == going(after).current_stage.exposure_bps


def test_passed_checks_of_instances_that_are_gone_begin_nothing() -> None:
    """What was verified must be what is exposed."""
    state = state_in(Phase.VERIFYING)
    seen = with_job(state, ready=True)
    assert seen.routes is not None
    down = replace(seen, routes=replace(seen.routes, servers=()))
    assert going(advance.advance(state, down, 1.0).state).phase is Phase.VERIFYING


def test_failed_checks_send_the_release_home_unseen() -> None:
    """Nobody was exposed, and how the checks ended is said."""
    state = state_in(Phase.VERIFYING)
    after = advance.advance(state, with_job(state, ready=False, exit_="exit status 1"), 1.0).state
    assert (going(after).phase, going(after).reason) == (Phase.ABORTING, Reason.VERIFY_FAILED)
    assert "exit status 1" in going(after).detail
    assert going(after).exposure_reached_bps == 0


def test_checks_that_do_not_end_fail() -> None:
    """Their time limit is of observed time, and a pause stops it."""
    state = state_in(Phase.VERIFYING, phase_s=29.5)
    seen = with_job(state, ready=None, how=InstanceState.RUNNING)
    after = advance.advance(state, seen, 1.0).state
    assert (going(after).phase, going(after).reason) == (Phase.ABORTING, Reason.VERIFY_FAILED)
    paused = replace(state, rollout=replace(going(state), paused=True))
    assert going(advance.advance(paused, seen, 1.0).state).phase is Phase.VERIFYING


def test_unseen_job_decides_nothing() -> None:
    """None is not failed."""
    state = state_in(Phase.VERIFYING)
    blind = replace(with_job(state, ready=False), runtime=None)
    assert going(advance.advance(state, blind, 1.0).state).phase is Phase.VERIFYING
    gone = without_groups(perfect(state), placed(state, "r2"))
    assert going(advance.advance(state, gone, 1.0).state).phase is Phase.VERIFYING

"""Derived properties of the values, and the names that are made of them."""

from __future__ import annotations

from dataclasses import replace

from tests.support.builders import API, CANARY, KEY, WEB, environment, going, perfect, placed, spec
from tidegate.core import model
from tidegate.core.model import GroupStatus, InstanceState, InstanceStatus, Observation, Phase, Release, Role


def test_names_of_values_are_short_and_derived() -> None:
    """Release, environment and group are named from what identifies them."""
    production = spec(API, WEB)
    release = Release(app="shop", number=42, digest="sha256:0", environments=(("production", production),))
    assert release.name == "r42"
    assert str(KEY) == "shop/production"
    assert model.group_id(KEY, 7, "api") == "shop.production.7.api"


def test_look_ups_answer_none_for_what_is_not_there() -> None:
    """Asking for an unknown service, environment or placement is no error."""
    production = spec(API, WEB)
    release = Release(app="shop", number=1, digest="sha256:0", environments=(("production", production),))
    assert release.environment("production") == production
    assert release.environment("test") is None
    assert production.service("api") == API
    assert production.service("gone") is None
    assert environment().state.placement(None) is None


def test_roles_are_found_by_what_is_committed() -> None:
    """Live and incoming follow from roles and rollout, and are None when there is nothing."""
    state = environment().live("r1").incoming("r2").state
    assert state.live == placed(state, "r1")
    assert state.incoming == placed(state, "r2")
    assert state.in_role(Role.STANDBY) == ()
    assert environment().state.live is None
    assert environment().state.incoming is None


def test_replacing_a_placement_keeps_order_and_neighbours() -> None:
    """Only the placement of that id changes."""
    state = environment().live("r1").incoming("r2").state
    first, second = state.placements
    changed = state.with_placement(replace(first, idle_s=5.0))
    assert changed.placements == (replace(first, idle_s=5.0), second)


def test_current_stage_never_runs_over_the_end() -> None:
    """A stage beyond the last is the last: full exposure stays full exposure."""
    rollout = going(environment().incoming("r1").state)
    assert replace(rollout, stage=99).current_stage == CANARY.stages[-1]


def test_ended_phases_are_the_two_ends() -> None:
    """Everything else is a rollout in progress."""
    assert [phase for phase in Phase if phase.ended] == [Phase.SUCCEEDED, Phase.ABORTED]


def test_group_status_counts_its_instances() -> None:
    """Ready counts only a yes: not asked yet is no yes."""
    instances = tuple(
        InstanceStatus(index=i, state=InstanceState.RUNNING, ready=ready, crashes=i)
        for i, ready in enumerate((True, False, None))
    )
    status = GroupStatus(id="a.b.1.web", placement=1, service="web", instances=instances)
    assert (status.ready_count, status.crashes) == (1, 3)


def test_unseen_groups_are_unknown_not_absent() -> None:
    """An observation without a look at the runtime has no groups to show, not even an empty list."""
    assert Observation(runtime=None, routes=None).groups is None
    assert perfect(environment().state).groups == ()

"""What a forge is told of a commit follows from its push and its rollouts."""

from __future__ import annotations

import dataclasses

import pytest

from tests.support import builders
from tidegate.core.model import Phase, Rollout
from tidegate.core.reasons import Reason
from tidegate.engine import reports
from tidegate.pushes import How, Push, PushState

PUSH = Push(
    id=7, app="shop", ref="refs/heads/main", revision="a" * 40, to="production", how=How.PUSH, queued_at=0.0
)


def rollout(phase: Phase) -> Rollout:
    return Rollout(id=1, request=builders.request(), phase=phase, reason=Reason.COMPLETE, detail="")


@pytest.mark.parametrize(
    ("push", "state"),
    [
        (dataclasses.replace(PUSH, state=PushState.QUEUED), "pending"),
        (dataclasses.replace(PUSH, state=PushState.BUILDING), "pending"),
        (dataclasses.replace(PUSH, state=PushState.FAILED, detail="broke"), "failure"),
        (dataclasses.replace(PUSH, state=PushState.SUPERSEDED, detail="by #8"), "failure"),
        (dataclasses.replace(PUSH, state=PushState.RELEASED, release=3), "pending"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.state),
)
def test_push_is_told_as_it_stands(push: Push, state: str) -> None:
    """Before there is a rollout the target's state is that of the push."""
    (status,) = reports.wanted(push, (("production", None),))
    assert (status.context, status.state) == ("tidegate/production", state)


@pytest.mark.parametrize(
    ("phase", "state"),
    [
        (Phase.STARTING, "pending"),
        (Phase.HOLDING, "pending"),
        (Phase.SUCCEEDED, "success"),
        (Phase.ABORTED, "failure"),
    ],
)
def test_rollout_is_told_as_it_goes(phase: Phase, state: str) -> None:
    """Each environment has a state of its own."""
    push = dataclasses.replace(PUSH, state=PushState.RELEASED, release=3)
    test, production = reports.wanted(
        push, (("test", rollout(Phase.SUCCEEDED)), ("production", rollout(phase)))
    )
    assert (test.context, test.state) == ("tidegate/test", "success")
    assert production.state == state


def test_promotion_that_stopped_on_its_way_is_a_failure() -> None:
    """What will never come to production is not pending there for ever."""
    push = dataclasses.replace(PUSH, state=PushState.RELEASED, release=3, promotion="1")
    (status,) = reports.wanted(push, (("production", None),), stopped="r3 failed before staging")
    assert (status.state, status.description) == ("failure", "r3 failed before staging")


def test_description_is_short_enough_for_every_forge() -> None:
    """A long reason is cut."""
    push = dataclasses.replace(PUSH, state=PushState.FAILED, detail="x" * 5000)
    (status,) = reports.wanted(push, (("production", None),))
    assert len(status.description) == 140

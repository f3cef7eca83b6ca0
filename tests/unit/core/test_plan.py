"""What a request would do, in sentences that the execution shares."""

from __future__ import annotations

import pytest

from tests.support.builders import WEB_WITH_API, environment, request, spec, worker
from tidegate import errors
from tidegate.core import plan
from tidegate.core.strategy import SWITCH

WHOLE = spec(*WEB_WITH_API, worker())


def test_plan_of_a_canary_tells_every_step_in_order() -> None:
    """Starts in dependency order, shares with their hold times, workers, and what becomes of the old one."""
    made = plan.plan(environment().live("r1").state, request("r2", WHOLE))
    assert (made.release, made.previous_release, made.no_op, made.flip) == (2, 1, False, False)
    assert made.steps == (
        "run 1 instance of api at r2 in shop/production",
        "run 1 instance of web at r2 in shop/production when api is ready",
        "expose 5 % of users, hold for 10 s",
        "expose 50 % of users, hold for 10 s",
        "send everybody to it",
        "run 1 instance of mailer at r2 in shop/production",
        "keep r1 warm for 600 s, then drain and stop it",
    )


def test_plan_of_a_first_release_opens_the_route() -> None:
    """There is nobody to move, and nothing to keep warm."""
    made = plan.plan(environment().state, request("r1", spec(strategy=SWITCH)))
    assert made.previous_release is None
    assert made.steps == ("run 1 instance of web at r1 in shop/production", "open the route")


def test_plan_of_a_flip_starts_nothing() -> None:
    """A warm release is taken over as it is."""
    state = environment().live("r2").standby("r1").state
    made = plan.plan(state, request("r1", spec(), strategy=SWITCH))
    assert made.flip
    assert made.steps[0] == "take over the warm instances of r1"
    assert not any(step.startswith("run ") for step in made.steps)


def test_plan_of_what_is_so_already_has_no_steps() -> None:
    """A no-op is shown as one."""
    made = plan.plan(environment().live("r1").state, request("r1"))
    assert (made.no_op, made.steps) == (True, ())


def test_plan_of_a_superseding_request_begins_with_the_abort() -> None:
    """Who would be sent home is named first; without leave to do so, the plan is refused like the request."""
    state = environment().live("r1").incoming("r2").state
    assert plan.plan(state, request("r3"), supersede=True).steps[0] == (
        "abort rollout #2 of r2 and let it go home"
    )
    with pytest.raises(errors.RefusedError, match="in progress"):
        plan.plan(state, request("r3"))

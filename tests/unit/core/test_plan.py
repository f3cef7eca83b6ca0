"""What a request would do, in sentences that the execution shares."""

from __future__ import annotations

import pytest

from tests.support.builders import WEB_WITH_API, environment, request, spec, worker
from tidegate import errors
from tidegate.core import plan
from tidegate.core.model import RolloutKind
from tidegate.core.policy import AnalysisPolicy, LittleEvidence
from tidegate.core.schemas import MigrationsUse
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


def judging(**policy: object) -> str:
    """What the plan of a canary says of its analysis."""
    wanted = spec(analysis=AnalysisPolicy(**policy))  # type: ignore[arg-type]
    return plan.plan(environment().live("r1").state, request("r2", wanted)).judged


def test_plan_says_how_the_canary_is_judged() -> None:
    """Against whom, how sure one must be of what, and what becomes of little evidence."""
    assert judging() == (
        "r2 is judged against r1: it goes back when the evidence that it fails or leaves unanswered more "
        "than 1.1 times as many requests or is more than 10.25 % slower reaches 100 to 1. With little "
        "evidence at the end of a stage it goes on."
    )


def test_plan_says_what_was_tuned() -> None:
    """Limits, other margins, early promotion and the choice at the end of a stage are in the sentence."""
    said = judging(
        false_abort=0.001,
        margin=2.0,
        latency_margin_buckets=0,
        max_error_share=0.02,
        max_p99_ms=1_500.0,
        promote_early=True,
        soak_s=90.0,
        on_little_evidence=LittleEvidence.ASK,
    )
    for part in (
        "1000 to 1",
        "more than 2 times as many",
        "more than 0 % slower",
        "more than 2 % of them",
        "longer than 1500 ms",
        "ends after 90 s if it is shown to be no worse",
        "it pauses and asks",
    ):
        assert part in said
    assert "it waits for more" in judging(on_little_evidence=LittleEvidence.WAIT)


def test_plan_says_that_nothing_is_judged() -> None:
    """Off is said; where there is nothing to compare, nothing is said."""
    assert judging(enabled=False) == "r2 is not judged by its traffic: the analysis is off."
    state = environment().live("r2").standby("r1").state
    assert plan.plan(environment().state, request("r1")).judged == ""
    assert plan.plan(state, request("r3", strategy=SWITCH)).judged == ""
    assert plan.plan(state, request("r1", kind=RolloutKind.ROLLBACK)).judged == ""
    assert plan.plan(state, request("r2")).judged == ""


def test_plan_says_that_the_database_comes_first() -> None:
    """Only where the release has to start: warm instances live on the schema as it is."""
    use = MigrationsUse(path="migrations", database="DATABASE_URL")
    with_database = spec(migrations=use)
    fresh = plan.plan(environment().live("r1").state, request("r2", with_database))
    assert fresh.steps[0] == "bring the schema of its database to r2: see tide migrate plan"
    warm = environment().standby("r2", with_database).live("r1").state
    flip = plan.plan(warm, request("r2", with_database))
    assert not any("database" in step for step in flip.steps)

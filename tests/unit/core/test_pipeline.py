"""Which release may enter which environment next: each rule of `core.pipeline` by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest

from tests.support.builders import environment, spec
from tests.support.promoting import (
    NAMES,
    NOW,
    SOAKED,
    Line,
    enters,
    line,
    pipelines,
    place,
    promotion,
    release,
    rollout,
)
from tidegate import errors
from tidegate.core import model, pipeline
from tidegate.core.model import Approvals, Phase, Reason
from tidegate.core.pipeline import Begin, Place
from tidegate.core.promotions import Approval, Ended, PipelineState, Waits

# --- passes ------------------------------------------------------------------------------------------


def test_first_environment_is_open() -> None:
    """Nothing stands before it."""
    begun = line("test").step()
    assert begun.begins == (Begin(promotion=2, environment="test"),)
    assert begun.state.promotions[0].waits is Waits.ROLLOUT


@pytest.mark.parametrize("passed", [(), ("test",), ("staging",)])
def test_release_that_has_not_passed_all_before_is_stopped(passed: tuple[str, ...]) -> None:
    """However it came to stand there: the gate asks for passes, and says which is missing."""
    stopped = line("production", passed=passed)
    outcome = stopped.step()
    assert outcome.begins == ()
    assert stopped.of(2).ended is Ended.FAILED
    missing = "test" if "test" not in passed else "staging"
    assert stopped.of(2).detail == f"r2 has not passed {missing}, which stands before production"
    assert [event.reason for _, event in outcome.events] == [Reason.STOPPED]


def test_gate_that_the_live_release_has_cannot_be_left_out() -> None:
    """A manifest takes away no gate that its release has not passed itself."""
    bold = Line(pipelines(replace(promotion("r2", "production"), path=("test", "production"))))
    bold.sees(2, "r2", passed=("test",), demanded=("test", "staging"))
    assert bold.step().begins == ()
    assert "leaves staging out of its pipeline" in bold.of(2).detail


def test_gate_that_only_the_live_release_has_is_open_to_what_has_passed_it() -> None:
    """The pass counts, not the manifest."""
    bold = Line(pipelines(replace(promotion("r2", "production"), path=("test", "production"))))
    bold.sees(2, "r2", passed=("test", "staging"), demanded=("test", "staging"))
    assert enters(bold.step()) == [(2, "production")]


def test_what_has_passed_goes_through_without_entering_again() -> None:
    """From where it stands to the first environment that it has not passed."""
    known = Line(pipelines(promotion("r2", "test"))).sees(2, "r2", passed=("test", "staging"))
    assert enters(known.step()) == []
    assert known.stands(2) == ("production", None, None)
    assert enters(known.step()) == [(2, "production")]


def test_target_is_entered_although_it_was_passed() -> None:
    """Somebody asks for it to be live there, not for a pass."""
    known = line("production", passed=NAMES)
    assert enters(known.step()) == [(2, "production")]


def test_what_could_not_be_looked_at_waits() -> None:
    """A promotion without a look, and one whose rollout was begun but is not found, stay as they are."""
    unseen = Line(pipelines(promotion("r2"), promotion("r3", rollout=7, waits=Waits.ROLLOUT)))
    unseen.sees(3, "r3")
    before = unseen.state.promotions
    assert unseen.step().begins == ()
    assert unseen.state.promotions == before


# --- approvals -----------------------------------------------------------------------------------------


def approved(by: str = "bob", role: str = "approver", at: float = NOW, where: str = "production") -> Approval:
    return Approval(environment=where, by=by, role=role, at=at)


def with_approvals(rule: Approvals, *given: Approval, **changes: Any) -> Line:
    waits = line("production", of=spec(approvals=rule))
    waits.state = pipelines(replace(waits.of(2), approvals=given, **changes))
    return waits


CASES: Final[list[tuple[str, Approvals, tuple[Approval, ...], bool]]] = [
    ("none given", Approvals(), (), False),
    ("one of one", Approvals(), (approved(),), True),
    ("one of two", Approvals(count=2), (approved(),), False),
    ("two of two", Approvals(count=2), (approved(), approved("cleo")), True),
    ("one person twice", Approvals(count=2), (approved(), approved(at=NOW - 1)), False),
    ("another role", Approvals(roles=("approver",)), (approved(role="deployer"),), False),
    ("that role", Approvals(roles=("approver",)), (approved(),), True),
    ("admin may all", Approvals(roles=("approver",)), (approved(role="admin"),), True),
    ("expired", Approvals(expires_s=60.0), (approved(at=NOW - 60.5),), False),
    ("just in time", Approvals(expires_s=60.0), (approved(at=NOW - 60.0),), True),
    ("of the future", Approvals(), (approved(at=NOW + 1),), False),
    ("requester, who may", Approvals(), (approved("ada"),), True),
    ("requester, who may not", Approvals(not_by_requester=True), (approved("ada"),), False),
    ("somebody else", Approvals(not_by_requester=True), (approved(),), True),
    ("for elsewhere", Approvals(), (approved(where="staging"),), False),
]


@pytest.mark.parametrize(("rule", "given", "is_open"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_approvals(rule: Approvals, given: tuple[Approval, ...], is_open: bool) -> None:
    """So many different people with the right role, in time, for this environment."""
    asked = with_approvals(rule, *given)
    begun = asked.step()
    assert (enters(begun) == [(2, "production")]) is is_open
    assert (asked.of(2).waits is Waits.APPROVAL) is not is_open
    assert asked.of(2).ended is None


def test_sentence_says_what_is_missing() -> None:
    """How many, by whom, how many are there, and the command."""
    asked = with_approvals(Approvals(count=2, roles=("approver", "owner")), approved())
    asked.step()
    assert asked.of(2).detail == (
        "waits for 2 approvals by approver or owner, 1 given: `tide approve production --release r2`"
    )


def test_approval_that_the_live_release_wants_is_wanted() -> None:
    """Both manifests count, each by its own rule."""
    strict = spec(approvals=Approvals(count=2))
    asked = with_approvals(Approvals(), approved())
    asked.places["production"] = place("r1", strict)
    assert asked.step().begins == ()
    assert asked.of(2).waits is Waits.APPROVAL
    asked.state = asked.state.with_promotion(replace(asked.of(2), approvals=(approved(), approved("cleo"))))
    assert enters(asked.step()) == [(2, "production")]


def approve(
    state: PipelineState, given: Approval, *rules: Approvals, release: int | None = None
) -> PipelineState:
    return pipeline.approve(state, given.environment, release, given, rules or (Approvals(),)).state


def test_approval_is_of_one_release() -> None:
    """A newer one that waits at the same gate inherits nothing."""
    gate = {"of": spec(approvals=Approvals(count=2))}
    asked = line("production", **gate)
    asked.step()
    asked.state = approve(asked.state, approved())
    newer = promotion("r3", "production")
    asked.state = replace(asked.state, promotions=(*asked.state.promotions, newer))
    asked.sees(3, "r3", passed=NAMES[:2], release=release("r3", production=gate["of"]))
    asked.step()
    assert asked.of(2).ended is Ended.SUPERSEDED
    assert (asked.of(3).waits, asked.of(3).approvals) == (Waits.APPROVAL, ())


def test_approval_given_again_is_the_newer_one() -> None:
    """One person counts once, from the last time on."""
    waits = pipelines(promotion("r2", "production", waits=Waits.APPROVAL))
    twice = approve(approve(waits, approved(at=1.0)), approved(at=2.0))
    assert [(a.by, a.at) for a in twice.promotions[0].approvals] == [("bob", 2.0)]


@pytest.mark.parametrize(
    ("given", "rules"),
    [
        (approved(role="deployer"), (Approvals(roles=("approver",)),)),
        (approved(role="deployer"), (Approvals(), Approvals(roles=("approver",)))),
        (approved("ada"), (Approvals(not_by_requester=True),)),
    ],
)
def test_approval_that_would_not_count_is_refused(given: Approval, rules: tuple[Approvals, ...]) -> None:
    """At once, with the reason: by the rules of either manifest."""
    waits = pipelines(promotion("r2", "production", waits=Waits.APPROVAL))
    with pytest.raises(errors.RefusedError) as refused:
        approve(waits, given, *rules)
    assert refused.value.reason == model.Refusal.MAY_NOT_APPROVE.value


def test_approval_is_told() -> None:
    """The history has who and by what role."""
    waits = pipelines(promotion("r2", "production", waits=Waits.APPROVAL))
    decided = pipeline.approve(waits, "production", None, approved(), (Approvals(),))
    ((where, event),) = decided.events
    assert (where, event.reason, event.release) == ("production", Reason.APPROVED, 2)
    assert event.detail == "by bob (approver)"


@pytest.mark.parametrize("asked", [None, 7])
def test_approval_of_what_does_not_wait_is_refused(asked: int | None) -> None:
    """One that is under way elsewhere, or another release."""
    under_way = pipelines(promotion("r2", "staging", waits=Waits.SOAK))
    with pytest.raises(errors.RefusedError) as refused:
        approve(under_way, approved(where="staging"), release=asked)
    assert refused.value.reason == model.Refusal.NOTHING_WAITS.value


def test_approval_of_what_has_ended_says_how() -> None:
    """So that nobody wonders."""
    gone = pipelines(promotion("r2", "production", ended=Ended.FAILED, detail="web: exit status 1"))
    with pytest.raises(errors.RefusedError) as refused:
        approve(gone, approved(), release=2)
    assert "its promotion has failed, web: exit status 1" in refused.value.message


# --- freeze, busy --------------------------------------------------------------------------------------


def test_freeze_window_holds_a_release_up() -> None:
    """It waits, and enters when the window is over."""
    cold = line(frozen="production is frozen until Monday")
    outcome = cold.step()
    assert (outcome.begins, cold.of(2).waits) == ((), Waits.FREEZE)
    assert [event.detail for _, event in outcome.events] == ["production is frozen until Monday"]
    cold.sees(2, "r2", passed=NAMES[:2])
    assert enters(cold.step()) == [(2, "production")]


def busy_state(name: str = "r9") -> Place:
    return Place(state=environment().live("r1").incoming(name).state)


def test_rollout_in_progress_is_waited_for() -> None:
    """Whoever asked for it."""
    waits = line()
    waits.places["production"] = busy_state()
    assert (waits.step().begins, waits.of(2).waits) == ((), Waits.BUSY)
    assert "of r9 is in progress in" in waits.of(2).detail
    waits.places["production"] = place("r1")
    assert enters(waits.step()) == [(2, "production")]


def test_superseding_release_waits_for_no_rollout() -> None:
    """The one in its way is sent home by the request itself."""
    hasty = line()
    hasty.state = pipelines(replace(hasty.of(2), supersede=True))
    hasty.places["production"] = busy_state()
    assert enters(hasty.step()) == [(2, "production")]


def test_environment_that_is_observed_only_is_entered_by_nobody() -> None:
    """Also not by one that supersedes."""
    waits = line()
    waits.state = pipelines(replace(waits.of(2), supersede=True))
    waits.places["production"] = Place(state=environment().live("r1").having(halted="older").state)
    assert (waits.step().begins, waits.of(2).waits) == ((), Waits.BUSY)


def test_waiting_is_told_once() -> None:
    """Each new thing that it waits for, not each look."""
    cold = line(frozen="frozen")
    assert [event.reason for _, event in cold.step().events] == [Reason.WAITING]
    assert cold.step().events == ()
    cold.sees(2, "r2", passed=NAMES[:2])
    cold.places["production"] = busy_state()
    assert [event.reason for _, event in cold.step().events] == [Reason.WAITING]


# --- the rollout ---------------------------------------------------------------------------------------


def test_rollout_is_found_again_and_not_begun_twice() -> None:
    """By its own key, also by a control plane that never heard of its number."""
    again = line("test", rollout=rollout("r2", Phase.STARTING))
    assert again.step().begins == ()
    assert (again.of(2).rollout, again.of(2).waits) == (9, Waits.ROLLOUT)


def test_rollout_into_the_target_ends_the_promotion() -> None:
    """It has arrived, whatever soak time is there."""
    there = line("production", rollout=rollout("r2"))
    there.places["production"] = place("r2", SOAKED)
    there.step()
    assert there.stands(2) == ("production", None, Ended.ARRIVED)


def test_aborted_rollout_stops_the_promotion_where_it_is() -> None:
    """With the reason of the abort: production never saw it."""
    broken = line(
        "staging",
        rollout=rollout("r2", Phase.ABORTED, reason=Reason.VERIFY_FAILED, detail="exit status 1"),
    )
    outcome = broken.step()
    assert broken.stands(2) == ("staging", None, Ended.FAILED)
    assert broken.of(2).detail == f"staging: {Reason.VERIFY_FAILED.value}: exit status 1"
    assert [(where, event.reason) for where, event in outcome.events] == [("staging", Reason.STOPPED)]


def test_release_goes_on_when_it_has_passed() -> None:
    """To the next environment, where it stands before the gate with nothing begun."""
    through = line("staging", rollout=rollout("r2"), passed=("test", "staging"))
    through.places["staging"] = place("r2")
    through.step()
    found = through.of(2)
    assert (found.environment, found.rollout, found.waits) == ("production", None, None)


def test_release_that_was_replaced_during_its_soak_has_failed() -> None:
    """Its time was not over, and nobody can live it out."""
    left = line("staging", rollout=rollout("r2", placement=7))
    left.places["staging"] = place("r1")
    left.step()
    assert left.stands(2) == ("staging", None, Ended.FAILED)
    assert left.of(2).detail == "it is not live in staging any more, and its time there was not over"


def test_release_that_a_newer_one_replaced_during_its_soak_is_superseded() -> None:
    """That is no failure of its own."""
    left = line("staging", rollout=rollout("r2", placement=7))
    left.state = pipelines(left.of(2), promotion("r3"))
    left.places["staging"] = place("r3")
    left.step()
    assert left.of(2).ended is Ended.SUPERSEDED


def test_rollout_of_another_key_is_adopted() -> None:
    """A rollout that somebody began by hand is this promotion's own from then on."""
    adopted = line("staging", rollout=rollout("r2", Phase.HOLDING, key="by hand"))
    adopted.state = pipelines(replace(adopted.of(2), rollout=9, waits=Waits.ROLLOUT))
    adopted.step()
    assert adopted.stands(2) == ("staging", Waits.ROLLOUT, None)
    adopted.sees(2, "r2", passed=NAMES[:2], rollout=rollout("r2", key="by hand"))
    adopted.step()
    assert adopted.stands(2) == ("production", None, None)


def pending(key: str) -> Place:
    return Place(state=environment().live("r1").incoming("r9").pending("r2", key=key).state)


def test_rollout_that_waits_for_another_to_go_home_is_waited_for() -> None:
    """It has no record of its own yet, and is not asked for again."""
    queued = line("staging")
    queued.state = pipelines(replace(queued.of(2), queued=True, waits=Waits.ROLLOUT))
    queued.places["staging"] = pending("promotion-2-staging")
    assert queued.step().begins == ()
    assert queued.stands(2) == ("staging", Waits.ROLLOUT, None)


def test_rollout_that_was_taken_back_before_it_began_is_not_begun_again() -> None:
    """Somebody has pressed abort, or a newer request has taken its place."""
    for there in (place("r1"), pending("another")):
        queued = line("staging")
        queued.state = pipelines(replace(queued.of(2), queued=True, waits=Waits.ROLLOUT))
        queued.places["staging"] = there
        assert queued.step().begins == ()
        assert queued.of(2).ended is Ended.WITHDRAWN


def test_rollout_that_is_needless_since_the_one_before_went_home_is_asked_for_again() -> None:
    """What it went home to is just this release: the answer says so."""
    queued = line("staging")
    queued.state = pipelines(replace(queued.of(2), queued=True, waits=Waits.ROLLOUT))
    queued.places["staging"] = place("r2")
    assert enters(queued.step()) == [(2, "staging")]
    assert queued.of(2).queued is False

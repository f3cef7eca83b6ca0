"""What earns a pass, who gives way to whom, and what people may ask of a pipeline."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest

from tests.support.builders import digest, environment, spec
from tests.support.promoting import (
    EMPTY,
    NAMES,
    NOW,
    Line,
    enters,
    pipelines,
    place,
    promotion,
    release,
    rollout,
)
from tidegate import errors
from tidegate.core import model, pipeline
from tidegate.core.model import Phase, Reason, RolloutKind
from tidegate.core.promotions import Ended, Pass, Promotion, Soak, Waits, identity

# --- soaks and passes ------------------------------------------------------------------------------------


def soaking(soak_s: float = 3.0, made: model.Rollout | None = None, **changes: Any) -> Line:
    """r2 is live in staging."""
    watched = Line(pipelines())
    watched.places["staging"] = place("r2", spec(soak_s=soak_s), made, **changes)
    return watched


def passes(watched: Line, steps: int = 8, dt_s: float = 1.0) -> list[Pass]:
    return [each for _ in range(steps) for each in watched.step(dt_s).passes]


def test_pass_is_earned_by_living_in_order_for_the_soak_time() -> None:
    """Not a moment earlier, and once."""
    watched = soaking(3.0)
    counts = [len(watched.step().passes) for _ in range(8)]
    assert counts == [0, 0, 0, 1, 0, 0, 0, 0]
    soak = watched.state.soak("staging")
    assert soak is not None
    assert soak.passed


def test_pass_says_what_has_passed() -> None:
    """What it runs, by which rollout, when; the history says it too."""
    watched = soaking(0.0)
    (earned,) = watched.step().passes
    assert earned == Pass(
        environment="staging",
        identity=identity(release("r2")),
        release=2,
        digest=digest("r2"),
        rollout=9,
        at=NOW,
    )
    assert watched.last is not None
    ((where, event),) = watched.last.events
    assert (where, event.reason, event.release, event.rollout) == ("staging", Reason.PASSED, 2, 9)


def test_one_look_adds_a_second_at_most() -> None:
    """An hour in which nobody looked is no hour in order."""
    watched = soaking(3.0)
    watched.step()
    assert passes(watched, 2, dt_s=3600.0) == []
    assert len(passes(watched, 1, dt_s=3600.0)) == 1


def test_time_never_runs_back() -> None:
    """A negative interval adds nothing and takes nothing."""
    watched = soaking(1.5)
    watched.step()
    watched.step(1.0)
    watched.step(-5.0)
    soak = watched.state.soak("staging")
    assert soak is not None
    assert soak.soaked_s == 1.0


def test_soak_counts_only_what_was_seen_in_order() -> None:
    """An instance that is not ready stops the time, and does not set it back."""
    watched = soaking(2.0)
    watched.step()
    watched.step()
    in_order = watched.places["staging"]
    watched.places["staging"] = replace(in_order, sound=False)
    assert passes(watched) == []
    soak = watched.state.soak("staging")
    assert soak is not None
    assert soak.soaked_s == 1.0
    watched.places["staging"] = in_order
    assert len(passes(watched, 1)) == 1


def test_pass_needs_a_look_at_the_release_in_order() -> None:
    """Also without a soak time: ready instances were seen after it became live."""
    watched = soaking(0.0, sound=False)
    assert passes(watched) == []


NOT_EARNED: Final = {
    "emergency": rollout("r2", emergency="checkout is down"),
    "rollback": rollout("r2", kind=RolloutKind.ROLLBACK),
    "aborted": rollout("r2", Phase.ABORTED),
    "of another release": rollout("r3"),
}


@pytest.mark.parametrize("made", NOT_EARNED.values(), ids=NOT_EARNED.keys())
def test_no_other_way_earns_a_pass(made: model.Rollout) -> None:
    """Only a deploy through the gates that has succeeded."""
    assert passes(soaking(0.0, made)) == []


def test_release_of_which_nobody_knows_how_it_became_live_earns_none() -> None:
    """A row that somebody wrote, or a history that was cut."""
    assert passes(soaking(0.0, made_live=None)) == []


def test_next_release_soaks_from_the_beginning() -> None:
    """The time of the one before is not its own."""
    watched = soaking(4.0)
    for _ in range(4):
        watched.step()
    state = environment().live("r2").live("r3", spec(soak_s=4.0)).state
    assert state.live is not None
    made = rollout("r3", id=11, placement=state.live.id)
    watched.places["staging"] = place("r3", made=made, state=state)
    assert passes(watched, 4) == []
    assert [each.release for each in passes(watched, 2)] == [3]


def test_way_back_to_a_placement_earns_nothing_from_its_first_time() -> None:
    """Its soak had begun, it was left, and a rollback has brought it back."""
    watched = soaking(4.0)
    for _ in range(3):
        watched.step()
    before = watched.places["staging"]
    watched.places["staging"] = place(
        "r3", state=environment().live("r2").live("r3").state, made=rollout("r3")
    )
    watched.step()
    watched.places["staging"] = replace(before, made_live=rollout("r2", kind=RolloutKind.ROLLBACK))
    assert passes(watched, 20) == []


def test_way_back_that_nobody_looked_at_earns_nothing_either() -> None:
    """The placement is the same as before: the rollout that made it live last is not."""
    watched = soaking(4.0)
    for _ in range(3):
        watched.step()
    back = rollout("r2", kind=RolloutKind.ROLLBACK, id=12)
    watched.places["staging"] = replace(watched.places["staging"], made_live=back)
    assert passes(watched, 20) == []


def test_deploy_of_what_was_warm_soaks_from_the_beginning() -> None:
    """Also when nobody looked while something else was live."""
    watched = soaking(4.0)
    for _ in range(4):
        watched.step()
    watched.places["staging"] = replace(watched.places["staging"], made_live=rollout("r2", id=12))
    assert passes(watched, 4) == []
    assert [each.rollout for each in passes(watched, 1)] == [12]


def test_environment_where_nothing_is_live_has_no_soak() -> None:
    """It is forgotten with the release."""
    watched = soaking(9.0)
    watched.step()
    assert watched.state.soak("staging") is not None
    watched.places["staging"] = EMPTY
    watched.step()
    assert watched.state.soak("staging") is None


def test_soak_is_waited_for_in_seconds() -> None:
    """And it is said when they do not count."""
    watched = soaking(60.0)
    watched.state = pipelines(promotion("r2", "staging", rollout=9, waits=Waits.ROLLOUT))
    watched.sees(2, "r2", passed=("test",), rollout=rollout("r2"))
    watched.step()
    assert (watched.of(2).waits, watched.of(2).detail) == (Waits.SOAK, "soaks in staging, 60 s left")
    watched.places["staging"] = replace(watched.places["staging"], sound=False)
    watched.step()
    assert watched.of(2).detail.endswith("not all of its instances are ready, so that it does not count")


@pytest.mark.parametrize("how", ["emergency", "rollback"])
def test_release_that_will_never_pass_where_it_is_live_is_stopped(how: str) -> None:
    """Its promotion had found a rollout in progress there, which was no deploy through the gates."""
    watched = soaking(0.0, NOT_EARNED[how])
    watched.state = pipelines(promotion("r2", "staging", rollout=9, waits=Waits.ROLLOUT))
    watched.sees(2, "r2", passed=("test",), rollout=NOT_EARNED[how])
    watched.step()
    assert watched.of(2).ended is Ended.FAILED
    assert "past the gates or on a way back, which passes nothing" in watched.of(2).detail


def test_release_whose_pass_does_not_hold_is_stopped() -> None:
    """It was earned a while ago, and no seal proves it; one that is earned now is seen in the next step."""
    watched = soaking(0.0)
    watched.state = pipelines(promotion("r2", "staging", rollout=9, waits=Waits.ROLLOUT))
    watched.sees(2, "r2", passed=("test",), rollout=rollout("r2"))
    assert len(watched.step().passes) == 1
    assert watched.of(2).ended is None
    watched.step()
    assert watched.of(2).ended is Ended.FAILED
    assert watched.of(2).detail == "r2 is live in staging, but its pass there does not hold"


def test_release_without_a_soak_time_says_that_it_is_live() -> None:
    """Until its pass is there, one step later."""
    watched = soaking(0.0)
    watched.state = pipelines(promotion("r2", "staging", rollout=9, waits=Waits.ROLLOUT))
    watched.sees(2, "r2", passed=("test",), rollout=rollout("r2"))
    watched.step()
    assert watched.of(2).detail == "is live in staging"


# --- superseding ----------------------------------------------------------------------------------------


def queue(*waiting: Promotion, **gate: Any) -> Line:
    """Promotions before production, which is frozen unless told otherwise."""
    many = Line(pipelines(*waiting))
    for one in waiting:
        many.sees(one.id, f"r{one.release}", **({"frozen": "frozen", "passed": NAMES[:2]} | gate))
    return many


def test_newest_of_those_that_wait_at_a_gate_stays() -> None:
    """The older ones end, and say for whom."""
    many = queue(*(promotion(name, "production") for name in ("r2", "r3", "r4")))
    outcome = many.step()
    assert [many.of(each).ended for each in (2, 3, 4)] == [Ended.SUPERSEDED, Ended.SUPERSEDED, None]
    assert many.of(2).detail == "r4, asked for later, waits at the same gate"
    stopped = [event.release for _, event in outcome.events if event.reason is Reason.STOPPED]
    assert stopped == [2, 3]


def test_releases_at_different_gates_do_not_meet() -> None:
    """Each goes on by itself."""
    many = queue(promotion("r2", "production"), promotion("r3", "staging"))
    many.step()
    assert [many.of(each).ended for each in (2, 3)] == [None, None]


def test_release_whose_gate_is_open_is_not_superseded_by_one_that_waits() -> None:
    """It does not wait."""
    many = queue(promotion("r2", "production"), promotion("r3", "production"))
    many.sees(2, "r2", passed=NAMES[:2])
    assert enters(many.step()) == [(2, "production")]
    assert many.of(2).ended is None


@pytest.mark.parametrize(
    "newer",
    [
        promotion("r3", "production", ended=Ended.ARRIVED),
        promotion("r3", "production", rollout=12, waits=Waits.ROLLOUT),
    ],
)
@pytest.mark.parametrize("frozen", ["frozen", ""])
def test_release_does_not_follow_a_newer_one_that_has_passed_the_gate(newer: Promotion, frozen: str) -> None:
    """Or what was asked for first would replace what was asked for last."""
    late = queue(promotion("r2", "production"), newer, frozen=frozen)
    late.sees(3, "r3", passed=NAMES[:2], rollout=rollout("r3", Phase.HOLDING, id=12))
    assert late.step().begins == ()
    assert late.of(2).ended is Ended.SUPERSEDED
    assert late.of(2).detail == "r3, asked for later, has passed the same gate"


@pytest.mark.parametrize("how", [Ended.FAILED, Ended.WITHDRAWN, Ended.SUPERSEDED])
def test_newer_release_that_was_stopped_is_in_nobodys_way(how: Ended) -> None:
    """The older one is the newest that is left."""
    late = queue(
        promotion("r2", "production"), promotion("r3", "production", rollout=12, ended=how), frozen=""
    )
    assert enters(late.step()) == [(2, "production")]


def test_release_does_not_supersede_itself() -> None:
    """Asked for with another target, it is the same release."""
    near = promotion("r2", "staging", target="staging", id=3)
    both = queue(promotion("r2", "staging"), near, passed=("test",))
    both.step()
    assert [both.stands(each) for each in (2, 3)] == [("staging", Waits.FREEZE, None)] * 2


# --- what people ask -------------------------------------------------------------------------------------


def test_promotion_gets_a_number_and_stands_where_it_was_put() -> None:
    """Numbers go up and are never used again."""
    decided = pipeline.promote(pipelines(promotion("r2", ended=Ended.FAILED)), promotion("r5", id=0))
    assert (decided.promotion.id, decided.promotion.release, decided.no_op) == (3, 5, False)
    assert decided.state.next_id == 4
    assert decided.state.promotions == (decided.promotion,)


@pytest.mark.parametrize("ended", [None, Ended.ARRIVED])
def test_promotion_asked_for_again_by_key_is_the_same(ended: Ended | None) -> None:
    """Also when it has ended, and whatever the key says it wants now."""
    state = pipelines(promotion("r2", key="push-7", ended=ended))
    decided = pipeline.promote(state, promotion("r3", id=0, key="push-7"))
    assert (decided.promotion.id, decided.no_op, decided.state) == (2, True, state)


def test_promotion_of_the_same_release_to_the_same_target_is_the_same() -> None:
    """Two people press the button."""
    state = pipelines(promotion("r2", "staging", key="one"))
    decided = pipeline.promote(state, promotion("r2", id=0, key="two"))
    assert (decided.promotion.id, decided.no_op, decided.state) == (2, True, state)


def test_promotion_that_has_ended_can_be_asked_for_anew() -> None:
    """Without a key, and under another one."""
    state = pipelines(promotion("r2", key="one", ended=Ended.FAILED))
    for key in ("", "two"):
        decided = pipeline.promote(state, promotion("r2", id=0, key=key))
        assert (decided.promotion.id, decided.no_op) == (3, False)


def test_superseding_promotion_ends_the_older_ones() -> None:
    """Those in a rollout have to go home, those that wait have nothing to take back."""
    state = pipelines(
        promotion("r2", "production", waits=Waits.FREEZE),
        promotion("r3", "staging", rollout=8, waits=Waits.SOAK),
        promotion("r4", "test", rollout=9, waits=Waits.ROLLOUT),
        promotion("r5", "test", waits=Waits.ROLLOUT),
    )
    decided = pipeline.promote(state, promotion("r6", id=0, supersede=True, by="ada"))
    assert [p.release for p in decided.state.promotions] == [6]
    ended = {p.release: (p.ended, p.homeward) for p in decided.state.ended}
    superseded = Ended.SUPERSEDED
    assert ended == {
        2: (superseded, False),
        3: (superseded, False),
        4: (superseded, True),
        5: (superseded, True),
    }
    assert {p.detail for p in decided.state.ended} == {"superseded by r6, asked for by ada"}
    assert [event.reason for _, event in decided.events] == [Reason.STOPPED] * 4


def test_promotion_that_does_not_supersede_lets_the_others_go_on() -> None:
    """They meet at a gate, or not at all."""
    state = pipelines(promotion("r2", "production", waits=Waits.FREEZE))
    decided = pipeline.promote(state, promotion("r3", id=0))
    assert [p.release for p in decided.state.promotions] == [2, 3]
    assert decided.events == ()


@pytest.mark.parametrize("waits", [Waits.APPROVAL, Waits.FREEZE, Waits.BUSY, Waits.SOAK])
def test_promotion_that_waits_can_be_withdrawn(waits: Waits) -> None:
    """Before a gate, and in its soak."""
    decided = pipeline.withdraw(pipelines(promotion("r2", "staging", waits=waits)), "staging", 2, "bob")
    assert decided.state.promotions == ()
    assert (decided.promotion.ended, decided.promotion.detail) == (Ended.WITHDRAWN, "withdrawn by bob")
    assert [event.reason for _, event in decided.events] == [Reason.STOPPED]


@pytest.mark.parametrize("waits", [Waits.ROLLOUT, None])
def test_promotion_in_a_rollout_is_not_withdrawn(waits: Waits | None) -> None:
    """For that there is an abort, which says where everybody goes."""
    with pytest.raises(errors.RefusedError) as refused:
        pipeline.withdraw(pipelines(promotion("r2", "staging", waits=waits)), "staging", 2, "bob")
    assert refused.value.reason == model.Refusal.NOTHING_WAITS.value


def test_newest_that_waits_is_meant_when_nobody_says_which() -> None:
    """Of several between two looks."""
    state = pipelines(
        promotion("r2", "staging", waits=Waits.FREEZE), promotion("r3", "staging", waits=Waits.BUSY)
    )
    assert pipeline.waiting(state, "staging", None).release == 3
    assert pipeline.waiting(state, "staging", 2).release == 2


def test_promotion_stands_before_any_environment_of_its_path() -> None:
    """With nothing begun there."""
    there = pipeline.standing(
        promotion("r2", rollout=4, waits=Waits.SOAK, queued=True, detail="x"), "staging"
    )
    assert there == promotion("r2", "staging")


def test_soak_of_elsewhere_is_kept() -> None:
    """Each environment has its own."""
    watched = soaking(9.0)
    watched.places["production"] = place("r1", spec(soak_s=9.0))
    watched.step()
    watched.step()
    assert [(soak.environment, soak.soaked_s) for soak in watched.state.soaks] == [
        ("staging", 1.0),
        ("production", 1.0),
    ]
    assert isinstance(watched.state.soak("staging"), Soak)

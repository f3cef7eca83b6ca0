"""What people may ask: what is accepted changes only what it says, what is refused changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support.builders import (
    CANARY,
    Scene,
    environment,
    going,
    perfect,
    placed,
    request,
    spec,
)
from tidegate import errors
from tidegate.core import advance, requests
from tidegate.core.model import (
    FULL_EXPOSURE,
    EnvironmentState,
    Phase,
    Reason,
    Refusal,
    Rollout,
    RolloutKind,
    SecretVersion,
)
from tidegate.core.strategy import SWITCH

HALTED = environment().live("r1").incoming("r2").having(halted="a backup was restored").state
STEERING: tuple[Any, ...] = (requests.abort, requests.pause, requests.resume, requests.promote)


def in_phase(phase: Phase, **changes: Any) -> EnvironmentState:
    return environment().live("r1").incoming("r2", phase=phase, **changes).state


def refusal(asked: Any) -> errors.RefusedError:
    with pytest.raises(errors.RefusedError) as caught:
        asked()
    assert caught.value.hint, "a refusal says what to do"
    return caught.value


# --- start -----------------------------------------------------------------------------------------


def test_rollout_begins_queued_and_is_announced() -> None:
    """Accepted means committed: an id of its own, what was live before, one line in the history."""
    state = environment().live("r1").state
    decision = requests.start(state, request("r2", why="faster search"))
    rollout = going(decision.state)
    assert decision.rollout == rollout.id == state.next_id
    assert (rollout.phase, rollout.previous_release, rollout.placement) == (Phase.QUEUED, 1, None)
    assert decision.state == replace(state, next_id=state.next_id + 1, rollout=rollout)
    assert [(event.reason, event.detail) for event in decision.events] == [
        (Reason.REQUESTED, "faster search")
    ]


def test_release_that_is_live_is_a_no_op() -> None:
    """The world is as asked already; with another configuration it is not."""
    state = environment().live("r1").state
    assert requests.start(state, request("r1")) == requests.Decision(state=state, no_op=True)
    other = requests.start(state, request("r1", spec(config=(("LOG", "debug"),))))
    assert going(other.state).request.release == 1


def test_new_version_of_a_secret_is_another_configuration() -> None:
    """The live release with a newer secret is a rollout, and so is the one on its way."""
    old, new = ((SecretVersion(name="TOKEN", version=version),) for version in (1, 2))
    live = environment().live("r1", secrets=old).state
    assert requests.start(live, request("r1", secrets=old)).no_op
    assert going(requests.start(live, request("r1", secrets=new)).state).request.secrets == new
    moving = environment().live("r1").queued("r2", request=request("r2", secrets=old)).state
    assert requests.start(moving, request("r2", secrets=old)).no_op
    with pytest.raises(errors.RefusedError):
        requests.start(moving, request("r2", secrets=new))


def test_release_that_is_on_its_way_is_a_no_op() -> None:
    """Asked twice is asked once, also without a key."""
    state = in_phase(Phase.HOLDING)
    decision = requests.start(state, request("r2"))
    assert decision == requests.Decision(state=state, no_op=True, rollout=going(state).id)


def test_second_rollout_is_refused_with_the_name_of_the_first() -> None:
    """Who deploys into another's rollout learns whose it is and what can be done."""
    state = in_phase(Phase.HOLDING)
    refused = refusal(lambda: requests.start(state, request("r3")))
    assert refused.reason == Refusal.BUSY.value
    assert f"Rollout #{going(state).id} of r2 by ada is in progress in shop/production (holding)" in str(
        refused
    )
    assert "--supersede" in str(refused)


def test_rollout_of_nobody_in_particular_is_refused_politely() -> None:
    """A request without a name is somebody's."""
    state = in_phase(Phase.HOLDING)
    rollout = going(state)
    state = replace(state, rollout=replace(rollout, request=replace(rollout.request, by="")))
    assert "by somebody" in str(refusal(lambda: requests.start(state, request("r3"))))


@pytest.mark.parametrize("phase", [p for p in Phase if not p.ended and p is not Phase.ABORTING])
def test_newest_request_wins_when_it_may(phase: Phase) -> None:
    """The current rollout goes home first, from any phase; the new one waits and is not lost."""
    scene = environment().live("r1")
    state = (scene.queued("r2") if phase is Phase.QUEUED else scene.incoming("r2", phase=phase)).state
    decision = requests.start(state, request("r3"), supersede=True)
    rollout = going(decision.state)
    assert (rollout.phase, rollout.reason) == (Phase.ABORTING, Reason.SUPERSEDED)
    assert decision.state.pending == request("r3")
    assert decision.rollout is None
    assert decision.state.route.fence == state.route.fence + 1
    assert [event.detail for event in decision.events] == ["superseded by r3, asked for by ada"]


def test_chain_of_superseding_requests_keeps_only_the_newest() -> None:
    """Who is overtaken while waiting is named in the history."""
    state = in_phase(Phase.HOLDING)
    second = requests.start(state, request("r3"), supersede=True).state
    third = requests.start(second, request("r4", by=""), supersede=True)
    assert third.state == replace(second, pending=request("r4", by=""))
    assert [event.detail for event in third.events] == [
        "superseded by r4, asked for by somebody, as is r3, which waited"
    ]
    home = advance.advance(third.state, perfect(third.state), 1.0).state
    assert going(home).request.release == 4


def test_release_on_its_way_home_can_be_asked_for_again() -> None:
    """While it is aborted, the same release is a new request: refused, or next with `supersede`."""
    state = in_phase(Phase.ABORTING)
    assert refusal(lambda: requests.start(state, request("r2"))).reason == Refusal.BUSY.value
    again = requests.start(state, request("r2"), supersede=True)
    assert again.state == replace(state, pending=request("r2"))


@pytest.mark.parametrize("supersede", [False, True])
@pytest.mark.parametrize(
    "state",
    [
        environment().live("r1").incoming("r2", phase=Phase.HOLDING).state,
        environment().live("r1").incoming("r2", phase=Phase.ABORTING).pending("r4", key="other").state,
        environment().live("r2").state,
    ],
    ids=["in-progress", "aborting", "ended"],
)
def test_same_key_is_the_same_rollout(state: EnvironmentState, supersede: bool) -> None:
    """A webhook that is delivered again starts nothing, whatever became of the rollout."""
    keyed = request("r3", key="delivery-1")
    known = Rollout(id=77, request=keyed, phase=Phase.HOLDING)
    for again in (replace(state, rollout=known), replace(state, last=known)):
        decision = requests.start(again, replace(keyed, by="hook"), supersede=supersede)
        assert decision == requests.Decision(state=again, no_op=True, rollout=77)


def test_same_key_as_the_waiting_request_is_the_same_rollout() -> None:
    """A request that waits is accepted already, so that a repetition is neither refused nor told again."""
    state = (
        environment().live("r1").incoming("r2", phase=Phase.ABORTING).pending("r3", key="delivery-1").state
    )
    for supersede in (False, True):
        decision = requests.start(state, request("r3", key="delivery-1"), supersede=supersede)
        assert decision == requests.Decision(state=state, no_op=True)


def test_empty_key_is_no_key() -> None:
    """Two requests without a key are two requests."""
    state = environment().live("r1").last("r3").state
    assert going(requests.start(state, request("r3")).state).request.release == 3


@pytest.mark.parametrize(
    "asked",
    [lambda state: requests.start(state, request("r3"), supersede=True)]
    + [lambda state, steer=steer: steer(state, by="ada") for steer in STEERING],
    ids=["start", "abort", "pause", "resume", "promote"],
)
def test_observed_only_environment_takes_no_request(asked: Any) -> None:
    """What could not be done is not accepted: nothing would happen in the world."""
    refused = refusal(lambda: asked(HALTED))
    assert refused.reason == Refusal.HALTED.value
    assert "a backup was restored" in str(refused)


# --- abort -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [p for p in Phase if not p.ended and p is not Phase.ABORTING])
def test_every_phase_can_be_aborted(phase: Phase) -> None:
    """Going home needs no gate, and says who wanted it."""
    scene = environment().live("r1")
    state = (scene.queued("r2") if phase is Phase.QUEUED else scene.incoming("r2", phase=phase)).state
    decision = requests.abort(state, by="")
    rollout = going(decision.state)
    assert (rollout.phase, rollout.reason, rollout.detail) == (
        Phase.ABORTING,
        Reason.USER_ABORT,
        "by somebody",
    )
    assert decision.rollout == rollout.id


def test_aborting_twice_is_a_no_op() -> None:
    """The second click changes nothing, not even the fence."""
    once = requests.abort(in_phase(Phase.HOLDING), by="ada").state
    assert requests.abort(once, by="bob") == requests.Decision(state=once, no_op=True, rollout=going(once).id)


def test_abort_of_everything_withdraws_what_waits() -> None:
    """Who aborts without naming a rollout wants nothing to go out: not the next one either."""
    state = environment().live("r1").incoming("r2", phase=Phase.ABORTING).pending("r3").state
    decision = requests.abort(state, by="ada")
    assert decision.state == replace(state, pending=None)
    assert [(event.reason, event.detail) for event in decision.events] == [
        (Reason.USER_ABORT, "r3, which waited, was withdrawn by ada")
    ]
    assert requests.abort(state, by="").events[0].detail.endswith("by somebody")


def test_abort_of_one_rollout_leaves_what_waits() -> None:
    """Who names the rollout that is going home already means that one only."""
    state = environment().live("r1").incoming("r2", phase=Phase.ABORTING).pending("r3").state
    decision = requests.abort(state, by="ada", rollout=going(state).id)
    assert decision == requests.Decision(state=state, no_op=True, rollout=going(state).id)


# --- pause, resume ---------------------------------------------------------------------------------


def test_pause_and_resume_change_only_the_pause() -> None:
    """The counters stay, the history tells both."""
    state = in_phase(Phase.HOLDING, held_s=4.0)
    paused = requests.pause(state, by="ada")
    assert paused.state == replace(state, rollout=replace(going(state), paused=True))
    assert [(event.reason, event.detail) for event in paused.events] == [(Reason.PAUSED, "by ada")]
    resumed = requests.resume(paused.state, by="ada")
    assert resumed.state == state
    assert [event.reason for event in resumed.events] == [Reason.RESUMED]


def test_pausing_and_resuming_twice_are_no_ops() -> None:
    """Asked for what is already so."""
    running, paused = in_phase(Phase.HOLDING), in_phase(Phase.HOLDING, paused=True)
    assert requests.pause(paused, by="ada").no_op
    assert requests.pause(paused, by="ada").state == paused
    assert requests.resume(running, by="ada").no_op


@pytest.mark.parametrize("steer", [requests.pause, requests.resume, requests.promote])
def test_rollout_on_its_way_home_cannot_be_steered(steer: Any) -> None:
    """After an abort there is only the end."""
    state = in_phase(Phase.ABORTING, reason=Reason.STUCK)
    refused = refusal(lambda: steer(state, by="ada"))
    assert refused.reason == Refusal.ENDED.value
    assert "is being aborted (stuck)" in str(refused)


# --- promote ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [Phase.SHIFTING, Phase.HOLDING])
@pytest.mark.parametrize(("full", "stage", "share"), [(False, 1, 5000), (True, 2, FULL_EXPOSURE)])
def test_promotion_skips_to_the_next_stage_or_to_the_last(
    phase: Phase, full: bool, stage: int, share: int
) -> None:
    """One stage, or all of them; also while the current one is still on its way into the router."""
    state = in_phase(phase, paused=True)
    decision = requests.promote(state, by="ada", full=full)
    rollout = going(decision.state)
    assert (rollout.phase, rollout.stage, rollout.paused) == (Phase.SHIFTING, stage, False)
    assert (decision.state.route.exposure_bps, decision.state.route.fence) == (share, state.route.fence + 1)
    assert [(event.reason, event.detail) for event in decision.events] == [(Reason.PROMOTED, "by ada")]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(
    "state",
    [in_phase(Phase.FINISHING, phase_s=9.0), in_phase(Phase.SHIFTING, stage=2, phase_s=9.0)],
    ids=["finishing", "last-shift"],
)
def test_promotion_of_what_goes_to_everybody_already_is_a_no_op(state: EnvironmentState, full: bool) -> None:
    """Neither fence nor deadline starts anew, however often it is asked."""
    decision = requests.promote(state, by="ada", full=full)
    assert decision == requests.Decision(state=state, no_op=True, rollout=going(state).id)


def test_promotion_of_a_paused_last_step_ends_the_pause() -> None:
    """Who promotes wants it to go on."""
    state = in_phase(Phase.FINISHING, paused=True)
    decision = requests.promote(state, by="ada")
    assert decision.state == replace(state, rollout=replace(going(state), paused=False))
    assert [event.reason for event in decision.events] == [Reason.RESUMED]


@pytest.mark.parametrize("phase", [Phase.QUEUED, Phase.STARTING])
def test_promotion_before_anybody_is_exposed_is_refused(phase: Phase) -> None:
    """There is no stage to end, and instances that are not ready get no users."""
    scene = environment().live("r1")
    state = (scene.queued("r2") if phase is Phase.QUEUED else scene.incoming("r2", phase=phase)).state
    refused = refusal(lambda: requests.promote(state, by="ada", full=True))
    assert refused.reason == Refusal.STALE.value
    assert f"still {phase}" in str(refused)


# --- which rollout ---------------------------------------------------------------------------------


@pytest.mark.parametrize("steer", STEERING)
def test_nothing_can_be_steered_when_nothing_goes_on(steer: Any) -> None:
    """The refusal tells what the last rollout was, if there was one."""
    empty = refusal(lambda: steer(environment().state, by="ada"))
    assert (empty.reason, empty.message) == (
        Refusal.NO_ROLLOUT.value,
        "No rollout is in progress in shop/production.",
    )
    ended = refusal(lambda: steer(environment().live("r1").last("r1").state, by="ada"))
    assert ended.reason == Refusal.NO_ROLLOUT.value
    assert "the last, #2 of r1, succeeded" in ended.message


@pytest.mark.parametrize("steer", STEERING)
def test_button_of_a_rollout_that_has_ended_is_refused(steer: Any) -> None:
    """A stale button never acts on another rollout, and never claims that none is in progress."""
    over = environment().live("r1").last("r1")
    ended = over.state.last
    assert ended is not None
    refused = refusal(lambda: steer(over.state, by="ada", rollout=ended.id))
    assert refused.reason == Refusal.ENDED.value
    assert refusal(lambda: steer(over.state, by="ada", rollout=99)).reason == Refusal.NO_ROLLOUT.value
    busy: Scene = over.incoming("r2")
    for stale in (ended.id, 99):
        refused = refusal(lambda stale=stale: steer(busy.state, by="ada", rollout=stale))
        assert refused.reason == Refusal.ENDED.value
        assert f"#{going(busy.state).id} of r2 is (holding)" in refused.message


def test_button_of_the_current_rollout_acts() -> None:
    """Its id is accepted as well as none."""
    state = in_phase(Phase.HOLDING)
    assert going(requests.pause(state, by="ada", rollout=going(state).id).state).paused


# --- rollback --------------------------------------------------------------------------------------


def history(*entries: tuple[str, Phase]) -> tuple[Rollout, ...]:
    """Newest first."""
    return tuple(
        Rollout(id=len(entries) - position, request=request(release), phase=phase)
        for position, (release, phase) in enumerate(entries)
    )


WAS = history(
    ("r4", Phase.SUCCEEDED), ("r3", Phase.ABORTED), ("r2", Phase.SUCCEEDED), ("r1", Phase.SUCCEEDED)
)


@pytest.mark.parametrize(("to", "release"), [(None, 2), (1, 1), (2, 2), (4, 4)])
def test_rollback_goes_to_a_release_that_was_live(to: int | None, release: int) -> None:
    """The one asked for, else the newest that succeeded and is not live: never one that was aborted."""
    state = environment().live("r4").state
    assert requests.rollback_target(state, WAS, to).release == release


@pytest.mark.parametrize(
    ("to", "reason", "word"),
    [
        (3, Refusal.NOT_KEPT, "r3 was never live in shop/production"),
        (9, Refusal.NOT_KEPT, "r9 was never live"),
        (None, Refusal.NOTHING_TO_GO_BACK_TO, "No other release was ever live"),
    ],
)
def test_rollback_to_nowhere_is_refused(to: int | None, reason: Refusal, word: str) -> None:
    """An aborted or unknown release is no target, and neither is the live one."""
    state = environment().live("r4").state
    past = WAS if to is not None else history(("r4", Phase.SUCCEEDED), ("r3", Phase.ABORTED))
    refused = refusal(lambda: requests.rollback_target(state, past, to))
    assert refused.reason == reason.value
    assert word in refused.message


def test_rollback_from_nothing_goes_to_the_newest_success() -> None:
    """With no live release any that was live is another one."""
    assert requests.rollback_target(environment().state, WAS, None).release == 4


def test_strategy_of_a_request_can_be_chosen() -> None:
    """Only the strategy differs; going back is a switch unless asked otherwise."""
    asked = request("r1", kind=RolloutKind.ROLLBACK)
    assert requests.by_switch(asked) == replace(asked, strategy=SWITCH)
    assert requests.with_strategy(requests.by_switch(asked), CANARY) == asked


def test_steering_touches_no_placement() -> None:
    """Requests change rollout, route and pending; placements are the business of `advance`."""
    state = environment().live("r1").standby("r0").incoming("r2").state
    for steer in STEERING:
        assert steer(state, by="ada").state.placements == state.placements
    assert requests.start(state, request("r3"), supersede=True).state.placements == state.placements
    assert placed(state, "r2") in state.placements

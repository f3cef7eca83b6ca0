"""The way home: what makes a rollout unfit, and that going back waits for nothing but the router."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support.builders import (
    MANUAL,
    WEB,
    blind_router,
    blind_runtime,
    environment,
    going,
    perfect,
    placed,
    request,
    service,
    spec,
    stages,
    with_instances,
    with_routes,
    without_groups,
    worker,
)
from tidegate.core import advance
from tidegate.core.home import STUCK_LIMIT_S
from tidegate.core.model import EnvironmentState, InstanceState, Observation, Phase, Reason, Role

AT_WORK = (Phase.STARTING, Phase.SHIFTING, Phase.HOLDING, Phase.FINISHING)
EXPOSED = (Phase.SHIFTING, Phase.HOLDING, Phase.FINISHING)


def tick(state: EnvironmentState, seen: Observation | None = None, dt_s: float = 1.0) -> EnvironmentState:
    return advance.advance(state, seen or perfect(state), dt_s).state


def in_phase(phase: Phase, *services: Any, **changes: Any) -> EnvironmentState:
    return environment().live("r1").incoming("r2", spec(*services), phase=phase, **changes).state


def incoming_is(state: EnvironmentState, name: str = "web", /, **changes: Any) -> Observation:
    return with_instances(perfect(state), placed(state, "r2"), name, **changes)


# --- crash loops -----------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", AT_WORK)
@pytest.mark.parametrize("paused", [False, True])
def test_crash_loop_of_the_incoming_release_aborts(phase: Phase, paused: bool) -> None:
    """Three crashes of one instance send everybody home, in each phase, also during a pause."""
    state = in_phase(phase, paused=paused)
    seen = incoming_is(state, crashes=advance.CRASH_LIMIT, exit="exit status 1")
    outcome = advance.advance(state, seen, 1.0)
    rollout = going(outcome.state)
    assert (rollout.phase, rollout.reason, rollout.paused) == (Phase.ABORTING, Reason.CRASH_LOOP, False)
    assert rollout.detail == "instance 0 of web crashed 3 times (exit status 1)"
    assert [(event.reason, event.exposure_bps) for event in outcome.events] == [(Reason.CRASH_LOOP, 0)]


def test_crash_loop_without_an_exit_is_told_without_it() -> None:
    """What is not known is left out of the sentence."""
    state = in_phase(Phase.HOLDING)
    assert going(tick(state, incoming_is(state, crashes=3))).detail == "instance 0 of web crashed 3 times"


def test_few_crashes_are_no_loop() -> None:
    """Two crashes, or three spread over two instances, are forgiven."""
    state = in_phase(Phase.HOLDING, service("web", instances=2))
    assert going(tick(state, incoming_is(state, crashes=2))).phase is Phase.HOLDING


def test_crashes_of_before_are_not_held_against_a_release_taken_over() -> None:
    """Only crashes above the baseline count."""
    state = in_phase(Phase.HOLDING)
    state = state.with_placement(replace(placed(state, "r2"), crash_baseline=40))
    assert going(tick(state, incoming_is(state, crashes=42))).phase is Phase.HOLDING
    assert going(tick(state, incoming_is(state, crashes=43))).phase is Phase.ABORTING


def test_baseline_follows_a_counter_that_begins_anew() -> None:
    """After a boot of the host crashes are counted from zero, and so must be their baseline."""
    state = in_phase(Phase.HOLDING)
    state = state.with_placement(replace(placed(state, "r2"), crash_baseline=40))
    unseen = tick(state, blind_runtime(perfect(state)))
    assert placed(unseen, "r2").crash_baseline == 40
    booted = tick(state, incoming_is(state, crashes=0))
    assert placed(booted, "r2").crash_baseline == 0
    assert going(tick(booted, incoming_is(booted, crashes=3))).phase is Phase.ABORTING


def test_crashes_of_the_stable_release_abort_nothing() -> None:
    """A broken stable must not block its fix."""
    state = in_phase(Phase.HOLDING)
    seen = with_instances(perfect(state), placed(state, "r1"), "web", crashes=99, recent_crashes=99)
    assert going(tick(state, seen)).phase is Phase.HOLDING


# --- readiness -------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", EXPOSED)
@pytest.mark.parametrize("paused", [False, True])
def test_service_without_a_ready_instance_aborts_after_seconds(phase: Phase, paused: bool) -> None:
    """Exposed users get no answer: three seconds of that are enough, a pause changes nothing."""
    state = in_phase(phase, paused=paused, unready_s=advance.UNREADY_LIMIT_S - 1.5)
    state = replace(
        state,
        route=replace(state.route, fence=state.route.fence + 1) if phase is Phase.SHIFTING else state.route,
    )
    seen = with_routes(incoming_is(state, ready=False), boot=None)
    almost = tick(state, seen)
    assert going(almost).phase is phase
    rollout = going(tick(almost, seen))
    assert (rollout.phase, rollout.reason) == (Phase.ABORTING, Reason.ALL_UNREADY)
    assert rollout.detail == "no instance of web has been ready for 4 s"


@pytest.mark.parametrize(
    "gone",
    [
        lambda state: without_groups(perfect(state), placed(state, "r2")),
        lambda state: incoming_is(state, state=InstanceState.BACKOFF, ready=None),
        lambda state: incoming_is(state, state=InstanceState.EXITED, ready=None),
    ],
    ids=["no-group", "between-crashes", "ended"],
)
def test_service_without_a_process_is_unready(gone: Any) -> None:
    """Who does not run cannot be asked, and does not count as ready for that."""
    state = in_phase(Phase.HOLDING)
    assert going(tick(state, gone(state))).unready_s == 1.0


def test_unready_seconds_count_only_in_a_row() -> None:
    """One good look starts the count anew, an instance not asked yet counts as good."""
    state = in_phase(Phase.HOLDING, unready_s=2.0)
    assert going(tick(state)).unready_s == 0.0
    assert going(tick(state, incoming_is(state, ready=None))).unready_s == 0.0


def test_unseen_seconds_are_neither_ready_nor_unready() -> None:
    """A blind look leaves the count where it is."""
    state = in_phase(Phase.HOLDING, unready_s=2.0)
    assert going(tick(state, blind_runtime(perfect(state)))).unready_s == 2.0


def test_one_ready_instance_is_enough_to_stay() -> None:
    """Half of the instances down is a matter for the hold time, not for an abort."""
    state = in_phase(Phase.HOLDING, service("web", instances=2), unready_s=2.0)
    assert going(tick(state, incoming_is(state, index=0, ready=False))).unready_s == 0.0


def test_outage_of_both_releases_is_nobodys_verdict() -> None:
    """When stable fails at the same time, the machine is to blame: no abort, no fast forward."""
    state = in_phase(Phase.HOLDING, unready_s=2.9, stable_down_s=2.9)
    seen = with_instances(incoming_is(state, ready=False), placed(state, "r1"), "web", ready=False)
    rollout = going(tick(state, seen))
    assert (rollout.phase, rollout.unready_s, rollout.stable_down_s) == (Phase.HOLDING, 0.0, 0.0)


def test_unready_workers_do_not_abort() -> None:
    """What takes no requests leaves no user without an answer."""
    state = in_phase(Phase.FINISHING, WEB, worker(), unready_s=2.9)
    assert going(tick(state, incoming_is(state, "mailer", ready=False))).phase is Phase.FINISHING


# --- deadlines -------------------------------------------------------------------------------------

START_LIMIT_S = WEB.ready_timeout_s


def test_start_has_a_deadline_and_tells_what_was_waited_for() -> None:
    """The message names the service, how many are ready, and how its instances ended last."""
    state = in_phase(Phase.STARTING, service("web", instances=2), worker(), phase_s=START_LIMIT_S - 0.5)
    seen = incoming_is(state, index=1, ready=False, exit="exit status 2")
    rollout = going(tick(state, seen))
    assert (rollout.phase, rollout.reason) == (Phase.ABORTING, Reason.NEVER_READY)
    assert rollout.detail == ("not ready after 60 s: web 1 of 2 ready, last ended with exit status 2")


def test_message_of_a_late_start_names_the_eyes_that_were_shut() -> None:
    """If the runtime or the router could not be asked, that is said instead of a guess."""
    state = in_phase(Phase.STARTING, phase_s=START_LIMIT_S)
    blind = going(tick(state, blind_runtime(perfect(state))))
    assert blind.detail.endswith("the runtime could not be asked")
    unseen = going(tick(state, blind_router(perfect(state))))
    assert unseen.detail.endswith("the router has not seen the instances up")
    absent = going(tick(state, without_groups(perfect(state), placed(state, "r2"))))
    assert absent.detail.endswith("web 0 of 1 ready")


def test_shift_has_a_deadline() -> None:
    """A router that does not show the exposure within a minute ends the rollout."""
    state = in_phase(Phase.SHIFTING, phase_s=STUCK_LIMIT_S)
    rollout = going(tick(state, blind_router(perfect(state))))
    assert (rollout.phase, rollout.reason) == (Phase.ABORTING, Reason.STUCK)
    assert rollout.detail == "the router does not show 5 % after 60 s"


def test_finish_has_a_deadline() -> None:
    """Workers that never get ready send everybody home."""
    state = in_phase(Phase.FINISHING, WEB, worker(), phase_s=STUCK_LIMIT_S + 2 * START_LIMIT_S)
    rollout = going(tick(state, without_groups(perfect(state), placed(state, "r2"), "mailer")))
    assert (rollout.phase, rollout.reason) == (Phase.ABORTING, Reason.NEVER_READY)
    assert rollout.detail == "not finished after 180 s: mailer 0 of 1 ready"


def test_hold_that_cannot_be_observed_ends() -> None:
    """No data is no verdict; after two minutes of none it is an abort."""
    limit_s = STUCK_LIMIT_S + START_LIMIT_S
    state = in_phase(Phase.HOLDING, phase_s=limit_s)
    rollout = going(tick(state, blind_router(perfect(state))))
    assert (rollout.phase, rollout.reason) == (Phase.ABORTING, Reason.STUCK)
    assert rollout.detail == "121 s of this stage could not be observed healthy"


def test_long_hold_survives_short_gaps() -> None:
    """A day of holding is not ended by looks that failed now and then: gaps are weighed against the rest."""
    state = in_phase(Phase.HOLDING, held_s=80_000.0, phase_s=81_000.0)
    long = replace(going(state).request, strategy=stages(500, hold_s=86_400.0))
    state = replace(state, rollout=replace(going(state), request=long))
    assert going(tick(state, blind_router(perfect(state)))).phase is Phase.HOLDING
    worse = replace(state, rollout=replace(going(state), phase_s=89_000.0))
    assert going(tick(worse, blind_router(perfect(state)))).phase is Phase.ABORTING


def test_manual_stage_has_no_deadline() -> None:
    """Who waits for a person waits as long as it takes."""
    state = environment().live("r1").incoming("r2", spec(strategy=MANUAL), phase_s=1e6).state
    assert going(tick(state, blind_router(perfect(state)))).phase is Phase.HOLDING


@pytest.mark.parametrize("phase", AT_WORK)
def test_paused_time_does_not_count(phase: Phase) -> None:
    """Neither deadline nor hold time runs in a pause, and no step is taken."""
    state = in_phase(phase, paused=True, phase_s=1e6, held_s=1e6)
    after = tick(state, blind_router(perfect(state)))
    assert going(after) == going(state)
    assert going(tick(state)).phase is phase


# --- home ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", AT_WORK)
def test_abort_moves_the_route_home_behind_a_new_fence(phase: Phase) -> None:
    """Also when the route looks right: the fence keeps late commands out."""
    state = in_phase(phase)
    outcome = advance.abort(state, going(state), Reason.STUCK, "why")
    route = outcome.state.route
    assert (route.stable, route.canary, route.exposure_bps, route.preview) == (0, None, 0, "")
    assert route.fence == state.route.fence + 1
    assert [(event.reason, event.detail, event.exposure_bps) for event in outcome.events] == [
        (Reason.STUCK, "why", 0)
    ]


@pytest.mark.parametrize(
    "unseen",
    [blind_router, lambda seen: with_routes(seen, route=None), lambda seen: with_routes(seen, boot=None)],
    ids=["router-unseen", "not-running", "not-in-boot-files"],
)
def test_rollout_is_home_when_the_fence_was_seen(unseen: Any) -> None:
    """The rollout ends when router and boot files show the way home; only then may anything stop."""
    state = in_phase(Phase.ABORTING, reason=Reason.STUCK, detail="why")
    waiting = tick(state, unseen(perfect(state)))
    assert going(waiting).phase is Phase.ABORTING
    assert placed(waiting, "r2").role is Role.INCOMING
    outcome = advance.advance(state, blind_runtime(perfect(state)), 1.0)
    assert outcome.state.rollout is None
    assert outcome.state.last is not None
    assert (outcome.state.last.phase, outcome.state.last.reason) == (Phase.ABORTED, Reason.STUCK)
    assert placed(outcome.state, "r2").role is Role.RETIRING
    assert [(event.phase, event.detail) for event in outcome.events] == [(Phase.ABORTED, "why")]


def test_paused_rollout_goes_home_too() -> None:
    """A pause never stands in the way of an abort."""
    state = in_phase(Phase.ABORTING, paused=True)
    assert tick(state).rollout is None


def test_abort_of_a_first_release_routes_nobody() -> None:
    """There is no release to go back to: the route leads nowhere, and the placement is retired."""
    state = environment().incoming("r1").state
    home = advance.abort(state, going(state), Reason.USER_ABORT, "by ada").state
    assert (home.route.stable, home.route.canary) == (None, None)
    gone = tick(tick(tick(home)))
    assert (gone.rollout, gone.placements) == (None, ())


def test_abort_while_queued_leaves_no_placement() -> None:
    """Nothing was there yet, so nothing has to go."""
    state = environment().live("r1").queued("r2").state
    home = tick(advance.abort(state, going(state), Reason.USER_ABORT, "by ada").state)
    assert home.rollout is None
    assert [placement.id for placement in home.placements] == [placed(state, "r1").id]


@pytest.mark.parametrize(
    ("reason", "role"),
    [
        (Reason.USER_ABORT, Role.STANDBY),
        (Reason.SUPERSEDED, Role.STANDBY),
        (Reason.CRASH_LOOP, Role.RETIRING),
        (Reason.ALL_UNREADY, Role.RETIRING),
    ],
)
def test_release_taken_over_stays_warm_unless_it_failed(reason: Reason, role: Role) -> None:
    """Who changed their mind can flip again; what failed is stopped."""
    state = in_phase(Phase.ABORTING, reason=reason, created_placement=False)
    home = placed(tick(state), "r2")
    assert home.role is role


def test_waiting_request_begins_when_the_other_is_home() -> None:
    """The newest request starts in the very tick in which the old rollout has ended."""
    state = environment().live("r1").incoming("r2", phase=Phase.ABORTING).pending("r3", why="a fix").state
    waiting = tick(state, blind_router(perfect(state)))
    assert waiting.pending is not None
    outcome = advance.advance(state, perfect(state), 1.0)
    rollout = going(outcome.state)
    assert (rollout.request.release, rollout.phase, rollout.previous_release) == (3, Phase.QUEUED, 1)
    assert outcome.state.pending is None
    assert (outcome.events[-1].release, outcome.events[-1].detail) == (3, "a fix")


def test_rollout_without_a_reason_given_is_announced_by_its_kind() -> None:
    """The history never has an empty line."""
    state = environment().live("r1").incoming("r2", phase=Phase.ABORTING).pending("r3").state
    assert advance.advance(state, perfect(state), 1.0).events[-1].detail == "deploy"


def test_waiting_request_for_what_is_live_again_asks_for_nothing() -> None:
    """A release that comes back by the abort of its successor need not be rolled out once more."""
    state = environment().live("r1").state
    live = placed(state, "r1")
    wanted = replace(request("r1"), spec=live.spec, release=live.release)
    after = advance.advance(replace(state, pending=wanted), perfect(state), 1.0).state
    assert (after.pending, after.rollout) == (None, None)

"""The way forward, phase by phase: what each step waits for, and what it commits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support.builders import (
    COMMAND,
    MANUAL,
    WEB,
    WEB_WITH_API,
    Scene,
    blind_router,
    blind_runtime,
    environment,
    going,
    perfect,
    placed,
    request,
    service,
    spec,
    with_instances,
    with_routes,
    with_servers,
    without_groups,
    worker,
)
from tidegate.core import advance
from tidegate.core.home import STUCK_LIMIT_S
from tidegate.core.model import (
    FULL_EXPOSURE,
    SLOTS,
    EnvironmentState,
    InstanceState,
    Link,
    Observation,
    Phase,
    Reason,
    Role,
    RolloutKind,
    SecretVersion,
)
from tidegate.core.policy import AnalysisPolicy
from tidegate.core.strategy import SWITCH


def tick(state: EnvironmentState, seen: Observation | None = None, dt_s: float = 1.0) -> EnvironmentState:
    return advance.advance(state, seen or perfect(state), dt_s).state


def run(state: EnvironmentState, ticks: int) -> EnvironmentState:
    """So many seconds in a world in which everything comes through."""
    for _ in range(ticks):
        state = tick(state)
    return state


def role(state: EnvironmentState, release: str) -> Role:
    return placed(state, release).role


# --- the whole way ---------------------------------------------------------------------------------


def test_first_release_becomes_live_and_answers_alone() -> None:
    """Nobody is there to compare with: it starts, is switched on, and is live."""
    state = run(environment().queued("r1", spec(WEB, strategy=SWITCH)).state, 6)
    assert role(state, "r1") is Role.LIVE
    assert (state.route.stable, state.route.canary, state.route.exposure_bps) == (0, None, 0)
    assert state.rollout is None
    assert state.last is not None
    assert (state.last.phase, state.last.previous_release) == (Phase.SUCCEEDED, None)


def test_canary_goes_through_every_stage_in_order() -> None:
    """Exposure grows stage by stage, and the old release is warm when the new one is live."""
    state = environment().live("r1").queued("r2").state
    exposures = [0]
    for _ in range(60):
        state = tick(state)
        if state.route.exposure_bps != exposures[-1]:
            exposures.append(state.route.exposure_bps)
    assert exposures == [0, 500, 5000, FULL_EXPOSURE, 0]
    assert (role(state, "r1"), role(state, "r2")) == (Role.STANDBY, Role.LIVE)
    assert state.route.stable == placed(state, "r2").slot


def test_history_of_a_rollout_tells_each_decision_once() -> None:
    """Each step is one event with its reason, phase and share."""
    state = environment().live("r1").queued("r2", spec(strategy=SWITCH)).state
    told = []
    for _ in range(6):
        outcome = advance.advance(state, perfect(state), 1.0)
        state = outcome.state
        told += [(event.reason, event.phase, event.exposure_bps, event.detail) for event in outcome.events]
    assert told == [
        (Reason.READY, Phase.SHIFTING, FULL_EXPOSURE, "all instances are ready"),
        (Reason.COMPLETE, Phase.SUCCEEDED, FULL_EXPOSURE, "r2 is live"),
    ]


def test_app_of_workers_only_is_replaced_without_traffic() -> None:
    """Nothing takes requests, so nothing is waited for until the workers start at the end."""
    workers = spec(worker(), strategy=SWITCH)
    state = environment().live("r1", workers).queued("r2", workers).state
    state = run(state, 6)
    assert (role(state, "r1"), role(state, "r2")) == (Role.STANDBY, Role.LIVE)


# --- queued ----------------------------------------------------------------------------------------


def test_queued_rollout_takes_the_lowest_free_slot() -> None:
    """The placement is committed under an id of its own before anything of it exists."""
    state = environment().live("r1").queued("r2").state
    after = tick(state)
    placement = placed(after, "r2")
    assert (placement.id, placement.slot, placement.role) == (state.next_id, 1, Role.INCOMING)
    assert (placement.endpoints, placement.cleared) == ((), ())
    assert after.next_id == state.next_id + 1
    assert (going(after).phase, going(after).placement) == (Phase.STARTING, placement.id)
    assert going(after).created_placement


def test_placement_keeps_the_links_of_its_slot() -> None:
    """Of all reserved ports only those of the slot that was taken belong to it."""
    links = tuple(Link(service="api", slot=slot, port=7000 + slot) for slot in range(SLOTS))
    state = environment().live("r1").queued("r2").state
    rollout = going(state)
    state = replace(state, rollout=replace(rollout, request=replace(rollout.request, links=links)))
    assert placed(tick(state), "r2").links == (links[1],)


def test_warm_placement_is_taken_over_instead_of_started() -> None:
    """Going back is a flip: the same instances, their old crashes forgiven, their idle time over."""
    state = environment().live("r2").standby("r1", idle_s=50.0).queued("r1").state
    seen = with_instances(perfect(state), placed(state, "r1"), "web", crashes=4)
    after = tick(state, seen)
    taken = placed(after, "r1")
    assert taken.id == placed(state, "r1").id
    assert (taken.role, taken.idle_s, taken.crash_baseline) == (Role.INCOMING, 0.0, 4)
    assert going(after).placement == taken.id
    assert not going(after).created_placement


def test_placement_is_given_the_secrets_and_the_admission_of_its_request() -> None:
    """What an instance starts with was pinned when the rollout was asked for."""
    secrets = (SecretVersion(name="TOKEN", version=3),)
    asked = request("r2", secrets=secrets, admission="sealed")
    state = environment().live("r1").queued("r2", request=asked).state
    placement = placed(tick(state), "r2")
    assert (placement.secrets, placement.admission) == (secrets, "sealed")


def test_warm_placement_is_taken_over_under_the_new_admission() -> None:
    """What let it in once says nothing of today; its instances that start again need the new one."""
    asked = request("r1", admission="new")
    state = environment().live("r2").standby("r1", admission="old").queued("r1", request=asked).state
    assert placed(tick(state), "r1").admission == "new"


@pytest.mark.parametrize(
    ("release", "changes"),
    [
        ("r1", {"digest": "sha256:other"}),
        ("r1", {"spec": spec(config=(("LOG", "debug"),))}),
        ("r1", {"secrets": (SecretVersion(name="TOKEN", version=2),)}),
        ("r3", {}),
    ],
    ids=["other-artifact", "other-configuration", "other-secrets", "other-release"],
)
def test_only_the_same_artifact_and_configuration_is_warm(release: str, changes: dict[str, Any]) -> None:
    """A standby that differs from what was asked for is not taken over."""
    state = environment().live("r2").standby("r1", **changes).queued(release).state
    after = tick(state)
    assert going(after).created_placement
    assert role(after, "r1") in (Role.STANDBY, Role.INCOMING)
    assert len(after.placements) == 3


def test_warm_placement_is_not_taken_over_unseen() -> None:
    """Its crashes up to now must be counted first, or they would be held against it."""
    state = environment().live("r2").standby("r1").queued("r1").state
    after = tick(state, blind_runtime(perfect(state)))
    assert going(after).phase is Phase.QUEUED
    crashed = with_instances(perfect(state), placed(state, "r1"), "web", crashes=9)
    taken = tick(after, crashed)
    assert going(tick(taken, crashed)).phase is Phase.SHIFTING


def test_standby_does_not_cool_while_a_rollout_is_queued() -> None:
    """What a queued rollout is about to take over is not taken away from it."""
    state = environment().live("r2").standby("r1", idle_s=9999.0).queued("r1", paused=True).state
    assert role(tick(state), "r1") is Role.STANDBY


def test_longest_idle_standby_makes_room() -> None:
    """Without a free slot the release that has served least lately is retired, whatever its id."""
    scene = environment().live("r4").standby("r3", idle_s=5.0).standby("r1", idle_s=400.0)
    state = scene.standby("r2", idle_s=90.0).queued("r5").state
    outcome = advance.advance(state, perfect(state), 1.0)
    roles = {release: role(outcome.state, release) for release in ("r1", "r2", "r3")}
    assert roles == {"r1": Role.RETIRING, "r2": Role.STANDBY, "r3": Role.STANDBY}
    assert [(event.reason, event.release) for event in outcome.events] == [(Reason.EVICTED, 1)]
    assert going(outcome.state).phase is Phase.QUEUED


def test_nobody_else_is_evicted_while_one_is_on_its_way_out() -> None:
    """One free slot is enough: others stay warm."""
    scene = environment().live("r4").standby("r3").standby("r2").retiring("r1").queued("r5")
    busy = with_servers(perfect(scene.state), 3, sessions=1)
    after = tick(scene.state, busy)
    assert (role(after, "r2"), role(after, "r3"), role(after, "r1")) == (
        Role.STANDBY,
        Role.STANDBY,
        Role.RETIRING,
    )
    assert going(after).phase is Phase.QUEUED


def full(**changes: Any) -> Scene:
    """All slots are taken by placements on their way out, which cannot end."""
    scene = environment().live("r4")
    for release in ("r1", "r2", "r3"):
        scene = scene.retiring(release)
    return scene.queued("r5", **changes)


def test_slots_that_never_get_free_end_the_wait() -> None:
    """A queue has a deadline too: drain and grace of what is in the way, and then some."""
    limit_s = STUCK_LIMIT_S + WEB.drain_s + WEB.grace_s
    state = full(phase_s=limit_s).state
    stuck = blind_runtime(perfect(state))
    waiting = advance.advance(state, stuck, 0.0)
    assert going(waiting.state).phase is Phase.QUEUED
    outcome = advance.advance(state, stuck, 1.0)
    assert (going(outcome.state).phase, going(outcome.state).reason) == (Phase.ABORTING, Reason.STUCK)
    assert "r1, r2, r3" in going(outcome.state).detail


# --- starting --------------------------------------------------------------------------------------


def starting(*services: Any) -> EnvironmentState:
    return environment().live("r1").incoming("r2", spec(*services), phase=Phase.STARTING).state


def test_nobody_is_exposed_before_all_instances_are_ready() -> None:
    """One of two is not enough."""
    state = starting(service("web", instances=2))
    seen = with_instances(perfect(state), placed(state, "r2"), "web", index=1, ready=False)
    assert going(tick(state, seen)).phase is Phase.STARTING
    assert tick(state, seen).route == state.route


def test_nobody_is_exposed_before_the_router_sees_the_instances_up() -> None:
    """The router's own checks have the last word, for every service that takes requests."""
    state = starting(*WEB_WITH_API)
    seen = with_servers(perfect(state), placed(state, "r2").slot, "api", up=False)
    assert going(tick(state, seen)).phase is Phase.STARTING


@pytest.mark.parametrize("blind", [blind_router, blind_runtime])
def test_nobody_is_exposed_unseen(blind: Any) -> None:
    """What could not be looked at is not ready."""
    state = starting(WEB)
    assert going(tick(state, blind(perfect(state)))).phase is Phase.STARTING


def test_ready_release_is_committed_to_the_first_stage() -> None:
    """Share, slot, salt and preview of the rollout are in one route, behind a new fence."""
    state = starting(WEB)
    after = tick(state)
    assert (going(after).phase, going(after).stage) == (Phase.SHIFTING, 0)
    route = after.route
    assert (route.stable, route.canary, route.exposure_bps) == (0, 1, 500)
    assert (route.salt, route.preview) == ("salt-r2", "preview-r2")
    assert route.fence == state.route.fence + 1


def test_worker_is_not_waited_for_before_the_end() -> None:
    """What takes no requests starts when everybody is exposed, so it cannot hold up the start."""
    state = starting(WEB, worker())
    assert going(tick(state)).phase is Phase.SHIFTING


# --- shifting --------------------------------------------------------------------------------------


def test_exposure_counts_when_it_was_seen_in_force() -> None:
    """Committed is not exposed: router and boot files must show it."""
    state = environment().live("r1").incoming("r2", phase=Phase.SHIFTING).state
    behind = replace(state.route, fence=state.route.fence - 1)
    waiting = tick(state, with_routes(perfect(state), route=behind))
    assert (going(waiting).phase, going(waiting).exposure_reached_bps) == (Phase.SHIFTING, 0)
    assert going(tick(state, blind_router(perfect(state)))).phase is Phase.SHIFTING
    after = tick(state)
    assert (going(after).phase, going(after).exposure_reached_bps) == (Phase.HOLDING, 500)


def test_full_exposure_leads_to_the_finish() -> None:
    """There is nothing to hold when everybody is exposed."""
    state = environment().live("r1").incoming("r2", phase=Phase.SHIFTING, stage=2).state
    assert going(tick(state)).phase is Phase.FINISHING


# --- holding ---------------------------------------------------------------------------------------


def test_stage_ends_when_its_time_was_held() -> None:
    """The next exposure is committed after exactly the hold time, not a tick before."""
    state = environment().live("r1").incoming("r2").state
    almost = run(state, 9)
    assert (going(almost).phase, going(almost).held_s) == (Phase.HOLDING, 9.0)
    outcome = advance.advance(almost, perfect(almost), 1.0)
    assert (going(outcome.state).phase, going(outcome.state).stage) == (Phase.SHIFTING, 1)
    assert outcome.state.route.exposure_bps == 5000
    assert [(e.reason, e.detail, e.exposure_bps) for e in outcome.events] == [
        (Reason.HELD, "held for 10 s. The canary has had no request yet.", 5000)
    ]


def test_stage_of_a_rollout_that_is_not_compared_ends_by_its_time_alone() -> None:
    """Going back by steps is not judged against what is being left: the reason speaks of the time only."""
    back = request("r2", kind=RolloutKind.ROLLBACK)
    state = environment().live("r1").incoming("r2", request=back).state
    outcome = advance.advance(run(state, 9), perfect(state), 1.0)
    assert (going(outcome.state).phase, going(outcome.state).stage) == (Phase.SHIFTING, 1)
    assert [(e.reason, e.detail) for e in outcome.events] == [(Reason.HELD, "held for 10 s")]


def test_switched_off_analysis_is_said_when_a_stage_ends() -> None:
    """Whoever has turned the analysis off is reminded that nothing but the time has spoken."""
    state = environment().live("r1").incoming("r2", spec(analysis=AnalysisPolicy(enabled=False))).state
    outcome = advance.advance(run(state, 9), perfect(state), 1.0)
    assert [e.detail for e in outcome.events] == ["held for 10 s. The analysis is switched off."]


@pytest.mark.parametrize(
    "worse",
    [
        lambda state, seen: blind_router(seen),
        lambda state, seen: blind_runtime(seen),
        lambda state, seen: with_routes(seen, boot=None),
        lambda state, seen: with_instances(seen, placed(state, "r2"), "web", ready=False),
        lambda state, seen: with_servers(seen, placed(state, "r2").slot, up=False),
    ],
    ids=["router-unseen", "runtime-unseen", "not-in-force", "unready", "down-in-router"],
)
def test_only_healthy_seen_seconds_are_held(worse: Any) -> None:
    """Time in which the exposure or the health was not seen does not count."""
    state = environment().live("r1").incoming("r2", held_s=9.5).state
    after = going(tick(state, worse(state, perfect(state))))
    assert (after.phase, after.held_s, after.phase_s) == (Phase.HOLDING, 9.5, 1.0)


def test_stage_without_a_time_waits_for_a_person() -> None:
    """Hours do not end a stage that asks for `promote`."""
    state = environment().live("r1").incoming("r2", spec(strategy=MANUAL)).state
    after = run(state, 1000)
    assert (going(after).phase, going(after).held_s) == (Phase.HOLDING, 1000.0)


def test_stable_release_is_not_asked_before_the_next_stage() -> None:
    """A broken stable must not keep its fix out."""
    state = environment().live("r1").incoming("r2", held_s=9.0).state
    seen = with_instances(perfect(state), placed(state, "r1"), "web", ready=False)
    assert going(tick(state, seen)).stage == 1


# --- fast forward ----------------------------------------------------------------------------------


def stable_down(state: EnvironmentState, /, **changes: Any) -> Observation:
    down: dict[str, Any] = {"ready": False, "state": InstanceState.BACKOFF, "recent_crashes": 1} | changes
    return with_instances(perfect(state), placed(state, "r1"), "web", **down)


def test_dead_stable_lets_the_fix_out_to_everybody() -> None:
    """After a few seconds without any answer from stable, waiting would only hurt its users."""
    state = environment().live("r1").incoming("r2", spec(strategy=MANUAL)).state
    for _ in range(2):
        state = tick(state, stable_down(state))
    assert going(state).phase is Phase.HOLDING
    outcome = advance.advance(state, stable_down(state), 1.0)
    assert outcome.state.route.exposure_bps == FULL_EXPOSURE
    (event,) = outcome.events
    assert event.reason is Reason.FAST_FORWARD
    assert event.detail == "no instance of web at r1 is ready, r2 is"


def test_stable_that_answers_again_stops_the_clock() -> None:
    """Only seconds in a row make a release dead."""
    state = environment().live("r1").incoming("r2", stable_down_s=2.9).state
    assert going(tick(state)).stable_down_s == 0.0


def test_paused_rollout_is_not_forwarded() -> None:
    """Who paused wants no exposure to grow."""
    state = environment().live("r1").incoming("r2", stable_down_s=99.0, paused=True).state
    assert tick(state, stable_down(state)).route == state.route


@pytest.mark.parametrize("changes", [{"ready": None}, {"ready": False}], ids=["not-asked", "unready"])
def test_release_that_does_not_serve_itself_is_not_forwarded(changes: dict[str, Any]) -> None:
    """Exposure grows only towards instances that were seen ready."""
    state = environment().live("r1").incoming("r2", stable_down_s=99.0).state
    seen = with_instances(stable_down(state), placed(state, "r2"), "web", **changes)
    assert tick(state, seen).route == state.route


def test_release_that_the_router_does_not_see_is_not_forwarded() -> None:
    """Ready by the runtime is half of the answer, and an unseen router is none."""
    state = environment().live("r1").incoming("r2", stable_down_s=99.0).state
    assert tick(state, with_servers(stable_down(state), 1, up=False)).route == state.route
    assert tick(state, blind_router(stable_down(state))).route == state.route


def test_release_with_one_instance_left_is_forwarded_over_a_dead_one() -> None:
    """Half of the fix is better than none of the old."""
    canary = spec(service("web", instances=2))
    state = environment().live("r1").incoming("r2", canary, stable_down_s=99.0).state
    seen = with_instances(stable_down(state), placed(state, "r2"), "web", index=1, ready=False)
    assert tick(state, seen).route.exposure_bps == FULL_EXPOSURE


@pytest.mark.parametrize(
    "booting",
    [
        lambda state: stable_down(state, state=InstanceState.STARTING, recent_crashes=0),
        lambda state: stable_down(state, state=InstanceState.EXITED, recent_crashes=0),
        lambda state: without_groups(perfect(state), placed(state, "r1")),
    ],
    ids=["starting", "gone-with-the-host", "not-there-yet"],
)
def test_stable_that_starts_after_a_boot_is_not_dead_yet(booting: Any) -> None:
    """A canary that is up first after a boot of the host must not win everybody by that."""
    state = environment().live("r1").incoming("r2", stable_down_s=50.0).state
    assert tick(state, booting(state)).route == state.route
    late = replace(state, rollout=replace(going(state), stable_down_s=WEB.ready_timeout_s))
    assert tick(late, booting(late)).route.exposure_bps == FULL_EXPOSURE


# --- finishing -------------------------------------------------------------------------------------


def test_release_is_live_when_its_workers_run() -> None:
    """Everybody is exposed and everything runs: it is live, its crashes so far are forgiven."""
    state = environment().live("r1").incoming("r2", spec(WEB, worker()), phase=Phase.FINISHING).state
    seen = with_instances(perfect(state), placed(state, "r2"), "web", crashes=2)
    unfinished = tick(state, without_groups(seen, placed(state, "r2"), "mailer"))
    assert going(unfinished).phase is Phase.FINISHING
    after = tick(state, seen)
    live = placed(after, "r2")
    assert (live.role, live.crash_baseline, live.idle_s) == (Role.LIVE, 2, 0.0)
    assert live.predecessor == placed(state, "r1").id
    assert after.last is not None
    assert (after.last.phase, after.last.reason) == (Phase.SUCCEEDED, Reason.COMPLETE)


@pytest.mark.parametrize(
    "worse",
    [blind_router, blind_runtime, lambda seen: with_routes(seen, route=None)],
    ids=["router-unseen", "runtime-unseen", "not-in-force"],
)
def test_release_is_not_live_unseen(worse: Any) -> None:
    """The point of no return is passed only in full view."""
    state = environment().live("r1").incoming("r2", phase=Phase.FINISHING).state
    assert going(tick(state, worse(perfect(state)))).phase is Phase.FINISHING


def test_success_moves_the_route_behind_a_new_fence() -> None:
    """The new release is the default, there is no canary and no preview any more."""
    state = environment().live("r1").incoming("r2", phase=Phase.FINISHING).state
    route = tick(state).route
    assert (route.stable, route.canary, route.exposure_bps, route.preview) == (1, None, 0, "")
    assert route.fence == state.route.fence + 1


def test_check_by_command_is_trusted_only_when_it_answers() -> None:
    """A failed check rests its server, an unanswered one changes nothing, a good one brings it back."""
    state = environment().live("r1", spec(service("web", check=COMMAND))).state

    def resting(state: EnvironmentState, ready: bool | None) -> EnvironmentState:
        return tick(state, with_instances(perfect(state), placed(state, "r1"), "web", ready=ready))

    def rotation(state: EnvironmentState) -> list[bool]:
        return [endpoint.in_rotation for endpoint in placed(state, "r1").endpoints]

    assert rotation(resting(state, None)) == [True]
    rested = resting(state, False)
    assert rotation(rested) == [False]
    assert rotation(resting(rested, None)) == [False]
    assert rotation(resting(rested, True)) == [True]


# --- states that cannot be ------------------------------------------------------------------------


def test_full_house_without_anybody_to_evict_waits() -> None:
    """With neither standby nor retiring placement there is nothing to do, and no error."""
    scene = environment().live("r1")
    for release in ("r2", "r3", "r4"):
        scene = scene.standby(release)
    full_house = tuple(replace(placement, role=Role.LIVE) for placement in scene.state.placements)
    state = scene.queued("r5").having(placements=full_house).state
    assert going(tick(state)).phase is Phase.QUEUED


@pytest.mark.parametrize("phase", [phase for phase in Phase if not phase.ended])
def test_rollout_whose_placement_is_missing_does_not_fall(phase: Phase) -> None:
    """A damaged state is not made worse: no exposure, no exception."""
    state = environment().live("r1").incoming("r2", phase=phase).state
    state = replace(state, placements=state.placements[:1])
    after = tick(state)
    assert after.route.exposure_bps <= state.route.exposure_bps


def test_exposing_a_placement_that_is_missing_is_an_error() -> None:
    """Nothing can be exposed that is not there; a caller that asks for it is wrong."""
    state = environment().live("r1").incoming("r2").state
    rollout = replace(going(state), placement=99)
    with pytest.raises(ValueError, match="has no placement to expose"):
        advance.go_to_stage(state, rollout, 1, Reason.PROMOTED, "by ada")

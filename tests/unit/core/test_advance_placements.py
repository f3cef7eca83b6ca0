"""Placements without a rollout: cooling, draining, ending, and the way back by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support.builders import (
    WEB,
    WEB_WITH_API,
    Scene,
    blind_router,
    blind_runtime,
    environment,
    going,
    group,
    perfect,
    placed,
    service,
    spec,
    with_groups,
    with_instances,
    with_routes,
    with_servers,
    without_groups,
    worker,
)
from tidegate.core import advance
from tidegate.core.model import EnvironmentState, Observation, Phase, Reason, Role, RolloutKind, Route
from tidegate.core.strategy import SWITCH


def tick(state: EnvironmentState, seen: Observation | None = None, dt_s: float = 1.0) -> EnvironmentState:
    return advance.advance(state, seen or perfect(state), dt_s).state


# --- keeping warm ----------------------------------------------------------------------------------


def test_live_time_counts_up_to_the_watch() -> None:
    """After `keep_warm_s` the count stands still, so that a quiet environment commits nothing."""
    state = environment().live("r1", spec(keep_warm_s=1.5)).state
    assert [placed(s, "r1").live_s for s in (tick(state), tick(tick(state)), tick(tick(tick(state))))] == [
        1.0,
        1.5,
        1.5,
    ]


def test_unseen_time_is_not_watched_time() -> None:
    """While the runtime cannot be asked, nobody watches for crash loops."""
    state = environment().live("r1").state
    assert placed(tick(state, blind_runtime(perfect(state))), "r1").live_s == 0.0


def test_standby_cools_after_its_time() -> None:
    """The release that is live says how long its predecessor stays; then it is retired, and told why."""
    live = spec(keep_warm_s=5.0)
    state = environment().live("r2", live).standby("r1", spec(keep_warm_s=1e6), idle_s=3.0).state
    warm = tick(state)
    assert (placed(warm, "r1").role, placed(warm, "r1").idle_s) == (Role.STANDBY, 4.0)
    outcome = advance.advance(warm, perfect(warm), 1.0)
    assert placed(outcome.state, "r1").role is Role.RETIRING
    assert [(event.reason, event.release, event.detail) for event in outcome.events] == [
        (Reason.COOLED, 1, "kept warm for 5 s")
    ]


def test_standby_is_not_kept_when_nothing_is_to_be_kept_warm() -> None:
    """With `keep_warm: 0` the replaced release is retired in the tick of the success."""
    state = environment().live("r1").incoming("r2", spec(keep_warm_s=0.0), phase=Phase.FINISHING).state
    after = tick(state)
    assert placed(after, "r1").role is Role.RETIRING
    assert placed(after, "r1").cleared == ()


def test_time_counts_as_idle_only_when_the_router_was_seen_to_route_elsewhere() -> None:
    """A slot that new requests can still reach is not idle, nor is one that could not be looked at."""
    state = environment().live("r2").standby("r1").state
    slot = placed(state, "r1").slot
    reached = replace(state.route, stable=slot, fence=0)
    assert placed(tick(state, with_routes(perfect(state), route=reached)), "r1").idle_s == 0.0
    assert placed(tick(state, blind_router(perfect(state))), "r1").idle_s == 0.0
    assert placed(tick(state, with_routes(perfect(state), route=None)), "r1").idle_s == 1.0


# --- retiring --------------------------------------------------------------------------------------


def retiring(*services: Any, **changes: Any) -> EnvironmentState:
    return environment().live("r2").retiring("r1", spec(*services), **changes).state


def cleared(state: EnvironmentState) -> tuple[str, ...]:
    return placed(state, "r1").cleared


def test_service_without_connections_is_cleared() -> None:
    """Not reachable and nobody connected: its servers may leave the router."""
    assert cleared(tick(retiring())) == ("web",)


@pytest.mark.parametrize("sessions", [1, None], ids=["open", "unknown"])
def test_open_connections_get_their_time(sessions: int | None) -> None:
    """Unknown is not zero: until `drain_s` has passed, a service with connections is left alone."""
    state = retiring(idle_s=WEB.drain_s - 2.0)
    busy = with_servers(perfect(state), placed(state, "r1").slot, sessions=sessions)
    assert cleared(tick(state, busy)) == ()
    assert cleared(tick(tick(state, busy), busy)) == ("web",)


def test_connections_are_not_counted_in_the_moment_of_the_flip() -> None:
    """A request may be on its way into the old slot while the new route is first seen."""
    assert cleared(tick(retiring(), dt_s=0.0)) == ()


@pytest.mark.parametrize(
    "seen_as",
    [
        lambda state, seen: blind_router(seen),
        lambda state, seen: blind_runtime(seen),
        lambda state, seen: with_routes(seen, boot=None),
        lambda state, seen: with_routes(seen, route=Route(stable=placed(state, "r1").slot)),
        lambda state, seen: with_routes(seen, route=Route(stable=0, canary=placed(state, "r1").slot)),
        lambda state, seen: with_routes(
            seen, boot=replace(seen.routes.boot, route=Route(stable=placed(state, "r1").slot))
        ),
    ],
    ids=["router-unseen", "runtime-unseen", "no-boot-files", "routed", "canary", "routed-after-restart"],
)
def test_nothing_is_cleared_that_can_still_be_reached(seen_as: Any) -> None:
    """Running router and boot files must both be seen without the slot, whatever the drain time says."""
    state = retiring(idle_s=1e6)
    assert cleared(tick(state, seen_as(state, perfect(state)))) == ()


def test_services_are_cleared_after_those_that_need_them() -> None:
    """A service that is needed stays reachable until its last caller has stopped."""
    state = retiring(*WEB_WITH_API)
    first = tick(state)
    assert cleared(first) == ("web",)
    web = group(first, placed(first, "r1"), WEB_WITH_API[1])
    assert cleared(tick(first, with_groups(perfect(first), web))) == ("web",)
    assert cleared(tick(first)) == ("api", "web")


def test_worker_has_nothing_to_drain() -> None:
    """What takes no requests is cleared at once, while its process still ends."""
    state = retiring(worker())
    mailer = group(state, placed(state, "r1"), worker())
    assert cleared(tick(state, with_groups(perfect(state), mailer), dt_s=0.0)) == ("mailer",)


def test_placement_ends_when_nothing_of_it_is_left() -> None:
    """Its slot is free again only when no group runs and no server is held anywhere."""
    state = retiring(cleared=("web",))
    outcome = advance.advance(state, perfect(state), 1.0)
    assert [p.release for p in outcome.state.placements] == [2]
    assert [(event.reason, event.release) for event in outcome.events] == [(Reason.GONE, 1)]


@pytest.mark.parametrize(
    "left",
    [
        lambda state: with_groups(
            perfect(state), group(state, placed(state, "r1"), placed(state, "r1").spec.services[0])
        ),
        lambda state: with_routes(perfect(state), servers=perfect(uncleared(state)).routes.servers),  # type: ignore[union-attr]
        lambda state: with_routes(perfect(state), boot=perfect(uncleared(state)).routes.boot),  # type: ignore[union-attr]
        lambda state: blind_router(perfect(state)),
        lambda state: blind_runtime(perfect(state)),
    ],
    ids=["group", "server", "boot-files", "router-unseen", "runtime-unseen"],
)
def test_placement_stays_while_anything_of_it_may_be_left(left: Any) -> None:
    """A slot is not given out again while somebody could still answer in it."""
    state = retiring(cleared=("web",))
    assert len(tick(state, left(state)).placements) == 2


def uncleared(state: EnvironmentState) -> EnvironmentState:
    return state.with_placement(replace(placed(state, "r1"), cleared=()))


def test_slot_that_the_committed_route_names_is_never_given_up() -> None:
    """What we ask the router to route to is not forgotten, even if the router shows nothing of it."""
    state = retiring(cleared=("web",))
    state = replace(state, route=replace(state.route, stable=placed(state, "r1").slot))
    assert len(tick(state).placements) == 2


# --- going back by itself --------------------------------------------------------------------------


def succeeded(**changes: Any) -> Scene:
    """r2 has just replaced r1, which is warm."""
    scene = environment().standby("r1")
    return scene.live("r2", predecessor=placed(scene.state, "r1").id, **changes).last("r2")


def looping(state: EnvironmentState, release: str = "r2", **changes: Any) -> Observation:
    loops: dict[str, Any] = {"crashes": 3, "recent_crashes": 3, "exit": "killed by SIGSEGV"} | changes
    return with_instances(perfect(state), placed(state, release), "web", **loops)


def test_release_that_loops_after_its_success_goes_back_by_itself() -> None:
    """While its predecessor is warm, Tidegate flips back without being asked, and says why."""
    state = succeeded().state
    outcome = advance.advance(state, looping(state), 1.0)
    request = going(outcome.state).request
    assert (request.kind, request.release, request.strategy) == (RolloutKind.ROLLBACK, 1, SWITCH)
    assert (request.automatic, request.by) == (True, "tidegate")
    assert request.why == ("crash-loop-after-success: instance 0 of web crashed 3 times (killed by SIGSEGV)")
    taken = tick(outcome.state, looping(outcome.state))
    assert going(taken).placement == placed(state, "r1").id


def test_the_way_back_leads_to_the_release_that_was_replaced() -> None:
    """Not to the newest standby: that one may be the very release that was rolled back from before."""
    scene = environment().standby("r1").standby("r2", idle_s=200.0)
    state = scene.live("r3", predecessor=placed(scene.state, "r1").id).last("r3").state
    assert going(tick(state, looping(state, "r3"))).request.release == 1


@pytest.mark.parametrize(
    ("state", "loops"),
    [
        (succeeded().state, {"crashes": 2}),
        (succeeded().state, {"recent_crashes": 2}),
        (succeeded(crash_baseline=1).state, {}),
        (succeeded(live_s=600.0).state, {}),
        (succeeded().queued("r3").state, {}),
        (succeeded().last("r1", automatic=True).state, {}),
        (environment().live("r2", predecessor=1).state, {}),
        (environment().standby("r1").live("r2").state, {}),
        (environment().retiring("r1").live("r2", predecessor=1).state, {}),
    ],
    ids=[
        "few-crashes",
        "old-crashes",
        "crashes-of-before",
        "watch-is-over",
        "rollout-in-progress",
        "was-automatic",
        "predecessor-is-gone",
        "went-back-itself",
        "predecessor-is-retiring",
    ],
)
def test_release_is_not_sent_back_without_cause_or_target(
    state: EnvironmentState, loops: dict[str, Any]
) -> None:
    """Few, old or forgiven crashes, a watch that is over, or nobody to go back to: stay."""
    rollout = state.rollout
    after = tick(state, looping(state, **loops)).rollout
    assert (after and after.request) == (rollout and rollout.request)


def test_release_is_not_sent_back_to_one_that_does_not_answer() -> None:
    """A predecessor without a ready instance is no way out."""
    state = succeeded().state
    seen = with_instances(looping(state), placed(state, "r1"), "web", ready=False)
    assert tick(state, seen).rollout is None


def test_release_is_not_sent_back_unseen() -> None:
    """Crashes that could not be counted are none."""
    state = succeeded().state
    assert tick(state, blind_runtime(looping(state))).rollout is None


@pytest.mark.parametrize(("kind", "kept"), [(RolloutKind.DEPLOY, True), (RolloutKind.ROLLBACK, False)])
def test_release_that_somebody_went_back_from_is_not_gone_to_by_itself(kind: RolloutKind, kept: bool) -> None:
    """After a rollback the replaced release was found bad: a crash loop must not bring it back."""
    state = environment().live("r2").incoming("r1", phase=Phase.FINISHING).state
    state = replace(state, rollout=replace(going(state), request=replace(going(state).request, kind=kind)))
    assert (placed(tick(state), "r1").predecessor is not None) is kept


def test_two_releases_that_loop_are_not_flipped_for_ever() -> None:
    """The way back is taken once; when it loops too, a person must look."""
    state = succeeded().state
    flips = 0
    for _ in range(50):
        seen = perfect(state)
        for release in ("r1", "r2"):
            if any(p.release == int(release[1]) for p in state.placements):
                count = 3 if state.rollout is None else 0
                seen = with_instances(
                    seen, placed(state, release), "web", recent_crashes=9, crashes=3 + count
                )
        before = state.rollout
        state = tick(state, seen)
        flips += before is None and state.rollout is not None
    assert flips == 1


def test_environment_at_rest_changes_nothing() -> None:
    """One live release, everything as it should be: no event, no counter, nothing to commit."""
    state = environment().live("r1", spec(service(), keep_warm_s=1.0), live_s=1.0).state
    state = tick(state)
    assert advance.advance(state, perfect(state), 1.0) == advance.Outcome(state=state)


def test_lost_group_of_a_live_release_is_no_decision() -> None:
    """Bringing it back is mechanism; policy has nothing to say."""
    state = environment().live("r1").state
    outcome = advance.advance(state, without_groups(perfect(state), placed(state, "r1")), 1.0)
    assert (outcome.state.rollout, outcome.events) == (None, ())

"""What a request may change, from every state that can be reached."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import given, note, settings

from tests.properties.core.journeys import Ask, Steps, act, decided, steps, travel
from tests.support.builders import spec
from tidegate import errors
from tidegate.core.model import EnvironmentState, Phase, Rollout

SOME = settings(max_examples=40, deadline=None)

#: Fields of the state that a request may change.
MAY_CHANGE = {
    "start": {"next_id", "rollout", "pending", "route"},
    "abort": {"rollout", "pending", "route"},
    "pause": {"rollout"},
    "resume": {"rollout"},
    "promote": {"rollout", "route"},
    "full": {"rollout", "route"},
}
QUESTIONS = [
    *(Ask(what=what) for what in MAY_CHANGE),
    Ask(what="start", release=4, wanted=spec(keep_warm_s=1.0), supersede=True, key="again"),
]


def changed(before: EnvironmentState, after: EnvironmentState) -> set[str]:
    names = [field.name for field in fields(EnvironmentState)]
    return {name for name in names if getattr(before, name) != getattr(after, name)}


def states(journey: Steps) -> list[EnvironmentState]:
    return [step.after for step in travel(journey)]


@SOME
@given(steps())
def test_request_changes_only_what_it_says(journey: Steps) -> None:
    """Placements, looks and ends are never touched, and what changed is told unless it is a no-op."""
    for state in states(journey):
        for ask in QUESTIONS:
            decision = decided(state, ask)
            if decision is None:
                continue
            note(f"{ask.what} {state.rollout}")
            assert changed(state, decision.state) <= MAY_CHANGE[ask.what]
            assert decision.no_op is (decision.state == state)
            assert bool(decision.events) is not decision.no_op
            assert decision.state.route.fence >= state.route.fence


@SOME
@given(steps())
def test_request_that_is_repeated_changes_nothing_more(journey: Steps) -> None:
    """Twice aborted, paused or resumed, or started under the same key, is once."""
    for state in states(journey):
        for ask in QUESTIONS:
            repeatable = ask.what in ("abort", "pause", "resume") or bool(ask.key)
            once = decided(state, ask) if repeatable else None
            if once is None or (ask.what == "abort" and once.state.pending is not None):
                continue
            note(f"{ask.what} {state.rollout}")
            again = act(once.state, ask)
            assert (again.state, again.no_op, again.events) == (once.state, True, ())


@SOME
@given(steps())
def test_every_rollout_can_be_sent_home_from_every_state(journey: Steps) -> None:
    """An abort is refused only when nothing is in progress, or when the environment is observed only."""
    for state in states(journey):
        if state.rollout is None or state.halted:
            with pytest.raises(errors.RefusedError):
                act(state, Ask(what="abort"))
            continue
        home = act(state, Ask(what="abort")).state
        rollout: Rollout | None = home.rollout
        assert rollout is not None
        assert rollout.phase is Phase.ABORTING
        assert (home.route.canary, home.route.exposure_bps) == (None, 0)


@SOME
@given(steps())
def test_newest_request_is_never_lost(journey: Steps) -> None:
    """With `supersede` a request is refused only when observed only: it begins, waits, or is so already."""
    newest = Ask(what="start", release=4, wanted=spec(), supersede=True)
    for state in states(journey):
        decision = act(replace(state, halted=""), newest)
        after = decision.state
        if decision.no_op:
            continue
        waiting = after.pending.release if after.pending else None
        begun = after.rollout.request.release if after.rollout else None
        assert 4 in (waiting, begun)

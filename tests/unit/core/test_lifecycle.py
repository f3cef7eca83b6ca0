"""The state machine on its own."""

from __future__ import annotations

import pytest

from tests.support.builders import environment, going
from tidegate.core import lifecycle
from tidegate.core.lifecycle import TRANSITIONS, IllegalTransitionError, Trigger
from tidegate.core.model import Phase


def test_firing_starts_the_counters_of_the_phase_anew() -> None:
    """Deadlines and hold times of one phase are not carried into the next."""
    rollout = going(environment().incoming("r1", phase_s=9.0, held_s=8.0, unready_s=2.0).state)
    shifting = lifecycle.fire(rollout, Trigger.NEXT_STAGE)
    assert (shifting.phase, shifting.phase_s, shifting.held_s, shifting.unready_s) == (
        Phase.SHIFTING,
        0,
        0,
        0,
    )


def test_illegal_trigger_names_itself_the_phase_and_the_rollout() -> None:
    """What is not in the table raises, and says what was tried where."""
    rollout = going(environment().queued("r1").state)
    with pytest.raises(IllegalTransitionError, match="finished in phase queued of rollout 1"):
        lifecycle.fire(rollout, Trigger.FINISHED)


def test_allows_answers_from_the_table() -> None:
    """A caller can ask before it fires."""
    assert lifecycle.allows(Phase.HOLDING, Trigger.NEXT_STAGE)
    assert not lifecycle.allows(Phase.SUCCEEDED, Trigger.ABORT)


def test_every_phase_can_be_reached_and_every_trigger_is_used() -> None:
    """The table holds no dead word."""
    assert set(TRANSITIONS.values()) | {Phase.QUEUED} == set(Phase)
    assert {trigger for _, trigger in TRANSITIONS} == set(Trigger)


def test_diagram_draws_each_transition_once() -> None:
    """The picture shows the table: one arrow per row, one way in, one way out per end."""
    lines = lifecycle.diagram().splitlines()
    arrows = [line.strip() for line in lines if "-->" in line]
    assert lines[0] == "stateDiagram-v2"
    assert "holding --> shifting: next-stage" in arrows
    assert "aborted --> [*]" in arrows
    assert len(arrows) == len(set(arrows)) == len(TRANSITIONS) + 1 + sum(phase.ended for phase in Phase)

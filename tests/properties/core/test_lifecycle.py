"""The state machine, all phases by all triggers."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from tests.support.builders import environment, going
from tidegate.core import lifecycle
from tidegate.core.lifecycle import TRANSITIONS, IllegalTransitionError, Trigger
from tidegate.core.model import Phase

PAIRS = list(itertools.product(Phase, Trigger))


@pytest.mark.parametrize(("phase", "trigger"), PAIRS)
def test_each_trigger_goes_where_the_table_says_or_nowhere(phase: Phase, trigger: Trigger) -> None:
    """What is in the table happens, everything else raises and changes nothing."""
    rollout = replace(going(environment().incoming("r1").state), phase=phase)
    before = replace(rollout)
    if (phase, trigger) in TRANSITIONS:
        assert lifecycle.fire(rollout, trigger).phase is TRANSITIONS[phase, trigger]
    else:
        with pytest.raises(IllegalTransitionError):
            lifecycle.fire(rollout, trigger)
    assert rollout == before
    assert lifecycle.allows(phase, trigger) is ((phase, trigger) in TRANSITIONS)


@pytest.mark.parametrize("phase", list(Phase))
def test_every_phase_has_a_way_home_and_every_end_is_an_end(phase: Phase) -> None:
    """What is not over can be aborted or is on its way home; what is over stays over."""
    exits = [trigger for source, trigger in TRANSITIONS if source is phase]
    if phase.ended:
        assert exits == []
    elif phase is Phase.ABORTING:
        assert exits == [Trigger.BACK_HOME]
    else:
        assert Trigger.ABORT in exits


def test_an_abort_never_leads_to_success() -> None:
    """Once on the way home there is no way back to the rollout."""
    reached, news = {Phase.ABORTING}, {Phase.ABORTING}
    while news:
        news = {target for (source, _), target in TRANSITIONS.items() if source in news} - reached
        reached |= news
    assert reached == {Phase.ABORTING, Phase.ABORTED}

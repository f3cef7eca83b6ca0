"""What of the pipeline is between apps: waiting for what a release needs, and ways back of a group."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest

from tests.support.builders import environment, spec
from tests.support.promoting import (
    EMPTY,
    NAMES,
    Line,
    enters,
    line,
    pipelines,
    place,
    promotion,
    rollout,
)
from tidegate.core import pipeline
from tidegate.core.model import Approvals, Phase, Reason, RolloutKind
from tidegate.core.promotions import Ended, Promotion, Waits

UNMET: Final = "needs accounts/api, which is not live in production"


def test_release_waits_for_what_it_needs_of_another_app() -> None:
    """Said once in the history; it enters as soon as that is there."""
    waits = line("production", unmet=UNMET)
    outcome = waits.step()
    assert outcome.begins == ()
    assert waits.stands(2) == ("production", Waits.NEEDS, None)
    assert [(event.reason, event.detail) for _, event in outcome.events] == [(Reason.WAITING, UNMET)]
    assert waits.step().events == ()
    waits.sees(2, "r2", passed=NAMES[:2])
    assert enters(waits.step()) == [(2, "production")]


def test_release_that_would_close_a_circle_of_apps_is_stopped() -> None:
    """Waiting would never end."""
    stopped = line("production", circle="r2 would close a circle")
    assert stopped.step().begins == ()
    assert (stopped.of(2).ended, stopped.of(2).detail) == (Ended.FAILED, "r2 would close a circle")


def test_newer_release_takes_the_place_of_one_that_waits_for_another_app() -> None:
    """As at every gate."""
    two = Line(pipelines(promotion("r2", "production"), promotion("r3", "production")))
    for known, name in ((2, "r2"), (3, "r3")):
        two.sees(known, name, passed=NAMES[:2], unmet=UNMET)
    two.step()
    assert (two.of(2).ended, two.stands(3)[1]) == (Ended.SUPERSEDED, Waits.NEEDS)


def back(*after: tuple[str, int], **changes: Any) -> Promotion:
    """Shop's way back to r1, as number 5."""
    fields: dict[str, Any] = {"id": 5, "path": ("production",), "kind": RolloutKind.ROLLBACK, "after": after}
    return promotion("r1", "production", **(fields | changes))


def other(ended: Ended | None) -> Promotion:
    return promotion("r4", "production", ended=ended, detail="its disk is full", kind=RolloutKind.ROLLBACK)


def test_way_back_waits_at_no_gate() -> None:
    """Nothing was passed, a window is frozen, somebody's approval is wanted: it begins."""
    one = Line(pipelines(back())).sees(5, "r1", frozen="frozen", unmet=UNMET, circle="a circle")
    one.places["production"] = place("r2", of=spec(approvals=Approvals()))
    assert enters(one.step()) == [(5, "production")]


def test_way_back_begins_when_those_that_depend_on_it_are_home() -> None:
    """Not before; one that could not be looked at is not home."""
    one = Line(pipelines(back(("portal", 4), ("mail", 7)))).sees(5, "r1")
    for behind in ((), (("portal", other(None)),), (("portal", other(Ended.ARRIVED)),)):
        one.sees(5, "r1", behind=behind)
        assert one.step().begins == ()
        assert one.stands(5) == ("production", Waits.NEEDS, None)
    assert one.of(5).detail == "goes back to r1 after mail"
    one.sees(5, "r1", behind=(("portal", other(Ended.ARRIVED)), ("mail", other(Ended.ARRIVED))))
    assert enters(one.step()) == [(5, "production")]


@pytest.mark.parametrize("how", [Ended.FAILED, Ended.WITHDRAWN, Ended.SUPERSEDED])
def test_way_back_ends_when_one_that_depends_on_it_does_not_go(how: Ended) -> None:
    """It would call what it does not know: better both stay as they are, and it is said."""
    one = Line(pipelines(back(("portal", 4)))).sees(5, "r1", behind=(("portal", other(how)),))
    assert one.step().begins == ()
    assert one.of(5).ended is Ended.FAILED
    assert one.of(5).detail == "portal, which depends on it, did not go back: its disk is full"


@pytest.mark.parametrize(
    ("phase", "stands"),
    [
        (Phase.HOLDING, (Waits.ROLLOUT, None)),
        (Phase.SUCCEEDED, (None, Ended.ARRIVED)),
        (Phase.ABORTED, (None, Ended.FAILED)),
    ],
)
def test_way_back_is_as_its_rollout(phase: Phase, stands: tuple[Waits | None, Ended | None]) -> None:
    """Found again by its key."""
    one = Line(pipelines(back())).sees(5, "r1", rollout=rollout("r1", phase))
    one.step()
    assert one.stands(5)[1:] == stands


def test_way_back_waits_for_a_rollout_in_progress_or_ends_it() -> None:
    """As a rollback of one app would be refused, or supersede."""
    busy = replace(EMPTY, state=environment().live("r2").incoming("r3").state)
    for supersede in (False, True):
        one = Line(pipelines(back(supersede=supersede))).sees(5, "r1")
        one.places["production"] = busy
        assert bool(one.step().begins) is supersede
        assert (one.stands(5)[1] is Waits.BUSY) is not supersede


def test_way_back_and_way_there_do_not_take_each_others_place() -> None:
    """A newer release that waits ends no way back, and a way back ends no release; nobody approves it."""
    both = Line(pipelines(back(("portal", 4), id=2), promotion("r3", "production")))
    both.sees(2, "r1").sees(3, "r3", passed=NAMES[:2], unmet=UNMET)
    both.step()
    assert [both.stands(known)[1] for known in (2, 3)] == [Waits.NEEDS, Waits.NEEDS]
    later = Line(pipelines(promotion("r2", "production"), back(("portal", 4))))
    later.sees(2, "r2", passed=NAMES[:2], unmet=UNMET).sees(5, "r1")
    later.step()
    assert [later.stands(known)[1] for known in (2, 5)] == [Waits.NEEDS, Waits.NEEDS]
    assert pipeline.waiting(later.state, "production", None).id == 2
    assert pipeline.waiting(later.state, "production", None, soaking=True).id == 5


def test_release_may_go_where_it_was_told_to_go_back_to() -> None:
    """A deploy of the same release is another promotion than the way back to it."""
    wanted = replace(back(), kind=RolloutKind.DEPLOY, id=0)
    assert not pipeline.promote(pipelines(back()), wanted).no_op

"""Which migrations run when: every rule by an example. `tests/simulation` lets 4 000 histories try them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from tidegate.core import migrations
from tidegate.core.migrations import Direction, Migration, MigrationPhase, Plan, Revert, Step, Target, Way

EXPAND, CONTRACT, BREAKING = MigrationPhase.EXPAND, MigrationPhase.CONTRACT, MigrationPhase.BREAKING


def made(*phases: MigrationPhase, revert: Revert = Revert.EXACT) -> tuple[Migration, ...]:
    """Migrations m1, m2 and so on, of releases 1, 2 and so on."""
    return tuple(
        Migration(id=f"m{number}", phase=phase, revert=revert, release=number)
        for number, phase in enumerate(phases, 1)
    )


def ids(migrations_: Sequence[Migration]) -> tuple[str, ...]:
    return tuple(one.id for one in migrations_)


def steps(text: str) -> tuple[Step, ...]:
    """`m2+ m1-`: m2 is applied, then m1 reverted."""
    sign = {"+": Direction.UP, "-": Direction.DOWN}
    return tuple(Step(id=word[:-1], direction=sign[word[-1]]) for word in text.split())


def said(plan: Plan) -> dict[str, str]:
    """What is in a plan, in words; what is empty is left out."""
    sign = {Direction.UP: "+", Direction.DOWN: "-"}
    parts = {"before": plan.before, "held": plan.held, "after": plan.after}
    words = {name: " ".join(one.id + sign[one.direction] for one in part) for name, part in parts.items()}
    return {"way": str(plan.way)} | {k: v for k, v in (words | {"ahead": " ".join(plan.ahead)}).items() if v}


# --- back ------------------------------------------------------------------------------------------


def back(*phases: MigrationPhase, ordered: bool = False, **known: bool) -> dict[str, str]:
    """The plan from the last to the first of releases with one migration each."""
    applied = made(*phases)
    target = Target(release=1, migrations=applied[:1], **known)
    return said(migrations.plan(applied, target, live=ids(applied), ordered=ordered))


def test_nothing_is_done_where_the_schema_is_the_same() -> None:
    """A release without migrations is left by traffic alone."""
    assert back(EXPAND) == {"way": "flip"}


def test_expands_stay_where_the_target_starts_on_them() -> None:
    """It was proved: so nothing is reverted at all."""
    assert back(EXPAND, EXPAND, starts_ahead=True) == {"way": "flip", "ahead": "m2"}


def test_expands_follow_where_the_target_runs_but_would_not_start() -> None:
    """Traffic moves to instances that are warm; then the schema goes back too, newest first."""
    assert back(EXPAND, EXPAND, EXPAND, warm=True) == {"way": "flip-then-revert", "after": "m3- m2-"}


def test_requests_are_held_for_a_target_that_neither_runs_nor_starts() -> None:
    """It cannot start before the reverts, and the live release cannot live after them."""
    assert back(EXPAND, EXPAND) == {"way": "pause", "held": "m2-"}


def test_contracts_come_back_first_and_pass_over_expands() -> None:
    """The live release needs what newer expands have added, and survives what a revert adds."""
    assert back(EXPAND, CONTRACT, EXPAND, CONTRACT, starts_ahead=True) == {
        "way": "revert-then-flip",
        "before": "m4- m2-",
        "ahead": "m3",
    }
    assert back(EXPAND, CONTRACT, EXPAND, warm=True) == {
        "way": "revert-then-flip",
        "before": "m2-",
        "after": "m3-",
    }


def test_requests_are_held_for_what_neither_release_survives() -> None:
    """A breaking migration is reverted while nobody is served, however well the target would start."""
    assert back(EXPAND, EXPAND, BREAKING, starts_ahead=True, warm=True) == {
        "way": "pause",
        "held": "m3-",
        "ahead": "m2",
    }
    assert back(EXPAND, EXPAND, BREAKING) == {"way": "pause", "held": "m3- m2-"}


def test_tool_of_one_line_reverts_through_the_contract_while_requests_are_held() -> None:
    """A newer expand that cannot be passed over is in use, so nobody may be served meanwhile."""
    phases = (EXPAND, EXPAND, CONTRACT, EXPAND)
    assert back(*phases, starts_ahead=True, ordered=True) == {
        "way": "pause",
        "held": "m4- m3-",
        "ahead": "m2",
    }


def test_order_matters_only_where_something_would_be_passed_over() -> None:
    """A contract that is the newest comes back gently with any tool."""
    assert back(EXPAND, EXPAND, CONTRACT, starts_ahead=True, ordered=True) == {
        "way": "revert-then-flip",
        "before": "m3-",
        "ahead": "m2",
    }


def test_expands_that_nobody_knows_go_at_once() -> None:
    """After a rollback the live release does not know them either: nobody misses them."""
    applied = made(EXPAND, EXPAND, EXPAND)
    plan = migrations.plan(applied, Target(release=1, migrations=applied[:1]), live=("m1", "m2"))
    assert said(plan) == {"way": "pause", "held": "m3- m2-"}
    plan = migrations.plan(applied, Target(release=2, migrations=applied[:2]), live=("m1",))
    assert said(plan) == {"way": "revert-then-flip", "before": "m3-"}


@pytest.mark.parametrize("revert", [Revert.NONE, Revert.FAKE, Revert.BROKEN])
def test_way_back_over_a_revert_that_does_not_work_is_refused(revert: Revert) -> None:
    """The plan names what stands in the way, and reverts nothing."""
    applied = made(EXPAND, CONTRACT, revert=revert)
    plan = migrations.plan(applied, Target(release=1, migrations=applied[:1]), live=ids(applied))
    assert plan == Plan(way=Way.REFUSED, release=1, ahead=("m2",), blocked=(applied[1],))
    assert not plan.automatic


def test_revert_that_is_not_needed_may_be_missing() -> None:
    """An expand that can stay needs no way back."""
    applied = made(EXPAND, EXPAND, revert=Revert.NONE)
    plan = migrations.plan(applied, Target(release=1, migrations=applied[:1], starts_ahead=True))
    assert said(plan) == {"way": "flip", "ahead": "m2"}


def test_lost_rows_and_held_requests_want_a_person() -> None:
    """Only what loses nothing and stops nobody is done without asking."""

    def to_first(*phases: MigrationPhase, revert: Revert = Revert.EXACT) -> Plan:
        applied = made(*phases, revert=revert)
        return migrations.plan(applied, Target(release=1, migrations=applied[:1]), live=ids(applied))

    lossy = to_first(EXPAND, CONTRACT, revert=Revert.LOSSY)
    assert lossy.lossy == ("m2",)
    assert not lossy.automatic
    assert not to_first(EXPAND, BREAKING).automatic
    assert to_first(EXPAND, CONTRACT).automatic


def test_nearest_release_that_can_be_reached_is_named() -> None:
    """It is the oldest one after the wanted one, and none where all are out of reach."""
    applied = list(made(EXPAND, CONTRACT, CONTRACT))
    applied[1] = replace(applied[1], revert=Revert.NONE)
    targets = [Target(release=n, migrations=tuple(applied[:n])) for n in (3, 1, 2)]
    plan = migrations.nearest(applied, targets, 1, live=ids(applied))
    assert plan is not None
    assert (plan.release, said(plan)) == (2, {"way": "revert-then-flip", "before": "m3-"})
    assert migrations.nearest(applied, targets, 3) is None


# --- forward ---------------------------------------------------------------------------------------


def forward(there: int, *phases: MigrationPhase, live: int, ordered: bool = False) -> dict[str, str]:
    """The plan to the last release, with so many migrations applied and so many known to who is live."""
    wanted = made(*phases)
    target = Target(release=len(wanted), migrations=wanted)
    return said(migrations.plan(wanted[:there], target, live=ids(wanted[:live]), ordered=ordered))


def test_release_gets_expands_before_and_contracts_after() -> None:
    """What the old release still needs goes when it is gone; also what was skipped on the way."""
    assert forward(1, EXPAND, CONTRACT, EXPAND, CONTRACT, live=1) == {
        "way": "flip",
        "before": "m3+",
        "after": "m2+ m4+",
    }


def test_contract_of_the_live_release_is_made_up_for_if_more_is_built_on_it() -> None:
    """Nobody needs any more what it takes away; where nothing follows it there is no hurry."""
    assert forward(1, EXPAND, CONTRACT, EXPAND, live=2) == {"way": "flip", "before": "m2+ m3+"}
    assert forward(1, EXPAND, CONTRACT, live=2) == {"way": "flip", "after": "m2+"}


def test_requests_are_held_where_no_order_serves_both() -> None:
    """All that is missing is applied in its order while nobody is served."""
    assert forward(1, EXPAND, EXPAND, BREAKING, live=1) == {"way": "pause", "held": "m2+ m3+"}
    assert forward(1, EXPAND, CONTRACT, EXPAND, live=1, ordered=True) == {"way": "pause", "held": "m2+ m3+"}


def test_release_that_was_made_beside_what_is_applied_is_refused() -> None:
    """A fix made from an older release must not run on a schema that nobody has tried it on."""
    applied = made(EXPAND, EXPAND, EXPAND)
    plan = migrations.plan(applied, Target(release=4, migrations=applied[:1], starts_ahead=True))
    assert plan == Plan(way=Way.REFUSED, release=4, ahead=("m3", "m2"), foreign=(applied[2], applied[1]))


def test_tool_of_one_line_applies_nothing_on_top_of_what_the_release_does_not_know() -> None:
    """After a rollback and towards a release in the middle, the newer ones go before its own are applied."""
    all_ = made(EXPAND, EXPAND, EXPAND)
    applied, target = (all_[0], all_[2]), Target(release=2, migrations=all_[:2], starts_ahead=True)
    assert said(migrations.plan(applied, target, live=("m1",))) == {
        "way": "flip",
        "before": "m2+",
        "ahead": "m3",
    }
    assert said(migrations.plan(applied, target, live=("m1",), ordered=True)) == {
        "way": "revert-then-flip",
        "before": "m3- m2+",
    }

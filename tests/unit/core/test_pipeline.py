"""Which release may enter which environment next: each rule of `core.pipeline` by itself."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

import pytest

from tests.support.builders import digest, environment, number, request, spec
from tidegate import errors
from tidegate.core import model, pipeline
from tidegate.core.model import Approvals, EnvironmentSpec, EnvironmentState, Phase, Reason, RolloutKind
from tidegate.core.pipeline import Begin, Look, Outcome, Place, Travel
from tidegate.core.promotions import Approval, Ended, Pass, PipelineState, Promotion, Soak, Waits, identity

NAMES: Final = ("test", "staging", "production")
NOW: Final = 1_800_000_000.0
SOAKED: Final = spec(soak_s=60.0)


def release(
    name: str, *names: str, of: EnvironmentSpec | None = None, **specs: EnvironmentSpec
) -> model.Release:
    """A release whose manifest names these environments; `specs`: those that differ from `of`."""
    wanted = names or NAMES
    return model.Release(
        app="shop",
        number=number(name),
        digest=digest(name),
        environments=tuple((each, specs.get(each, of or spec())) for each in wanted),
    )


def promotion(name: str = "r2", at: str = "test", target: str = "production", **changes: Any) -> Promotion:
    """A release on its way; `changes`: fields of Promotion."""
    found = release(name)
    fields: dict[str, Any] = {
        "id": number(name),
        "release": found.number,
        "digest": found.digest,
        "identity": identity(found),
        "path": NAMES[: NAMES.index(target) + 1],
        "environment": at,
        "requester": "ada",
    }
    return Promotion(**(fields | changes))


def pipelines(*promotions: Promotion, **changes: Any) -> PipelineState:
    under_way = tuple(p for p in promotions if p.ended is None)
    ended = tuple(p for p in promotions if p.ended is not None)
    newest = max((p.id for p in promotions), default=0)
    return PipelineState(app="shop", next_id=newest + 1, promotions=under_way, ended=ended, **changes)


def rollout(name: str, phase: Phase = Phase.SUCCEEDED, **changes: Any) -> model.Rollout:
    """A rollout of a release, of placement 1; `changes`: fields of its request, `id` or `placement`."""
    own = {key: changes.pop(key) for key in ("id", "placement", "reason", "detail") if key in changes}
    fields: dict[str, Any] = {"id": 9, "placement": 1, "request": request(name, **changes), "phase": phase}
    return model.Rollout(**(fields | own))


def live(name: str, of: EnvironmentSpec | None = None, **changes: Any) -> EnvironmentState:
    """An environment in which this release is live, as placement 1."""
    return environment().live(name, of, **changes).state


def place(
    name: str, of: EnvironmentSpec | None = None, made: model.Rollout | None = None, **changes: Any
) -> Place:
    """Where a release is live and in order, made so by a deploy."""
    fields: dict[str, Any] = {
        "state": live(name, of),
        "sound": True,
        "made_live": made or rollout(name),
        "release": release(name),
    }
    return Place(**(fields | changes))


EMPTY: Final = Place(state=environment().state)


@dataclass
class Line:
    """A pipeline that is stepped, and what is seen of it."""

    state: PipelineState
    places: dict[str, Place] = field(default_factory=lambda: dict.fromkeys(NAMES, EMPTY))
    travels: dict[int, Travel] = field(default_factory=dict)
    now: float = NOW
    last: Outcome | None = None

    def sees(self, known: int, name: str, **changes: Any) -> Line:
        """What is known of a promotion; `changes`: fields of Travel."""
        passed = frozenset(changes.pop("passed", ()))
        found = changes.pop("release", release(name))
        self.travels[known] = Travel(release=found, passed=passed, **changes)
        return self

    def step(self, dt_s: float = 1.0) -> Outcome:
        self.last = pipeline.advance(
            self.state, Look(now=self.now, places=self.places, travels=self.travels), dt_s
        )
        self.state = self.last.state
        return self.last

    def of(self, known: int) -> Promotion:
        found = self.state.promotion(known)
        assert found is not None
        return found

    def stands(self, known: int) -> tuple[str, Waits | None, Ended | None]:
        found = self.of(known)
        return found.environment, found.waits, found.ended


def line(at: str = "production", *, of: EnvironmentSpec | None = None, **seen: Any) -> Line:
    """r2 before an environment, having passed all before it; `seen`: fields of Travel."""
    one = promotion("r2", at)
    passed = {"passed": NAMES[: NAMES.index(at)]}
    found = release("r2", **({at: of} if of else {}))
    return Line(pipelines(one)).sees(2, "r2", **(passed | {"release": found} | seen))


def enters(outcome: Outcome) -> list[tuple[int, str]]:
    return [(begin.promotion, begin.environment) for begin in outcome.begins]


# --- passes ------------------------------------------------------------------------------------------


def test_first_environment_is_open() -> None:
    """Nothing stands before it."""
    begun = line("test").step()
    assert begun.begins == (Begin(promotion=2, environment="test"),)
    assert begun.state.promotions[0].waits is Waits.ROLLOUT


@pytest.mark.parametrize("passed", [(), ("test",), ("staging",)])
def test_release_that_has_not_passed_all_before_is_stopped(passed: tuple[str, ...]) -> None:
    """However it came to stand there: the gate asks for passes, and says which is missing."""
    stopped = line("production", passed=passed)
    outcome = stopped.step()
    assert outcome.begins == ()
    assert stopped.of(2).ended is Ended.FAILED
    missing = "test" if "test" not in passed else "staging"
    assert stopped.of(2).detail == f"r2 has not passed {missing}, which stands before production"
    assert [event.reason for _, event in outcome.events] == [Reason.STOPPED]


def test_gate_that_the_live_release_has_cannot_be_left_out() -> None:
    """A manifest takes away no gate that its release has not passed itself."""
    bold = Line(pipelines(replace(promotion("r2", "production"), path=("test", "production"))))
    bold.sees(2, "r2", passed=("test",), demanded=("test", "staging"))
    assert bold.step().begins == ()
    assert "leaves staging out of its pipeline" in bold.of(2).detail


def test_gate_that_only_the_live_release_has_is_open_to_what_has_passed_it() -> None:
    """The pass counts, not the manifest."""
    bold = Line(pipelines(replace(promotion("r2", "production"), path=("test", "production"))))
    bold.sees(2, "r2", passed=("test", "staging"), demanded=("test", "staging"))
    assert enters(bold.step()) == [(2, "production")]


def test_what_has_passed_goes_through_without_entering_again() -> None:
    """From where it stands to the first environment that it has not passed."""
    known = Line(pipelines(promotion("r2", "test"))).sees(2, "r2", passed=("test", "staging"))
    assert enters(known.step()) == []
    assert known.stands(2) == ("production", None, None)
    assert enters(known.step()) == [(2, "production")]


def test_target_is_entered_although_it_was_passed() -> None:
    """Somebody asks for it to be live there, not for a pass."""
    known = line("production", passed=NAMES)
    assert enters(known.step()) == [(2, "production")]


def test_what_could_not_be_looked_at_waits() -> None:
    """A promotion without a look, and one whose rollout was begun but is not found, stay as they are."""
    unseen = Line(pipelines(promotion("r2"), promotion("r3", rollout=7, waits=Waits.ROLLOUT)))
    unseen.sees(3, "r3")
    before = unseen.state.promotions
    assert unseen.step().begins == ()
    assert unseen.state.promotions == before


# --- approvals -----------------------------------------------------------------------------------------


def approved(by: str = "bob", role: str = "approver", at: float = NOW, where: str = "production") -> Approval:
    return Approval(environment=where, by=by, role=role, at=at)


def with_approvals(rule: Approvals, *given: Approval, **changes: Any) -> Line:
    waits = line("production", of=spec(approvals=rule))
    waits.state = pipelines(replace(waits.of(2), approvals=given, **changes))
    return waits


CASES: Final[list[tuple[str, Approvals, tuple[Approval, ...], bool]]] = [
    ("none given", Approvals(), (), False),
    ("one of one", Approvals(), (approved(),), True),
    ("one of two", Approvals(count=2), (approved(),), False),
    ("two of two", Approvals(count=2), (approved(), approved("cleo")), True),
    ("one person twice", Approvals(count=2), (approved(), approved(at=NOW - 1)), False),
    ("another role", Approvals(roles=("approver",)), (approved(role="deployer"),), False),
    ("that role", Approvals(roles=("approver",)), (approved(),), True),
    ("admin may all", Approvals(roles=("approver",)), (approved(role="admin"),), True),
    ("expired", Approvals(expires_s=60.0), (approved(at=NOW - 60.5),), False),
    ("just in time", Approvals(expires_s=60.0), (approved(at=NOW - 60.0),), True),
    ("of the future", Approvals(), (approved(at=NOW + 1),), False),
    ("requester, who may", Approvals(), (approved("ada"),), True),
    ("requester, who may not", Approvals(not_by_requester=True), (approved("ada"),), False),
    ("somebody else", Approvals(not_by_requester=True), (approved(),), True),
    ("for elsewhere", Approvals(), (approved(where="staging"),), False),
]


@pytest.mark.parametrize(("rule", "given", "is_open"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_approvals(rule: Approvals, given: tuple[Approval, ...], is_open: bool) -> None:
    """So many different people with the right role, in time, for this environment."""
    asked = with_approvals(rule, *given)
    begun = asked.step()
    assert (enters(begun) == [(2, "production")]) is is_open
    assert (asked.of(2).waits is Waits.APPROVAL) is not is_open
    assert asked.of(2).ended is None


def test_sentence_says_what_is_missing() -> None:
    """How many, by whom, how many are there, and the command."""
    asked = with_approvals(Approvals(count=2, roles=("approver", "owner")), approved())
    asked.step()
    assert asked.of(2).detail == (
        "waits for 2 approvals by approver or owner, 1 given: `tide approve production --release r2`"
    )


def test_approval_that_the_live_release_wants_is_wanted() -> None:
    """Both manifests count, each by its own rule."""
    strict = spec(approvals=Approvals(count=2))
    asked = with_approvals(Approvals(), approved())
    asked.places["production"] = place("r1", strict)
    assert asked.step().begins == ()
    assert asked.of(2).waits is Waits.APPROVAL
    asked.state = asked.state.with_promotion(replace(asked.of(2), approvals=(approved(), approved("cleo"))))
    assert enters(asked.step()) == [(2, "production")]


def approve(
    state: PipelineState, given: Approval, *rules: Approvals, release: int | None = None
) -> PipelineState:
    return pipeline.approve(state, given.environment, release, given, rules or (Approvals(),)).state


def test_approval_is_of_one_release() -> None:
    """A newer one that waits at the same gate inherits nothing."""
    gate = {"of": spec(approvals=Approvals(count=2))}
    asked = line("production", **gate)
    asked.step()
    asked.state = approve(asked.state, approved())
    newer = promotion("r3", "production")
    asked.state = replace(asked.state, promotions=(*asked.state.promotions, newer))
    asked.sees(3, "r3", passed=NAMES[:2], release=release("r3", production=gate["of"]))
    asked.step()
    assert asked.of(2).ended is Ended.SUPERSEDED
    assert (asked.of(3).waits, asked.of(3).approvals) == (Waits.APPROVAL, ())


def test_approval_given_again_is_the_newer_one() -> None:
    """One person counts once, from the last time on."""
    waits = pipelines(promotion("r2", "production", waits=Waits.APPROVAL))
    twice = approve(approve(waits, approved(at=1.0)), approved(at=2.0))
    assert [(a.by, a.at) for a in twice.promotions[0].approvals] == [("bob", 2.0)]


@pytest.mark.parametrize(
    ("given", "rules"),
    [
        (approved(role="deployer"), (Approvals(roles=("approver",)),)),
        (approved(role="deployer"), (Approvals(), Approvals(roles=("approver",)))),
        (approved("ada"), (Approvals(not_by_requester=True),)),
    ],
)
def test_approval_that_would_not_count_is_refused(given: Approval, rules: tuple[Approvals, ...]) -> None:
    """At once, with the reason: by the rules of either manifest."""
    waits = pipelines(promotion("r2", "production", waits=Waits.APPROVAL))
    with pytest.raises(errors.RefusedError) as refused:
        approve(waits, given, *rules)
    assert refused.value.reason == model.Refusal.MAY_NOT_APPROVE.value


def test_approval_is_told() -> None:
    """The history has who and by what role."""
    waits = pipelines(promotion("r2", "production", waits=Waits.APPROVAL))
    decided = pipeline.approve(waits, "production", None, approved(), (Approvals(),))
    ((where, event),) = decided.events
    assert (where, event.reason, event.release) == ("production", Reason.APPROVED, 2)
    assert event.detail == "by bob (approver)"


@pytest.mark.parametrize("asked", [None, 7])
def test_approval_of_what_does_not_wait_is_refused(asked: int | None) -> None:
    """One that is under way elsewhere, or another release."""
    under_way = pipelines(promotion("r2", "staging", waits=Waits.SOAK))
    with pytest.raises(errors.RefusedError) as refused:
        approve(under_way, approved(where="staging"), release=asked)
    assert refused.value.reason == model.Refusal.NOTHING_WAITS.value


def test_approval_of_what_has_ended_says_how() -> None:
    """So that nobody wonders."""
    gone = pipelines(promotion("r2", "production", ended=Ended.FAILED, detail="web: exit status 1"))
    with pytest.raises(errors.RefusedError) as refused:
        approve(gone, approved(), release=2)
    assert "its promotion has failed, web: exit status 1" in refused.value.message


# --- freeze, busy --------------------------------------------------------------------------------------


def test_freeze_window_holds_a_release_up() -> None:
    """It waits, and enters when the window is over."""
    cold = line(frozen="production is frozen until Monday")
    outcome = cold.step()
    assert (outcome.begins, cold.of(2).waits) == ((), Waits.FREEZE)
    assert [event.detail for _, event in outcome.events] == ["production is frozen until Monday"]
    cold.sees(2, "r2", passed=NAMES[:2])
    assert enters(cold.step()) == [(2, "production")]


def busy_state(name: str = "r9") -> Place:
    return Place(state=environment().live("r1").incoming(name).state)


def test_rollout_in_progress_is_waited_for() -> None:
    """Whoever asked for it."""
    waits = line()
    waits.places["production"] = busy_state()
    assert (waits.step().begins, waits.of(2).waits) == ((), Waits.BUSY)
    assert "of r9 is in progress in" in waits.of(2).detail
    waits.places["production"] = place("r1")
    assert enters(waits.step()) == [(2, "production")]


def test_superseding_release_waits_for_no_rollout() -> None:
    """The one in its way is sent home by the request itself."""
    hasty = line()
    hasty.state = pipelines(replace(hasty.of(2), supersede=True))
    hasty.places["production"] = busy_state()
    assert enters(hasty.step()) == [(2, "production")]


def test_environment_that_is_observed_only_is_entered_by_nobody() -> None:
    """Also not by one that supersedes."""
    waits = line()
    waits.state = pipelines(replace(waits.of(2), supersede=True))
    waits.places["production"] = Place(state=environment().live("r1").having(halted="older").state)
    assert (waits.step().begins, waits.of(2).waits) == ((), Waits.BUSY)


def test_waiting_is_told_once() -> None:
    """Each new thing that it waits for, not each look."""
    cold = line(frozen="frozen")
    assert [event.reason for _, event in cold.step().events] == [Reason.WAITING]
    assert cold.step().events == ()
    cold.sees(2, "r2", passed=NAMES[:2])
    cold.places["production"] = busy_state()
    assert [event.reason for _, event in cold.step().events] == [Reason.WAITING]


# --- the rollout ---------------------------------------------------------------------------------------


def test_rollout_is_found_again_and_not_begun_twice() -> None:
    """By its own key, also by a control plane that never heard of its number."""
    again = line("test", rollout=rollout("r2", Phase.STARTING))
    assert again.step().begins == ()
    assert (again.of(2).rollout, again.of(2).waits) == (9, Waits.ROLLOUT)


def test_rollout_into_the_target_ends_the_promotion() -> None:
    """It has arrived, whatever soak time is there."""
    there = line("production", rollout=rollout("r2"))
    there.places["production"] = place("r2", SOAKED)
    there.step()
    assert there.stands(2) == ("production", None, Ended.ARRIVED)


def test_aborted_rollout_stops_the_promotion_where_it_is() -> None:
    """With the reason of the abort: production never saw it."""
    broken = line(
        "staging",
        rollout=rollout("r2", Phase.ABORTED, reason=Reason.VERIFY_FAILED, detail="exit status 1"),
    )
    outcome = broken.step()
    assert broken.stands(2) == ("staging", None, Ended.FAILED)
    assert broken.of(2).detail == f"staging: {Reason.VERIFY_FAILED.value}: exit status 1"
    assert [(where, event.reason) for where, event in outcome.events] == [("staging", Reason.STOPPED)]


def test_release_goes_on_when_it_has_passed() -> None:
    """To the next environment, where it stands before the gate with nothing begun."""
    through = line("staging", rollout=rollout("r2"), passed=("test", "staging"))
    through.places["staging"] = place("r2")
    through.step()
    found = through.of(2)
    assert (found.environment, found.rollout, found.waits) == ("production", None, None)


def test_release_that_was_replaced_during_its_soak_has_failed() -> None:
    """Its time was not over, and nobody can live it out."""
    left = line("staging", rollout=rollout("r2", placement=7))
    left.places["staging"] = place("r1")
    left.step()
    assert left.stands(2) == ("staging", None, Ended.FAILED)
    assert left.of(2).detail == "it is not live in staging any more, and its time there was not over"


def test_release_that_a_newer_one_replaced_during_its_soak_is_superseded() -> None:
    """That is no failure of its own."""
    left = line("staging", rollout=rollout("r2", placement=7))
    left.state = pipelines(left.of(2), promotion("r3"))
    left.places["staging"] = place("r3")
    left.step()
    assert left.of(2).ended is Ended.SUPERSEDED


def test_rollout_of_another_key_is_adopted() -> None:
    """A rollout that somebody began by hand is this promotion's own from then on."""
    adopted = line("staging", rollout=rollout("r2", Phase.HOLDING, key="by hand"))
    adopted.state = pipelines(replace(adopted.of(2), rollout=9, waits=Waits.ROLLOUT))
    adopted.step()
    assert adopted.stands(2) == ("staging", Waits.ROLLOUT, None)
    adopted.sees(2, "r2", passed=NAMES[:2], rollout=rollout("r2", key="by hand"))
    adopted.step()
    assert adopted.stands(2) == ("production", None, None)


def pending(key: str) -> Place:
    return Place(state=environment().live("r1").incoming("r9").pending("r2", key=key).state)


def test_rollout_that_waits_for_another_to_go_home_is_waited_for() -> None:
    """It has no record of its own yet, and is not asked for again."""
    queued = line("staging")
    queued.state = pipelines(replace(queued.of(2), queued=True, waits=Waits.ROLLOUT))
    queued.places["staging"] = pending("promotion-2-staging")
    assert queued.step().begins == ()
    assert queued.stands(2) == ("staging", Waits.ROLLOUT, None)


def test_rollout_that_was_taken_back_before_it_began_is_not_begun_again() -> None:
    """Somebody has pressed abort, or a newer request has taken its place."""
    for there in (place("r1"), pending("another")):
        queued = line("staging")
        queued.state = pipelines(replace(queued.of(2), queued=True, waits=Waits.ROLLOUT))
        queued.places["staging"] = there
        assert queued.step().begins == ()
        assert queued.of(2).ended is Ended.WITHDRAWN


def test_rollout_that_is_needless_since_the_one_before_went_home_is_asked_for_again() -> None:
    """What it went home to is just this release: the answer says so."""
    queued = line("staging")
    queued.state = pipelines(replace(queued.of(2), queued=True, waits=Waits.ROLLOUT))
    queued.places["staging"] = place("r2")
    assert enters(queued.step()) == [(2, "staging")]
    assert queued.of(2).queued is False


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

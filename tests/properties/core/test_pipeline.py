"""What the gate must never do, whatever people ask for and however environments look."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import Final

from hypothesis import given, note, settings
from hypothesis import strategies as st

from tests.support.builders import digest, environment, request, spec
from tidegate import errors
from tidegate.core import model, pipeline
from tidegate.core.model import Approvals, EnvironmentSpec, Phase
from tidegate.core.pipeline import GATES, TICK_MAX_S, Look, Place, Travel
from tidegate.core.promotions import Approval, PipelineState, Promotion, identity

NAMES: Final = ("test", "staging", "production")
NOW: Final = 1_000_000.0
SOME = settings(max_examples=200, deadline=None)

RULES: Final = (
    None,
    None,
    None,
    Approvals(),
    Approvals(count=2, expires_s=50.0),
    Approvals(roles=("approver",), not_by_requester=True),
)
SPECS: Final = st.builds(
    lambda rule, soak_s: spec(approvals=rule, soak_s=soak_s),
    st.sampled_from(RULES),
    st.sampled_from((0.0, 2.0)),
)
PEOPLE: Final = st.sampled_from(
    (("ada", "approver"), ("bob", "approver"), ("cleo", "deployer"), ("dan", "admin"))
)
PASSED: Final = st.sampled_from((NAMES, NAMES[:2], NAMES[:1], ())).map(frozenset)


def release(number: int, specs: dict[str, EnvironmentSpec]) -> model.Release:
    return model.Release(
        app="shop",
        number=number,
        digest=digest(f"r{number}"),
        environments=tuple((name, specs[name]) for name in NAMES if name in specs),
    )


@st.composite
def releases(draw: st.DrawFn, number: int) -> model.Release:
    """Now and then one that leaves an environment out."""
    names = draw(st.sampled_from((NAMES, NAMES, NAMES[1:], (NAMES[0], NAMES[2]))))
    return release(number, {name: draw(SPECS) for name in names})


@st.composite
def rollouts(draw: st.DrawFn, number: int) -> model.Rollout | None:
    """Of a promotion, in any phase; often none."""
    phase = draw(st.sampled_from((*[None] * 7, Phase.STARTING, Phase.SUCCEEDED, Phase.ABORTED)))
    if phase is None:
        return None
    placement = draw(st.sampled_from((1, 5)))
    return model.Rollout(id=9, request=request(f"r{number}"), phase=phase, placement=placement)


@st.composite
def places(draw: st.DrawFn) -> Place:
    """An environment: empty, with a live release, busy, observed only; sound or not."""
    scene = environment()
    live = draw(st.sampled_from((None, 1, 2, 3)))
    if live is not None:
        scene = scene.live(f"r{live}", draw(SPECS))
    if draw(st.sampled_from((False, False, True))):
        scene = scene.incoming("r8")
    if draw(st.sampled_from((False, False, True))):
        scene = scene.having(halted="older than the world")
    made = None
    if live is not None and draw(st.booleans()):
        emergency = draw(st.sampled_from(("", "", "down")))
        kind = draw(st.sampled_from(tuple(model.RolloutKind)))
        asked = request(f"r{live}", kind=kind, emergency=emergency)
        made = model.Rollout(id=9, request=asked, phase=Phase.SUCCEEDED, placement=1)
    known = release(live, dict.fromkeys(NAMES, spec())) if live is not None else None
    return Place(state=scene.state, sound=draw(st.booleans()), made_live=made, release=known)


@dataclass(frozen=True, slots=True)
class World:
    """One look, as it is drawn: which of it is asked for depends on the state."""

    places: dict[str, Place]
    releases: dict[int, model.Release]
    rollouts: dict[int, model.Rollout | None]
    passed: frozenset[str]
    demanded: tuple[str, ...]
    frozen: str
    later_s: float

    def look(self, state: PipelineState, now: float) -> Look:
        travels = {
            one.id: Travel(
                release=self.releases[one.release],
                rollout=self.rollouts[one.release],
                passed=self.passed,
                demanded=self.demanded,
                frozen=self.frozen,
            )
            for one in state.promotions
        }
        return Look(now=now, places=self.places, travels=travels)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    return World(
        places={name: draw(places()) for name in NAMES if draw(st.sampled_from((True, True, False)))},
        releases={number: draw(releases(number)) for number in (1, 2, 3)},
        rollouts={number: draw(rollouts(number)) for number in (1, 2, 3)},
        passed=draw(PASSED),
        demanded=draw(st.sampled_from(((), NAMES[:1], NAMES[:2]))),
        frozen=draw(st.sampled_from(("", "", "frozen"))),
        later_s=draw(st.sampled_from((0.0, 1.0, 60.0))),
    )


@dataclass(frozen=True, slots=True)
class Ask:
    """Something that somebody asks between two looks."""

    what: str
    release: int
    environment: str
    supersede: bool
    key: str
    who: tuple[str, str]


ASKS: Final = st.builds(
    Ask,
    what=st.sampled_from(("promote", "promote", "promote", "approve", "withdraw")),
    release=st.integers(1, 3),
    environment=st.sampled_from(NAMES),
    supersede=st.sampled_from((False, False, False, True)),
    key=st.sampled_from(("", "a", "b")),
    who=PEOPLE,
)
STEPS: Final = st.lists(st.one_of(ASKS, worlds()), max_size=12)


def asked(state: PipelineState, ask: Ask, found: model.Release, now: float) -> PipelineState:
    """What becomes of a request; a refusal changes nothing."""
    names = [name for name, _ in found.environments]
    wanted = Promotion(
        id=0,
        release=found.number,
        digest=found.digest,
        identity=identity(found),
        path=tuple(names),
        environment=names[0],
        requester="ada",
        key=ask.key,
        supersede=ask.supersede,
    )
    given = Approval(environment=ask.environment, by=ask.who[0], role=ask.who[1], at=now)
    try:
        if ask.what == "promote":
            return pipeline.promote(state, wanted).state
        if ask.what == "approve":
            return pipeline.approve(state, ask.environment, None, given, (Approvals(),)).state
        return pipeline.withdraw(state, ask.environment, None, "bob").state
    except errors.RefusedError:
        return state


@dataclass(frozen=True, slots=True)
class Moment:
    """A step that was made."""

    before: PipelineState
    look: Look
    outcome: pipeline.Outcome


def lived(steps: list[Ask | World]) -> tuple[list[PipelineState], list[Moment]]:
    """All states, and all looks."""
    state, now = PipelineState(app="shop"), NOW
    known = {n: release(n, dict.fromkeys(NAMES, spec())) for n in (1, 2, 3)}
    for number in (1, 2):  # two that are under way from the beginning, or most journeys would be empty
        first = Ask("promote", number, "test", supersede=False, key="", who=("ada", "admin"))
        state = asked(state, first, known[number], now)
    states, moments = [state], []
    for step in steps:
        if isinstance(step, World):
            now += step.later_s
            # A release never changes: its manifest is the one by which it was asked for.
            look = replace(step, releases=known).look(state, now)
            outcome = pipeline.advance(state, look, step.later_s)
            moments.append(Moment(state, look, outcome))
            state = outcome.state
        else:
            if all(one.release != step.release for one in state.promotions):
                specs = [s.releases[step.release] for s in steps if isinstance(s, World)]
                known[step.release] = specs[0] if specs else known[step.release]
            state = asked(state, step, known[step.release], now)
        states.append(state)
    return states, moments


@SOME
@given(STEPS)
def test_gate_opens_only_to_what_may_enter(steps: list[Ask | World]) -> None:
    """All before it is passed, enough people agree in time, and nothing is frozen, halted, or in the way."""
    for moment in lived(steps)[1]:
        for begin in moment.outcome.begins:
            promotion = moment.outcome.state.promotion(begin.promotion)
            assert promotion is not None
            note(f"{begin} {promotion}")
            travel, there = moment.look.travels[begin.promotion], moment.look.places.get(begin.environment)
            before = promotion.path[: promotion.path.index(begin.environment)]
            assert {*before, *travel.demanded} <= travel.passed
            assert not travel.frozen
            assert travel.rollout is None
            assert promotion.environment == begin.environment
            assert promotion.ended is None
            if there is not None:
                assert not there.state.halted
                assert there.state.rollout is None or promotion.supersede
            live = there.state.live.spec if there is not None and there.state.live is not None else None
            for each in (travel.release.environment(begin.environment), live):
                if each is not None and each.approvals is not None:
                    assert agreed(promotion, each.approvals, moment.look.now) >= each.approvals.count


def agreed(promotion: Promotion, rule: Approvals, now: float) -> int:
    """How many people agree, written down again."""
    people = {
        one.by
        for one in promotion.approvals
        if one.environment == promotion.environment
        and now - one.at <= rule.expires_s
        and (not rule.roles or one.role in (*rule.roles, "admin"))
        and not (rule.not_by_requester and one.by == promotion.requester)
    }
    return len(people)


@SOME
@given(STEPS)
def test_no_promotion_is_ever_lost(steps: list[Ask | World]) -> None:
    """Each that was made is under way, or has ended and says how."""
    states, _ = lived(steps)
    for state in states:
        known = [one.id for one in (*state.promotions, *state.ended)]
        assert sorted(known) == list(range(1, state.next_id))
        assert all(one.ended is None for one in state.promotions)
        assert all(one.ended is not None and one.detail for one in state.ended)
        assert all(one.environment in one.path for one in (*state.promotions, *state.ended))


@SOME
@given(STEPS)
def test_only_the_newest_waits_at_a_gate(steps: list[Ask | World]) -> None:
    """After each look, of different releases."""
    for moment in lived(steps)[1]:
        for name in NAMES:
            there = [p for p in moment.outcome.state.promotions if p.environment == name and p.waits in GATES]
            assert len({one.release for one in there}) <= 1


@SOME
@given(STEPS)
def test_way_goes_forward_only(steps: list[Ask | World]) -> None:
    """No promotion goes back, none that has ended moves, and approvals stay where they were given."""
    states, _ = lived(steps)
    for before, after in itertools.pairwise(states):
        for was in (*before.promotions, *before.ended):
            now = after.promotion(was.id)
            assert now is not None
            if was.ended is not None:
                assert now == was
            assert now.path.index(now.environment) >= was.path.index(was.environment)
            assert {a.by for a in was.approvals} <= {a.by for a in now.approvals}
        for one in after.promotions:
            assert one.approvals == () or before.promotion(one.id) is not None


@SOME
@given(STEPS)
def test_pass_is_earned_once_by_a_deploy_in_order(steps: list[Ask | World]) -> None:
    """Of the live release, seen in order for its time, and no look adds more than a second."""
    for moment in lived(steps)[1]:
        for one in moment.outcome.passes:
            there = moment.look.places[one.environment]
            live, soak = there.state.live, moment.outcome.state.soak(one.environment)
            assert live is not None
            assert there.sound
            assert soak is not None
            assert (soak.passed, soak.placement) == (True, live.id)
            assert soak.soaked_s >= live.spec.soak_s
            before = moment.before.soak(one.environment)
            assert before is None or not (before.passed and before.placement == live.id and soak == before)
        for soak in moment.outcome.state.soaks:
            before = moment.before.soak(soak.environment)
            known_s = before.soaked_s if before is not None and before.placement == soak.placement else 0.0
            assert soak.soaked_s <= known_s + (
                TICK_MAX_S if moment.look.places[soak.environment].sound else 0
            )


@SOME
@given(STEPS)
def test_same_look_again_changes_no_decision(steps: list[Ask | World]) -> None:
    """A control plane that is killed after a commit comes to the same begins."""
    for moment in lived(steps)[1]:
        again = pipeline.advance(moment.outcome.state, moment.look, 0.0)
        once = {(begin.promotion, begin.environment) for begin in moment.outcome.begins}
        twice = {(begin.promotion, begin.environment) for begin in again.begins}
        ended = {one.id for one in again.state.ended}
        assert {each for each in once if each[0] not in ended} <= twice


@SOME
@given(STEPS)
def test_key_leads_to_one_promotion(steps: list[Ask | World]) -> None:
    """Asked twice, it is the same one, whatever has become of it."""
    for state in lived(steps)[0]:
        for one in (*state.promotions, *state.ended):
            if one.key:
                wanted = replace(one, id=0, ended=None, waits=None)
                decided = pipeline.promote(state, wanted)
                assert (decided.no_op, decided.promotion.key) == (True, one.key)
        keys = [one.key for one in (*state.promotions, *state.ended) if one.key]
        assert len(keys) == len(set(keys))

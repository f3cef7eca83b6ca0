"""Needs between apps, for any apps: somebody may always go on, and who goes back first is always right."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from tests.support.builders import API, environment, spec
from tidegate.core import needs
from tidegate.core.promotions import Promotion

NAMES = ("a", "b", "c", "d", "e")
GRAPHS = st.fixed_dictionaries({name: st.frozensets(st.sampled_from(NAMES)) for name in NAMES})
TIMES = st.fixed_dictionaries({name: st.sampled_from((1.0, 2.0, 3.0)) for name in NAMES})


def promotion(at: float) -> Promotion:
    return Promotion(
        id=1, release=1, digest="d", identity="i", path=("production",), environment="production", at=at
    )


@given(graph=GRAPHS, times=TIMES)
def test_somebody_never_waits(graph: dict[str, frozenset[str]], times: dict[str, float]) -> None:
    """Whoever needs whom, of promotions that wait for nothing else one may enter: the one asked for first."""
    live = environment().live("r1", spec(API)).state
    near = {n: needs.Neighbour(there=live, promotions=(promotion(times[n]),)) for n in NAMES}
    first = min(NAMES, key=lambda name: (times[name], name))
    waits = {
        name: needs.unmet(promotion(times[name]), name, tuple(f"{o}/api" for o in sorted(graph[name])), near)
        for name in NAMES
    }
    assert waits[first] == ""


@given(graph=GRAPHS)
def test_group_goes_back_in_reverse_of_its_needs(graph: dict[str, frozenset[str]]) -> None:
    """Each app once, after all that it waits for; without a circle it waits for all that depend on it."""
    members = needs.group("a", graph)
    order = [member.app for member in members]
    assert len(set(order)) == len(order)
    assert "a" in order
    for position, member in enumerate(members):
        assert set(member.after) <= set(order[:position])
        depending = {name for name in order if member.app in graph[name] and name != member.app}
        if not any(needs.circle(name, graph) for name in order):
            assert set(member.after) == depending


@given(graph=GRAPHS)
def test_group_is_the_same_whoever_asks(graph: dict[str, frozenset[str]]) -> None:
    """Of the apps in it, each finds the same group."""
    members = needs.group("a", graph)
    assert all(needs.group(member.app, graph) == members for member in members)


@given(graph=GRAPHS)
def test_circle_is_one(graph: dict[str, frozenset[str]]) -> None:
    """Each step of it is a need, and it ends where it began."""
    circle = needs.circle("a", graph)
    for name, needed in itertools.pairwise(circle):
        assert needed in graph[name]
    assert circle == () or (circle[0] == circle[-1] == "a")

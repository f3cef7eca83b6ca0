"""What apps need of each other: whether it is met, whether it is a circle, who goes back with whom. Pure.

Apps meet in environments of the same name. Rules:

- A release enters after what it needs: that is live there, no rollout of it is in progress there, and no
  promotion of it that was asked for earlier is still on its way there. Earlier is a total order, so that
  nobody waits for somebody who waits for them.
- Needs in a circle of apps are refused: none of them could enter first.
- A group goes back in reverse: who depends on others goes first.

Neighbours: `pipeline` waits by these sentences, `engine.neighbours` looks, `spec` orders services of one app.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tidegate.core import spec
from tidegate.core.model import EnvironmentSpec, EnvironmentState
from tidegate.core.promotions import Promotion

Needs = Mapping[str, frozenset[str]]
"""By app: the apps that it needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """Another app, as it stands in the environment."""

    there: EnvironmentState
    promotions: tuple[Promotion, ...] = ()
    """Of all that are under way those that lead there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """An app of a group that goes back together."""

    app: str
    after: tuple[str, ...]
    """Apps that depend on it, and are home before it begins; sorted."""


def foreign(wanted: EnvironmentSpec) -> tuple[str, ...]:
    """All services of other apps that an environment needs, as `app/service`, sorted."""
    return tuple(sorted({name for service in wanted.services for name in service.foreign}))


def apps(wanted: EnvironmentSpec) -> frozenset[str]:
    """The apps that it needs."""
    return frozenset(name.partition("/")[0] for name in foreign(wanted))


def leads_to(promotion: Promotion, environment: str) -> bool:
    """It stands before this environment, or in it."""
    path = promotion.path
    return environment in path and path.index(promotion.environment) <= path.index(environment)


def earlier(promotions: Iterable[Promotion], owner: str, than: Promotion, app: str) -> tuple[Promotion, ...]:
    """Those of `owner` that were asked for before that one of `app`; of the same moment the first by name."""
    return tuple(one for one in promotions if (one.at, owner) < (than.at, app))


def unmet(promotion: Promotion, app: str, wanted: tuple[str, ...], others: Mapping[str, Neighbour]) -> str:
    """What a promotion waits for where it stands; empty: all that it needs is there, and nothing moves."""
    name = promotion.environment
    for needed in wanted:
        owner, _, service = needed.partition("/")
        other = others[owner]
        live, rollout = other.there.live, other.there.rollout
        if live is None or not any(s.serves for s in live.spec.services if s.name == service):
            return f"needs {needed}, which is not live in {name}"
        if rollout is not None:
            return f"needs {needed}, and rollout #{rollout.id} of {owner} is in progress in {name}"
        before = earlier(other.promotions, owner, promotion, app)
        if before:
            return f"needs {needed}, and r{before[0].release} of {owner} was asked for earlier"
    return ""


def circle(app: str, needs: Needs) -> tuple[str, ...]:
    """Apps that need each other, from this one back to it; empty: it is in no circle."""
    trail: dict[str, str] = {}
    waiting = [app]
    while waiting:
        name = waiting.pop(0)
        for needed in sorted(needs.get(name, ())):
            if needed == app:
                steps = [app]
                while name != app:
                    steps.append(name)
                    name = trail[name]
                return (app, *reversed(steps))
            if needed not in trail:
                trail[needed] = name
                waiting.append(needed)
    return ()


def group(app: str, needs: Needs) -> tuple[Member, ...]:
    """All apps that are connected with this one, who depends on others first.

    Apps in a circle, which only an emergency can make, do not wait for each other.
    """
    known = {name: needs[name] & needs.keys() - {name} for name in needs}
    together, waiting = {app}, [app]
    while waiting:
        name = waiting.pop()
        near = known.get(name, frozenset()) | {other for other in known if name in known[other]}
        waiting += sorted(near - together)
        together |= near
    edges = {name: tuple(sorted(known.get(name, ()))) for name in sorted(together)}
    while circles := spec.cycles(edges):
        for members in circles:
            for name in members:
                edges[name] = tuple(other for other in edges[name] if other not in members)
    return tuple(
        Member(app=name, after=tuple(other for other in edges if name in edges[other]))
        for name in reversed(spec.dependency_order(edges))
    )

"""What other apps do in the environment of the same name, gathered for the pure rules of `core.needs`.

Neighbours: `gates` asks for each promotion, `together` for a group that goes back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tidegate import ports
from tidegate.core import model, needs
from tidegate.core.model import EnvironmentKey
from tidegate.core.promotions import Promotion


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbours:
    """Looks, and changes nothing. Safe to use from any thread."""

    store: ports.Store
    kept: ports.Pipelines

    def unmet(self, app: str, promotion: Promotion, release: model.Release) -> str:
        """What the release needs of other apps where it stands and does not find; empty: nothing."""
        wanted = release.environment(promotion.environment)
        if wanted is None or not needs.apps(wanted):
            return ""
        others = {other: self._neighbour(other, promotion.environment) for other in needs.apps(wanted)}
        return needs.unmet(promotion, app, needs.foreign(wanted), others)

    def circle(self, app: str, promotion: Promotion, release: model.Release) -> str:
        """The circle of apps that it would close where it stands, as a sentence; empty: none."""
        name = promotion.environment
        wanted = release.environment(name)
        found: dict[str, frozenset[str]] = {app: needs.apps(wanted) if wanted else frozenset()}
        waiting = list(found[app])
        while waiting:
            other = waiting.pop()
            if other not in found:
                specs = (*self._live(other, name), *self._earlier(other, app, promotion))
                found[other] = frozenset().union(*(needs.apps(spec) for spec in specs))
                waiting += found[other]
        names = needs.circle(app, found)
        if not names:
            return ""
        return (
            f"r{release.number} would close a circle of apps in {name}: {' -> '.join(names)}; "
            "none of them could enter first"
        )

    def behind(self, promotion: Promotion) -> tuple[tuple[str, Promotion], ...]:
        """Those that must be home before this one goes back, each with its app."""
        known = ((app, self.kept.promotion(app, number)) for app, number in promotion.after)
        return tuple((app, found) for app, found in known if found is not None)

    def group(self, key: EnvironmentKey) -> tuple[needs.Member, ...]:
        """Who goes back together with this app, in order."""
        apps = {other.app for other in self.store.environments() if other.environment == key.environment}
        live = {app: spec for app in sorted(apps) for spec in self._live(app, key.environment)}
        return needs.group(key.app, {app: needs.apps(spec) for app, spec in live.items()})

    def _neighbour(self, app: str, environment: str) -> needs.Neighbour:
        key = EnvironmentKey(app=app, environment=environment)
        return needs.Neighbour(there=self.store.load(key).state, promotions=self._leading(app, environment))

    def _leading(self, app: str, environment: str) -> tuple[Promotion, ...]:
        under_way = self.kept.load(app).state.promotions
        return tuple(one for one in under_way if needs.leads_to(one, environment))

    def _live(self, app: str, environment: str) -> tuple[model.EnvironmentSpec, ...]:
        live = self.store.load(EnvironmentKey(app=app, environment=environment)).state.live
        return (live.spec,) if live is not None else ()

    def _earlier(self, other: str, app: str, than: Promotion) -> Iterator[model.EnvironmentSpec]:
        leading = self._leading(other, than.environment)
        for promotion in needs.earlier(leading, other, than, app):
            release = self.store.release(other, promotion.release)
            spec = release.environment(than.environment) if release else None
            if spec is not None:
                yield spec

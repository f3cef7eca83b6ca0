"""Pipelines in memory, beside the store in memory: same lease, same events, same promises as the real ones.

Neighbours: `store` (whose lease and history these are), `tidegate.store.pipelines` (the real one).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tidegate import errors, ports
from tidegate.core import model
from tidegate.core.promotions import Pass, PipelineState, Promotion
from tidegate.testing.store import MemoryStore


def _nothing() -> None:
    """No crash here."""


class MemoryPipelines:
    """`ports.Pipelines` without a disk."""

    def __init__(
        self,
        store: MemoryStore,
        *,
        before_commit: Callable[[], None] = _nothing,
        after_commit: Callable[[], None] = _nothing,
    ) -> None:
        """The hooks surround every `commit`, as in `MemoryStore`."""
        self._store: Final = store
        self._before_commit: Final = before_commit
        self._after_commit: Final = after_commit
        self._states: dict[str, ports.VersionedPipeline] = {}
        self._promotions: dict[str, dict[int, Promotion]] = {}
        self.kept_passes: dict[str, list[Pass]] = {}
        """By app: for tests that edit the database."""

    def apps(self) -> tuple[str, ...]:
        return tuple(sorted({*self._states, *(key.app for key in self._store.environments())}))

    def load(self, app: str) -> ports.VersionedPipeline:
        return self._states.get(app) or ports.VersionedPipeline(version=0, state=PipelineState(app=app))

    def commit(
        self,
        lease: ports.Lease,
        versioned: ports.VersionedPipeline,
        state: PipelineState,
        *,
        passes: tuple[Pass, ...] = (),
        events: tuple[tuple[str, model.Event], ...] = (),
        at: float,
    ) -> ports.VersionedPipeline:
        app = versioned.state.app
        if state.app != app:
            raise errors.StoreError(f"The pipeline of {state.app} cannot replace that of {app}.")
        self._before_commit()
        self._store.add_events(
            lease,
            tuple((model.EnvironmentKey(app=app, environment=name), event) for name, event in events),
            at=at,
            check=lambda: self._check_version(versioned),
        )
        committed = ports.VersionedPipeline(version=versioned.version + 1, state=state)
        self._states[app] = committed
        self._promotions.setdefault(app, {}).update(
            {one.id: one for one in (*state.ended, *state.promotions)}
        )
        self.kept_passes.setdefault(app, []).extend(passes)
        self._after_commit()
        return committed

    def commit_together(
        self,
        lease: ports.Lease,
        changes: tuple[tuple[ports.VersionedPipeline, PipelineState], ...],
        *,
        at: float,
    ) -> None:
        for versioned, _ in changes:
            self._check_version(versioned)
        for versioned, state in changes:
            self.commit(lease, versioned, state, at=at)

    def _check_version(self, versioned: ports.VersionedPipeline) -> None:
        if self.load(versioned.state.app).version != versioned.version:
            raise errors.ConflictError

    def promotions(self, app: str, *, limit: int = 50) -> tuple[Promotion, ...]:
        known = self._promotions.get(app, {})
        return tuple(known[each] for each in sorted(known, reverse=True))[: max(limit, 0)]

    def promotion(self, app: str, promotion_id: int) -> Promotion | None:
        return self._promotions.get(app, {}).get(promotion_id)

    def promotion_by_key(self, app: str, key: str) -> Promotion | None:
        known = self._promotions.get(app, {}).values()
        return max((one for one in known if key and one.key == key), key=lambda one: one.id, default=None)

    def passes(self, app: str, identity: str) -> tuple[Pass, ...]:
        return tuple(one for one in self.kept_passes.get(app, ()) if one.identity == identity)

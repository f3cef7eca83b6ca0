"""`ports.Pipelines` in the store's own file: one row per app, its promotions, and what has passed.

Neighbours: `sqlite` (transactions, lease), `pipelines_sql` (statements), `codec` (records).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any, Final

from tidegate import errors, ports
from tidegate.core import model
from tidegate.core.promotions import Pass, PipelineState, Promotion
from tidegate.store import codec, sql
from tidegate.store import pipelines_sql as texts
from tidegate.store.sqlite import SqliteStore


class SqlitePipelines:
    """`ports.Pipelines`."""

    def __init__(self, store: SqliteStore) -> None:
        self._store: Final = store

    def apps(self) -> tuple[str, ...]:
        return tuple(app for (app,) in self._store.rows(texts.APPS, {}))

    def load(self, app: str) -> ports.VersionedPipeline:
        for version, text in self._store.rows(texts.LOAD, {"app": app}):
            return ports.VersionedPipeline(version=version, state=codec.PIPELINE.decode(text))
        return ports.VersionedPipeline(version=0, state=PipelineState(app=app))

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
        with self._store.transaction(lease) as connection:
            self._write(connection, versioned, state, passes=passes, events=events, at=at)
        return ports.VersionedPipeline(version=versioned.version + 1, state=state)

    def commit_together(
        self,
        lease: ports.Lease,
        changes: tuple[tuple[ports.VersionedPipeline, PipelineState], ...],
        *,
        at: float,
    ) -> None:
        with self._store.transaction(lease) as connection:
            for versioned, state in changes:
                self._write(connection, versioned, state, passes=(), events=(), at=at)

    @staticmethod
    def _write(
        connection: sqlite3.Connection,
        versioned: ports.VersionedPipeline,
        state: PipelineState,
        *,
        passes: tuple[Pass, ...],
        events: tuple[tuple[str, model.Event], ...],
        at: float,
    ) -> None:
        app = versioned.state.app
        if state.app != app:
            raise errors.StoreError(f"The pipeline of {state.app} cannot replace that of {app}.")
        row = {"app": app, "version": versioned.version, "state": codec.PIPELINE.encode(state)}
        promotions = [_promotion_row(app, one) for one in _changed(versioned.state, state)]
        sealed = [{"app": app, "identity": one.identity, "record": codec.PASS.encode(one)} for one in passes]
        told = [
            {"app": app, "environment": name, "at": at, "record": codec.EVENT.encode(event)}
            for name, event in events
        ]
        statement = texts.REPLACE if versioned.version else texts.INSERT
        if not connection.execute(statement, row).fetchall():
            raise errors.ConflictError(
                f"The pipeline of {app} has changed since version {versioned.version}."
            )
        connection.executemany(texts.RECORD_PROMOTION, promotions)
        connection.executemany(texts.KEEP_PASS, sealed)
        connection.executemany(sql.ADD_EVENT, told)

    def promotions(self, app: str, *, limit: int = 50) -> tuple[Promotion, ...]:
        return self._promotions(texts.PROMOTIONS, {"app": app, "limit": max(limit, 0)})

    def promotion(self, app: str, promotion_id: int) -> Promotion | None:
        return next(iter(self._promotions(texts.PROMOTION, {"app": app, "id": promotion_id})), None)

    def promotion_by_key(self, app: str, key: str) -> Promotion | None:
        return next(iter(self._promotions(texts.PROMOTION_BY_KEY, {"app": app, "request_key": key})), None)

    def passes(self, app: str, identity: str) -> tuple[Pass, ...]:
        rows = self._store.rows(texts.PASSES, {"app": app, "identity": identity})
        return tuple(codec.PASS.decode(text) for (text,) in rows)

    def _promotions(self, statement: str, values: Mapping[str, Any]) -> tuple[Promotion, ...]:
        return tuple(codec.PROMOTION.decode(text) for (text,) in self._store.rows(statement, dict(values)))


def _changed(before: PipelineState, after: PipelineState) -> list[Promotion]:
    known = {*before.promotions, *before.ended}
    return [one for one in (*after.promotions, *after.ended) if one not in known]


def _promotion_row(app: str, promotion: Promotion) -> dict[str, Any]:
    return {
        "app": app,
        "id": promotion.id,
        "request_key": promotion.key,
        "record": codec.PROMOTION.encode(promotion),
    }

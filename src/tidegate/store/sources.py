"""Sources, pushes, webhooks and status reports in the store's own file.

Hides rows and transactions. Invariants: a push that was acknowledged is on the disk; of one app at most one
is building; what was superseded, or delivered, is never changed again; a webhook is heard once. Whoever reads
sees committed rows only. Neighbours: `sources_sql` has the statements, `sqlite` the transactions, and
`tidegate.pushes` says what is promised.
"""

from __future__ import annotations

from typing import Any, Final

import pydantic

from tidegate import errors, ports, pushes
from tidegate.store import sources_sql
from tidegate.store.sqlite import Row, SqliteStore

#: Webhooks that are remembered of each app: years of a busy repository.
HINTS_KEPT: Final = 10_000

_SOURCE: Final = pydantic.TypeAdapter(pushes.Source)


class SqliteSources:
    """`pushes.Sources`, `pushes.Pushes` and `pushes.Statuses` over a store. Safe to call from any thread."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    # --- sources ----------------------------------------------------------------------------------

    def keep(self, lease: ports.Lease, source: pushes.Source) -> None:
        record = _SOURCE.dump_json(source).decode()
        with self._store.transaction(lease) as connection:
            connection.execute(sources_sql.KEEP, {"app": source.app, "record": record})

    def source(self, app: str) -> pushes.Source | None:
        rows = self._store.rows(sources_sql.SOURCE, {"app": app})
        return _source(rows[0]) if rows else None

    def sources(self) -> tuple[pushes.Source, ...]:
        return tuple(_source(row) for row in self._store.rows(sources_sql.SOURCES, {}))

    def drop(self, lease: ports.Lease, app: str, *, at: float) -> None:
        over = {"app": app, "id": 2**62, "at": at, "detail": "the source was removed"}
        with self._store.transaction(lease) as connection:
            connection.execute(sources_sql.DROP, {"app": app})
            connection.execute(sources_sql.FORGET_REFS, {"app": app})
            connection.execute(sources_sql.SUPERSEDE, over)

    def hear(self, lease: ports.Lease, hint: pushes.Hint, *, heeded: bool) -> bool:
        values = {
            "app": hint.app,
            "delivery": hint.delivery,
            "body": hint.body,
            "ref": hint.ref,
            "revision": hint.revision,
            "at": hint.at,
            "heeded": int(heeded),
        }
        with self._store.transaction(lease) as connection:
            heard = connection.execute(sources_sql.HEAR, values).fetchall()
            connection.execute(sources_sql.FORGET_HINTS, {"app": hint.app, "kept": HINTS_KEPT})
        return bool(heard)

    def hints(self) -> tuple[pushes.Hint, ...]:
        rows = self._store.rows(sources_sql.HINTS, {})
        return tuple(
            pushes.Hint(id=number, app=app, delivery=delivery, body=body, ref=ref, revision=revision, at=at)
            for number, app, delivery, body, ref, revision, at in rows
        )

    def heed(self, lease: ports.Lease, hint: int) -> None:
        with self._store.transaction(lease) as connection:
            connection.execute(sources_sql.HEED, {"id": hint})

    # --- pushes -----------------------------------------------------------------------------------

    def seen(self, app: str) -> dict[str, str]:
        return dict(self._store.rows(sources_sql.SEEN, {"app": app}))

    def note(self, lease: ports.Lease, app: str, ref: str, revision: str) -> None:
        with self._store.transaction(lease) as connection:
            connection.execute(sources_sql.NOTE, {"app": app, "ref": ref, "revision": revision}).fetchall()

    def enqueue(self, lease: ports.Lease, push: pushes.Push, *, again: bool = False) -> pushes.Push | None:
        values = {
            "app": push.app,
            "ref": push.ref,
            "revision": push.revision,
            "target": push.to,
            "pushed_by": push.by,
            "how": push.how.value,
            "delivery": push.delivery,
            "queued_at": push.queued_at,
        }
        with self._store.transaction(lease) as connection:
            sources = connection.execute(sources_sql.SOURCE, {"app": push.app}).fetchall()
            if not sources:
                raise errors.NotFoundError(
                    f"The app {push.app} has no source.", hint="`tide source add` makes one."
                )
            fresh = connection.execute(sources_sql.NOTE, values).fetchall()
            if not fresh and not again:
                return None
            (row,) = connection.execute(sources_sql.ENQUEUE, values).fetchall()
            queued = _push(row)
            if _source(sources[0]).on_push is pushes.OnPush.SUPERSEDE:
                over = {"app": push.app, "id": queued.id, "at": push.queued_at}
                detail = f"superseded by push {queued.name}"
                connection.execute(sources_sql.SUPERSEDE, {**over, "detail": detail})
        return queued

    def start(self, lease: ports.Lease, push: int, *, at: float) -> pushes.Push | None:
        with self._store.transaction(lease) as connection:
            rows = connection.execute(sources_sql.START, {"id": push, "at": at}).fetchall()
        return _push(rows[0]) if rows else None

    def settle(self, lease: ports.Lease, push: pushes.Push, *, was: pushes.PushState) -> bool:
        values = {
            "id": push.id,
            "state": push.state.value,
            "release": push.release,
            "promotion": push.promotion,
            "detail": push.detail,
            "ended_at": push.ended_at,
            "was": was.value,
        }
        with self._store.transaction(lease) as connection:
            return bool(connection.execute(sources_sql.SETTLE, values).fetchall())

    def restart(self, lease: ports.Lease, *, attempts_max: int, at: float) -> None:
        detail = f"the control plane ended {attempts_max} times while this was built"
        with self._store.transaction(lease) as connection:
            connection.execute(
                sources_sql.GIVE_UP, {"at": at, "attempts_max": attempts_max, "detail": detail}
            )
            connection.execute(sources_sql.REQUEUE)

    def push(self, push: int) -> pushes.Push | None:
        rows = self._store.rows(sources_sql.ONE, {"id": push})
        return _push(rows[0]) if rows else None

    def newest(self, app: str | None = None, *, limit: int = 50) -> tuple[pushes.Push, ...]:
        rows = self._store.rows(sources_sql.NEWEST, {"app": app, "limit": max(limit, 0)})
        return tuple(_push(row) for row in rows)

    def waiting(self) -> tuple[pushes.Push, ...]:
        return tuple(_push(row) for row in self._store.rows(sources_sql.WAITING, {}))

    # --- status reports ---------------------------------------------------------------------------

    def want(self, lease: ports.Lease, status: pushes.Status) -> None:
        values = {**_named(status), "due_at": status.due_at}
        with self._store.transaction(lease) as connection:
            connection.execute(sources_sql.WANT, values)

    def due(self, *, at: float, limit: int = 20) -> tuple[pushes.Status, ...]:
        rows = self._store.rows(sources_sql.DUE, {"at": at, "limit": limit})
        return tuple(
            pushes.Status(
                push=push,
                context=context,
                state=state,
                description=description,
                attempts=attempts,
                due_at=due_at,
            )
            for push, context, state, description, attempts, due_at in rows
        )

    def told(self, lease: ports.Lease, status: pushes.Status) -> None:
        with self._store.transaction(lease) as connection:
            connection.execute(sources_sql.TOLD, _named(status))

    def retry(self, lease: ports.Lease, status: pushes.Status, *, due_at: float) -> None:
        with self._store.transaction(lease) as connection:
            connection.execute(sources_sql.RETRY, {**_named(status), "due_at": due_at})


def _named(status: pushes.Status) -> dict[str, Any]:
    return {
        "push": status.push,
        "context": status.context,
        "state": status.state,
        "description": status.description,
    }


def _source(row: Row) -> pushes.Source:
    try:
        return _SOURCE.validate_json(row[0])
    except pydantic.ValidationError as error:
        raise errors.StoreError(
            "A source in the state cannot be read.", hint="Was it changed, or written by a newer Tidegate?"
        ) from error


def _push(row: Row) -> pushes.Push:
    number, app, ref, revision, target, state, by, how, delivery, *rest = row
    queued_at, started_at, ended_at, attempt, release, promotion, detail = rest
    return pushes.Push(
        id=number,
        app=app,
        ref=ref,
        revision=revision,
        to=target,
        state=pushes.PushState(state),
        by=by,
        how=pushes.How(how),
        delivery=delivery,
        queued_at=queued_at,
        started_at=started_at,
        ended_at=ended_at,
        attempt=attempt,
        release=release,
        promotion=promotion,
        detail=detail,
    )

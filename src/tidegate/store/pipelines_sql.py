"""Promotions under way, and what has passed: the step of the schema, and a text per operation.

Rules: see `sql`.
"""

from __future__ import annotations

from typing import Final

STEP: Final[tuple[str, ...]] = (
    """
    create table pipelines (
        app text primary key,
        version integer not null check (version > 0),
        state text not null
    ) strict
    """,
    """
    create table promotions (
        app text not null,
        id integer not null,
        request_key text not null,
        record text not null,
        primary key (app, id)
    ) strict
    """,
    """
    create table passes (
        sequence integer primary key autoincrement,
        app text not null,
        identity text not null,
        record text not null
    ) strict
    """,
    "create index passes_by_identity on passes (app, identity, sequence)",
)

APPS: Final = "select app from pipelines union select app from environments order by app"

LOAD: Final = "select version, state from pipelines where app = :app"

INSERT: Final = """
    insert into pipelines (app, version, state) values (:app, 1, :state)
    on conflict (app) do nothing
    returning version
"""

REPLACE: Final = """
    update pipelines set version = version + 1, state = :state
    where app = :app and version = :version
    returning version
"""

RECORD_PROMOTION: Final = """
    insert into promotions (app, id, request_key, record) values (:app, :id, :request_key, :record)
    on conflict (app, id) do update set record = excluded.record where promotions.record <> excluded.record
"""

PROMOTIONS: Final = "select record from promotions where app = :app order by id desc limit :limit"

PROMOTION: Final = "select record from promotions where app = :app and id = :id"

PROMOTION_BY_KEY: Final = """
    select record from promotions where app = :app and request_key = :request_key and request_key <> ''
    order by id desc limit 1
"""

KEEP_PASS: Final = "insert into passes (app, identity, record) values (:app, :identity, :record)"  # noqa: S105 - of a gate

PASSES: Final = "select record from passes where app = :app and identity = :identity order by sequence"

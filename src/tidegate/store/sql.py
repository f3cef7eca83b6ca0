"""Every SQL statement of the store: one visible text per operation, and the steps of the schema.

The statements keep to what SQLite and PostgreSQL share: named texts, JSON as text, times as numbers of
seconds, `on conflict`, `returning`. What differs (placeholders, the identity column, pragmas, triggers)
stands in `sqlite` and in `STEPS` alone, so that another database brings its own steps, not its own store.

Rules of the schema: a step is never edited once released, a new one is added to the end; a step adds what
the release before can live with (it may run once more, after a downgrade), and removes only what that
release no longer uses.
"""

from __future__ import annotations

from typing import Final

from tidegate.store import audit_sql, pipelines_sql, proofs_sql, secrets_sql, sources_sql

_FIRST: Final = (
    """
    create table lease (
        id integer primary key check (id = 1),
        holder text not null,
        epoch integer not null,
        expires real not null
    ) strict
    """,
    "insert into lease (id, holder, epoch, expires) values (1, '', 0, 0)",
    """
    create table environments (
        app text not null,
        environment text not null,
        version integer not null check (version > 0),
        schema integer not null,
        state text not null,
        primary key (app, environment)
    ) strict
    """,
    """
    create table releases (
        app text not null,
        number integer not null check (number > 0),
        digest text not null,
        spec text not null,
        revision text not null,
        created_at real not null,
        created_by text not null,
        primary key (app, number),
        unique (app, digest, spec)
    ) strict
    """,
    """
    create table rollouts (
        app text not null,
        environment text not null,
        id integer not null,
        request_key text not null,
        record text not null,
        started_at real not null,
        ended_at real,
        primary key (app, environment, id)
    ) strict
    """,
    """
    create unique index rollouts_by_request_key on rollouts (app, environment, request_key)
        where request_key <> ''
    """,
    """
    create table events (
        sequence integer primary key autoincrement,
        at real not null,
        app text not null,
        environment text not null,
        record text not null
    ) strict
    """,
    "create index events_by_environment on events (app, environment, sequence)",
    """
    create trigger events_are_never_changed before update on events
        begin select raise(abort, 'events are append-only'); end
    """,
    """
    create trigger events_are_never_deleted before delete on events
        begin select raise(abort, 'events are append-only'); end
    """,
    """
    create table outbox (
        sequence integer primary key autoincrement,
        at real not null,
        key text not null unique,
        topic text not null,
        payload text not null,
        delivered_at real
    ) strict
    """,
    "create index outbox_waiting on outbox (sequence) where delivered_at is null",
    """
    create table link_ports (
        port integer primary key,
        app text not null,
        environment text not null,
        service text not null,
        slot integer not null,
        unique (app, environment, service, slot)
    ) strict
    """,
)

#: Ordered steps of the schema; `user_version` counts those done. Each runs in one transaction.
STEPS: Final[tuple[tuple[str, ...], ...]] = (
    _FIRST,
    pipelines_sql.STEP,
    secrets_sql.STEP,
    audit_sql.STEP,
    sources_sql.STEP,
    proofs_sql.STEP,
)

# --- lease ---------------------------------------------------------------------------------------------

READ_LEASE: Final = "select holder, epoch, expires from lease where id = 1"

TAKE_LEASE: Final = """
    update lease set holder = :holder, epoch = epoch + 1, expires = :expires
    where id = 1 and (holder in ('', :holder) or expires <= :now or epoch <= :dead_epoch)
    returning epoch
"""

RENEW_LEASE: Final = """
    update lease set expires = :expires
    where id = 1 and epoch = :epoch and holder = :holder
    returning epoch
"""

GIVE_LEASE_BACK: Final = "update lease set holder = '' where id = 1 and epoch = :epoch and holder = :holder"

CHECK_LEASE: Final = "select 1 from lease where id = 1 and epoch = :epoch and holder = :holder"

# --- states --------------------------------------------------------------------------------------------

ENVIRONMENTS: Final = "select app, environment from environments order by app, environment"

NEWEST_SCHEMA: Final = "select coalesce(max(schema), 0) from environments"

LOAD_STATE: Final = """
    select version, state from environments where app = :app and environment = :environment
"""

INSERT_STATE: Final = """
    insert into environments (app, environment, version, schema, state)
    values (:app, :environment, 1, :schema, :state)
    on conflict (app, environment) do nothing
    returning version
"""

REPLACE_STATE: Final = """
    update environments set version = version + 1, schema = :schema, state = :state
    where app = :app and environment = :environment and version = :version
    returning version
"""

# --- history -------------------------------------------------------------------------------------------

RECORD_ROLLOUT: Final = """
    insert into rollouts (app, environment, id, request_key, record, started_at, ended_at)
    values (:app, :environment, :id, :request_key, :record, :at, :ended_at)
    on conflict (app, environment, id) do update
    set record = excluded.record, ended_at = coalesce(rollouts.ended_at, excluded.ended_at)
    where rollouts.record <> excluded.record
"""

HISTORY: Final = """
    select record, started_at, ended_at from rollouts
    where app = :app and environment = :environment
    order by id desc limit :limit
"""

ROLLOUT_BY_REQUEST_KEY: Final = """
    select record, started_at, ended_at from rollouts
    where app = :app and environment = :environment and request_key = :request_key and request_key <> ''
"""

ADD_EVENT: Final = """
    insert into events (at, app, environment, record) values (:at, :app, :environment, :record)
"""

EVENTS: Final = """
    select sequence, at, record from events
    where app = :app and environment = :environment and sequence > :after
    order by sequence limit :limit
"""

# --- outbox --------------------------------------------------------------------------------------------

ADD_MESSAGE: Final = """
    insert into outbox (at, key, topic, payload) values (:at, :key, :topic, :payload)
    on conflict (key) do nothing
"""

OUTBOX: Final = """
    select sequence, at, key, topic, payload from outbox
    where delivered_at is null order by sequence limit :limit
"""

MARK_DELIVERED: Final = """
    update outbox set delivered_at = :at where sequence = :sequence and delivered_at is null
"""

# --- releases ------------------------------------------------------------------------------------------

RELEASES_OF_DIGEST: Final = """
    select number, digest, spec, revision, created_at, created_by from releases
    where app = :app and digest = :digest order by number
"""

ADD_RELEASE: Final = """
    insert into releases (app, number, digest, spec, revision, created_at, created_by)
    select :app, coalesce(max(number), 0) + 1, :digest, :spec, :revision, :created_at, :created_by
    from releases where app = :app
    returning number
"""

RELEASES: Final = """
    select number, digest, spec, revision, created_at, created_by from releases
    where app = :app order by number desc limit :limit
"""

RELEASE: Final = """
    select number, digest, spec, revision, created_at, created_by from releases
    where app = :app and number = :number
"""

# --- links ---------------------------------------------------------------------------------------------

LINK_PORTS: Final = "select port, app, environment, service, slot from link_ports"

RESERVE_LINK_PORT: Final = """
    insert into link_ports (port, app, environment, service, slot)
    values (:port, :app, :environment, :service, :slot)
    on conflict (app, environment, service, slot) do nothing
"""

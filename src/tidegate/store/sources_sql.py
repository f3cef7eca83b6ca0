"""Where releases come from: repositories, pushes, builds: the step of the schema, and a text per operation.

Rules: see `sql`.
"""

from __future__ import annotations

from typing import Final

STEP: Final[tuple[str, ...]] = (
    """
    create table sources (
        app text primary key,
        record text not null
    ) strict
    """,
    # The newest commit of a branch or tag that was taken notice of, built or not.
    """
    create table source_refs (
        app text not null,
        ref text not null,
        revision text not null,
        primary key (app, ref)
    ) strict
    """,
    """
    create table pushes (
        id integer primary key autoincrement,
        app text not null,
        ref text not null,
        revision text not null,
        target text not null,
        state text not null check (state in ('queued', 'building', 'released', 'failed', 'superseded')),
        pushed_by text not null,
        how text not null check (how in ('push', 'webhook', 'poll', 'asked')),
        delivery text not null,
        queued_at real not null,
        started_at real,
        ended_at real,
        attempt integer not null,
        release integer,
        promotion text,
        detail text not null
    ) strict
    """,
    "create index pushes_by_app on pushes (app, id)",
    # One build per app at a time is no promise of the code, but of the table.
    "create unique index pushes_one_build on pushes (app) where state = 'building'",
    """
    create index pushes_waiting on pushes (id)
        where state in ('queued', 'building') or (state = 'released' and promotion is null)
    """,
    """
    create table hints (
        id integer primary key autoincrement,
        app text not null,
        delivery text not null,
        body text not null,
        ref text not null,
        revision text not null,
        at real not null,
        heeded integer not null default 0,
        unique (app, delivery),
        unique (app, body)
    ) strict
    """,
    "create index hints_waiting on hints (id) where heeded = 0",
    """
    create table statuses (
        push integer not null,
        context text not null,
        state text not null,
        description text not null,
        attempts integer not null,
        due_at real,
        primary key (push, context)
    ) strict
    """,
    "create index statuses_due on statuses (due_at) where due_at is not null",
)

#: Columns of a push, in the order that they are read in.
PUSH: Final = (
    "id, app, ref, revision, target, state, pushed_by, how, delivery, queued_at, started_at, ended_at, "
    "attempt, release, promotion, detail"
)

# --- sources -------------------------------------------------------------------------------------------

KEEP: Final = """
    insert into sources (app, record) values (:app, :record)
    on conflict (app) do update set record = excluded.record
"""

SOURCES: Final = "select record from sources order by app"

SOURCE: Final = "select record from sources where app = :app"

DROP: Final = "delete from sources where app = :app"

FORGET_REFS: Final = "delete from source_refs where app = :app"

# --- webhooks ------------------------------------------------------------------------------------------

HEAR: Final = """
    insert into hints (app, delivery, body, ref, revision, at, heeded)
    values (:app, :delivery, :body, :ref, :revision, :at, :heeded)
    on conflict do nothing
    returning id
"""

HINTS: Final = "select id, app, delivery, body, ref, revision, at from hints where heeded = 0 order by id"

HEED: Final = "update hints set heeded = 1 where id = :id"

#: Old ones can only cause a look at the remote, so that it does no harm to forget them.
FORGET_HINTS: Final = """
    delete from hints where heeded = 1 and app = :app and id <= (
        select id from hints where app = :app order by id desc limit 1 offset :kept
    )
"""

# --- pushes --------------------------------------------------------------------------------------------

SEEN: Final = "select ref, revision from source_refs where app = :app"

NOTE: Final = """
    insert into source_refs (app, ref, revision) values (:app, :ref, :revision)
    on conflict (app, ref) do update set revision = excluded.revision
    where source_refs.revision <> excluded.revision
    returning revision
"""

ENQUEUE: Final = f"""
    insert into pushes
        (app, ref, revision, target, state, pushed_by, how, delivery, queued_at, attempt, detail)
    values (:app, :ref, :revision, :target, 'queued', :pushed_by, :how, :delivery, :queued_at, 0, '')
    returning {PUSH}
"""  # noqa: S608 - the names of our own columns

SUPERSEDE: Final = """
    update pushes set state = 'superseded', ended_at = :at, detail = :detail
    where app = :app and id < :id
    and (state in ('queued', 'building') or (state = 'released' and promotion is null))
"""

START: Final = f"""
    update pushes set state = 'building', attempt = attempt + 1, started_at = :at
    where id = :id and state = 'queued'
    and not exists (select 1 from pushes as other where other.app = pushes.app and other.state = 'building')
    returning {PUSH}
"""  # noqa: S608 - the names of our own columns

SETTLE: Final = """
    update pushes
    set state = :state, release = :release, promotion = :promotion, detail = :detail, ended_at = :ended_at
    where id = :id and state = :was and promotion is null
    returning id
"""

GIVE_UP: Final = """
    update pushes set state = 'failed', ended_at = :at, detail = :detail
    where state = 'building' and attempt >= :attempts_max
"""

REQUEUE: Final = "update pushes set state = 'queued' where state = 'building'"

ONE: Final = f"select {PUSH} from pushes where id = :id"  # noqa: S608 - the names of our own columns

NEWEST: Final = f"""
    select {PUSH} from pushes where :app is null or app = :app order by id desc limit :limit
"""  # noqa: S608 - the names of our own columns

WAITING: Final = f"""
    select {PUSH} from pushes
    where state in ('queued', 'building') or (state = 'released' and promotion is null)
    order by id
"""  # noqa: S608 - the names of our own columns

# --- status reports ------------------------------------------------------------------------------------

WANT: Final = """
    insert into statuses (push, context, state, description, attempts, due_at)
    values (:push, :context, :state, :description, 0, :due_at)
    on conflict (push, context) do update
    set state = excluded.state, description = excluded.description, attempts = 0, due_at = excluded.due_at
    where statuses.state <> excluded.state or statuses.description <> excluded.description
"""

DUE: Final = """
    select push, context, state, description, attempts, due_at from statuses
    where due_at <= :at order by due_at limit :limit
"""

TOLD: Final = """
    update statuses set due_at = null
    where push = :push and context = :context and state = :state and description = :description
"""

RETRY: Final = """
    update statuses set due_at = :due_at, attempts = attempts + 1
    where push = :push and context = :context and state = :state and description = :description
"""

"""The audit log, and tokens: the step of the schema, and a text per operation.

Entries are numbered from 1 on, without a gap, and never changed: the triggers refuse whoever uses SQL, and
the chain finds whoever goes around them. Rules: see `sql`.
"""

from __future__ import annotations

from typing import Final

STEP: Final[tuple[str, ...]] = (
    """
    create table audit (
        sequence integer primary key,
        at real not null,
        asker text not null,
        role text not null,
        token integer,
        action text not null,
        app text not null,
        environment text not null,
        release integer,
        outcome text not null,
        reason text not null,
        detail text not null,
        answers integer,
        mac blob not null
    ) strict
    """,
    "create index audit_answers on audit (answers) where answers is not null",
    """
    create trigger audit_next before insert on audit
    when new.sequence is not (select coalesce(max(sequence), 0) + 1 from audit)
    begin select raise(abort, 'the audit log is only ever appended to'); end
    """,
    """
    create trigger audit_no_update before update on audit
    begin select raise(abort, 'the audit log is only ever appended to'); end
    """,
    """
    create trigger audit_no_delete before delete on audit
    begin select raise(abort, 'the audit log is only ever appended to'); end
    """,
    """
    create table tokens (
        id integer primary key autoincrement,
        digest text not null unique,
        name text not null,
        role text not null,
        scope text not null,
        created_at real not null,
        created_by text not null,
        expires_at real,
        used_at real,
        revoked_at real,
        revoked_by text not null default '',
        mac blob not null default x''
    ) strict
    """,
    "create unique index tokens_in_force on tokens (name) where revoked_at is null",
)

# --- audit ---------------------------------------------------------------------------------------------

LAST: Final = "select sequence, mac from audit order by sequence desc limit 1"

APPEND: Final = """
    insert into audit (sequence, at, asker, role, token, action, app, environment, release, outcome, reason,
        detail, answers, mac)
    values (:sequence, :at, :asker, :role, :token, :action, :app, :environment, :release, :outcome, :reason,
        :detail, :answers, :mac)
"""

#: Newest first. What was asked is left out where an answer follows.
ENTRIES: Final = """
    select sequence, at, asker, role, token, action, app, environment, release, outcome, reason, detail,
        answers
    from audit
    where sequence < :before
        and (:app = '' or app = :app)
        and (:environment = '' or environment = :environment)
        and (:asker = '' or asker = :asker or substr(asker, 1, length(:asker) + 5) = :asker || ' for ')
        and (:outcome = '' or outcome = :outcome)
        and (outcome <> 'asked' or not exists (
            select 1 from audit as answer where answer.answers = audit.sequence
        ))
    order by sequence desc limit :limit
"""

#: As bytes: whoever has edited them may have left what is no text.
CHAIN: Final = """
    select sequence, at, cast(asker as blob), cast(role as blob), token, cast(action as blob),
        cast(app as blob), cast(environment as blob), release, cast(outcome as blob), cast(reason as blob),
        cast(detail as blob), answers, mac
    from audit where sequence > :after order by sequence limit :limit
"""

MACS: Final = "select sequence, mac from audit where sequence between :first and :last order by sequence"

MAC: Final = "select mac from audit where sequence = :sequence"

# --- tokens --------------------------------------------------------------------------------------------

_COLUMNS: Final = """
    select id, name, role, scope, created_at, created_by, expires_at, used_at, revoked_at, revoked_by
"""

ISSUE: Final = """
    insert into tokens (digest, name, role, scope, created_at, created_by, expires_at)
    values (:digest, :name, :role, :scope, :created_at, :created_by, :expires_at)
    returning id
"""

IN_FORCE: Final = f"""
    {_COLUMNS}, digest, mac from tokens where name = :name and revoked_at is null
"""

FIND: Final = f"{_COLUMNS}, digest, mac from tokens where digest = :digest"

ISSUED: Final = f"{_COLUMNS} from tokens order by id desc"

REVOKE: Final = """
    update tokens set revoked_at = :at, revoked_by = :by, mac = :mac where id = :id and revoked_at is null
"""

SEAL: Final = "update tokens set mac = :mac where id = :id"

USE: Final = "update tokens set used_at = :at where id = :id"

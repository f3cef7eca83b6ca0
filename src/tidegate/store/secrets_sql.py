"""Sealed secrets of environments, and provenances of releases: the step of the schema, a text per operation.

A number of a version is given once: `secret_names` remembers it also when all versions were removed.
Rules: see `sql`.
"""

from __future__ import annotations

from typing import Final

STEP: Final[tuple[str, ...]] = (
    """
    create table secret_names (
        app text not null,
        environment text not null,
        name text not null,
        newest integer not null check (newest > 0),
        primary key (app, environment, name)
    ) strict
    """,
    """
    create table secrets (
        app text not null,
        environment text not null,
        name text not null,
        version integer not null check (version > 0),
        key_id text not null,
        sealed blob not null,
        set_at real not null,
        set_by text not null,
        primary key (app, environment, name, version),
        foreign key (app, environment, name) references secret_names
    ) strict
    """,
    """
    create table provenances (
        app text not null,
        number integer not null,
        envelope text not null,
        manifest text not null,
        kept_at real not null,
        primary key (app, number),
        foreign key (app, number) references releases
    ) strict
    """,
)

NEXT_VERSION: Final = """
    insert into secret_names (app, environment, name, newest) values (:app, :environment, :name, 1)
    on conflict (app, environment, name) do update set newest = newest + 1
    returning newest
"""

ADD_VERSION: Final = """
    insert into secrets (app, environment, name, version, key_id, sealed, set_at, set_by)
    values (:app, :environment, :name, :version, :key_id, :sealed, :at, :by)
"""

VERSIONS: Final = """
    select name, version, key_id, sealed, set_at, set_by from secrets
    where app = :app and environment = :environment order by name, version
"""

VERSION: Final = """
    select name, version, key_id, sealed, set_at, set_by from secrets
    where app = :app and environment = :environment and name = :name and version = :version
"""

PLACES: Final = "select distinct app, environment from secrets order by app, environment"

REMOVE: Final = """
    delete from secrets where app = :app and environment = :environment and name = :name
    returning version
"""

SEAL_AGAIN: Final = """
    update secrets set key_id = :key_id, sealed = :sealed
    where app = :app and environment = :environment and name = :name and version = :version
"""

KEEP_PROVENANCE: Final = """
    insert into provenances (app, number, envelope, manifest, kept_at)
    values (:app, :number, :envelope, :manifest, :at)
    on conflict (app, number) do update
    set envelope = excluded.envelope, manifest = excluded.manifest, kept_at = excluded.kept_at
"""

PROVENANCE: Final = "select envelope, manifest from provenances where app = :app and number = :number"

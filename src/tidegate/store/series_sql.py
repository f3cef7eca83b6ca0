"""Every SQL statement of the series store, and the steps of its schema.

The rules of the schema are those of `sql`: a step is never edited once released. All tables are keyed by
what is asked for first, without row ids, so that a query reads neighbouring pages and old rows go in runs.
"""

from __future__ import annotations

from typing import Final

STEPS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """
        create table environments (
            id integer primary key,
            app text not null,
            environment text not null,
            unique (app, environment)
        ) strict
        """,
        """
        create table served (
            step_s integer not null,
            environment integer not null,
            at integer not null,
            placement integer not null,
            service text not null,
            release integer not null,
            counts blob not null,
            latencies blob not null,
            primary key (step_s, environment, at, placement, service)
        ) strict, without rowid
        """,
        """
        create table marks (
            environment integer not null,
            process text not null,
            service text not null,
            slot integer not null,
            counts blob not null,
            latencies blob not null,
            primary key (environment, process, service, slot)
        ) strict, without rowid
        """,
        """
        create table charts (
            environment integer not null,
            rollout integer not null,
            points integer not null,
            primary key (environment, rollout)
        ) strict, without rowid
        """,
        """
        create table points (
            environment integer not null,
            rollout integer not null,
            at integer not null,
            exposure_bps integer not null,
            canary_requests integer not null,
            canary_errors integer not null,
            canary_latencies blob not null,
            stable_requests integer not null,
            stable_errors integer not null,
            stable_latencies blob not null,
            combined real not null,
            abort_bound real not null,
            no_worse real not null,
            promote_bound real not null,
            primary key (environment, rollout, at)
        ) strict, without rowid
        """,
        """
        create table instances (
            environment integer not null,
            at integer not null,
            service text not null,
            instance integer not null,
            requests blob not null,
            errors blob not null,
            primary key (environment, at, service, instance)
        ) strict, without rowid
        """,
        """
        create table noise (
            environment integer primary key,
            at real not null,
            replay text not null
        ) strict
        """,
    ),
    (
        """
        create table users (
            environment integer not null,
            at integer not null,
            requests blob not null,
            errors blob not null,
            primary key (environment, at)
        ) strict, without rowid
        """,
    ),
)

ENVIRONMENT: Final = "select id from environments where app = ? and environment = ?"
ADD_ENVIRONMENT: Final = "insert into environments (app, environment) values (?, ?) returning id"

# --- what was answered -----------------------------------------------------------------------------

ROW: Final = """
    select counts, latencies from served
    where step_s = ? and environment = ? and at = ? and placement = ? and service = ?
"""
PUT_ROW: Final = """
    insert or replace into served (step_s, environment, at, placement, service, release, counts, latencies)
    values (?, ?, ?, ?, ?, ?, ?, ?)
"""
ROWS: Final = """
    select at, placement, release, service, counts, latencies from served
    where step_s = ? and environment = ? and at >= ? and at < ?
    order by at, placement, service limit ?
"""
FORGET_ROWS: Final = """
    delete from served where step_s = ? and environment in (select id from environments) and at < ?
"""

MARKS: Final = "select process, service, slot, counts, latencies from marks where environment = ?"
PUT_MARK: Final = """
    insert or replace into marks (environment, process, service, slot, counts, latencies)
    values (?, ?, ?, ?, ?, ?)
"""
END_PROCESS: Final = "delete from marks where environment = ? and process = ?"

# --- points ----------------------------------------------------------------------------------------

POINTS: Final = """
    select at, exposure_bps, canary_requests, canary_errors, canary_latencies, stable_requests, stable_errors,
        stable_latencies, combined, abort_bound, no_worse, promote_bound
    from points where environment = ? and rollout = ? and at >= ? and at <= ? order by at
"""
PUT_POINT: Final = """
    insert or replace into points (environment, rollout,
        at, exposure_bps, canary_requests, canary_errors, canary_latencies, stable_requests, stable_errors,
        stable_latencies, combined, abort_bound, no_worse, promote_bound)
    values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
REMOVE_POINTS: Final = "delete from points where environment = ? and rollout = ?"
CHART: Final = "select points from charts where environment = ? and rollout = ?"
PUT_CHART: Final = "insert or replace into charts (environment, rollout, points) values (?, ?, ?)"
OLD_CHARTS: Final = """
    select environment, rollout from charts as old
    where rollout <= (
        select rollout from charts where environment = old.environment
        order by rollout desc limit 1 offset ?
    )
"""
REMOVE_CHART: Final = "delete from charts where environment = ? and rollout = ?"

# --- instances -------------------------------------------------------------------------------------

INSTANCE: Final = """
    select requests, errors from instances
    where environment = ? and at = ? and service = ? and instance = ?
"""
PUT_INSTANCE: Final = """
    insert or replace into instances (environment, at, service, instance, requests, errors)
    values (?, ?, ?, ?, ?, ?)
"""
INSTANCES: Final = """
    select service, instance, requests, errors from instances
    where environment = ? and at >= ? and at < ? order by service, instance, at
"""
FORGET_INSTANCES: Final = """
    delete from instances where environment in (select id from environments) and at < ?
"""

USERS_CHUNK: Final = "select requests, errors from users where environment = ? and at = ?"
PUT_USERS: Final = "insert or replace into users (environment, at, requests, errors) values (?, ?, ?, ?)"
USERS: Final = """
    select requests, errors from users where environment = ? and at >= ? and at < ? order by at
"""
FORGET_USERS: Final = "delete from users where environment in (select id from environments) and at < ?"

NOISE: Final = "select at, replay from noise where environment = ?"
PUT_NOISE: Final = "insert or replace into noise (environment, at, replay) values (?, ?, ?)"

"""The series on SQLite: a file of its own beside the state's, whose loss costs memory and no decision.

Hides transactions, tiers and the file's fate. Invariants:

- rows, points and the router's counters that they cover are one transaction: after kill -9 the next look
  goes on where the rows end. Only a power cut can take the last seconds (synchronous=NORMAL), whole ones;
- each row is added to its second, its minute and its hour at once, so that every tier has the same sums;
- a file that is damaged is set aside under another name, and a new one is begun; nothing is opened before
  it is needed, and the next call tries again: no fault of the file outlives its cause.

Size, measured (tests/integration/store/test_series.py): a row has 53 to 65 bytes with one latency bucket in
use, and 175 to 180 with 40. A service that answers in every second has 3 720 seconds, 10 140 minutes and
9 600 hours at most: 23 460 rows, 1.4 to 4.2 MB; four placements of it side by side all the time are four
times as much. Points: 1 200 of 325 bytes (40 buckets on both sides) for each of 500 rollouts are 195 MB for
an environment at most, and only if each of them was compared for twenty minutes or more. Instances: a day of
one that answers all the time is 77 kB, and of users 106 kB, or 1.3 MB if each part of them has an error in
every tick. A quiet second has no row.

Neighbours: `series_sql` (statements), `series_cells` (counts as bytes), `schema` (steps), `failures`.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import pydantic

from tidegate import errors, ports
from tidegate.core import model, series
from tidegate.core.counters import USER_SHARDS
from tidegate.core.replay import Replay
from tidegate.core.sequential import Counted
from tidegate.store import failures, files, schema
from tidegate.store import series_sql as sql
from tidegate.store.series_cells import packed, unpacked

MINUTE_S: Final = 60
HOUR_S: Final = 3600
DAY_S: Final = 24 * HOUR_S
#: A little longer than promised, so that who asks for the whole hour finds its first second.
KEPT_S: Final = {
    1: ports.KEPT_S[1] + 2 * MINUTE_S,
    MINUTE_S: ports.KEPT_S[MINUTE_S] + HOUR_S,
    HOUR_S: ports.KEPT_S[HOUR_S],
}
KEPT_ROLLOUTS: Final = 500
#: Counts of instances and of users.
KEPT_INSTANCES_S: Final = DAY_S
#: Counts of an instance lie together in rows of this length: a row per tick would be three times as large.
CHUNK_S: Final = 600
#: How long a stranger may keep the file locked.
BUSY_TIMEOUT_S: Final = 1.0
#: The log is written back into the file, and cut, when it has about this size.
LOG_BYTES_MAX: Final = 4 * 1024 * 1024

Row = tuple[Any, ...]

_ALWAYS: Final = 2**62
_REPLAY: Final = pydantic.TypeAdapter(Replay)


class SqliteSeries:
    """`ports.Series` in a file. Threads may share it; close it at the end."""

    def __init__(self, path: Path, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        """Nothing is opened yet."""
        self._path: Final = path
        self._busy_timeout_s: Final = busy_timeout_s
        self._turn: Final = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._closed = False

    def close(self) -> None:
        """Every call after it fails."""
        with self._turn:
            self._closed = True
            self._drop()

    # --- the port -----------------------------------------------------------------------------------

    def marks(self, key: model.EnvironmentKey) -> tuple[model.Traffic, ...] | None:
        with self._using() as connection:
            environment = _environment(connection, key)
            if environment is None:
                return None
            rows = connection.execute(sql.MARKS, (environment,)).fetchall()
        return tuple(_traffic(row) for row in rows)

    def add(self, recorded: tuple[ports.Recorded, ...]) -> None:
        with self._using() as connection:
            for one in recorded:
                environment = _environment(connection, one.key)
                if environment is None:
                    environment = _one(connection, sql.ADD_ENVIRONMENT, (one.key.app, one.key.environment))[0]
                for row in one.rows:
                    _add_row(connection, environment, row)
                _add_marks(connection, environment, one)
                for rollout, points in groupby(sorted(one.points, key=lambda point: point[0]), _rollout):
                    _add_points(connection, environment, rollout, tuple(point for _, point in points))
                for counts in one.instances:
                    _add_instance(connection, environment, counts)
                _add_users(connection, environment, one.users)

    def rows(
        self, key: model.EnvironmentKey, *, since: int, until: int, step_s: int, limit: int = 20_000
    ) -> tuple[series.Row, ...]:
        if step_s not in KEPT_S:
            raise ValueError(f"there are no rows of {step_s} seconds")
        with self._using() as connection:
            asked = (step_s, _environment(connection, key), since, until, max(limit, 0))
            found = connection.execute(sql.ROWS, asked).fetchall()
        return tuple(
            series.Row(at=at, placement=placement, release=release, service=service, served=_served(counts))
            for at, placement, release, service, *counts in found
        )

    def points(self, key: model.EnvironmentKey, rollout: int) -> tuple[series.Point, ...]:
        with self._using() as connection:
            chart = (_environment(connection, key), rollout)
            return _points(connection, chart)

    def instances(
        self, key: model.EnvironmentKey, *, since: int, until: int
    ) -> tuple[ports.InstanceCounts, ...]:
        with self._using() as connection:
            asked = (_environment(connection, key), since - CHUNK_S, until)
            found = connection.execute(sql.INSTANCES, asked).fetchall()
        first, last = _ticks(since, until)
        counts = tuple(
            ports.InstanceCounts(
                service=service,
                instance=instance,
                requests=_between(first, last, (unpacked(row[2]) for row in rows)),
                errors=_between(first, last, (unpacked(row[3]) for row in rows)),
            )
            for (service, instance), rows in (
                (place, tuple(rows)) for place, rows in groupby(found, lambda row: row[:2])
            )
        )
        return tuple(each for each in counts if each.requests or each.errors)

    def users(self, key: model.EnvironmentKey, *, since: int, until: int) -> ports.UserCounts:
        with self._using() as connection:
            asked = (_environment(connection, key), since - CHUNK_S, until)
            rows = connection.execute(sql.USERS, asked).fetchall()
        first, last = _ticks(since, until)
        return ports.UserCounts(
            requests=_between(first, last, (unpacked(row[0]) for row in rows)),
            errors=_between(first * USER_SHARDS, last * USER_SHARDS, (unpacked(row[1]) for row in rows)),
        )

    def keep_noise(self, key: model.EnvironmentKey, noise: ports.Noise) -> None:
        text = _REPLAY.dump_json(noise.replay).decode()
        with self._using() as connection:
            connection.execute(sql.PUT_NOISE, (_environment(connection, key), noise.at, text))

    def noise(self, key: model.EnvironmentKey) -> ports.Noise | None:
        with self._using() as connection:
            row = connection.execute(sql.NOISE, (_environment(connection, key),)).fetchone()
        if row is None:
            return None
        return ports.Noise(at=row[0], replay=_REPLAY.validate_json(row[1]))

    def forget(self, now: float) -> None:
        with self._using() as connection:
            for step_s, kept_s in KEPT_S.items():
                connection.execute(sql.FORGET_ROWS, (step_s, int(now) - kept_s))
            for statement in (sql.FORGET_INSTANCES, sql.FORGET_USERS):
                connection.execute(statement, (int(now) - KEPT_INSTANCES_S - CHUNK_S,))
            for chart in connection.execute(sql.OLD_CHARTS, (KEPT_ROLLOUTS,)).fetchall():
                connection.execute(sql.REMOVE_POINTS, chart)
                connection.execute(sql.REMOVE_CHART, chart)

    # --- the file -----------------------------------------------------------------------------------

    @contextmanager
    def _using(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of the block, or nothing of it. A damaged file is set aside."""
        with self._turn, self._saved(), failures.translated(self._path):
            if self._closed:
                raise errors.StoreError("The series was closed: the control plane is stopping.")
            if self._connection is None:
                self._connection = self._opened()
            self._connection.execute("begin immediate")
            try:
                yield self._connection
                self._connection.execute("commit")
            except BaseException:
                with suppress(sqlite3.Error):  # after a full disk SQLite has rolled back by itself
                    self._connection.execute("rollback")
                raise

    @contextmanager
    def _saved(self) -> Iterator[None]:
        try:
            yield
        except errors.StorageError as error:
            cause = error.__cause__
            code = getattr(cause, "sqlite_errorcode", 0) & failures.PRIMARY_CODE
            if code not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                raise
            raise self._set_aside() from cause

    def _set_aside(self) -> errors.StorageError:
        self._drop()
        aside = self._path.with_name(f"{self._path.name}.damaged")
        try:
            self._path.replace(aside)
            for suffix in ("-wal", "-shm"):
                self._path.with_name(f"{self._path.name}{suffix}").unlink(missing_ok=True)
        except OSError as error:
            return errors.StorageError(f"{self._path} is damaged, and cannot be moved: {error.strerror}.")
        return errors.StorageError(
            f"The file of past traffic was damaged; a new one is begun, and the old one is {aside}.",
            hint="Releases and decisions are not touched. Check the disk; the old file may be removed.",
        )

    def _opened(self) -> sqlite3.Connection:
        files.create(self._path)
        connection = sqlite3.connect(
            self._path, timeout=self._busy_timeout_s, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute("pragma trusted_schema = off")
            connection.execute("pragma journal_mode = wal").fetchall()
            connection.execute("pragma synchronous = normal")
            connection.execute(f"pragma journal_size_limit = {LOG_BYTES_MAX}").fetchall()
            schema.upgrade(connection, sql.STEPS, self._path)
        except BaseException:
            connection.close()
            raise
        return connection

    def _drop(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
        self._connection = None


def _rollout(point: tuple[int, series.Point]) -> int:
    return point[0]


def _one(connection: sqlite3.Connection, statement: str, values: Row) -> Row:
    rows: list[Row] = connection.execute(statement, values).fetchall()
    return rows[0]


def _environment(connection: sqlite3.Connection, key: model.EnvironmentKey) -> int | None:
    row = connection.execute(sql.ENVIRONMENT, (key.app, key.environment)).fetchone()
    return int(row[0]) if row else None


# --- writing ---------------------------------------------------------------------------------------


def _add_row(connection: sqlite3.Connection, environment: int, row: series.Row) -> None:
    for step_s in KEPT_S:
        place = (step_s, environment, series.begun(row.at, step_s), row.placement, row.service)
        known = connection.execute(sql.ROW, place).fetchone()
        served = series.joined(_served(known), row.served) if known else row.served
        connection.execute(sql.PUT_ROW, (*place, row.release, *_columns(served)))


def _add_marks(connection: sqlite3.Connection, environment: int, recorded: ports.Recorded) -> None:
    connection.executemany(
        sql.PUT_MARK,
        [(environment, mark.process, mark.service, mark.slot, *_columns(mark)) for mark in recorded.marks],
    )
    connection.executemany(sql.END_PROCESS, [(environment, process) for process in recorded.ended])


def _add_points(
    connection: sqlite3.Connection, environment: int, rollout: int, points: tuple[series.Point, ...]
) -> None:
    chart = (environment, rollout)
    row = connection.execute(sql.CHART, chart).fetchone()
    count = row[0] if row else 0
    for point in points:
        known = _points(connection, chart, since=point.at, until=point.at)
        whole = series.followed(known[0], point) if known else point
        connection.execute(sql.PUT_POINT, (*chart, *_point_columns(whole)))
        count += not known
    if count > series.POINTS_MAX:
        kept = series.thinned(_points(connection, chart))
        count = len(kept)
        connection.execute(sql.REMOVE_POINTS, chart)
        connection.executemany(sql.PUT_POINT, [(*chart, *_point_columns(point)) for point in kept])
    connection.execute(sql.PUT_CHART, (*chart, count))


def _points(
    connection: sqlite3.Connection, chart: Row, *, since: int = 0, until: int = _ALWAYS
) -> tuple[series.Point, ...]:
    return tuple(map(_point, connection.execute(sql.POINTS, (*chart, since, until)).fetchall()))


def _add_instance(connection: sqlite3.Connection, environment: int, counts: ports.InstanceCounts) -> None:
    requests, failed = _chunks(counts.requests), _chunks(counts.errors)
    for chunk in sorted(requests | failed):
        place = (environment, chunk * CHUNK_S, counts.service, counts.instance)
        known = connection.execute(sql.INSTANCE, place).fetchone() or (b"", b"")
        both = (
            packed(series.counted(unpacked(old), tuple(new.get(chunk, ()))))
            for old, new in zip(known, (requests, failed), strict=True)
        )
        connection.execute(sql.PUT_INSTANCE, (*place, *both))


def _add_users(connection: sqlite3.Connection, environment: int, counts: ports.UserCounts) -> None:
    requests, failed = _chunks(counts.requests), _chunks(counts.errors, per_tick=USER_SHARDS)
    for chunk in sorted(requests | failed):
        place = (environment, chunk * CHUNK_S)
        known = connection.execute(sql.USERS_CHUNK, place).fetchone() or (b"", b"")
        both = (
            packed(series.counted(unpacked(old), tuple(new.get(chunk, ()))))
            for old, new in zip(known, (requests, failed), strict=True)
        )
        connection.execute(sql.PUT_USERS, (*place, *both))


def _chunks(cells: Counted, *, per_tick: int = 1) -> dict[int, list[tuple[int, int]]]:
    found: dict[int, list[tuple[int, int]]] = {}
    for number, count in cells:
        found.setdefault(number // per_tick * ports.TICK_S // CHUNK_S, []).append((number, count))
    return found


def _ticks(since: int, until: int) -> tuple[int, int]:
    """The first tick that begins from `since` on, and the first one not before `until`."""
    return -(-since // ports.TICK_S), -(-until // ports.TICK_S)


def _between(first: int, last: int, chunks: Iterator[Counted]) -> Counted:
    return tuple((number, count) for cells in chunks for number, count in cells if first <= number < last)


# --- columns ---------------------------------------------------------------------------------------


#: What the numbers in `counts` mean, stored for ever: add, never change.
_COUNTERS: Final = ("requests", "errors", "connect_failures", "unanswered", "bytes_in", "bytes_out", "active")
_FIRST_CLASS: Final = 16
_CLASSES: Final = 5


def _columns(counts: series.Served | model.Traffic) -> Row:
    values = [(number, getattr(counts, name)) for number, name in enumerate(_COUNTERS)]
    values += enumerate(counts.classes, _FIRST_CLASS)
    return packed(tuple(value for value in values if value[1])), packed(counts.latencies)


def _served(row: Row | list[Any]) -> series.Served:
    return series.Served(**_fields(row))


def _traffic(row: Row) -> model.Traffic:
    process, service, slot, *counts = row
    return model.Traffic(process=process, service=service, slot=slot, **_fields(counts))


def _fields(row: Row | list[Any]) -> dict[str, Any]:
    counts, latencies = row
    values = dict(unpacked(counts))
    fields: dict[str, Any] = {name: values.get(number, 0) for number, name in enumerate(_COUNTERS)}
    classes = tuple(values.get(_FIRST_CLASS + index, 0) for index in range(_CLASSES))
    return {**fields, "classes": classes, "latencies": unpacked(latencies)}


def _point_columns(point: series.Point) -> Row:
    sides = (
        value
        for side in (point.canary, point.stable)
        for value in (side.requests, side.errors, packed(side.latencies))
    )
    evidence = (point.combined, point.abort_bound, point.no_worse, point.promote_bound)
    return (point.at, point.exposure_bps, *sides, *evidence)


def _point(row: Row) -> series.Point:
    at, exposure_bps, *sides, combined, abort_bound, no_worse, promote_bound = row
    canary, stable = (
        series.Side(requests=requests, errors=failed, latencies=unpacked(latencies))
        for requests, failed, latencies in (sides[:3], sides[3:])
    )
    return series.Point(
        at=at,
        exposure_bps=exposure_bps,
        canary=canary,
        stable=stable,
        combined=combined,
        abort_bound=abort_bound,
        no_worse=no_worse,
        promote_bound=promote_bound,
    )

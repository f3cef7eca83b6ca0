"""The store in memory: what the simulation and the tests of the engine commit to.

Same promises as the real ones, held by the same suite (`tidegate.testing.store_checks`), and fast: values
are kept as they are, since they are frozen. With `through_codec` each record is encoded and decoded on its
way in, so that a simulation also proves that what it commits can be stored.

A store outlives its control plane: a simulated crash is an exception raised by `before_commit` (nothing
is written) or `after_commit` (all is written, the caller never learns it), after which the next control
plane is given the same store. `snapshot` and `restore` let the database go back in time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from tidegate import errors, ports
from tidegate.core import model
from tidegate.store import codec, links, outbox

RolloutId = tuple[model.EnvironmentKey, int]


@dataclass(slots=True, kw_only=True)
class _Tables:
    """What a database file would hold."""

    holder: str = ""
    epoch: int = 0
    expires: float = 0.0
    states: dict[model.EnvironmentKey, ports.Versioned] = field(default_factory=dict)
    releases: dict[str, list[model.Release]] = field(default_factory=dict)
    rollouts: dict[RolloutId, ports.RolloutRecord] = field(default_factory=dict)
    request_keys: dict[tuple[model.EnvironmentKey, str], int] = field(default_factory=dict)
    events: list[ports.EventRecord] = field(default_factory=list)
    outbox: dict[str, outbox.OutboxRecord] = field(default_factory=dict)
    delivered: set[int] = field(default_factory=set)
    link_ports: dict[int, tuple[model.EnvironmentKey, str, int]] = field(default_factory=dict)

    def copy(self) -> _Tables:
        return replace(
            self,
            states=dict(self.states),
            releases={app: list(releases) for app, releases in self.releases.items()},
            rollouts=dict(self.rollouts),
            request_keys=dict(self.request_keys),
            events=list(self.events),
            outbox=dict(self.outbox),
            delivered=set(self.delivered),
            link_ports=dict(self.link_ports),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A backup of a MemoryStore."""

    tables: _Tables


def _nothing() -> None:
    """No crash here."""


class MemoryStore:
    """`ports.Store` without a disk. Threads may share it."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        through_codec: bool = False,
        before_commit: Callable[[], None] = _nothing,
        after_commit: Callable[[], None] = _nothing,
    ) -> None:
        """`clock`: monotonic seconds, of the lease only. The hooks surround every `commit`."""
        self._clock: Final = clock
        self._through_codec: Final = through_codec
        self._before_commit: Final = before_commit
        self._after_commit: Final = after_commit
        self._lock: Final = threading.RLock()
        self._tables = _Tables()

    # --- lease ------------------------------------------------------------------------------------

    def acquire(self, holder: str, *, ttl_s: float) -> ports.Lease:
        with self._lock:
            tables = self._tables
            if tables.holder not in ("", holder) and self._clock() < tables.expires:
                raise errors.LeaseHeldError(f"The state is in use by {tables.holder}.")
            tables.holder = holder
            tables.epoch += 1
            tables.expires = self._clock() + ttl_s
            return ports.Lease(holder=holder, epoch=tables.epoch, ttl_s=ttl_s)

    def renew(self, lease: ports.Lease) -> None:
        with self._lock:
            self._check_lease(lease)
            self._tables.expires = self._clock() + lease.ttl_s

    def release_lease(self, lease: ports.Lease) -> None:
        with self._lock:
            if self._is_held_by(lease):
                self._tables.holder = ""

    def _is_held_by(self, lease: ports.Lease) -> bool:
        return self._tables.epoch == lease.epoch and self._tables.holder == lease.holder

    def _check_lease(self, lease: ports.Lease) -> None:
        if not self._is_held_by(lease):
            raise errors.FencedError

    # --- states -----------------------------------------------------------------------------------

    def environments(self) -> tuple[model.EnvironmentKey, ...]:
        with self._lock:
            return tuple(sorted(self._tables.states, key=lambda key: (key.app, key.environment)))

    def load(self, key: model.EnvironmentKey) -> ports.Versioned:
        with self._lock:
            stored = self._tables.states.get(key)
        return stored or ports.Versioned(version=0, state=model.EnvironmentState(key=key))

    def commit(
        self,
        lease: ports.Lease,
        versioned: ports.Versioned,
        state: model.EnvironmentState,
        events: tuple[model.Event, ...],
        *,
        at: float,
    ) -> ports.Versioned:
        key = versioned.state.key
        if state.key != key:
            raise errors.StoreError(f"The state of {state.key} cannot replace that of {key}.")
        if self._through_codec:
            state = codec.STATE.decode(codec.STATE.encode(state))
            events = tuple(codec.EVENT.decode(codec.EVENT.encode(event)) for event in events)
        with self._lock:
            self._before_commit()
            self._check_lease(lease)
            if self.load(key).version != versioned.version:
                raise errors.ConflictError
            self._check_request_keys(key, state)
            committed = ports.Versioned(version=versioned.version + 1, state=state)
            self._tables.states[key] = committed
            for rollout in (state.last, state.rollout):
                if rollout is not None:
                    self._record(key, rollout, at)
            first = len(self._tables.events) + 1
            self._tables.events.extend(
                ports.EventRecord(sequence=sequence, at=at, key=key, event=event)
                for sequence, event in enumerate(events, first)
            )
            self._after_commit()
            return committed

    def add_events(
        self,
        lease: ports.Lease,
        events: tuple[tuple[model.EnvironmentKey, model.Event], ...],
        *,
        at: float,
        check: Callable[[], None],
    ) -> None:
        """For fakes of this package that keep tables of their own: all of it, unless `check` raises."""
        with self._lock:
            self._check_lease(lease)
            check()
            first = len(self._tables.events) + 1
            self._tables.events.extend(
                ports.EventRecord(sequence=sequence, at=at, key=key, event=event)
                for sequence, (key, event) in enumerate(events, first)
            )

    def _check_request_keys(self, key: model.EnvironmentKey, state: model.EnvironmentState) -> None:
        proposed: dict[str, int] = {}
        for rollout in (state.last, state.rollout):
            name = rollout.request.key if rollout is not None else ""
            if rollout is None or not name:
                continue
            known = self._tables.request_keys.get((key, name), rollout.id)
            if proposed.setdefault(name, known) != rollout.id:
                raise errors.ConflictError("The request key belongs to another rollout already.")

    def _record(self, key: model.EnvironmentKey, rollout: model.Rollout, at: float) -> None:
        tables = self._tables
        known = tables.rollouts.get((key, rollout.id))
        if known is not None and known.rollout == rollout:
            return
        ended_at = known.ended_at if known else None
        if ended_at is None and rollout.phase.ended:
            ended_at = at
        tables.rollouts[key, rollout.id] = ports.RolloutRecord(
            key=key, rollout=rollout, started_at=known.started_at if known else at, ended_at=ended_at
        )
        if rollout.request.key:
            tables.request_keys[key, rollout.request.key] = rollout.id
        for message in outbox.messages(key, rollout):
            if message.key not in tables.outbox:
                tables.outbox[message.key] = outbox.OutboxRecord(
                    sequence=len(tables.outbox) + 1, at=at, message=message
                )

    # --- releases ---------------------------------------------------------------------------------

    def add_release(self, lease: ports.Lease, release: model.Release) -> model.Release:
        if self._through_codec:
            environments = codec.RELEASE.decode(codec.RELEASE.encode(release.environments))
            release = replace(release, environments=environments)
        with self._lock:
            self._check_lease(lease)
            stored = self._tables.releases.setdefault(release.app, [])
            for other in stored:
                if (other.digest, other.environments) == (release.digest, release.environments):
                    return other
            stored.append(replace(release, number=len(stored) + 1))
            return stored[-1]

    def releases(self, app: str, *, limit: int = 50) -> tuple[model.Release, ...]:
        with self._lock:
            return tuple(reversed(self._tables.releases.get(app, [])))[:limit]

    def release(self, app: str, number: int) -> model.Release | None:
        with self._lock:
            stored = self._tables.releases.get(app, [])
            return stored[number - 1] if 1 <= number <= len(stored) else None

    # --- history ----------------------------------------------------------------------------------

    def history(self, key: model.EnvironmentKey, *, limit: int = 50) -> tuple[ports.RolloutRecord, ...]:
        with self._lock:
            records = [record for record in self._tables.rollouts.values() if record.key == key]
        return tuple(sorted(records, key=lambda record: -record.rollout.id)[:limit])

    def rollout_by_request_key(
        self, key: model.EnvironmentKey, request_key: str
    ) -> ports.RolloutRecord | None:
        with self._lock:
            rollout_id = self._tables.request_keys.get((key, request_key))
            return None if rollout_id is None else self._tables.rollouts[key, rollout_id]

    def events(
        self, key: model.EnvironmentKey, *, after: int = 0, limit: int = 500
    ) -> tuple[ports.EventRecord, ...]:
        with self._lock:
            newer = self._tables.events[max(after, 0) :]
        return tuple(record for record in newer if record.key == key)[:limit]

    def outbox(self, *, limit: int = 100) -> tuple[outbox.OutboxRecord, ...]:
        """Messages not delivered yet, oldest first."""
        with self._lock:
            tables = self._tables
            waiting = [record for record in tables.outbox.values() if record.sequence not in tables.delivered]
        return tuple(waiting[:limit])

    def delivered(self, lease: ports.Lease, sequence: int) -> None:
        """The message has arrived: do not show it again. No error if it was marked before."""
        with self._lock:
            self._check_lease(lease)
            self._tables.delivered.add(sequence)

    # --- links ------------------------------------------------------------------------------------

    def reserve_link_ports(
        self,
        lease: ports.Lease,
        key: model.EnvironmentKey,
        services: tuple[str, ...],
        available: tuple[int, ...],
    ) -> tuple[model.Link, ...]:
        with self._lock:
            self._check_lease(lease)
            taken = self._tables.link_ports
            held = {(service, slot): port for port, (owner, service, slot) in taken.items() if owner == key}
            allotted = links.allot(held, taken.keys(), services, available)
            taken.update({link.port: (key, link.service, link.slot) for link in allotted})
            return allotted

    # --- going back in time -----------------------------------------------------------------------

    def snapshot(self) -> Snapshot:
        """A backup of all that is stored, lease included."""
        with self._lock:
            return Snapshot(tables=self._tables.copy())

    def restore(self, snapshot: Snapshot) -> None:
        """Go back in time to the snapshot, which can be used again."""
        with self._lock:
            self._tables = snapshot.tables.copy()

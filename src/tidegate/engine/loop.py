"""The loop: load, observe, advance, commit, reconcile, execute.

Invariants: only committed state justifies an effect; no effect is sent after the lease's time is over by
our own clock; a part of the world that could not be looked at is `None`; after a crash between any two
lines the same loop runs again and nothing more is needed. Neighbours: the core decides, `execute` carries
out, `daemon` gives it adapters, a thread and a clock; tests/simulation gives it a world of faults.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from tidegate import errors, ports
from tidegate.core import advance, model, reconcile, requests
from tidegate.engine import execute

#: Part of the lease's time that is kept as a margin for a slow last effect.
LEASE_MARGIN: Final = 0.25
#: Decisions that one look can lead to, one after the other: queued, starting, shifting, and one to spare.
SETTLE_MAX: Final = 4
#: Attempts to commit a request against a loop that commits at the same time.
REQUEST_ATTEMPTS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What one step saw and did, for status and live views."""

    state: model.EnvironmentState
    observed: model.Observation
    failures: tuple[execute.Failure, ...] = ()
    at: float = 0.0
    """Unix seconds of the look."""
    looked_s: float = -math.inf
    """Monotonic seconds of the look, of this process."""
    changed: bool = False
    """Something other than counters was committed, or an effect was sent: look again soon."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapters:
    """The outside world of the loop."""

    store: ports.Store
    runtime: ports.Runtime
    router: ports.Router
    migrator: ports.Migrator
    clock: ports.Clock


class Controller:
    """Runs the environments of one control plane, one step at a time. Not thread-safe but for `request`."""

    def __init__(self, adapters: Adapters, lease: ports.Lease, *, renewed_at: float) -> None:
        """`renewed_at`: monotonic seconds at which the lease was asked for."""
        self._adapters = adapters
        self._lease = lease
        self._renewed_at = renewed_at
        self._stepped_at: dict[model.EnvironmentKey, float] = {}
        self._newest: dict[tuple[model.EnvironmentKey, str], int] = {}

    def renew_if_due(self) -> None:
        """Renew the lease after a third of its time. Raises FencedError when it is no longer ours."""
        asked_at = self._adapters.clock.monotonic()
        if asked_at - self._renewed_at >= self._lease.ttl_s / 3:
            self._adapters.store.renew(self._lease)
            self._renewed_at = asked_at

    def step(self, key: model.EnvironmentKey) -> View:
        """One tick of one environment.

        Raises FencedError when another control plane has taken over, ConflictError when somebody committed
        meanwhile (call again), StoreError or StorageError when the state cannot be read or written: then
        nothing was done to the world.
        """
        adapters = self._adapters
        versioned = adapters.store.load(key)
        observed, blind = self._observe(versioned.state)
        outcome = _settled(advance.advance(versioned.state, observed, self._elapsed_s(key)), observed)
        changed = bool(outcome.events) or _decided(versioned.state, outcome.state)
        if changed or _counted(versioned.state, outcome.state):
            at = adapters.clock.now()
            versioned = adapters.store.commit(self._lease, versioned, outcome.state, outcome.events, at=at)
        failures = [*blind]
        effects = reconcile.reconcile(versioned.state, observed)
        for effect in effects:
            self._still_leading()
            failure = execute.execute(
                effect, runtime=adapters.runtime, router=adapters.router, migrator=adapters.migrator
            )
            failures += [failure] if failure else []
        return View(
            state=versioned.state,
            observed=observed,
            failures=tuple(failures),
            at=adapters.clock.now(),
            looked_s=adapters.clock.monotonic(),
            changed=changed or bool(effects),
        )

    def request(
        self, key: model.EnvironmentKey, decide: Callable[[model.EnvironmentState], requests.Decision]
    ) -> requests.Decision:
        """Decide on the committed state and commit the decision. Callable from any thread.

        Raises RefusedError from `decide`, FencedError, StoreError; then nothing was changed.
        """
        store, clock = self._adapters.store, self._adapters.clock
        for _ in range(REQUEST_ATTEMPTS):
            versioned = store.load(key)
            decision = decide(versioned.state)
            if decision.state == versioned.state:
                return decision
            try:
                store.commit(self._lease, versioned, decision.state, decision.events, at=clock.now())
            except errors.ConflictError:
                continue
            return decision
        raise errors.ConflictError(
            f"The state of {key} changed {REQUEST_ATTEMPTS} times while this was decided; nothing was done.",
            hint="Ask again.",
        )

    def _observe(
        self, state: model.EnvironmentState
    ) -> tuple[model.Observation, tuple[execute.Failure, ...]]:
        key = state.key
        failures = []
        runtime: model.RuntimeState | None = None
        routes: model.RouteState | None = None
        try:
            runtime = self._adapters.runtime.observe(key)
        except (errors.AdapterError, errors.MachineError) as error:
            failures.append(execute.Failure(key=f"observe-runtime:{key}", error=error))
        try:
            routes = self._adapters.router.observe(key)
        except (errors.AdapterError, errors.MachineError) as error:
            failures.append(execute.Failure(key=f"observe-router:{key}", error=error))
        try:
            jobs = self._adapters.migrator.observe(key)
        except errors.AdapterError as error:
            jobs = None
            failures.append(execute.Failure(key=f"observe-migrator:{key}", error=error))
        if runtime is not None and not self._is_new(key, "runtime", runtime.revision, state.seen_runtime):
            failures.append(_outdated(key, "runtime"))
            runtime = None
        if routes is not None and not self._is_new(key, "router", routes.revision, state.seen_router):
            failures.append(_outdated(key, "router"))
            routes = None
        return model.Observation(runtime=runtime, routes=routes, jobs=jobs), tuple(failures)

    def _is_new(self, key: model.EnvironmentKey, source: str, revision: int, committed: int) -> bool:
        """Newer than all that was committed, or that this process has seen, committed or not.

        The state alone does not know: it remembers a revision only together with something else that is
        worth a commit (simulation seed 658, deposed). Nor does the process: the look that was committed last
        can be shown again to one that starts, and its second would count twice (seed 126687, swarm).
        """
        newest = max(self._newest.get((key, source), 0), committed)
        self._newest[key, source] = max(newest, revision)
        return revision > newest

    def _elapsed_s(self, key: model.EnvironmentKey) -> float:
        """Since the last step of this process: time in which nobody looked does not count."""
        now = self._adapters.clock.monotonic()
        elapsed_s = now - self._stepped_at.get(key, now)
        self._stepped_at[key] = now
        return elapsed_s

    def _still_leading(self) -> None:
        age_s = self._adapters.clock.monotonic() - self._renewed_at
        if age_s > self._lease.ttl_s * (1 - LEASE_MARGIN):
            raise errors.FencedError


def _outdated(key: model.EnvironmentKey, part: str) -> execute.Failure:
    """A look that is not used: or nobody would know why nothing happens."""
    error = errors.AdapterError(
        f"What the {part} shows is no newer than what was seen before; it is not used."
    )
    return execute.Failure(key=f"outdated-{part}:{key}", error=error)


def _settled(outcome: advance.Outcome, observed: model.Observation) -> advance.Outcome:
    """What follows from the same look without anything being done first is decided in the same step."""
    for _ in range(SETTLE_MAX):
        following = advance.advance(outcome.state, observed, 0.0)
        if not _decided(outcome.state, following.state):
            return outcome
        outcome = advance.Outcome(state=following.state, events=outcome.events + following.events)
    return outcome


def _decided(before: model.EnvironmentState, after: model.EnvironmentState) -> bool:
    """Something other than a counter has changed."""
    return _without_counters(before) != _without_counters(after)


def _counted(before: model.EnvironmentState, after: model.EnvironmentState) -> bool:
    """A counter has changed that a decision rests on; revisions alone are not worth a commit."""
    unseen = replace(after, seen_runtime=before.seen_runtime, seen_router=before.seen_router)
    return unseen != before


def _without_counters(state: model.EnvironmentState) -> model.EnvironmentState:
    rollout = state.rollout
    if rollout is not None:
        rollout = replace(rollout, phase_s=0.0, held_s=0.0, unready_s=0.0, stable_down_s=0.0, analysis=None)
    placements = tuple(replace(placement, idle_s=0.0, live_s=0.0) for placement in state.placements)
    schema = replace(state.schema, waited_s=0.0) if state.schema is not None else None
    return replace(
        state, rollout=rollout, placements=placements, schema=schema, seen_runtime=0, seen_router=0
    )

"""A state, a database, and a world in which everything comes through: for tests of the schema's phase."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from tests.support.builders import (
    KEY,
    environment,
    perfect,
    request,
    spec,
)
from tidegate.core import advance, reconcile
from tidegate.core.effects import ApplyGroup, RunMigration, StopMigration
from tidegate.core.migrations import Migration, MigrationPhase, Revert, Step
from tidegate.core.model import EnvironmentState, Observation, Phase, Reason
from tidegate.core.schemas import MigrationJob, MigrationsUse
from tidegate.testing.fakes import Database, FakeMigrator, ManualClock

EXPAND, CONTRACT, BREAKING = MigrationPhase.EXPAND, MigrationPhase.CONTRACT, MigrationPhase.BREAKING
USE = MigrationsUse(path="migrations/", database="DATABASE_URL", contract_after_s=30.0, hold_s=10)
USING = spec(migrations=USE, keep_warm_s=5.0)


def one(number: int, phase: MigrationPhase, revert: Revert = Revert.EXACT, **changes: Any) -> Migration:
    """Of release r<number>."""
    fields: dict[str, Any] = {"why": "so it is", "release": number}
    return Migration(id=f"{number:04d}_m", phase=phase, revert=revert, **(fields | changes))


@dataclass
class Town:
    """A state, a database, and a world in which everything comes through at once."""

    state: EnvironmentState
    applied: list[Migration] = field(default_factory=list)
    brings: dict[int, tuple[Migration, ...]] = field(default_factory=dict)
    fails: Callable[[MigrationJob], str] = lambda _job: ""
    look: Callable[[Observation], Observation] = lambda seen: seen
    done: list[str] = field(default_factory=list)
    told: list[tuple[Reason, str]] = field(default_factory=list)
    started: list[str] = field(default_factory=list)
    jobs: list[MigrationJob] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = ManualClock()
        self.database = Database(applied=self.applied, on_step=self._landed)
        self.migrator = FakeMigrator(
            clock=self.clock,
            databases={KEY: self.database},
            offered={f"sha256:{release:064x}": brought for release, brought in self.brings.items()},
            lasts_s=lambda _job: 0.0,
            fails=self._failure,
        )

    def _failure(self, job: MigrationJob) -> str:
        return self.fails(job)

    def _landed(self, step: Step) -> None:
        self.done.append(f"{step.direction} {step.id}")

    def tick(self, *, dt_s: float = 1.0, blind: bool = False) -> EnvironmentState:
        """One look and what follows from it."""
        jobs = None if blind else self.migrator.observe(KEY)
        seen = self.look(replace(perfect(self.state, revision=self.state.seen_runtime + 1), jobs=jobs))
        outcome = advance.advance(self.state, seen, dt_s)
        self.state = outcome.state
        self.told += [(event.reason, event.detail) for event in outcome.events]
        for effect in reconcile.reconcile(self.state, seen):
            if isinstance(effect, RunMigration):
                self.jobs.append(effect.job)
                self.migrator.apply(effect.job)
            elif isinstance(effect, StopMigration):
                self.migrator.remove(effect.environment, effect.job_id)
            elif isinstance(effect, ApplyGroup):
                self.started.append(effect.group.id)
        self.clock.advance(1.0)
        return self.state

    def until(self, phase: Phase) -> EnvironmentState:
        """Until the rollout stands there, or has ended so."""
        for _ in range(200):
            rollout = self.state.rollout or self.state.last
            if rollout is not None and rollout.phase is phase:
                return self.state
            self.tick()
        raise AssertionError(f"never {phase}: {self.state.rollout or self.state.last}\n{self.told}")

    def rest(self, ticks: int = 40) -> EnvironmentState:
        """Let time pass."""
        for _ in range(ticks):
            self.tick()
        return self.state

    @property
    def reasons(self) -> list[Reason]:
        return [reason for reason, _ in self.told]


def town(*ours: Migration, theirs: tuple[Migration, ...] = (), **changes: Any) -> Town:
    """r1 is live and knows `ours`; r2 is on its way, and brings `theirs` too. `changes`: of the request."""
    known = tuple(m.id for m in ours)
    scene = environment().live("r1", USING, migrations=known, settled=True, **changes.pop("live", {}))
    fields = {"starts_ahead": True} | changes
    asked = request("r2", changes.pop("wanted", USING), **{k: v for k, v in fields.items() if k != "wanted"})
    begun = advance.begin(scene.state, asked).state
    return Town(begun, applied=list(ours), brings={1: ours, 2: (*ours, *theirs)})

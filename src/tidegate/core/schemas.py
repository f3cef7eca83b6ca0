"""The schema of an environment's database: what rollouts ask of a migrator, and its answers. Values only.

A *job* is one process on one database. A study changes nothing: it says what is applied, what a release
brings, and what is known of each way back. A run does the steps of a plan, each exactly once however often it
is started, and ends with a study. Neighbours: `migrations` plans from a study, `migrating`
decides which job is wanted, `migrators` do them.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from tidegate.core.migrations import Migration, MigrationPhase, Plan, Revert, Step
from tidegate.core.parts import SecretVersion

CONTRACT_AFTER_S = 24 * 3600.0
HOLD_S = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationsUse:
    """The migrations that a release brings, and how an environment runs them."""

    path: str
    """Folder in the package."""
    database: str
    """Name of the variable, secret or configuration, that holds the address of the database."""
    contract_after_s: float = CONTRACT_AFTER_S
    """Observed seconds that a release is live before what only older ones need is taken away."""
    hold_s: int = HOLD_S
    """Longest time that a request may wait while a breaking migration runs."""


class Part(enum.StrEnum):
    """What of a plan a job does."""

    STUDY = "study"
    BEFORE = "before"
    HELD = "held"
    AFTER = "after"


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaWork:
    """Bringing the schema to a release, as committed."""

    id: int
    """From the counter of placements and rollouts: names of jobs are never used again."""
    placement: int
    """Whose release it is."""
    part: Part = Part.STUDY
    plan: Plan | None = None
    """Known after the study."""
    ready: bool = False
    """Nothing is in the way of this part any more: its job may run. A study always may."""
    only: tuple[int, ...] = ()
    """See `MigrationJob`; of this part."""
    failure: str = ""
    """Of the work before this one, which had the same aim."""
    again_s: float = 0.0
    """How long to wait after it."""
    waited_s: float = 0.0
    """For what is in the way, or since that failure."""

    @property
    def job(self) -> str:
        """Id of the job that is wanted now."""
        return f"{self.id}-{self.part}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrationJob:
    """What a migrator is asked to do."""

    id: str
    """Unique in its environment; the same id is the same job, however often it is asked for."""
    app: str
    environment: str
    release: int
    digest: str
    """Of the artifact that holds the scripts of what is applied; reverts are in the ledger."""
    use: MigrationsUse
    offers: bool = True
    """False: the release that the schema is brought to is older than the first migration. What it is reached
    by is another's, who is named here."""
    config: tuple[tuple[str, str], ...] = ()
    secrets: tuple[SecretVersion, ...] = ()
    admission: str = ""
    steps: tuple[Step, ...] = ()
    """None: a study."""
    only: tuple[int, ...] = ()
    """Not empty: it fails while another release of the app than these is connected to the database."""
    fence: int = 0
    """Grows from work to work. A database that has seen a greater one lets no job change it: it came late."""
    by: str = ""

    @property
    def studies(self) -> bool:
        return not self.steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What a database and a release are to each other."""

    applied: tuple[Migration, ...]
    """By the ledger, oldest first: phase as it ran, revert as it was proved then."""
    offered: tuple[Migration, ...]
    """All of the release, in order: what is applied as the ledger has it, what is not as it was tried on a
    copy of this very schema."""
    fingerprint: str = ""
    """Of the schema."""
    fence: int = 0
    """The greatest that the database has seen, that of this job included."""
    notes: tuple[str, ...] = field(default=())
    """For people: a warning each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What trying a migration out has shown, on a schema with this fingerprint; all by digests."""

    up_sha: str
    down_sha: str
    """Empty: there is no script."""
    fp_before: str
    fp_after: str
    """Of the schema; empty: it cannot be applied."""
    phase: MigrationPhase
    revert: Revert
    why: str = ""

    @property
    def key(self) -> tuple[str, str, str]:
        return self.up_sha, self.down_sha, self.fp_before


class JobState(enum.StrEnum):
    """Where a job stands."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStatus:
    """A job, as the migrator sees it. One that it does not know has never begun, or was lost: ask again."""

    id: str
    state: JobState
    study: Study | None = None
    """Of a job that is done: what is true now."""
    progress: str = ""
    """What it is at, for people: 0007_add_email, statement 2 of 5."""
    failure: str = ""
    """Why it failed, one or two sentences."""
    hint: str = ""

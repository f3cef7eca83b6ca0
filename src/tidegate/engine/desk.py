"""What people ask of an environment's database, and say of it: beside the rollouts that change it.

Nothing here runs a migration. Neighbours: `web.schema` translates HTTP to these calls, the daemon brings the
process that answers; `core.migrating` has the plans.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from pydantic import TypeAdapter

from tidegate import errors
from tidegate.core import migrating, requests
from tidegate.core.migrations import Plan
from tidegate.core.model import EnvironmentKey, EnvironmentState, Placement, Refusal
from tidegate.core.schemas import MigrationJob, Study
from tidegate.engine.operations import Asked, Operations

_STUDY = TypeAdapter(Study)


class Ask(Protocol):
    """Puts a question to a database."""

    def __call__(
        self, job: MigrationJob, *, brings: Mapping[str, str] | None = None, **more: object
    ) -> Mapping[str, Any]:
        """Raises SchemaError, NotFoundError, SealError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanAnswer:
    """The way to a release through the database, as it would be gone now."""

    release: int
    plan: Plan
    refusal: str
    """Why it would be refused; empty: it would not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """Safe to call from any thread."""

    operations: Operations
    ask: Ask

    def look(self, key: EnvironmentKey) -> Mapping[str, Any]:
        """What stands in the ledger. Raises NotFoundError, SchemaError."""
        state, live = self._live(key)
        return self.ask(self._job(state, live), action="look")

    def resolve(self, key: EnvironmentKey, id_: str, by: str, *, done: bool) -> Mapping[str, Any]:
        """Say what became of a statement whose end nobody saw. Raises as `look`."""
        state, live = self._live(key)
        job = replace(self._job(state, live), by=by)
        return self._again(key, self.ask(job, action="resolve", id=id_, finished=done))

    def adopt(self, key: EnvironmentKey, by: str, why: str) -> Mapping[str, Any]:
        """Take the schema as it is, though somebody else has changed it. Raises as `look`."""
        state, live = self._live(key)
        job = replace(self._job(state, live), by=by)
        return self._again(key, self.ask(job, action="adopt", why=why))

    def plan(self, key: EnvironmentKey, release: int) -> PlanAnswer:
        """How a rollout of this release would go through the database. Nothing is tried out for it."""
        state, live = self._live(key)
        request = self.operations.deploy_request(key, release, Asked())
        job = self._job(state, live)
        use = request.spec.migrations
        found = self.operations.release(key.app, release)
        if release != live.release:
            self.operations.prove(key, found)
            job = replace(job, offers=use is not None)
            brings = {"digest": found.digest, "path": use.path} if use is not None else None
        else:
            brings = None
        answer = self.ask(job, brings=brings, tries=False)
        study = _STUDY.validate_python(answer["study"])
        plan = migrating.forward(state, request, study)
        return PlanAnswer(release=release, plan=plan, refusal=migrating.refusal(request, plan, study))

    def _again(self, key: EnvironmentKey, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        """What somebody has said may be what the environment has waited for: it looks anew."""
        self.operations.controller.request(key, requests.look_at_schema)
        self.operations.wake()
        return answer

    def _live(self, key: EnvironmentKey) -> tuple[EnvironmentState, Placement]:
        state = self.operations.store.load(key).state
        if state.live is None:
            raise errors.NotFoundError(
                f"No release is live in {key}, so that nobody knows its database.",
                hint="`tide deploy` brings the first release, and runs its migrations.",
            )
        return state, state.live

    @staticmethod
    def _job(state: EnvironmentState, live: Placement) -> MigrationJob:
        job = migrating.job_of(state, live)
        if job is None:
            raise errors.RefusedError(
                f"r{live.release}, which is live in {state.key}, brings no migrations.",
                reason=Refusal.NO_MIGRATIONS.value,
                hint="`migrations` in tidegate.yaml names their folder.",
            )
        return job

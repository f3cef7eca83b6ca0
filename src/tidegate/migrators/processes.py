"""`ports.Migrator`: each job is a process, `worker`; nothing of it is kept but what it has said.

A control plane that is killed takes its workers along, and its successor, which knows of no job, asks for the
same again: the ledger says what is done. Neighbours: the loop asks, the daemon says where packages and values
are.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Final, cast

from pydantic import TypeAdapter

from tidegate import errors
from tidegate.core.model import EnvironmentKey
from tidegate.core.schemas import JobState, JobStatus, MigrationJob, Proof, Study
from tidegate.migrators.proofs import Proofs

_STUDY: Final = TypeAdapter(Study)
_PROOFS: Final = TypeAdapter(tuple[Proof, ...])
#: How long a question waits for whoever runs migrations.
ASK_WAIT_S: Final = 2.0
AGAIN: Final = "What it has done is in the ledger; it is safe to run it again."
#: What of its environment a worker is given: where programs are, and where the zone and the C library look.
_GIVEN: Final = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a worker needs of the control plane."""

    content: Callable[[MigrationJob], Path]
    """The unpacked tree of the package, if all of it is proved. Raises TidegateError."""
    values: Callable[[MigrationJob], Mapping[str, str]]
    """Of the job's secrets, by name. Raises TidegateError."""
    account: Callable[[EnvironmentKey], tuple[int, int] | None]
    """User and group that the app runs as; None: our own."""
    proofs: Proofs


@dataclass(slots=True, kw_only=True)
class _Work:
    """A job, from its beginning."""

    id: str
    process: subprocess.Popen[bytes] | None = None
    progress: str = ""
    result: dict[str, Any] = field(default_factory=dict)
    failure: str = ""
    hint: str = ""
    ended: bool = False
    removed: bool = False


class ProcessMigrator:
    """Threads may share it."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings: Final = surroundings
        self._turn: Final = threading.Lock()
        self._works: Final[dict[EnvironmentKey, dict[str, _Work]]] = {}

    def apply(self, job: MigrationJob) -> None:
        key = EnvironmentKey(app=job.app, environment=job.environment)
        with self._turn:
            known = self._works.setdefault(key, {})
            if job.id in known or any(not work.ended for work in known.values()):
                return
            work = known[job.id] = _Work(id=job.id)
        try:
            order = self._order(key, job)
            work.process = _started()
        except errors.TidegateError as error:
            work.failure, work.hint, work.ended = error.message, error.hint or "", True
            return
        threading.Thread(target=self._follow, args=(work, work.process, order), daemon=True).start()

    def observe(self, key: EnvironmentKey) -> tuple[JobStatus, ...]:
        with self._turn:
            works = list(self._works.get(key, {}).values())
        return tuple(_status(work) for work in works)

    def remove(self, key: EnvironmentKey, job_id: str) -> None:
        with self._turn:
            work = self._works.get(key, {}).get(job_id)
            if work is None:
                return
            work.removed = True
            if work.ended:
                del self._works[key][job_id]
                return
        _kill(work)

    def ask(
        self, job: MigrationJob, *, brings: Mapping[str, str] | None = None, **more: object
    ) -> Mapping[str, Any]:
        """What people want to know, or say, of a database; beside jobs. `more`: other members of the order.

        `brings`: digest and path of the scripts of another release than the job's, which are only read.
        Raises what the database, or the job's surroundings, have against it.
        """
        key = EnvironmentKey(app=job.app, environment=job.environment)
        order = json.loads(self._order(key, job)) | {"runner_wait_s": ASK_WAIT_S} | more
        if brings is not None:
            other = self._surroundings.content(replace(job, digest=brings["digest"]))
            order["folder"] = str(other / brings["path"])
        work = _Work(id="asked", process=_started())
        self._hear(work, cast("subprocess.Popen[bytes]", work.process), json.dumps(order).encode() + b"\n")
        if work.failure:
            raise errors.SchemaError(work.failure, hint=work.hint or None)
        return work.result

    def close(self) -> None:
        """End all jobs where they stand."""
        with self._turn:
            works = [work for known in self._works.values() for work in known.values()]
        for work in works:
            _kill(work)

    # --- one job -----------------------------------------------------------------------------------

    def _order(self, key: EnvironmentKey, job: MigrationJob) -> bytes:
        """What the worker is told. Raises TidegateError."""
        given = self._surroundings
        variables = {**dict(job.config), **given.values(job)}
        url = variables.get(job.use.database)
        if url is None:
            raise errors.NotFoundError(
                f"{key} has no {job.use.database}, which is the address of its database.",
                hint=f"tide secret set {key.environment} {job.use.database}, and name it under `secrets`.",
            )
        order = {
            "url": url,
            "app": job.app,
            "environment": job.environment,
            "folder": str(given.content(job) / job.use.path) if job.offers else None,
            "steps": [{"id": step.id, "direction": step.direction} for step in job.steps],
            "release": job.release,
            "digest": job.digest,
            "by": job.by,
            "fence": job.fence,
            "only": list(job.only),
            "proofs": _PROOFS.dump_python(given.proofs.known(), mode="json"),
            "user": given.account(key),
        }
        return json.dumps(order).encode() + b"\n"

    @staticmethod
    def _hear(work: _Work, process: subprocess.Popen[bytes], order: bytes) -> None:
        """The worker until it ends. Its input stays open until then: it ends when we do."""
        orders, answers = cast("IO[bytes]", process.stdin), cast("IO[bytes]", process.stdout)
        try:
            orders.write(order)
            orders.flush()
            for line in answers:
                _hear(work, line)
        except OSError:
            pass  # it ended before it had read its order; its status says how
        status = process.wait()
        with contextlib.suppress(OSError):  # an order that nobody has read
            orders.close()
        answers.close()
        if not work.result and not work.failure:
            work.failure, work.hint = f"The process that ran it {_ended(status)}.", AGAIN

    def _follow(self, work: _Work, process: subprocess.Popen[bytes], order: bytes) -> None:
        """To its end, and keep what it has found out."""
        self._hear(work, process, order)
        try:
            if work.result:
                self._surroundings.proofs.keep(_PROOFS.validate_python(work.result["proofs"]))
        except errors.TidegateError as error:
            work.result, work.failure, work.hint = {}, error.message, error.hint or ""
        with self._turn:
            work.ended = True
            if work.removed:
                for known in self._works.values():
                    if known.get(work.id) is work:
                        del known[work.id]


def _started() -> subprocess.Popen[bytes]:
    """A worker that waits for its order. Raises MigratorError."""
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-m", "tidegate.migrators.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # a traceback may show an address; what matters is said as JSON
            env={name: os.environ[name] for name in _GIVEN if name in os.environ},
            cwd="/",
            start_new_session=True,
        )
    except OSError as error:
        raise errors.MigratorError(
            f"The process that runs migrations cannot be started: {error.strerror}."
        ) from error


def _hear(work: _Work, line: bytes) -> None:
    said = json.loads(line)
    if "progress" in said:
        work.progress = _shown(said["progress"])
    elif "error" in said:
        work.failure, work.hint = said["error"]["message"], said["error"]["hint"] or ""
    else:
        work.result = said


def _shown(progress: Mapping[str, Any]) -> str:
    if progress.get("waits"):
        return f"{progress.get('id', '')} waits: {progress['waits']}".strip()
    return f"{progress['id']}, statement {progress['statement']} of {progress['statements']}"


def _status(work: _Work) -> JobStatus:
    if not work.ended:
        return JobStatus(id=work.id, state=JobState.RUNNING, progress=work.progress)
    if work.failure:
        return JobStatus(id=work.id, state=JobState.FAILED, failure=work.failure, hint=work.hint)
    study = _STUDY.validate_python(work.result["study"])
    return JobStatus(id=work.id, state=JobState.DONE, study=study)


def _ended(status: int) -> str:
    return f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"


def _kill(work: _Work) -> None:
    """Itself and whatever it has started."""
    process = work.process
    if process is not None and process.poll() is None:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return

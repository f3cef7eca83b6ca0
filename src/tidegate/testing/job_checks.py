"""What every runtime promises of jobs: groups that run once, to their end, and say how it was.

Run like the other conformance checks, with a harness of its own: it knows commands that pass, fail and go on.
Neighbours: conformance.py (groups that serve), tests/contract and tests/integration/runtimes, which run them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from tidegate import ports
from tidegate.core import model
from tidegate.testing.conformance import DIGEST, KEY, Wait, _holds, _same

PASSING: Final = ("./pass",)
FAILING: Final = ("./fail",)
ENDLESS: Final = ("./wait",)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobHarness:
    """A runtime under test, and commands that it can run."""

    runtime: ports.Runtime
    wait: Wait
    digest: str = DIGEST
    passing: tuple[str, ...] = PASSING
    """Ends soon, with exit status 0."""
    failing: tuple[str, ...] = FAILING
    """Ends soon, with exit status 3."""
    endless: tuple[str, ...] = ENDLESS
    """Runs until it is told to end."""


MakeJobs = Callable[[], JobHarness]


def job(harness: JobHarness, run: tuple[str, ...] | None = None) -> model.InstanceGroup:
    """A job of this command, else of one that passes."""
    wanted = harness.passing if run is None else run
    return model.InstanceGroup(
        key=KEY,
        placement=1,
        service=model.VERIFY_SERVICE,
        release=1,
        digest=harness.digest,
        run=wanted,
        serves=False,
        check=model.Check(kind=model.CheckKind.ALIVE),
        instances=1,
        environment=(("TIDEGATE_URL", "http://127.0.0.1:9"),),
        limits=model.Limits(),
        grace_s=2.0,
        verify=model.Verify(run=wanted),
    )


def job_that_passes_is_shown_as_passed(make: MakeJobs) -> None:
    """After its end it is exited and ready, and says how it ended; nothing of it is a crash."""
    _ends(make(), lambda harness: harness.passing, passed=True, how="exit status 0")


def job_that_fails_is_shown_as_failed(make: MakeJobs) -> None:
    """A failed end is an outcome: it is not started again, and is no crash."""
    _ends(make(), lambda harness: harness.failing, passed=False, how="exit status 3")


def job_that_runs_is_undecided(make: MakeJobs) -> None:
    """While it runs it is neither ready nor unready, and has a process and no port."""
    harness = make()
    seen = _running(harness, job(harness, harness.endless))
    _same((seen.ready, seen.port, seen.crashes, seen.exit), (None, None, 0, ""))
    _holds(seen.pid is not None, "a running job has no process")


def job_that_runs_is_not_started_again(make: MakeJobs) -> None:
    """Applied while it runs, it is the same run."""
    harness = make()
    wanted = job(harness, harness.endless)
    before = _running(harness, wanted)
    harness.runtime.apply(wanted, key="again")
    harness.runtime.apply(wanted, key="and again")
    _same(_running(harness, wanted), before)


def job_that_has_ended_is_not_started_again(make: MakeJobs) -> None:
    """Applied after its end, whatever that was, it keeps its outcome and never runs."""
    for command, outcome in (("passing", True), ("failing", False)):
        harness = make()
        wanted = job(harness, getattr(harness, command))
        before = _ended(harness, wanted)
        harness.runtime.apply(wanted, key="again")
        _same((_look(harness, wanted), before.ready, before.pid), (before, outcome, None))


def job_is_removed_like_any_group(make: MakeJobs) -> None:
    """Removed in the middle or after its end, it is gone; applied then, it is another run."""
    harness = make()
    running = job(harness, harness.endless)
    _running(harness, running)
    _removed(harness, running)
    ended = job(harness)
    _ended(harness, ended)
    _removed(harness, ended)
    _holds(_ended(harness, ended).ready is True, "another run of the job has not passed")


def _ends(
    harness: JobHarness, command: Callable[[JobHarness], tuple[str, ...]], *, passed: bool, how: str
) -> None:
    seen = _ended(harness, job(harness, command(harness)))
    _same((seen.ready, seen.exit, seen.crashes, seen.pid, seen.port), (passed, how, 0, None, None))


def _look(harness: JobHarness, wanted: model.InstanceGroup) -> model.InstanceStatus | None:
    for seen in harness.runtime.observe(wanted.key).groups:
        if seen.id == wanted.id:
            _same(len(seen.instances), 1)
            return seen.instances[0]
    return None


def _running(harness: JobHarness, wanted: model.InstanceGroup) -> model.InstanceStatus:
    return _awaited(harness, wanted, model.InstanceState.RUNNING)


def _ended(harness: JobHarness, wanted: model.InstanceGroup) -> model.InstanceStatus:
    return _awaited(harness, wanted, model.InstanceState.EXITED)


def _awaited(
    harness: JobHarness, wanted: model.InstanceGroup, state: model.InstanceState
) -> model.InstanceStatus:
    harness.runtime.apply(wanted, key=f"apply:{wanted.id}")
    found: list[model.InstanceStatus] = []

    def reached() -> bool:
        seen = _look(harness, wanted)
        if seen is not None and seen.state is state:
            found.append(seen)
        return bool(found)

    harness.wait(reached, f"{wanted.id} has not become {state}")
    return found[0]


def _removed(harness: JobHarness, wanted: model.InstanceGroup) -> None:
    harness.runtime.remove(wanted.id, key="stop")
    harness.wait(lambda: _look(harness, wanted) is None, f"{wanted.id} has not gone")


JOB_CHECKS: Final[tuple[Callable[[MakeJobs], None], ...]] = (
    job_that_passes_is_shown_as_passed,
    job_that_fails_is_shown_as_failed,
    job_that_runs_is_undecided,
    job_that_runs_is_not_started_again,
    job_that_has_ended_is_not_started_again,
    job_is_removed_like_any_group,
)

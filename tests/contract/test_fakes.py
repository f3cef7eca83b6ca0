"""The fakes keep the promises that the real adapters keep."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from tidegate import errors
from tidegate.core import model
from tidegate.core.model import InstanceState
from tidegate.core.sequential import Counted
from tidegate.testing import conformance, fakes, job_checks
from tidegate.testing.conformance import KEY

#: Virtual seconds that a fake may take for anything.
PATIENCE_S = 30


def _waits_on(clock: fakes.ManualClock) -> conformance.Wait:
    def wait(condition: Callable[[], bool], otherwise: str) -> None:
        for _ in range(PATIENCE_S * 2):
            if condition():
                return
            clock.advance(0.5)
        raise AssertionError(otherwise)

    return wait


def _runtime() -> conformance.RuntimeHarness:
    clock = fakes.ManualClock()
    return conformance.RuntimeHarness(runtime=fakes.FakeRuntime(clock=clock), wait=_waits_on(clock))


def _thrifty_runtime() -> conformance.RuntimeHarness:
    clock = fakes.ManualClock()
    runtime = fakes.FakeRuntime(clock=clock, reuse_ports=True, remembers_reboot=False)
    return conformance.RuntimeHarness(runtime=runtime, wait=_waits_on(clock))


def _router() -> conformance.RouterHarness:
    clock = fakes.ManualClock()
    router = fakes.FakeRouter(clock=clock)

    def restart() -> None:
        router.kill()
        router.start()

    def ask(asked: conformance.Requests) -> None:
        from_app = asked.good + asked.failing + asked.broken
        router.answered(
            KEY,
            model.Traffic(
                service="web",
                slot=0,
                requests=from_app + asked.cut,
                errors=asked.failing + asked.cut,
                unanswered=asked.broken,
                latencies=((40, from_app - 1), (70, 1)),
                user_errors=((5, asked.failing),) if asked.failing else (),
            ),
        )

    return conformance.RouterHarness(router=router, wait=_waits_on(clock), restart=restart, ask=ask)


@pytest.mark.parametrize("make", [_runtime, _thrifty_runtime], ids=["fake", "fake-reusing-ports"])
@pytest.mark.parametrize("check", conformance.RUNTIME_CHECKS, ids=lambda check: check.__name__)
def test_runtime(check: Callable[[conformance.MakeRuntime], None], make: conformance.MakeRuntime) -> None:
    """The fake runtime keeps the promise."""
    check(make)


def _jobs() -> job_checks.JobHarness:
    clock = fakes.ManualClock()
    ends: dict[tuple[str, ...], fakes.JobEnd] = {
        job_checks.PASSING: fakes.JobEnd(),
        job_checks.FAILING: fakes.JobEnd(passed=False, exit="exit status 3"),
        job_checks.ENDLESS: fakes.JobEnd(after_s=math.inf),
    }
    runtime = fakes.FakeRuntime(clock=clock, jobs=lambda group: ends[group.run])
    return job_checks.JobHarness(runtime=runtime, wait=_waits_on(clock))


@pytest.mark.parametrize("check", job_checks.JOB_CHECKS, ids=lambda check: check.__name__)
def test_jobs(check: Callable[[job_checks.MakeJobs], None]) -> None:
    """The fake runtime keeps the promise for what runs once, too."""
    check(_jobs)


@pytest.mark.parametrize("check", conformance.ROUTER_CHECKS, ids=lambda check: check.__name__)
def test_router(check: Callable[[conformance.MakeRouter], None]) -> None:
    """The fake router keeps the promise."""
    check(_router)


def test_suites_run_as_one_call_each() -> None:
    """An adapter can be held to all promises by one line."""
    conformance.check_runtime(_runtime)
    conformance.check_router(_router)


# --- what the fakes do beyond the port ---------------------------------------------------------------


def _started(runtime: fakes.FakeRuntime) -> model.InstanceGroup:
    group = conformance.group(conformance.RuntimeHarness(runtime=runtime, wait=_waits_on(runtime.clock)))
    runtime.apply(group, key="")
    runtime.clock.advance(1.0)
    return group


def test_instances_crash_wait_and_come_back() -> None:
    """A crash is counted, waited for, and the instance keeps its address."""
    runtime = fakes.FakeRuntime()
    group = _started(runtime)
    before = runtime.instances(group.id)[0]
    runtime.crash(group.id, 0)
    down = runtime.instances(group.id)[0]
    assert (down.state, down.ready, down.crashes, down.pid) == (InstanceState.BACKOFF, False, 1, None)
    runtime.clock.advance(2.5)
    back = runtime.instances(group.id)[0]
    assert (back.state, back.ready, back.port) == (InstanceState.RUNNING, True, before.port)
    assert back.pid != before.pid


def test_crash_loop_goes_on_until_it_recovers() -> None:
    """Crashes happen by the clock, as often as the behaviour says."""
    loops = fakes.Behaviour(crash_after_s=2.0, crashes_max=2)
    runtime = fakes.FakeRuntime(default=loops)
    group = _started(runtime)
    runtime.clock.advance(60.0)
    assert {(i.crashes, i.recent_crashes, i.ready) for i in runtime.instances(group.id)} == {(2, 2, True)}
    runtime.clock.advance(fakes.RECENT_S)
    runtime.hang(group.id, 0, seconds=1.0)
    assert runtime.instances(group.id)[0].recent_crashes == 0
    assert runtime.instances(group.id)[0].ready is False


def test_blind_fakes_raise_instead_of_showing_nothing() -> None:
    """Could not look is not the same as nothing there."""
    runtime, router = fakes.FakeRuntime(), fakes.FakeRouter()
    runtime.blind = router.blind = True
    with pytest.raises(errors.RuntimeAdapterError):
        runtime.observe(KEY)
    with pytest.raises(errors.RouterError):
        router.observe(KEY)


@pytest.mark.parametrize("remembers", [True, False])
def test_reboot_leaves_no_process(remembers: bool) -> None:
    """After a reset groups are exited or forgotten, and another apply starts them elsewhere."""
    runtime = fakes.FakeRuntime(remembers_reboot=remembers)
    group = _started(runtime)
    old_ports = {instance.port for instance in runtime.instances(group.id)}
    runtime.reboot()
    states = {instance.state for instance in runtime.instances(group.id)}
    assert states == ({InstanceState.EXITED} if remembers else set())
    runtime.apply(group, key="")
    runtime.clock.advance(1.0)
    assert all(instance.ready for instance in runtime.instances(group.id))
    assert not old_ports & {instance.port for instance in runtime.instances(group.id)}


def _job(runtime: fakes.FakeRuntime) -> model.InstanceGroup:
    wanted = job_checks.job(job_checks.JobHarness(runtime=runtime, wait=_waits_on(runtime.clock)))
    runtime.apply(wanted, key="")
    return wanted


def _outcome(runtime: fakes.FakeRuntime, group: model.InstanceGroup) -> tuple[object, ...]:
    (seen,) = runtime.instances(group.id)
    return seen.state, seen.ready, seen.exit, seen.crashes


def test_job_passes_after_a_second_unless_it_is_told_otherwise() -> None:
    """The default is a job that passes; a test can end it sooner, as it likes."""
    runtime = fakes.FakeRuntime()
    first, second = _job(runtime), replace(_job(runtime), placement=2)
    runtime.apply(second, key="")
    runtime.finish(second.id, passed=False, exit="GET / answered 500 instead of 200")
    assert _outcome(runtime, first) == (InstanceState.RUNNING, None, "", 0)
    runtime.clock.advance(1.0)
    assert _outcome(runtime, first) == (InstanceState.EXITED, True, "exit status 0", 0)
    runtime.finish(first.id, passed=False)
    assert _outcome(runtime, first) == (InstanceState.EXITED, True, "exit status 0", 0)
    told = (InstanceState.EXITED, False, "GET / answered 500 instead of 200", 0)
    assert _outcome(runtime, second) == told


def test_job_that_is_killed_has_failed() -> None:
    """It is not started again, and nothing of it is counted as a crash."""
    runtime = fakes.FakeRuntime()
    job = _job(runtime)
    runtime.crash(job.id, 0, how="killed by SIGKILL")
    runtime.clock.advance(60.0)
    assert _outcome(runtime, job) == (InstanceState.EXITED, False, "killed by SIGKILL", 0)


def test_job_that_a_reboot_has_cut_runs_again_and_one_that_had_ended_does_not() -> None:
    """Without an outcome it counts as not run; an outcome outlives the machine."""
    runtime = fakes.FakeRuntime()
    job = _job(runtime)
    runtime.reboot()
    assert _outcome(runtime, job) == (InstanceState.EXITED, None, "the machine was started again", 0)
    runtime.apply(job, key="")
    runtime.clock.advance(1.0)
    runtime.reboot()
    runtime.apply(job, key="")
    assert _outcome(runtime, job) == (InstanceState.EXITED, True, "exit status 0", 0)


def test_sessions_outlive_a_reload_but_not_a_kill() -> None:
    """The old process serves what it has; a killed one serves nothing."""
    router = fakes.FakeRouter()
    harness = conformance.RouterHarness(router=router, wait=_waits_on(router.clock))
    table = conformance.table(harness)
    router.apply(table, key="")
    server = ("web", 0, "p1-0-20002")
    router.open_session(KEY, server, seconds=60.0)
    router.reload()
    (seen,) = [each for each in router.observe(KEY).servers if each.name == server[2]]
    assert seen.sessions == 1
    router.kill()
    router.start()
    (seen,) = [each for each in router.observe(KEY).servers if each.name == server[2]]
    assert seen.sessions == 0


def test_answers_are_counted_as_a_router_counts_them() -> None:
    """Counts add up per process; the old process shows its own until its last session ends."""
    router = fakes.FakeRouter()
    harness = conformance.RouterHarness(router=router, wait=_waits_on(router.clock))
    router.apply(conformance.table(harness), key="")
    router.answered(
        KEY,
        model.Traffic(
            service="web",
            slot=0,
            requests=10,
            errors=1,
            latencies=((40, 8), (60, 1)),
            unanswered=1,
            user_errors=((7, 1),),
        ),
    )
    router.answered(KEY, model.Traffic(service="web", slot=0, requests=2, latencies=((20, 1), (40, 1))))
    failed = ((0, 1), (7, 1))
    router.answered(KEY, model.Traffic(service="web", slot=0, requests=3, errors=3, user_errors=failed))
    router.open_session(KEY, ("web", 0, "p1-0-20002"), seconds=60.0)
    router.reload()
    router.answered(KEY, model.Traffic(service="web", slot=0, requests=5, latencies=((40, 5),)))
    router.answered(KEY, model.Traffic(service="web", slot=0, requests=1, latencies=((90, 1),), process="2"))
    seen = router.observe(KEY)
    assert seen.processes == ("2", "3")
    counted = {
        one.process: (one.requests, one.errors, one.classes, one.latencies, one.user_errors)
        for one in seen.traffic
        if one.requests
    }
    assert counted == {
        "2": (16, 4, (0, 12, 0, 0, 4), ((20, 1), (40, 9), (60, 1), (90, 1)), ((0, 1), (7, 2))),
        "3": (5, 0, (0, 5, 0, 0, 0), ((40, 5),), ()),
    }
    assert {one.process: one.unanswered for one in seen.traffic if one.requests} == {"2": 1, "3": 0}
    router.clock.advance(60.0)
    assert router.observe(KEY).processes == ("3",)
    router.kill()
    router.start()
    again = router.observe(KEY)
    assert (again.processes, {one.requests for one in again.traffic}) == (("4",), {0})


def test_answers_are_shared_out_among_servers() -> None:
    """Servers answer in turn; a request that was left without an answer is none of theirs."""
    router = fakes.FakeRouter()
    harness = conformance.RouterHarness(router=router, wait=_waits_on(router.clock))
    router.apply(conformance.table(harness), key="")
    number = len(router.candidates(KEY, "web", 0))
    assert number > 0
    router.answered(
        KEY, model.Traffic(service="web", slot=0, requests=3 * number + 2, errors=2, unanswered=1)
    )
    seen = [each for each in router.observe(KEY).servers if (each.service, each.slot) == ("web", 0)]
    assert sum(each.requests for each in seen) == 3 * number + 1
    assert sum(each.errors for each in seen) == 2
    router.reload()
    assert sum(each.requests for each in router.observe(KEY).servers) == 0, "a new process counts from zero"


@pytest.mark.parametrize(
    ("errors_", "latencies", "unanswered"), [(3, (), 0), (0, ((5, 3),), 0), (0, (), 3), (-1, (), 0)]
)
def test_impossible_counts_are_refused(
    errors_: int, latencies: tuple[tuple[int, int], ...], unanswered: int
) -> None:
    """No part of the requests is larger than their number or below zero."""
    router = fakes.FakeRouter()
    harness = conformance.RouterHarness(router=router, wait=_waits_on(router.clock))
    router.apply(conformance.table(harness), key="")
    with pytest.raises(ValueError, match="No router counts this"):
        router.answered(
            KEY,
            model.Traffic(
                service="web", slot=0, requests=2, errors=errors_, latencies=latencies, unanswered=unanswered
            ),
        )


@pytest.mark.parametrize("had", [((3, 2),), ((3, 1), (4, 1)), ((3, -1),), ((20, 1),), ((-1, 1),)])
def test_impossible_errors_of_users_are_refused(had: Counted) -> None:
    """Users had no more errors than there were, in one of the twenty parts."""
    router = fakes.FakeRouter()
    harness = conformance.RouterHarness(router=router, wait=_waits_on(router.clock))
    router.apply(conformance.table(harness), key="")
    with pytest.raises(ValueError, match="No router counts this"):
        router.answered(KEY, model.Traffic(service="web", slot=0, requests=2, errors=1, user_errors=had))


def test_new_server_is_up_after_its_check() -> None:
    """A server that came in at run time takes nothing until it was checked; one that is dead never does."""
    alive = {20_001, 20_002}
    router = fakes.FakeRouter(reachable=lambda _host, port: port in alive)
    harness = conformance.RouterHarness(router=router, wait=_waits_on(router.clock))
    one = conformance.table(harness)
    empty = model.RouteTable(
        key=one.key,
        route=one.route,
        services=one.services,
        backends=tuple(
            model.Backend(service=b.service, slot=b.slot, check=b.check, servers=()) for b in one.backends
        ),
    )
    router.apply(empty, key="")
    router.apply(one, key="")
    assert router.candidates(KEY, "web", 0) == ()
    router.clock.advance(1.0)
    assert [name for name, _ in router.candidates(KEY, "web", 0)] == ["p1-0-20002"]
    alive.clear()
    router.settle()
    router.clock.advance(1.0)
    router.settle()
    router.clock.advance(1.0)
    assert router.candidates(KEY, "web", 0) == ()


def test_apply_can_stop_between_its_parts() -> None:
    """What is raised between two parts leaves the rest undone: the boot files come first."""

    def stop(step: str) -> None:
        if step == "route":
            raise errors.RouterError("The connection was lost.")

    router = fakes.FakeRouter()
    harness = conformance.RouterHarness(router=router, wait=_waits_on(router.clock))
    router.apply(conformance.table(harness), key="")
    router.on_step = stop
    wider = conformance.table(harness, fence=2, slots=(0, 1), exposure_bps=100)
    with pytest.raises(errors.RouterError):
        router.apply(conformance.table(harness, fence=2), key="")
    seen = router.observe(KEY)
    assert seen.route is not None
    assert seen.boot is not None
    assert (seen.route.fence, seen.boot.route.fence) == (1, 2)
    assert wider.route.canary == 1


def test_clock_shows_what_machines_show() -> None:
    """Wall clocks jump, monotonic clocks start again at a boot, and true time goes on."""
    clock = fakes.ManualClock(now=100.0)
    clock.sleep(5.0)
    clock.jump(-50.0)
    assert (clock.now(), clock.monotonic(), clock.elapsed) == (55.0, 5.0, 5.0)
    clock.reboot()
    assert (clock.monotonic(), clock.elapsed) == (0.0, 5.0)


def test_call_of_another_app_is_answered_by_its_stable_release() -> None:
    """By nobody before one is live; the address goes with the caller."""
    router = fakes.FakeRouter()
    shop = model.EnvironmentKey(app="shop", environment="production")
    accounts = model.EnvironmentKey(app="accounts", environment="production")
    links = (model.ForeignLink(service="accounts/api", port=29_650),)
    calling = model.RouteTable(key=shop, route=model.Route(fence=1), foreign=links)
    router.apply(calling, key="1")
    assert router.called(29_650) is None
    moving = model.Route(stable=1, canary=2, exposure_bps=9_999, fence=1)
    router.apply(model.RouteTable(key=accounts, route=moving), key="2")
    assert router.called(29_650) == (accounts, "api", 1)
    gone = model.RouteTable(key=shop, route=model.Route(fence=2))
    router.apply(gone, key="3")
    assert router.called(29_650) is None

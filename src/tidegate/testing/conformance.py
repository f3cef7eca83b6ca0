"""What every runtime and every router promises, as checks that see nothing but the port.

    @pytest.mark.parametrize("check", conformance.RUNTIME_CHECKS, ids=lambda check: check.__name__)
    def test_runtime(check): check(factory)

A factory makes a harness: a new, empty adapter, and how to wait until something is true of it (the fakes
move their clock, the real ones poll). Neighbours: tests/contract runs them on the fakes and on the adapters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

from tidegate import errors, ports
from tidegate.core import model, sequential

KEY: Final = model.EnvironmentKey(app="conformance", environment="one")
OTHER: Final = model.EnvironmentKey(app="conformance", environment="two")
DIGEST: Final = f"sha256:{'a' * 64}"
CHECK: Final = model.Check(kind=model.CheckKind.TCP, interval_s=0.1, timeout_s=1.0)

Wait = Callable[[Callable[[], bool], str], None]
"""Return when the condition holds; raise AssertionError with the text when it does not in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeHarness:
    """A runtime under test."""

    runtime: ports.Runtime
    wait: Wait
    run: tuple[str, ...] = ("./serve",)
    """argv of something that listens on `$PORT` until it is told to end."""
    digest: str = DIGEST
    """Of the artifact that `run` comes from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """What users ask of the service `web` of `KEY`, by what becomes of it."""

    good: int
    """The app answers 200."""
    failing: int
    """The app answers 500."""
    cut: int
    """The app ends the connection instead of an answer."""
    broken: int
    """The app begins to answer 200, and ends the connection in the middle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterHarness:
    """A router under test."""

    router: ports.Router
    wait: Wait
    server_ports: tuple[int, ...] = (20_001, 20_002, 20_003, 20_004)
    """Loopback ports at which something passes a TCP check; at least four."""
    restart: Callable[[], None] | None = None
    """Kill the router's process and start it again; None if the harness cannot."""
    ask: Callable[[Requests], None] | None = None
    """Send users' requests; return when all have their answers. None if the harness cannot."""


MakeRuntime = Callable[[], RuntimeHarness]
MakeRouter = Callable[[], RouterHarness]


def group(
    harness: RuntimeHarness,
    *,
    placement: int = 1,
    service: str = "web",
    instances: int = 2,
    key: model.EnvironmentKey = KEY,
) -> model.InstanceGroup:
    """A group that becomes ready under this harness."""
    return model.InstanceGroup(
        key=key,
        placement=placement,
        service=service,
        release=1,
        digest=harness.digest,
        run=harness.run,
        serves=True,
        check=CHECK,
        instances=instances,
        environment=(("GREETING", "hello"),),
        limits=model.Limits(),
        grace_s=2.0,
    )


def _same(seen: object, wanted: object) -> None:
    """Not `assert`: the suite must bite under `python -O` too."""
    if seen != wanted:
        raise AssertionError(f"{seen!r} instead of {wanted!r}")


def _holds(condition: bool, complaint: str) -> None:  # noqa: FBT001 (an assertion's condition)
    if not condition:
        raise AssertionError(complaint)


# --- runtime --------------------------------------------------------------------------------------------


def runtime_begins_empty(make: MakeRuntime) -> None:
    """Nothing runs that was not asked for."""
    harness = make()
    _same(harness.runtime.observe(KEY).groups, ())


def runtime_brings_instances_to_ready(make: MakeRuntime) -> None:
    """What was applied is observed: every instance, with an address of its own, ready in the end."""
    harness = make()
    wanted = _started(harness, group(harness))
    (seen,) = harness.runtime.observe(KEY).groups
    _same((seen.id, seen.placement, seen.service), (wanted.id, wanted.placement, wanted.service))
    _same([instance.index for instance in seen.instances], [0, 1])
    _holds(
        all(instance.state is model.InstanceState.RUNNING for instance in seen.instances),
        "an instance is ready and does not run",
    )
    _same(len({(instance.host, instance.port) for instance in seen.instances}), wanted.instances)


def runtime_apply_is_idempotent(make: MakeRuntime) -> None:
    """A second apply, of the running group, starts nothing and moves nothing."""
    harness = make()
    wanted = _started(harness, group(harness))
    before = _identities(harness)
    harness.runtime.apply(wanted, key="again")
    harness.runtime.apply(wanted, key="and again")
    _same(_identities(harness), before)


def runtime_never_doubles_what_is_still_starting(make: MakeRuntime) -> None:
    """Applied twice before anything is ready, there is still one of each."""
    harness = make()
    wanted = group(harness)
    harness.runtime.apply(wanted, key="one")
    harness.runtime.apply(wanted, key="two")
    _await_ready(harness, wanted)
    (seen,) = harness.runtime.observe(KEY).groups
    _same([instance.index for instance in seen.instances], [0, 1])


def runtime_remove_ends_in_absence(make: MakeRuntime) -> None:
    """A removed group is shown until its last instance is gone, and then no more."""
    harness = make()
    wanted = _started(harness, group(harness))
    harness.runtime.remove(wanted.id, key="stop")
    for seen in harness.runtime.observe(KEY).groups:
        states = {instance.state for instance in seen.instances}
        _holds(
            states <= {model.InstanceState.STOPPING, model.InstanceState.EXITED},
            "a group that is being removed is shown as running",
        )
    _await_absence(harness, wanted)


def runtime_remove_is_idempotent(make: MakeRuntime) -> None:
    """Removing again, during the stop or after it, is no error and brings nothing back."""
    harness = make()
    wanted = _started(harness, group(harness))
    harness.runtime.remove(wanted.id, key="one")
    harness.runtime.remove(wanted.id, key="two")
    _await_absence(harness, wanted)
    harness.runtime.remove(wanted.id, key="three")
    _same(harness.runtime.observe(KEY).groups, ())


def runtime_remove_of_the_unknown_is_nothing(make: MakeRuntime) -> None:
    """A late command for a group that never was, or is long gone, changes nothing."""
    harness = make()
    wanted = _started(harness, group(harness))
    before = _identities(harness)
    harness.runtime.remove(model.group_id(KEY, 99, "web"), key="late")
    _same(_identities(harness), before)
    _same([seen.id for seen in harness.runtime.observe(KEY).groups], [wanted.id])


def runtime_remove_touches_one_group(make: MakeRuntime) -> None:
    """The groups beside it, of the same service and of the same placement, run on."""
    harness = make()
    kept = _started(harness, group(harness, placement=1, instances=1))
    beside = _started(harness, group(harness, placement=2, service="api", instances=1))
    gone = _started(harness, group(harness, placement=2, instances=1))
    before = {name for name in _identities(harness) if name[0] != gone.id}
    harness.runtime.remove(gone.id, key="stop")
    _await_absence(harness, gone)
    _same(_identities(harness), before)
    _same({seen.id for seen in harness.runtime.observe(KEY).groups}, {kept.id, beside.id})


def runtime_environments_are_apart(make: MakeRuntime) -> None:
    """A look at one environment shows nothing of another, though placement and service are the same."""
    harness = make()
    here = _started(harness, group(harness, instances=1))
    there = group(harness, instances=1, key=OTHER)
    harness.runtime.apply(there, key="there")
    _await_ready(harness, there)
    _same([seen.id for seen in harness.runtime.observe(KEY).groups], [here.id])
    _same([seen.id for seen in harness.runtime.observe(OTHER).groups], [there.id])


def runtime_revisions_grow(make: MakeRuntime) -> None:
    """Each look has a revision above the last one, so that an old one can be told."""
    harness = make()
    harness.runtime.apply(group(harness, instances=1), key="one")
    revisions = [harness.runtime.observe(KEY).revision for _ in range(5)]
    _holds(revisions[0] > 0, "the first revision is not above zero")
    _same(revisions, sorted(set(revisions)))


def runtime_addresses_are_not_shared(make: MakeRuntime) -> None:
    """No two instances have one address, whatever group they are of: the router would mix releases."""
    harness = make()
    for placement in (1, 2, 3):
        _started(harness, group(harness, placement=placement))
    seen = [i for g in harness.runtime.observe(KEY).groups for i in g.instances]
    _same(len({(instance.host, instance.port) for instance in seen}), len(seen))
    _holds(len(seen) > 0, "nothing was seen")


def runtime_logs_name_their_group(make: MakeRuntime) -> None:
    """Lines of a group are its own, at most as many per instance as asked for; an unknown group has none."""
    harness = make()
    wanted = _started(harness, group(harness))
    lines = [line for line in harness.runtime.logs(wanted.id, tail=1) if line is not None]
    _holds(
        all(line.group_id == wanted.id for line in lines),
        "a line belongs to another group",
    )
    _holds(
        all(sum(1 for line in lines if line.index == index) <= 1 for index in (0, 1)),
        "more lines than asked for",
    )
    _same([line for line in harness.runtime.logs("conformance.one.99.web", tail=5) if line], [])


def _started(harness: RuntimeHarness, wanted: model.InstanceGroup) -> model.InstanceGroup:
    harness.runtime.apply(wanted, key=f"apply:{wanted.id}")
    _await_ready(harness, wanted)
    return wanted


def _await_ready(harness: RuntimeHarness, wanted: model.InstanceGroup) -> None:
    def ready() -> bool:
        groups = harness.runtime.observe(wanted.key).groups
        return any(seen.id == wanted.id and seen.ready_count == wanted.instances for seen in groups)

    harness.wait(ready, f"{wanted.id} has not become ready")


def _await_absence(harness: RuntimeHarness, wanted: model.InstanceGroup) -> None:
    def absent() -> bool:
        return all(seen.id != wanted.id for seen in harness.runtime.observe(wanted.key).groups)

    harness.wait(absent, f"{wanted.id} has not gone")


def _identities(harness: RuntimeHarness) -> set[tuple[str, int, int | None, int | None]]:
    return {
        (seen.id, instance.index, instance.pid, instance.port)
        for seen in harness.runtime.observe(KEY).groups
        for instance in seen.instances
    }


RUNTIME_CHECKS: Final[tuple[Callable[[MakeRuntime], None], ...]] = (
    runtime_begins_empty,
    runtime_brings_instances_to_ready,
    runtime_apply_is_idempotent,
    runtime_never_doubles_what_is_still_starting,
    runtime_remove_ends_in_absence,
    runtime_remove_is_idempotent,
    runtime_remove_of_the_unknown_is_nothing,
    runtime_remove_touches_one_group,
    runtime_environments_are_apart,
    runtime_revisions_grow,
    runtime_addresses_are_not_shared,
    runtime_logs_name_their_group,
)


def check_runtime(make: MakeRuntime) -> None:
    """All of the above, one after the other, each on a new runtime."""
    for check in RUNTIME_CHECKS:
        check(make)


# --- router ---------------------------------------------------------------------------------------------


def table(
    harness: RouterHarness,
    *,
    fence: int = 1,
    exposure_bps: int = 0,
    slots: tuple[int, ...] = (0,),
    key: model.EnvironmentKey = KEY,
) -> model.RouteTable:
    """Two services in each of the slots; the first slot is stable, a second one the canary."""
    canary = slots[1] if len(slots) > 1 else None
    server_ports = iter(harness.server_ports)
    backends = [
        model.Backend(
            service=service,
            slot=slot,
            check=CHECK,
            servers=(model.Server(name=f"p{slot + 1}-0-{port}", host="127.0.0.1", port=port),),
        )
        for service in ("api", "web")
        for slot in slots
        for port in (next(server_ports),)
    ]
    web = model.PublicService(
        service="web", hosts=(f"{key.environment}.example.com",), identity=model.UserIdentity.COOKIE
    )
    return model.RouteTable(
        key=key,
        route=model.Route(
            stable=slots[0], canary=canary, exposure_bps=exposure_bps, salt="conformance", fence=fence
        ),
        services=(web,),
        backends=tuple(sorted(backends, key=lambda backend: (backend.service, backend.slot))),
    )


def router_begins_empty(make: MakeRouter) -> None:
    """An environment that was never applied has no route, no servers and nothing in the boot files."""
    harness = make()
    seen = harness.router.observe(KEY)
    _same((seen.route, seen.boot, seen.servers), (None, None, ()))


def router_holds_what_was_applied(make: MakeRouter) -> None:
    """Route, servers and boot files are read back as the table says."""
    harness = make()
    wanted = _applied(harness, table(harness, slots=(0, 1), exposure_bps=500))
    seen = harness.router.observe(KEY)
    _same(seen.route, wanted.route)
    _same(seen.boot, wanted)
    _holds(seen.current, "the running process does not have the structure of the boot files")
    names = {(server.service, server.slot, server.name) for server in seen.servers}
    _same((len(names), len(seen.servers)), (len(harness.server_ports[:4]),) * 2)
    harness.wait(
        lambda: all(server.up and server.ready for server in harness.router.observe(KEY).servers),
        "the servers have not come up",
    )


def router_apply_is_idempotent(make: MakeRouter) -> None:
    """The same table once more changes nothing that can be seen."""
    harness = make()
    wanted = _applied(harness, table(harness))
    before = harness.router.observe(KEY)
    harness.router.apply(wanted, key="again")
    after = harness.router.observe(KEY)
    _same(
        (after.route, after.boot, _names(after), after.processes),
        (
            before.route,
            before.boot,
            _names(before),
            before.processes,
        ),
    )


def router_refuses_a_smaller_fence(make: MakeRouter) -> None:
    """A late command raises StaleRouteError and leaves route, servers and boot files alone."""
    harness = make()
    _applied(harness, table(harness, fence=3, slots=(0, 1), exposure_bps=500))
    home = _applied(harness, table(harness, fence=5))
    try:
        harness.router.apply(table(harness, fence=4, slots=(0, 1), exposure_bps=2_500), key="late")
    except errors.StaleRouteError:
        pass
    else:
        raise AssertionError("a route with a smaller fence was taken")
    seen = harness.router.observe(KEY)
    _same((seen.route, seen.boot), (home.route, home))


def router_changes_share_without_a_reload(make: MakeRouter) -> None:
    """Another exposure of the same slots leaves the process and its servers as they are."""
    harness = make()
    _applied(harness, table(harness, fence=1, slots=(0, 1), exposure_bps=100))
    before = harness.router.observe(KEY)
    wider = _applied(harness, table(harness, fence=2, slots=(0, 1), exposure_bps=5_000))
    after = harness.router.observe(KEY)
    _same(after.route, wider.route)
    _same((after.processes, _names(after)), (before.processes, _names(before)))


def router_takes_servers_out(make: MakeRouter) -> None:
    """A backend that the table no longer has is gone from the running router and from its boot files."""
    harness = make()
    _applied(harness, table(harness, fence=1, slots=(0, 1)))
    _applied(harness, table(harness, fence=2))
    seen = harness.router.observe(KEY)
    _same({server.slot for server in seen.servers}, {0})
    _same({backend.slot for backend in seen.boot.backends} if seen.boot else None, {0})


def router_knows_servers_that_take_nothing_new(make: MakeRouter) -> None:
    """A server that is not ready stays known, and is shown as not ready."""
    harness = make()
    wanted = _applied(harness, table(harness))
    backends = tuple(
        replace(backend, servers=tuple(replace(server, ready=False) for server in backend.servers))
        for backend in wanted.backends
    )
    _applied(harness, replace(wanted, backends=backends, route=replace(wanted.route, fence=2)))
    seen = harness.router.observe(KEY)
    _same(_names(seen), _names_of(wanted))
    _holds(
        not any(server.ready for server in seen.servers),
        "a server that takes nothing new is shown as ready",
    )


def router_boots_what_it_held(make: MakeRouter) -> None:
    """After a restart of its process the router holds the route and the servers of the last table."""
    harness = make()
    if harness.restart is None:
        return
    _applied(harness, table(harness, fence=1, slots=(0, 1), exposure_bps=100))
    wanted = _applied(harness, table(harness, fence=2, slots=(0, 1), exposure_bps=2_500))
    before = harness.router.observe(KEY)
    harness.restart()
    harness.wait(lambda: _agrees(harness, wanted), "the router has not booted what it held")
    after = harness.router.observe(KEY)
    _holds(after.processes != before.processes, "another process has the same name")
    _holds(after.revision > before.revision, "revisions begin anew with the process")


def router_refuses_a_smaller_fence_after_a_restart(make: MakeRouter) -> None:
    """The fence survives the process: it is part of the boot files."""
    harness = make()
    if harness.restart is None:
        return
    wanted = _applied(harness, table(harness, fence=7))
    harness.restart()
    harness.wait(lambda: _agrees(harness, wanted), "the router has not booted what it held")
    try:
        harness.router.apply(table(harness, fence=6, slots=(0, 1), exposure_bps=100), key="late")
    except errors.StaleRouteError:
        return
    raise AssertionError("a route with a smaller fence was taken after a restart")


def router_counts_what_users_got(make: MakeRouter) -> None:
    """Requests, classes, latencies and broken answers add up, in the slot that answered and nowhere else.

    Without an answer of the app a request is an error, has no latency and is not counted as any user's; an
    answer that was broken off is unanswered, beside the class that it began with.
    """
    harness = make()
    if harness.ask is None:
        return
    _applied(harness, table(harness, slots=(0, 1)))
    _await_servers(harness)
    asked = Requests(good=7, failing=2, cut=1, broken=3)
    for times in (1, 2):
        harness.ask(asked)
        _await_requests(harness, 13 * times)
        seen = harness.router.observe(KEY)
        (answered,) = (one for one in seen.traffic if one.requests)
        _same((answered.service, answered.slot, (answered.process,)), ("web", 0, seen.processes))
        _same(answered.classes, (0, 10 * times, 0, 0, 3 * times))
        _same((answered.errors, answered.unanswered), (3 * times, 3 * times))
        _same(sum(count for _, count in answered.latencies), 12 * times)
        _holds(
            all(0 <= bucket < sequential.BUCKETS and count > 0 for bucket, count in answered.latencies)
            and list(answered.latencies) == sorted(dict(answered.latencies).items()),
            "the latencies are not a histogram",
        )
        _same(sum(count for _, count in answered.user_errors), 2 * times)


def router_counts_anew_after_a_restart(make: MakeRouter) -> None:
    """A new process begins at zero, under a name that none had before."""
    harness = make()
    if harness.ask is None or harness.restart is None:
        return
    wanted = _applied(harness, table(harness))
    _await_servers(harness)
    harness.ask(Requests(good=5, failing=0, cut=0, broken=0))
    _await_requests(harness, 5)
    before = harness.router.observe(KEY)
    harness.restart()
    harness.wait(lambda: _agrees(harness, wanted), "the router has not booted what it held")
    after = harness.router.observe(KEY)
    _same([one.latencies for one in after.traffic if one.requests or one.latencies], [])
    _holds(not set(after.processes) & set(before.processes), "another process has the same name")


def router_environments_are_apart(make: MakeRouter) -> None:
    """A table of one environment, its fence included, touches no other."""
    harness = make()
    here = _applied(harness, table(harness, fence=9))
    there = _applied(harness, table(harness, fence=1, slots=(0, 1), exposure_bps=700, key=OTHER))
    _same(harness.router.observe(KEY).route, here.route)
    _same(harness.router.observe(OTHER).route, there.route)
    _same(_names(harness.router.observe(KEY)), _names_of(here))


def router_revisions_grow(make: MakeRouter) -> None:
    """Each look has a revision above the last one."""
    harness = make()
    _applied(harness, table(harness))
    revisions = [harness.router.observe(KEY).revision for _ in range(5)]
    _holds(revisions[0] > 0, "the first revision is not above zero")
    _same(revisions, sorted(set(revisions)))


def _applied(harness: RouterHarness, wanted: model.RouteTable) -> model.RouteTable:
    """Apply as the loop does: until it agrees."""

    def agreed() -> bool:
        harness.router.apply(wanted, key=f"routes:{wanted.route.fence}")
        return _agrees(harness, wanted)

    harness.wait(agreed, f"the router does not hold fence {wanted.route.fence}")
    return wanted


def _await_servers(harness: RouterHarness) -> None:
    harness.wait(
        lambda: all(server.up and server.ready for server in harness.router.observe(KEY).servers),
        "the servers have not come up",
    )


def _await_requests(harness: RouterHarness, count: int) -> None:
    harness.wait(
        lambda: sum(one.requests for one in harness.router.observe(KEY).traffic) == count,
        f"not all {count} requests were counted",
    )


def _agrees(harness: RouterHarness, wanted: model.RouteTable) -> bool:
    try:
        seen = harness.router.observe(wanted.key)
    except errors.RouterError:
        return False
    return (
        seen.boot == wanted
        and seen.route == wanted.route
        and seen.current
        and _names(seen) == _names_of(wanted)
    )


def _names(seen: model.RouteState) -> set[tuple[str, int, str]]:
    return {(server.service, server.slot, server.name) for server in seen.servers}


def _names_of(wanted: model.RouteTable) -> set[tuple[str, int, str]]:
    return {(each.service, each.slot, server.name) for each in wanted.backends for server in each.servers}


ROUTER_CHECKS: Final[tuple[Callable[[MakeRouter], None], ...]] = (
    router_begins_empty,
    router_holds_what_was_applied,
    router_apply_is_idempotent,
    router_refuses_a_smaller_fence,
    router_changes_share_without_a_reload,
    router_takes_servers_out,
    router_knows_servers_that_take_nothing_new,
    router_boots_what_it_held,
    router_refuses_a_smaller_fence_after_a_restart,
    router_counts_what_users_got,
    router_counts_anew_after_a_restart,
    router_environments_are_apart,
    router_revisions_grow,
)


def check_router(make: MakeRouter) -> None:
    """All of the above, one after the other, each on a new router."""
    for check in ROUTER_CHECKS:
        check(make)

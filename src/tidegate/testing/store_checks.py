"""The conformance suite of the store: what every implementation promises, one check per promise.

A test gives each check a factory that makes an empty store upon the clock it is handed:

    @pytest.mark.parametrize("check", store_checks.CHECKS, ids=lambda check: check.__name__)
    def test_store(check, factory): check(factory)

Nothing here knows SQLite, a file or a second process: another database joins by a factory.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

from tidegate import errors, ports
from tidegate.core import model
from tidegate.store import outbox

KEY: Final = model.EnvironmentKey(app="shop", environment="production")
OTHER: Final = model.EnvironmentKey(app="shop", environment="staging")
SPEC: Final = model.EnvironmentSpec(
    services=(
        model.ServiceSpec(
            name="web",
            run=("./web", "--port", "$PORT"),
            serves=True,
            check=model.Check(kind=model.CheckKind.HTTP),
            hosts=("shop.example.com",),
        ),
    ),
    strategy=model.Strategy(
        kind=model.StrategyKind.CANARY,
        stages=(
            model.Stage(exposure_bps=100, hold_s=0.0),
            model.Stage(exposure_bps=model.FULL_EXPOSURE, hold_s=None),
        ),
    ),
    config=(("EMPTY", ""), ("GREETING", "hé\u2028llo \u0000 \U0001f30a")),
)
DIGEST: Final = f"sha256:{'0' * 64}"
TTL_S: Final = 15.0


class CompleteStore(ports.Store, Protocol):
    """A store with its outbox."""

    def outbox(self, *, limit: int = 100) -> tuple[outbox.OutboxRecord, ...]:
        """Messages not delivered yet, oldest first."""

    def delivered(self, lease: ports.Lease, sequence: int) -> None:
        """Do not show the message again."""


@dataclass(slots=True)
class Hand:
    """A clock that only moves when it is moved."""

    seconds: float = 1000.0

    def __call__(self) -> float:
        return self.seconds


Factory = Callable[[Callable[[], float]], CompleteStore]
StoreCheck = Callable[[Factory], None]


def check_store(factory: Factory) -> None:
    """Every check, each on a store of its own. Raises AssertionError."""
    for check in CHECKS:
        check(factory)


# --- lease ---------------------------------------------------------------------------------------------


def check_lease_is_refused_to_a_second_holder(factory: Factory) -> None:
    """While one holds the lease, another is refused, and is told who holds it."""
    clock = Hand()
    store = factory(clock)
    store.acquire("first", ttl_s=TTL_S)
    clock.seconds += TTL_S - 0.1
    error = _raises(errors.LeaseHeldError, lambda: store.acquire("second", ttl_s=TTL_S))
    _expect("first" in str(error), f"the holder is not named: {error}")


def check_lease_can_be_taken_when_it_has_expired(factory: Factory) -> None:
    """An expired lease goes to who asks next, under a larger epoch."""
    clock = Hand()
    store = factory(clock)
    first = store.acquire("first", ttl_s=TTL_S)
    clock.seconds += TTL_S
    second = store.acquire("second", ttl_s=TTL_S)
    _equal((second.holder, second.ttl_s), ("second", TTL_S))
    _expect(second.epoch > first.epoch, "the epoch did not grow")
    _raises(errors.LeaseHeldError, lambda: store.acquire("first", ttl_s=TTL_S))


def check_lease_taken_again_by_its_holder_ends_the_former_one(factory: Factory) -> None:
    """A holder that comes back gets a new epoch at once, and what it held before is over."""
    store = factory(Hand())
    before = store.acquire("first", ttl_s=TTL_S)
    after = store.acquire("first", ttl_s=TTL_S)
    _expect(after.epoch > before.epoch, "the epoch did not grow")
    _raises(errors.FencedError, lambda: store.renew(before))
    store.renew(after)


def check_renewed_lease_lasts_longer(factory: Factory) -> None:
    """A lease is ours for its time to live after each renewal."""
    clock = Hand()
    store = factory(clock)
    lease = store.acquire("first", ttl_s=TTL_S)
    clock.seconds += TTL_S - 1
    store.renew(lease)
    clock.seconds += TTL_S - 1
    _raises(errors.LeaseHeldError, lambda: store.acquire("second", ttl_s=TTL_S))
    clock.seconds += 1
    store.acquire("second", ttl_s=TTL_S)


def check_late_holder_goes_on_if_nobody_took_over(factory: Factory) -> None:
    """An expired lease that nobody took is still ours: slow is not deposed."""
    clock = Hand()
    store = factory(clock)
    lease = store.acquire("first", ttl_s=TTL_S)
    clock.seconds += 10 * TTL_S
    _equal(_commit(store, lease, _state()).version, 1)
    store.renew(lease)
    _raises(errors.LeaseHeldError, lambda: store.acquire("second", ttl_s=TTL_S))


def check_deposed_holder_can_write_nothing(factory: Factory) -> None:
    """Once another has taken over, every write of the former holder is refused and leaves nothing."""
    clock = Hand()
    store = factory(clock)
    old = store.acquire("old", ttl_s=TTL_S)
    _commit(store, old, _state(rollout=_rollout(1)))
    (message,) = store.outbox()
    clock.seconds += TTL_S
    store.acquire("new", ttl_s=TTL_S)
    before = _all_of(store)
    writes: tuple[Callable[[], object], ...] = (
        lambda: store.renew(old),
        lambda: _commit(store, old, _state(halted="by the former holder")),
        lambda: store.add_release(old, _release()),
        lambda: store.reserve_link_ports(old, KEY, ("web",), (20_000, 20_001, 20_002, 20_003)),
        lambda: store.delivered(old, message.sequence),
    )
    for write in writes:
        _raises(errors.FencedError, write)
    _equal(_all_of(store), before)


def check_lease_given_back_is_free_and_over(factory: Factory) -> None:
    """A lease given back can be taken at once, and its former holder can write no more."""
    store = factory(Hand())
    old = store.acquire("old", ttl_s=TTL_S)
    store.release_lease(old)
    _raises(errors.FencedError, lambda: _commit(store, old, _state()))
    new = store.acquire("new", ttl_s=TTL_S)
    _expect(new.epoch > old.epoch, "the epoch did not grow")
    store.release_lease(old)
    _equal(_commit(store, new, _state()).version, 1)


# --- states --------------------------------------------------------------------------------------------


def check_unknown_environment_is_empty(factory: Factory) -> None:
    """An environment that nobody committed has version 0, an empty state, and is not listed."""
    store = factory(Hand())
    _equal(store.load(KEY), ports.Versioned(version=0, state=model.EnvironmentState(key=KEY)))
    _equal((store.environments(), store.history(KEY), store.events(KEY), store.outbox()), ((), (), (), ()))
    _equal((store.releases("shop"), store.release("shop", 1)), ((), None))


def check_commit_is_loaded_unchanged(factory: Factory) -> None:
    """What was committed is loaded as it was, explicit zeros, empty texts and odd letters included."""
    store = factory(Hand())
    lease = store.acquire("first", ttl_s=TTL_S)
    state = _state(rollout=_rollout(1), halted="")
    first = _commit(store, lease, state)
    _equal((first.version, first.state), (1, state))
    _equal(store.load(KEY), first)
    second = store.commit(lease, first, replace(state, seen_router=0, next_id=9), (), at=2.0)
    _equal((second.version, store.load(KEY)), (2, second))


def check_stale_commit_leaves_nothing(factory: Factory) -> None:
    """Who commits upon a version that is no longer the newest is refused, and nothing is written."""
    store = factory(Hand())
    lease = store.acquire("first", ttl_s=TTL_S)
    old = _commit(store, lease, _state())
    store.commit(lease, old, _state(next_id=2), (), at=2.0)
    before = _all_of(store)
    late = _state(rollout=_rollout(1))
    for version in (old.version, 0, 7):
        stale = replace(old, version=version)
        commit = functools.partial(store.commit, lease, stale, late, (_event("late"),), at=3.0)
        _raises(errors.ConflictError, commit)
    _equal(_all_of(store), before)


def check_commit_upon_an_unknown_version_of_a_new_environment_is_refused(factory: Factory) -> None:
    """A version of an environment that has none is a conflict, not a first commit."""
    store = factory(Hand())
    lease = store.acquire("first", ttl_s=TTL_S)
    _raises(
        errors.ConflictError,
        lambda: store.commit(lease, ports.Versioned(version=3, state=_state()), _state(), (), at=1.0),
    )
    _equal(store.environments(), ())


def check_environments_do_not_touch_each_other(factory: Factory) -> None:
    """Each environment has its own versions and state; all are listed in order."""
    store = factory(Hand())
    lease = store.acquire("first", ttl_s=TTL_S)
    staging = model.EnvironmentState(key=OTHER, next_id=5)
    _commit(store, lease, staging)
    _commit(store, lease, _state(next_id=7))
    _equal(store.environments(), (KEY, OTHER))
    _equal((store.load(OTHER).state.next_id, store.load(KEY).state.next_id), (5, 7))
    versioned = store.load(KEY)
    _raises(errors.StoreError, lambda: store.commit(lease, versioned, staging, (), at=1.0))
    _equal(store.load(KEY), versioned)


def check_one_of_two_simultaneous_commits_wins(factory: Factory) -> None:
    """Of threads that commit upon the same version, exactly one succeeds; the others get a conflict."""
    store = factory(Hand())
    lease = store.acquire("first", ttl_s=TTL_S)
    base = _commit(store, lease, _state())
    outcomes: list[str] = []
    start = threading.Barrier(4)

    def run(number: int) -> None:
        start.wait()
        try:
            store.commit(lease, base, _state(next_id=10 + number), (_event(str(number)),), at=2.0)
            outcomes.append("won")
        except errors.ConflictError:
            outcomes.append("conflict")

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _equal(sorted(outcomes), ["conflict", "conflict", "conflict", "won"])
    (event,) = store.events(KEY)
    _equal(store.load(KEY).state.next_id, 10 + int(event.event.detail))


# --- history -------------------------------------------------------------------------------------------


def check_history_keeps_start_and_end_of_each_rollout(factory: Factory) -> None:
    """A rollout is in the history from its first commit on, with its last record; it ends once."""
    store = factory(Hand())
    lease = store.acquire("first", ttl_s=TTL_S)
    first = _rollout(1)
    versioned = _commit(store, lease, _state(rollout=first), at=10.0)
    holding = replace(first, phase=model.Phase.HOLDING, held_s=0.0)
    versioned = store.commit(lease, versioned, _state(rollout=holding), (), at=20.0)
    _equal(store.history(KEY), (_record(holding, 10.0, None),))
    ended = replace(holding, phase=model.Phase.SUCCEEDED)
    versioned = store.commit(lease, versioned, _state(last=ended, rollout=_rollout(2)), (), at=30.0)
    store.commit(lease, versioned, _state(last=ended, rollout=_rollout(2), next_id=9), (), at=40.0)
    newest, oldest = store.history(KEY)
    _equal(newest, _record(_rollout(2), 30.0, None))
    _equal(oldest, _record(ended, 10.0, 30.0))
    explained = replace(ended, detail="explained later")
    versioned = store.load(KEY)
    store.commit(lease, versioned, replace(versioned.state, last=explained), (), at=50.0)
    _equal(store.history(KEY)[1], _record(explained, 10.0, 30.0))
    _equal((store.history(KEY, limit=1), store.history(KEY, limit=0)), ((newest,), ()))
    _equal(store.history(OTHER), ())


def check_rollout_is_found_by_its_request_key(factory: Factory) -> None:
    """A request key names one rollout of one environment for ever; no key names none."""
    store = factory(Hand())
    lease = store.acquire("first", ttl_s=TTL_S)
    versioned = _commit(store, lease, _state(rollout=_rollout(1, request_key="press")), at=10.0)
    ended = replace(_rollout(1, request_key="press"), phase=model.Phase.ABORTED)
    store.commit(lease, versioned, _state(last=ended, rollout=_rollout(2)), (), at=20.0)
    _equal(store.rollout_by_request_key(KEY, "press"), _record(ended, 10.0, 20.0))
    for key, request_key in ((KEY, ""), (KEY, "other"), (KEY, "%"), (OTHER, "press")):
        _equal(store.rollout_by_request_key(key, request_key), None)


def check_request_key_of_another_rollout_is_refused(factory: Factory) -> None:
    """A second rollout under a used request key is a conflict, and leaves nothing; elsewhere it is free."""
    store = factory(Hand())
    lease = store.acquire("first", ttl_s=TTL_S)
    versioned = _commit(store, lease, _state(rollout=_rollout(1, request_key="press")))
    before = _all_of(store)
    second = _state(rollout=_rollout(2, request_key="press"))
    _raises(errors.ConflictError, lambda: store.commit(lease, versioned, second, (_event("twice"),), at=2.0))
    _equal(_all_of(store), before)
    _commit(store, lease, model.EnvironmentState(key=OTHER, rollout=_rollout(1, request_key="press")))
    record = store.rollout_by_request_key(OTHER, "press")
    _expect(record is not None and record.key == OTHER, "the key of another environment was not free")


def check_events_come_in_order_and_in_pages(factory: Factory) -> None:
    """Events are read oldest first, after a sequence and up to a limit, of one environment only."""
    store = factory(Hand())
    lease = store.acquire("first", ttl_s=TTL_S)
    versioned = _commit(store, lease, _state(), events=(_event("a"), _event("b")), at=10.0)
    _commit(store, lease, model.EnvironmentState(key=OTHER), events=(_event("x"),), at=11.0)
    store.commit(lease, versioned, _state(), (_event("c"),), at=12.0)
    events = store.events(KEY)
    _equal([(record.event.detail, record.at) for record in events], [("a", 10.0), ("b", 10.0), ("c", 12.0)])
    _equal({record.key for record in events}, {KEY})
    _equal(events[0].event, _event("a"))
    first, second, third = (record.sequence for record in events)
    _expect(0 < first < second < third, "the sequence does not grow")
    _equal(store.events(KEY, after=first), events[1:])
    _equal(store.events(KEY, after=first, limit=1), events[1:2])
    _equal((store.events(KEY, after=third), store.events(KEY, limit=0)), ((), ()))
    _equal(store.events(KEY, after=-5), events)
    _equal([record.event.detail for record in store.events(OTHER)], ["x"])


# --- outbox --------------------------------------------------------------------------------------------


def check_outbox_tells_of_each_rollout_twice(factory: Factory) -> None:
    """Each rollout is told of once at its start and once at its end, however often it is committed."""
    store = factory(Hand())
    lease = store.acquire("first", ttl_s=TTL_S)
    versioned = _commit(store, lease, _state(rollout=_rollout(1)), at=10.0)
    versioned = store.commit(lease, versioned, _state(rollout=_rollout(1), next_id=8), (), at=11.0)
    ended = replace(_rollout(1), phase=model.Phase.ABORTED, reason=model.Reason.CRASH_LOOP)
    versioned = store.commit(lease, versioned, _state(last=ended, rollout=_rollout(2)), (), at=12.0)
    store.commit(lease, versioned, _state(last=ended, rollout=_rollout(2), next_id=9), (), at=13.0)
    told = store.outbox()
    _equal(
        [(record.message.key, record.at) for record in told],
        [
            ("shop/production/1/started", 10.0),
            ("shop/production/1/ended", 12.0),
            ("shop/production/2/started", 12.0),
        ],
    )
    _expect('"crash-loop"' in told[1].message.payload, "the end is told without its reason")
    _equal(store.outbox(limit=2), told[:2])


def check_rollout_that_ends_in_one_commit_is_told_of_twice(factory: Factory) -> None:
    """A rollout that was never committed before its end is told of from its start."""
    store = factory(Hand())
    lease = store.acquire("first", ttl_s=TTL_S)
    _commit(store, lease, _state(last=replace(_rollout(1), phase=model.Phase.SUCCEEDED)))
    keys = [record.message.key for record in store.outbox()]
    _equal(keys, ["shop/production/1/started", "shop/production/1/ended"])


def check_delivered_message_is_not_shown_again(factory: Factory) -> None:
    """A delivered message leaves the outbox for ever, also when it is marked twice."""
    store = factory(Hand())
    lease = store.acquire("first", ttl_s=TTL_S)
    versioned = _commit(store, lease, _state(last=replace(_rollout(1), phase=model.Phase.SUCCEEDED)))
    first, second = store.outbox()
    store.delivered(lease, first.sequence)
    store.delivered(lease, first.sequence)
    _equal(store.outbox(), (second,))
    store.commit(lease, versioned, versioned.state, (), at=2.0)
    _equal(store.outbox(), (second,))


# --- releases ------------------------------------------------------------------------------------------


def check_releases_are_numbered_per_app(factory: Factory) -> None:
    """Each app counts its releases from 1, whatever number it proposes; the newest is listed first."""
    store = factory(Hand())
    lease = store.acquire("first", ttl_s=TTL_S)
    first = store.add_release(lease, replace(_release(), number=40))
    second = store.add_release(lease, replace(_release(), digest=f"sha256:{'1' * 64}"))
    other = store.add_release(lease, replace(_release(), app="blog"))
    _equal([first.number, second.number, other.number], [1, 2, 1])
    _equal(first, replace(_release(), number=1))
    _equal(store.releases("shop"), (second, first))
    _equal((store.releases("shop", limit=1), store.releases("shop", limit=0)), ((second,), ()))
    _equal((store.release("shop", 2), store.release("blog", 1)), (second, other))
    _equal([store.release("shop", number) for number in (0, 3, -1)], [None, None, None])


def check_same_release_is_stored_once(factory: Factory) -> None:
    """The same digest with the same environments is the release that is there; other ones are new."""
    store = factory(Hand())
    lease = store.acquire("first", ttl_s=TTL_S)
    first = store.add_release(lease, _release())
    again = store.add_release(lease, replace(_release(), revision="later", created_at=99.0, created_by="b"))
    _equal(again, first)
    changed = (("production", replace(SPEC, keep_warm_s=0.0)),)
    second = store.add_release(lease, replace(_release(), environments=changed))
    _equal((second.number, second.environments), (2, changed))
    _equal(store.releases("shop"), (second, first))


# --- links ---------------------------------------------------------------------------------------------


def check_link_ports_are_the_same_at_every_call(factory: Factory) -> None:
    """A service's ports stay its own for ever, one per slot, also when other ports are on offer."""
    store = factory(Hand())
    lease = store.acquire("first", ttl_s=TTL_S)
    ports_on_offer = tuple(range(20_000, 20_020))
    links = store.reserve_link_ports(lease, KEY, ("api",), ports_on_offer)
    _equal([(link.service, link.slot) for link in links], [("api", slot) for slot in range(model.SLOTS)])
    _equal(store.reserve_link_ports(lease, KEY, ("api",), ports_on_offer), links)
    _equal(store.reserve_link_ports(lease, KEY, ("api",), ()), links)
    more = store.reserve_link_ports(lease, KEY, ("web", "api"), ports_on_offer)
    _equal((more[model.SLOTS :], more[0].service), (links, "web"))


def check_link_ports_are_given_once(factory: Factory) -> None:
    """No two services, slots or environments get the same port, and only ports on offer are given."""
    store = factory(Hand())
    lease = store.acquire("first", ttl_s=TTL_S)
    on_offer = tuple(range(20_000, 20_000 + 4 * model.SLOTS))
    links = (
        *store.reserve_link_ports(lease, KEY, ("api", "web"), on_offer),
        *store.reserve_link_ports(lease, OTHER, ("api", "web"), on_offer),
    )
    _equal(sorted(link.port for link in links), list(on_offer))


def check_service_of_another_app_has_one_link_port(factory: Factory) -> None:
    """Whatever slot its caller is in; the same at every call, and another one for each caller."""
    store = factory(Hand())
    lease = store.acquire("first", ttl_s=TTL_S)
    on_offer = tuple(range(20_000, 20_000 + model.SLOTS + 2))
    links = store.reserve_link_ports(lease, KEY, ("api", "accounts/api"), on_offer)
    _equal([link.service for link in links], ["api"] * model.SLOTS + ["accounts/api"])
    _equal(store.reserve_link_ports(lease, KEY, ("accounts/api",), ()), links[model.SLOTS :])
    (other,) = store.reserve_link_ports(lease, OTHER, ("accounts/api",), on_offer)
    _equal(len({link.port for link in (*links, other)}), len(on_offer))


def check_link_ports_run_out_with_a_refusal(factory: Factory) -> None:
    """Too few ports are a refusal with its reason, and none of them is taken."""
    store = factory(Hand())
    lease = store.acquire("first", ttl_s=TTL_S)
    on_offer = tuple(range(20_000, 20_000 + 2 * model.SLOTS - 1))
    error = _raises(
        errors.RefusedError, lambda: store.reserve_link_ports(lease, KEY, ("api", "web"), on_offer)
    )
    _equal(getattr(error, "reason", None), model.Refusal.NO_PORTS)
    links = store.reserve_link_ports(lease, OTHER, ("api",), on_offer)
    _equal([link.port for link in links], list(on_offer[: model.SLOTS]))


CHECKS: Final[tuple[StoreCheck, ...]] = tuple(
    check for name, check in globals().items() if name.startswith("check_") and name != "check_store"
)


# --- values and expectations -----------------------------------------------------------------------------


def _rollout(rollout_id: int, *, request_key: str = "") -> model.Rollout:
    request = model.RolloutRequest(
        kind=model.RolloutKind.DEPLOY,
        release=1,
        digest=DIGEST,
        spec=SPEC,
        strategy=SPEC.strategy,
        by="ada",
        key=request_key,
    )
    return model.Rollout(id=rollout_id, request=request, phase=model.Phase.STARTING)


def _release() -> model.Release:
    return model.Release(
        app="shop",
        number=0,
        digest=DIGEST,
        environments=(("staging", SPEC), ("production", SPEC)),
        revision="abc",
        created_at=5.0,
        created_by="ada",
    )


def _state(
    *,
    rollout: model.Rollout | None = None,
    last: model.Rollout | None = None,
    next_id: int = 1,
    halted: str = "",
) -> model.EnvironmentState:
    return model.EnvironmentState(key=KEY, rollout=rollout, last=last, next_id=next_id, halted=halted)


def _event(detail: str) -> model.Event:
    return model.Event(reason=model.Reason.READY, rollout=1, exposure_bps=0, detail=detail)


def _record(rollout: model.Rollout, started_at: float, ended_at: float | None) -> ports.RolloutRecord:
    return ports.RolloutRecord(key=KEY, rollout=rollout, started_at=started_at, ended_at=ended_at)


def _commit(
    store: CompleteStore,
    lease: ports.Lease,
    state: model.EnvironmentState,
    *,
    events: tuple[model.Event, ...] = (),
    at: float = 1.0,
) -> ports.Versioned:
    return store.commit(lease, store.load(state.key), state, events, at=at)


def _all_of(store: CompleteStore) -> tuple[object, ...]:
    return (
        store.environments(),
        [(store.load(key), store.history(key), store.events(key)) for key in (KEY, OTHER)],
        store.outbox(),
        store.releases("shop"),
    )


def _equal(actual: object, expected: object) -> None:
    _expect(actual == expected, f"{actual!r}\n  instead of\n{expected!r}")


def _expect(condition: bool, complaint: str) -> None:  # noqa: FBT001 (an assertion's condition)
    if not condition:
        raise AssertionError(complaint)


def _raises(kind: type[errors.TidegateError], action: Callable[[], object]) -> errors.TidegateError:
    try:
        answer = action()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised; the answer was {answer!r}")

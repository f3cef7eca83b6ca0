"""What the store in memory adds to the port: crash points, and going back in time."""

from __future__ import annotations

import pytest

from tidegate import errors, ports
from tidegate.core import model
from tidegate.testing import store as memory

KEY = model.EnvironmentKey(app="shop", environment="test")
EVENT = model.Event(reason=model.Reason.REQUESTED)


class Crash(Exception):
    """The control plane dies here."""


def crash() -> None:
    raise Crash


def state(next_id: int) -> model.EnvironmentState:
    return model.EnvironmentState(key=KEY, next_id=next_id)


def committed(store: memory.MemoryStore, next_id: int) -> ports.Versioned:
    lease = store.acquire("control plane", ttl_s=15.0)
    return store.commit(lease, store.load(KEY), state(next_id), (EVENT,), at=1.0)


def test_crash_before_a_commit_leaves_nothing() -> None:
    """What dies before its commit has written nothing."""
    store = memory.MemoryStore(before_commit=crash)
    with pytest.raises(Crash):
        committed(store, 7)
    assert (store.load(KEY).version, store.events(KEY)) == (0, ())


def test_crash_after_a_commit_leaves_all_of_it() -> None:
    """What dies after its commit has written everything, though nobody was told."""
    store = memory.MemoryStore(after_commit=crash)
    with pytest.raises(Crash):
        committed(store, 7)
    assert (store.load(KEY).version, store.load(KEY).state.next_id) == (1, 7)
    assert len(store.events(KEY)) == 1


def test_store_goes_back_in_time() -> None:
    """A restored snapshot has what it had, nothing of what came after, and can be restored again."""
    store = memory.MemoryStore()
    committed(store, 1)
    snapshot = store.snapshot()
    for next_id in (2, 3):
        committed(store, next_id)
        store.restore(snapshot)
        assert (store.load(KEY).version, store.load(KEY).state.next_id) == (1, 1)
        assert len(store.events(KEY)) == 1


def test_state_that_cannot_be_written_is_refused_through_the_codec() -> None:
    """With the codec in between, a simulation meets the refusals of a real store."""
    store = memory.MemoryStore(through_codec=True)
    lease = store.acquire("control plane", ttl_s=15.0)
    unwritable = model.EnvironmentState(key=KEY, halted="\ud800")
    with pytest.raises(errors.StoreError, match="cannot be written down"):
        store.commit(lease, store.load(KEY), unwritable, (), at=1.0)
    assert store.environments() == ()

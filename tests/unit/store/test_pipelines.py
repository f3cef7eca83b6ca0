"""Pipelines, in the store's own file and in memory: all of a step or nothing of it, by who has the lease."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings

from tests.golden import write as golden
from tests.unit.store.test_codec import values
from tidegate import errors, ports
from tidegate.core import model, promotions
from tidegate.core.promotions import Ended, Pass, PipelineState, Promotion
from tidegate.store import codec, sqlite
from tidegate.store.pipelines import SqlitePipelines
from tidegate.testing.pipelines import MemoryPipelines
from tidegate.testing.store import MemoryStore

EVENT: Final = model.Event(reason=model.Reason.WAITING, release=1, detail="frozen")
PASS: Final = Pass(
    environment="test", identity="sha256:1", release=1, digest="sha256:2", rollout=3, at=5.0, seal="s"
)


@pytest.fixture(params=["sqlite", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ports.Store]:
    if request.param == "memory":
        yield MemoryStore()
        return
    with closing(sqlite.SqliteStore(tmp_path / "tidegate.db", ballast_bytes=0)) as opened:
        yield opened


@pytest.fixture
def kept(store: ports.Store) -> ports.Pipelines:
    if isinstance(store, MemoryStore):
        return MemoryPipelines(store)
    assert isinstance(store, sqlite.SqliteStore)
    return SqlitePipelines(store)


@pytest.fixture
def lease(store: ports.Store) -> ports.Lease:
    return store.acquire("control plane", ttl_s=60.0)


def promotion(known: int, **changes: Any) -> Promotion:
    fields: dict[str, Any] = {
        "id": known,
        "release": known,
        "digest": "sha256:2",
        "identity": "sha256:1",
        "path": ("test", "production"),
        "environment": "test",
        "key": f"push-{known}",
    }
    return Promotion(**(fields | changes))


def under_way(*known: int, app: str = "shop") -> PipelineState:
    return PipelineState(app=app, next_id=max(known) + 1, promotions=tuple(promotion(n) for n in known))


def test_app_without_a_pipeline_has_an_empty_one(kept: ports.Pipelines) -> None:
    """Of version 0."""
    assert kept.load("shop") == ports.VersionedPipeline(version=0, state=PipelineState(app="shop"))
    assert kept.apps() == ()


@pytest.mark.parametrize("name", golden.pipelines())
def test_pipeline_is_loaded_as_it_was_committed(kept: ports.Pipelines, lease: ports.Lease, name: str) -> None:
    """With all that it holds."""
    state = golden.pipelines()[name]
    committed = kept.commit(lease, kept.load(state.app), state, at=1.0)
    assert committed == kept.load(state.app) == ports.VersionedPipeline(version=1, state=state)


def test_pipelines_of_apps_share_nothing(kept: ports.Pipelines, lease: ports.Lease) -> None:
    """Also not the numbers of their promotions, nor their keys."""
    kept.commit(lease, kept.load("shop"), under_way(1), passes=(PASS,), at=1.0)
    kept.commit(lease, kept.load("blog"), under_way(1, 2, app="blog"), at=1.0)
    assert kept.load("shop").state == under_way(1)
    assert kept.promotion("shop", 2) is kept.promotion_by_key("shop", "push-2") is None
    assert kept.passes("blog", PASS.identity) == ()
    assert kept.apps() == ("blog", "shop")


def test_app_of_which_only_an_environment_is_known_is_stepped_too(
    store: ports.Store, kept: ports.Pipelines, lease: ports.Lease
) -> None:
    """Its live release soaks, although nobody has asked for a promotion."""
    key = model.EnvironmentKey(app="old", environment="production")
    store.commit(lease, store.load(key), model.EnvironmentState(key=key, next_id=2), (), at=1.0)
    assert kept.apps() == ("old",)


@pytest.mark.parametrize("first", [True, False])
def test_commit_upon_an_older_version_is_refused(
    kept: ports.Pipelines, lease: ports.Lease, first: bool
) -> None:
    """Nothing of it is kept: no promotion, no pass, no event; also not as the first of all."""
    before = kept.load("shop") if first else kept.commit(lease, kept.load("shop"), under_way(1), at=1.0)
    now = kept.commit(lease, before, under_way(1, 2), at=2.0)
    late = under_way(1, 2, 3)
    with pytest.raises(errors.ConflictError):
        kept.commit(lease, before, late, passes=(PASS,), events=(("test", EVENT),), at=3.0)
    assert kept.load("shop") == now
    assert kept.promotion("shop", 3) is None
    assert kept.passes("shop", PASS.identity) == ()


def test_commit_without_the_lease_is_refused(
    store: ports.Store, kept: ports.Pipelines, lease: ports.Lease
) -> None:
    """A control plane that was replaced writes nothing more."""
    before = kept.commit(lease, kept.load("shop"), under_way(1), at=1.0)
    store.acquire("control plane", ttl_s=60.0)
    with pytest.raises(errors.FencedError):
        kept.commit(lease, before, under_way(1, 2), passes=(PASS,), at=2.0)
    assert kept.load("shop") == before
    assert kept.passes("shop", PASS.identity) == ()


def test_pipeline_of_one_app_cannot_replace_that_of_another(
    kept: ports.Pipelines, lease: ports.Lease
) -> None:
    """That would be a defect of ours."""
    with pytest.raises(errors.StoreError):
        kept.commit(lease, kept.load("shop"), under_way(1, app="blog"), at=1.0)


def test_promotions_are_kept_for_ever(kept: ports.Pipelines, lease: ports.Lease) -> None:
    """As they were last, newest first, long after the state has forgotten them."""
    count = promotions.KEPT + 3
    versioned = kept.commit(lease, kept.load("shop"), under_way(*range(1, count + 1)), at=1.0)
    for known in range(1, count + 1):
        ended = promotion(known, ended=Ended.FAILED, detail="no")
        versioned = kept.commit(lease, versioned, versioned.state.with_promotion(ended), at=2.0)
    assert versioned.state.promotion(1) is None
    assert kept.promotion("shop", 1) == promotion(1, ended=Ended.FAILED, detail="no")
    assert [p.id for p in kept.promotions("shop")] == list(range(count, 0, -1))
    assert [p.id for p in kept.promotions("shop", limit=2)] == [count, count - 1]
    assert {p.ended for p in kept.promotions("shop")} == {Ended.FAILED}


def test_promotion_is_found_by_its_key(kept: ports.Pipelines, lease: ports.Lease) -> None:
    """Under way or ended; one without a key by none."""
    state = under_way(1, 2)
    state = replace(state, promotions=(promotion(1), promotion(2, key="")))
    versioned = kept.commit(lease, kept.load("shop"), state, at=1.0)
    assert kept.promotion_by_key("shop", "push-1") == promotion(1)
    assert kept.promotion_by_key("shop", "") is None
    moved = promotion(1, environment="production", ended=Ended.ARRIVED)
    kept.commit(lease, versioned, state.with_promotion(moved), at=2.0)
    assert kept.promotion_by_key("shop", "push-1") == moved


def test_passes_are_added_in_order(kept: ports.Pipelines, lease: ports.Lease) -> None:
    """Each with its seal, found by what has passed."""
    elsewhere = replace(PASS, environment="staging", seal="t")
    another = replace(PASS, identity="sha256:9")
    versioned = kept.commit(lease, kept.load("shop"), under_way(1), passes=(PASS,), at=1.0)
    kept.commit(lease, versioned, versioned.state, passes=(another, elsewhere), at=2.0)
    assert kept.passes("shop", PASS.identity) == (PASS, elsewhere)
    assert kept.passes("shop", "sha256:9") == (another,)
    assert kept.passes("shop", "sha256:") == ()


def test_events_are_told_in_their_environments(
    store: ports.Store, kept: ports.Pipelines, lease: ports.Lease
) -> None:
    """Beside those of the environment itself, with the time of the commit."""
    staging = replace(EVENT, detail="soaks")
    kept.commit(
        lease, kept.load("shop"), under_way(1), events=(("test", EVENT), ("staging", staging)), at=7.0
    )
    for name, event in (("test", EVENT), ("staging", staging)):
        (told,) = store.events(model.EnvironmentKey(app="shop", environment=name))
        assert (told.event, told.at) == (event, 7.0)


def test_pipeline_outlives_the_process(tmp_path: Path) -> None:
    """With its history and its passes."""
    path = tmp_path / "again.db"
    with closing(sqlite.SqliteStore(path, ballast_bytes=0)) as store:
        kept = SqlitePipelines(store)
        lease = store.acquire("control plane", ttl_s=60.0)
        kept.commit(lease, kept.load("shop"), under_way(1), passes=(PASS,), at=1.0)
    with closing(sqlite.SqliteStore(path, ballast_bytes=0)) as store:
        kept = SqlitePipelines(store)
        assert kept.load("shop").state == under_way(1)
        assert kept.promotion("shop", 1) == promotion(1)
        assert kept.passes("shop", PASS.identity) == (PASS,)


def test_pipeline_that_a_newer_tidegate_wrote_is_refused(tmp_path: Path) -> None:
    """Nothing is guessed of it."""
    path = tmp_path / "newer.db"
    with closing(sqlite.SqliteStore(path, ballast_bytes=0)) as store:
        kept = SqlitePipelines(store)
        lease = store.acquire("control plane", ttl_s=60.0)
        kept.commit(lease, kept.load("shop"), under_way(1), at=1.0)
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            change = "update pipelines set state = replace(state, :today, '\"schema\":99')"
            connection.execute(change, {"today": f'"schema":{codec.SCHEMA}'})
        with pytest.raises(errors.NewerStateError):
            kept.load("shop")


@settings(max_examples=40, deadline=None)
@given(state=values(PipelineState), one=values(Pass))
def test_every_record_is_read_back_as_itself(state: PipelineState, one: Pass) -> None:
    """Whatever it holds."""
    assert codec.PIPELINE.decode(codec.PIPELINE.encode(state)) == state
    assert codec.PASS.decode(codec.PASS.encode(one)) == one
    for each in state.promotions:
        assert codec.PROMOTION.decode(codec.PROMOTION.encode(each)) == each


@pytest.mark.parametrize(
    "path", sorted(golden.FOLDER.glob("schema-*/pipelines/*.json")), ids=lambda p: p.stem
)
def test_saved_pipeline_is_still_readable(path: Path) -> None:
    """By today's code, which writes it down again unharmed."""
    state = codec.PIPELINE.decode(path.read_text())
    assert codec.PIPELINE.decode(codec.PIPELINE.encode(state)) == state


@pytest.mark.parametrize("name", golden.pipelines())
def test_saved_pipeline_means_what_it_meant(name: str) -> None:
    """See `test_codec.test_saved_state_means_what_it_meant`."""
    path = golden.FOLDER / f"schema-{codec.SCHEMA}" / "pipelines" / f"{name}.json"
    assert codec.PIPELINE.decode(path.read_text()) == golden.pipelines()[name]


def test_pipelines_of_several_apps_are_committed_together(kept: ports.Pipelines, lease: ports.Lease) -> None:
    """Promotions of all of them."""
    changes = (
        (kept.load("shop"), under_way(1)),
        (
            kept.commit(lease, kept.load("blog"), under_way(1, app="blog"), at=1.0),
            under_way(1, 2, app="blog"),
        ),
    )
    kept.commit_together(lease, changes, at=2.0)
    assert kept.load("shop") == ports.VersionedPipeline(version=1, state=under_way(1))
    assert kept.load("blog") == ports.VersionedPipeline(version=2, state=under_way(1, 2, app="blog"))
    assert kept.promotion("blog", 2) == promotion(2)


def test_none_is_committed_together_if_one_has_changed(kept: ports.Pipelines, lease: ports.Lease) -> None:
    """The first of them neither: a group goes whole or not at all."""
    before = kept.load("blog")
    kept.commit(lease, before, under_way(1, app="blog"), at=1.0)
    changes = ((kept.load("shop"), under_way(1)), (before, under_way(1, 2, app="blog")))
    with pytest.raises(errors.ConflictError):
        kept.commit_together(lease, changes, at=2.0)
    assert kept.load("shop").version == 0
    assert kept.promotion("shop", 1) is None


def test_nothing_is_committed_together_without_the_lease(
    store: ports.Store, kept: ports.Pipelines, lease: ports.Lease
) -> None:
    """As nothing is committed alone."""
    changes = ((kept.load("shop"), under_way(1)), (kept.load("blog"), under_way(1, app="blog")))
    store.acquire("control plane", ttl_s=60.0)
    with pytest.raises(errors.FencedError):
        kept.commit_together(lease, changes, at=1.0)
    assert kept.load("shop").version == kept.load("blog").version == 0

"""The written form of the records: exact, strict, and readable for ever."""

from __future__ import annotations

import dataclasses
import enum
import json
import types
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.golden import write as golden
from tidegate import errors
from tidegate.core import model, policy
from tidegate.store import codec

GOLDEN = sorted(golden.FOLDER.glob("schema-*/*.json"))
EMPTY = model.EnvironmentState(key=model.EnvironmentKey(app="shop", environment="test"))


def values(annotation: Any) -> st.SearchStrategy[Any]:
    """Values of a type of the model: every field drawn, no default left to itself, no infinities."""
    if annotation is policy.AnalysisPolicy:  # refuses most values
        shares = st.floats(min_value=0.001, max_value=0.5)
        return st.builds(
            policy.AnalysisPolicy,
            enabled=st.booleans(),
            false_abort=shares,
            margin=st.floats(min_value=1, max_value=9),
            max_error_share=st.none() | shares,
            on_little_evidence=values(policy.LittleEvidence),
            warmup_requests=st.integers(min_value=0, max_value=99),
        )
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        hints = typing.get_type_hints(annotation)
        fields = {field.name: values(hints[field.name]) for field in dataclasses.fields(annotation)}
        return st.builds(annotation, **fields)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (types.UnionType, typing.Union):
        return st.one_of(*[values(argument) for argument in arguments])
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(values(arguments[0]), max_size=2).map(tuple)
    if origin is tuple:
        return st.tuples(*[values(argument) for argument in arguments])
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return st.sampled_from(annotation)
    simple: dict[Any, st.SearchStrategy[Any]] = {
        type(None): st.none(),
        bool: st.booleans(),
        int: st.just(0) | st.integers(),
        float: st.just(0.0) | st.floats(allow_nan=False, allow_infinity=False),
        str: st.just("") | st.text(max_size=6),
    }
    return simple[annotation]


@settings(max_examples=60, deadline=None)
@given(state=values(model.EnvironmentState))
def test_every_state_is_read_back_as_itself(state: model.EnvironmentState) -> None:
    """Any state survives writing and reading, and its text is the same the second time."""
    text = codec.STATE.encode(state)
    assert codec.STATE.decode(text) == state
    assert codec.STATE.encode(codec.STATE.decode(text)) == text


@settings(max_examples=60, deadline=None)
@given(release=values(codec.Environments), rollout=values(model.Rollout), event=values(model.Event))
def test_every_other_record_is_read_back_as_itself(
    release: codec.Environments, rollout: model.Rollout, event: model.Event
) -> None:
    """Releases, rollouts and events survive writing and reading too."""
    assert codec.RELEASE.decode(codec.RELEASE.encode(release)) == release
    assert codec.ROLLOUT.decode(codec.ROLLOUT.encode(rollout)) == rollout
    assert codec.EVENT.decode(codec.EVENT.encode(event)) == event


def test_zeros_and_empty_texts_are_written() -> None:
    """A zero that means something stands in the text, though it is the default: nobody may guess it later."""
    route = json.loads(codec.STATE.encode(EMPTY))["state"]["route"]
    numbers = {"exposure_bps": 0, "hold_s": 0, "fence": 0}
    assert route == {"stable": None, "canary": None, "salt": "", "preview": "", **numbers}


@pytest.mark.parametrize(
    "wrong",
    [
        {"halted": "half a pair: \ud800"},
        {"next_id": "7"},
        {"next_id": 7.5},
        {"placements": []},
        {"last": EMPTY},
    ],
    ids=["surrogate", "text-for-number", "fraction", "list-for-tuple", "other-record"],
)
def test_state_without_an_exact_text_is_refused(wrong: dict[str, Any]) -> None:
    """What could not be read back is never written, and the refusal shows no content."""
    state = dataclasses.replace(EMPTY, **wrong)
    with pytest.raises(errors.StoreError, match="cannot be written down") as caught:
        codec.STATE.encode(state)
    assert "7" not in str(caught.value)


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
def test_number_that_json_lacks_is_refused(number: float) -> None:
    """An infinite hold time must not become `null`, which would mean: until somebody says promote."""
    stage = model.Stage(exposure_bps=1, hold_s=number)
    strategy = model.Strategy(kind=model.StrategyKind.CANARY, stages=(stage,))
    spec = model.EnvironmentSpec(services=(), strategy=strategy)
    with pytest.raises(errors.StoreError, match="cannot be written down"):
        codec.RELEASE.encode((("production", spec),))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{",
        "[" * 100_000,
        '{"state": {}}',
        '{"schema": true, "state": {}}',
        '{"schema": "1", "state": {}}',
        '{"schema": 0, "state": {}}',
        '{"schema": 1}',
        '{"schema": 1, "state": {}, "more": 1}',
        '{"schema": 1, "rollout": {}}',
        '{"schema": 1, "state": {"key": {"app": "a", "environment": "b", "zone": "hidden"}}}',
        '{"schema": 1, "state": {"key": {"app": "a", "environment": "b"}, "next_id": "hidden"}}',
        '{"schema": 1, "state": {"key": {"app": "a", "environment": "b"}, "next_id": 1.0}}',
        '{"schema": 1, "state": {"key": {"app": "a", "environment": "b"}, "rollout": {"phase": "hidden"}}}',
        '{"schema": 1, "state": {"key": {"app": "a", "environment": "b"}, "placements": null}}',
    ],
)
def test_damaged_record_is_an_error_of_the_storage(text: str) -> None:
    """A text that is no such record is refused with where it is wrong, and without its content."""
    with pytest.raises(errors.StorageError, match="A stored state cannot be read: ") as caught:
        codec.STATE.decode(text)
    assert "hidden" not in str(caught.value)


def test_newer_record_is_refused_as_such() -> None:
    """A record of a newer schema is not judged by this one's rules: the answer is to upgrade."""
    with pytest.raises(errors.NewerStateError, match="has schema 99"):
        codec.STATE.decode('{"schema": 99, "anything": {"goes": "there"}}')


@dataclass(frozen=True, slots=True, kw_only=True)
class Boat:
    """A record whose schema has moved on twice."""

    name: str
    crew: int
    sails: tuple[str, ...] = ()


def test_older_record_passes_through_each_upcaster_in_turn() -> None:
    """A record of schema 1 becomes one of schema 4 step by step; one without upcaster changed nothing."""
    boats: codec.Codec[Boat] = codec.Codec(
        kind="boat",
        adapter=pydantic.TypeAdapter(Boat),
        schema=4,
        upcasters={
            1: lambda record: {"name": record["title"], "men": record["men"]},
            3: lambda record: {"name": record["name"], "crew": record["men"] + 1},
        },
    )
    assert boats.decode('{"schema": 1, "boat": {"title": "Argo", "men": 49}}') == Boat(name="Argo", crew=50)
    assert boats.decode('{"schema": 3, "boat": {"name": "Argo", "men": 49}}') == Boat(name="Argo", crew=50)
    assert boats.decode('{"schema": 4, "boat": {"name": "Argo", "crew": 0}}') == Boat(name="Argo", crew=0)
    assert json.loads(boats.encode(Boat(name="Argo", crew=50)))["schema"] == 4


def test_upcaster_that_meets_a_damaged_record_reports_the_damage() -> None:
    """An old record without what its upcaster needs is an unreadable record, not a crash."""
    boats: codec.Codec[Boat] = codec.Codec(
        kind="boat",
        adapter=pydantic.TypeAdapter(Boat),
        schema=2,
        upcasters={1: lambda record: {"name": record["title"], "crew": 0}},
    )
    for text in ('{"schema": 1, "boat": {}}', '{"schema": 1, "boat": null}'):
        with pytest.raises(errors.StorageError, match="A stored boat cannot be read"):
            boats.decode(text)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_saved_state_is_still_readable(path: Path) -> None:
    """Every state that any version saved is read by today's code, which writes it down again unharmed."""
    state = codec.STATE.decode(path.read_text())
    assert codec.STATE.decode(codec.STATE.encode(state)) == state


@pytest.mark.parametrize("phase", list(model.Phase), ids=str)
def test_saved_state_means_what_it_meant(phase: model.Phase) -> None:
    """Each phase has a saved state, and reads as the state that it was made from.

    After a change of the model on purpose: raise the schema; `python -m tests.golden.write` adds the new
    folder. Before the first release it is enough to delete the files of the schema and write them again.
    """
    path = golden.FOLDER / f"schema-{codec.SCHEMA}" / f"{phase}.json"
    assert codec.STATE.decode(path.read_text()) == golden.states()[phase]


def test_saved_states_are_never_written_over(tmp_path: Path) -> None:
    """The writer adds what is missing and leaves what is there."""
    assert golden.missing() == {}
    texts = golden.missing(tmp_path)
    assert len(texts) == len(model.Phase) + len(golden.pipelines())
    kept = tmp_path / f"schema-{codec.SCHEMA}" / "holding.json"
    kept.parent.mkdir()
    kept.write_text("old")
    assert kept not in golden.missing(tmp_path)

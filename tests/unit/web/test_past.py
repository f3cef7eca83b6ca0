"""The API's look into the past: points of a rollout, the series, the noise; and what it refuses."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from tests.support.asking import OWNER, Anything, as_user
from tests.support.builders import KEY, environment, perfect
from tests.unit.engine.world import Plant
from tidegate import errors, ports
from tidegate.core import model, sequential, series
from tidegate.engine import delivery, loop, operations, traffic
from tidegate.engine.gates import Gates
from tidegate.testing.audit import MemoryAudit, MemoryTokens
from tidegate.testing.fakes import FakeRuntime
from tidegate.testing.series import MemorySeries
from tidegate.testing.series_checks import point, row
from tidegate.testing.vault import MemorySecrets
from tidegate.web import api, identity, past, views

HERE = "/v1/apps/shop/environments/production"
NOW = 1_700_000_100
SENTENCE = "480 fake canaries on your last day, 2 aborted: errors count in full."


class Window:
    """The API over fakes."""

    def __init__(self) -> None:
        self.plant = Plant()
        self.kept = MemorySeries()
        self.state = self.plant.holds(environment().live("r1").incoming("r2"))
        context = api.Context(
            operations=operations.Operations(
                controller=self.plant.controller,
                store=self.plant.store,
                lease=self.plant.lease,
                clock=self.plant.world,
                content=cast("operations.Content", None),
                link_ports=(),
                memory=cast("operations.Memory", None),
                secrets=MemorySecrets(),
                origins=cast("ports.Origins", None),
                gates=cast("Gates", None),
                wake=lambda: None,
            ),
            trust=identity.Trust(owner=OWNER, tokens=MemoryTokens(), now=self.plant.world.now),
            audit=MemoryAudit(),
            delivery=cast("delivery.Delivery", Anything()),
            pipeline_trouble=lambda app: None,
            store=self.plant.store,
            runtime=FakeRuntime(),
            content=cast("api.Content", None),
            series=self.kept,
            noise=lambda key: SENTENCE,
            watched=self,
            listening=views.Listening(host="127.0.0.1", port=8080),
            version="0",
            home="/nowhere",
            pid=1,
            check=lambda: (),
            back_up=_no_backup,
            stop=lambda: None,
            stop_apps=lambda: None,
        )
        self.app = as_user(api.create_app(context))

    def view(self, key: model.EnvironmentKey) -> loop.View:
        if key != KEY:
            raise errors.NotFoundError(f"Nothing was ever deployed to {key}.")
        return loop.View(state=self.state, observed=perfect(self.state))

    def meter(self, key: model.EnvironmentKey) -> traffic.TrafficMeter:
        return traffic.TrafficMeter()

    def get(self, path: str, **asked: int) -> Any:
        """What is answered, an error included."""
        return self.ask(f"{HERE}{path}", asked)[1]

    def ask(self, path: str, asked: dict[str, int]) -> tuple[int, Any]:
        """Status and body."""

        async def asking() -> tuple[int, Any]:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://tidegate") as http:
                answer = await http.get(path, params=asked)
                return answer.status_code, answer.json()

        return asyncio.run(asking())


def _no_backup(path: Path) -> int:
    raise AssertionError("nobody asked for one")


@pytest.fixture
def window() -> Window:
    return Window()


def test_points_are_shown_with_their_quantiles(window: Window) -> None:
    """Both sides, the evidence, and no quantile where nothing was measured."""
    rollout = window.state.rollout
    assert rollout is not None
    quiet = replace(point(NOW - 1), stable=series.Side())
    window.kept.add((ports.Recorded(key=KEY, points=((rollout.id, point(NOW - 2)), (rollout.id, quiet))),))
    first, second = window.get(f"/rollouts/{rollout.id}/points")
    edge_ms = sequential.bucket_edge_s(5) * 1000
    assert first == {
        "at": NOW - 2,
        "exposure_bps": 500,
        "canary": {"requests": 1, "errors": 0, "p50_ms": edge_ms, "p99_ms": edge_ms},
        "stable": {
            "requests": 19,
            "errors": 1,
            "p50_ms": sequential.bucket_edge_s(4) * 1000,
            "p99_ms": sequential.bucket_edge_s(4) * 1000,
        },
        "combined": 0.5,
        "abort_bound": 4.6,
        "no_worse": -1.5,
        "promote_bound": 3.2,
    }
    assert second["stable"] == {"requests": 0, "errors": 0, "p50_ms": None, "p99_ms": None}


def test_rollout_without_points_is_empty_and_an_unknown_one_is_not_found(window: Window) -> None:
    """A switch has nothing to compare; a number that was never given out is a mistake."""
    rollout = window.state.rollout
    assert rollout is not None
    assert window.get(f"/rollouts/{rollout.id}/points") == []
    problem = window.get("/rollouts/99/points")
    assert (problem["status"], problem["type"]) == (404, "not-found")
    assert "rollout #99" in problem["title"]
    assert window.get("/rollouts/0/points")["status"] == 400


def test_unknown_environment_is_not_found(window: Window) -> None:
    """Never deployed is no empty answer."""
    for path in ("series", "rollouts/1/points"):
        assert window.ask(f"/v1/apps/shop/environments/nowhere/{path}", {})[0] == 404


def test_series_is_answered_in_steps(window: Window) -> None:
    """Rows of the kept length that fits, added up to the step, from whole steps on."""
    rows = tuple(row(NOW - age, requests) for age, requests in ((9, 1), (8, 2), (0, 4)))
    window.kept.add((ports.Recorded(key=KEY, rows=rows),))
    seconds = window.get("/series", since=NOW - 60, until=NOW + 1, step=1)
    assert [(each["at"], each["requests"], each["step_s"]) for each in seconds] == [
        (NOW - 9, 1, 1),
        (NOW - 8, 2, 1),
        (NOW, 4, 1),
    ]
    assert seconds[2]["classes"] == [0, 3, 0, 0, 1]
    assert (seconds[2]["release"], seconds[2]["service"], seconds[2]["placement"]) == (11, "web", 1)
    assert seconds[2]["p50_ms"] == pytest.approx(sequential.bucket_edge_s(200) * 1000)
    begin = (NOW - 9) - (NOW - 9) % 30
    tens = window.get("/series", since=NOW - 9, until=NOW - 7, step=30)
    assert [(each["at"], each["requests"]) for each in tens] == [(begin, 3)]
    assert sum(each["requests"] for each in window.get("/series")) == 7
    assert sum(each["requests"] for each in window.get("/series", since=NOW - 86_400)) == 7


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"since": NOW, "until": NOW}, "before"),
        ({"since": NOW - 3600, "until": NOW, "step": 2}, "too many"),
        ({"since": NOW - 7200, "until": NOW - 7000, "step": 5}, "kept for an hour"),
        ({"since": NOW - 9 * 86_400, "until": NOW - 9 * 86_400 + 60, "step": 60}, "kept for 7 days"),
        ({"step": 0}, "not valid"),
        ({"since": -1}, "not valid"),
    ],
)
def test_what_cannot_be_answered_is_refused(window: Window, asked: dict[str, int], said: str) -> None:
    """With a sentence that says what would be right, and never an empty answer instead."""
    problem = window.get("/series", **asked)
    assert problem["status"] == 400
    assert said in problem["title"]


def test_too_many_rows_are_refused(window: Window) -> None:
    """Many placements and services over a long time would make an answer that nobody reads."""
    rows = tuple(
        row(NOW - second, placement=placement) for second in range(1000) for placement in range(1, 22)
    )
    window.kept.add((ports.Recorded(key=KEY, rows=rows),))
    problem = window.get("/series", since=NOW - 1000, until=NOW + 1, step=1)
    assert "more than 20000 rows" in problem["title"]


@pytest.mark.parametrize(
    ("seconds", "step_s"),
    [(60, 1), (300, 1), (301, 5), (600, 5), (3600, 30), (7200, 60), (86_400, 300), (9 * 86_400, 3600)],
)
def test_step_is_chosen_for_the_stretch(seconds: int, step_s: int) -> None:
    """At most 300 steps, and of a length that is still kept."""
    assert past.asked(NOW, NOW - seconds, NOW, None).step_s == step_s


def test_step_is_chosen_by_age_too() -> None:
    """A minute of yesterday is one step, because its seconds are gone."""
    assert past.asked(NOW, NOW - 86_400, NOW - 86_340, None).step_s == 60
    assert past.asked(NOW, NOW - 30 * 86_400, NOW - 30 * 86_400 + 60, None).step_s == 3600


def test_series_that_cannot_be_read_is_told(window: Window) -> None:
    """A damaged file is an answer of its own, and the environment is shown all the same."""
    window.kept.failing = errors.StorageError("It was damaged.")
    problem = window.get("/series")
    assert (problem["title"], problem["status"]) == ("It was damaged.", errors.StorageError.http_status)
    assert window.get("")["app"] == "shop"


def test_environment_says_what_its_noise_is(window: Window) -> None:
    """The sentence of the newest replay is shown unchanged."""
    assert window.get("")["noise"] == SENTENCE

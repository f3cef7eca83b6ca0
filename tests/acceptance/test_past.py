"""What was answered when, from a real router through a real control plane: counted once, and remembered."""

from __future__ import annotations

import pytest

from tests.support import sample
from tests.support.tide import Tide, kill, wait_for
from tests.support.users import Users
from tidegate.client import Client, Place

pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.mark.timeout(180)
def test_canary_is_remembered_in_points_over_a_kill_9(tide: Tide) -> None:
    """Both releases have their requests in points and rows, and a killed control plane forgets none."""
    web = sample.service("web", route="past.test", instances=2)
    production = {"strategy": sample.canary("50%", every="4s"), "keep_warm": "1m"}
    app = tide.app("past", services={"web": web}, environments={"production": production})
    app.host = "past.test"
    app.deploy()
    place = Place("past", "production")
    with Users(tide.port, host="past.test", count=20):
        app.deploy()
    with Client(tide.socket) as client:
        rollout = client.history(place, limit=1)[0]["id"]
        points = wait_for(lambda: client.points(place, rollout))
        assert sum(point["canary"]["requests"] for point in points) > 0
        assert sum(point["stable"]["requests"] for point in points) > 0
        assert 5000 in {point["exposure_bps"] for point in points}
        before = wait_for(lambda: client.series(place, step=1))
    kill(tide.pid)
    wait_for(lambda: not tide.answers)
    for _ in range(7):
        app.get()
    tide.up()

    def counted() -> object:
        with Client(tide.socket) as again:
            rows = again.series(place, since=before[0]["at"], step=1)
        return sum(row["requests"] for row in rows) >= sum(row["requests"] for row in before) + 7

    wait_for(counted)

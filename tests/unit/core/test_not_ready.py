"""What an abort says of a release that does not get ready."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import builders
from tidegate.core import placements


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"check": "GET /missing answered 404"}, "web 0 of 2 ready (GET /missing answered 404)"),
        ({"check": ""}, "web 0 of 2 ready"),
        (
            {"check": "connection refused", "exit": "exit status 1"},
            "web 0 of 2 ready (connection refused), last ended with exit status 1",
        ),
    ],
)
def test_says_what_the_check_said(changes: dict[str, Any], said: str) -> None:
    """Why a service is not ready: the words of its check once, however many instances say the same."""
    wanted = builders.spec(builders.service(instances=2))
    state = builders.environment().live("r1", wanted).incoming("r2", wanted).state
    placement = builders.placed(state, "r2")
    seen = builders.with_instances(builders.perfect(state), placement, "web", ready=False, **changes)
    assert placements.not_ready(state, placement, seen) == said


def test_says_nothing_of_checks_of_ready_instances() -> None:
    """One instance of two is ready: the words are those of the other."""
    wanted = builders.spec(builders.service(instances=2))
    state = builders.environment().live("r1", wanted).incoming("r2", wanted).state
    placement = builders.placed(state, "r2")
    seen = builders.with_instances(builders.perfect(state), placement, "web", check="GET / answered 200")
    seen = builders.with_instances(seen, placement, "web", index=1, ready=False, check="GET / answered 503")
    assert placements.not_ready(state, placement, seen) == "web 1 of 2 ready (GET / answered 503)"

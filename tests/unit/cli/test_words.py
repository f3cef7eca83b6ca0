"""What commands say at the end of a canary."""

from __future__ import annotations

import io
import pathlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from rich.console import Console

from tests.support import canaries
from tests.unit.cli.test_charts import each_second, side
from tidegate import client
from tidegate.cli import look, release
from tidegate.core.model import Phase, Reason

BAD = canaries.judged(canary=(10, 5), stable=(190, 0), seconds=5)
NOWHERE = client.Place("shop", "production")


def said(say: Callable[[Console], Any]) -> list[str]:
    """The lines that a command prints into a pipe."""
    text = io.StringIO()
    say(Console(file=text, width=10_000, highlight=False))
    return text.getvalue().splitlines()


def ended(reason: Reason, detail: str) -> dict[str, Any]:
    """The rollout, aborted for this reason; without a placement there is no output to ask for."""
    aborted = replace(BAD, phase=Phase.ABORTED, reason=reason, detail=detail, placement=None)
    return canaries.as_json(aborted)


def explained(rollout: dict[str, Any]) -> list[str]:
    """What `tide deploy` says of it; nobody is asked for logs."""
    with client.Client(pathlib.Path("nowhere.sock")) as nobody:
        return said(lambda out: release.explain_abort(nobody, NOWHERE, rollout, out))


def test_a_deploy_of_a_worse_release_begins_with_what_was_found() -> None:
    """The judge's sentence leads, then what became of the rollout and who is served by what."""
    sentence = canaries.as_json(BAD)["evidence"]["sentence"]
    lines = explained(ended(Reason.WORSE, sentence))
    assert lines[0] == sentence
    assert lines[1] == f"Rollout #{BAD.id} of r2 was aborted (worse)."
    assert lines[2] == "Everybody is served by r1."


def test_any_other_abort_begins_with_its_reason() -> None:
    """Where the traffic had no part in it, the sentence about traffic stays out."""
    lines = explained(ended(Reason.USER_ABORT, "by ada"))
    assert lines[0] == f"Rollout #{BAD.id} of r2 was aborted (aborted-by-user): by ada"
    assert not any("fails more" in line for line in lines)


def test_show_says_what_was_found_once() -> None:
    """The sentence that is the rollout's detail already is not said again."""
    sentence = canaries.as_json(BAD)["evidence"]["sentence"]
    worse = {"environment": "production", **ended(Reason.WORSE, sentence)}
    other = {"environment": "production", **ended(Reason.USER_ABORT, "by ada")}
    assert said(lambda out: look.shown(out, worse))[0].count("fails more") == 1
    assert len(said(lambda out: look.shown(out, worse))) == 1
    assert said(lambda out: look.shown(out, other))[1:] == [sentence]


def test_show_draws_the_points_in_80_columns() -> None:
    """In a pipe, which has no width, charts are as wide as a usual screen."""
    sentence = canaries.as_json(BAD)["evidence"]["sentence"]
    worse = {
        "environment": "production",
        **ended(Reason.WORSE, sentence),
        "points": each_second(side(1), side(2)),
    }
    lines = said(lambda out: look.shown(out, worse))[1:]
    assert [line.split()[0] for line in lines[1:]] == [
        "exposure",
        *["requests/s"] * 2,
        *["errors"] * 2,
        *["p99"] * 2,
        "evidence",
    ]
    assert max(len(line) for line in lines) <= 80


def test_points_are_asked_for_once_per_environment() -> None:
    """Of many canaries of a release the newest one of each environment is drawn; no other is asked for."""
    judged, unjudged = canaries.as_json(BAD), {**canaries.as_json(BAD), "evidence": None}
    rollouts = [
        {"environment": "staging", **unjudged, "id": 9},
        {"environment": "staging", **judged, "id": 7},
        {"environment": "staging", **judged, "id": 3},
        {"environment": "production", **judged, "id": 4},
    ]
    assert {(found["environment"], found["id"]) for found in look.newest_judged(rollouts)} == {
        ("staging", 7),
        ("production", 4),
    }

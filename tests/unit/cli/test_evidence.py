"""What people see of a canary's evidence, while it runs and when it has ended."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.support import builders, canaries
from tests.unit.cli.support import printed
from tidegate.cli import evidence, live
from tidegate.core import words
from tidegate.core.model import Phase, Reason
from tidegate.core.policy import LittleEvidence

GOOD = canaries.judged(canary=(10, 0), stable=(190, 0))
BAD = canaries.judged(canary=(10, 5), stable=(190, 0), seconds=5)


def bars(rollout: Any) -> tuple[int, int]:
    """How many cells of the bars towards the bounds of harm and of no harm are filled."""
    lines = printed(*evidence.lines(canaries.as_json(rollout)))
    harm, no_worse = (line.count("━") + line.count("╸") for line in lines[:2])
    return harm, no_worse


def test_nothing_to_compare_shows_nothing() -> None:
    """A switch, or a canary that nobody has seen yet, has no bars and no table."""
    rollout = canaries.as_json(builders.going(builders.environment().live("r1").incoming("r2").state))
    assert evidence.lines(rollout) == []
    assert evidence.comparison(rollout) is None
    assert (evidence.found(rollout), evidence.short(rollout)) == ("", "")


def test_an_older_control_plane_shows_nothing() -> None:
    """While a control plane is upgraded, one that knows of no evidence is no error."""
    rollout = {name: value for name, value in canaries.as_json(GOOD).items() if name != "evidence"}
    assert evidence.lines(rollout) == []
    assert (evidence.found(rollout), evidence.short(rollout)) == ("", "")


def test_bars_grow_towards_their_bounds() -> None:
    """A good canary fills one bar, a bad one the other; evidence for the contrary leaves it empty."""
    longer = canaries.judged(canary=(10, 0), stable=(190, 0), seconds=300)
    assert bars(GOOD)[0] == 0
    assert bars(GOOD)[1] < bars(longer)[1] <= evidence.BAR_WIDTH
    assert bars(BAD) == (evidence.BAR_WIDTH, 0)


def test_the_bar_is_a_share_of_the_bound() -> None:
    """Half of the way in nats is half of the bar."""
    rollout = canaries.as_json(GOOD)
    halfway = rollout["evidence"] | {"combined": rollout["evidence"]["abort_bound"] / 2}
    line = printed(*evidence.lines(rollout | {"evidence": halfway}))[0]
    assert line.count("━") + line.count("╸") == evidence.BAR_WIDTH // 2
    assert "10 to 1, 100 to 1 aborts" in line


def test_the_judges_sentence_is_shown_unchanged() -> None:
    """The words under the bars are the judge's own, broken into lines only."""
    rollout = canaries.as_json(BAD)
    shown = " ".join(printed(*evidence.lines(rollout))[2:])
    assert shown.split() == rollout["evidence"]["sentence"].split()


def test_what_is_waited_for_is_said() -> None:
    """A hold that is over says what it waits for, and a pause for little evidence what to do."""
    waiting = canaries.judged(
        canary=(1, 0), stable=(19, 0), held_s=10.0, on_little_evidence=LittleEvidence.WAIT
    )
    asking = replace(waiting, paused=True, reason=Reason.LITTLE_EVIDENCE)
    assert "tide promote" in printed(*evidence.lines(canaries.as_json(waiting)), width=200)[-1]
    assert "tide resume" in printed(*evidence.lines(canaries.as_json(asking)), width=200)[-1]
    assert "tide promote" not in str(printed(*evidence.lines(canaries.as_json(GOOD))))


def test_both_releases_stand_side_by_side() -> None:
    """Requests, errors and the share of each release are in its line."""
    rollout = canaries.as_json(BAD)
    lines = printed(evidence.comparison(rollout))
    for side, name, line in zip(("canary", "stable"), ("r2", "r1"), lines[1:], strict=True):
        seen = rollout["evidence"][side]
        assert line.split()[:4] == [name, side, str(seen["requests"]), str(seen["errors"])]
        assert words.percent(seen["share"]) in line


def test_everything_fits_into_a_terminal_and_into_a_pipe() -> None:
    """No line of the picture is wider than 80 columns, and without colours there is no escape sequence."""
    found = canaries.environment(canaries.judged(canary=(9_000, 4_000), stable=(190_000, 1_000), seconds=3))
    picture = (live.picture(found), evidence.comparison(found["rollout"]))
    assert max(len(line) for line in printed(*picture)) <= 80
    assert not any("\x1b" in line for line in printed(*picture))
    assert "\x1b[3" in str("".join(printed(*picture, terminal=True)))
    assert not any(f"\x1b[3{n}" in "".join(printed(*picture, terminal=True, no_color=True)) for n in range(8))


def test_the_picture_of_a_rollout_holds_its_evidence() -> None:
    """Status and live view show bars and sentence between the stages and what runs."""
    lines = printed(live.picture(canaries.environment(GOOD)))
    harm = next(index for index, line in enumerate(lines) if line.startswith("harm"))
    assert "5 %" in lines[harm - 1]
    assert lines[harm + 1].startswith("no worse")


@pytest.mark.parametrize("phase", [Phase.SUCCEEDED, Phase.ABORTED])
def test_an_end_without_a_verdict_says_how_much_was_looked_at(phase: Phase) -> None:
    """Where nothing was found, the number of requests says what that is worth; "so far" is over."""
    found = evidence.found(canaries.as_json(replace(GOOD, phase=phase)))
    assert found.startswith("Nothing was found against it: 0 of 300 requests failed.")
    assert "so far" not in found
    assert "so far" in evidence.found(canaries.as_json(GOOD))


def test_an_end_with_a_verdict_keeps_its_sentence() -> None:
    """What the rollout went back for, or was promoted for, stays as it was said."""
    rollout = canaries.as_json(replace(BAD, phase=Phase.ABORTED))
    assert evidence.found(rollout) == rollout["evidence"]["sentence"]
    assert "5 of 10" in evidence.found(rollout) or "25 of 50" in evidence.found(rollout)


def test_an_end_without_requests_claims_nothing() -> None:
    """Nobody used the canary: that is not called a success of it."""
    silent = canaries.judged(canary=(0, 0), stable=(190, 0))
    assert "nothing is known" in evidence.found(canaries.as_json(replace(silent, phase=Phase.SUCCEEDED)))


def test_an_analysis_that_is_off_says_so() -> None:
    """Whatever the numbers are, an end that nobody judged is not called clean."""
    off = replace(canaries.judged(canary=(10, 5), stable=(190, 0), enabled=False), phase=Phase.SUCCEEDED)
    assert evidence.found(canaries.as_json(off)) == "The analysis is switched off."
    assert evidence.short(canaries.as_json(off)) == ""


def test_the_cell_of_a_table() -> None:
    """In the history a few words say what was found, how sure, and on how many requests."""
    longer = canaries.judged(canary=(100, 0), stable=(1_900, 0), seconds=300, latency_margin_buckets=20)
    assert evidence.short(canaries.as_json(longer)).startswith("no worse: ")
    assert evidence.short(canaries.as_json(BAD)).startswith("errors: ")
    assert evidence.short(canaries.as_json(GOOD)) == "nothing found, 300 requests"


def test_what_was_learned_of_the_noise_is_shown() -> None:
    """The replay's own sentence is shown where there is one, and nothing where history is too short."""
    found = canaries.environment(GOOD)
    assert evidence.noise(found) == ""
    learned = found | {"noise": "480 fake canaries on your last day, none aborted."}
    assert evidence.noise(learned) == "noise: 480 fake canaries on your last day, none aborted."

"""The demo may say that it worked only if it did, and blames nobody without the router's word."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from tests.unit.demo.made import sample, story
from tidegate.demo.report import Act, Count, Report, report
from tidegate.demo.samples import Failure, Sample

BAD = Act(
    name="bad release",
    kind="bad",
    old=2,
    new=3,
    phase="aborted",
    reason="crash-loop",
    detail="",
    exposure_reached_bps=500,
    asked_at_s=10.0,
    ended_at_s=20.0,
)


def reported(samples: Sequence[Sample], *, counted: int = 0, acts: tuple[Act, ...] = (BAD,)) -> Report:
    """`counted`: failed requests of r3 that the router counted."""
    return report(samples, acts, {3: Count(requests=9, errors=counted)}, duration_s=1.0)


def failed(at_s: float, release: int | None = None, kind: Failure = Failure.SERVER_ERROR) -> Sample:
    """A request that failed."""
    return sample(at_s, release, failure=kind)


def test_users_who_got_nothing_but_failures_met_the_bad_release() -> None:
    """Everybody who was sent to the bad release counts as reached, answered or not."""
    served = sample(12, 3, user=1)
    turned_away = sample(12, None, user=2, failure=Failure.SERVER_ERROR)
    elsewhere = sample(12, 2, user=3)
    (line,) = reported([served, turned_away, elsewhere], counted=1).changes
    assert line.users_reached == 2


def test_story_without_failures_passes() -> None:
    """Nothing failed and nobody went back: the demo may say so."""
    table = reported(story("2233222", begin_s=9))
    assert table.passed
    assert (table.sent, table.succeeded, table.failed, table.failed_elsewhere) == (7, 7, 0, 0)


def test_unsigned_failures_while_the_bad_release_came_in_are_its_own() -> None:
    """An answer of the router itself, and a connection that it ended, count as the bad release's."""
    table = reported([sample(9, 2), failed(12), failed(13, kind=Failure.RESET)], counted=2)
    assert (table.failed, table.failed_of_bad_release, table.failed_elsewhere) == (2, 2, 0)
    assert table.passed


def test_failures_beyond_the_routers_count_are_not_the_bad_releases() -> None:
    """What the router did not count on the bad release failed elsewhere."""
    table = reported([failed(12), failed(13)], counted=1)
    assert (table.failed_of_bad_release, table.failed_elsewhere) == (1, 1)
    assert not table.passed
    assert table.problems == ("1 requests failed that no bad release had a part in.",)


def test_failures_of_another_release_or_time_or_kind_count_against_the_demo() -> None:
    """Signed by the good release, outside the bad one's time, or no matter of an app: not the bad one's."""
    theirs = [
        failed(12, release=2),
        failed(9.9),
        failed(20),
        failed(12, kind=Failure.CONNECT),
        failed(12, kind=Failure.TIMEOUT),
    ]
    table = reported(theirs, counted=99)
    assert table.failed_elsewhere == len(theirs)


def test_lost_patience_is_the_fault_of_a_release_that_hangs() -> None:
    """The router counts no error when a user gives up; outside that release's time nobody is excused."""
    hanging = replace(BAD, kind="hanging")
    seen = [failed(12, kind=Failure.TIMEOUT), failed(9.9, kind=Failure.TIMEOUT)]
    table = reported(seen, acts=(hanging,))
    assert (table.failed_of_bad_release, table.failed_elsewhere) == (1, 1)


def test_failures_that_the_bad_release_signed_are_its_own_at_any_time() -> None:
    """An answer with its name on it needs no guess at the time."""
    assert reported([failed(25, release=3)]).failed_elsewhere == 0


def test_signed_failures_leave_less_to_those_that_nobody_signed() -> None:
    """The router counts both: what it counted of the bad release is not excused twice."""
    assert reported([failed(12, release=3), failed(13)], counted=1).failed_elsewhere == 1
    assert reported([failed(12, release=3), failed(13)], counted=2).failed_elsewhere == 0


def test_no_traffic_is_no_success() -> None:
    """A demo whose users never came has shown nothing."""
    assert reported([]).problems == ("Not one request was sent.",)


def test_pages_of_two_releases_fail_the_demo() -> None:
    """One user who sees a mix is one too many."""
    table = reported([sample(1, 2, mixed=True)])
    assert table.pages_of_two_releases == 1
    assert not table.passed


def test_users_who_went_back_and_forth_fail_the_demo() -> None:
    """A user is moved once, and by an abort once more."""
    table = reported(story("23232", begin_s=11))
    assert table.changes[0].users_back == 1
    assert not table.passed


def test_each_change_is_measured_in_its_own_time() -> None:
    """The way back to a release does not stretch the switch away from it."""
    there = replace(BAD, kind="canary", phase="succeeded", old=1, new=2, asked_at_s=0.0, ended_at_s=9.0)
    back = replace(there, kind="rollback", old=2, new=1, asked_at_s=10.0, ended_at_s=11.0)
    table = reported([*story("1122"), *story("2211", begin_s=9)], acts=(there, back))
    assert [line.switch_s for line in table.changes] == [0.0, 0.0]
    assert [line.users_back for line in table.changes] == [0, 0]
    first = next(line for line in table.releases if line.release == 1)
    assert (first.answers, first.first_s, first.last_s) == (4, 0.0, 12.0)


def test_report_is_json() -> None:
    """`--json` prints the table with its verdict and every second."""
    table = json.loads(json.dumps(reported(story("223", begin_s=9), counted=1).as_json()))
    assert table["passed"] is True
    assert table["seconds"][2] == {"answers": {"r3": 1}, "failed": 0}
    assert table["releases"][0]["router"] == {"requests": 9, "errors": 1}

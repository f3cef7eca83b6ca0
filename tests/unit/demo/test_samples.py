"""What the users' samples add up to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.demo.made import sample, story
from tidegate.demo import samples
from tidegate.demo.samples import Failure, Span


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([], 50, None),
        ([7], 99, 7),
        ([1, 2, 3, 4], 50, 2),
        (range(1, 101), 99, 99),
        (range(1, 101), 100, 100),
        ([3, 1, 2], 1, 1),
    ],
)
def test_percentile_is_one_of_the_values(values: list[float], percent: float, expected: float | None) -> None:
    """A percentile is the smallest value that enough of the others do not exceed."""
    assert samples.percentile(values, percent) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.1, 100))
def test_percentile_covers_its_share(values: list[float], percent: float) -> None:
    """At least so many percent of the values do not exceed the percentile."""
    found = samples.percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) * 100 >= percent * len(values) - 1e-6


def test_switch_is_measured_from_the_first_new_to_the_last_old() -> None:
    """Requests of the old release after the first of the new one make up the time of the switch."""
    seen = [*story("1111", user=1), *story("1222", user=2), *story("1112", user=3)]
    change = samples.change(seen, 1, 2, aborted=False)
    assert change.switch_s == 2.0  # from user 2's second request to user 1's last
    assert change.users_back == 0


def test_clean_flip_takes_no_time() -> None:
    """When no request of the old release was sent after the first of the new one, the switch took 0 s."""
    seen = [*story("1122", user=1), *story("1122", user=2, begin_s=0.1)]
    assert samples.change(seen, 1, 2, aborted=False).switch_s == 0.0


def test_change_that_reached_nobody_has_no_times() -> None:
    """Without an answer of the new release there is nothing to measure."""
    change = samples.change(story("111"), 1, 2, aborted=True)
    assert (change.switch_s, change.exposed_s, change.users_back) == (None, None, 0)


@pytest.mark.parametrize(
    ("answers", "aborted", "back"),
    [
        ("1122", False, 0),
        ("1-2-2", False, 0),
        ("1121", False, 1),
        ("1221", True, 0),
        ("1-2-1", True, 0),
        ("1212", True, 1),
        ("3132", False, 0),  # another release than the two is no step back
    ],
)
def test_users_who_go_back_are_counted(answers: str, *, aborted: bool, back: int) -> None:
    """Growing, nobody returns to the old release; going home, nobody returns to the new one."""
    assert samples.change(story(answers), 1, 2, aborted=aborted).users_back == back


def test_going_back_is_seen_by_the_time_of_sending() -> None:
    """Samples may come in any order: a user's requests are put into theirs."""
    assert samples.change(list(reversed(story("1122"))), 1, 2, aborted=False).users_back == 0


def test_exposure_of_a_release_is_from_its_first_to_its_last_answer() -> None:
    """How long an aborted release was seen is measured at the users' end."""
    change = samples.change(story("22332"), 2, 3, aborted=True)
    assert (change.exposed_s, change.switch_s) == (1.0, None)


def test_failures_are_counted_by_kind() -> None:
    """Kinds that did not happen are not there."""
    seen = [
        sample(0, 1),
        sample(1, None, failure=Failure.RESET),
        sample(2, None, failure=Failure.RESET),
        sample(3, 2, failure=Failure.SERVER_ERROR),
    ]
    assert samples.failures(seen) == {"5xx": 1, "reset": 2}


def test_each_second_says_who_answered() -> None:
    """Seconds count from the first request; one without requests is there, and empty."""
    seen = [*story("11", step_s=0.4, begin_s=100), *story("2-", step_s=0.1, begin_s=102.5)]
    assert list(samples.per_second(seen)) == [({1: 2}, 0), ({}, 0), ({2: 1}, 1)]
    assert list(samples.per_second([])) == []


def test_span_ends_before_its_end() -> None:
    """Two spans side by side share no sample."""
    seen = story("1111")
    assert [s.sent_at_s for s in Span(begin_s=1, end_s=3).of(seen)] == [1.0, 2.0]

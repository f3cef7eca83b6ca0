"""The ratchets turn one way only."""

from __future__ import annotations

import pathlib

import pytest

from tests.meta import coverage_ratchet, ratchet

REPORT = {
    "files": {
        "src/tidegate/core/model.py": {
            "summary": {"covered_lines": 9, "num_statements": 9, "covered_branches": 0, "num_branches": 1}
        },
        "src/tidegate/core/routing.py": {
            "summary": {"covered_lines": 8, "num_statements": 8, "covered_branches": 2, "num_branches": 2}
        },
        "src/tidegate/errors.py": {"summary": {"covered_lines": 3, "num_statements": 4}},
        "src/tidegate/__init__.py": {"summary": {"covered_lines": 1, "num_statements": 1}},
        "src/tidegate/empty.py": {"summary": {"covered_lines": 0, "num_statements": 0}},
    }
}


def test_exceptions_as_listed_are_no_problem() -> None:
    """Nothing is said when what is found is what is allowed."""
    assert list(ratchet.problems({"a": 70}, {"a": 70})) == []


@pytest.mark.parametrize(
    ("found", "allowed", "word"),
    [
        ({"a": 70}, {}, "new"),
        ({"a": 71}, {"a": 70}, "grew"),
        ({"a": 69}, {"a": 70}, "shrank"),
        ({}, {"a": 70}, "gone"),
    ],
)
def test_every_other_difference_is_a_problem(
    found: dict[str, int], allowed: dict[str, int], word: str
) -> None:
    """New and grown exceptions fail, and so does a file that is behind the code."""
    (problem,) = ratchet.problems(found, allowed)
    assert word in problem


def test_the_file_is_read_back_as_it_was_written(tmp_path: pathlib.Path) -> None:
    """Saving and loading loses nothing, and the file is sorted."""
    written = ratchet.Ratchet(tidy={"b": 2, "a": 1}, coverage={"core": 100.0})
    path = tmp_path / "ratchet.json"
    ratchet.save(written, path)
    assert ratchet.load(path) == written
    assert path.read_text("utf-8").index('"a"') < path.read_text("utf-8").index('"b"')


def test_the_core_is_held_at_one_hundred_percent() -> None:
    """Nobody lowers the core's minimum: every line and branch of what decides is tested."""
    assert ratchet.load().coverage["core"] == 100.0


def test_percentages_count_lines_and_branches_of_each_part() -> None:
    """A part is a module or folder under the package, and an empty one is left out."""
    assert coverage_ratchet.percentages(REPORT) == {"__init__": 100.0, "core": 95.0, "errors": 75.0}


@pytest.mark.parametrize(
    ("measured", "minimums", "words"),
    [
        ({"core": 100.0}, {"core": 100.0}, []),
        ({"core": 99.9}, {"core": 100.0}, ["it was 100.0 %"]),
        ({"web": 90.0}, {}, []),
        ({"web": 89.9}, {}, ["a new part needs"]),
        ({}, {"web": 90.0}, ["remove it"]),
    ],
)
def test_coverage_may_not_fall(
    measured: dict[str, float], minimums: dict[str, float], words: list[str]
) -> None:
    """A part below its minimum fails, a new part has a high bar, a part that is gone must be unlisted."""
    found = list(coverage_ratchet.problems(measured, minimums))
    assert len(found) == len(words)
    assert all(word in problem for word, problem in zip(words, found, strict=True))


def test_an_update_never_lowers_a_minimum() -> None:
    """Raising rounds down to a whole percent, keeps what was higher, adds and removes parts."""
    measured = {"core": 99.5, "web": 93.7, "store": 97.2}
    minimums = {"core": 100.0, "web": 90.0, "gone": 50.0}
    assert coverage_ratchet.raised(measured, minimums) == {"core": 100.0, "web": 93.0, "store": 97.0}

"""The tree of errors: drawn as it is, each with a message, a fault and a status."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import pytest

from tidegate import errors
from tidegate.errors import ListedError, ManifestError, Problem, RefusedError, ReportedError, TidegateError


def tree(kind: type[TidegateError] = TidegateError, depth: int = 0) -> Iterator[tuple[int, str]]:
    """Every error with its depth, in the order of the file."""
    yield depth, kind.__name__
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from tree(child, depth + 1)


def classes(kind: type[TidegateError] = TidegateError) -> Iterator[type[TidegateError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from classes(child)


PLAIN = [kind for kind in classes() if not issubclass(kind, ListedError | RefusedError | ReportedError)]


def test_docstring_draws_the_tree_as_it_is() -> None:
    """Who reads the file's first lines knows every error and its parent."""
    drawn = []
    for line in (inspect.getdoc(errors) or "").splitlines():
        match = re.match(r"^((?:[│ ] {3})*(?:[├└]── )?)([A-Z]\w+Error)\b", line)
        if match:
            drawn.append((len(match[1]) // 4 - 1, match[2]))
    assert drawn == list(tree())


@pytest.mark.parametrize("kind", PLAIN, ids=lambda kind: kind.__name__)
def test_docstring_is_the_default_message(kind: type[TidegateError]) -> None:
    """An error raised without words still says what happened, in a sentence."""
    error = kind()
    assert error.message == kind.__doc__
    assert str(error).endswith(".")


def test_message_and_hint_are_one_text_for_people_and_two_for_machines() -> None:
    """What happened, then what to do."""
    error = errors.NotFoundError("There is no r9.", hint="`tide releases` lists them.")
    assert str(error) == "There is no r9. `tide releases` lists them."
    assert (error.message, error.hint) == ("There is no r9.", "`tide releases` lists them.")


@pytest.mark.parametrize("kind", list(classes()), ids=lambda kind: kind.__name__)
def test_status_follows_from_whose_fault_it_is(kind: type[TidegateError]) -> None:
    """A wrong request is a 4xx and exit status 2; everything else is no fault of the caller."""
    asked_wrongly = issubclass(kind, errors.RequestError)
    assert kind.exit_status == (2 if asked_wrongly and kind is not errors.BuildError else 1)
    if asked_wrongly:
        assert 400 <= kind.http_status < 500
    elif kind not in (errors.LeaseHeldError, errors.ConflictError):
        assert kind.http_status >= 500


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RefusedError("no", reason="halted"), "refused"),
        (errors.StaleRouteError(), "stale-route"),
        (errors.RuntimeAdapterError(), "runtime-adapter"),
        (TidegateError(), "tidegate"),
    ],
)
def test_kind_is_a_stable_word_for_machines(error: TidegateError, kind: str) -> None:
    """The class's name without its suffix, in words with dashes."""
    assert error.kind == kind


def test_kinds_are_unique() -> None:
    """No two errors are called the same."""
    kinds = [kind.__name__ for kind in classes()]
    assert len(kinds) == len(set(kinds))


def test_refusal_carries_its_reason() -> None:
    """For machines, beside the sentence for people."""
    error = RefusedError("Not now.", reason="rollout-in-progress", hint="Wait.")
    assert (error.reason, str(error)) == ("rollout-in-progress", "Not now. Wait.")


def test_manifest_error_lists_all_problems_in_order() -> None:
    """Every mistake at once, each with its path, and a hint where there is one."""
    one = Problem("app", "should be a name")
    two = Problem("services.web", "has no run", "add run: ./bin/web")
    assert str(ManifestError((one,))) == "tidegate.yaml has 1 mistake:\n  app: should be a name"
    both = ManifestError((one, two))
    assert str(both).splitlines()[0] == "tidegate.yaml has 2 mistakes:"
    assert str(both).endswith("  services.web: has no run (add run: ./bin/web)")
    assert both.problems == (one, two)


def test_error_survives_its_way_to_another_process() -> None:
    """What `problem` makes of an error is what a client shows: same message, hint and exit status."""
    refused = RefusedError("Not now.", reason="rollout-in-progress", hint="Wait.")
    written = errors.problem(refused)
    assert written["reason"] == "rollout-in-progress"
    there = ReportedError(written)
    assert (there.message, there.hint) == ("Not now.", "Wait.")
    assert errors.problem(there) == written


def test_report_that_says_nothing_has_a_message_all_the_same() -> None:
    """Missing members of a report are harmless."""
    empty = ReportedError({})
    assert (empty.message, empty.hint) == (ReportedError.__doc__, None)

"""The reference pages of commands, JSON objects and reasons are what the code says."""

from __future__ import annotations

import enum
import pathlib
from collections.abc import Callable

import pytest

from tests.meta import cli_page, json_page, reasons_page
from tidegate.core import reasons
from tidegate.web import schemas


@pytest.mark.parametrize(
    ("path", "made"),
    [
        (cli_page.PAGE, cli_page.page),
        (json_page.PAGE, json_page.page),
        (reasons_page.PAGE, reasons_page.page),
    ],
    ids=lambda value: value.stem if isinstance(value, pathlib.Path) else "",
)
def test_page_is_in_step(path: pathlib.Path, made: Callable[[], str]) -> None:
    """Each page is the one that the code makes."""
    assert path.read_text("utf-8") == made(), f"run: python -m tests.meta.{path.stem}_page"


def test_every_command_is_on_the_page() -> None:
    """No command is missing, and each that knows `--json` says what it answers."""
    commands = cli_page.commands()
    assert set(cli_page.ANSWERS) == set(commands)
    knowing = {
        name
        for name, command in commands.items()
        if any("--json" in parameter.opts for parameter in command.params)
    }
    assert {name for name, answer in cli_page.ANSWERS.items() if answer} == knowing


def test_every_field_has_its_meaning() -> None:
    """No field of an answer is left to be guessed."""
    silent = [
        f"{answer.__name__}.{name}"
        for answer in json_page.answers()
        for name, field in answer.model_fields.items()
        if not field.description
    ]
    assert silent == []


def test_no_answer_is_hidden_below_another() -> None:
    """The page lists answers of answers too, and none that the API does not have."""
    waiting, known = [schemas.Answer], set[type[schemas.Answer]]()
    while waiting:
        below = waiting.pop().__subclasses__()
        known.update(below)
        waiting += below
    assert set(json_page.answers()) == known


@pytest.mark.parametrize("kind", [reasons.Reason, reasons.Refusal])
def test_every_reason_has_its_meaning(kind: type[enum.StrEnum]) -> None:
    """A reason that is added says below it what it means."""
    assert set(reasons_page.meanings(kind)) == set(kind.__members__)

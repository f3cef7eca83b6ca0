"""The editors' schema says what the parser says."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from tests.meta import manifest_page
from tests.unit.manifest.schema_check import accepts
from tests.unit.manifest.support import mistakes, with_environments, with_services
from tests.unit.manifest.test_analysis import IN_ANALYSIS
from tests.unit.manifest.test_gates import IN_GATES
from tests.unit.manifest.test_mistakes import IN_ENVIRONMENT, IN_SERVICE
from tidegate import manifest

SCHEMA = manifest.json_schema()

#: Rules that no schema can hold, or that ours leaves to the parser: ranges of times and sizes, rules between
#: values, commands that need a shell, equal items, duplicates.
BEYOND_A_SCHEMA = (
    "names ",
    "there is no service",
    "needs itself",
    "only a shell",
    "opens a quote",
    "begins with",
    "not several",
    "is set by Tidegate",
    "more than the step",
    "less than 100",
    "should be between 100ms",
    "should be at most 365d",
    "should be at least 1MB",
    "should be more than 0%",
    "should be between 1ms",
    "is false, but",
    "NUL",
    "not 'no'",  # YAML readers of editors see false
    "not 'off'",  # as above
    "should have run, smoke or both",
    "has no port",
    "nobody can be asked",
    "should be between 1s",
    "should be a day of the",
    "as from is",
    "when it begins",
    "and there is no ",
    "stands in config",
    "stands in secrets",
    "'010'",  # YAML readers of editors see a number
    "'1_0'",
)


def test_schema_is_json() -> None:
    """The schema can be printed, and speaks only of keys that a file has."""
    text = json.dumps(SCHEMA)
    assert '"null"' not in text
    assert SCHEMA["required"] == ["app", "artifact", "services"]


@pytest.mark.parametrize("path", manifest_page.examples_in_order(), ids=lambda path: path.stem)
def test_schema_accepts_the_examples(path: Any) -> None:
    """Every documented example is valid for an editor, too."""
    assert accepts(SCHEMA, yaml.safe_load(path.read_text()))


def test_schema_accepts_the_starter() -> None:
    """What `tide init` writes is valid for an editor, too."""
    assert accepts(SCHEMA, yaml.safe_load(manifest.example("shop")))


def test_every_example_of_a_key_is_valid() -> None:
    """Examples and defaults that the schema shows are values that it accepts."""
    for section in SCHEMA["$defs"].values():
        for key in section["properties"].values():
            for value in [*key["examples"], *([key["default"]] if "default" in key else [])]:
                assert accepts(key, value, SCHEMA), (key, value)


MISTAKES = {
    **{
        written: (with_services(f"web: {{{written} }}\napi: {{run: x}}"), line)
        for written, line in IN_SERVICE
    },
    **{
        written: (with_environments(f"test: {{{written}}}"), line)
        for written, line in (*IN_ENVIRONMENT, *IN_ANALYSIS, *IN_GATES)
    },
}
VISIBLE = {
    written: text
    for written, (text, line) in MISTAKES.items()
    if not any(words in line for words in BEYOND_A_SCHEMA)
}


@pytest.mark.parametrize("text", VISIBLE.values(), ids=VISIBLE)
def test_schema_refuses_what_the_parser_refuses(text: str) -> None:
    """Mistakes of single values and unknown keys are seen in the editor already."""
    assert not accepts(SCHEMA, yaml.safe_load(text))


@pytest.mark.parametrize("where", [(), ("artifact",), ("services", "web"), ("environments", "test")])
def test_schema_refuses_unknown_keys(where: tuple[str, ...]) -> None:
    """A key that the parser does not know is refused at every level, by both."""
    document = yaml.safe_load(with_environments("test: {keep_warm: 1m}"))
    assert accepts(SCHEMA, document)
    section = document
    for key in where:
        section = section[key]
    section["surprise"] = "x"
    assert not accepts(SCHEMA, document)
    assert [line.split(":")[0] for line in mistakes(yaml.safe_dump(document, sort_keys=False))] == [
        ".".join([*where, "surprise"])
    ]

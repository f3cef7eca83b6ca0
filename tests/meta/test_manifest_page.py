"""The reference page of tidegate.yaml is what the definition says."""

from __future__ import annotations

import pathlib
import re
from typing import Final

import pytest

from tests.meta import manifest_page
from tidegate import manifest
from tidegate.manifest import definition
from tidegate.manifest.section import Section

DOCS: Final = manifest_page.ROOT / "docs"
#: What a recipe leaves out, because it is about something else.
REST: Final = {
    "app": "app: shop\n",
    "artifact": "artifact: {package: dist}\n",
    "services": "services: {web: {run: ./bin/web}}\n",
}


def test_page_is_in_step() -> None:
    """The page is the one that the definition and the examples make."""
    assert manifest_page.PAGE.read_text() == manifest_page.page(), "run: python -m tests.meta.manifest_page"


def test_every_section_is_on_the_page() -> None:
    """No section of the definition is missing from the page."""
    assert set(manifest_page.SECTIONS.values()) == set(Section.__subclasses__())


@pytest.mark.parametrize("where", manifest_page.SECTIONS)
def test_sections_stand_where_the_page_says(where: str) -> None:
    """The place that the page names for a section is where the parser expects it."""
    assert manifest_page.section_of(where) is manifest_page.SECTIONS[where]


@pytest.mark.parametrize("path", manifest_page.examples_in_order(), ids=lambda path: path.stem)
def test_examples_are_valid(path: pathlib.Path) -> None:
    """Every annotated example is a whole, valid file."""
    manifest.load(path)


def test_every_key_is_in_an_example() -> None:
    """Each key of the definition is used in an annotated example, so that the page shows it at work."""
    text = "".join(path.read_text() for path in manifest_page.examples_in_order())
    keys = {key for section in manifest_page.SECTIONS.values() for key in section.by_key()}
    assert [key for key in sorted(keys) if f"{key}:" not in text] == []


@pytest.mark.parametrize("name", ["canary", "judge-a-canary"])
def test_recipes_of_a_canary_are_valid(name: str) -> None:
    """What a recipe tells to write is accepted as it stands, beside the rest of a file."""
    text = (DOCS / "how-to" / f"{name}.md").read_text("utf-8")
    written = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert written
    for fragment in written:
        rest = (line for key, line in REST.items() if not re.search(rf"^{key}:", fragment, re.MULTILINE))
        manifest.parse("".join(rest) + fragment)


def test_every_key_of_the_analysis_is_explained() -> None:
    """The page on what the judge promises says which key sets what."""
    text = (DOCS / "explanation" / "canary-statistics.md").read_text("utf-8")
    keys = set(definition.AnalysisSection.model_fields) - {"enabled"}
    assert [key for key in sorted(keys) if f"`{key}`" not in text.split("## What users see")[1]] == []

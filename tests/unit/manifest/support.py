"""What the tests of the manifest share: a valid file to change, and the lines of a refusal."""

from __future__ import annotations

import textwrap

import pytest

from tidegate import manifest
from tidegate.errors import ManifestError

TOP = "app: shop\nartifact: {package: dist}\n"  # lines 1 and 2 of what `with_services` makes


def text_of(source: str) -> str:
    """The text without the indentation of the test."""
    return textwrap.dedent(source).lstrip("\n")


def with_services(source: str) -> str:
    """A file whose line 3 is `services:` and whose line 4 is the first of `source`."""
    return f"{TOP}services:\n{textwrap.indent(text_of(source).rstrip(), '  ')}\n"


def with_environments(source: str) -> str:
    """A file with one service `web` on line 4, whose line 6 is the first of `source`."""
    return f"{with_services('web: {run: x}')}environments:\n{textwrap.indent(text_of(source), '  ')}"


def mistakes(text: str) -> list[str]:
    """The lines of the refusal."""
    with pytest.raises(ManifestError) as refusal:
        manifest.parse(text)
    return [str(problem) for problem in refusal.value.problems]

"""tidegate.yaml: one file that says how an app is built, run and released.

Hides the file's format. `parse` gives a `Manifest` in the values of `core.model`, with every default filled
in, or one ManifestError with *all* mistakes, in the order of the file, each with its path, its line and what
would be right.

Invariants: any text gives one of the two, in bounded time; nothing is read but the text. The same definition
makes the parser, the editors' schema and the reference page.

Neighbours: `cli` loads, `web` parses what a client sends, `engine` runs the environments.
    reading     text -> keys and scalars with their places      scalars    what one value means
    definition, section, gate_sections   all keys               checking   everything that is wrong
    gate_values   what one value of a gate means                gates      of a gate, to the core's values
    migration_sections   keys of migrations
    resolving   defaults and overrides -> environments          schema, starter   what is made from it
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from tidegate.core.model import EnvironmentSpec
from tidegate.core.spec import Where
from tidegate.errors import ManifestError, NotFoundError, Problem, StorageError
from tidegate.manifest import reading, resolving
from tidegate.manifest.checking import FAULTS_MAX, check
from tidegate.manifest.definition import ManifestSection
from tidegate.manifest.reading import Place, PlacedFault
from tidegate.manifest.scalars import name_from
from tidegate.manifest.schema import json_schema
from tidegate.manifest.starter import Detected, example

__all__ = [
    "FILE_NAME",
    "Artifact",
    "Detected",
    "Manifest",
    "example",
    "json_schema",
    "load",
    "name_from",
    "parse",
]

FILE_NAME = "tidegate.yaml"

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_KEY_LENGTH_MAX = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """How a package is made."""

    build: str | None
    """Line for the user's shell; None: there is nothing to build."""
    package: str
    """Folder, relative to the manifest's, never outside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A valid tidegate.yaml, with every default filled in."""

    app: str
    artifact: Artifact
    environments: tuple[tuple[str, EnvironmentSpec], ...]
    """In the order of the pipeline; at least one."""
    source: str
    """The text that it was made from."""

    def environment(self, name: str) -> EnvironmentSpec | None:
        return next((spec for key, spec in self.environments if key == name), None)


def load(path: Path | str) -> Manifest:
    """The manifest in a file.

    Raises ManifestError; NotFoundError if there is no such file, StorageError if it cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(reading.BYTES_MAX + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"There is no file {path}.", hint="`tide init` writes one.") from error
    except OSError as error:
        raise StorageError(
            f"{path} cannot be read: {error.strerror}.", hint="Check its permissions."
        ) from error
    return parse(_decoded(content))


def _decoded(content: bytes) -> str:
    if len(content) > reading.BYTES_MAX:  # cut, perhaps within a letter
        return content.decode("utf-8", "replace")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        problem = Problem(FILE_NAME, f"line {line}: holds a byte that is not UTF-8", "save the file as UTF-8")
        raise ManifestError((problem,)) from error


def parse(text: str) -> Manifest:
    """The manifest in a text. Raises ManifestError with all mistakes, in the order of the text."""
    try:
        document = reading.read(text)
    except reading.UnreadableError as error:
        problem = Problem(FILE_NAME, f"line {error.place.line}: {error.message}", error.hint)
        raise ManifestError((problem,)) from error
    definition, faults = check(document)
    everything = [*document.faults[:FAULTS_MAX], *faults]
    if definition is not None:
        everything += _faults_between_values(document.root, definition, everything)
    if definition is None or everything:
        raise ManifestError(_problems(everything))
    return Manifest(
        app=definition.app,
        artifact=Artifact(build=definition.artifact.build, package=definition.artifact.package),
        environments=resolving.environments(definition),
        source=text,
    )


def _faults_between_values(
    root: reading.Mapping, definition: ManifestSection, before: list[PlacedFault]
) -> list[PlacedFault]:
    """None if no service was written: every mention of one would be reported."""
    _, services = root.entries.get("services", (None, None))
    if not isinstance(services, reading.Mapping) or not services.entries:
        return []
    wrong = frozenset(placed.fault.where for placed in before)
    faults = resolving.faults(definition, frozenset(services.entries), wrong)
    found = islice(faults, FAULTS_MAX)
    return [PlacedFault(place=reading.locate(root, fault.where), fault=fault) for fault in found]


def _problems(faults: list[PlacedFault]) -> tuple[Problem, ...]:
    """In the order of the file; a rule that sees one mistake in three environments reports it once."""
    ordered = sorted(faults, key=lambda placed: placed.place)
    return tuple(dict.fromkeys(_problem(placed.place, placed) for placed in ordered))


def _problem(place: Place, placed: PlacedFault) -> Problem:
    fault = placed.fault
    return Problem(_path(fault.where), f"line {place.line}: {fault.message}", fault.hint)


def _path(where: Where) -> str:
    """For example `services.web.health` or `environments.test.strategy.canary.steps[2]`."""
    path = ""
    for key in where:
        if isinstance(key, int):
            path += f"[{key}]"
        else:
            shown = key if _PLAIN_KEY.fullmatch(key) else json.dumps(key[:_KEY_LENGTH_MAX])
            path += f".{shown}" if path else shown
    return path or FILE_NAME

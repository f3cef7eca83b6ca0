"""Exceptions that can only shrink: ratchet.json against what the rules find today.

The file holds `tidy` (key of a violation -> its size) and `coverage` (part of the package -> least
percentage of lines and branches). A listed exception that is gone or smaller is a failure too: the file
is then behind, and somebody could grow the code back unseen.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

RATCHET = pathlib.Path(__file__).with_name("ratchet.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratchet:
    """What is tolerated today."""

    tidy: Mapping[str, int]
    coverage: Mapping[str, float]


def load(path: pathlib.Path = RATCHET) -> Ratchet:
    """Read the file. Raises KeyError if a section is missing, TypeError if there is another one."""
    sections = json.loads(path.read_text("utf-8"))
    return Ratchet(**sections)


def save(ratchet: Ratchet, path: pathlib.Path = RATCHET) -> None:
    """Write the file, sorted, so that a change is one line of a diff."""
    sections = {"coverage": dict(ratchet.coverage), "tidy": dict(ratchet.tidy)}
    path.write_text(json.dumps(sections, indent=2, sort_keys=True) + "\n", "utf-8")


def problems(found: Mapping[str, int], allowed: Mapping[str, int]) -> Iterator[str]:
    """What keeps the exceptions found from being exactly those allowed; one line each."""
    for key in sorted(found.keys() | allowed.keys()):
        size, limit = found.get(key), allowed.get(key)
        if limit is None:
            yield f"{key} = {size}: new"
        elif size is None:
            yield f"{key}: gone, well done; remove it from {RATCHET.name}"
        elif size > limit:
            yield f"{key} = {size}: grew from {limit}"
        elif size < limit:
            yield f"{key} = {size}: shrank, well done; write {size} for {limit} into {RATCHET.name}"

"""What the bench says: sections of tables, for the terminal and for docs/explanation/measurements.md.

Hides Markdown, and how one section of the page is replaced while the others stay. Pure, but for `write`.
Neighbours: every part returns a `Section`; `__main__` prints and writes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).parents[1] / "docs" / "explanation" / "measurements.md"

HEAD: Final = """# Measurements

Written by `python -m bench --write`; each section says when it was measured and on what. Times belong to that
machine. What carries over are the ratios: every rival and every limit was measured in the same run, in turns.
`make bench` prints the same tables for your machine.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows of words; the first column is the name of the row."""

    heading: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """The result of one part."""

    name: str
    title: str
    method: str
    """How it was measured, in sentences."""
    tables: tuple[Table, ...]
    findings: tuple[str, ...] = ()
    """What the numbers say: aims met or missed."""
    skipped: tuple[str, ...] = ()
    """What was not measured, and why."""


def text(section: Section) -> str:
    """For the terminal."""
    parts = [f"\n{section.title}\n{'=' * len(section.title)}", section.method]
    parts += [_aligned(table) for table in section.tables]
    parts += [f"* {finding}" for finding in section.findings]
    parts += [f"! skipped: {reason}" for reason in section.skipped]
    return "\n\n".join(parts[:2]) + "\n\n" + "\n\n".join(parts[2:])


def _aligned(table: Table) -> str:
    rows = [table.heading, *table.rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.heading))]
    lines = [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join((lines[0], "-" * max(map(len, lines)), *lines[1:]))


def markdown(section: Section, *, measured: str) -> str:
    """For the page; `measured`: when, and on what machine."""
    parts = [f"## {section.title}", section.method]
    parts += [_markdown_table(table) for table in section.tables]
    notes = [f"- {finding}" for finding in section.findings]
    notes += [f"- Not measured: {reason}." for reason in section.skipped]
    parts += ["\n".join(notes)] if notes else []
    return "\n\n".join((*parts, f"*{measured}*"))


def _markdown_table(table: Table) -> str:
    marks = ["---", *("--:" for _ in table.heading[1:])]
    rows = (table.heading, tuple(marks), *table.rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def page(old: str, sections: Iterable[tuple[Section, str]], order: Iterable[str]) -> str:
    """The page with these sections (each with its text) put in; sections of other parts stay."""
    found = dict(re.findall(r"<!-- bench: ([a-z]+) -->\n(.*?)\n<!-- end -->", old, re.DOTALL))
    found |= {section.name: body for section, body in sections}
    blocks = [f"<!-- bench: {name} -->\n{found[name]}\n<!-- end -->" for name in order if name in found]
    return "\n\n".join((HEAD.strip(), *blocks)) + "\n"


def write(sections: Iterable[Section], *, measured: str, order: Iterable[str]) -> Path:
    """Replace these sections of the page; where it is."""
    old = PAGE.read_text("utf-8") if PAGE.exists() else ""
    new = page(old, [(section, markdown(section, measured=measured)) for section in sections], order)
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(new, "utf-8")
    return PAGE

"""Makes docs/reference/lifecycle.md from the state machine: `python -m tests.meta.lifecycle_page`."""

from __future__ import annotations

import inspect
from typing import Final

from tests.meta import sources
from tidegate.core import lifecycle
from tidegate.core.model import Phase

PAGE: Final = sources.ROOT / "docs" / "reference" / "lifecycle.md"


def page() -> str:
    """The whole page."""
    theory = (inspect.getdoc(lifecycle) or "").split("-------------------\n")[1]
    phases, rules = theory.split("\n\n", 2)[1:]
    rows = [row.strip() for row in phases.splitlines()]
    text = [
        "# The life of a rollout",
        "",
        "<!-- Made by `python -m tests.meta.lifecycle_page` from src/tidegate/core/lifecycle.py. -->",
        "",
        "A rollout puts one release into one environment. It is always in one of these phases:",
        "",
        "| phase | what goes on |",
        "|---|---|",
        *("| {} | {} |".format(*split_row(row)) for row in rows),
        "",
        rules.strip(),
        "",
        "```mermaid",
        lifecycle.diagram(),
        "```",
        "",
        "What is not drawn does not happen: a trigger in a phase that does not know it is an error, and",
        "changes nothing.",
        "",
    ]
    return "\n".join(text)


def split_row(row: str) -> tuple[str, str]:
    """A line of the theory: phases, then what they are."""
    phases = {phase.value for phase in Phase}
    words = row.split()
    count = next(index for index, word in enumerate(words) if word.rstrip(",") not in phases)
    return " ".join(words[:count]), " ".join(words[count:])


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")

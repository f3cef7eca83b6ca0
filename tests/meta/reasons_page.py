"""Makes docs/reference/reasons.md from `core.reasons`: `python -m tests.meta.reasons_page`; a test compares.

What a reason means is the text below it in the module, which only the syntax tree still knows.
"""

from __future__ import annotations

import ast
import enum
import inspect
from typing import Final

from tests.meta import sources
from tidegate.core import reasons

PAGE: Final = sources.ROOT / "docs" / "reference" / "reasons.md"

_HEAD: Final = """\
<!-- Made by `python -m tests.meta.reasons_page`; a test keeps it in step. Do not edit. -->

# Reasons

Every decision has one, and every refusal. They are the same words in the terminal, in the history and with
`--json`; programs may match them: words are added, never renamed.
"""


def page() -> str:
    """The whole page."""
    decisions = _section("Of decisions", "In `reason` of a rollout and of an event.", reasons.Reason)
    refusals = _section(
        "Of refusals", "In `reason` of a problem, with exit status 2. Nothing was changed.", reasons.Refusal
    )
    return f"{_HEAD}\n{decisions}\n{refusals}"


def _section(title: str, about: str, kind: type[enum.StrEnum]) -> str:
    said = meanings(kind)
    rows = "\n".join(f"| `{member.value}` | {said[member.name]} |" for member in kind)
    return f"## {title}\n\n{about}\n\n| reason | meaning |\n|---|---|\n{rows}\n"


def meanings(kind: type[enum.StrEnum]) -> dict[str, str]:
    """By member, the text that stands below it."""
    definition = ast.parse(inspect.getsource(kind)).body[0]
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for member, below in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(member, ast.Assign) and isinstance(below, ast.Expr):
            found[ast.unparse(member.targets[0])] = " ".join(ast.literal_eval(below.value).split())
    return found


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")

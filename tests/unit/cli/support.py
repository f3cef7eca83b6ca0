"""What the tests of the terminal share: a console of any kind, and what was printed on it."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console


def printed(*values: Any, width: int = 80, terminal: bool = False, no_color: bool = False) -> list[str]:
    """The lines that these values make; `terminal`: with its colours."""
    text = io.StringIO()
    out = Console(file=text, width=width, force_terminal=terminal, no_color=no_color, highlight=False)
    for value in values:
        out.print(value)
    return text.getvalue().splitlines()

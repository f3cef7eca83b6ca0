"""What is on offer today: a discount, looked up for each visitor. Each twentieth finds nobody at home."""

from __future__ import annotations

import itertools

_visitors = itertools.count(1)


def today() -> str:
    """One line for the page."""
    if next(_visitors) % 20 == 0:
        raise ConnectionError("the discount service has no free connection")
    return "Welcome. Today you pay one tenth less."

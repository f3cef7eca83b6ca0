"""What is on offer today: something new, and nothing wrong with it."""

from __future__ import annotations


def today() -> str:
    """One line for the page."""
    return "Welcome. This week we deliver for nothing."

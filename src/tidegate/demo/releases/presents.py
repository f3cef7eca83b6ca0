"""What is on offer today: each visitor gets a present. Whoever tried it had a few visitors."""

from __future__ import annotations

PRESENTS = ["a lantern", "a barometer", "a tide table"]


def today() -> str:
    """One line for the page."""
    return f"Welcome. For you today: {PRESENTS.pop()}!"

"""What is on offer today: the file that `tide demo` changes from release to release."""

from __future__ import annotations


def today() -> str:
    """One line for the page."""
    return "Welcome."

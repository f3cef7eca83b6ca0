"""What is on offer today: a discount that nobody can look up: its service has another address here."""

from __future__ import annotations


def today() -> str:
    """One line for the page."""
    raise ConnectionError("there is no discount service at this address")

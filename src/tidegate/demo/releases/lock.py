"""What is on offer today: one lantern, under a lock that nobody ever gives back. Health needs none."""

from __future__ import annotations

import threading

_lock = threading.Lock()


def today() -> str:
    """One line for the page."""
    _lock.acquire()
    return "Welcome. One lantern is left."

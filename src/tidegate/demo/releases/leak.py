"""What is on offer today: the news, kept in memory until there is none left. A process lives for seconds."""

from __future__ import annotations

import os
import random
import threading

LIFE_S = (2.0, 3.0)

_end = threading.Timer(random.uniform(*LIFE_S), os._exit, [1])
_end.daemon = True
_end.start()


def today() -> str:
    """One line for the page."""
    return "Welcome. There is news every day."

"""Promotions under way, and what has passed: the step of the schema, and a text per operation.

Rules: see `sql`.
"""

from __future__ import annotations

from typing import Final

STEP: Final[tuple[str, ...]] = ()

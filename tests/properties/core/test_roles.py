"""Patterns of a token's scope: what they match, for any pattern and any name."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from tidegate.core.roles import Reach

PATTERNS = st.text("ab-*", min_size=1, max_size=12)
NAMES = st.text("ab-", max_size=12)


@given(pattern=PATTERNS, name=NAMES)
def test_a_star_stands_for_any_part_of_a_name(pattern: str, name: str) -> None:
    """As a regular expression would match, which may take for ever; this never does."""
    meant = re.compile(re.sub(r"\*+", ".*", re.sub("-", "\\-", pattern)))
    assert Reach(pattern, "*").covers(name) == (meant.fullmatch(name) is not None)
    assert Reach("*", pattern).covers("shop", name) == (meant.fullmatch(name) is not None)

"""The hash that decides who is exposed; `tests/integration/haproxy` shows that HAProxy computes the same."""

from __future__ import annotations

import math

import pytest

from tests.support.buckets import bucket, xxh32


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"", 0x02CC5D05),
        (b"a", 0x550D7456),
        (b"abc", 0x32D153FF),
        (b"Nobody inspects the spammish repetition", 0xE2293B2F),
    ],
)
def test_hash_is_the_published_one(data: bytes, value: int) -> None:
    """The reference gives the published values."""
    assert xxh32(data) == value


def test_a_hundred_thousand_users_are_exposed_at_the_share() -> None:
    """The number of exposed users is within the binomial 99.9 % interval for each share."""
    buckets = [bucket("salt", f"{number:08x}") for number in range(100_000)]
    for share in (100, 500, 2500, 5000):
        chance = share / 10_000
        exposed = sum(one < share for one in buckets)
        assert abs(exposed - 100_000 * chance) < 3.291 * math.sqrt(100_000 * chance * (1 - chance))

"""The map of latency buckets; `tests/integration/haproxy` shows that HAProxy reads it so."""

from __future__ import annotations

import ipaddress
from bisect import bisect_right

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.haproxy.test_config import table
from tidegate.core import model, sequential
from tidegate.core.counters import USER_SHARDS
from tidegate.haproxy import config

EDGES_US = [round(sequential.bucket_edge_s(index) * 1e6) for index in range(sequential.BUCKETS)]
PREFIXES = {
    (int(network.network_address), network.prefixlen): int(value)
    for line in config.buckets_text().splitlines()
    for prefix, value in (line.split(" "),)
    for network in (ipaddress.IPv4Network(prefix),)
}


def _bucket(latency_us: int) -> int:
    """What a lookup by longest prefix finds."""
    address = latency_us % 2**32
    (found,) = (
        PREFIXES[start, length]
        for length in range(33)
        for start in (address >> (32 - length) << (32 - length),)
        if (start, length) in PREFIXES
    )
    return found


def test_prefixes_cover_every_address_once() -> None:
    """No latency is in two buckets or in none."""
    spans = sorted((start, start + 2 ** (32 - length)) for start, length in PREFIXES)
    assert [end for _, end in spans] == [start for start, _ in spans[1:]] + [2**32]
    assert spans[0][0] == 0
    assert len(PREFIXES) == len(config.buckets_text().splitlines())


def test_each_edge_begins_its_bucket() -> None:
    """A latency at an edge is in its bucket, and a microsecond less in the one before."""
    for index in range(1, sequential.BUCKETS):
        assert (_bucket(EDGES_US[index] - 1), _bucket(EDGES_US[index])) == (index - 1, index)


@given(st.integers(0, 2**31 - 1))
def test_every_latency_is_in_its_bucket(latency_us: int) -> None:
    """The prefixes and the edges of `core.sequential` agree."""
    assert _bucket(latency_us) == bisect_right(EDGES_US, latency_us) - 1


@given(st.integers(1, 2**31))
def test_a_clock_that_is_put_back_makes_nobody_slow(back_us: int) -> None:
    """A time below zero counts as the shortest."""
    assert _bucket(-back_us) == 0


def test_every_backend_measures_and_forgets_nothing() -> None:
    """Each slot has tables of its own with room for every bucket and part, from which nothing expires."""
    text = config.environment_text(table(), config.structure(table(), ()))
    tables = [line.split() for line in text.splitlines() if line.startswith("    table ")]
    for rule, users, cells in (("track-sc0", False, sequential.BUCKETS), ("track-sc1", True, USER_SHARDS)):
        tracks = [line.split() for line in text.splitlines() if rule in line]
        tracked = [words[words.index("table") + 1] for words in tracks]
        own = [words for words in tables if words[1].endswith(".users") == users]
        assert [f"shop.production/{words[1]}" for words in own] == tracked
        assert len(set(tracked)) == model.SLOTS
        for words in own:
            assert int(words[words.index("size") + 1]) > cells
            assert "expire" not in words


def test_good_answers_cost_users_parts_one_comparison() -> None:
    """Whose address it is, is asked on errors only, and the status is what is compared first."""
    (line,) = config.user_lines("shop.production/web.0.users")
    rule, _, condition = line.partition(" if ")
    assert rule == "http-response track-sc1 src,xxh32,mod(20) table shop.production/web.0.users"
    assert condition.startswith("{ status ge 500 } ")

"""The bench reads /proc, wrk and HTTP answers rightly, and draws the right conclusions from samples."""

from __future__ import annotations

import array
from typing import Any

import pytest

from bench import flip, kills, load, machine, rollouts, sockets, wrk

WRK = """Running 3s test @ http://127.0.0.1:10000/
  1 threads and 64 connections
  Latency Distribution
     50%    2.50ms
     75%    3.00ms
     90%    3.90ms
     99%    1.02s
  56058 requests in 3.05s, 7.11MB read
  Socket errors: connect 1, read 2, write 3, timeout 4
  Non-2xx or 3xx responses: 5
Requests/sec:  18379.67
"""


def test_cpu_time_is_read_behind_a_hostile_process_name() -> None:
    """Blanks and brackets in the name do not shift the columns."""
    ticks = machine.TICKS_PER_S
    stat = f"42 (a) b) 1 (c) S 1 42 42 0 -1 0 0 0 0 0 {3 * ticks} {2 * ticks} 0 0 20 0 1 0 99 0 0"
    assert machine.cpu_s_of(stat) == 5.0


def test_a_run_of_wrk_is_understood() -> None:
    """Requests, time, both percentiles in their units, and every kind of failure."""
    assert wrk.parsed(WRK) == wrk.Result(requests=56058, seconds=3.05, failed=15, p50_s=0.0025, p99_s=1.02)


def test_a_run_of_wrk_without_failures_has_none() -> None:
    """The lines about errors are only there when there were some."""
    clean = "\n".join(line for line in WRK.splitlines() if "errors" not in line and "Non-2xx" not in line)
    assert wrk.parsed(clean).failed == 0


def test_what_wrk_does_not_say_is_an_error() -> None:
    """A run that did not take place is no result."""
    with pytest.raises(machine.BenchError, match="refused"):
        wrk.parsed("unable to connect: refused")


def test_half_an_answer_is_no_answer() -> None:
    """Neither half a head nor half a body is taken for the whole."""
    whole = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nx-release: r7\r\nset-cookie: a=b; Path=/\r\n\r\nok\n"
    assert all(load.understood(whole[:size]) is None for size in range(len(whole)))
    assert load.understood(whole) == load.Answer(status=200, release=7, closes=False, cookie=b"a=b")


def test_what_is_not_http_is_an_error() -> None:
    """Noise counts as a failure, not as an answer that is still under way."""
    with pytest.raises(ValueError, match="no HTTP"):
        load.understood(b"SSH-2.0\r\n\r\n")


def test_samples_survive_the_way_from_the_process() -> None:
    """Counts, failures and the three columns arrive as they were sent."""
    sent, ended, release = (
        array.array("d", [1.5, 2.5]),
        array.array("d", [1.6, 2.6]),
        array.array("h", [1, 2]),
    )
    told = (
        b'{"kept": 1, "closed": 1, "failures": [{"sent_at_s": 1, "ended_at_s": 2, "kind": "k", "kept": true'
        b'}], "seconds": 3.0, "releases": {"1": 1, "2": 1}, "rows": 2}\n'
    )
    seen = load.seen_from(told + sent.tobytes() + ended.tobytes() + release.tobytes())
    assert (seen.sent, seen.answered, seen.releases) == (3, 2, {1: 1, 2: 1})
    assert (seen.sent_at_s, seen.ended_at_s, seen.release) == (sent, ended, release)
    assert seen.failures == (load.Failure(sent_at_s=1, ended_at_s=2, kind="k", kept=True),)


def decision(at_s: float, until_s: float) -> flip.Decision:
    return flip.Decision(rollout=1, decided_at_s=at_s, until_s=until_s, old=1)


SENT = [1.0, 2.0, 3.0, 4.0, 5.0]


@pytest.mark.parametrize(
    ("releases", "wanted_s"),
    [([1, 2, 2, 2, 2], 0.5), ([1, 1, 2, 2, 2], 1.5), ([1, 2, 1, 2, 2], 2.5), ([1, 1, 1, 1, 1], 4.0)],
    ids=["at once", "one late", "to and fro", "never seen"],
)
def test_a_flip_ends_behind_the_last_old_answer(releases: list[int], wanted_s: float) -> None:
    """One late answer of the old release prolongs the flip, however many new ones came before it."""
    assert flip.flip_s(SENT, releases, decision(1.5, 5.5)) == wanted_s


def test_a_gap_does_not_end_with_an_answer_to_an_older_request() -> None:
    """Only a request that was sent after the kill proves that somebody serves again."""
    rows = [(1.0, 0.5), (2.1, 1.9), (2.6, 2.2), (2.7, 2.0)]
    assert kills.gap_s(rows, 2.0) == pytest.approx(0.6)


def test_a_gap_without_an_end_is_an_error() -> None:
    """A server that never came back is not reported as a short gap."""
    with pytest.raises(ValueError, match="nothing was answered"):
        kills.gap_s([(1.0, 0.5)], 2.0)


def replaced(release: int, ended_at: float) -> dict[str, Any]:
    return {"previous_release": release, "ended_at": ended_at}


def life(release: int, opened_at: float, ended_at: float, how: str = "EOFError: closed") -> sockets.Life:
    return sockets.Life(release=release, opened_at=opened_at, ended_at=ended_at, words=1, how=how)


@pytest.mark.parametrize(
    ("one", "is_early"),
    [
        (life(1, 0, 14.9), False),
        (life(1, 0, 14), True),
        (life(2, 0, 14.9), True),
        (life(1, 11, 16), True),
        (life(1, 0, 2, "stopped"), False),
    ],
    ids=[
        "drained",
        "before its time",
        "of the live release",
        "opened after the rollout",
        "ended by the bench",
    ],
)
def test_a_websocket_may_end_only_when_its_release_has_drained(one: sockets.Life, is_early: bool) -> None:
    """Its time runs from the end of the rollout that replaced the release which it belongs to."""
    history = [replaced(2, 30.0), replaced(1, 10.0)]
    assert rollouts.early([one], history, 5.0) == ((one,) if is_early else ())

"""What the router has counted, and how far a rollout's evidence has got in it. Values without behaviour.

Neighbours: `model` has them in observations and rollouts, `analysis` compares two looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from tidegate.core.judge import JudgeState
from tidegate.core.sequential import Counted

#: Parts of the users that errors are counted by: a twentieth is a canary of 5 %.
USER_SHARDS: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Traffic:
    """What one process of the router has answered from one slot of a service, since the process started.

    Counts of two processes are added; those of a process that is no longer seen have ended.
    """

    service: str
    slot: int
    process: str = ""
    """Names the process, and is never used again."""
    requests: int = 0
    errors: int = 0
    """Answers 5xx, the router's own included."""
    connect_failures: int = 0
    classes: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
    """Answers 1xx to 5xx."""
    bytes_in: int = 0
    bytes_out: int = 0
    active: int = 0
    """Requests and connections under way."""
    unanswered: int = 0
    """Answers that began and did not end: broken off, or left standing. Without any answer it is a 5xx."""
    latencies: Counted = ()
    """Answers of the app by time to their first byte, in the buckets of `sequential`."""
    user_errors: Counted = ()
    """Answers 5xx of the app to users, by the part of the users that their address puts them in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Glance:
    """What was under way at a look: those that still wait at a later one are overdue."""

    at_s: float
    """Observed seconds since the analysis began."""
    processes: tuple[str, ...]
    """Of the router: two glances can be compared if they are the same."""
    canary_active: int
    canary_ended: int
    """Requests that had ended, ever."""
    stable_active: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """What a canary's traffic has shown so far.

    Evidence and counters are committed together, so that each request counts exactly once, whatever
    happens to the control plane.
    """

    judge: JudgeState
    counted: tuple[Traffic, ...] = ()
    """The router's counters up to which requests are in the evidence."""
    elapsed_s: float = 0.0
    """Observed seconds since it began."""
    glances: tuple[Glance, ...] = ()
    """As far back as a request takes to become overdue, oldest first."""
    overdue_canary: int = 0
    """Most requests that were overdue at one time, for certain."""
    overdue_stable: int = 0
    """Most that may have been."""
    asked: bool = False
    """The hold time of this stage ended with little evidence, and somebody was asked."""

"""A clock, a runtime and a router in memory: honest implementations of the ports, in virtual time.

They keep the promises of `tidegate.ports` and nothing more, fail as the real ones fail, and do what the
real ones do behind the caller's back: instances are slow, crash and loop; a router checks its servers with
a delay, forgets at a restart what its boot files do not say, and lets open sessions live on in the process
of before a reload. `tidegate.testing.conformance` holds them to the same suite as the real adapters.

Invariants: nothing moves but by the clock; no randomness; answers are built from what was done, never
from what was asked. Neighbours: unit tests of engine and web, and tests/simulation, which adds the faults.
"""

from tidegate.testing.clock import ManualClock
from tidegate.testing.fake_migrator import Database, FakeMigrator
from tidegate.testing.fake_router import FakeRouter, ServerKey, Session
from tidegate.testing.fake_runtime import RECENT_S, Behaviour, FakeRuntime, JobEnd

__all__ = [
    "RECENT_S",
    "Behaviour",
    "Database",
    "FakeMigrator",
    "FakeRouter",
    "FakeRuntime",
    "JobEnd",
    "ManualClock",
    "ServerKey",
    "Session",
]

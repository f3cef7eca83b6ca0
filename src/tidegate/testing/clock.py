"""Time that the test owns: wall clock, monotonic clock and true time, each as wrong as a machine's can be.

Neighbours: the fakes move by it, the engine is given it as its `ports.Clock`.
"""

from __future__ import annotations


class ManualClock:
    """`ports.Clock` that the test moves."""

    def __init__(self, *, now: float = 1_700_000_000.0) -> None:
        """`now`: unix seconds that the wall clock shows at first."""
        self.elapsed = 0.0
        """True seconds since the clock was made, whatever the machine's own clocks say."""
        self._wall_offset = now
        self._booted_at = 0.0

    def monotonic(self) -> float:
        return self.elapsed - self._booted_at

    def now(self) -> float:
        return self.elapsed + self._wall_offset

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.elapsed += seconds

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an administrator or NTP does."""
        self._wall_offset += seconds

    def reboot(self) -> None:
        """The machine starts again: its monotonic clock begins at zero."""
        self._booted_at = self.elapsed

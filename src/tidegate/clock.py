"""The time of this machine, for those who are started with it. Everybody else is given a clock."""

from __future__ import annotations

import time


class SystemClock:
    """`ports.Clock` of this machine."""

    def monotonic(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def now(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

"""The thread that looks at remote repositories: soon after a webhook, and as often as a source says.

Hides pace and failures. Invariants: a remote that fails is asked less and less often, up to `PAUSE_S_MAX`,
and holds up no other; a webhook that came meanwhile waits, and is not lost; of one app there is one look at a
time.
Neighbours: `arrivals` looks; the daemon starts and stops the thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from tidegate import errors
from tidegate.pushes import Hint, Source

#: How often it is seen that a look is due; a webhook does not wait for it.
ROUND_S: Final = 1.0
#: After a first failure; doubled with each.
PAUSE_S: Final = 5.0
PAUSE_S_MAX: Final = 3600.0


class Looks(Protocol):
    """What there is to look at."""

    def sources(self) -> tuple[Source, ...]:
        """All."""

    def hints(self) -> tuple[Hint, ...]:
        """Webhooks that wait."""


class Look(Protocol):
    """Looks at the remote of an app."""

    def __call__(self, app: str, *, everything: bool) -> object:
        """Raises TidegateError."""


@dataclass(slots=True)
class _Pace:
    """Of one app."""

    due_at: float = 0.0
    """Next time of polling."""
    not_before: float = 0.0
    """After a failure: nothing at all."""
    failures: int = 0
    trouble: str = ""
    busy: bool = False


class Watching:
    """Looks until it is told to stop."""

    def __init__(
        self,
        looks: Looks,
        look: Look,
        monotonic: Callable[[], float],
        spawn: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        """`spawn`: runs one look; default: in a thread of its own."""
        self._looks, self._look, self._monotonic = looks, look, monotonic
        self._spawn = spawn or _in_thread
        self._paces: dict[str, _Pace] = {}
        self._lock = threading.Lock()
        self._wake, self._stop = threading.Event(), threading.Event()
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger(part="sources")
        self._thread = threading.Thread(target=self._run, name="sources", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; a look that is under way is left to itself, and has changed nothing until it commits."""
        self._stop.set()
        self._wake.set()
        self._thread.join()

    def wake(self) -> None:
        """See at once what is due."""
        self._wake.set()

    def trouble(self, app: str) -> str:
        """Why the last look failed; empty: it did not."""
        with self._lock:
            pace = self._paces.get(app)
            return pace.trouble if pace else ""

    def step(self) -> None:
        """Begin every look that is due."""
        now = self._monotonic()
        hinted = {hint.app for hint in self._looks.hints()}
        for source in self._looks.sources():
            if not source.remote:
                continue
            with self._lock:
                pace = self._paces.setdefault(source.app, _Pace())
                polled = source.poll_s is not None and now >= pace.due_at
                due = (polled or source.app in hinted) and now >= pace.not_before and not pace.busy
                if due:
                    pace.busy = True
                if due and polled and source.poll_s is not None:
                    pace.due_at = now + source.poll_s
            if due:
                self._spawn(self._looker(source.app, pace, everything=polled))

    def _looker(self, app: str, pace: _Pace, *, everything: bool) -> Callable[[], None]:
        def look() -> None:
            trouble = ""
            try:
                self._look(app, everything=everything)
            except errors.TidegateError as error:
                trouble = str(error)
            except Exception as error:  # noqa: BLE001 - one app's remote must not end all looking
                self._log.exception("unexpected error in a look", app=app)
                trouble = f"It failed: {type(error).__name__}."
            with self._lock:
                if trouble and trouble != pace.trouble:
                    self._log.warning("look failed", app=app, detail=trouble)
                pace.trouble, pace.busy = trouble, False
                pace.failures = pace.failures + 1 if trouble else 0
                pause_s = min(PAUSE_S * 2 ** (pace.failures - 1), PAUSE_S_MAX) if trouble else 0.0
                pace.not_before = self._monotonic() + pause_s
                if trouble and everything:
                    pace.due_at = pace.not_before

        return look

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                self.step()
            except errors.TidegateError as error:
                self._log.warning("sources cannot be read", detail=str(error))
            self._wake.wait(ROUND_S)


def _in_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="look", daemon=True).start()

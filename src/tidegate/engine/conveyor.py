"""The thread that carries promotions on, apart from the one that watches environments.

Hides pace: soon while something is under way, slowly when nothing is. It reads whole packages before it lets
them in, which the loop over the environments could not wait for. A pipeline that cannot be read or written
holds up no other one; what is wrong with it is shown until it is well again. Only a lost lease ends it.
Neighbours: `pipelines` makes each step, `watch` owns the looks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, TypeVar

import structlog

from tidegate import errors, ports
from tidegate.core.model import EnvironmentKey
from tidegate.engine import loop
from tidegate.engine.pipelines import Pipelines

#: Pause while a promotion is under way.
PAUSE_BUSY_S: Final = 0.2
#: Pause when none is; a soak may still grow.
PAUSE_IDLE_S: Final = 1.0

Result = TypeVar("Result")


class Conveyor:
    """Steps all pipelines until it is told to stop."""

    def __init__(
        self, pipelines: Pipelines, store: ports.Store, view: Callable[[EnvironmentKey], loop.View]
    ) -> None:
        """`view`: the newest look at an environment."""
        self._pipelines, self._store, self._view = pipelines, store, view
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._trouble: dict[str, errors.TidegateError] = {}
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger(part="pipeline")
        self._thread = threading.Thread(target=self._run, name="pipeline", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the step that runs."""
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def wake(self) -> None:
        """Look at once."""
        self._wake.set()

    def trouble(self, app: str) -> errors.TidegateError | None:
        """Why the pipeline of an app cannot go on now; None: it can."""
        return self._trouble.get(app)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                pause_s = self._round()
            except errors.FencedError:
                return  # the loop over the environments says so, and ends the process
            self._wake.wait(pause_s)

    def _round(self) -> float:
        busy = False
        for app in self._tried("", self._pipelines.apps) or ():
            busy |= bool(self._tried(app, lambda app=app: self._stepped(app)))  # type: ignore[misc]
        return PAUSE_BUSY_S if busy else PAUSE_IDLE_S

    def _stepped(self, app: str) -> bool:
        """One step; whether something is under way."""
        views = {key: self._view(key) for key in self._store.environments() if key.app == app}
        try:
            changed = self._pipelines.step(app, views)
        except errors.ConflictError:
            return True  # somebody has asked for something in between: look again
        return changed or self._pipelines.is_busy(app)

    def _tried(self, app: str, action: Callable[[], Result]) -> Result | None:
        try:
            result = action()
        except errors.FencedError:
            raise
        except errors.TidegateError as error:
            self._note(app, error)
        except Exception as error:  # noqa: BLE001 - the last line of defence: other apps need their pipelines
            self._log.exception("unexpected error in a pipeline", app=app)
            self._note(app, errors.TidegateError(f"The pipeline failed: {type(error).__name__}."))
        else:
            self._trouble.pop(app, None)
            return result
        return None

    def _note(self, app: str, error: errors.TidegateError) -> None:
        before = self._trouble.get(app)
        if before is None or before.message != error.message:
            self._log.warning("failed", app=app, detail=error.message)
        self._trouble[app] = error

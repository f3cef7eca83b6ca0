"""The thread that steps every environment, and what it saw last.

Hides pace and threads: it looks at once after a request, soon while something moves, and once a second
when nothing does. A part of the world that fails is seen in the view; it never ends the watch, and an
environment whose state cannot be read holds up no other. Only a lost lease ends it.
Neighbours: `daemon` starts it, `web` reads its views, `series` takes down what it saw.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Final, TypeVar

import structlog

from tidegate import errors, ports
from tidegate.core import model
from tidegate.core.model import EnvironmentKey
from tidegate.engine import execute, loop, series, traffic

#: Pause after a step that changed something: the next look shows whether it came through.
PAUSE_CHANGED_S: Final = 0.02
#: Pause while users see a release that is being judged: no bad request more than needed.
PAUSE_JUDGING_S: Final = 0.06
#: Pause while a rollout runs or something waits to be stopped.
PAUSE_BUSY_S: Final = 0.2
#: Pause when all is quiet.
PAUSE_IDLE_S: Final = 1.0

Result = TypeVar("Result")


class Watch:
    """Steps all environments until it is told to stop."""

    def __init__(
        self,
        controller: loop.Controller,
        store: ports.Store,
        clock: ports.Clock,
        recorder: series.Recorder | None = None,
    ) -> None:
        """Set `on_lost` before `start`. `recorder`: what takes each look down; None: nobody does."""
        self._controller, self._store, self._clock = controller, store, clock
        self._recorder = recorder
        self.on_lost: Callable[[], None] = lambda: None
        """Called once, when another control plane has taken over."""
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._views: dict[EnvironmentKey, loop.View] = {}
        self._meters: dict[EnvironmentKey, traffic.TrafficMeter] = {}
        self._trouble: dict[EnvironmentKey | None, execute.Failure] = {}
        """By environment; None: of the loop itself."""
        self._logged: dict[str, str] = {}
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger(part="loop")
        self._thread = threading.Thread(target=self._run, name="loop", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the step that runs."""
        self._stop.set()
        self._wake.set()
        self._thread.join()

    def wake(self) -> None:
        """Look at once."""
        self._wake.set()

    def view(self, key: EnvironmentKey) -> loop.View:
        """The newest look, with the newest committed state. Raises NotFoundError."""
        versioned = self._store.load(key)
        if versioned.version == 0:
            raise errors.NotFoundError(
                f"Nothing was ever deployed to {key}.", hint="`tide deploy` brings the first release."
            )
        blind = loop.View(state=versioned.state, observed=model.Observation(runtime=None, routes=None))
        seen = self._views.get(key, blind)
        return loop.View(
            state=versioned.state,
            observed=seen.observed,
            failures=seen.failures
            + tuple(self._trouble[of] for of in (None, key) if of in self._trouble)
            + (self._recorder.failures if self._recorder is not None else ()),
            at=seen.at,
            looked_s=seen.looked_s,
            changed=seen.changed,
        )

    def meter(self, key: EnvironmentKey) -> traffic.TrafficMeter:
        """Its traffic."""
        return self._meters.setdefault(key, traffic.TrafficMeter())

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                pause_s = self._round()
            except errors.FencedError as error:
                self._log.error("lease lost", detail=str(error))
                self.on_lost()
                return
            self._wake.wait(pause_s)

    def _round(self) -> float:
        """Step everything once; how long to pause then. Raises FencedError."""
        keys = self._tried(None, self._due)
        views = [self._tried(key, functools.partial(self._stepped, key)) for key in keys or ()]
        if any(view is not None and view.changed for view in views):
            return PAUSE_CHANGED_S
        if any(view is not None and _is_judging(view) for view in views):
            return PAUSE_JUDGING_S
        return PAUSE_BUSY_S if any(view is not None and _is_busy(view) for view in views) else PAUSE_IDLE_S

    def _due(self) -> tuple[EnvironmentKey, ...]:
        self._controller.renew_if_due()
        return self._store.environments()

    def _stepped(self, key: EnvironmentKey) -> loop.View:
        try:
            view = self._controller.step(key)
        except errors.ConflictError:
            view = self._controller.step(key)  # a request was committed in between: look again
        self._views[key] = view
        if view.observed.routes is not None:
            self.meter(key).feed(view.state, view.observed.routes, self._clock.monotonic())
        if self._recorder is not None:
            self._recorder.look(view)
        for failure in view.failures:
            self._log_once(failure)
        return view

    def _tried(self, key: EnvironmentKey | None, action: Callable[[], Result]) -> Result | None:
        """The result, or None and the trouble noted. Only FencedError passes."""
        try:
            result = action()
        except errors.FencedError:
            raise
        except errors.TidegateError as error:
            self._in_trouble(key, error)
        except Exception as error:  # noqa: BLE001 - the last line of defence: the apps need their control plane
            self._log.exception("unexpected error in the loop")
            told = errors.TidegateError(f"The control plane's loop failed: {type(error).__name__}.")
            self._in_trouble(key, told)
        else:
            self._trouble.pop(key, None)
            return result
        return None

    def _in_trouble(self, key: EnvironmentKey | None, error: errors.TidegateError) -> None:
        failure = execute.Failure(key="loop" if key is None else f"loop:{key}", error=error)
        self._trouble[key] = failure
        self._log_once(failure)

    def _log_once(self, failure: execute.Failure) -> None:
        """The same failure in each step is one line, until it says something else."""
        text = str(failure.error)
        if self._logged.get(failure.key) != text:
            self._logged[failure.key] = text
            self._log.warning("failed", what=failure.key, detail=text)


def _is_judging(view: loop.View) -> bool:
    rollout = view.state.rollout
    return rollout is not None and rollout.analysis is not None


def _is_busy(view: loop.View) -> bool:
    state = view.state
    passing = {model.Role.INCOMING, model.Role.RETIRING}
    return state.rollout is not None or any(placement.role in passing for placement in state.placements)

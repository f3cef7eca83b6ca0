"""Asking instances whether they are ready.

Hides when and by whom they are asked: one thread per living app process, so that an instance that hangs
delays nobody else. `observe` only reads the last answers. An instance is asked in quick succession until it
says yes for the first time, so that a start takes no longer than it must, and every `interval_s` then.

Invariants: no call waits longer than the check's `timeout_s`; an answer belongs to one process (pid and start
time), never to its successor; the threads end when nobody has looked for a while.

Neighbours: process.py (looks), asking.py (one question), launching.py and start.py (run a
readiness command as the app's user).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tidegate.core import model
from tidegate.runtimes import asking, launching, procfs
from tidegate.runtimes import plan as plans

#: Pause between questions in the first seconds of a process, while it has not been ready yet.
_EAGER_PAUSE_S = 0.075
_EAGER_COMMAND_PAUSE_S = 0.25
_EAGER_FOR_S = 15.0

_OK, _BAD = 200, 400

#: What is kept of an answer in words: it has parts that are somebody else's, such as the path.
_SAID_MAX = 200
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")

#: A thread ends when nobody looked for its answer for so long.
_UNWANTED_S = 60.0


def now_s() -> float:
    """Seconds since boot, suspended time included: what process start times are counted in."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One living app process to be asked."""

    name: str
    app: procfs.Identity
    check: model.Check
    port: int | None
    plan: Callable[[], plans.Plan | None]
    """How its readiness command is to be run; None: cannot be known now."""

    @property
    def age_s(self) -> float:
        return now_s() - self.app.start / procfs.TICKS_PER_S


@dataclass(frozen=True, slots=True)
class Answer:
    """What a check has found."""

    ready: bool | None
    """None: it could not be asked."""
    said: str = ""
    """The same in words, e.g. `GET /missing answered 404`: at most 200 characters, all printable."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "said", _CONTROL.sub("?", self.said)[:_SAID_MAX])


UNASKED: Final = Answer(ready=None)


class Readiness:
    """The last answers of all instances that somebody looks at."""

    def __init__(self) -> None:
        self._born_s = now_s()
        self._watches: dict[tuple[str, procfs.Identity], _Watch] = {}
        self._lock = threading.Lock()

    def ask(self, targets: Sequence[Target]) -> dict[str, Answer]:
        """Last answer for each, by name; `UNASKED`: not answered yet.

        Waits, for all together at most the longest `timeout_s`, only for processes that are older than this
        object: after a restart of the control plane, nothing is known of instances that serve.
        """
        watches = [
            self._watch(target) for target in targets if target.check.kind is not model.CheckKind.ALIVE
        ]
        older = [watch for watch in watches if watch.target.app.start / procfs.TICKS_PER_S < self._born_s]
        deadline = time.monotonic() + max((watch.target.check.timeout_s for watch in older), default=0.0)
        for watch in older:
            watch.answered.wait(max(0.0, deadline - time.monotonic()))
        answers = {watch.target.name: watch.answer for watch in watches}
        for target in targets:
            if target.check.kind is model.CheckKind.ALIVE:
                answers[target.name] = _settled(target)
        return answers

    def was_ready(self, name: str, app: procfs.Identity) -> bool:
        """Whether this process has been ready since somebody looks."""
        with self._lock:
            watch = self._watches.get((name, app))
        return watch is not None and watch.was_ready

    def _watch(self, target: Target) -> _Watch:
        key = (target.name, target.app)
        with self._lock:
            self._watches = {key: watch for key, watch in self._watches.items() if watch.working}
            watch = self._watches.get(key)
            if watch is None:
                watch = self._watches[key] = _Watch(target)
            watch.wanted_s = now_s()
            return watch

    def close(self) -> None:
        """End all threads; returns at once."""
        with self._lock:
            for watch in self._watches.values():
                watch.closed.set()
            self._watches.clear()


class _Watch:
    """One thread that asks one process."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.answer = UNASKED
        self.was_ready = False
        self.answered = threading.Event()
        self.closed = threading.Event()
        self.wanted_s = now_s()
        self._thread = threading.Thread(target=self._run, name=f"readiness {target.name}", daemon=True)
        self._thread.start()

    @property
    def working(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        while procfs.alive(self.target.app) and now_s() - self.wanted_s < _UNWANTED_S:
            begun_s = time.monotonic()
            self.answer = probe(self.target)
            self.was_ready = self.was_ready or bool(self.answer.ready)
            self.answered.set()
            if self.closed.wait(self._pause_s(time.monotonic() - begun_s)):
                break
        self.answered.set()

    def _pause_s(self, took_s: float) -> float:
        check = self.target.check
        usual_s = max(_EAGER_PAUSE_S, check.interval_s - took_s)
        if self.was_ready or self.target.age_s > _EAGER_FOR_S:
            return usual_s
        eager_s = _EAGER_COMMAND_PAUSE_S if check.kind is model.CheckKind.COMMAND else _EAGER_PAUSE_S
        return min(usual_s, eager_s)


# --- one question ---------------------------------------------------------------------------------------


def _settled(target: Target) -> Answer:
    """Of a process that is not asked: whether it has run for long enough."""
    if target.age_s >= target.check.settle_s:
        return Answer(ready=True)
    return Answer(ready=False, said=f"has not run for {target.check.settle_s:g} s yet")


def probe(target: Target) -> Answer:
    """Ask once."""
    check = target.check
    if check.kind is model.CheckKind.COMMAND:
        return _probe_command(target)
    if target.port is None:
        return UNASKED
    return probe_address(
        target.port, check.path if check.kind is model.CheckKind.HTTP else None, check.timeout_s
    )


def probe_address(port: int, path: str | None, timeout_s: float) -> Answer:
    """Whether the loopback port accepts connections and, with a path, answers 2xx or 3xx in time."""
    found = asking.ask(port, path, timeout_s)
    ready = found.connected if path is None else found.status is not None and _OK <= found.status < _BAD
    return Answer(ready=ready, said=found.said)


def _probe_command(target: Target) -> Answer:
    plan = target.plan()
    if plan is None:
        return UNASKED
    variables = {**plan["environment"], procfs.CHECK_MARK: "1"}
    arguments = launching.fill(target.check.command, launching.visible(plan["environment"], plan["hidden"]))
    command: plans.Plan = {**plan, "arguments": arguments, "environment": variables}
    try:
        process = launching.spawn(command, "exec", answer=subprocess.DEVNULL)
    except OSError as error:
        return Answer(ready=None, said=f"the command could not be run: {error.strerror}")
    try:
        status = process.wait(timeout=target.check.timeout_s)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # not waited for yet, so the number is still its own
        process.wait()
        return Answer(ready=False, said=f"the command took longer than {target.check.timeout_s:g} s")
    how = f"exit status {status}" if status >= 0 else f"signal {-status}"
    return Answer(ready=status == 0, said=f"the command ended with {how}")

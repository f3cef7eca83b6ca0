"""The thread that carries pushes on: builds them, makes releases of them, and hands those to the pipeline.

Level-triggered, as the loop is: what is to be done follows from the committed rows alone, so that a control
plane that was killed goes on where they stand. Invariants:

- of one app one push is built at a time, each from a clean checkout, and from the beginning after a crash;
- a row changes by compare-and-set only: what was superseded meanwhile is neither delivered nor said to be;
- a release is delivered under the push's own idempotency key: twice is once;
- pushes of one app are delivered in their order; where one has to wait, those behind it wait too.

Neighbours: `workshop` builds one, `tidegate.store.sources` has the rows, the pipeline takes the releases.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Protocol

import structlog

from tidegate import errors, ports
from tidegate.core import model
from tidegate.core.model import Refusal
from tidegate.engine.operations import Asked
from tidegate.engine.workshop import Built, Workshop
from tidegate.pushes import How, OnPush, Push, Pushes, PushState, Source

#: Of all apps together: a build takes what the machine has, and the apps run on the same one.
AT_ONCE: Final = 2
#: Killed in so many builds of one push, the control plane is killed by it.
ATTEMPTS_MAX: Final = 5
ROUND_S: Final = 1.0
DETAIL_CHARACTERS_MAX: Final = 2000
#: Refusals that pass by themselves.
WAITED_FOR: Final = frozenset({Refusal.BUSY.value})


class Writer(Protocol):
    """Takes down output."""

    def __call__(self, line: str) -> None:
        """A line."""

    def close(self) -> None:
        """No more."""


class Outputs(Protocol):
    """Output of pushes."""

    def begin(self, push: int, attempt: int) -> Writer:
        """Of a new attempt."""


class Deliver(Protocol):
    """Hands a release on: to the pipeline, which brings it as far as `to`."""

    def __call__(self, app: str, release: int, to: str, asked: Asked, *, supersede: bool) -> str | int:
        """What it is called from now on. Asked again under one key, it is the same. Raises TidegateError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything that is used."""

    pushes: Pushes
    source: Callable[[str], Source | None]
    """By app."""
    lease: ports.Lease
    now: Callable[[], float]
    workshop: Workshop
    outputs: Outputs
    add_release: Callable[[model.Release, ports.Origin], model.Release]
    """Number a release, or find its twin; signed is where it comes from."""
    release: Callable[[str, int], model.Release | None]
    deliver: Deliver
    tidy: Callable[[str], None] = lambda _app: None
    """Called when a push of an app has ended."""


class Builds:
    """Carries pushes on until it is told to stop."""

    def __init__(self, parts: Parts, spawn: Callable[[Callable[[], None]], None] | None = None) -> None:
        """`spawn`: runs one build; default: in a thread of its own."""
        self._parts = parts
        self._spawn = spawn or _in_thread
        self._jobs: dict[str, int] = {}
        """By app: the push that is being built."""
        self._stopping = False
        self._lock = threading.Lock()
        self._idle = threading.Condition(self._lock)
        self._wake, self._stop = threading.Event(), threading.Event()
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger(part="builds")
        self._thread = threading.Thread(target=self._run, name="builds", daemon=True)

    def start(self) -> None:
        """Begin, with what an earlier control plane has left."""
        self._recover()
        self._thread.start()

    def stop(self) -> None:
        """End. What is being built is stopped; the next start builds it from the beginning."""
        with self._lock:
            self._stopping = True
        self._stop.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            running = tuple(self._jobs.values())
        for push in running:
            self._parts.workshop.marks.end(push)
        with self._idle:
            self._idle.wait_for(lambda: not self._jobs, timeout=10.0)

    def wake(self) -> None:
        """Look at once."""
        self._wake.set()

    def step(self) -> None:
        """Everything that is due now: end what was superseded, deliver what is built, begin to build."""
        waiting = self._parts.pushes.waiting()
        self._end_superseded(waiting)
        self._take_back(waiting)
        self._deliver_in_order(waiting)
        self._begin(waiting)

    def _recover(self) -> None:
        try:
            self._parts.workshop.clear()
            self._parts.pushes.restart(self._parts.lease, attempts_max=ATTEMPTS_MAX, at=self._parts.now())
        except errors.TidegateError as error:  # `step` takes back what is said to be built
            self._log.warning("builds of before are not cleared", detail=str(error))

    # --- building ---------------------------------------------------------------------------------

    def _end_superseded(self, waiting: tuple[Push, ...]) -> None:
        building = {push.id for push in waiting if push.state is PushState.BUILDING}
        with self._lock:
            over = [push for push in self._jobs.values() if push not in building]
        for push in over:
            self._parts.workshop.marks.end(push)

    def _take_back(self, waiting: tuple[Push, ...]) -> None:
        """What nobody builds although it says so: its end could not be written down."""
        with self._lock:
            running = frozenset(self._jobs.values())
        for push in waiting:
            if push.state is PushState.BUILDING and push.id not in running and not self._stopping:
                again = replace(push, state=PushState.QUEUED)
                self._parts.pushes.settle(self._parts.lease, again, was=PushState.BUILDING)

    def _begin(self, waiting: tuple[Push, ...]) -> None:
        for push in waiting:
            if push.state is not PushState.QUEUED:
                continue
            with self._lock:
                if self._stopping or push.app in self._jobs or len(self._jobs) >= AT_ONCE:
                    continue
                self._jobs[push.app] = push.id
            started = None
            try:
                started = self._parts.pushes.start(self._parts.lease, push.id, at=self._parts.now())
            finally:
                if started is None:
                    self._done(push.app)
            if started is not None:
                self._spawn(self._job(started))

    def _job(self, push: Push) -> Callable[[], None]:
        def work() -> None:
            try:
                self._built(push)
            except errors.TidegateError as error:  # the row could not be written: it is built again
                self._log.warning("build not recorded", push=push.id, detail=str(error))
            except Exception:  # noqa: BLE001 - one build must not end the others, nor stay as it is for ever
                self._log.exception("unexpected error in a build", push=push.id)
                self._fail(push, "The control plane failed: its log says more.", was=PushState.BUILDING)
            finally:
                self._done(push.app)
                self._wake.set()

        return work

    def _done(self, app: str) -> None:
        with self._idle:
            self._jobs.pop(app, None)
            self._idle.notify_all()

    def _built(self, push: Push) -> None:
        output = self._parts.outputs.begin(push.id, push.attempt)
        try:
            source = self._parts.source(push.app)
            if source is None:
                return
            try:
                release = self._released(source, push, self._parts.workshop.make(source, push, output))
            except errors.FencedError:
                raise
            except errors.TidegateError as error:
                with self._lock:
                    if self._stopping:  # we have killed it: not its fault, and not its end
                        return
                detail = _short(error)
                if self._fail(push, detail, was=PushState.BUILDING):
                    _say(output, detail)
                return
            output(f"release  {release.name}")
            ended = replace(
                push, state=PushState.RELEASED, release=release.number, ended_at=self._parts.now()
            )
            self._parts.pushes.settle(self._parts.lease, ended, was=PushState.BUILDING)
        finally:
            output.close()
            self._parts.tidy(push.app)

    def _released(self, source: Source, push: Push, built: Built) -> model.Release:
        release = model.Release(
            app=push.app,
            number=0,
            digest=built.digest,
            environments=built.manifest.environments,
            revision=push.revision,
            created_at=self._parts.now(),
            created_by=asker(push),
        )
        origin = ports.Origin(
            manifest=built.manifest.source,
            repository=source.remote or f"git push: {source.app}",
            command=built.manifest.artifact.build or "",
            how="built",
            started=push.started_at or 0.0,
            finished=self._parts.now(),
        )
        return self._parts.add_release(release, origin)

    # --- delivering -------------------------------------------------------------------------------

    def _deliver_in_order(self, waiting: tuple[Push, ...]) -> None:
        held: set[str] = set()
        for push in waiting:
            if push.state is PushState.RELEASED and push.app not in held and not self._delivered(push):
                held.add(push.app)

    def _delivered(self, push: Push) -> bool:
        """Whether the push needs no more; False: it has to wait."""
        source = self._parts.source(push.app)
        release = self._parts.release(push.app, push.release or 0)
        if release is None or source is None:
            self._fail(push, "Its release, or its source, is gone.", was=PushState.RELEASED)
            return True
        to = push.to or release.environments[-1][0]
        asked = Asked(by=asker(push), why=reason(push), key=f"push-{push.id}")
        supersede = source.on_push is OnPush.SUPERSEDE
        try:
            promotion = self._parts.deliver(push.app, release.number, to, asked, supersede=supersede)
        except errors.RefusedError as error:
            if error.reason in WAITED_FOR:
                return False
            self._fail(push, str(error), was=PushState.RELEASED)
            return True
        except errors.RequestError as error:
            self._fail(push, str(error), was=PushState.RELEASED)
            return True
        delivered = replace(push, promotion=str(promotion))
        self._parts.pushes.settle(self._parts.lease, delivered, was=PushState.RELEASED)
        return True

    def _fail(self, push: Push, detail: str, *, was: PushState) -> bool:
        failed = replace(
            push,
            state=PushState.FAILED,
            detail=detail[:DETAIL_CHARACTERS_MAX],
            ended_at=self._parts.now(),
        )
        return self._parts.pushes.settle(self._parts.lease, failed, was=was)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                self.step()
            except errors.FencedError:
                return  # the loop has seen it too, and ends the control plane
            except errors.TidegateError as error:
                self._log.warning("pushes wait", detail=str(error))
            except Exception:  # noqa: BLE001 - the last line of defence: the next round may do better
                self._log.exception("unexpected error in the queue of pushes")
            self._wake.wait(ROUND_S)


def asker(push: Push) -> str:
    """Who is said to have asked for what follows from a push."""
    return push.by or {How.WEBHOOK: "a webhook", How.POLL: "polling"}.get(push.how, "git push")


def reason(push: Push) -> str:
    """The sentence for the history."""
    ref = push.ref.removeprefix("refs/heads/").replace("refs/tags/", "tag ", 1)
    return f"push {push.name}: {ref} at {push.revision[:12]}"


def _short(error: errors.TidegateError) -> str:
    """What went wrong; the last lines of a build stand in its output already."""
    if isinstance(error, errors.BuildError):
        return error.message.partition("\n")[0].removesuffix(" Its last lines:")
    return str(error)


def _say(output: Writer, text: str) -> None:
    for line in text.splitlines():
        output(line)


def _in_thread(work: Callable[[], None]) -> None:
    threading.Thread(target=work, name="build", daemon=True).start()

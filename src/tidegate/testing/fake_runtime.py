"""A runtime in memory: honest, in virtual time.

Instances are slow, crash, loop and hang as their behaviour says. Invariants: nothing moves but by the
clock; no randomness; answers are built from what was done, never from what was asked; an address that a
group was given is given to no other until that group was stopped. Neighbours: `fakes` names it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from tidegate import errors, ports
from tidegate.core import model
from tidegate.core.model import InstanceState
from tidegate.testing.clock import ManualClock

HOST: Final = "127.0.0.1"
FIRST_PORT: Final = 20_000
#: Crashes older than this are not recent.
RECENT_S: Final = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What the instances of an artifact do when they run. `math.inf`: never."""

    ready_after_s: float = 1.0
    crash_after_s: float = math.inf
    """After each start, so that it loops."""
    crash_again_after_s: float | None = None
    """After each start but the first, if that is different."""
    crashes_max: float = math.inf
    """It recovers after so many crashes."""
    restart_after_s: tuple[float, ...] = (1.0, 2.0, 4.0)
    """From each crash to the next start; the last for ever."""
    stop_after_s: float = 0.5
    """From SIGTERM to its end; the group's grace is the limit."""
    exit: str = "exit status 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEnd:
    """How a job ends by itself. `math.inf`: only when a test says so."""

    after_s: float = 1.0
    passed: bool = True
    exit: str = "exit status 0"


def _passes(_group: model.InstanceGroup) -> JobEnd:
    return JobEnd()


@dataclass(slots=True, kw_only=True)
class _Instance:
    index: int
    port: int | None
    """None: a job, which serves nothing."""
    pid: int
    behaviour: Behaviour
    state: InstanceState = InstanceState.RUNNING
    started_at: float = 0.0
    due: float = math.inf
    """When its state changes by itself: a crash, a restart, its end."""
    unready_until: float = 0.0
    crashed_at: list[float] = field(default_factory=list)
    exit: str = ""
    job: JobEnd | None = None
    passed: bool | None = None
    """Of a job that has ended."""

    @property
    def alive(self) -> bool:
        return self.state in (InstanceState.STARTING, InstanceState.RUNNING)

    def ready(self, now: float) -> bool:
        if self.job is not None:
            return False
        ready_at = max(self.started_at + self.behaviour.ready_after_s, self.unready_until)
        return self.state is InstanceState.RUNNING and now >= ready_at

    def next_change(self, now: float) -> float:
        """When its status can look different from now without anybody's doing."""
        if self.job is not None:
            return self.due
        ready_at = max(self.started_at + self.behaviour.ready_after_s, self.unready_until)
        return min(self.due, ready_at) if now < ready_at else self.due


@dataclass(slots=True, kw_only=True)
class _Group:
    group: model.InstanceGroup
    instances: list[_Instance] = field(default_factory=list)
    status: model.GroupStatus | None = None
    """As last shown; None when something may have changed."""


class FakeRuntime:
    """`ports.Runtime` without processes."""

    def __init__(
        self,
        *,
        clock: ManualClock | None = None,
        behaviours: Mapping[str, Behaviour] | None = None,
        default: Behaviour = Behaviour(),
        jobs: Callable[[model.InstanceGroup], JobEnd] = _passes,
        reuse_ports: bool = False,
        remembers_reboot: bool = True,
    ) -> None:
        """Make a runtime in which nothing runs.

        `behaviours`: by digest, `default` for the others. `jobs`: asked at each start of a job how it will
        end. `reuse_ports`: the ports of a group that was stopped are given out again at once.
        `remembers_reboot`: groups are shown as exited after a reboot, not forgotten.
        """
        self.clock: Final = clock if clock is not None else ManualClock()
        self.behaviours: Final = dict(behaviours or {})
        self.default = default
        self.jobs = jobs
        self.blind = False
        """Cannot be looked at: every `observe` raises."""
        self._reuse_ports = reuse_ports
        self._remembers_reboot = remembers_reboot
        self._groups: dict[str, _Group] = {}
        self._addresses: dict[int, tuple[_Group, _Instance]] = {}
        self._states: dict[model.EnvironmentKey, tuple[model.GroupStatus, ...]] = {}
        self._revision = 0
        self._next_port = FIRST_PORT
        self._reserved: dict[int, str] = {}
        """Each port that a group was ever given, until the group was stopped: the router may know it."""
        self._next_pid = 1_000
        self._next_change = math.inf

    # --- the port ---

    def apply(self, group: model.InstanceGroup, *, key: str) -> None:
        self.settle()
        held = self._groups.setdefault(group.id, _Group(group=group))
        present = {instance.index: instance for instance in held.instances}
        for index in range(group.instances):
            instance = present.get(index)
            if instance is None:
                self._start(held, index)
            elif instance.state is InstanceState.EXITED and instance.passed is None:
                self._restart(held, instance, moved=True, at=self.clock.elapsed)
        held.instances.sort(key=lambda instance: instance.index)
        self._touch(held)

    def observe(self, environment: model.EnvironmentKey) -> model.RuntimeState:
        if self.blind:
            raise errors.RuntimeAdapterError("The runtime does not answer.")
        self._revision += 1
        return model.RuntimeState(revision=self._revision, groups=self.groups_of(environment))

    def remove(self, group_id: str, *, key: str) -> None:
        self.settle()
        held = self._groups.get(group_id)
        if held is None:
            return
        now = self.clock.elapsed
        for instance in held.instances:
            if instance.alive:
                instance.state = InstanceState.STOPPING
                instance.due = now + min(instance.behaviour.stop_after_s, held.group.grace_s)
            elif instance.state is not InstanceState.STOPPING:
                instance.state, instance.due = InstanceState.STOPPING, now
        self._touch(held)
        self.settle()

    def logs(self, group_id: str, *, tail: int, follow: bool = False) -> Iterator[ports.LogLine | None]:
        held = self._groups.get(group_id)
        for instance in held.instances if held else ():
            lines = [f"started with pid {instance.pid}", *([instance.exit] if instance.exit else [])]
            for text in lines[-tail:] if tail > 0 else ():
                yield ports.LogLine(group_id=group_id, index=instance.index, text=text)

    def check(self) -> tuple[ports.Finding, ...]:
        return (ports.Finding(name="memory", ok=True, detail="a fake needs nothing of this machine"),)

    # --- what tests do to it and see of it ---

    @property
    def group_ids(self) -> tuple[str, ...]:
        """Of every group that is there, those being stopped included; sorted."""
        self.settle()
        return tuple(sorted(self._groups))

    def group(self, group_id: str) -> model.InstanceGroup:
        """What was asked for under this id. Raises KeyError."""
        return self._groups[group_id].group

    def start_revision(self, revision: int) -> None:
        """Let the next look come after this one, as in a world that is older than the fake."""
        self._revision = revision

    def groups_of(self, environment: model.EnvironmentKey) -> tuple[model.GroupStatus, ...]:
        """The truth about an environment, without a look being counted."""
        self.settle()
        groups = self._states.get(environment)
        if groups is None:
            held = sorted(self._groups.items())
            groups = tuple(self._status(each) for _, each in held if each.group.key == environment)
            self._states[environment] = groups
        return groups

    def instances(self, group_id: str) -> tuple[model.InstanceStatus, ...]:
        """The truth about a group, even when the runtime is blind; empty if there is none."""
        self.settle()
        held = self._groups.get(group_id)
        return self._status(held).instances if held else ()

    def serves(self, host: str, port: int) -> bool:
        """An instance at this address is ready, or still answers while it stops."""
        self.settle()
        _, instance = self._addresses.get(port, (None, None))
        if instance is None:
            return False
        return instance.ready(self.clock.elapsed) or instance.state is InstanceState.STOPPING

    def owner(self, port: int) -> tuple[str, int, InstanceState] | None:
        """Group id, index and state of the instance that has the port."""
        self.settle()
        held, instance = self._addresses.get(port, (None, None))
        if held is None or instance is None:
            return None
        return held.group.id, instance.index, instance.state

    def finish(self, group_id: str, *, passed: bool, exit: str = "exit status 0") -> None:  # noqa: A002
        """A job ends now, whatever was said of its end; nothing happens to one that has ended."""
        held, instance = self._find(group_id, 0)
        if instance.job is not None and instance.alive:
            _end(instance, passed=passed, how=exit)
            self._touch(held)

    def crash(self, group_id: str, index: int, *, how: str = "killed by SIGSEGV") -> None:
        """The process ends without being asked; it is started again after a while, a job is not."""
        held, instance = self._find(group_id, index)
        if instance.alive:
            self._crash(instance, self.clock.elapsed, how)
            self._touch(held)

    def exit(self, group_id: str, index: int, *, how: str = "exit status 1") -> None:
        """The process ends and does not come back by itself: its keeper is gone too, and a job's outcome."""
        held, instance = self._find(group_id, index)
        if instance.state is not InstanceState.STOPPING and instance.passed is None:
            instance.state, instance.due, instance.exit = InstanceState.EXITED, math.inf, how
            self._touch(held)

    def hang(self, group_id: str, index: int, *, seconds: float) -> None:
        """The process lives, but its readiness check fails for some time."""
        held, instance = self._find(group_id, index)
        instance.unready_until = self.clock.elapsed + seconds
        self._touch(held)

    def reboot(self) -> None:
        """The machine stops hard and starts again: no process is left. The clock is the caller's."""
        self.settle()
        for held in list(self._groups.values()):
            stopping = any(instance.state is InstanceState.STOPPING for instance in held.instances)
            for instance in held.instances:
                self._release(instance)
                instance.state, instance.due = InstanceState.EXITED, math.inf
                if instance.passed is None:
                    instance.exit = "the machine was started again"
            if stopping or not self._remembers_reboot:
                del self._groups[held.group.id]
            self._touch(held)

    def settle(self) -> None:
        """Let happen what is due by the clock."""
        now = self.clock.elapsed
        if now < self._next_change:
            return
        self._next_change = math.inf
        for held in list(self._groups.values()):
            for instance in list(held.instances):
                while instance.due <= now:
                    self._due(held, instance, instance.due)
            self._touch(held)
            if not held.instances:
                self._forget(held.group.id)

    # --- inside ---

    def _find(self, group_id: str, index: int) -> tuple[_Group, _Instance]:
        self.settle()
        held = self._groups[group_id]
        return held, next(instance for instance in held.instances if instance.index == index)

    def _touch(self, held: _Group) -> None:
        now = self.clock.elapsed
        held.status = None
        self._states.pop(held.group.key, None)
        for instance in held.instances:
            self._next_change = min(self._next_change, instance.next_change(now))

    def _forget(self, group_id: str) -> None:
        del self._groups[group_id]
        self._reserved = {port: owner for port, owner in self._reserved.items() if owner != group_id}

    def _start(self, held: _Group, index: int) -> None:
        behaviour = self.behaviours.get(held.group.digest, self.default)
        instance = _Instance(index=index, port=None, pid=0, behaviour=behaviour)
        held.instances.append(instance)
        self._restart(held, instance, moved=True, at=self.clock.elapsed)

    def _restart(self, held: _Group, instance: _Instance, *, moved: bool, at: float) -> None:
        if held.group.verify is not None:
            instance.job = self.jobs(held.group)
        elif moved:
            self._release(instance)
            instance.port = self._free_port()
            self._reserved[instance.port] = held.group.id
            self._addresses[instance.port] = (held, instance)
        instance.pid, self._next_pid = self._next_pid, self._next_pid + 1
        instance.state, instance.started_at = InstanceState.RUNNING, at
        if instance.job is not None:
            instance.due = at + instance.job.after_s
            return
        behaviour, crashes = instance.behaviour, len(instance.crashed_at)
        again_s = behaviour.crash_again_after_s if crashes else None
        instance.due = at + (behaviour.crash_after_s if again_s is None else again_s)
        if crashes >= behaviour.crashes_max:
            instance.due = math.inf

    def _release(self, instance: _Instance) -> None:
        if instance.port is not None:
            self._addresses.pop(instance.port, None)

    def _free_port(self) -> int:
        if self._reuse_ports:
            return next(port for port in range(FIRST_PORT, 65_536) if port not in self._reserved)
        self._next_port += 1
        return self._next_port

    def _due(self, held: _Group, instance: _Instance, at: float) -> None:
        if instance.state is InstanceState.RUNNING and instance.job is not None:
            _end(instance, passed=instance.job.passed, how=instance.job.exit)
        elif instance.state is InstanceState.RUNNING:
            self._crash(instance, at, instance.behaviour.exit)
        elif instance.state is InstanceState.BACKOFF:
            self._restart(held, instance, moved=False, at=at)
        else:
            instance.due = math.inf
            held.instances.remove(instance)
            self._release(instance)

    def _crash(self, instance: _Instance, at: float, how: str) -> None:
        if instance.job is not None:
            _end(instance, passed=False, how=how)
            return
        waits = instance.behaviour.restart_after_s
        wait_s = waits[min(len(instance.crashed_at), len(waits) - 1)]
        instance.crashed_at.append(at)
        instance.state, instance.due, instance.exit = InstanceState.BACKOFF, at + wait_s, how

    def _status(self, held: _Group) -> model.GroupStatus:
        if held.status is None:
            now = self.clock.elapsed
            held.status = model.GroupStatus(
                id=held.group.id,
                placement=held.group.placement,
                service=held.group.service,
                instances=tuple(_instance_status(instance, now) for instance in held.instances),
            )
        return held.status


def _end(job: _Instance, *, passed: bool, how: str) -> None:
    """A job has its outcome; it never runs again."""
    job.state, job.due, job.passed, job.exit = InstanceState.EXITED, math.inf, passed, how


def _instance_status(instance: _Instance, now: float) -> model.InstanceStatus:
    recent = sum(1 for at in instance.crashed_at if now - at < RECENT_S)
    return model.InstanceStatus(
        index=instance.index,
        state=instance.state,
        host=HOST,
        port=instance.port,
        ready=instance.ready(now) if instance.job is None else instance.passed,
        crashes=len(instance.crashed_at),
        recent_crashes=recent,
        pid=instance.pid if instance.alive else None,
        exit=instance.exit,
    )

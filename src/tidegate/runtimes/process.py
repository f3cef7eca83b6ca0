"""Instances as local processes, each under a shim of its own that outlives the control plane.

Hides folders, ports, users, control groups and shims behind `ports.Runtime`. Keeps no truth in memory: every
look is at instance folders, locks and processes, so that a control plane that was killed, or upgraded, goes
on where it was.

Invariants:
- never two copies of an instance: its shim holds a lock, and a shim that comes later adopts the app;
- a `stop` mark is durable, and nothing starts an instance that has one;
- only what was proved to be ours (lock holder, pid with its start time and boot, marks) is ever signalled.

Under systemd the control plane's unit needs `KillMode=process`: else its end takes the shims along.

Neighbours: instances.py (folders, looks), launching.py (starts shims), readiness.py, shim.py, output.py.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tidegate import errors, ports, revisions
from tidegate.core import model
from tidegate.runtimes import (
    accounts,
    cgroups,
    instances,
    launching,
    machine,
    output,
    procfs,
    readiness,
    secret_files,
)
from tidegate.runtimes import plan as plans


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """What an operator may choose for local processes."""

    first_port: int = 20_000
    last_port: int = 32_767
    """Below the kernel's ephemeral range (from 32 768), which outgoing connections are given ports from."""
    reserved_ports: frozenset[int] = frozenset()
    """Ports in the range that are somebody else's."""
    run_as: str = accounts.AUTO
    """`auto`: as root, an own numeric user for each app and environment, else the same user; `same`: the
    user of the control plane; else the name of a user."""
    log_bytes: int = 10 * 1024 * 1024
    """Size at which an instance's output file is turned over."""
    log_files: int = 5
    """How many are kept of each instance, the current one included."""
    kept_logs: int = 20
    """How many removed groups' last output is kept."""

    @property
    def candidates(self) -> range:
        return range(self.first_port, self.last_port + 1)


def _no_secrets(_group: model.InstanceGroup) -> Mapping[str, str]:
    return {}


class ProcessRuntime:
    """`ports.Runtime` for local processes."""

    def __init__(
        self,
        folder: Path,
        *,
        content: Callable[[model.InstanceGroup], Path],
        secrets: Callable[[model.InstanceGroup], Mapping[str, str]] = _no_secrets,
        settings: ProcessSettings | None = None,
    ) -> None:
        """`folder`: made if needed, and used by this runtime alone.

        `content`: gives the read-only unpacked tree of the group's package, and raises if it is damaged or if
        the group may not run it.
        `secrets`: gives the value of each of the group's secrets, by name; asked at each start.
        Raises StorageError.
        """
        self._layout = instances.Layout(folder.absolute())
        self._layout.create()
        self._content = content
        self._secrets = secrets
        self._settings = settings or ProcessSettings()
        self._readiness = readiness.Readiness()
        with self._layout.locked():
            self._revisions = revisions.Revisions(self._layout.revision)

    def close(self) -> None:
        """End the readiness threads; the instances go on."""
        self._readiness.close()

    def account(self, key: model.EnvironmentKey) -> accounts.Account | None:
        """Who runs what belongs to an environment; None: our own user. Raises MachineError, StorageError."""
        with self._layout.locked():
            return accounts.account(self._settings.run_as, key, self._layout.users)

    # --- apply ---------------------------------------------------------------------------------------

    def apply(self, group: model.InstanceGroup, *, key: str) -> None:
        """Start what is missing of the group, stop what is too many; returns before instances are ready.

        Safe to repeat, at the same time too. Raises StorageError, PortTakenError, MachineError and
        RuntimeAdapterError, and what `content` raises for a package that may not run.
        """
        instances.parts(group.id)  # an id that could leave the folder never gets further
        with self._layout.locked():
            self._sweep(group.id)
            for index in self._layout.indexes(group.id):
                if index >= group.instances:
                    self._stop(group.id, index)
            missing = [index for index in range(group.instances) if self._needs_shim(group.id, index)]
            if missing:
                self._start(group, missing)

    def _needs_shim(self, group_id: str, index: int) -> bool:
        seen = instances.look(self._layout, group_id, index)
        return seen is None or (seen.shim is None and seen.passed is None)

    def _start(self, group: model.InstanceGroup, indexes: list[int]) -> None:
        content = self._package(group)
        account = accounts.account(self._settings.run_as, group.key, self._layout.users)
        self._require_reachable(account, content)
        values = self._values(group)
        prepared = []
        with instances.storage_errors(f"{group.id} cannot be started"):
            launching.own_folder(self._layout.data_of(group.key), account)
            for index in indexes:
                port = self._reserve(group, index)
                launching.own_folder(self._layout.temporary_of(f"{group.id}.{index}"), account)
                given = self._given(group, index, values)
                variables = launching.environment(self._layout, group, index, port, given)
                plan = self._plan(group, index, variables, content, account)
                plan["secret_files"] = {use.name: values[use.name] for use in group.secrets if use.as_file}
                prepared.append(plan)
        launching.launch(prepared)

    def _values(self, group: model.InstanceGroup) -> Mapping[str, str]:
        """The values of the group's secrets: all of them, or an error."""
        if not group.secrets:
            return {}
        values = self._secrets(group)
        missing = [use.name for use in group.secrets if use.name not in values]
        if missing:
            raise errors.RuntimeAdapterError(
                f"{group.id} cannot be started: nobody knows the value of {', '.join(missing)}.",
                hint=f"`tide secret list {group.key.environment}` shows what there is.",
            )
        return values

    def _given(self, group: model.InstanceGroup, index: int, values: Mapping[str, str]) -> dict[str, str]:
        """Variables with the values, or with the paths of the files that hold them."""
        variables = {use.name: values[use.name] for use in group.secrets if not use.as_file}
        files = [use.name for use in group.secrets if use.as_file]
        if files:
            folder = self._secret_folder(f"{group.id}.{index}")
            if folder is None:
                raise errors.MachineError(
                    f"{group.id} has secrets as files, and this machine has no folder in memory for them.",
                    hint="Mount a tmpfs at /dev/shm, or let the secrets be variables.",
                )
            variables |= {f"{name}_FILE": f"{folder}/{name}" for name in files}
        return variables

    def _secret_folder(self, name: str) -> str | None:
        """Where the files of an instance are, if it has any; None: there is no memory for files here."""
        base = secret_files.base(self._layout.mark, secret_files.places())
        return None if base is None else f"{base}/{name}"

    def _package(self, group: model.InstanceGroup) -> Path:
        try:
            return self._content(group)
        except errors.TidegateError:
            raise
        except Exception as error:
            raise errors.RuntimeAdapterError(
                f"The package {group.digest} of {group.id} cannot be used: {error}.",
                hint="Deploy the release again, so that its package is stored anew.",
            ) from error

    def _require_reachable(self, account: accounts.Account | None, content: Path) -> None:
        """Refuse what would fail in the app with a sentence that nobody understands."""
        if account is None:
            return
        for target in (self._layout.data, content):
            barrier = machine.barrier(target, account)
            if barrier is not None:
                raise errors.MachineError(
                    f"The apps' user {account.user} may not pass through {barrier} to {target}.",
                    hint=f"Run chmod o+x {barrier}, put Tidegate's data elsewhere, or set run_as to same.",
                )

    def _reserve(self, group: model.InstanceGroup, index: int) -> int | None:
        """The instance's port, written down before the start; None: it serves nothing. OSError."""
        folder = self._layout.instance(group.id, index)
        seen = instances.look(self._layout, group.id, index)
        if seen is not None and seen.spec is not None:
            port = seen.spec.port
            if port is None or seen.app is not None or launching.port_is_free(port, own=True):
                return port
        port = _port_of(seen.app) if seen is not None and seen.app is not None else None
        if group.serves and port is None:
            candidates, last = self._settings.candidates, self._layout.last_port
            port = launching.choose_port(last, candidates, self._taken_ports())
        if seen is None:
            instances.write_new(self._layout, group, index, port)
        else:
            instances.write_spec(folder, group, port)
        return port

    def _taken_ports(self) -> frozenset[int]:
        taken = set(self._settings.reserved_ports)
        for group_id in self._layout.groups():
            for index in self._layout.indexes(group_id):
                spec = instances.read_spec(self._layout.instance(group_id, index))
                if spec is not None and spec.port is not None:
                    taken.add(spec.port)
        return frozenset(taken)

    def _plan(
        self,
        group: model.InstanceGroup,
        index: int,
        variables: dict[str, str],
        content: Path,
        account: accounts.Account | None,
    ) -> plans.Plan:
        name = f"{group.id}.{index}"
        hidden = [use.name for use in group.secrets if not use.as_file]
        files = any(use.as_file for use in group.secrets)
        return plans.Plan(
            version=plans.VERSION,
            name=name,
            folder=str(self._layout.instance(group.id, index)),
            arguments=launching.fill(group.run, launching.visible(variables, hidden)),
            environment=variables,
            hidden=hidden,
            secret_folder=self._secret_folder(name) if files else None,
            secret_files={},
            job=launching.job(group),
            working_folder=str(content),
            user=account.user if account else None,
            group=account.group if account else None,
            grace_s=group.grace_s,
            open_files=group.limits.open_files,
            control_groups=cgroups.detect().groups(f"{self._layout.mark}.{name}", group.limits),
            log_bytes=self._settings.log_bytes,
            log_files=self._settings.log_files,
        )

    # --- observe -------------------------------------------------------------------------------------

    def observe(self, environment: model.EnvironmentKey) -> model.RuntimeState:
        """All groups of the environment, stopping ones included, sorted by id.

        Bounded: at most the longest `timeout_s` of a check, and that only once after a restart. Raises
        RuntimeAdapterError if it cannot look.
        """
        revision = self._revisions.next()  # before the look: of two at the same time, the older says less
        seen = [
            one
            for group_id in self._layout.groups()
            if instances.parts(group_id)[0] == environment
            for one in self._looks(group_id)
        ]
        if any(one.stopping and one.gone for one in seen):
            self._sweep_if_free({one.group_id for one in seen})
        seen = [one for one in seen if not (one.stopping and one.gone)]
        targets = [target for one in seen if not one.stopping and (target := self._target(one)) is not None]
        answers = self._readiness.ask(targets)
        found: dict[str, list[model.InstanceStatus]] = {}
        for one in seen:
            found.setdefault(one.group_id, []).append(
                self._status(one, answers.get(one.name, readiness.UNASKED))
            )
        groups = tuple(
            model.GroupStatus(id=group_id, placement=placement, service=service, instances=tuple(statuses))
            for group_id, statuses in found.items()
            for _, placement, service in [instances.parts(group_id)]
        )
        return model.RuntimeState(revision=revision, groups=groups)

    def _looks(self, group_id: str) -> Iterator[instances.Look]:
        for index in self._layout.indexes(group_id):
            seen = instances.look(self._layout, group_id, index)
            if seen is not None:
                yield seen

    def _target(self, seen: instances.Look) -> readiness.Target | None:
        if seen.app is None or seen.spec is None or seen.is_job:
            return None
        spec = seen.spec
        return readiness.Target(
            name=seen.name,
            app=seen.app,
            check=spec.group.check,
            port=spec.port,
            plan=lambda: self._plan_of(seen),
        )

    def _plan_of(self, seen: instances.Look) -> plans.Plan | None:
        """How the instance was started: from its shim or, if that was killed, from the app's process."""
        plan = None if seen.shim is None else launching.plan_of(seen.shim)
        if plan is not None or seen.app is None or seen.spec is None:
            return plan
        variables = procfs.environment(seen.app.pid)
        if variables.get("TIDEGATE_INSTANCE") != seen.name:
            return None
        group = seen.spec.group
        account = accounts.account(self._settings.run_as, group.key, self._layout.users)
        return self._plan(group, seen.index, variables, self._package(group), account)

    def _status(self, seen: instances.Look, answer: readiness.Answer) -> model.InstanceStatus:
        if seen.is_job:
            return _job_status(seen)
        state, ready = seen.state, answer.ready
        return model.InstanceStatus(
            index=seen.index,
            state=self._state(seen, ready=ready),
            port=seen.spec.port if seen.spec else None,
            ready=ready if seen.app is not None and not seen.stopping else False,
            crashes=state["crashes"] if state else 0,
            recent_crashes=plans.crashes_since(state, seen.boot, readiness.now_s()) if state else 0,
            pid=seen.app.pid if seen.app else None,
            exit=_exit(seen),
            check=answer.said,
        )

    def _state(self, seen: instances.Look, *, ready: bool | None) -> model.InstanceState:
        if seen.stopping:
            return model.InstanceState.STOPPING
        if seen.app is not None:
            running = ready or self._readiness.was_ready(seen.name, seen.app)
            return model.InstanceState.RUNNING if running else model.InstanceState.STARTING
        if seen.shim is None:
            return model.InstanceState.EXITED
        begun = seen.state is not None and seen.state["crashes"] > 0
        return model.InstanceState.BACKOFF if begun else model.InstanceState.STARTING

    # --- remove --------------------------------------------------------------------------------------

    def remove(self, group_id: str, *, key: str) -> None:
        """Begin to stop the group; returns at once. Nothing happens for a group that is not there.

        Raises StorageError, RuntimeAdapterError.
        """
        if not self._layout.indexes(group_id):
            return
        with self._layout.locked():
            for index in self._layout.indexes(group_id):
                self._stop(group_id, index)
            self._sweep(group_id)

    def _stop(self, group_id: str, index: int) -> None:
        """Mark the instance as to be stopped, and make sure that somebody does it."""
        seen = instances.look(self._layout, group_id, index)
        if seen is None:
            return
        with instances.storage_errors(f"{seen.name} cannot be stopped"):
            (seen.folder / plans.STOP).touch(mode=0o600)
        if seen.shim is not None:
            shim = procfs.stat(seen.shim)
            if shim is not None:
                procfs.send(
                    shim.identity, signal.SIGUSR1, confirm=lambda: instances.shim_of(seen.folder) == seen.shim
                )
        elif seen.app is not None:
            launching.launch([self._plan_to_stop(seen, seen.app)])

    def _plan_to_stop(self, seen: instances.Look, app: procfs.Identity) -> plans.Plan:
        """A plan for a shim that only stops what its predecessor left running."""
        owner = procfs.owner(app.pid)
        key, placement, service = instances.parts(seen.group_id)
        group = seen.spec.group if seen.spec else _anonymous(key, placement, service)
        marks = zip(plans.MARKS, (seen.name, str(self._layout.temporary_of(seen.name))), strict=True)
        account = (
            None if owner in {None, os.geteuid()} else accounts.Account(user=owner or 0, group=owner or 0)
        )
        return self._plan(group, seen.index, dict(marks), Path("/"), account)

    def _sweep(self, group_id: str) -> None:
        """Put away instances that were stopped and are gone. Called under the lock."""
        for seen in self._looks(group_id):
            if seen.stopping and seen.gone:
                with instances.storage_errors(f"{seen.name} cannot be put away"):
                    instances.sweep(self._layout, seen, kept_groups=self._settings.kept_logs)
                cgroups.detect().remove(f"{self._layout.mark}.{seen.name}")
                for place in secret_files.places():
                    secret_files.take_away(f"{secret_files.at(place, self._layout.mark)}/{seen.name}")

    def _sweep_if_free(self, group_ids: Iterable[str]) -> None:
        """The same, unless somebody works on instances now or the disk refuses: the next look comes soon."""
        with contextlib.suppress(errors.TidegateError), self._layout.locked(wait_s=0.0):
            for group_id in sorted(group_ids):
                self._sweep(group_id)

    # --- output --------------------------------------------------------------------------------------

    def logs(self, group_id: str, *, tail: int, follow: bool = False) -> Iterator[ports.LogLine | None]:
        """Last `tail` lines of each instance, oldest first; with `follow` goes on until the group is gone.

        Of a group that is gone, the output that was kept; of one that nobody knows, nothing. With `follow`
        never blocks: None says that there is nothing new, and the caller waits as long as it likes.
        """
        followers: dict[int, output.Follower] = {}
        try:
            if follow:
                self._attach(group_id, followers)
            for index, lines in instances.last_output(self._layout, group_id, tail).items():
                yield from _lines(group_id, index, lines)
            while followers:
                there = self._attach(group_id, followers)
                for index, follower in list(followers.items()):
                    if index not in there:
                        yield from _lines(group_id, index, follower.last())
                        followers.pop(index).close()
                    else:
                        yield from _lines(group_id, index, follower.new_lines())
                if followers:
                    yield None
        finally:
            for follower in followers.values():
                follower.close()

    def _attach(self, group_id: str, followers: dict[int, output.Follower]) -> list[int]:
        """Follow instances that are new; returns the indexes of those that are there."""
        there = self._layout.indexes(group_id)
        for index in there:
            if index not in followers:
                with contextlib.suppress(OSError):
                    path = self._layout.instance(group_id, index) / plans.OUTPUT
                    followers[index] = output.Follower(str(path))
        return there

    def last_output(self, group_id: str, lines: int = 20) -> tuple[str, ...]:
        """The last lines of output of each instance, for the message of an abort."""
        found = instances.last_output(self._layout, group_id, lines)
        return tuple(line for index in sorted(found) for line in found[index])

    # --- check ---------------------------------------------------------------------------------------

    def check(self) -> tuple[ports.Finding, ...]:
        """What on this machine would keep it from working, and what is not enforced here."""
        settings = self._settings
        return (
            machine.check_shim(),
            machine.check_users(settings.run_as, self._layout.data),
            machine.check_limits(),
            machine.check_ports(settings.candidates, self._taken_ports()),
            machine.check_secrets(secret_files.places()),
        )


def _lines(group_id: str, index: int, lines: Iterable[str]) -> Iterator[ports.LogLine]:
    for text in lines:
        yield ports.LogLine(group_id=group_id, index=index, text=text)


def _job_status(seen: instances.Look) -> model.InstanceStatus:
    """Of a job: running while its shim lives, and without an outcome only then."""
    runs = seen.passed is None and seen.shim is not None and not seen.stopping
    state = model.InstanceState.RUNNING if runs else model.InstanceState.EXITED
    return model.InstanceStatus(
        index=seen.index,
        state=model.InstanceState.STOPPING if seen.stopping else state,
        ready=seen.passed,
        pid=seen.app.pid if seen.app and runs else None,
        exit="" if runs else _end_of_job(seen),
    )


def _end_of_job(seen: instances.Look) -> str:
    if seen.state is not None and seen.passed is not None:
        return seen.state["exit"]
    if seen.state is not None and seen.state["boot"] != seen.boot:
        return "the machine was restarted before its end"
    return "" if seen.shim is not None else "its shim was killed before its end"


def _exit(seen: instances.Look) -> str:
    """How the instance ended last, in words."""
    state = seen.state
    if state is None or seen.app is not None or state["pid"] is None:
        return state["exit"] if state else ""
    if state["boot"] != seen.boot:
        return "the machine was restarted"
    return state["exit"] if seen.shim is not None else "ended while its shim was away: how is unknown"


def _port_of(app: procfs.Identity) -> int | None:
    """The port that a living app was started with, for an instance whose spec is lost."""
    port = procfs.environment(app.pid).get("PORT", "")
    return int(port) if port.isdecimal() else None


def _anonymous(key: model.EnvironmentKey, placement: int, service: str) -> model.InstanceGroup:
    """A stand-in for a group whose spec cannot be read: enough to stop it."""
    return model.InstanceGroup(
        key=key,
        placement=placement,
        service=service,
        release=0,
        digest="",
        run=("unknown",),
        serves=False,
        check=model.Check(kind=model.CheckKind.ALIVE),
        instances=1,
        environment=(),
        limits=model.Limits(),
        grace_s=10.0,
    )

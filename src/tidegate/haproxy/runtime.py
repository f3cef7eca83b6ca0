"""The router: HAProxy behind the protocol `ports.Router`.

Hides that there are several processes, files and a socket behind one route table. Neighbours: `config`
(text), `boot` (files), `wire` (socket), `readback` (meaning), `servers` (order of commands), `process`
(starting and stopping).

Invariants:
- The files are written before HAProxy is told: what runs is never newer than what a restart brings up.
- A route goes in by `prepare map` ... `commit map @version`. The version is taken before the route in
  force is read, so that a commit that was held up anywhere is refused by HAProxy once a newer one was made.
- Only a new service or a changed check needs a reload; everything else is said to the running process.
- Processes of before a reload pass requests on to the current one (base.cfg), so only what they still
  carry concerns us: it is counted, and cut when its server is removed.
"""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path
from typing import Final

from tidegate import revisions
from tidegate.core import model
from tidegate.errors import MissingProgramError, RouterError, StaleRouteError
from tidegate.haproxy import config, readback, servers
from tidegate.haproxy.boot import FORMAT, BootFiles, Record
from tidegate.haproxy.process import SupervisorProcess, SupervisorState
from tidegate.haproxy.settings import RouterSettings
from tidegate.haproxy.wire import Processes, Wire, garbled
from tidegate.ports import Finding

#: A look, or a batch of commands, takes a millisecond; a process that needs longer than this hangs.
ANSWER_TIMEOUT_S: Final = 1.0
#: An old process must not hold up the look at the current one.
OLD_ANSWER_TIMEOUT_S: Final = 0.3
#: HAProxy reads even a thousand services in a fraction of a second.
RELOAD_TIMEOUT_S: Final = 15.0
START_TIMEOUT_S: Final = 10.0
#: A healthy instance passes its first check within a few milliseconds; a slow one is met at the next call.
ADMISSION_S: Final = 0.15
ADMISSION_POLL_S: Final = 0.005
#: Connections of a deleted server are cut within milliseconds.
DELETION_TRIES: Final = 5
DELETION_PAUSE_S: Final = 0.01
#: File that numbers the looks at the router.
REVISION: Final = "revision"
#: A public service outgrows this soon.
FEW_CONNECTIONS: Final = 1_000
#: What HAProxy says of a command that it has carried out and that is not silent.
DONE: Final = ("New server registered.", "IP changed from ", "port changed from ", "no need to change ")


class HAProxyRouter:
    """One HAProxy per control plane; it outlives the control plane and is found again."""

    def __init__(self, folder: Path, settings: RouterSettings) -> None:
        """`folder` is the router's own; nothing is touched before `start`."""
        self._settings = settings
        self._boot = BootFiles(folder)
        self._wire = Wire(folder)
        self._process = SupervisorProcess(folder, settings)
        self._folder = folder
        self._revisions: revisions.Revisions | None = None

    # --- starting and stopping ---------------------------------------------------------------------

    def start(self) -> None:
        """Have HAProxy run with what was applied last; returns when it takes connections.

        Safe to repeat. One that runs already is adopted, without touching a connection, and reloaded if
        its settings have changed; only other ports or another program need a stop. Raises PortTakenError,
        MissingProgramError, StorageError, RouterError.
        """
        self._settings.program()
        base = config.base_text(self._settings)
        self._boot.make_folder()
        with self._boot.exclusive():
            state = self._process.state()
            if state is SupervisorState.STOPPING:
                self._process.wait_until_ended(self._settings.drain_s + START_TIMEOUT_S)
            if not self._process.serves_settings():
                self._process.refuse_taken_ports()
                self._stop(self._settings.drain_s)
            running = self._process.state() is SupervisorState.SERVING
            self._boot.prepare()
            self._try_out(base)
            changed = self._boot.write_base(base)
            if not running:
                self._process.launch()
            try:
                self._wait_until_serving()
            except RouterError:
                if not running:
                    self._process.stop(drain_s=0)  # what this call has started does not stay behind
                raise
            if changed and state is not SupervisorState.STOPPED:
                self._wire.reload(timeout_s=RELOAD_TIMEOUT_S)

    def stop(self, *, drain_s: float | None = None) -> None:
        """Take no more connections, give open ones `drain_s` to end, then end HAProxy. Raises RouterError."""
        with self._boot.exclusive():
            self._stop(self._settings.drain_s if drain_s is None else drain_s)

    def _stop(self, drain_s: float) -> None:
        state = self._process.state()
        if state is SupervisorState.LOST:
            self._process.launch()  # to adopt what may still run, for only a supervisor can stop it
        if state is not SupervisorState.STOPPED:
            self._process.stop(drain_s=drain_s)

    def _wait_until_serving(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                worker = self._wire.processes(timeout_s=ANSWER_TIMEOUT_S).worker
                self._wire.ask(worker, ["show info"], timeout_s=ANSWER_TIMEOUT_S)
            except RouterError as error:
                if time.monotonic() > deadline:
                    raise RouterError(f"HAProxy does not start. {self._process.log_tail()}") from error
                self._keep_supervised()  # it may have been killed since we found it alive
                time.sleep(ADMISSION_POLL_S)
            else:
                return

    def _keep_supervised(self) -> None:
        """A supervisor that was killed is replaced; HAProxy does not notice."""
        state = self._process.state()
        if state is SupervisorState.LOST:
            self._process.launch()
        elif state is not SupervisorState.SERVING:
            raise RouterError("The router does not run.", hint="Start it with `tide up`.")

    # --- ports.Router ------------------------------------------------------------------------------

    def apply(self, table: model.RouteTable, *, key: str) -> None:
        """See `ports.Router.apply`."""
        with self._boot.exclusive():
            held = self._boot.record(table.key)
            if held is not None:
                _refuse_older(held.table.route.fence, table)
            shape = config.structure(table, held.structure if held else ())
            record = Record(format=FORMAT, table=table, structure=shape)
            self._keep_supervised()
            try:
                processes = self._wire.processes(timeout_s=ANSWER_TIMEOUT_S)
                current = self._look(processes.worker, table.key)
            except RouterError:
                self._persist(record, check=held is None or held.structure != shape)
                raise
            _refuse_older(current.fence, table)
            reload = current.fingerprint != config.fingerprint(shape)
            self._persist(record, check=reload)
            if reload:
                self._wire.reload(timeout_s=RELOAD_TIMEOUT_S)
                processes = self._wire.processes(timeout_s=ANSWER_TIMEOUT_S)
            self._bring_current(processes.worker, table)
            self._cut_in_old(processes, table)

    def observe(self, environment: model.EnvironmentKey) -> model.RouteState:
        """See `ports.Router.observe`."""
        revision = self._next_revision()  # before the look: of two at the same time, the older says less
        self._keep_supervised()
        record = self._boot.record(environment)
        agrees = record is not None and self._boot.agrees(record)
        processes = self._wire.processes(timeout_s=ANSWER_TIMEOUT_S)
        current = self._look_and_measure(processes.worker, environment)
        old, unseen = self._look_at_old(processes, environment)
        return model.RouteState(
            revision=revision,
            boot=record.table if record is not None and agrees else None,
            route=current.route,
            servers=_server_statuses(environment, current, old, unseen=unseen),
            current=_is_current(current, record),
            traffic=_traffic(environment, [current, *old]),
            processes=tuple(sorted(look.generation for look in [current, *old])),
        )

    def check(self) -> tuple[Finding, ...]:
        """See `ports.Router.check`."""
        program = self._settings.binary or "HAProxy"
        try:
            program = self._settings.program()
            done = subprocess.run([program, "-v"], capture_output=True, text=True, timeout=5, check=True)
        except MissingProgramError as error:
            return (Finding(name="haproxy", ok=False, detail=error.message, hint=error.hint or ""),)
        except (OSError, subprocess.SubprocessError) as error:
            return (Finding(name="haproxy", ok=False, detail=f"{program} does not run: {error}"),)
        version = done.stdout
        found = Finding(name="haproxy", ok=" 2.8." in version, detail=version.splitlines()[0])
        state = self._process.state()
        running = Finding(name="router", ok=state is not SupervisorState.LOST, detail=f"supervisor {state}")
        connections = self._settings.connections()
        limit = Finding(
            name="router connections",
            ok=connections >= FEW_CONNECTIONS,
            detail=f"{connections} at once",
            hint="Raise the limit on open files (`ulimit -Hn`).",
        )
        return found, running, limit

    def _next_revision(self) -> int:
        if self._revisions is None:
            self._revisions = revisions.Revisions(self._folder / REVISION)
        return self._revisions.next()

    # --- files -------------------------------------------------------------------------------------

    def _persist(self, record: Record, *, check: bool) -> None:
        text = config.environment_text(record.table, record.structure)
        if check:
            self._try_out(config.base_text(self._settings), text)
        self._boot.write(record)

    def _try_out(self, *texts: str) -> None:
        """Have HAProxy read a configuration before it is put in force. Raises RouterError."""
        with self._boot.candidate("\n".join(texts)) as candidate:
            try:
                done = subprocess.run(
                    [self._settings.program(), "-c", "-f", candidate.name],
                    cwd=self._folder,
                    capture_output=True,
                    timeout=RELOAD_TIMEOUT_S,
                    check=False,
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise RouterError("HAProxy could not be asked to read its new configuration.") from error
        if done.returncode != 0:
            alerts = [line for line in done.stderr.decode(errors="replace").splitlines() if "[ALERT]" in line]
            raise RouterError(f"HAProxy would refuse its new configuration: {' '.join(alerts)[:800]}")

    # --- looking -----------------------------------------------------------------------------------

    def _look(
        self, pid: int, key: model.EnvironmentKey, *, timeout_s: float = ANSWER_TIMEOUT_S
    ) -> readback.Look:
        return readback.look(key, self._wire.ask(pid, readback.look_commands(key), timeout_s=timeout_s))

    def _look_and_measure(
        self, pid: int, key: model.EnvironmentKey, *, timeout_s: float = ANSWER_TIMEOUT_S
    ) -> readback.Look:
        """A look with the tables of what has answered; which that is, the look itself says."""
        look = self._look(pid, key, timeout_s=timeout_s)
        answers = self._wire.ask(pid, readback.table_commands(key, look), timeout_s=timeout_s)
        return readback.measured(key, look, answers)

    def _look_at_old(
        self, processes: Processes, key: model.EnvironmentKey
    ) -> tuple[list[readback.Look], bool]:
        """Looks at the processes of before a reload, and whether one that still lives could not be seen."""
        looks, failed = [], []
        for pid in processes.old:
            try:
                looks.append(self._look_and_measure(pid, key, timeout_s=OLD_ANSWER_TIMEOUT_S))
            except RouterError:
                failed.append(pid)
        alive = self._wire.processes(timeout_s=ANSWER_TIMEOUT_S).old if failed else ()
        return looks, any(pid in alive for pid in failed)

    # --- changing ----------------------------------------------------------------------------------

    def _bring_current(self, pid: int, table: model.RouteTable) -> None:
        """Servers in, then the maps, then servers out. Raises RouterError, StaleRouteError."""
        look = self._bring_servers_in(pid, table)
        for name, entries in config.map_entries(table).items():
            if sorted(look.entries[name]) != sorted(entries.items()):
                self._commit_map(pid, name, entries, table)
        self._take_servers_out(pid, look, table)

    def _bring_servers_in(self, pid: int, table: model.RouteTable) -> readback.Look:
        wants = servers.wanted(table)
        look = self._look(pid, table.key)
        self._do(pid, servers.bring_in(look.servers, wants))
        deadline = time.monotonic() + ADMISSION_S
        while servers.pending(look.servers, wants):
            look = self._look(pid, table.key)
            self._do(pid, servers.admit(look.servers, wants))
            if time.monotonic() > deadline:
                break
            time.sleep(ADMISSION_POLL_S)
        return look

    def _take_servers_out(self, pid: int, look: readback.Look, table: model.RouteTable) -> None:
        """Delete servers; one whose connections do not end at once is met at the next call."""
        wants = servers.wanted(table)
        commands = servers.take_out(look.servers, wants)
        for _ in range(DELETION_TRIES if commands else 0):
            answers = self._wire.ask(pid, commands, timeout_s=ANSWER_TIMEOUT_S)
            if all(answer == "Server deleted." for answer in answers[3::4]):
                return
            time.sleep(DELETION_PAUSE_S)
            commands = servers.take_out(self._look(pid, table.key).servers, wants)
            if not commands:
                return

    def _commit_map(self, pid: int, name: str, entries: dict[str, str], table: model.RouteTable) -> None:
        """Replace the environment's entries of one map, all at once or not at all."""
        prefix = config.owner_prefix(table.key)
        answer = self._one(pid, f"prepare map {name}")
        version = answer.removeprefix("New version created: ")
        if not version.isdigit():
            raise garbled(answer)
        before = readback.map_entries(self._one(pid, f"show map {name}"))
        if name == config.ROUTES:
            for entry in before:
                route = config.parse_route(entry[1]) if config.owned(name, prefix, entry) else None
                if route is not None:
                    _refuse_older(route.fence, table)
        after = {key: value for key, value in before if not config.owned(name, prefix, (key, value))}
        taken = [key for key in entries if key in after]
        if taken:
            raise RouterError(f"{taken[0]} belongs to {after[taken[0]]}: {table.key} cannot have it.")
        after.update(entries)
        commands = [f"add map @{version} {name} {key} {value}" for key, value in sorted(after.items())]
        self._do(pid, [*commands, f"commit map @{version} {name}"])

    def _cut_in_old(self, processes: Processes, table: model.RouteTable) -> None:
        """In processes of before a reload, end what is left to servers that the table does not name.

        Such a process ends with its last connection, at any time: that one does not answer is no fault.
        """
        prefix, wants = config.owner_prefix(table.key), servers.wanted(table)
        for pid in processes.old:
            with contextlib.suppress(RouterError):
                (answer,) = self._wire.ask(pid, ["show sess"], timeout_s=OLD_ANSWER_TIMEOUT_S)
                commands = servers.cut(readback.streams(answer), wants, prefix)
                self._wire.ask(pid, commands, timeout_s=OLD_ANSWER_TIMEOUT_S)

    def _one(self, pid: int, command: str) -> str:
        return self._wire.ask(pid, [command], timeout_s=ANSWER_TIMEOUT_S)[0]

    def _do(self, pid: int, commands: list[str]) -> None:
        """Carry out commands that answer nothing or a word of success. Raises RouterError at a refusal."""
        answers = self._wire.ask(pid, commands, timeout_s=ANSWER_TIMEOUT_S)
        for command, answer in zip(commands, answers, strict=True):
            if answer and not answer.startswith(DONE):
                verb = " ".join(command.split()[:2])
                raise RouterError(f"HAProxy refused `{verb}`: {answer[:200]}")


def _refuse_older(fence: int, table: model.RouteTable) -> None:
    if fence > table.route.fence:
        raise StaleRouteError(
            f"The router holds a newer route for {table.key} (fence {fence}) than what was asked for"
            f" (fence {table.route.fence}); nothing was changed."
        )


def _server_statuses(
    key: model.EnvironmentKey, current: readback.Look, old: list[readback.Look], *, unseen: bool
) -> tuple[model.ServerStatus, ...]:
    """Servers of the current process, with the sessions of all; of older processes only those in use."""
    elsewhere: dict[str, int] = {}
    for one in (server for look in old for server in look.servers):
        elsewhere[one.path] = elsewhere.get(one.path, 0) + one.sessions
    found = {one.path: one for one in current.servers}
    left = {one.path: one for look in old for one in look.servers if elsewhere[one.path]}
    statuses = []
    for path, one in sorted({**left, **found}.items()):
        service, slot = _service_and_slot(key, one.backend)
        here = path in found
        statuses.append(
            model.ServerStatus(
                service=service,
                slot=slot,
                name=one.name,
                host=one.host,
                port=one.port,
                up=here and one.running and one.ready,
                ready=here and one.ready,
                sessions=None if unseen else elsewhere.get(path, 0) + (one.sessions if here else 0),
                requests=one.requests if here else 0,
                errors=one.errors if here else 0,
            )
        )
    return tuple(statuses)


def _traffic(key: model.EnvironmentKey, looks: list[readback.Look]) -> tuple[model.Traffic, ...]:
    """Counts per backend and process."""
    result = []
    for look in looks:
        for name, count in sorted(look.counts.items()):
            service, slot = _service_and_slot(key, name)
            result.append(
                model.Traffic(
                    service=service,
                    slot=slot,
                    process=look.generation,
                    requests=sum(count.classes) + count.other,
                    errors=count.classes[-1],
                    connect_failures=count.connect_failures,
                    classes=count.classes,
                    bytes_in=count.bytes_in,
                    bytes_out=count.bytes_out,
                    active=count.active,
                    unanswered=count.unanswered,
                    latencies=look.latencies.get(name, ()),
                    user_errors=look.user_errors.get(name, ()),
                )
            )
    return tuple(result)


def _service_and_slot(key: model.EnvironmentKey, backend: str) -> tuple[str, int]:
    service, _, slot = backend.removeprefix(config.owner_prefix(key)).rpartition(".")
    return service, int(slot)


def _is_current(look: readback.Look, record: Record | None) -> bool:
    """Whether the running process has the structure, the hosts and the internal ports of the record."""
    if record is None:
        return look.fingerprint is None and not any(look.entries.values())
    if look.fingerprint != config.fingerprint(record.structure):
        return False
    wanted = config.map_entries(record.table)
    return all(
        sorted(look.entries[name]) == sorted(entries.items())
        for name, entries in wanted.items()
        if name != config.ROUTES
    )

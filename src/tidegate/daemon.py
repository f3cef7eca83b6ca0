"""The composition root: the only module that knows engine and adapters, and makes one process of them.

Started by `tide up`, detached, or in the foreground. The order of starting is the order of dependence:
folder, store (a second control plane stops here), lease, router, runtime, loop, API. Stopping it leaves
the apps and the router alone, unless everything shall stop.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import uvicorn

import tidegate
from tidegate import errors, inflow, launcher, paths, ports, telemetry
from tidegate.artifacts.content import ContentStore
from tidegate.clock import SystemClock
from tidegate.core import model, parts, promotions, requests, schemas
from tidegate.core.model import EnvironmentKey, InstanceGroup
from tidegate.engine import conveyor, delivery, desk, gates, loop, noise, operations, pipelines, series, watch
from tidegate.haproxy.runtime import HAProxyRouter
from tidegate.haproxy.settings import RouterSettings
from tidegate.launcher import Settings
from tidegate.migrators.processes import ProcessMigrator, Surroundings
from tidegate.runtimes.process import ProcessRuntime, ProcessSettings
from tidegate.store.audit import SqliteAudit
from tidegate.store.pipelines import SqlitePipelines
from tidegate.store.proofs import SqliteProofs
from tidegate.store.secrets import SqliteSecrets
from tidegate.store.series import SqliteSeries
from tidegate.store.sqlite import SqliteStore
from tidegate.store.tokens import SqliteTokens
from tidegate.vault import admitting, proofs
from tidegate.vault.opened import Vault
from tidegate.vault.redaction import RedactedRuntime, Redactor
from tidegate.web import api, audit, gate, identity, peer, schema, views
from tidegate.web import vault as vault_routes

LEASE_S: Final = 15.0
#: How long stopping all apps may take beyond their own grace.
STOP_LIMIT_S: Final = 60.0


@dataclass(slots=True, kw_only=True)
class ControlPlane:
    """One running control plane."""

    home: paths.Home
    settings: Settings
    store: SqliteStore
    router: HAProxyRouter
    runtime: ProcessRuntime
    vault: Vault
    watch: watch.Watch
    kept: SqliteSeries
    noise: noise.Noise
    recorder: series.Recorder
    migrator: ProcessMigrator
    lease: ports.Lease
    trust: identity.Trust
    audit_log: SqliteAudit
    checkpoints: audit.Checkpoints
    conveyor: conveyor.Conveyor | None = None
    flow: inflow.Inflow | None = None
    server: uvicorn.Server | None = None
    stop_everything: bool = False

    def request_stop(self) -> None:
        """Let the API finish its answers, then end. Callable from any thread."""
        if self.server is not None:
            self.server.should_exit = True

    def request_stop_everything(self) -> None:
        """The same, and stop all apps and the router."""
        self.stop_everything = True
        self.request_stop()

    def close(self) -> None:
        """After the API has ended."""
        if self.flow is not None:
            self.flow.stop()
        if self.conveyor is not None:
            self.conveyor.stop()
        self.watch.stop()
        self.migrator.close()
        self.recorder.stop()
        self.kept.close()
        self.checkpoints.stop()
        if self.stop_everything:
            _stop_apps(self)
        self.store.release_lease(self.lease)
        self.store.close()


def _router_settings(settings: Settings) -> RouterSettings:
    return RouterSettings(
        host=settings.host, port=settings.port, link_ports=tuple(range(*settings.link_ports))
    )


def _refuse_unknown_user(run_as: str) -> None:
    if run_as in ("auto", "same"):
        return
    try:
        pwd.getpwnam(run_as)
    except KeyError as error:
        raise errors.RequestError(
            f"There is no user {run_as} on this machine to run the apps as.",
            hint="Make the user, or use --run-as auto (a user of its own for each app) or same.",
        ) from error


def assemble(home: paths.Home, settings: Settings, redactor: Redactor) -> ControlPlane:
    """Everything started but the API. Raises TidegateError; then nothing is left running that was not."""
    home.create()
    _refuse_unknown_user(settings.run_as)
    clock = SystemClock()
    with contextlib.ExitStack() as undo:
        store = SqliteStore(home.database)
        undo.callback(store.close)
        # The lock on the data folder proves that the holder before us on this machine is gone: the same
        # name lets us take the lease over at once, with a new epoch.
        renewed_at = clock.monotonic()
        lease = store.acquire(f"{socket.gethostname()}:{home.root}", ttl_s=LEASE_S)
        content = ContentStore(home.packages)
        vault = _vault(home, store, lease, redactor, clock)
        audit_key = vault.keys.audit_key()
        log = SqliteAudit(store, lease, key=audit_key, checkpoint=home.keys / "audit.checkpoint")
        link_ports = tuple(range(*settings.link_ports))
        router = HAProxyRouter(home.router, _router_settings(settings))
        router.start()
        runtime = ProcessRuntime(
            home.instances,
            content=_admitting(content, vault, log, clock),
            secrets=vault.secrets.given,
            settings=ProcessSettings(
                run_as=settings.run_as, reserved_ports=frozenset((*link_ports, settings.port))
            ),
        )
        launcher.save_settings(home, settings)
        shown = RedactedRuntime(runtime, redactor)
        migrator = ProcessMigrator(_surroundings(vault, content, runtime, SqliteProofs(store, lease)))
        adapters = loop.Adapters(store=store, runtime=shown, router=router, migrator=migrator, clock=clock)
        controller = loop.Controller(adapters, lease, renewed_at=renewed_at)
        tokens = SqliteTokens(store, lease, key=audit_key)
        kept = SqliteSeries(home.series)
        replays = noise.Noise(kept, clock)
        recorder = series.Recorder(kept, clock, replays)
        plane = ControlPlane(
            home=home,
            settings=settings,
            store=store,
            router=router,
            runtime=runtime,
            vault=vault,
            lease=lease,
            trust=identity.Trust(owner=os.geteuid(), tokens=tokens, now=clock.now),
            audit_log=log,
            checkpoints=audit.Checkpoints(log),
            watch=watch.Watch(controller, store, clock, recorder),
            kept=kept,
            noise=replays,
            recorder=recorder,
            migrator=migrator,
        )
        plane.watch.on_lost = plane.request_stop
        plane.server = _server(plane, controller, content, clock, link_ports)
        undo.pop_all()
    return plane


def _vault(
    home: paths.Home, store: SqliteStore, lease: ports.Lease, redactor: Redactor, clock: ports.Clock
) -> Vault:
    """Keys, seals and secrets; from here on no value of a secret is shown. Raises StorageError."""
    rows = SqliteSecrets(store, lease)
    vault = Vault.open(home.keys, rows, redactor, now=clock.now, version=tidegate.__version__)
    log = telemetry.logger("vault")
    for error in vault.learn():
        log.error("secret cannot be opened", detail=str(error))
    return vault


def _admitting(
    content: ContentStore, vault: Vault, audit_log: ports.Audit, clock: ports.Clock
) -> admitting.Admitting:
    """What gives out the content of a group, when all is proved; what is wrong is logged and written down."""
    log = telemetry.logger("vault")

    def found(group: InstanceGroup, word: str, sentence: str) -> None:
        log.warning("package", found=word, group=group.id, release=group.release, detail=sentence)
        _write_down(audit_log, clock, _found(group.key, group.release, "start", word, sentence))

    checks = (
        admitting.with_admission(vault.seals),
        admitting.with_provenance(vault.origins.proved_of),
        vault.secrets.given,  # a value that does not open is found here, before anything is unpacked
    )
    return admitting.Admitting(content, checks, found=found)


def _surroundings(
    vault: Vault, content: ContentStore, runtime: ProcessRuntime, known: SqliteProofs
) -> Surroundings:
    """What runs migrations: the same admission and secrets as for what runs the app."""

    def group(job: schemas.MigrationJob) -> InstanceGroup:
        return InstanceGroup(
            key=EnvironmentKey(app=job.app, environment=job.environment),
            placement=0,
            service=promotions.MIGRATIONS,
            release=job.release,
            digest=job.digest,
            run=(job.use.path, job.use.database),
            serves=False,
            check=model.Check(kind=model.CheckKind.ALIVE),
            instances=1,
            environment=job.config,
            limits=parts.UNLIMITED,
            grace_s=0.0,
            secrets=job.secrets,
            admission=job.admission,
        )

    def values(job: schemas.MigrationJob) -> dict[str, str]:
        asked = group(job)
        admitting.admitted(vault.seals, asked)
        vault.origins.proved_of(job.app, job.release, job.digest)
        return vault.secrets.given(asked)

    def unpacked(job: schemas.MigrationJob) -> Path:
        content.verify(job.digest)
        return content.path(job.digest)

    def account(key: EnvironmentKey) -> tuple[int, int] | None:
        found = runtime.account(key)
        return (found.user, found.group) if found is not None else None

    return Surroundings(content=unpacked, values=values, account=account, proofs=known)


def _found(key: EnvironmentKey, release: int, action: str, word: str, sentence: str) -> ports.AuditEntry:
    """What the control plane sees by itself."""
    return ports.AuditEntry(
        at=0.0,
        by="tidegate",
        role="",
        action=action,
        app=key.app,
        environment=key.environment,
        release=release,
        outcome="found",
        reason=word,
        detail=sentence[: gate.DETAIL_MAX],
    )


def _write_down(audit_log: ports.Audit, clock: ports.Clock, entry: ports.AuditEntry) -> None:
    try:
        audit_log.append(replace(entry, at=clock.now()))
    except errors.TidegateError as error:  # what was found is refused all the same
        telemetry.logger("audit").warning("finding not in the audit log", detail=str(error))


def _delivery(plane: ControlPlane, act: operations.Operations, door: gates.Gates) -> delivery.Delivery:
    """The pipeline, whose rollouts are begun by the same operations as everybody's."""

    def enter(
        key: EnvironmentKey, release: model.Release, promotion: promotions.Promotion
    ) -> requests.Decision:
        return delivery.enter(act, key, release, promotion)

    def send_home(key: EnvironmentKey, rollout: int) -> None:
        with contextlib.suppress(errors.RequestError):  # it has ended by itself
            act.steer(key, lambda state: requests.abort(state, by="tidegate", rollout=rollout))

    def wake() -> None:
        if plane.conveyor is not None:
            plane.conveyor.wake()

    carried = pipelines.Pipelines(
        store=plane.store,
        kept=door.kept,
        lease=plane.lease,
        clock=act.clock,
        gates=door,
        enter=enter,
        send_home=send_home,
        wake=wake,
        stopped=lambda key, release, why: _write_down(
            plane.audit_log, act.clock, _found(key, release, "promotion", "stopped", why)
        ),
    )
    return delivery.Delivery(operations=act, pipelines=carried, gates=door)


def _server(
    plane: ControlPlane,
    controller: loop.Controller,
    content: ContentStore,
    clock: ports.Clock,
    link_ports: tuple[int, ...],
) -> uvicorn.Server:
    door = gates.Gates(
        store=plane.store,
        kept=SqlitePipelines(plane.store),
        seals=plane.vault.seals,
        content=content,
        clock=clock,
        found=lambda key, release, what: _write_down(
            plane.audit_log, clock, _found(key, release, "gate", "changed-record", what)
        ),
    )
    act = operations.Operations(
        controller=controller,
        store=plane.store,
        lease=plane.lease,
        clock=clock,
        content=content,
        link_ports=link_ports,
        memory=plane.recorder,
        secrets=plane.vault.secrets,
        origins=plane.vault.origins,
        gates=door,
        wake=plane.watch.wake,
    )
    deliver = _delivery(plane, act, door)
    plane.conveyor = conveyor.Conveyor(deliver.pipelines, plane.store, plane.watch.view)
    context = api.Context(
        operations=act,
        delivery=deliver,
        pipeline_trouble=plane.conveyor.trouble,
        trust=plane.trust,
        audit=plane.audit_log,
        store=plane.store,
        runtime=RedactedRuntime(plane.runtime, plane.vault.redactor),
        content=content,
        series=plane.kept,
        noise=plane.noise.sentence,
        watched=plane.watch,
        listening=views.Listening(host=plane.settings.host, port=plane.settings.port),
        version=tidegate.__version__,
        home=str(plane.home.root),
        pid=os.getpid(),
        back_up=lambda path: _back_up(plane.store, path),
        check=lambda: inflow.findings(plane.router, plane.runtime, plane.store, plane.flow),
        stop=plane.request_stop,
        stop_apps=plane.request_stop_everything,
    )
    app = api.create_app(context)
    vault_routes.add(app, _vault_parts(plane, context.operations, content))
    schema.add(app, desk.Desk(operations=context.operations, ask=plane.migrator.ask))
    plane.flow = _inflow(plane, deliver, content)
    plane.flow.add_routes(app)
    config = uvicorn.Config(
        app,
        http=peer.PeerProtocol,
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(config)


def _inflow(plane: ControlPlane, deliver: delivery.Delivery, content: ContentStore) -> inflow.Inflow:
    """What brings commits in, and hands their releases to the pipeline."""
    return inflow.Inflow(
        inflow.Given(
            home=plane.home,
            store=plane.store,
            lease=plane.lease,
            clock=deliver.operations.clock,
            content=content,
            operations=deliver.operations,
            promote=deliver.promote,
            promotion=deliver.pipelines.kept.promotion,
            write_down=lambda entry: _write_down(plane.audit_log, deliver.operations.clock, entry),
            account=plane.runtime.account,
            hooks_port=plane.settings.hooks_port,
        )
    )


def _vault_parts(
    plane: ControlPlane, act: operations.Operations, content: ContentStore
) -> vault_routes.Parts:
    def passes(release: model.Release) -> list[proofs.Sealed]:
        found = act.gates.kept.passes(release.app, promotions.identity(release))
        return [proofs.Sealed(environment=one.environment, envelope=one.seal) for one in found]

    return vault_routes.Parts(
        vault=plane.vault, store=plane.store, operations=act, content=content, passes=passes
    )


def _back_up(store: SqliteStore, path: Path) -> int:
    """Write the state into a new file; its size in bytes. Raises RequestError, StorageError."""
    if os.path.lexists(path):
        raise errors.RequestError(
            f"{path} is there already; nothing was written.", hint="Choose a name that is free."
        )
    store.backup(path)
    return path.stat().st_size


def _api_socket(home: paths.Home) -> socket.socket:
    """Listening, for this user only. The store's lock proves that an old file belongs to nobody."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        home.socket.unlink(missing_ok=True)
        listener.bind(str(home.socket))
    except OSError as error:
        raise errors.StorageError(f"The socket {home.socket} cannot be made: {error.strerror}.") from error
    finally:
        os.umask(before)
    listener.listen(128)
    return listener


def doctor(home: paths.Home) -> tuple[ports.Finding, ...]:
    """What every part says of this machine, where no control plane runs to be asked."""
    home.create()
    router = HAProxyRouter(home.router, _router_settings(launcher.load_settings(home)))
    with contextlib.ExitStack() as stack:
        content = ContentStore(home.packages)
        runtime = ProcessRuntime(home.instances, content=lambda group: content.path(group.digest))
        stack.callback(runtime.close)
        store = SqliteStore(home.database)
        stack.callback(store.close)
        return (*router.check(), *runtime.check(), *store.check())


def serve(home: paths.Home, settings: Settings, *, on_ready: Callable[[], None]) -> None:
    """Run a control plane in this process until it is told to stop.

    Raises TidegateError if it cannot start.
    """
    redactor = Redactor()
    telemetry.configure(redactor.processor)
    log = telemetry.logger("daemon")
    plane = assemble(home, settings, redactor)
    listener = _api_socket(home)
    plane.watch.start()
    if plane.conveyor is not None:
        plane.conveyor.start()
    if plane.flow is not None:
        plane.flow.start()
    plane.recorder.start()
    plane.checkpoints.start()
    log.info("started", version=tidegate.__version__, home=str(home.root), pid=os.getpid())
    on_ready()
    try:
        if plane.server is not None:
            plane.server.run(sockets=[listener])
    finally:
        home.socket.unlink(missing_ok=True)
        plane.close()
        log.info("stopped", everything=plane.stop_everything)


def _stop_apps(plane: ControlPlane) -> None:
    """First the way in, then who answers: nothing new arrives while instances end their work."""
    plane.router.stop()
    deadline = time.monotonic() + STOP_LIMIT_S
    keys = plane.store.environments()
    for key in keys:
        for group in plane.runtime.observe(key).groups:
            plane.runtime.remove(group.id, key=f"stop:{group.id}")
    while _running(plane, keys) and time.monotonic() < deadline:
        time.sleep(0.05)
    plane.runtime.close()


def _running(plane: ControlPlane, keys: tuple[EnvironmentKey, ...]) -> bool:
    return any(plane.runtime.observe(key).groups for key in keys)


def main(arguments: list[str]) -> int:
    """Entry point of the detached process: folder, settings as JSON, descriptor to report on."""
    root, settings_text, ready_text = arguments
    settings = launcher.settings_of(json.loads(settings_text))
    ready = int(ready_text)

    def report(line: bytes) -> None:
        with contextlib.suppress(OSError):  # who started us has gone: nobody to tell
            os.write(ready, line + b"\n")
            os.close(ready)

    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        serve(paths.Home(Path(root)), settings, on_ready=lambda: report(launcher.READY))
    except errors.TidegateError as error:
        report(json.dumps(errors.problem(error)).encode())
        return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

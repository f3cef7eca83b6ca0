"""The part of the composition root that brings commits in: repositories, builds, webhooks, status reports.

Hides which threads there are. Started after the loop, because what is built is delivered; stopped before it.
Neighbours: `daemon` hands in what both need, and is the only one that does.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import uvicorn
from fastapi import FastAPI

from tidegate import errors, paths, ports, telemetry
from tidegate.artifacts import builder, package
from tidegate.artifacts.content import ContentStore
from tidegate.core.model import EnvironmentKey
from tidegate.core.promotions import Ended, Promotion
from tidegate.engine import builds, reports, workshop
from tidegate.engine.operations import Asked, Operations
from tidegate.migrators import brought
from tidegate.runtimes.accounts import FIRST_USER, LAST_USER, Account
from tidegate.sources import checkouts, output, processes, statuses
from tidegate.sources.arrivals import Arrivals
from tidegate.sources.keys import Keys
from tidegate.sources.repositories import Repositories
from tidegate.sources.watching import Watching
from tidegate.store.sources import SqliteSources
from tidegate.store.sqlite import SqliteStore
from tidegate.web import hooks
from tidegate.web import sources as web_sources

#: Headers and bodies of webhooks are small, and who sends them waits for nothing.
CONNECTIONS_MAX: Final = 64
IDLE_S: Final = 5
STOP_S: Final = 5.0
#: No environment is called so: builds have a user of their own, who is none of the app's.
BUILDER: Final = "_build"


class Checked(Protocol):
    """A part that looks at this machine."""

    def check(self) -> tuple[ports.Finding, ...]:
        """What would keep it from working."""


def findings(*parts: Checked | None) -> tuple[ports.Finding, ...]:
    """What all parts say, in this order."""
    return tuple(finding for part in parts if part is not None for finding in part.check())


class Promote(Protocol):
    """The pipeline's entrance."""

    def __call__(self, app: str, release: int, to: str | None, asked: Asked, *, supersede: bool) -> Promotion:
        """Raises NotFoundError, RefusedError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the daemon has made already."""

    home: paths.Home
    store: SqliteStore
    lease: ports.Lease
    clock: ports.Clock
    content: ContentStore
    operations: Operations
    promote: Promote
    promotion: Callable[[str, int], Promotion | None]
    """One that was begun, by app and id."""
    write_down: Callable[[ports.AuditEntry], None]
    """Into the audit log, or the control plane's own where that cannot be written."""
    account: Callable[[EnvironmentKey], Account | None]
    """Who runs what belongs to an environment; None: our own user."""
    hooks_port: int
    """0: no webhooks."""


class Inflow:
    """All of it, for one control plane."""

    def __init__(self, given: Given) -> None:
        self._given = given
        rows = SqliteSources(given.store)
        repositories = Repositories(given.home.repositories)
        self.arrivals = Arrivals(
            store=rows,
            lease=given.lease,
            repositories=repositories,
            keys=Keys(given.home.repositories / "webhooks"),
            now=given.clock.now,
            wake=lambda: self.builds.wake(),  # noqa: PLW0108 - made below, and with this
            hinted=lambda: self.watching.wake(),  # noqa: PLW0108 - the same
            refused=self._refused,
        )
        self.outputs = output.Outputs(given.home.repositories / "output")
        self.builds = builds.Builds(self._build_parts(rows, repositories))
        self.watching = Watching(rows, self.arrivals.look, given.clock.monotonic)
        told = reports.Reports(
            sources=rows.sources,
            pushes=rows,
            statuses=rows,
            store=given.store,
            lease=given.lease,
            now=given.clock.now,
            stopped=self._stopped,
        )
        self.reporter = statuses.Reporter(
            statuses.Parts(
                statuses=rows,
                push=rows.push,
                source=rows.source,
                lease=given.lease,
                now=given.clock.now,
                prepare=told.step,
            )
        )
        self._listener = _listener(given.hooks_port) if given.hooks_port else None
        self._log = telemetry.logger("sources")
        self._beginning = threading.Thread(target=self._begin, name="sources", daemon=True)
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def add_routes(self, app: FastAPI) -> None:
        """Sources and pushes over the API."""
        context = web_sources.Context(
            arrivals=self.arrivals,
            outputs=self.outputs,
            clock=self._given.clock,
            trouble=self.watching.trouble,
        )
        web_sources.add(app, context)

    def check(self) -> tuple[ports.Finding, ...]:
        """For `tide doctor`; nothing where no app has a source: git is needed for them only."""
        if not self.arrivals.store.sources():
            return ()
        try:
            version = self.arrivals.repositories.require_git()
        except errors.TidegateError as error:
            return (ports.Finding(name="git", ok=False, detail=error.message, hint=error.hint or ""),)
        return (ports.Finding(name="git", ok=True, detail=f"{version} takes and fetches commits"),)

    def start(self) -> None:
        """Begin."""
        self._beginning.start()
        self.watching.start()
        self.reporter.start()
        if self._listener is not None:
            self._serve_hooks(self._listener)

    def _begin(self) -> None:
        """Repositories first: git takes its time, and the control plane answers meanwhile."""
        for app, error in self.arrivals.recover():
            self._log.warning("source is not in order", app=app, detail=str(error))
        self.builds.start()

    def stop(self) -> None:
        """End; what was under way goes on after the next start."""
        if self._beginning.ident is not None:
            self._beginning.join()
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(STOP_S)
        self.watching.stop()
        self.builds.stop()
        self.reporter.stop()

    def _serve_hooks(self, listener: socket.socket) -> None:
        context = hooks.Context(
            source=self.arrivals.store.source,
            keys=self.arrivals.keys.valid,
            hear=self.arrivals.hear,
            refused=self._refused,
            monotonic=self._given.clock.monotonic,
        )
        config = uvicorn.Config(
            hooks.Hooks(context),
            log_config=None,
            access_log=False,
            lifespan="off",
            http="h11",
            ws="none",
            server_header=False,
            date_header=False,
            proxy_headers=False,
            limit_concurrency=CONNECTIONS_MAX,
            timeout_keep_alive=IDLE_S,
            timeout_graceful_shutdown=1,
        )
        server = self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=lambda: server.run(sockets=[listener]), name="hooks", daemon=True
        )
        self._thread.start()

    def _build_parts(self, rows: SqliteSources, repositories: Repositories) -> builds.Parts:
        given, home = self._given, self._given.home
        shop = workshop.Workshop(
            checkouts=checkouts.Checkouts(root=home.builds, repositories=repositories),
            build=builder.build,
            pack=package.pack,
            content=given.content,
            marks=workshop.Marks(
                variable=processes.MARK,
                value=lambda push: processes.mark(home.root, push),
                end=lambda push: processes.end(processes.mark(home.root, push), whole=push is not None),
                end_user=_end_user,
            ),
            scripts=lambda folder, parsed: brought.check(folder, parsed.environments),
            account=self._account,
        )
        return builds.Parts(
            pushes=rows,
            source=rows.source,
            lease=given.lease,
            now=given.clock.now,
            workshop=shop,
            outputs=self.outputs,
            add_release=given.operations.add_release,
            release=given.store.release,
            deliver=self._deliver,
            tidy=self.arrivals.tidy,
        )

    def _deliver(self, app: str, release: int, to: str, asked: Asked, *, supersede: bool) -> int:
        return self._given.promote(app, release, to, asked, supersede=supersede).id

    def _stopped(self, app: str, promotion: str) -> str:
        """Why a promotion ended before its target; empty: it did not."""
        found = self._given.promotion(app, int(promotion)) if promotion.isdigit() else None
        if found is None or found.ended in (None, Ended.ARRIVED):
            return ""
        return f"r{found.release} {found.ended.value} before {found.environment}: {found.detail}"

    def _account(self, app: str) -> tuple[int, int] | None:
        """Of builds: not ours, who holds the keys, nor one that an app runs as."""
        found = self._given.account(EnvironmentKey(app=app, environment=BUILDER))
        return (found.user, found.group) if found is not None else None

    def _refused(self, app: str, reason: str, detail: str) -> None:
        self._given.write_down(
            ports.AuditEntry(
                at=self._given.clock.now(),
                by="",
                role="",
                action="webhook",
                app=app,
                outcome="refused",
                reason=reason,
                detail=detail,
            )
        )


def _end_user(user: int) -> None:
    """Not where builds run as a user whom somebody has named: apps run as that one too."""
    if FIRST_USER <= user <= LAST_USER:
        processes.end_user(user)


def _listener(port: int) -> socket.socket:
    """On loopback only: a proxy with TLS stands before it. Raises PortTakenError."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except OSError as error:
        listener.close()
        raise errors.PortTakenError(
            f"The port {port} for webhooks cannot be had: {os.strerror(error.errno or 0)}.",
            hint="Choose another with `tide up --hooks-port`, or 0 for none.",
        ) from error
    listener.listen(128)
    return listener

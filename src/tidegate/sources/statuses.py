"""Tells forges how a commit fared: GitHub, GitLab, Gitea and Forgejo.

Hides their paths, headers and words. Invariants: only the address that an admin has set is asked, over https
or on this machine, without redirects, without a proxy of the environment; the token is read from its file for
each report, which nobody else may read, and is never kept, logged or shown; of an answer only its status is
looked at. What is not taken is told again later, less and less often, and given up in the end. Neighbours:
`engine.reports` says what is to be told.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import httpx
import structlog

from tidegate import errors, ports
from tidegate.pushes import Forge, Push, Source, Status, Statuses, StatusReport
from tidegate.sources import refs, remotes

TIMEOUT_S: Final = 10.0
ROUND_S: Final = 2.0
#: After a first failure; doubled with each, up to an hour: the last attempt is a day later.
PAUSE_S: Final = 5.0
PAUSE_S_MAX: Final = 3600.0
ATTEMPTS_MAX: Final = 32
TOKEN_BYTES_MAX: Final = 4096
#: Answers that another attempt may change; all other refusals are final.
_PASSING: Final = frozenset({408, 409, 425, 429})
_SUCCESS: Final = 200
_NOT_SUCCESS: Final = 300
_CLIENT: Final = 400
_SERVER: Final = 500

#: GitLab's word for it.
_FAILED: Final = {"failure": "failed"}


class GivenUpError(errors.SourceError):
    """The forge will never take this."""


def request(report: StatusReport, revision: str, status: Status, token: str) -> httpx.Request:
    """What is sent to the forge. Raises RequestError for an address that is not allowed."""
    base = remotes.checked_api(report.url)
    if not refs.is_revision(revision):
        raise errors.RequestError("That is not the whole name of a commit.")
    project = remotes.checked_project(report.project)
    body = {"state": status.state, "description": status.description}
    if report.forge is Forge.GITLAB:
        body["state"] = _FAILED.get(status.state, status.state)
        url = f"{base}/projects/{quote(project, safe='')}/statuses/{revision}"
        return httpx.Request("POST", url, json={**body, "name": status.context}, headers=_gitlab(token))
    url = f"{base}/repos/{project}/statuses/{revision}"
    scheme = "Bearer" if report.forge is Forge.GITHUB else "token"
    headers = {"Authorization": f"{scheme} {token}", "Accept": "application/json"}
    return httpx.Request("POST", url, json={**body, "context": status.context}, headers=headers)


def _gitlab(token: str) -> dict[str, str]:
    return {"PRIVATE-TOKEN": token, "Accept": "application/json"}


def token(path: str) -> str:
    """The token in a file that only its owner may read. Raises SourceError, which never shows it."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode) or about.st_mode & 0o077:
                raise errors.SourceError(
                    f"The token file {path} may be read by others.", hint=f"chmod 600 {path}"
                )
            text = file.read(TOKEN_BYTES_MAX).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not ASCII"
        raise errors.SourceError(f"The token file {path} cannot be read: {why}.") from error
    if not text or not text.isprintable() or " " in text:
        raise errors.SourceError(f"The token file {path} holds no token.")
    return text


def tell(report: StatusReport, revision: str, status: Status) -> None:
    """Send one report. Raises SourceError when it may be tried again, GivenUpError when not."""
    try:
        asked = request(report, revision, status, token(report.token_file))
    except errors.RequestError as error:
        raise GivenUpError(error.message) from error
    try:
        with (
            httpx.Client(timeout=TIMEOUT_S, follow_redirects=False, trust_env=False) as client,
            contextlib.closing(client.send(asked, stream=True)) as answer,
        ):
            code = answer.status_code
    except (httpx.HTTPError, OSError) as error:
        raise errors.SourceError(f"{report.url} cannot be reached: {type(error).__name__}.") from error
    if _SUCCESS <= code < _NOT_SUCCESS:
        return
    said = f"{report.url} answered {code}."
    if _CLIENT <= code < _SERVER and code not in _PASSING:
        raise GivenUpError(said, hint="Is the project right, and may the token write statuses?")
    raise errors.SourceError(said)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything that is used."""

    statuses: Statuses
    push: Callable[[int], Push | None]
    source: Callable[[str], Source | None]
    lease: ports.Lease
    now: Callable[[], float]
    prepare: Callable[[], None]
    """Puts what is to be told into the outbox."""
    tell: Callable[[StatusReport, str, Status], None] = tell


class Reporter:
    """The thread that tells, until it is told to stop."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._stop = threading.Event()
        self._log: structlog.typing.FilteringBoundLogger = structlog.get_logger(part="statuses")
        self._thread = threading.Thread(target=self._run, name="statuses", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; what was not told is told after the next start."""
        self._stop.set()
        self._thread.join(TIMEOUT_S + ROUND_S)

    def step(self) -> None:
        """Tell all that is due."""
        self._parts.prepare()
        for status in self._parts.statuses.due(at=self._parts.now()):
            if self._stop.is_set():
                return
            self._tell(status)

    def _tell(self, status: Status) -> None:
        push = self._parts.push(status.push)
        source = self._parts.source(push.app) if push else None
        lease = self._parts.lease
        if push is None or source is None or source.report is None:
            self._parts.statuses.told(lease, status)
            return
        try:
            self._parts.tell(source.report, push.revision, status)
        except errors.SourceError as error:
            final = isinstance(error, GivenUpError) or status.attempts + 1 >= ATTEMPTS_MAX
            if final or not status.attempts:
                self._log.warning(
                    "status not told", app=push.app, push=push.id, given_up=final, detail=str(error)
                )
            if not final:
                pause_s = min(PAUSE_S * 2**status.attempts, PAUSE_S_MAX)
                self._parts.statuses.retry(lease, status, due_at=self._parts.now() + pause_s)
                return
        self._parts.statuses.told(lease, status)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self.step()
            except errors.FencedError:
                return
            except errors.TidegateError as error:
                self._log.warning("statuses wait", detail=str(error))
            except Exception:  # noqa: BLE001 - a forge must not end the reports to all others
                self._log.exception("unexpected error in the status reports")
            self._stop.wait(ROUND_S)

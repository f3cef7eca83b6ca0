"""Typed client of the control plane's API, over its Unix socket.

Turns problem objects back into the exception tree, so that the CLI shows one kind of error wherever it
arose. Neighbours: `cli` and `demo` use it; `web.api` is the other end.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote

import httpx

from tidegate import errors

#: An upload or a decision may wait for the disk; a local answer that takes longer will not come.
TIMEOUT_S: Final = 60.0
#: To walk along a log of a million entries.
VERIFY_S: Final = 600.0
TOKEN: Final = re.compile(r"tide_[A-Za-z0-9_-]{43}")

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Place:
    """One environment of one app, as a path of the API."""

    app: str
    environment: str

    @property
    def path(self) -> str:
        return f"/v1/apps/{self.app}/environments/{self.environment}"


class Client:
    """Calls the control plane; use as a context manager."""

    def __init__(self, path: Path, *, token: str = "", on_behalf_of: str = "") -> None:
        """`path`: of the socket. `token`: who asks; default: the user of this process, whom the kernel knows.

        `on_behalf_of`: whom an admin speaks for, for the history. Raises RequestError.
        """
        self._socket = path
        self._reached = False
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(path)),
            base_url="http://tidegate",
            headers=_headers(token, on_behalf_of),
            timeout=TIMEOUT_S,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def status(self) -> Json:
        """The control plane and all environments."""
        return self._json("GET", "/v1/status")

    def findings(self) -> list[Json]:
        """What every part of the running control plane says of this machine."""
        return self._list("/v1/findings", {})

    def back_up(self, file: Path) -> Json:
        """Let the control plane write its state into a new file. `file`: absolute."""
        return self._json("POST", "/v1/backup", {"file": str(file)})

    def shutdown(self, *, apps: bool) -> None:
        """Stop the control plane; with `apps`, everything."""
        self._json("POST", "/v1/shutdown", {"apps": apps})

    def has_package(self, digest: str) -> bool:
        """The content store holds it."""
        return bool(self._json("GET", f"/v1/packages/{digest}")["kept"])

    def upload(self, chunks: Iterable[bytes], *, digest: str) -> Json:
        """Send a packed archive."""
        return self._json("POST", f"/v1/packages?digest={digest}", content=chunks)

    def add_release(self, *, manifest: str, digest: str, revision: str, repository: str = "") -> Json:
        """Number a release, or find the one that is the same."""
        body = {"manifest": manifest, "digest": digest, "revision": revision, "repository": repository}
        return self._json("POST", "/v1/releases", body)

    def releases(self, app: str, *, limit: int = 50) -> list[Json]:
        """Newest first."""
        return self._list(f"/v1/apps/{app}/releases", {"limit": limit})

    def release(self, app: str, number: int) -> Json:
        """One release."""
        return self._json("GET", f"/v1/apps/{app}/releases/{number}")

    def environment(self, place: Place) -> Json:
        """Everything about one environment now."""
        return self._json("GET", place.path)

    def act(self, place: Place, action: str, **body: Any) -> Json:
        """`deploy`, `rollback`, `abort`, `pause`, `resume`, `promote` or `plan`."""
        return self._json("POST", f"{place.path}/{action}", body)

    def schema(self, place: Place) -> Json:
        """What stands in the database's ledger."""
        return self._json("GET", f"{place.path}/schema")

    def schema_plan(self, place: Place, release: int) -> Json:
        """How a rollout of this release would go through the database."""
        return self._json("GET", f"{place.path}/schema/plan?release={release}")

    def pipeline(self, app: str) -> Json:
        """Environments in their order, and what is on its way."""
        return self._json("GET", f"/v1/apps/{app}/pipeline")

    def promotion(self, app: str, number: int) -> Json:
        """One release on its way."""
        return self._json("GET", f"/v1/apps/{app}/promotions/{number}")

    def history(self, place: Place, *, limit: int = 50) -> list[Json]:
        """Rollouts, newest first."""
        return self._list(f"{place.path}/history", {"limit": limit})

    def events(self, place: Place, *, after: int = 0) -> list[Json]:
        """Decisions, oldest first."""
        return self._list(f"{place.path}/events", {"after": after})

    def points(self, place: Place, rollout: int) -> list[Json]:
        """How a canary went, oldest first: a `Point` a second, or longer ones of a long rollout."""
        return self._list(f"{place.path}/rollouts/{rollout}/points", {})

    def series(
        self, place: Place, *, since: int | None = None, until: int | None = None, step: int | None = None
    ) -> list[Json]:
        """What was answered, oldest first: a `SeriesRow` per `step` seconds, placement and public service."""
        asked = {"since": since, "until": until, "step": step}
        return self._list(
            f"{place.path}/series", {name: value for name, value in asked.items() if value is not None}
        )

    def preview(self, place: Place) -> Json:
        """How to see the incoming release first."""
        return self._json("GET", f"{place.path}/preview")

    def sources(self) -> list[Json]:
        """Where the releases of each app come from."""
        return self._list("/v1/sources", {})

    def source(self, app: str) -> Json:
        """The same of one app."""
        return self._json("GET", f"/v1/apps/{app}/source")

    def keep_source(self, app: str, body: Json) -> Json:
        """Add the source of an app, or change it."""
        return self._json("PUT", f"/v1/apps/{app}/source", body)

    def remove_source(self, app: str) -> Json:
        """The app gets no more commits; its repository is gone."""
        return self._json("DELETE", f"/v1/apps/{app}/source")

    def act_on_source(self, app: str, action: str, **body: Any) -> Json:
        """`secret`, `build`, `check` or `receive`."""
        return self._json("POST", f"/v1/apps/{app}/source/{action}", body or None)

    def pushes(self, app: str | None = None, *, limit: int = 50) -> list[Json]:
        """Newest first, of one app or of all."""
        return self._list("/v1/pushes" if app is None else f"/v1/apps/{app}/pushes", {"limit": limit})

    def push(self, app: str, number: int) -> Json:
        """One commit on its way."""
        return self._json("GET", f"/v1/apps/{app}/pushes/{number}")

    def push_output(
        self, app: str, number: int, *, attempt: int = 0, after: int = 0, follow: bool = False
    ) -> Iterator[str]:
        """Lines of a build, each a JSON object, behind line `after` of that attempt; `follow`: to its end."""
        params = {"attempt": attempt, "after": after, "follow": follow}
        yield from self._lines(f"/v1/apps/{app}/pushes/{number}/output", params, follow=follow)

    def logs(
        self,
        place: Place,
        *,
        service: str | None = None,
        placement: int | None = None,
        tail: int = 100,
        follow: bool = False,
    ) -> Iterator[str]:
        """Lines of output, each a JSON object, as they come."""
        asked = {"service": service, "placement": placement, "tail": tail, "follow": follow}
        params = {name: value for name, value in asked.items() if value is not None}
        yield from self._lines(f"{place.path}/logs", params, follow=follow)

    def secrets(self, place: Place) -> list[Json]:
        """Names and versions, without values."""
        return self._list(f"{place.path}/secrets", {})

    def set_secret(self, place: Place, name: str, value: str) -> Json:
        """A new version; what runs goes on with the one that it has."""
        return self._json("PUT", f"{place.path}/secrets/{quote(name, safe='')}", {"value": value})

    def remove_secret(self, place: Place, name: str) -> Json:
        """All versions."""
        return self._json("DELETE", f"{place.path}/secrets/{quote(name, safe='')}")

    def rotate_secrets(self, place: Place) -> Json:
        """Seal all of an environment with a new key."""
        return self._json("POST", f"{place.path}/secrets-key")

    def configuration(self, place: Place, release: int | None = None) -> Json:
        """Of what is live, or of a release as it would be."""
        params = {} if release is None else {"release": release}
        return _object(self._call("GET", f"{place.path}/configuration", params=params))

    def public_keys(self) -> list[Json]:
        """Our own, the one in use first, and those that are trusted."""
        return self._list("/v1/keys", {})

    def trust_key(self, name: str, pem: str) -> Json:
        """Believe what this key says of where artifacts come from."""
        return self._json("POST", "/v1/keys", {"name": name, "pem": pem})

    def distrust_key(self, name: str) -> Json:
        """Believe it no more."""
        return self._json("DELETE", f"/v1/keys/{quote(name, safe='')}")

    def rotate_key(self) -> Json:
        """Sign with a new key."""
        return self._json("POST", "/v1/keys/rotate")

    def proof(self, app: str, number: int, *, repair: bool = False) -> Json:
        """What can be proved of a release; with `repair` unpacked again before."""
        path = f"/v1/apps/{app}/releases/{number}"
        method, what = ("POST", "repair") if repair else ("GET", "proof")
        return _object(self._call(method, f"{path}/{what}", timeout=VERIFY_S))

    def export_release(self, app: str, number: int) -> Iterator[bytes]:
        """A release in one file, piece by piece."""
        self._reach()
        try:
            with self._http.stream("GET", f"/v1/apps/{app}/releases/{number}/export") as response:
                if response.is_error:
                    response.read()
                _raise_for(response)
                yield from response.iter_bytes()
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def import_release(self, chunks: Iterable[bytes]) -> Json:
        """Take in what another control plane has exported."""
        return self._json("POST", "/v1/releases/import", content=chunks)

    def create_token(self, name: str, *, role: str, environments: list[str], expires_s: float | None) -> Json:
        """A new token: its text is answered only here."""
        body = {"name": name, "role": role, "environments": environments, "expires_s": expires_s}
        return self._json("POST", "/v1/tokens", body)

    def tokens(self) -> list[Json]:
        """Newest first."""
        return self._list("/v1/tokens", {})

    def revoke_token(self, name: str) -> Json:
        """The token of that name counts no more."""
        return self._json("DELETE", f"/v1/tokens/{quote(name, safe='')}")

    def audit(self, **wanted: str | int) -> list[Json]:
        """Entries of the audit log, newest first."""
        return self._list("/v1/audit", wanted)

    def verify_audit(self, *, after: int = 0, count: int | None = None, head: str = "") -> Json:
        """Walk along the audit log."""
        known = {} if count is None else {"count": count, "head": head}
        answer = self._call("GET", "/v1/audit/verify", params={"after": after, **known}, timeout=VERIFY_S)
        return _object(answer)

    def _lines(self, path: str, params: Mapping[str, Any], *, follow: bool) -> Iterator[str]:
        timeout = httpx.Timeout(TIMEOUT_S, read=None) if follow else TIMEOUT_S
        self._reach()
        try:
            with self._http.stream("GET", path, params=params, timeout=timeout) as response:
                if response.is_error:
                    response.read()
                _raise_for(response)
                yield from response.iter_lines()
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _json(
        self, method: str, path: str, body: Json | None = None, *, content: Iterable[bytes] | None = None
    ) -> Json:
        return _object(self._call(method, path, json=body, content=content))

    def _list(self, path: str, params: Mapping[str, str | int]) -> list[Json]:
        answer = self._call("GET", path, params=params)
        if not isinstance(answer, list):
            raise errors.UnreachableError("What answers on the control plane's socket is not Tidegate.")
        return answer

    def _call(self, method: str, path: str, **request: Any) -> object:
        self._reach()
        try:
            response = self._http.request(method, path, **request)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        _raise_for(response)
        answer: object = response.json()
        return answer

    def _reach(self) -> None:
        """Before the first call: the HTTP library does not close a socket that could not be connected."""
        if self._reached:
            return
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(TIMEOUT_S)
            try:
                probe.connect(str(self._socket))
            except OSError as error:
                raise self._unreachable(httpx.ConnectError(str(error))) from error
        self._reached = True

    def _unreachable(self, error: httpx.TransportError) -> errors.UnreachableError:
        if isinstance(error, httpx.TimeoutException):
            return errors.UnreachableError(
                f"The control plane did not answer within {TIMEOUT_S:g} s.",
                hint="Look at its log with `tide doctor`.",
            )
        if self._socket.exists() and not isinstance(error, httpx.ConnectError):
            return errors.UnreachableError(
                "The control plane stopped while it answered.", hint="`tide up` starts it."
            )
        return errors.UnreachableError(
            f"No control plane answers at {self._socket}.", hint="`tide up` starts it."
        )


def _object(answer: object) -> Json:
    if not isinstance(answer, dict):
        raise errors.UnreachableError("What answers on the control plane's socket is not Tidegate.")
    return answer


def _raise_for(response: httpx.Response) -> None:
    if not response.is_error:
        return
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        raise errors.ReportedError(response.json())
    raise errors.ReportedError({"title": f"The control plane answered {response.status_code}."})


def _headers(token: str, on_behalf_of: str) -> list[tuple[bytes, bytes]]:
    headers = []
    if token:
        # Checked here, because the HTTP library would show what it cannot send.
        if not TOKEN.fullmatch(token):
            raise errors.RequestError(
                "That is not a token of Tidegate.", hint="TIDEGATE_TOKEN holds what `tide token create` said."
            )
        headers.append((b"authorization", f"Bearer {token}".encode()))
    if on_behalf_of:
        headers.append((b"x-tidegate-for", on_behalf_of.encode()))
    return headers

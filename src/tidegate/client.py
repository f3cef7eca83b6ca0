"""Typed client of the control plane's API, over its Unix socket.

Turns problem objects back into the exception tree, so that the CLI shows one kind of error wherever it
arose. Neighbours: `cli` and `demo` use it; `web.api` is the other end.
"""

from __future__ import annotations

import getpass
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import httpx

from tidegate import errors

#: An upload or a decision may wait for the disk; a local answer that takes longer will not come.
TIMEOUT_S: Final = 60.0

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

    def __init__(self, path: Path, *, by: str | None = None) -> None:
        """`path`: of the socket. `by`: who asks, for the history; default: the user of this process."""
        self._socket = path
        self._reached = False
        self._http = httpx.Client(
            transport=httpx.HTTPTransport(uds=str(path)),
            base_url="http://tidegate",
            headers={"X-Tidegate-By": by or _user()},
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

    def add_release(self, *, manifest: str, digest: str, revision: str) -> Json:
        """Number a release, or find the one that is the same."""
        return self._json(
            "POST", "/v1/releases", {"manifest": manifest, "digest": digest, "revision": revision}
        )

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
        timeout = httpx.Timeout(TIMEOUT_S, read=None) if follow else TIMEOUT_S
        self._reach()
        try:
            with self._http.stream("GET", f"{place.path}/logs", params=params, timeout=timeout) as response:
                if response.is_error:
                    response.read()
                _raise_for(response)
                yield from response.iter_lines()
        except httpx.TransportError as error:
            raise self._unreachable(error) from error

    def _json(
        self, method: str, path: str, body: Json | None = None, *, content: Iterable[bytes] | None = None
    ) -> Json:
        answer = self._call(method, path, json=body, content=content)
        if not isinstance(answer, dict):
            raise errors.UnreachableError("What answers on the control plane's socket is not Tidegate.")
        return answer

    def _list(self, path: str, params: Mapping[str, int]) -> list[Json]:
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


def _raise_for(response: httpx.Response) -> None:
    if not response.is_error:
        return
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        raise errors.ReportedError(response.json())
    raise errors.ReportedError({"title": f"The control plane answered {response.status_code}."})


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a uid without a name
        return ""

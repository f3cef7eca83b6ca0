"""Parts of what a user wants that stand on their own: checks, limits, secrets, and the gates of the pipeline.

Values only, like `model`, which shows them under its own name. A *gate* stands before an environment: what
must be true of a release before it may enter. Its rules are written in the manifest, so that they travel with
the release; `core.pipeline` says whose rules count when two releases differ.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class CheckKind(enum.StrEnum):
    """How an instance is asked whether it is ready."""

    HTTP = "http"
    TCP = "tcp"
    COMMAND = "command"
    ALIVE = "alive"  # no port, no check: it is ready when it has run for `settle_s`


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Readiness check of one service."""

    kind: CheckKind
    path: str = "/"
    """HTTP path; any 2xx or 3xx answer is ready."""
    command: tuple[str, ...] = ()
    """argv; exit status 0 is ready. Runs in the instance's environment and folder."""
    interval_s: float = 1.0
    timeout_s: float = 2.0
    settle_s: float = 1.0
    """Only `ALIVE`: how long it must have run without a crash."""


class UserIdentity(enum.StrEnum):
    """What makes two requests the same user's."""

    COOKIE = "cookie"
    ADDRESS = "address"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Resource limits per instance; `None` = not limited. Set where the machine lets us."""

    memory_bytes: int | None = None
    cpus: float | None = None
    processes: int | None = None
    open_files: int | None = None


UNLIMITED = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretUse:
    """A secret that the services of an environment are given."""

    name: str
    """Of the environment variable."""
    as_file: bool = False
    """The value is in a file that only the app may read, and its path in `<name>_FILE`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretVersion:
    """One value of a secret, without the value."""

    name: str
    version: int
    as_file: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoke:
    """One request to the new release, and what it must answer."""

    service: str
    path: str
    status: int | None = None
    """None: any 2xx or 3xx."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verify:
    """How a release is tried in an environment before the first user sees it."""

    run: tuple[str, ...] = ()
    """argv, no shell; exit status 0 is passed. In the package, with the environment's configuration; empty:
    only the smoke checks."""
    smoke: tuple[Smoke, ...] = ()
    """Asked first, in this order."""
    timeout_s: float = 600.0
    """Of all of it; longer is failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Approvals:
    """Who must agree before a release may enter an environment."""

    count: int = 1
    """Of different people."""
    roles: tuple[str, ...] = ()
    """Any of them will do; empty: whoever may approve at all."""
    expires_s: float = 7 * 24 * 3600.0
    """An approval that was not used for so long counts no more."""
    not_by_requester: bool = False
    """Four eyes: who asked for the promotion cannot approve it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """A window in which nothing new enters an environment. Rollbacks always may."""

    zone: str
    """Name of a time zone of the IANA database, e.g. `Europe/Berlin`."""
    weekly: tuple[int, int] | None = None
    """From, until: minutes since Monday 00:00 of local time; over the week's end if `until` is not later."""
    dates: tuple[str, str] | None = None
    """From, until: local time as `2026-12-20T16:00`. One of the two is set."""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Address of an instance that was ready at least once: the router's server."""

    service: str
    index: int
    host: str
    port: int
    in_rotation: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Loopback port at which the router serves one service of one slot to the services that need it.

    The caller's own release answers, so that a user sees one version throughout.
    """

    service: str
    slot: int
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignLink:
    """Loopback port at which the router serves a service of another app to an environment of this one.

    The environment of the same name answers with its stable release: who calls is no user of that app.
    """

    service: str
    """`app/service`."""
    port: int

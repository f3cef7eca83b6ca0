"""Addresses of repositories that are watched, and of the forges' APIs. Pure.

An address is set by an admin, is kept in the database and shown in answers: so it never holds a password or
a token, and only what git treats as an address and nothing else (no helper, no option) is taken. Neighbours:
`git` allows the same protocols once more.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

from tidegate import errors

LENGTH_MAX: Final = 500

_HOST: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\]", re.ASCII)
_USER: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}", re.ASCII)
_PATH: Final = re.compile(r"/[A-Za-z0-9._~+@/%-]*", re.ASCII)
#: user@host:path, as people write ssh addresses.
_SHORT: Final = re.compile(
    r"(?P<user>[A-Za-z0-9_][A-Za-z0-9._-]{0,63})@(?P<host>[A-Za-z0-9][A-Za-z0-9.-]{0,252})"
    r":(?P<path>[A-Za-z0-9._~/][A-Za-z0-9._~+/-]*)",
    re.ASCII,
)
#: A path that git, which hands parts of its configuration to a shell, can be given without quoting.
_PLAIN_FILE: Final = re.compile(r"/[A-Za-z0-9._+@/-]{1,400}", re.ASCII)
_PROJECT: Final = re.compile(r"[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+){0,8}", re.ASCII)
_OTHER: Final = "Write https://host/path, ssh://user@host/path, user@host:path, or an absolute path."


def checked(url: str) -> str:
    """The same address. Raises RequestError for everything that is not https, ssh or a local path."""
    if len(url) > LENGTH_MAX or not url.isprintable() or not url.isascii() or " " in url:
        raise errors.RequestError("The remote is not an address of a repository.", hint=_OTHER)
    if url.startswith("/") or _SHORT.fullmatch(url):
        _refuse_unless(".." not in url.split("/"))
        return url
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise errors.RequestError("The remote is not an address of a repository.", hint=_OTHER) from None
    _refuse_unless(parts.scheme in ("https", "ssh", "file") and not parts.query and not parts.fragment)
    if parts.password is not None or (parts.scheme != "ssh" and parts.username is not None):
        raise errors.RequestError(
            "The remote holds a user or a password: it would be kept and shown with everything else.",
            hint="Leave it out, and name a file that only you may read with --credentials.",
        )
    _refuse_unless(_PATH.fullmatch(parts.path) is not None and ".." not in parts.path.split("/"))
    if parts.scheme == "file":
        _refuse_unless(not parts.netloc)
        return url
    _refuse_unless(_is_host(parts) and (port is None or port > 0))
    _refuse_unless(parts.username is None or _USER.fullmatch(parts.username) is not None)
    return url


def _is_host(parts: SplitResult) -> bool:
    host = parts.netloc.rpartition("@")[2]
    if parts.port is not None:
        host = host.rpartition(":")[0]
    return _HOST.fullmatch(host) is not None


def _refuse_unless(fine: bool) -> None:  # noqa: FBT001 - reads as a sentence
    if not fine:
        raise errors.RequestError("The remote is not an address of a repository.", hint=_OTHER)


def is_ssh(url: str) -> bool:
    """Whether git goes there with ssh."""
    return url.startswith("ssh://") or _SHORT.fullmatch(url) is not None


def checked_file(path: str) -> str:
    """The path of a file with credentials. Raises RequestError."""
    if not _PLAIN_FILE.fullmatch(path) or ".." in path.split("/"):
        raise errors.RequestError(
            "The file is not named by a plain absolute path.",
            hint="Letters, digits and ._+@/- only: git hands it to a shell.",
        )
    return path


def checked_api(url: str) -> str:
    """The base address of a forge's API. Raises RequestError unless it is https, or on this machine."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host, parts = "", SplitResult("", "", "", "", "")
    fine = (
        url.isascii()
        and url.isprintable()
        and len(url) <= LENGTH_MAX
        and "@" not in parts.netloc
        and not parts.query
        and not parts.fragment
        and _is_api_host(host)
        and (parts.path == "" or _PATH.fullmatch(parts.path) is not None)
        and (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host)))
    )
    if not fine:
        raise errors.RequestError(
            "Status reports go over https, to an address without user, password or query.",
            hint="For example https://api.github.com or https://git.example.com/api/v4.",
        )
    return url.rstrip("/")


def _is_api_host(host: str) -> bool:
    return _HOST.fullmatch(f"[{host}]" if ":" in host else host) is not None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def checked_project(project: str) -> str:
    """`owner/name` of a project, or its number. Raises RequestError."""
    if not _PROJECT.fullmatch(project) or {".", ".."} & set(project.split("/")):
        raise errors.RequestError("The project is not named as owner/name.", hint="For example acme/shop.")
    return project

"""One question to a loopback port: does it take a connection, and what does a path answer.

Hides HTTP: the status line is enough, whatever comes after it or in whatever pieces it comes. Standard
library only: the shim asks paths, too, as the app's user.

Invariants: no question takes longer than its time; what is said holds nothing of the answer but its status.
Neighbours: readiness.py (asks again and again), smoke.py (asks once).
"""

from __future__ import annotations

import re
import socket
import time
from typing import Final, NamedTuple

#: Longer than any status line; what follows it is of no interest.
_STATUS_LINE_BYTES = 4096

_STATUS = re.compile(rb"HTTP/[0-9.]+ ([0-9]{3})(?= |\r|\n|$)")

#: Letters of a path that are sent as they are; all others are sent as %XX.
_SENT: Final = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/?&=%+,:;@!$'()*~-._"
)

#: Of a path in a sentence.
_PATH_MAX = 100


class Answer(NamedTuple):
    """What a port has answered."""

    connected: bool
    status: int | None
    """None: no HTTP status came."""
    said: str
    """The same in words, e.g. `GET /missing answered 404`."""


def ask(port: int, path: str | None, timeout_s: float) -> Answer:
    """Ask the loopback port; without a path, only whether it takes a connection."""
    deadline = time.monotonic() + timeout_s
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            # Not `create_connection`: that loads a codec for names, and the app's user may not read ours.
            connection.connect(("127.0.0.1", port))
            if connection.getsockname() == connection.getpeername():
                # Connected to itself: nobody listens, and the kernel chose this very port.
                return Answer(connected=False, status=None, said="connection refused")
            if path is None:
                return Answer(connected=True, status=None, said="connection accepted")
            return _ask_http(connection, path, deadline)
    except TimeoutError:
        return Answer(connected=False, status=None, said=f"no answer within {timeout_s:g} s")
    except OSError as error:
        return Answer(connected=False, status=None, said=(error.strerror or str(error)).lower())


def shown(path: str) -> str:
    """The path as it is asked, cut to a length that fits a sentence."""
    target = _target(path)
    return target if len(target) <= _PATH_MAX else f"{target[:_PATH_MAX]}…"


def _target(path: str) -> str:
    raw = (path if path.startswith("/") else f"/{path}").encode("utf-8", "replace")
    return "".join(chr(letter) if letter in _SENT else f"%{letter:02X}" for letter in raw)


def _ask_http(connection: socket.socket, path: str, deadline: float) -> Answer:
    """The status line is enough; an answer that trickles in is cut off at the deadline. OSError."""
    head = (
        f"GET {_target(path)} HTTP/1.1",
        "Host: {}:{}".format(*connection.getpeername()),
        "User-Agent: tidegate",
        "Accept: */*",
        "Connection: close",
    )
    connection.sendall("\r\n".join([*head, "", ""]).encode("ascii"))
    answer = b""
    while b"\n" not in answer and len(answer) < _STATUS_LINE_BYTES:
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            raise TimeoutError
        connection.settimeout(left_s)
        part = connection.recv(_STATUS_LINE_BYTES)
        if not part:
            break
        answer += part
    found = _STATUS.match(answer)
    if found is not None:
        status = int(found.group(1))
        return Answer(connected=True, status=status, said=f"GET {shown(path)} answered {status}")
    how = "answered something else than HTTP" if answer else "got no answer, the connection was closed"
    return Answer(connected=True, status=None, said=f"GET {shown(path)} {how}")

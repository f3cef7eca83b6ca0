"""How a control plane is started: its settings, and a process of its own that outlives the command.

Apart from `daemon`, which it starts as a program: whoever types `tide up` shall not wait for everything that
the control plane needs to be imported twice. Neighbours: `cli`, `demo` start with it; `daemon` reports to it.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
from dataclasses import asdict, dataclass
from typing import Any, Final

from tidegate import errors, paths

#: How long `tide up` waits for the control plane to answer.
START_LIMIT_S: Final = 30.0
#: Loopback ports for calls between services: the first free block of this size, below Linux's ephemeral
#: range (32768 on). Another control plane on this machine has a block of its own.
LINK_PORTS: Final = range(21000, 32700)
LINK_PORTS_BLOCK: Final = 128
DEFAULT_PORT: Final = 8080

#: What the started process says as soon as its API answers; anything else is its problem as JSON.
READY: Final = b"ready"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a control plane was started; kept beside its state, so that `tide up` alone starts it again."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    link_ports: tuple[int, int] = (LINK_PORTS.start, LINK_PORTS.start + LINK_PORTS_BLOCK)
    """First, and one behind the last."""
    run_as: str = "auto"
    hooks_port: int = 0
    """Of loopback, for webhooks; 0: none are taken."""


def load_settings(home: paths.Home) -> Settings:
    """As it was started last; defaults for the first time. Raises StorageError."""
    try:
        stored = json.loads(home.settings.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return Settings(link_ports=_free_link_ports())  # a folder that cannot be one is named when it is made
    except (OSError, ValueError) as error:
        raise errors.StorageError(
            f"The settings {home.settings} cannot be read: {error}.", hint="Mend or remove the file."
        ) from error
    return settings_of(stored)


def settings_of(stored: dict[str, Any]) -> Settings:
    """What was written by `asdict`; what this version does not know is left out."""
    known = {name: value for name, value in stored.items() if name in Settings.__dataclass_fields__}
    known["link_ports"] = tuple(known.get("link_ports", Settings().link_ports))
    return Settings(**known)


def _free_link_ports() -> tuple[int, int]:
    """For the first start; if no block is free, the first one, whose taken port is then named."""
    for first in range(LINK_PORTS.start, LINK_PORTS.stop - LINK_PORTS_BLOCK, LINK_PORTS_BLOCK):
        block = (first, first + LINK_PORTS_BLOCK)
        if all(_is_free(port) for port in range(*block)):
            return block
    return Settings().link_ports


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def save_settings(home: paths.Home, settings: Settings) -> None:
    """For `load_settings` of the next start. Raises StorageError."""
    temporary = home.settings.with_suffix(".tmp")
    try:
        temporary.write_text(json.dumps(asdict(settings), indent=2) + "\n", "utf-8")
        temporary.replace(home.settings)
    except OSError as error:
        raise errors.StorageError(
            f"The settings {home.settings} cannot be written: {error.strerror}."
        ) from error


def start_detached(home: paths.Home, settings: Settings) -> int:
    """Start a control plane that outlives this process; its pid, once it answers.

    Raises what it failed with, and UnreachableError when it says nothing for `START_LIMIT_S`.
    """
    home.create()
    read_end, write_end = os.pipe()
    try:
        with home.log.open("ab") as log:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "tidegate.daemon",
                    str(home.root),
                    json.dumps(asdict(settings)),
                    str(write_end),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                pass_fds=(write_end,),
            )
    except OSError as error:
        os.close(read_end)
        raise errors.StorageError(f"The log {home.log} cannot be written: {error.strerror}.") from error
    finally:
        os.close(write_end)
    return _await_ready(process, read_end, home)


def _await_ready(process: subprocess.Popen[bytes], read_end: int, home: paths.Home) -> int:
    with os.fdopen(read_end, "rb") as pipe:
        readable, _, _ = select.select([pipe], [], [], START_LIMIT_S)
        line = pipe.readline() if readable else b""
    if line.strip() == READY:
        return process.pid
    if not readable:
        raise errors.UnreachableError(
            f"The control plane did not start within {START_LIMIT_S:g} s.", hint=f"Its log is {home.log}."
        )
    status = process.wait()  # it has nothing left to do but to end: whoever is told finds nothing running
    if line:
        raise errors.ReportedError(json.loads(line))
    raise errors.UnreachableError(
        f"The control plane ended with status {status} before it answered.", hint=f"Its log is {home.log}."
    )

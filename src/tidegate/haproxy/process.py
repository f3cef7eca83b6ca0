"""Starts, finds and stops the supervisor of HAProxy.

Hides that the supervisor is a program of its own, and how it is told apart from a later process with the
same id. Neighbours: `supervisor` is that program, `runtime` asks for it.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

from tidegate.errors import PortTakenError, RouterError
from tidegate.haproxy import supervisor
from tidegate.haproxy.settings import RouterSettings

#: The supervisor reports within milliseconds; an overloaded machine gets this long.
LAUNCH_TIMEOUT_S: Final = 20.0
#: From the end of the drain to the supervisor's own end: SIGTERM, SIGKILL, cleaning up.
STOP_SPARE_S: Final = 10.0


class SupervisorState(enum.StrEnum):
    """What the supervisor's note and the kernel say together."""

    SERVING = "serving"
    STOPPING = "stopping"
    STOPPED = "stopped"
    LOST = "lost"
    """It ended without having been asked to."""


class SupervisorProcess:
    """The supervisor of one folder."""

    def __init__(self, folder: Path, settings: RouterSettings) -> None:
        self._folder = folder
        self._settings = settings

    def state(self) -> SupervisorState:
        """Whether it runs. Cheap enough for every look."""
        note = self._note()
        if note is None:
            return SupervisorState.STOPPED
        with contextlib.suppress(OSError):
            now = supervisor.identity(int(note["pid"]))
            if all(now[part] == note.get(part) for part in now):
                stopping = note.get("state") == "stopping"
                return SupervisorState.STOPPING if stopping else SupervisorState.SERVING
        return SupervisorState.STOPPED if note.get("state") == "stopped" else SupervisorState.LOST

    def serves_settings(self) -> bool:
        """Whether the supervisor that runs (or was lost) has the program and the ports of our settings."""
        note = self._note()
        if note is None:
            return False
        theirs, ours = note.get("settings", {}), self._values(0.0)
        return all(theirs.get(name) == ours[name] for name in ("binary", "listen"))

    def refuse_taken_ports(self) -> None:
        """See that new addresses can be had before the old ones are given up. Raises PortTakenError."""
        note = self._note() or {}
        theirs = {(host, port) for host, port in note.get("settings", {}).get("listen", ())}
        for host, port in self._values(0.0)["listen"]:
            if (host, port) not in theirs:
                _probe(host, port)

    def launch(self) -> None:
        """Start a supervisor; it adopts a HAProxy that runs. Raises PortTakenError, RouterError."""
        self._write_settings(self._values(self._settings.drain_s))
        try:
            done = subprocess.run(
                [sys.executable, "-I", "-S", supervisor.__file__, str(self._folder)],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=LAUNCH_TIMEOUT_S,
                check=False,
                env={"PATH": "/usr/bin:/bin"},
                start_new_session=True,
            )
            answer = json.loads(done.stdout)
        except (OSError, subprocess.TimeoutExpired, ValueError) as error:
            hint = "`tide doctor` tells what this machine lacks."
            raise RouterError("The supervisor of HAProxy could not be started.", hint=hint) from error
        if answer.get("error") == "port":
            raise _taken(answer["host"], answer["port"], answer["detail"])
        if not answer.get("ok"):
            reason = answer.get("detail", "no reason given")
            raise RouterError(f"The supervisor of HAProxy could not start it: {reason}.")

    def stop(self, *, drain_s: float) -> None:
        """Have the supervisor stop HAProxy and end itself. Raises RouterError if it does not."""
        note = self._note()
        if note is None:
            return
        self._write_settings({**note["settings"], "drain_s": drain_s})
        self._signal(signal.SIGTERM)
        self.wait_until_ended(drain_s + STOP_SPARE_S)

    def wait_until_ended(self, timeout_s: float) -> None:
        """Return when no supervisor runs any more. Raises RouterError when it takes too long."""
        deadline = time.monotonic() + timeout_s
        while self.state() in (SupervisorState.SERVING, SupervisorState.STOPPING):
            if time.monotonic() > deadline:
                raise RouterError(f"HAProxy has not stopped within {timeout_s:.0f} seconds.")
            time.sleep(0.02)

    def log_tail(self) -> str:
        """The last alerts of HAProxy, for error messages."""
        with contextlib.suppress(OSError):
            lines = (self._folder / supervisor.LOG).read_text(errors="replace").splitlines()
            return " ".join(line for line in lines[-40:] if "[ALERT]" in line)[-600:]
        return ""

    def _signal(self, number: signal.Signals) -> None:
        note = self._note()
        if note is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process = os.pidfd_open(int(note["pid"]))
            try:
                # Compared after it was opened: the signal then reaches this process or nobody.
                if self.state() is SupervisorState.SERVING:
                    signal.pidfd_send_signal(process, number)
            finally:
                os.close(process)

    def _write_settings(self, values: dict[str, Any]) -> None:
        supervisor.write_private(self._folder / supervisor.SETTINGS, json.dumps(values))

    def _note(self) -> dict[str, Any] | None:
        """What the supervisor wrote about itself; None: there never was one."""
        try:
            note = json.loads((self._folder / supervisor.NOTE).read_text())
        except (OSError, ValueError):
            return None
        return note if isinstance(note, dict) and isinstance(note.get("pid"), int) else None

    def _values(self, drain_s: float) -> dict[str, Any]:
        listen = [[self._settings.host, self._settings.port]]
        listen += [["127.0.0.1", port] for port in self._settings.link_ports]
        return {"binary": str(self._settings.program()), "listen": listen, "drain_s": drain_s}


def _probe(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            raise _taken(host, port, str(error.strerror or error)) from error


def _taken(host: str, port: int, detail: str) -> PortTakenError:
    return PortTakenError(
        f"The router cannot listen on {host}:{port}: {detail}.",
        hint="Stop the program that uses the port, or choose another one with `tide up --listen`.",
    )

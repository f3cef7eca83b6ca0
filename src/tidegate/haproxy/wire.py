"""Asks HAProxy's processes over the master socket.

Hides the socket and its protocol. Neighbours: `readback` gives meaning to the answers, `runtime` decides
what is said.

Invariants:
- one call, one connection, exactly the commands given: what could end a command or begin another (a
  semicolon, a line feed, a payload mark) is refused before anything is sent;
- an answer is either whole (one block per command) or a RouterError; nothing is guessed from half of one;
- every call ends within its time, whatever the other side does.
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tidegate.errors import RouterError
from tidegate.haproxy import supervisor

#: HAProxy reads a line of commands into one buffer of 16 kB.
LINE_BYTES_MAX: Final = 8_000
#: Larger than the statistics of ten thousand servers: more is not an answer.
ANSWER_BYTES_MAX: Final = 32_000_000

_COMMAND: Final = re.compile(r"[\x20-\x3a\x3d-\x5b\x5d-\x7e]+")  # printable, without ; < \
_PROCESS: Final = re.compile(r"(?P<pid>[0-9]+)\s+(?P<kind>master|worker)\s+[0-9]+.*")


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """HAProxy's processes: `worker` takes new connections, `old` ones finish what they have."""

    master: int
    worker: int
    old: tuple[int, ...]


class Wire:
    """The master socket of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def processes(self, *, timeout_s: float) -> Processes:
        """Who runs now. Raises RouterError, also while there is no worker."""
        answer = self._exchange("show proc", timeout_s)
        heading, _, rest = answer.partition("\n")
        if not heading.startswith("#<PID>"):
            raise garbled(answer)
        found: dict[str, list[int]] = {}
        section = "master"
        for line in rest.splitlines():
            if line.startswith("# "):
                section = line[2:]
            elif match := _PROCESS.fullmatch(line):
                found.setdefault(section, []).append(int(match["pid"]))
            elif line:
                raise garbled(answer)
        masters, workers = found.get("master", []), found.get("workers", [])
        if len(masters) != 1 or len(workers) != 1 or not answer.endswith("\n\n"):
            raise RouterError("HAProxy is starting or stopping: it has no process that takes connections.")
        return Processes(master=masters[0], worker=workers[0], old=tuple(found.get("old workers", ())))

    def ask(self, pid: int, commands: Sequence[str], *, timeout_s: float) -> tuple[str, ...]:
        """Have one process carry out the commands in order; one answer each, without its last line feed.

        Long lists go in several lines. Raises RouterError; some of the commands may then be done.
        """
        deadline = time.monotonic() + timeout_s
        answers: list[str] = []
        for line in _lines(commands):
            answer = self._exchange(f"@!{pid};{';'.join(line)}", deadline - time.monotonic())
            blocks = _blocks(answer)
            if len(blocks) != len(line):
                raise garbled(answer)
            answers += blocks
        return tuple(answers)

    def reload(self, *, timeout_s: float) -> None:
        """Replace the worker by one that has read the files; returns when that takes connections.

        Raises RouterError; then the old one goes on.
        """
        answer = self._exchange("reload", timeout_s)
        if not answer.startswith("Success=1\n"):
            alerts = [line for line in answer.splitlines() if "[ALERT]" in line] or answer.splitlines()[:3]
            reason = " ".join(alerts)[:800]
            raise RouterError(f"HAProxy refused its configuration and goes on with the old one: {reason}")

    def _exchange(self, line: str, timeout_s: float) -> str:
        """Send one line, read until the other side closes. Raises RouterError."""
        deadline = time.monotonic() + timeout_s
        received = bytearray()
        try:
            folder = os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                    client.settimeout(_left(deadline))
                    # Through /proc, because the name of a Unix socket may not be longer than 107 bytes.
                    client.connect(f"/proc/self/fd/{folder}/{supervisor.MASTER_SOCKET}")
                    client.sendall(line.encode() + b"\n")
                    client.shutdown(socket.SHUT_WR)
                    while chunk := client.recv(65_536):
                        received += chunk
                        if len(received) > ANSWER_BYTES_MAX:
                            raise garbled("too long")
                        client.settimeout(_left(deadline))
            finally:
                os.close(folder)
            return received.decode("ascii")
        except UnicodeDecodeError as error:
            raise garbled("not text") from error
        except TimeoutError as error:
            raise RouterError(f"HAProxy did not answer within {timeout_s:.1f} seconds.") from error
        except OSError as error:
            raise RouterError(f"HAProxy cannot be reached ({error.strerror}).") from error


def garbled(answer: str) -> RouterError:
    """The error for an answer that HAProxy does not give."""
    return RouterError(f"HAProxy's answer makes no sense: {answer[:120]!r}")


def _left(deadline: float) -> float:
    left_s = deadline - time.monotonic()
    if left_s <= 0:
        raise TimeoutError
    return left_s


def _lines(commands: Sequence[str]) -> list[list[str]]:
    """The commands in groups that fit into one line each. Raises RouterError for what is not one command."""
    lines: list[list[str]] = []
    size = LINE_BYTES_MAX
    for command in commands:
        if _COMMAND.fullmatch(command) is None or len(command) > LINE_BYTES_MAX:
            raise RouterError("A command for HAProxy contains a character that would make it another one.")
        if size + len(command) + 1 > LINE_BYTES_MAX:
            lines.append([])
            size = 0
        lines[-1].append(command)
        size += len(command) + 1
    return lines


def _blocks(answer: str) -> list[str]:
    """Split at the empty line that ends each command's output."""
    blocks: list[str] = []
    current: list[str] = []
    for line in answer.split("\n")[:-1]:
        if line:
            current.append(line)
        else:
            blocks.append("\n".join(current))
            current = []
    if current or not answer.endswith("\n"):
        raise garbled(answer)
    return blocks

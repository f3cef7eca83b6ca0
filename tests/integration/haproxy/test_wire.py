"""The socket to HAProxy when something else answers there."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidegate.errors import RouterError
from tidegate.haproxy import supervisor
from tidegate.haproxy.wire import Wire

pytestmark = pytest.mark.real

PROC = b"""\
#<PID>          <type>          <reloads>       <uptime>        <version>
7       master          0 [failed: 0]   0d00h00m00s     2.8.25
# workers
9       worker          0               0d00h00m00s     2.8.25
# old workers
8       worker          1               0d00h00m00s     2.8.25
# programs

"""


class Impostor:
    """Listens where HAProxy should and answers what it is told to; records what it was sent."""

    def __init__(self, folder: Path) -> None:
        self.answer: bytes | None = b""
        """None: no answer at all."""
        self.received: list[bytes] = []
        self._socket = socket.socket(socket.AF_UNIX)
        descriptor = os.open(folder, os.O_PATH)
        self._socket.bind(f"/proc/self/fd/{descriptor}/{supervisor.MASTER_SOCKET}")
        os.close(descriptor)
        self._socket.listen()
        self._hanging: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                self._hanging.append(client)
                received = b""
                while chunk := client.recv(65_536):
                    received += chunk
                self.received.append(received)
                if self.answer is not None:
                    with contextlib.suppress(OSError):
                        client.sendall(self.answer)
                    client.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        for one in (self._socket, *self._hanging):
            one.close()


@pytest.fixture
def impostor(tmp_path: Path) -> Iterator[Impostor]:
    made = Impostor(tmp_path)
    yield made
    made.close()


@pytest.fixture
def wire(tmp_path: Path) -> Wire:
    return Wire(tmp_path)


def test_processes_are_read(impostor: Impostor, wire: Wire) -> None:
    """The master's list gives its worker and those of before a reload."""
    impostor.answer = PROC
    found = wire.processes(timeout_s=1)
    assert (found.master, found.worker, found.old) == (7, 9, (8,))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\n",
        b"nonsense\n\n",
        PROC[:-30],
        PROC.replace(b"9  ", b"x  "),
        b"\xff\xfe",
        b"\0" * 100,
        PROC * 2,
    ],
)
def test_garbage_is_no_list_of_processes(impostor: Impostor, wire: Wire, answer: bytes) -> None:
    """An answer that is cut, doubled or something else is an error."""
    impostor.answer = answer
    with pytest.raises(RouterError):
        wire.processes(timeout_s=1)


@pytest.mark.parametrize(
    "answer", [b"", b"one\n", b"one\n\n", b"one\n\ntwo", b"one\n\ntwo\n", b"1\n\n2\n\n3\n\n"]
)
def test_half_an_answer_is_an_error(impostor: Impostor, wire: Wire, answer: bytes) -> None:
    """Fewer or more answers than commands, or a last one without its end, are not taken."""
    impostor.answer = answer
    with pytest.raises(RouterError):
        wire.ask(9, ["first", "second"], timeout_s=1)


def test_silence_ends_in_time(impostor: Impostor, wire: Wire) -> None:
    """A socket that accepts and says nothing is an error when the time is over."""
    impostor.answer = None
    calls: tuple[Callable[[], object], ...] = (
        lambda: wire.processes(timeout_s=0.2),
        lambda: wire.ask(9, ["x"], timeout_s=0.2),
        lambda: wire.reload(timeout_s=0.2),
    )
    for call in calls:
        begun = time.monotonic()
        with pytest.raises(RouterError, match="did not answer"):
            call()
        assert time.monotonic() - begun < 1.0


def test_nobody_there_is_an_error(wire: Wire) -> None:
    """Without a socket the error says that HAProxy cannot be reached."""
    with pytest.raises(RouterError, match="cannot be reached"):
        wire.processes(timeout_s=1)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.lists(st.text(max_size=30), min_size=1, max_size=4))
def test_what_is_sent_is_exactly_the_commands(impostor: Impostor, wire: Wire, commands: list[str]) -> None:
    """Each text is one command on one line, or nothing at all is sent."""
    impostor.answer = b"\n" * len(commands)
    impostor.received.clear()
    try:
        wire.ask(9, commands, timeout_s=1)
    except RouterError:
        assert impostor.received == []
        return
    (line,) = impostor.received
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert line.decode().removesuffix("\n").split(";") == ["@!9", *commands]


def test_long_lists_go_in_several_lines(impostor: Impostor, wire: Wire) -> None:
    """More than HAProxy's buffer holds is sent line by line, in order, and all is answered."""
    impostor.answer = b"\n" * 3
    commands = [f"{number} " + "x" * 2500 for number in range(6)]
    assert len(wire.ask(9, commands, timeout_s=1)) == 6
    assert [line.decode().removesuffix("\n").removeprefix("@!9;") for line in impostor.received] == [
        ";".join(commands[:3]),
        ";".join(commands[3:]),
    ]

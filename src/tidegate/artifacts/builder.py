"""Runs the user's own build command.

Hides processes: the command gets a process group of its own, its output comes line by line, and nothing of
the group is left when this returns, however it returns. The command line is the user's and is handed to
`/bin/sh -c` exactly as it stands in tidegate.yaml; nothing is ever put into it.
Neighbours: the daemon or command line calls it, then `package.pack` packs what it made.
"""

from __future__ import annotations

import codecs
import os
import re
import selectors
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

from tidegate.errors import BuildError, MissingProgramError

SHELL = "/bin/sh"

LAST_LINES = 20
"""Of the output, in the error: a compiler's complaint fits."""

LINE_CHARACTERS_MAX = 4096
"""A progress bar without line ends is cut into lines of this length."""

POLL_S = 0.05
"""How soon the end of the command is seen while something it started still holds its output."""

PIPE_BYTES_MAX = 1024 * 1024
"""The most that Linux keeps in a pipe, so that one read empties it."""

ESCAPE_SEQUENCE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


def build(
    command: str,
    *,
    folder: Path,
    env: Mapping[str, str],
    log: Callable[[str], None],
    timeout_s: float,
    account: tuple[int, int] | None = None,
) -> None:
    """Run the build command once, to its end.

    Args:
        command: shell command line, as the user wrote it.
        folder: where it runs.
        env: its whole environment; nothing else is inherited.
        log: gets every line of standard output and error, without its end, as soon as it is there.
        timeout_s: after this, the whole process group is killed.
        account: user and group that it runs as, with no other groups; None: ours.

    Raises:
        BuildError: it failed, was killed, or took too long; with its last lines.
        MissingProgramError: there is no shell.
    """
    last: deque[str] = deque(maxlen=LAST_LINES)
    deadline = time.monotonic() + timeout_s
    process = _start(command, folder, env, account)
    try:
        for line in _lines(_output(process, deadline)):
            last.append(line)
            log(line)
        in_time = _has_ended(process)
    finally:
        _kill_group(process)
        status = process.wait()
        _stdout(process).close()
    if not in_time:
        raise _failure(f"did not end within {timeout_s:g} s and was killed", last)
    if status < 0:
        raise _failure(f"was killed by {signal.Signals(-status).name}", last)
    if status > 0:
        raise _failure(f"failed with exit status {status}", last)


def _start(
    command: str, folder: Path, env: Mapping[str, str], account: tuple[int, int] | None
) -> subprocess.Popen[bytes]:
    if not folder.is_dir():
        raise BuildError(f"The build cannot start: {folder} is not a folder.")
    try:
        return subprocess.Popen(
            [SHELL, "-c", command],
            cwd=folder,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=account[0] if account else None,
            group=account[1] if account else None,
            extra_groups=[] if account else None,
        )
    except FileNotFoundError as error:
        raise MissingProgramError(f"The build cannot start: {SHELL} is not there.") from error
    except (OSError, ValueError) as error:
        # Not the error's own text: it may quote the environment.
        what = error.strerror if isinstance(error, OSError) else "a zero byte in command or environment"
        raise BuildError(f"The build cannot start: {what}.") from error


def _output(process: subprocess.Popen[bytes], deadline: float) -> Iterator[bytes]:
    """What the group writes until the command has ended or the time is over.

    Children that it leaves behind may keep the pipe open for ever: at its end, what is in the pipe is read
    once, and nothing more is waited for.
    """
    pipe = _stdout(process).fileno()
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        ended = False
        while not ended:
            ended = _has_ended(process)
            wait_s = 0 if ended else min(POLL_S, deadline - time.monotonic())
            if wait_s < 0:
                return
            if selector.select(wait_s):
                piece = os.read(pipe, PIPE_BYTES_MAX)
                if piece:
                    yield piece
                else:
                    selector.unregister(pipe)


def _lines(pieces: Iterator[bytes]) -> Iterator[str]:
    """Lines without their ends; broken UTF-8 is replaced, very long lines are cut."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    text = ""
    for piece in pieces:
        *lines, text = (text + decoder.decode(piece)).split("\n")
        for line in lines:
            yield from _cut(line.removesuffix("\r"))
        while len(text) > LINE_CHARACTERS_MAX:
            yield text[:LINE_CHARACTERS_MAX]
            text = text[LINE_CHARACTERS_MAX:]
    text += decoder.decode(b"", final=True)
    if text:
        yield from _cut(text)


def _cut(line: str) -> Iterator[str]:
    yield line[:LINE_CHARACTERS_MAX]
    for start in range(LINE_CHARACTERS_MAX, len(line), LINE_CHARACTERS_MAX):
        yield line[start : start + LINE_CHARACTERS_MAX]


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether the command has ended. It is not reaped: its group's number stays ours until `wait`."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _stdout(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdout is not None  # noqa: S101  # it was started with a pipe
    return process.stdout


def _failure(what: str, last: deque[str]) -> BuildError:
    message = f"The build command {what}."
    if not last:
        return BuildError(message, hint="It printed nothing: run it by hand in the same folder.")
    return BuildError("\n".join([f"{message} Its last lines:", *(f"  {_plain(line)}" for line in last)]))


def _plain(line: str) -> str:
    """A line of output without what would steer the reader's terminal."""
    line = ESCAPE_SEQUENCE.sub("", line)
    return "".join(character if character.isprintable() or character == "\t" else "?" for character in line)

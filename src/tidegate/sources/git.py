"""Runs git so that no configuration, name or server can make it do something else than what is asked.

Invariants: an argument list, never a shell; the environment is ours, so that no `GIT_*` variable of a pusher
counts; nobody's configuration is read but the repository's own, which we write; hooks are off; only https,
ssh and local paths are spoken, and no redirect is followed; nothing asks for a password; the whole process
group ends in time. Neighbours: `repositories` knows which commands.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from tidegate import errors
from tidegate.sources import remotes

#: Of calls that only touch the disk.
LOCAL_LIMIT_S: Final = 120.0
#: Of calls that wait for a server; a first fetch of a large repository fits.
REMOTE_LIMIT_S: Final = 900.0
OUTPUT_BYTES_MAX: Final = 32 * 1024 * 1024
_COMPLAINT_BYTES_MAX: Final = 4096
_COMPLAINT_CHARACTERS_MAX: Final = 300

_SETTINGS: Final = (
    "protocol.allow=never",
    "protocol.https.allow=always",
    "protocol.ssh.allow=always",
    "protocol.file.allow=always",
    "protocol.ext.allow=never",
    "http.followRedirects=false",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "credential.helper=",
    "submodule.recurse=false",
    "gc.auto=0",
    "advice.detachedHead=false",
)
#: Of ours: git and ssh are found by them, and ssh knows whose keys are meant.
_INHERITED: Final = ("PATH", "HOME", "LD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR")
_USER_INFO: Final = re.compile(r"(?<=://)[^/@\s]*@")


@dataclass(frozen=True, slots=True, kw_only=True)
class Git:
    """git, for one repository."""

    repository: Path
    """The git directory."""
    work_tree: Path | None = None
    credentials: str = ""
    """A file for https, as git's credential store writes it, or a key of ssh; a checked path."""

    def local(self, *words: str) -> str:
        """What a command prints that leaves the network alone. Raises SourceError, MissingProgramError."""
        return self._run(words, LOCAL_LIMIT_S).decode("utf-8", "surrogateescape")

    def raw(self, *words: str) -> bytes:
        """The same, as it is."""
        return self._run(words, LOCAL_LIMIT_S)

    def remote(self, *words: str) -> str:
        """What a command prints that may wait for a server."""
        return self._run(words, REMOTE_LIMIT_S).decode("utf-8", "surrogateescape")

    def succeeds(self, *words: str) -> bool:
        """Whether a local command ends with 0; 1 is no, anything else is raised."""
        status, _, complaint = _finished(self._line(words), self._environment(), LOCAL_LIMIT_S)
        if status not in (0, 1):
            raise _failure(words, status, complaint)
        return status == 0

    def version(self) -> tuple[int, ...]:
        """Of git itself, e.g. (2, 39, 5). Raises SourceError, MissingProgramError."""
        said = self.local("version").split()
        numbers = said[2].split(".") if len(said) > 2 else []  # noqa: PLR2004 - `git version 2.39.5`
        return tuple(int(number) for number in numbers if number.isascii() and number.isdigit())

    def _run(self, words: Sequence[str], limit_s: float) -> bytes:
        status, output, complaint = _finished(self._line(words), self._environment(), limit_s)
        if status:
            raise _failure(words, status, complaint)
        return output

    def _line(self, words: Sequence[str]) -> list[str]:
        settings = [*_SETTINGS]
        if self.credentials:  # git hands this line to a shell: the path was checked to need no quoting
            settings.append(f"credential.helper=store --file={remotes.checked_file(self.credentials)}")
        work_tree = [] if self.work_tree is None else [f"--work-tree={self.work_tree}"]
        return [
            "git",
            *(word for setting in settings for word in ("-c", setting)),
            f"--git-dir={self.repository}",
            *work_tree,
            *words,
        ]

    def _environment(self) -> dict[str, str]:
        ssh = "ssh -o BatchMode=yes -o ConnectTimeout=20"
        if self.credentials:
            ssh += f" -o IdentitiesOnly=yes -i {remotes.checked_file(self.credentials)}"
        return {
            **{name: os.environ[name] for name in _INHERITED if name in os.environ},
            "LC_ALL": "C",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "false",
            "SSH_ASKPASS": "false",
            "GIT_SSH_COMMAND": ssh,
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_ATTR_NOSYSTEM": "1",
        }


def _finished(line: list[str], environment: dict[str, str], limit_s: float) -> tuple[int, bytes, bytes]:
    """Exit status, standard output and the beginning of standard error."""
    with tempfile.TemporaryFile() as complaints:
        try:
            process = subprocess.Popen(
                line,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=complaints,
                start_new_session=True,
                cwd="/",
            )
        except FileNotFoundError as error:
            raise errors.MissingProgramError(
                "git is not installed on this machine.", hint="Debian, Ubuntu: apt-get install git."
            ) from error
        late = threading.Event()

        def end() -> None:
            late.set()
            _kill(process)

        timer = threading.Timer(limit_s, end)
        timer.start()
        try:
            output = _pipe(process).read(OUTPUT_BYTES_MAX + 1)
            if len(output) > OUTPUT_BYTES_MAX:
                raise errors.SourceError("git answered more than anybody can mean.")
            status = process.wait()
        finally:
            timer.cancel()
            _kill(process)
            process.wait()
            _pipe(process).close()
        if late.is_set():
            raise errors.SourceError(f"git did not end within {limit_s:g} s and was stopped.")
        complaints.seek(0)
        return status, output, complaints.read(_COMPLAINT_BYTES_MAX)


def _pipe(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdout is not None  # noqa: S101  # it was started with a pipe
    return process.stdout


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The whole group, ssh and git's helpers too; not once it was reaped: its number may be another's."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _failure(words: Sequence[str], status: int, complaint: bytes) -> errors.SourceError:
    lines = [line.strip() for line in complaint.decode("utf-8", "replace").splitlines() if line.strip()]
    said = next((line for line in lines if line.startswith(("fatal:", "error:", "ssh:"))), "")
    said = _USER_INFO.sub("", said or (lines[-1] if lines else f"exit status {status}"))
    shown = "".join(character if character.isprintable() else "?" for character in said)
    return errors.SourceError(f"git {words[0]} failed: {shown[:_COMPLAINT_CHARACTERS_MAX]}")

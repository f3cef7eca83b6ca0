"""The user's build command, as a real process: output as it comes, one failure in one error, nothing left."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tidegate.artifacts.builder import LINE_CHARACTERS_MAX, build
from tidegate.errors import BuildError

pytestmark = pytest.mark.real

ENVIRONMENT = {"PATH": os.environ.get("PATH", os.defpath)}
LONG_S = 50.0


def run(command: str, folder: Path, *, timeout_s: float = LONG_S, **env: str) -> list[str]:
    """The lines that the command printed."""
    lines: list[str] = []
    build(command, folder=folder, env={**ENVIRONMENT, **env}, log=lines.append, timeout_s=timeout_s)
    return lines


def failure(command: str, folder: Path, *, timeout_s: float = LONG_S) -> str:
    with pytest.raises(BuildError) as caught:
        run(command, folder, timeout_s=timeout_s)
    return str(caught.value)


def until(condition: Callable[[], bool]) -> bool:
    """Whether it becomes true within five seconds."""
    end = time.monotonic() + 5
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def is_gone(pid: int) -> bool:
    """Whether a process has ended (a zombie has)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def test_the_command_runs_in_the_folder_with_only_its_environment(tmp_path: Path) -> None:
    """Working folder and environment are what was given, and nothing of ours is inherited."""
    lines = run("pwd; env | sort; touch built", tmp_path, GREETING="hello world")
    assert lines[0] == str(tmp_path)
    assert "GREETING=hello world" in lines
    assert {line.partition("=")[0] for line in lines[1:]} <= {
        "GREETING",
        "PATH",
        "PWD",
        "OLDPWD",
        "SHLVL",
        "_",
    }
    assert (tmp_path / "built").exists()


def test_the_command_line_is_the_shells(tmp_path: Path) -> None:
    """Pipes, quotes and variables mean what they mean in a shell, and are not looked at before."""
    assert run("printf '%s\\n' \"$X\" 'a b' | tac", tmp_path, X="$(echo no) `no`; no") == [
        "a b",
        "$(echo no) `no`; no",
    ]


def test_lines_of_output_and_errors_come_at_once(tmp_path: Path) -> None:
    """A line is logged while the command still runs, so that a person sees progress."""
    released = tmp_path / "released"
    lines: list[str] = []

    def log(line: str) -> None:
        lines.append(line)
        if line == "first":
            released.touch()

    command = "echo first; while [ ! -e released ]; do sleep 0.02; done; echo second >&2; printf last"
    build(command, folder=tmp_path, env=ENVIRONMENT, log=log, timeout_s=LONG_S)
    assert lines == ["first", "second", "last"]


@pytest.mark.parametrize(
    ("printed", "lines"),
    [
        ("", []),
        ("\\n", [""]),
        ("a\\r\\nb", ["a", "b"]),
        ("\\303\\244\\n", ["ä"]),
        ("\\377x\\n", ["\ufffdx"]),
        ("x\\303", ["x\ufffd"]),
    ],
)
def test_output_is_cut_into_lines(tmp_path: Path, printed: str, lines: list[str]) -> None:
    """Line ends go, broken UTF-8 is replaced, a last line without an end counts."""
    assert run(f"printf '{printed}'", tmp_path) == lines


def test_a_line_without_end_is_cut(tmp_path: Path) -> None:
    """A progress bar of megabytes arrives in pieces, and all of it."""
    lines = run("head -c 1000000 /dev/zero | tr '\\0' x", tmp_path)
    assert "".join(lines) == "x" * 1_000_000
    assert max(map(len, lines)) == LINE_CHARACTERS_MAX


def test_a_lot_of_output_is_not_lost(tmp_path: Path) -> None:
    """Every line comes, in order."""
    assert run("seq 1 50000", tmp_path) == [str(number) for number in range(1, 50_001)]


def test_output_that_is_left_when_the_command_has_ended_is_not_lost(tmp_path: Path) -> None:
    """What is still in the pipe is logged, also if the log was slow to take what came before."""
    lines: list[str] = []

    def slow(line: str) -> None:
        lines.append(line)
        assert len(lines) > 1 or until(lambda: is_gone(int(line)))

    build("echo $$; sleep 0.1; seq 1 5000", folder=tmp_path, env=ENVIRONMENT, log=slow, timeout_s=LONG_S)
    assert lines[1:] == [str(number) for number in range(1, 5_001)]


def test_a_failure_has_status_and_last_lines(tmp_path: Path) -> None:
    """The error says the exit status and ends with what the compiler said last, escape sequences removed."""
    message = failure("seq 1 100; printf '\\033[31merror:\\033[0m no \\007rule\\n' >&2; exit 3", tmp_path)
    assert message.startswith("The build command failed with exit status 3. Its last lines:\n  82\n")
    assert "\n  100\n  error: no ?rule" in message
    assert "\n  81\n" not in message


def test_a_silent_failure_is_short(tmp_path: Path) -> None:
    """Without output the error is the status and what to do."""
    message = (
        "The build command failed with exit status 1. It printed nothing: run it by hand in the same folder."
    )
    assert failure("exit 1", tmp_path) == message


def test_a_killed_command_names_the_signal(tmp_path: Path) -> None:
    """A build that the kernel kills for its memory is told from one that fails."""
    assert "was killed by SIGKILL" in failure("kill -KILL $$", tmp_path)


def test_an_unknown_command_is_a_failure(tmp_path: Path) -> None:
    """The shell's own complaint is in the error."""
    message = failure("no-such-command-here", tmp_path)
    assert "exit status 127" in message
    assert "no-such-command-here" in message


def test_time_is_limited_for_the_whole_group(tmp_path: Path) -> None:
    """At the limit everything that the command has started is killed, not only the shell."""
    started = time.monotonic()
    command = "sleep 60 & echo $! > child; trap '' TERM; echo working; sleep 60; echo never"
    message = failure(command, tmp_path, timeout_s=0.5)
    assert time.monotonic() - started < 10
    assert message.startswith(
        "The build command did not end within 0.5 s and was killed. Its last lines:\n  working"
    )
    child = int((tmp_path / "child").read_text())
    assert until(lambda: is_gone(child))


def test_time_is_limited_for_a_command_that_never_stops_talking(tmp_path: Path) -> None:
    """Endless output does not keep the limit from being looked at."""
    assert "did not end within 0.3 s" in failure("yes", tmp_path, timeout_s=0.3)


def test_time_is_limited_for_a_command_that_closes_its_output(tmp_path: Path) -> None:
    """The end of output is not the end of the command."""
    assert "did not end within 0.3 s" in failure("exec >&- 2>&-; sleep 60", tmp_path, timeout_s=0.3)


def test_a_command_that_closes_its_output_is_waited_for(tmp_path: Path) -> None:
    """What it does afterwards still belongs to the build."""
    run("exec >&- 2>&-; sleep 0.3; touch late", tmp_path)
    assert (tmp_path / "late").exists()


def test_what_the_command_leaves_running_is_ended(tmp_path: Path) -> None:
    """A background process would change the folder while it is packed: it is killed and not waited for."""
    started = time.monotonic()
    (pid,) = run("sleep 60 & echo $!", tmp_path)
    assert time.monotonic() - started < 10
    assert until(lambda: is_gone(int(pid)))


def test_a_process_that_left_the_group_does_not_hold_the_build_up(tmp_path: Path) -> None:
    """Even with our pipe open and in a session of its own, it is not waited for."""
    started = time.monotonic()
    lines = run(
        "setsid sh -c 'echo $$ > pid; exec sleep 60' & while [ ! -s pid ]; do sleep 0.02; done; echo done",
        tmp_path,
    )
    try:
        assert lines == ["done"]
        assert time.monotonic() - started < 10
    finally:
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


def test_an_error_of_the_log_ends_the_build(tmp_path: Path) -> None:
    """If nobody can take the output, the command is killed and the error goes up."""

    def log(line: str) -> None:
        raise BrokenPipeError(line)

    with pytest.raises(BrokenPipeError) as caught:
        build("echo $$; sleep 60", folder=tmp_path, env=ENVIRONMENT, log=log, timeout_s=LONG_S)
    assert until(lambda: is_gone(int(str(caught.value))))


def test_a_build_that_cannot_start_says_why_without_its_environment(tmp_path: Path) -> None:
    """A missing folder, a zero byte or a huge environment is a build error, and no value is shown."""
    assert "is not a folder" in failure("true", tmp_path / "missing")
    assert "zero byte" in failure("true\0", tmp_path)
    with pytest.raises(BuildError, match="Argument list too long") as caught:
        run("true", tmp_path, SECRET="hunter2" * 1_000_000)
    assert "hunter2" not in str(caught.value)

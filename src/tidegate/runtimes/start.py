"""Becoming the app: what a forked child does between `fork` and `exec`, and what to say if it cannot.

Used by the shim for the instance itself and, as a program, for its readiness commands, so that both run as
the same user, in the same control groups and with the same rights. Standard library only.

Invariant: `become` never returns. Neighbours: shim.py, readiness.py, plan.py.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import signal
from collections.abc import Callable
from typing import NoReturn

from tidegate.runtimes import plan as plans

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_CHILD_SUBREAPER = 36

#: Above the control plane's and HAProxy's (0 or below): when memory runs out an app goes first.
_OOM_SCORE_ADJUSTMENT = b"500"

#: Signals that an app expects to find at their defaults, whatever shim, control plane or the shell that
#: started them ignore: all that a process can choose about.
_RESET = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


def adopt_orphans() -> None:
    """Make this process the parent of descendants whose parent ends, instead of pid 1."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def become(
    plan: plans.Plan, *, output: int, failure: int, before: Callable[[], str] | None = None
) -> NoReturn:
    """Turn this freshly forked process into the app. `failure`: a pipe that gets the reason if that fails.

    `before`: done as the app's user; what it answers, unless that is empty, is a reason. After it there may
    be no command at all: then that was all.
    """
    name = plan["arguments"][0] if plan["arguments"] else "nothing: the command is empty"
    try:
        _detach(plan, output)
        _drop_rights(plan)
        reason = before() if before is not None else ""
        if not reason and before is not None and not plan["arguments"]:
            os._exit(0)
        if not reason:
            _execute(plan)
    except _CannotStartError as error:
        reason = f"cannot start {name}: {error}"
    except BaseException as error:  # noqa: BLE001 - nothing may escape into the parent's code
        reason = f"cannot start {name}: {type(error).__name__}: {error}"
    with contextlib.suppress(OSError):
        os.write(failure, reason.encode(errors="replace"))
    os._exit(127)


class _CannotStartError(Exception):
    """Its text says why, for the app's owner."""


def _detach(plan: plans.Plan, output: int) -> None:
    signal.set_wakeup_fd(-1)
    for number in _RESET:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, set())
    for group in plan["control_groups"]:
        with contextlib.suppress(OSError):  # the shim has said already that this limit is not in force
            _write(f"{group['path']}/cgroup.procs", b"0")
    with contextlib.suppress(OSError):
        _write("/proc/self/oom_score_adj", _OOM_SCORE_ADJUSTMENT)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.umask(0o022)


def _drop_rights(plan: plans.Plan) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold the secrets
    if plan["open_files"] is not None:
        set_open_files(plan["open_files"])
    user, group = plan["user"], plan["group"]
    if user is not None and group is not None:
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
    if ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise _CannotStartError("the kernel refuses no_new_privs")


def set_open_files(wanted: int) -> int:
    """Limit open files to `wanted`, or to as many as this machine allows; returns how many."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
    except (ValueError, PermissionError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        return hard
    return wanted


def _execute(plan: plans.Plan) -> NoReturn:
    try:
        os.chdir(plan["working_folder"])
    except OSError as error:
        raise _CannotStartError(f"{_who(plan)} may not enter its package: {error.strerror}") from None
    program, environment = plan["arguments"][0], plan["environment"]
    if "/" in program:
        candidates = [program]
    else:
        folders = environment.get("PATH", os.defpath).split(":")
        candidates = [f"{folder or '.'}/{program}" for folder in folders]
    refused: OSError | None = None
    for candidate in candidates:
        try:
            os.execve(candidate, plan["arguments"], environment)  # noqa: S606 - that is what it is for
        except (FileNotFoundError, NotADirectoryError) as error:
            refused = error if refused is None and os.path.lexists(candidate) else refused
        except OSError as error:
            refused = refused or error
    raise _CannotStartError(_explain(plan, program, refused))


def _explain(plan: plans.Plan, program: str, error: OSError | None) -> str:
    if error is None:
        return "no such file in the package" if "/" in program else "no such program on PATH"
    if isinstance(error, FileNotFoundError):
        return "the interpreter that its first line names is not on this machine"
    if isinstance(error, PermissionError):
        return f"{_who(plan)} may not execute it: is it marked as executable, and can that user reach it?"
    if error.errno == errno.ENOEXEC:
        return "not a program: it has no #! line and is no binary of this machine"
    return error.strerror or str(error)


def _who(plan: plans.Plan) -> str:
    return f"user {os.geteuid() if plan['user'] is None else plan['user']}"


def _write(path: str, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY)
    try:
        os.write(handle, content)
    finally:
        os.close(handle)

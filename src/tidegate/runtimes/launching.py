"""Starting shims: the environment an app gets, the port it is given, the plan, and the shim's answer.

Hides how a plan reaches a shim (an anonymous file in memory, so that no secret is in an argument, an
environment or on a disk) and how a port is chosen (round robin, so that a router that still knows an instance
of a moment ago does not reach another one at its port, from a place of the control plane's own, so that two
that start at once rarely give out the same).

Neighbours: process.py (decides what to start), shim.py (is started), instances.py (where it lives).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import select
import socket
import string
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, cast

from tidegate import errors
from tidegate.core import model, spec
from tidegate.runtimes import accounts, instances, procfs
from tidegate.runtimes import plan as plans

SHIM = Path(__file__).with_name("shim.py")

#: From the start of a shim to its answer; on an idle machine it takes 0.05 s.
_ANSWER_S = 20.0

#: Control planes begin to give out ports at one of so many places: enough that two rarely meet, and few
#: enough that the first instances stay below the ports that routers use for calls between services.
_SPREAD = 1_000

_LINK = re.compile(r"http://127\.0\.0\.1:([0-9]{1,5})")

_INHERITED = frozenset({"PATH", "LANG", "TZ"})


# --- environment --------------------------------------------------------------------------------------


def environment(
    layout: instances.Layout,
    group: model.InstanceGroup,
    index: int,
    port: int | None,
    secrets: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """What the app is started with: a few variables of ours, its configuration, and who and where it is.

    `secrets`: variables that hold secrets or name their files.
    """
    name = f"{group.id}.{index}"
    data = str(layout.data_of(group.key))
    # The package is what was built, byte for byte: an interpreter that may write must not put caches into it.
    found = {"PATH": os.defpath, "PYTHONDONTWRITEBYTECODE": "1"}
    found |= {key: value for key, value in os.environ.items() if key in _INHERITED or key.startswith("LC_")}
    found |= dict(group.environment)
    found |= secrets
    found.pop(procfs.CHECK_MARK, None)
    found |= {
        "HOST": "127.0.0.1",
        "HOME": data,
        "TMPDIR": str(layout.temporary_of(name)),
        "TIDEGATE_APP": group.key.app,
        "TIDEGATE_SERVICE": group.service,
        "TIDEGATE_RELEASE": f"r{group.release}",
        "TIDEGATE_ENVIRONMENT": group.key.environment,
        "TIDEGATE_INSTANCE": name,
        "TIDEGATE_DIGEST": group.digest,
        "TIDEGATE_DATA": data,
    }
    if port is not None:
        found["PORT"] = str(port)
    return found


def visible(variables: Mapping[str, str], hidden: Iterable[str]) -> dict[str, str]:
    """Without those that hold secrets: what an argument may be filled with."""
    secret = frozenset(hidden)
    return {name: value for name, value in variables.items() if name not in secret}


def job(group: model.InstanceGroup) -> plans.Job | None:
    """What makes the group's instance a job, with the addresses that it is given; None: it is none."""
    if group.verify is None:
        return None
    links = dict(group.environment)
    return plans.Job(
        smoke=[
            plans.SmokeCheck(
                service=smoke.service,
                port=_port_of(links.get(spec.link_variable(smoke.service), "")),
                path=smoke.path,
                status=smoke.status,
            )
            for smoke in group.verify.smoke
        ],
        timeout_s=group.verify.timeout_s,
    )


def _port_of(link: str) -> int | None:
    """Links lead to the loopback, whatever a configured variable of that name might say."""
    found = _LINK.fullmatch(link)
    return int(found.group(1)) if found else None


def fill(arguments: Iterable[str], variables: Mapping[str, str]) -> list[str]:
    """`$NAME` and `${NAME}` replaced by their values, `$$` by `$`; unknown names stay as they are."""
    return [string.Template(argument).safe_substitute(variables) for argument in arguments]


# --- ports --------------------------------------------------------------------------------------------


def port_is_free(port: int, *, own: bool = False) -> bool:
    """Whether an app could listen on that loopback port now, without any socket option.

    `own`: an instance had it before. Connections of that time that the kernel still remembers (TIME_WAIT) are
    no obstacle then, as they are none to servers, which set SO_REUSEADDR to come back to their port.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, own)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def choose_port(last: Path, candidates: range, taken: frozenset[int]) -> int:
    """The next free port after the one that was given out last. Called under the lock.

    `last`: the file that remembers it; where there is none yet, its path says where to begin, since what
    another control plane has chosen a moment ago, its app has not bound yet. Raises PortTakenError when no
    port is free, OSError.
    """
    try:
        begin = candidates.index(int(last.read_text(encoding="ascii"))) + 1
    except (OSError, ValueError):
        place = hashlib.sha256(os.fsencode(last.absolute())).digest()
        begin = int.from_bytes(place[:8]) % min(len(candidates), _SPREAD)
    for offset in range(len(candidates)):
        port = candidates[(begin + offset) % len(candidates)]
        if port not in taken and port_is_free(port):
            last.write_text(str(port), encoding="ascii")
            return port
    raise errors.PortTakenError(
        f"No port from {candidates[0]} to {candidates[-1]} is free for another instance.",
        hint="Give the process runtime a larger range of ports.",
    )


# --- folders of the app's own ---------------------------------------------------------------------------


def own_folder(path: Path, owner: accounts.Account | None) -> None:
    """Make a folder that only the app's user may enter. OSError if the disk refuses."""
    path.mkdir(mode=0o700, exist_ok=True)
    if owner is not None:
        os.chown(path, owner.user, owner.group, follow_symlinks=False)
    path.chmod(0o700)


# --- shims --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Started:
    name: str
    process: subprocess.Popen[bytes]


def hand_over(plan: plans.Plan) -> int:
    """A descriptor of an anonymous file in memory that holds the plan, to be a process's standard input."""
    handle = os.memfd_create("tidegate-plan")
    with open(handle, "wb", closefd=False) as file:
        file.write(json.dumps(plan).encode())
    os.lseek(handle, 0, os.SEEK_SET)
    return handle


def plan_of(shim: int) -> plans.Plan | None:
    """The plan that a living shim was given, read from its standard input; None if it may not be read."""
    try:
        return plans.readable(Path(f"/proc/{shim}/fd/0").read_bytes())
    except OSError:
        return None


def spawn(plan: plans.Plan, *arguments: str, answer: int) -> subprocess.Popen[bytes]:
    """Run shim.py with the plan. `answer`: where its output goes. OSError if it cannot be started."""
    handle = hand_over(plan)
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(SHIM), *arguments],
            stdin=handle,
            stdout=answer,
            stderr=subprocess.STDOUT,
            env={},
            cwd="/",
            start_new_session=True,
        )
    finally:
        os.close(handle)


def launch(wanted: Iterable[plans.Plan]) -> None:
    """Start a shim for each plan, side by side, and wait until each has started its app.

    Safe where one lives already: it refuses to be a second. Raises StorageError, RuntimeAdapterError for the
    first that failed, after all were asked.
    """
    started: list[_Started] = []
    try:
        for plan in wanted:
            process = spawn(plan, answer=subprocess.PIPE)
            started.append(_Started(plan["name"], process))
    except OSError as error:
        raise errors.RuntimeAdapterError(f"A shim cannot be started: {error.strerror}.") from error
    finally:
        deadline = time.monotonic() + _ANSWER_S
        answers = {one.name: _answer(one.process, deadline) for one in started}
    for name, text in answers.items():
        _judge(name, text)


def _answer(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    """The shim's first line; what came so far when the time is over. It goes on by itself then."""
    content = b""
    with cast("IO[bytes]", process.stdout) as pipe:
        while not content.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([pipe], [], [], left)[0]:
                break
            part = os.read(pipe.fileno(), 4096)
            if not part:
                break
            content += part
    with contextlib.suppress(subprocess.TimeoutExpired):  # it forks off and ends at once
        process.wait(timeout=5)
    return content


def _judge(name: str, text: bytes) -> None:
    try:
        answer = json.loads(text)
        ok = bool(answer["ok"])
    except (ValueError, TypeError, KeyError):
        words = text.decode(errors="replace").strip().splitlines()
        detail = words[-1] if words else f"it gave no answer within {_ANSWER_S:g} s"
        raise errors.RuntimeAdapterError(f"The shim of {name} did not start: {detail}.") from None
    if ok:
        return
    if answer.get("errno"):
        raise instances.storage_error(f"{name} cannot be started", answer["errno"], str(answer.get("error")))
    raise errors.RuntimeAdapterError(f"{name} cannot be started: {answer.get('error')}.")

"""One runtime with a sample package, and helpers that wait for real processes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from tidegate.core import model
from tidegate.runtimes import cgroups, instances, procfs, secret_files
from tidegate.runtimes.process import ProcessRuntime, ProcessSettings

KEY = model.EnvironmentKey(app="shop", environment="production")
DIGEST = "sha256:" + "ab" * 32

#: A Python that other users may execute too; the one that runs the tests may lie in somebody's home.
PYTHON = shutil.which("python3", path="/usr/bin:/bin:/usr/local/bin") or sys.executable

SERVER = '''
"""Serves; does on request what an app may do to its runtime."""
import ctypes, http.server, json, os, signal, subprocess, sys, threading, time, urllib.parse

state = {"health": 200}
print("started", os.getpid(), flush=True)
if os.environ.get("IGNORE_TERM"):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def daemonise(args):
    """A grandchild in a session of its own, whose parent has ended."""
    code = "import os,sys,time; os.setsid(); pid=os.fork(); pid and (print(pid,flush=True), os._exit(0))"
    code += "; os.close(1); time.sleep(300)"
    environ = {} if args.get("bare") else dict(os.environ)
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environ)
    return int(done.stdout)


def attempt(args):
    try:
        with open(args["path"], args.get("mode", "r")) as file:
            return "open"
    except OSError as error:
        return type(error).__name__


def say(args):
    for number in range(int(args["count"])):
        print(args["text"] + str(number), flush=True)


def die(args):
    threading.Timer(0.05, lambda: os.kill(os.getpid(), int(args["signal"]))).start()


def end(args):
    threading.Timer(0.05, lambda: os._exit(int(args["status"]))).start()


def allocate(args):
    return len(bytearray(os.urandom(1) * int(args["bytes"])))


def forks(args):
    count = 0
    try:
        for _ in range(int(args["count"])):
            subprocess.Popen(["sleep", "300"])
            count += 1
    except OSError:
        pass
    return count


DOINGS = {
    "/env": lambda args: dict(os.environ),
    "/who": lambda args: {
        "status": open("/proc/self/status").read(), "limits": open("/proc/self/limits").read(),
        "groups": os.getgroups(), "cwd": os.getcwd(), "files": sorted(os.listdir("/proc/self/fd")),
        "oom": open("/proc/self/oom_score_adj").read(), "umask": os.umask(0o022),
        "session": os.getsid(0), "stdin": os.readlink("/proc/self/fd/0"),
    },
    "/daemonise": daemonise, "/open": attempt, "/say": say, "/die": die, "/end": end,
    "/allocate": allocate, "/forks": forks,
    "/health": lambda args: state.update(health=int(args["status"])),
}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        path, _, query = self.path.partition("?")
        status, answer = 200, None
        if path in DOINGS:
            answer = DOINGS[path](dict(urllib.parse.parse_qsl(query)))
        elif state["health"] == 0:
            time.sleep(300)
        else:
            status = state["health"]
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *args):
        pass


http.server.ThreadingHTTPServer.daemon_threads = True
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
'''

T = TypeVar("T")


def wait_for(what: Callable[[], T], *, seconds: float = 15.0) -> T:
    """Ask until the answer is true; fails with the last answer."""
    deadline = time.monotonic() + seconds
    while True:
        answer = what()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain, last answer: {answer!r}"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    """Runs, and is not a zombie."""
    found = procfs.stat(pid)
    return found is not None and not found.zombie


class World:
    """A runtime, its folder, and a package that serves."""

    def __init__(self, folder: Path, *, run_as: str) -> None:
        self.folder = folder
        self.run_as = run_as
        self.package = folder / "package"
        self.package.mkdir(mode=0o755)
        self.add("server.py", SERVER)
        self.runtimes: list[ProcessRuntime] = []
        self.secrets: dict[str, str] = {}
        self.runtime = self.new_runtime()

    # --- making ---

    def add(self, name: str, text: str, *, mode: int = 0o644) -> Path:
        path = self.package / name
        path.write_text(text, encoding="utf-8")
        path.chmod(mode)
        return path

    def settings(self, **changes: Any) -> ProcessSettings:
        # Another part of the range for each worker: what one chose, another has not bound yet.
        worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:])
        first = 20_000 + 1_000 * (worker % 12)
        settings = ProcessSettings(run_as=self.run_as, first_port=first, last_port=first + 999)
        return replace(settings, **changes)

    def new_runtime(self, **changes: Any) -> ProcessRuntime:
        """Another one on the same folder, as after a restart of the control plane."""
        made = ProcessRuntime(
            self.folder / "instances",
            content=lambda group: self.package,
            secrets=lambda group: self.secrets,
            settings=self.settings(**changes),
        )
        self.runtimes.append(made)
        return made

    def group(self, **changes: Any) -> model.InstanceGroup:
        base = model.InstanceGroup(
            key=KEY,
            placement=7,
            service="api",
            release=42,
            digest=DIGEST,
            run=(PYTHON, "server.py"),
            serves=True,
            check=model.Check(kind=model.CheckKind.HTTP, path="/", interval_s=0.2, timeout_s=1.0),
            instances=1,
            environment=(("COLOUR", "blue"), ("DATABASE_URL", "postgres://u:hunter2-canary@db/shop")),
            limits=model.Limits(),
            grace_s=5.0,
        )
        return replace(base, **changes)

    def worker(self, program: str, **changes: Any) -> model.InstanceGroup:
        """A group without port that runs this Python text."""
        self.add("worker.py", program)
        check = model.Check(kind=model.CheckKind.ALIVE, settle_s=0.1)
        return self.group(**{"run": (PYTHON, "worker.py"), "serves": False, "check": check, **changes})

    # --- looking ---

    def groups_of(self, key: model.EnvironmentKey) -> tuple[model.GroupStatus, ...]:
        return self.runtime.observe(key).groups

    def groups(self) -> tuple[model.GroupStatus, ...]:
        return self.runtime.observe(KEY).groups

    def instance(self, index: int = 0) -> model.InstanceStatus:
        (group,) = self.groups()
        return next(one for one in group.instances if one.index == index)

    def start(self, group: model.InstanceGroup) -> model.InstanceStatus:
        """Apply, and wait until all are ready; returns the first."""
        self.runtime.apply(group, key="start")
        wait_for(lambda: self.ready(group))
        return self.instance()

    def ready(self, group: model.InstanceGroup) -> bool:
        return any(one.id == group.id and one.ready_count == group.instances for one in self.groups())

    def gone(self) -> bool:
        return self.groups() == ()

    def instance_folder(self, group: model.InstanceGroup, index: int = 0) -> Path:
        return self.folder / "instances" / group.id / str(index)

    def shim(self, group: model.InstanceGroup, index: int = 0) -> int | None:
        return instances.shim_of(self.instance_folder(group, index))

    def ask(self, path: str, index: int = 0) -> Any:
        """What the sample server answers."""
        return self.ask_port(self.instance(index).port or 0, path)

    def ask_port(self, port: int, path: str) -> Any:
        """What the sample server at this port answers."""
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return json.load(answer)

    def answers(self, index: int = 0) -> bool:
        """Whether the sample server listens already."""
        with contextlib.suppress(urllib.error.URLError):
            return bool(self.ask("/env", index))
        return False

    # --- harming ---

    def kill_shim(self, group: model.InstanceGroup, index: int = 0) -> None:
        pid = self.shim(group, index)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not alive(pid))

    # --- ending ---

    def end(self) -> None:
        """Stop all that runs; complains about nothing, so that the test's own failure is seen."""
        folder = self.folder / "instances"
        for path in folder.glob("*/*/spec.json") if folder.exists() else ():
            with contextlib.suppress(Exception):
                path.with_name("stop").touch()
        for group_id in self.runtime._layout.groups() if folder.exists() else ():
            with contextlib.suppress(Exception):
                self.runtime.remove(group_id, key="end")
        deadline = time.monotonic() + 8
        while list(self.processes()) and time.monotonic() < deadline:
            time.sleep(0.02)
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for group_folder in folder.glob("*/*"):
            name = f"{self.runtime._layout.mark}.{group_folder.parent.name}.{group_folder.name}"
            cgroups.detect().remove(name)
        for made in self.runtimes:
            made.close()
        for left in self.secret_folders():
            secret_files.take_away(str(left))

    def secret_folders(self) -> list[Path]:
        """Folders in memory that instances of this world have secrets in."""
        bases = (Path(secret_files.at(place, self.runtime._layout.mark)) for place in secret_files.places())
        return [folder for base in bases if base.exists() for folder in base.iterdir()]

    def processes(self) -> Iterator[int]:
        """Shims and marked processes of this world."""
        below = str(self.folder / "tmp")
        for found in procfs.every():
            pid = found.identity.pid
            if procfs.environment(pid).get("TMPDIR", "").startswith(below):
                yield pid
        for folder in (self.folder / "instances").glob("*/*"):
            shim = instances.shim_of(folder)
            if shim is not None:
                yield shim


CONTROL_PLANE = """
import sys, time
from pathlib import Path
from tests.integration.runtimes.world import World
class Again(World):
    def __init__(self, folder):
        self.folder, self.run_as, self.package, self.runtimes = folder, "same", folder / "package", []
        self.secrets = {}
        self.runtime = self.new_runtime()
world = Again(Path(sys.argv[1]))
world.runtime.apply(world.group(instances=int(sys.argv[2])), key="from another process")
print("applied", flush=True)
time.sleep(300)
"""


def start_control_plane(world: World, *, count: int = 1) -> subprocess.Popen[bytes]:
    """Another process that owns a runtime on the same folder, and has called `apply`."""
    root = Path(__file__).parents[3]
    return subprocess.Popen(
        [sys.executable, "-c", CONTROL_PLANE, str(world.folder), str(count)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": f"{root}:{root / 'src'}"},
    )

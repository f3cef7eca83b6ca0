"""The installed `tide` command on a control plane of its own, and everything that it left in the machine.

    tide = Tide(folder)
    shop = tide.app("shop", services={"web": service("web", route="*")})
    shop.deploy()

Hides ports, folders and processes. Invariants: nothing listens on a port that another test may have; every
process of this control plane is found by its home (working folder, arguments or environment), and after
`close` none is left. Neighbours: `sample` is the app, `users` are those who ask it.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path
from typing import Any, Final, TypeVar

from tests.support import sample
from tests.support.ports import Ports
from tidegate import client, errors
from tidegate.artifacts import package
from tidegate.client import Json

T = TypeVar("T")

COMMAND: Final = Path(sys.executable).with_name("tide")
#: Longest that one command of a test may take on a busy machine.
COMMAND_LIMIT_S: Final = 60.0


def wait_for(what: Callable[[], T], *, seconds: float = 20.0, why: object = "") -> T:
    """Ask until the answer is true; fails with the last answer."""
    deadline = time.monotonic() + seconds
    while True:
        answer = what()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain, last answer: {answer!r} {why}"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    """Runs, and is not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text("latin-1")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def kill(pid: int) -> None:
    """SIGKILL, and wait for the end."""
    assert pid > 1, "0 and 1 are more than a process"
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not is_alive(pid), seconds=10)


@dataclass(frozen=True, slots=True)
class Done:
    """What a command answered."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its one JSON document; fails when there is more or less than one."""
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Page:
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def release(self) -> str | None:
        return self.headers.get("x-release")


class Tide:
    """One control plane, its data folder, and the command to drive it."""

    def __init__(self, *, command: Path = COMMAND, root: Path | None = None) -> None:
        """`root`: where to keep everything; default: a new folder that other users may pass through."""
        self.root = root or Path(tempfile.mkdtemp(prefix="tide-"))
        self.root.chmod(0o711)
        self.command = command
        self.home = self.root / "home"
        self.environ: dict[str, str] = {}
        self.home.mkdir(mode=0o711, exist_ok=True)
        self._ports = Ports()
        ports = self._ports.block
        self.port = ports[0]
        settings = {"host": "127.0.0.1", "port": self.port, "link_ports": [ports[1], ports[-1] + 1]}
        (self.home / "settings.json").write_text(json.dumps(settings))
        self._spread_instances()

    def _spread_instances(self) -> None:
        """Begin somewhere else than other tests: what one has chosen, another has not bound yet."""
        instances = self.home / "instances"
        instances.mkdir(mode=0o700)
        (instances / ".port").write_text(str(random.randrange(20_000, 32_700)))

    # --- commands ---

    def arguments(self, *words: object) -> list[str]:
        """The command line."""
        return [str(self.command), "--home", str(self.home), *(str(word) for word in words)]

    def run(self, *words: object, cwd: Path | None = None, timeout: float = COMMAND_LIMIT_S) -> Done:
        """Run a command to its end."""
        done = subprocess.run(
            self.arguments(*words),
            cwd=cwd or self.root,
            env=os.environ | self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert "Traceback (most recent call last)" not in done.stderr, done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def ok(self, *words: object, cwd: Path | None = None) -> Done:
        """The same, and it has to succeed."""
        done = self.run(*words, cwd=cwd)
        assert done.status == 0, f"{words} ended with {done.status}\n{done.out}\n{done.err}\n{self.log()}"
        return done

    def begin(self, *words: object, cwd: Path | None = None) -> subprocess.Popen[str]:
        """Start a command that goes on while the test does something else; end it with `finished`."""
        return subprocess.Popen(
            self.arguments(*words),
            cwd=cwd or self.root,
            env=os.environ | self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def up(self) -> int:
        """Start the control plane; its pid."""
        self.ok("up")
        return self.pid

    def app(self, name: str, **manifest: Any) -> App:
        """An app of a folder of its own; `manifest`: keys beside `app` and `artifact`."""
        return App(self, name, manifest)

    # --- looking ---

    @property
    def socket(self) -> Path:
        return self.home / "api.sock"

    @property
    def pid(self) -> int:
        with client.Client(self.socket) as connection:
            return int(connection.status()["pid"])

    @property
    def answers(self) -> bool:
        """The control plane is there."""
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except OSError:
                return False
        return True

    def log(self) -> str:
        """The end of the control plane's log."""
        with contextlib.suppress(OSError):
            return "\n".join((self.home / "control-plane.log").read_text().splitlines()[-30:])
        return ""

    def get(self, path: str = "/", host: str = "localhost", headers: dict[str, str] | None = None) -> Page:
        """One request over a connection of its own."""
        url = f"http://127.0.0.1:{self.port}{path}"
        request = urllib.request.Request(url, headers={"Host": host} | (headers or {}))
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - http, written above
                return _page(answer)
        except urllib.error.HTTPError as error:
            with error:
                return _page(error)

    def processes(self) -> dict[int, str]:
        """Everything that runs for this home: pid and command line."""
        return {pid: words for pid, words in _everybody() if _belongs(pid, words, str(self.home))}

    def supervisor(self) -> int:
        """Pid of HAProxy's supervisor; 0: none runs."""
        folder = str(self.home / "router")
        found = [pid for pid, words in _everybody() if words.endswith(f"supervisor.py {folder}")]
        return max(found, default=0)

    def master(self) -> int:
        """Pid of HAProxy's master process. Fails if nobody listens."""
        return wait_for(lambda: self._haproxy()[0])

    def worker(self) -> int:
        """Pid of HAProxy's newest worker."""
        return wait_for(lambda: self._haproxy()[1])

    def _haproxy(self) -> tuple[int, int]:
        folder = str(self.home / "router")
        found = [pid for pid, words in _everybody() if "/bin/haproxy " in words and _cwd(pid) == folder]
        workers = [pid for pid in found if _parent(pid) in found]
        masters = [pid for pid in found if pid not in workers]
        return max(masters, default=0), max(workers, default=0)

    def haproxy(self, command: str) -> str:
        """Ask HAProxy's worker, as an operator would."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(self.home / "router" / "admin.sock"))
            connection.sendall(command.encode() + b"\n")
            parts = []
            while part := connection.recv(65536):
                parts.append(part)
        return b"".join(parts).decode()

    def kill_instance(self, pid: int) -> None:
        """Kill -9 of an app's process, which must be ours."""
        assert pid in self.processes()
        kill(pid)

    # --- ending ---

    def close(self) -> None:
        """Stop everything and remove all files."""
        try:
            self.end()
        finally:
            self._ports.close()
            shutil.rmtree(self.root, ignore_errors=True)

    def end(self) -> None:
        """Stop everything, as a user would; what a failed test has broken is ended by pid."""
        left: dict[int, str] = {}
        try:
            if self._stopped():
                left = self.processes()
        finally:
            for pid in self.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            wait_for(lambda: not self.processes(), seconds=10)
        assert not left, f"`tide down --all` left these running: {left}"

    def _stopped(self) -> bool:
        if not self.answers:
            return False
        with contextlib.suppress(errors.TidegateError), client.Client(self.socket) as connection:
            pid = int(connection.status()["pid"])
            connection.shutdown(apps=True)
            deadline = time.monotonic() + 30
            while is_alive(pid):
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.02)
            return True
        return False


class App:
    """An app in a folder, and its life in one control plane."""

    def __init__(self, tide: Tide, name: str, manifest: dict[str, Any]) -> None:
        self.tide, self.name, self.manifest = tide, name, manifest
        self.folder = tide.root / name
        self.folder.mkdir()
        self.host = "localhost"
        self.write()

    # --- making ---

    def write(self, conduct: dict[str, Any] | None = None, **manifest: Any) -> None:
        """The files as of the next release; `manifest`: keys that change."""
        self.manifest |= manifest
        whole = {"app": self.name, "artifact": {"package": "dist/"}, **self.manifest}
        (self.folder / "tidegate.yaml").write_text(sample.text(whole), "utf-8")
        sample.write_package(self.folder / "dist", conduct or {})

    def run(self, *words: object) -> Done:
        """A command in the app's folder."""
        return self.tide.run(*words, cwd=self.folder)

    def ok(self, *words: object) -> Done:
        """The same, and it has to succeed."""
        return self.tide.ok(*words, cwd=self.folder)

    def begin(self, *words: object) -> subprocess.Popen[str]:
        """A command that goes on."""
        return self.tide.begin(*words, cwd=self.folder)

    def deploy(self, *words: object, **conduct: Any) -> Done:
        """A new release by `tide deploy`, which has to succeed."""
        self.write({"made": random.random(), **conduct})
        return self.ok("deploy", *words)

    def bring(self, environment: str = "production", **conduct: Any) -> Json:
        """A new release over the API, as `tide deploy --no-wait` does, without the command's start-up."""
        self.write({"made": random.random(), **conduct})
        with (
            tempfile.TemporaryFile() as archive,
            client.Client(self.tide.socket, on_behalf_of="ada") as connection,
        ):
            packed = package.pack(self.folder / "dist", archive)
            archive.seek(0)
            connection.upload(iter(lambda: archive.read(1 << 20), b""), digest=packed.digest)
            manifest = (self.folder / "tidegate.yaml").read_text("utf-8")
            release = connection.add_release(manifest=manifest, digest=packed.digest, revision="")
            place = client.Place(self.name, environment)
            return connection.act(place, "deploy", release=release["number"])

    def open(self, environment: str = "production", **conduct: Any) -> Json:
        """The first release, live."""
        self.bring(environment, **conduct)
        seen = self.wait_ended(environment)
        assert seen["last"]["phase"] == "succeeded", seen
        return seen

    def hold(self, environment: str = "production", **conduct: Any) -> Json:
        """The next release, held at its first step."""
        self.bring(environment, **conduct)
        return self.wait_phase("holding", environment=environment)

    def refused_deploy(self, *words: object, **conduct: Any) -> Done:
        """A new release by `tide deploy`, which may end as it likes."""
        self.write({"made": random.random(), **conduct})
        return self.run("deploy", *words)

    # --- looking ---

    def look(self, environment: str = "production") -> Json:
        """The environment now, over the API."""
        with client.Client(self.tide.socket) as connection:
            return connection.environment(client.Place(self.name, environment))

    def act(self, action: str, environment: str = "production", **body: Any) -> Json:
        """A request over the API."""
        with client.Client(self.tide.socket, on_behalf_of="ada") as connection:
            return connection.act(client.Place(self.name, environment), action, **body)

    def events(self, environment: str = "production") -> list[Json]:
        """All decisions so far."""
        with client.Client(self.tide.socket) as connection:
            return connection.events(client.Place(self.name, environment))

    def history(self, environment: str = "production") -> list[Json]:
        """All rollouts, newest first."""
        with client.Client(self.tide.socket) as connection:
            return connection.history(client.Place(self.name, environment), limit=1000)

    def wait_phase(self, *phases: str, environment: str = "production", seconds: float = 20.0) -> Json:
        """Wait until the current or the last rollout is in one of the phases."""

        def reached() -> Json | None:
            seen = self.look(environment)
            rollout = seen["rollout"] or seen["last"]
            return seen if rollout and rollout["phase"] in phases else None

        found = wait_for(reached, seconds=seconds, why=f"for {phases}")
        assert found is not None
        return found

    def wait_ended(self, environment: str = "production", *, seconds: float = 30.0) -> Json:
        """Wait until no rollout is in progress and none is waiting; the environment then."""

        def ended() -> Json | None:
            seen = self.look(environment)
            return seen if seen["rollout"] is None and seen["pending_release"] is None else None

        found = wait_for(ended, seconds=seconds, why="for the end of the rollout")
        assert found is not None
        return found

    def pids(self, release: int, environment: str = "production") -> set[int]:
        """Processes of the instances of a release."""
        return {
            instance["pid"]
            for placement in self.look(environment)["placements"]
            if placement["release"] == release
            for one in placement["services"]
            for instance in one["instances"]
            if instance["pid"]
        }

    def get(self, path: str = "/", **headers: str) -> Page:
        """A request of a user."""
        return self.tide.get(path, self.host, headers)

    def data(self, environment: str = "production") -> Path:
        """The folder that the app may write."""
        return self.tide.home / "data" / f"{self.name}.{environment}"

    def mark(self, name: str, environment: str = "production") -> Path:
        """Put a file into the app's data folder, readable for its user."""
        path = self.data(environment) / name
        path.touch(mode=0o644)
        return path

    def journal(self, environment: str = "production") -> list[list[str]]:
        """What instances said of their start and stop: what, service, release, instance, pid."""
        return [line.split() for line in (self.data(environment) / "journal").read_text().splitlines()]

    def route(self, environment: str = "production") -> str:
        """The entry of HAProxy's route map, as the running process holds it."""
        for line in self.tide.haproxy("show map routes.map").splitlines():
            _, _, rest = line.partition(" ")
            key, _, value = rest.partition(" ")
            if key == f"{self.name}.{environment}.":
                return value
        return ""

    def exposure(self) -> int:
        """The canary's share in basis points, as the running HAProxy holds it."""
        fields = self.route().split(":")
        return int(fields[3]) if len(fields) > 3 and fields[2] != "-" else 0


def finished(process: subprocess.Popen[str], *, seconds: float = COMMAND_LIMIT_S) -> Done:
    """Wait for a command that `begin` started."""
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    assert "Traceback (most recent call last)" not in err, err
    return Done(process.returncode, out, err)


def _page(answer: HTTPResponse | urllib.error.HTTPError) -> Page:
    headers = {name.lower(): value for name, value in answer.headers.items()}
    return Page(int(answer.status or 0), headers, answer.read())


def _everybody() -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid() and is_alive(int(entry.name)):
            with contextlib.suppress(OSError):
                words = entry.joinpath("cmdline").read_bytes().split(b"\0")
                yield int(entry.name), b" ".join(words).decode("utf-8", "replace").rstrip()


def _belongs(pid: int, words: str, home: str) -> bool:
    if home in words or _cwd(pid).startswith(home):
        return True
    try:
        return home.encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return False


def _cwd(pid: int) -> str:
    try:
        return str(Path(f"/proc/{pid}/cwd").readlink())
    except OSError:
        return ""


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text("latin-1").rpartition(")")[2].split()[1])
    except OSError:
        return 0

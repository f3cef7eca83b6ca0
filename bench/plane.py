"""A control plane of the bench's own, started as a user would start it, and the app that is deployed in it.

Hides the folder, ports, packing and sending of releases, and that nothing is left running, however it ends.
Neighbours: `rollouts`, `flip`, `kills` and `loop` deploy here; `tidegate.client` is what they ask with.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench import machine
from tidegate import client, errors, launcher, paths
from tidegate.artifacts import package
from tidegate.demo import processes

APP: Final = "bench"
WEB: Final = Path(__file__).with_name("app") / "web.py"
POLL_S: Final = 0.01
END_LIMIT_S: Final = 60.0
LINK_PORTS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """One environment of the app."""

    name: str
    strategy: str = "switch"
    """As in tidegate.yaml, in one line."""
    keep_warm: str = "10m"
    instances: int = 2

    @property
    def host(self) -> str:
        return f"{self.name}.bench.test"

    @property
    def place(self) -> client.Place:
        return client.Place(APP, self.name)


def manifest(sites: tuple[Site, ...], drain: str) -> str:
    """The app's tidegate.yaml. The command is this Python: there may be no other."""
    lines = [
        f"app: {APP}",
        "artifact: {package: .}",
        "services:",
        "  web:",
        f"    run: [{sys.executable}, -I, -S, web.py]",
        "    health: /",
        "    route: bench.test",
        f"    drain: {drain}",
        "environments:",
    ]
    for site in sites:
        web = f"instances: {site.instances}, route: {site.host}"
        lines += [
            f"  {site.name}:",
            f"    strategy: {site.strategy}",
            f"    keep_warm: {site.keep_warm}",
            f"    services: {{web: {{{web}}}}}",
        ]
    return "\n".join(lines) + "\n"


@dataclass(slots=True, kw_only=True)
class Plane:
    """A control plane that runs."""

    home: paths.Home
    settings: launcher.Settings
    pid: int
    releases: tuple[int, ...] = ()
    left_behind: list[int] = field(default_factory=list)

    @property
    def port(self) -> int:
        """Where users ask."""
        return self.settings.port

    def connect(self) -> client.Client:
        """A client, to be used as a context manager."""
        return client.Client(self.home.socket, on_behalf_of="bench")

    def start(self) -> None:
        """Start it, or start it again after it was killed. Raises TidegateError."""
        self.pid = launcher.start_detached(self.home, self.settings)

    def haproxy(self) -> tuple[int, ...]:
        """Process ids of HAProxy."""
        return haproxy_of(self.home.router)


def haproxy_of(folder: Path) -> tuple[int, ...]:
    """Process ids of the HAProxy that works in this folder: what their working directory says."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if (entry / "comm").read_text() == "haproxy\n" and (entry / "cwd").resolve() == folder.resolve():
                found.append(int(entry.name))
    return tuple(found)


@contextlib.contextmanager
def running(*sites: Site, drain: str = "60s") -> Iterator[Plane]:
    """A control plane with these environments, release 1 live in each. Raises TidegateError, BenchError."""
    with machine.folder() as root:
        public, *links = machine.free_ports(1 + LINK_PORTS)
        settings = launcher.Settings(port=public, link_ports=(links[0], links[-1] + 1), run_as="same")
        plane = Plane(home=paths.Home(root / "home"), settings=settings, pid=0)
        try:
            plane.start()
            with plane.connect() as connection:
                plane.releases = tuple(
                    _published(connection, root / f"r{number}", number, manifest(sites, drain))
                    for number in (1, 2)
                )
                for site in sites:
                    act_and_wait(connection, site, "deploy", release=plane.releases[0])
            yield plane
        finally:
            _stop(plane)


def _published(connection: client.Client, folder: Path, number: int, text: str) -> int:
    """Pack and send one release of the app; its number."""
    folder.mkdir()
    shutil.copyfile(WEB, folder / "web.py")
    (folder / "release.txt").write_text(f"r{number}\n")
    (folder / "tidegate.yaml").write_text(text)
    with tempfile.TemporaryFile(dir=folder.parent) as archive:
        packed = package.pack(folder, archive)
        archive.seek(0)
        connection.upload(iter(lambda: archive.read(1 << 20), b""), digest=packed.digest)
    return int(connection.add_release(manifest=text, digest=packed.digest, revision=f"r{number}")["number"])


def act_and_wait(connection: client.Client, site: Site, action: str, **body: Any) -> dict[str, Any]:
    """Ask for a rollout and wait for its end; the rollout. Raises BenchError unless it succeeds."""
    rollout = connection.act(site.place, action, **body)["rollout"]
    return wait_for_end(connection, site, rollout)


def wait_for_end(connection: client.Client, site: Site, rollout: int) -> dict[str, Any]:
    """The rollout, as the history has it. Raises BenchError unless it succeeds in time."""
    deadline = time.monotonic() + END_LIMIT_S
    while time.monotonic() < deadline:
        now = connection.environment(site.place)
        last = now["last"]
        if now["rollout"] is None and last is not None and last["id"] == rollout:
            if last["phase"] != "succeeded":
                raise machine.BenchError(
                    f"rollout {rollout} of {site.name} {last['phase']}: {last['detail']}"
                )
            return dict(last)
        time.sleep(POLL_S)
    raise machine.BenchError(f"rollout {rollout} of {site.name} did not end within {END_LIMIT_S:g} s")


def _stop(plane: Plane) -> None:
    """In order, then by force."""
    with contextlib.suppress(errors.TidegateError, machine.BenchError), plane.connect() as connection:
        pid = int(connection.status()["pid"])
        connection.shutdown(apps=True)
        machine.wait_for("the control plane's end", lambda: processes.has_ended(pid), limit_s=30.0)
    plane.left_behind += processes.kill(plane.home.root)
    if plane.left_behind:
        print(f"! had to be killed at the end: {plane.left_behind}")
    if plane.home.socket.parent != plane.home.root:
        shutil.rmtree(plane.home.socket.parent, ignore_errors=True)

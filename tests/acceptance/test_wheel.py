"""What a stranger does: install the wheel into an empty environment, and deploy, not as root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import sample
from tests.support.tide import Tide

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(300)]

ROOT = Path(__file__).parents[2]
NOBODY = 65534

WEB = f"""#!{sample.PYTHON}
import http.server, os
http.server.test(http.server.SimpleHTTPRequestHandler, port=int(os.environ["PORT"]), bind="127.0.0.1")
"""


def _run(*words: object, **keys: object) -> str:
    done = subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        stdin=subprocess.DEVNULL,
        **keys,  # type: ignore[call-overload]
    )
    assert done.returncode == 0, f"{words} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that everybody may enter, with an environment of the wheel and its locked dependencies."""
    folder = Path(tempfile.mkdtemp(prefix="tide-wheel-"))
    folder.chmod(0o755)
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    try:
        _run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
        (wheel,) = folder.glob("tidegate-*.whl")
        _run(sample.PYTHON, "-m", "venv", "--without-pip", folder / "venv")
        into = [*pip, "--python", folder / "venv" / "bin" / "python", "install"]
        _run(*into, "--require-hashes", "--no-deps", "-r", ROOT / "requirements" / "base.txt")
        _run(*into, "--no-deps", "--no-index", wheel)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Stranger:
    """Somebody who is not root, with a home of their own."""

    def __init__(self, place: Path, tide: Tide) -> None:
        self.place, self.tide = place, tide
        self.home, self.folder = tide.root / "stranger", tide.root / "stranger" / "shop"
        self.folder.mkdir(parents=True)
        self.user = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        self.own()

    def own(self) -> None:
        """What is in their home is theirs."""
        if self.user:
            for path in (self.home, *self.home.rglob("*"), self.tide.home, *self.tide.home.rglob("*")):
                os.chown(path, NOBODY, NOBODY, follow_symlinks=False)

    def run(self, *words: object) -> str:
        """A command of the installed wheel, with nothing of this checkout in sight."""
        return _run(
            *words,
            cwd=self.folder,
            env={"HOME": str(self.home), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"},
            **self.user,
        )

    def run_tide(self, *words: object) -> str:
        return self.run(self.place / "venv" / "bin" / "tide", "--home", self.tide.home, *words)


@pytest.fixture
def stranger(place: Path, idle: Tide) -> Stranger:
    return Stranger(place, idle)


def test_wheel_needs_nothing_but_itself(stranger: Stranger) -> None:
    """From the wheel alone, in an empty folder and without root: init, up, deploy, status, rollback, down."""
    said = stranger.run_tide("--version")
    assert "tide" in said
    assert "Wrote tidegate.yaml" in stranger.run_tide("init")
    program = stranger.folder / "bin" / "web"
    program.parent.mkdir()
    program.write_text(WEB)
    program.chmod(0o755)
    stranger.own()
    stranger.run_tide("up")
    assert "r1 is live in shop/test" in stranger.run_tide("deploy", "test")
    (stranger.folder / "news.txt").write_text("fresh")
    assert "r2 is live in shop/test" in stranger.run_tide("deploy", "test")
    assert stranger.tide.get("/news.txt", host="test.localhost").body == b"fresh"
    assert "r1 is live" in stranger.run_tide("rollback", "test")
    assert stranger.tide.get("/news.txt", host="test.localhost").status == 404
    owners = {Path(f"/proc/{pid}").stat().st_uid for pid in stranger.tide.processes()}
    assert owners == {NOBODY if os.geteuid() == 0 else os.getuid()}
    assert "Everything is stopped" in stranger.run_tide("down", "--all")
    assert stranger.tide.processes() == {}


def test_installed_command_runs_outside_the_checkout(stranger: Stranger) -> None:
    """The package that is imported is the installed one, with all the files that it needs."""
    where = stranger.run(
        stranger.place / "venv" / "bin" / "python", "-c", "import tidegate; print(tidegate.__file__)"
    )
    assert where.startswith(str(stranger.place))

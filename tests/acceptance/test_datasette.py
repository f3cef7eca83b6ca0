"""A real app that nobody here wrote: two releases of Datasette, as docs/how-to/datasette.md has it.

The manifest and the commands are taken from that page as they stand; only the port is another one.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import sample
from tests.support.tide import Tide, wait_for
from tests.support.users import Users

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.uncounted, pytest.mark.timeout(400)]

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "datasette.md"
#: The page's `python3`: one that the apps' user may run, with pip even where the system's has none.
PYTHON = f"""#!/bin/sh
[ "$1 $2" = "-m pip" ] && shift 2 && exec {sys.executable} -m pip --python {sample.PYTHON} "$@"
exec {sample.PYTHON} "$@"
"""


def blocks(language: str) -> list[str]:
    """The page's blocks in a language, in their order."""
    text = PAGE.read_text("utf-8")
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return found


class Reader:
    """Somebody who types what the page says."""

    def __init__(self, tide: Tide) -> None:
        self.tide, self.folder = tide, tide.root / "library"
        self.folder.mkdir()
        self.bin = tide.root / "bin"
        self.bin.mkdir()
        self.bin.joinpath("python3").write_text(PYTHON)
        self.bin.joinpath("python3").chmod(0o755)
        self.bin.joinpath("tide").symlink_to(tide.command)

    def types(self, block: str) -> str:
        """Run a block of the page; what it prints."""
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", block.replace("8080", str(self.tide.port))],
            cwd=self.folder,
            env={**os.environ, "PATH": f"{self.bin}:/usr/bin:/bin", "TIDEGATE_HOME": str(self.tide.home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}\n{self.tide.log()}"
        return done.stdout

    def version(self) -> str:
        """Which Datasette answers."""
        found = self.tide.get("/-/versions.json").json
        return str(found["datasette"]["version"])


def test_datasette_goes_from_one_release_to_the_next_and_back(idle: Tide) -> None:
    """A real app is deployed by canary, upgraded and rolled back, with its data, and nobody notices."""
    reader = Reader(idle)
    (manifest,) = blocks("yaml")
    (reader.folder / "tidegate.yaml").write_text(manifest)
    first, books, upgrade, back, end = blocks("sh")
    assert "r1 is live" in reader.types(first)
    assert reader.version() == "0.64.8"
    assert "The Waves" in reader.types(books)
    with Users(idle.port, path="/library/books.json", count=8, think_s=0.4) as users:
        wait_for(lambda: len(users.asked) > 8)
        said = reader.types(upgrade)
        assert "r2 is live" in said
        assert "The Waves" in said
        assert reader.version() == "0.65.1"
        assert "The Waves" in idle.get("/library/books").body.decode()
        said = reader.types(back)
        assert "r1 is live" in said
        assert "the librarian liked the old one better" in said
        assert reader.version() == "0.64.8"
    assert not users.failures, users.summary()
    status = json.loads(idle.ok("status", "production", "--json", cwd=reader.folder).out)
    assert {placement["role"] for placement in status["placements"]} == {"live", "standby"}
    assert "Everything is stopped" in reader.types(end)
    assert idle.processes() == {}

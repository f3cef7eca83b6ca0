"""The repository keeps its promises: one command for CI, one version, a reason for each exception."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import re
import shutil
import subprocess
import tomllib

import pytest

import tidegate
from tests.meta import sources

PYPROJECT = (sources.ROOT / "pyproject.toml").read_text("utf-8")
MAKE_TARGETS = (
    *("help", "setup", "demo", "test", "check", "fmt", "lint"),
    *("type", "sim", "bench", "docs", "build", "lock", "ci"),
)


def run(
    *command: str, cwd: pathlib.Path = sources.ROOT, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command of the repository to its end, without the settings of a surrounding make."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    environment = {**kept, **variables}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def copy_of_the_scaffold(folder: pathlib.Path) -> pathlib.Path:
    """What `make setup` reads, in a folder of its own."""
    for name in ("Makefile", "pyproject.toml", "requirements/dev.txt", "src/tidegate/__init__.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(sources.ROOT / name, folder / name)
    return folder


def program(folder: pathlib.Path, name: str, script: str) -> str:
    """A small shell program, for what this machine's python3 is not."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
    path.chmod(0o700)
    return str(path)


def test_ci_runs_the_tests_and_nothing_else() -> None:
    """What CI proves is what the README tells a reader to run."""
    lines = (sources.ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    commands = [line for line in lines if line and not line.startswith("#")]
    assert commands == ["set -euo pipefail", 'cd "$(dirname "${BASH_SOURCE[0]}")/.."', "make test"]
    assert "make test" in (sources.ROOT / "README.md").read_text("utf-8")


def test_make_alone_lists_every_target() -> None:
    """A reader who types `make` sees what there is, and nothing happens."""
    listed = run("make")
    assert listed.returncode == 0, listed.stderr
    assert tuple(re.findall(r"^  make (\w+)", listed.stdout, flags=re.MULTILINE)) == MAKE_TARGETS


def test_setup_does_nothing_when_nothing_changed(tmp_path: pathlib.Path) -> None:
    """With a stamp newer than locks and version, `make setup` starts no program."""
    folder = copy_of_the_scaffold(tmp_path)
    stamp = folder / ".venv" / ".setup-done"
    stamp.parent.mkdir()
    stamp.touch()
    done = run("make", "setup", f"PYTHON={program(folder, 'python', 'exit 9')}", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "Nothing to be done" in done.stdout


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (None, ["no ", "apt-get install python3 python3-venv"]),
        ('case "$1" in --version) echo "Python 3.9.2";; *) exit 1;; esac', ["3.9.2 is too old", "3.11"]),
        (
            'case "$*" in --version) echo "Python 3.11.2";; *ensurepip*) exit 1;; *) exit 0;; esac',
            ["python3-venv is missing", "apt-get install python3-venv"],
        ),
    ],
)
def test_setup_says_what_the_machine_lacks(
    tmp_path: pathlib.Path, script: str | None, words: list[str]
) -> None:
    """No Python, an old one and one without venv each end in one sentence with the remedy."""
    folder = copy_of_the_scaffold(tmp_path)
    python = program(folder, "python", script) if script else "python-that-is-not-there"
    done = run("make", "setup", f"PYTHON={python}", cwd=folder)
    assert done.returncode != 0
    assert all(word in done.stderr for word in words), done.stderr
    assert not (folder / ".venv").exists()


def test_the_version_is_written_once() -> None:
    """The package says its version; pyproject.toml and the installed metadata follow it."""
    assert "version" not in tomllib.loads(PYPROJECT)["project"]
    assert importlib.metadata.version("tidegate") == tidegate.__version__


def test_each_ignored_lint_rule_has_its_reason() -> None:
    """Nobody switches a rule off without saying why on the same line."""
    start = PYPROJECT.index("\nignore = [")
    lines = PYPROJECT[start : PYPROJECT.index("\n]\n", start)].splitlines()[2:]
    assert lines
    for line in lines:
        assert re.fullmatch(r'    "[A-Z]+[0-9]*", +# \S.{7,}', line), line


def test_every_ignored_rule_in_the_code_is_named() -> None:
    """A bare `noqa` or `type: ignore` would hide more than its author saw."""
    bare = re.compile(r"#\s*(?:noqa(?!: [A-Z])|type:\s*ignore(?!\[))")
    found = [source.path for source in sources.python_sources() if bare.search(source.text)]
    assert found == []

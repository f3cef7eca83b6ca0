"""The locked requirements pin every package by version and hash, and name no place to fetch it from."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.meta import sources

LOCKS = ("base.txt", "dev.txt")
PYPROJECT = tomllib.loads((sources.ROOT / "pyproject.toml").read_text("utf-8"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """One locked package."""

    requirement: Requirement
    hashes: tuple[str, ...]

    @property
    def version(self) -> str:
        """The pinned version, or nothing if it is not pinned exactly."""
        match = re.fullmatch(r"==([^*]+)", str(self.requirement.specifier))
        return match[1] if match else ""


def lock_text(name: str) -> str:
    """A lock as it is in the repository."""
    return (sources.ROOT / "requirements" / name).read_text("utf-8")


def entries(text: str) -> list[str]:
    """Logical lines of a lock: comments gone, continued lines joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return "\n".join(lines).replace("\\\n", " ").splitlines()


def pins(text: str) -> dict[str, Pin]:
    """Package name -> pin. Raises InvalidRequirement if a line is something else."""
    found: dict[str, Pin] = {}
    for entry in entries(text):
        requirement = Requirement(entry.split("--hash=", 1)[0].strip())
        hashes = tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})(?:\s|$)", entry))
        found[canonicalize_name(requirement.name)] = Pin(requirement=requirement, hashes=hashes)
    return found


def faults(text: str) -> list[str]:
    """What keeps a lock from being safe to install from anywhere."""
    found = [f"option {entry.split()[0]}" for entry in entries(text) if entry.startswith("-")]
    if "://" in text:
        found.append("a URL")
    if not found:
        for name, pin in pins(text).items():
            found += [f"{name} has no hash"] * (not pin.hashes) + [f"{name} has no version"] * (
                not pin.version
            )
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_is_complete_and_names_no_place(name: str) -> None:
    """Every requirement has one version and its hashes; no URL, index or other option is in the file."""
    assert faults(lock_text(name)) == []
    assert len(pins(lock_text(name))) > 10


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("click==8.1.7\n", "click has no hash"),
        ("click>=8 \\\n    --hash=sha256:" + "0" * 64 + "\n", "click has no version"),
        ("click==8.* \\\n    --hash=sha256:" + "0" * 64 + "\n", "click has no version"),
        ("--index-url https://mirror.example/simple\n", "option --index-url"),
        ("click @ https://mirror.example/click.whl\n", "a URL"),
        ("# https://mirror.example\n", "a URL"),
    ],
)
def test_a_fault_in_a_lock_is_found(text: str, fault: str) -> None:
    """Missing hashes and versions, options and URLs are each reported."""
    assert fault in faults(text)


def test_the_locks_hold_what_the_package_asks_for() -> None:
    """Each dependency of pyproject.toml is locked within its bounds, and the locks agree with each other."""
    base, dev = pins(lock_text("base.txt")), pins(lock_text("dev.txt"))
    for asked in map(Requirement, PYPROJECT["project"]["dependencies"]):
        assert asked.specifier.contains(base[canonicalize_name(asked.name)].version), asked
    assert {name: pin.version for name, pin in base.items()}.items() <= {
        name: pin.version for name, pin in dev.items()
    }.items()


def test_the_developers_lock_holds_what_dev_in_asks_for() -> None:
    """Each line of dev.in is locked within its bounds, and so is what builds the package."""
    dev = pins(lock_text("dev.txt"))
    lines = [line for line in lock_text("dev.in").splitlines() if line and not line.startswith("#")]
    for asked in map(Requirement, [*lines, *PYPROJECT["build-system"]["requires"]]):
        assert asked.specifier.contains(dev[canonicalize_name(asked.name)].version), asked


def test_there_is_one_kind_of_lock() -> None:
    """No second lock file can disagree with requirements/."""
    others = ("uv.lock", "poetry.lock", "Pipfile.lock", "pdm.lock", "pylock.toml")
    assert [name for name in others if (sources.ROOT / name).exists()] == []

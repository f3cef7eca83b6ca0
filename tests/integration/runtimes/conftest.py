"""Fixtures: a world with a runtime of its own, which is empty again when the test has ended."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.runtimes.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Instances run as the user of the tests."""
    made = World(tmp_path, run_as="same")
    try:
        yield made
    finally:
        made.end()


@pytest.fixture
def separated() -> Iterator[World]:
    """Each app has a user of its own; only root can do that. Its folder lets other users pass."""
    if os.geteuid() != 0:
        pytest.skip("only root may switch users")
    folder = Path(tempfile.mkdtemp(prefix="tidegate-test-"))
    folder.chmod(0o711)
    made = World(folder, run_as="auto")
    try:
        yield made
    finally:
        made.end()
        shutil.rmtree(folder)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[], World]]:
    """A world on a file system of 256 KiB; only root can mount one."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    mounted = tmp_path / "disk"
    mounted.mkdir()
    if os.system(f"mount -t tmpfs -o size=256k tidegate-test {mounted}") != 0:  # noqa: S605
        pytest.skip("this machine mounts nothing")
    worlds: list[World] = []

    def make() -> World:
        worlds.append(World(mounted, run_as="same"))
        return worlds[-1]

    try:
        yield make
    finally:
        for made in worlds:
            made.end()
        os.system(f"umount -l {mounted}")  # noqa: S605

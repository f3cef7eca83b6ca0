"""The store when the disk is full, and when processes die or meet: with real processes and real disks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidegate.artifacts.content import ContentStore
from tidegate.artifacts.package import Package, pack
from tidegate.errors import StorageError

pytestmark = pytest.mark.real

ADD = """
import pathlib, sys
from tidegate.artifacts.content import ContentStore
print(ContentStore(pathlib.Path(sys.argv[1])).add(open(sys.argv[2], "rb")).digest)
"""

ADD_WITH_SMALL_FILES_ONLY = f"""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
{ADD}
"""

ADD_AND_DIE = """
import os, pathlib, signal, sys
from tidegate.artifacts import content, disk
calls = 0
def die_at_the_right_moment(event, arguments):
    global calls
    if event in {"open", "os.mkdir", "os.symlink", "os.rename", "os.chmod", "os.rmdir", "os.remove"}:
        calls += 1
        if calls == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
store = content.ContentStore(pathlib.Path(sys.argv[1]))
stream = open(sys.argv[2], "rb")
sys.addaudithook(die_at_the_right_moment)
store.add(stream)
"""


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture
def archive(source: Path, tmp_path: Path) -> tuple[Path, Package]:
    """The small app with one bigger file, packed."""
    (source / "random").write_bytes(os.urandom(300_000))
    path = tmp_path / "app.tar.zst"
    return path, pack(source, path)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 KiB, where that can be had."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tidegate-test", str(place)],
        capture_output=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip("a file system cannot be mounted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_named_and_nothing_stays_on_it(
    small_disk: Path, archive: tuple[Path, Package]
) -> None:
    """The disk fills up in the middle: the error says so, and all space is free again."""
    store = ContentStore(small_disk / "store")
    free = os.statvfs(small_disk).f_bfree
    with (
        archive[0].open("rb") as stream,
        pytest.raises(
            StorageError, match=r"Cannot store the package in .*: the disk is full\. Free some space"
        ),
    ):
        store.add(stream)
    assert os.statvfs(small_disk).f_bfree == free
    assert list((small_disk / "store").iterdir()) == []


def test_a_limit_of_file_size_is_named_and_nothing_stays(root: Path, archive: tuple[Path, Package]) -> None:
    """A write that the system cuts off is a storage error, and the store is empty again."""
    result = run(ADD_WITH_SMALL_FILES_ONLY, root, archive[0])
    assert "tidegate.errors.StorageError: Cannot store the package in" in result.stderr
    assert "bigger than allowed here. Raise the file size limit" in result.stderr
    assert list(root.iterdir()) == []


def test_a_crash_at_any_step_leaves_a_whole_package_or_none(
    root: Path, archive: tuple[Path, Package]
) -> None:
    """Killed at one file operation after the other: the next start cleans up, and adding again works."""
    path, package = archive
    outcomes = set()
    for step in range(1, 200):
        result = run(ADD_AND_DIE, root, path, step)
        if result.returncode == 0:
            break
        assert result.returncode == -signal.SIGKILL, result.stderr
        store = ContentStore(root)
        names = [place.name for place in root.iterdir()]
        assert names == [digest.removeprefix("sha256:") for digest in store.digests()]
        for digest in store.digests():
            store.verify(digest)
            store.remove(digest)
        outcomes.add(len(names))
    else:
        pytest.fail("the steps of an add were never through")
    assert outcomes == {0, 1}
    assert ContentStore(root).digests() == (package.digest,)
    ContentStore(root).remove(package.digest)


def test_processes_may_add_the_same_package_at_once(root: Path, archive: tuple[Path, Package]) -> None:
    """Several processes that start, sweep and add at the same time end with one sound package."""
    path, package = archive
    commands = [[sys.executable, "-c", ADD, str(root), str(path)]] * 4
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    try:
        printed = [process.communicate(timeout=60)[0].strip() for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert printed == [package.digest] * 4
    store = ContentStore(root)
    assert [place.name for place in root.iterdir()] == [package.digest.removeprefix("sha256:")]
    store.verify(package.digest)
    store.remove(package.digest)

"""The sample app is there, in one place, and each release of the story differs in one file."""

from __future__ import annotations

import filecmp
import re
import subprocess
import sys
import zipfile
from inspect import getsource
from pathlib import Path

import pytest

from tests.meta.sources import ROOT
from tidegate import errors, manifest
from tidegate.demo import publish, story, verdicts

FILES = {"tidegate.yaml", *(f"shop/{name}.py" for name in ("__init__", "api", "offer", "serving", "web"))}


def files(folder: Path) -> set[str]:
    """Paths of all files, without what Python leaves behind."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if "__pycache__" not in path.parts}


CHANGES = sorted(path.stem for path in publish.RELEASES.glob("[a-z]*.py"))


def differing(folder: Path) -> list[str]:
    return [name for name in FILES if not filecmp.cmp(folder / name, publish.SHOP / name, shallow=False)]


@pytest.mark.parametrize("change", ["", *CHANGES])
def test_release_is_the_shop_with_one_file_changed(tmp_path: Path, change: str) -> None:
    """What a release ships is what a reader finds in the sample app, but for what is on offer."""
    folder = publish.copy(change, tmp_path / "r")
    assert files(folder) == FILES
    assert differing(folder) == (["shop/offer.py"] if change else [])


def test_steps_can_be_held_for_longer(tmp_path: Path) -> None:
    """A canary that only the judge may end has the same steps, each held for as long as is asked."""
    folder = publish.copy("", tmp_path / "r", every="10m")
    assert differing(folder) == ["tidegate.yaml"]
    ((_, environment),) = manifest.load(folder / manifest.FILE_NAME).environments
    assert [stage.hold_s for stage in environment.strategy.stages[:-1]] == [600.0] * 3


def test_releases_differ(tmp_path: Path) -> None:
    """No two releases of the story have the same offer."""
    folders = [publish.copy(change, tmp_path / f"r-{change}") for change in ("", *CHANGES)]
    offers = {(folder / publish.CHANGING).read_text("utf-8") for folder in folders}
    assert len(offers) == 1 + len(CHANGES)


def test_every_change_is_told_of() -> None:
    """No release of the demo is left over: a story has each."""
    told = {fault.change for fault in verdicts.FAULTS} | set(re.findall(r'"(\w+)"', getsource(story)))
    assert set(CHANGES) <= told


def test_copy_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    """A folder that is there already, or a full disk, is an error with the folder's name in it."""
    with pytest.raises(errors.StorageError, match=r"cannot be copied to .*/taken"):
        publish.copy("", _folder(tmp_path / "taken"))


def _folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_manifest_of_the_shop_is_valid() -> None:
    """The sample's tidegate.yaml says what the story tells: two services, two instances each, a canary."""
    (name, environment), *others = manifest.load(publish.SHOP / manifest.FILE_NAME).environments
    assert (name, others) == ("production", [])
    assert [stage.exposure_bps for stage in environment.strategy.stages] == [500, 2500, 5000, 10_000]
    assert {service.name: service.needs for service in environment.services} == {"api": (), "web": ("api",)}
    assert [service.instances for service in environment.services] == [2, 2]


def test_example_is_the_very_same_folder() -> None:
    """examples/shop leads to the one place where the sample's files are."""
    assert (ROOT / "examples" / "shop").resolve() == publish.SHOP.resolve()


@pytest.mark.slow
def test_wheel_brings_the_sample_app(tmp_path: Path) -> None:
    """After `pip install` the demo finds the shop and its releases, and nothing that Python left there."""
    pytest.importorskip("hatchling", reason="hatchling is installed by `make setup`")
    built = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {f"tidegate/demo/shop/{name}" for name in FILES} <= names
    assert {f"tidegate/demo/releases/{change}.py" for change in CHANGES} <= names
    assert not [name for name in names if "__pycache__" in name]

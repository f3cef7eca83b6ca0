"""The sample app is there, in one place, and each release of the story differs in one file."""

from __future__ import annotations

import filecmp
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.meta.sources import ROOT
from tidegate import errors, manifest
from tidegate.demo import publish

FILES = {"tidegate.yaml", *(f"shop/{name}.py" for name in ("__init__", "api", "offer", "serving", "web"))}


def files(folder: Path) -> set[str]:
    """Paths of all files, without what Python leaves behind."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {path.as_posix() for path in found if "__pycache__" not in path.parts}


@pytest.mark.parametrize("number", [1, 2, 3])
def test_release_is_the_shop_with_one_file_changed(tmp_path: Path, number: int) -> None:
    """What a release ships is what a reader finds in the sample app, but for what is on offer."""
    folder = publish.copy(number, tmp_path / "r")
    assert files(folder) == FILES
    changed = [name for name in FILES if not filecmp.cmp(folder / name, publish.SHOP / name, shallow=False)]
    assert changed == ([] if number == 1 else ["shop/offer.py"])


def test_releases_differ(tmp_path: Path) -> None:
    """No two releases of the story have the same offer."""
    offers = {(publish.copy(n, tmp_path / f"r{n}") / publish.CHANGING).read_text("utf-8") for n in (1, 2, 3)}
    assert len(offers) == 3


def test_copy_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    """A folder that is there already, or a full disk, is an error with the folder's name in it."""
    with pytest.raises(errors.StorageError, match=r"cannot be copied to .*/taken"):
        publish.copy(1, _folder(tmp_path / "taken"))


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
    assert {f"tidegate/demo/releases/r{number}.py" for number in (2, 3)} <= names
    assert not [name for name in names if "__pycache__" in name]

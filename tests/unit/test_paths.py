"""The layout of the data folder: who may enter what."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tidegate import errors, paths
from tidegate.haproxy import boot
from tidegate.runtimes import instances

NAMED = re.compile(r"^ +([a-z]+)/ +0([0-7]{3}) ", re.MULTILINE)


def _modes(home: paths.Home) -> dict[str, str]:
    return {one.name: f"{one.stat().st_mode & 0o777:o}" for one in home.root.iterdir() if one.is_dir()}


def _use(home: paths.Home) -> None:
    """As router and runtime do when they start."""
    boot.BootFiles(home.router).make_folder()
    instances.Layout(home.instances).create()


def test_router_can_be_passed_through_and_instances_cannot(tmp_path: Path) -> None:
    """HAProxy's unprivileged processes reach their sockets; nobody else reaches the instances' folders."""
    home = paths.Home(tmp_path / "home")
    home.create()
    modes = _modes(home)
    assert (modes["router"], modes["instances"], modes["state"]) == ("711", "700", "700")


def test_folders_that_are_in_use_keep_their_modes(tmp_path: Path) -> None:
    """`tide doctor` and `tide up` beside a running app change nothing of what router and runtime made."""
    home = paths.Home(tmp_path / "home")
    home.create()
    _use(home)
    before = _modes(home)
    home.create()
    assert _modes(home) == before


def test_description_names_every_folder_with_its_mode(tmp_path: Path) -> None:
    """What the module says of the data folder is what is there."""
    home = paths.Home(tmp_path / "home")
    home.create()
    _use(home)
    assert dict(NAMED.findall(paths.__doc__ or "")) == _modes(home)


def test_socket_of_a_long_folder_lies_in_a_private_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel takes 107 bytes of a socket's path: a longer one has a short stand-in that only we enter."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t"))
    home = paths.Home(tmp_path / ("long" * 30))
    home.create()
    assert home.socket.is_relative_to(tmp_path / "t")
    assert home.socket.parent.stat().st_mode & 0o777 == 0o700
    assert home.socket != paths.Home(tmp_path / ("long" * 31)).socket
    assert paths.Home(Path("/short")).socket == Path("/short/api.sock")


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file in the way is an error with the folder's name, and what to do."""
    (tmp_path / "home").write_text("a file", "utf-8")
    with pytest.raises(errors.StorageError, match=re.escape(str(tmp_path / "home"))) as raised:
        paths.Home(tmp_path / "home").create()
    assert "--home" in (raised.value.hint or "")

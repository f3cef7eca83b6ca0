"""Starting a control plane: what is remembered of it, and what is said when it does not come up."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tidegate import errors, launcher, paths
from tidegate.launcher import Settings


@pytest.fixture
def home(tmp_path: Path) -> paths.Home:
    made = paths.Home(tmp_path / "home")
    made.create()
    return made


def test_settings_are_read_as_they_were_written(home: paths.Home) -> None:
    """What a control plane was started with once is what `tide up` alone starts it with."""
    settings = Settings(host="0.0.0.0", port=80, link_ports=(21_128, 21_256), run_as="same", hooks_port=8090)
    launcher.save_settings(home, settings)
    assert launcher.load_settings(home) == settings


def test_first_start_finds_ports_for_calls_between_services(home: paths.Home) -> None:
    """They are a block of their own below the ports of clients."""
    first, end = launcher.load_settings(home).link_ports
    assert end - first == launcher.LINK_PORTS_BLOCK
    assert first in launcher.LINK_PORTS
    assert end <= launcher.LINK_PORTS.stop


def test_settings_of_another_version_are_understood(home: paths.Home) -> None:
    """What this version does not know is left out, what it misses is as by default."""
    home.settings.write_text(json.dumps({"port": 81, "tls": True}))
    assert launcher.load_settings(home) == Settings(port=81)


def test_damaged_settings_are_named(home: paths.Home) -> None:
    """The control plane does not come up somewhere else than before."""
    home.settings.write_text("{")
    with pytest.raises(errors.StorageError, match=r"settings\.json cannot be read"):
        launcher.load_settings(home)


def test_settings_that_cannot_be_written_are_named(home: paths.Home) -> None:
    """A folder in the way is said by its path."""
    home.settings.mkdir()
    with pytest.raises(errors.StorageError, match="cannot be written"):
        launcher.save_settings(home, Settings())


def test_log_that_cannot_be_written_is_named(home: paths.Home) -> None:
    """Nothing is started without a place for what it says."""
    home.log.unlink(missing_ok=True)
    home.log.mkdir()
    with pytest.raises(errors.StorageError, match=r"log .* cannot be written"):
        launcher.start_detached(home, Settings())


@pytest.mark.real
def test_control_plane_that_ends_without_a_word_is_told(
    home: paths.Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An interpreter that cannot even start is seen at once, and the log has what it said."""
    monkeypatch.setenv("PYTHONHOME", "/nonexistent")
    with pytest.raises(errors.UnreachableError, match="ended with status 1 before") as caught:
        launcher.start_detached(home, Settings())
    assert str(home.log) in str(caught.value)
    assert "Fatal Python error" in home.log.read_text()

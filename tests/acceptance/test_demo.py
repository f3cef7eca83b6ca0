"""`tide demo`, as a newcomer runs it: it keeps its promises, and leaves nothing behind whatever happens."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.serial, pytest.mark.timeout(240)]

TIDE = Path(sys.executable).with_name("tide")
#: Instances that do not stay up, or what their users got: which comes first is a matter of the machine.
CRASHING = ("crash-loop", "all-unready", "worse")


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A TMPDIR that only the demo uses; apps' users may pass through it. What a failure leaves is killed."""
    folder = Path(tempfile.mkdtemp(prefix="tide-"))
    folder.chmod(0o711)
    monkeypatch.setenv("TMPDIR", str(folder))
    try:
        yield folder
    finally:
        for pid in using(folder):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def using(folder: Path) -> set[int]:
    """Every process that has the folder in its arguments, environment, working folder or open files.

    But those that merely inherited it as TMPDIR: this one and the demo itself.
    """
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            variables = (process / "environ").read_bytes().split(b"\0")
            ours = b"\0".join(entry for entry in variables if entry != b"TMPDIR=" + os.fsencode(folder))
            texts = [ours, (process / "cmdline").read_bytes(), os.fsencode((process / "cwd").readlink())]
            for opened in (process / "fd").iterdir():
                with suppress(OSError):
                    texts.append(os.fsencode(opened.readlink()))
            if any(os.fsencode(folder) in text for text in texts):
                found.add(int(process.name))
    return found


def assert_nothing_left(folder: Path) -> None:
    assert using(folder) == set()
    assert list(folder.iterdir()) == []


def test_demo_keeps_its_promises(temporary: Path, tmp_path: Path) -> None:
    """Good, bad, back: nothing fails outside the bad release, and the table says what the users saw."""
    table = told_table(tmp_path)
    assert_changes(table["changes"])
    assert_traffic(table)
    assert_nothing_left(temporary)
    assert list(tmp_path.iterdir()) == []


def told_table(folder: Path, *options: str) -> dict[str, Any]:
    """The demo's JSON, when it has succeeded."""
    done = subprocess.run(
        [TIDE, "demo", "--json", *options],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert done.stderr == ""
    table: dict[str, Any] = json.loads(done.stdout)
    return table


def assert_changes(changes: list[dict[str, Any]]) -> None:
    """Each act ended as told, in order."""
    first, canary, crashing, failing, slower, back = changes
    assert [(c["kind"], c["old"], c["new"], c["phase"]) for c in changes] == [
        ("first", None, 1, "succeeded"),
        ("canary", 1, 2, "succeeded"),
        ("bad", 2, 3, "aborted"),
        ("bad", 2, 4, "aborted"),
        ("bad", 2, 5, "aborted"),
        ("rollback", 2, 1, "succeeded"),
    ]
    assert crashing["reason"] in CRASHING
    assert failing["reason"] == "worse"
    assert failing["detail"].startswith("The canary fails more requests: ")
    assert slower["reason"] == "worse"
    assert slower["detail"].startswith("The canary is slower than the stable release. ")
    for bad in (crashing, failing, slower):
        assert bad["exposure_reached_percent"] < 100
        assert 0 < bad["users_reached"] < first["users_reached"]
    assert {c["users_back"] for c in changes} == {0}
    # The stages were held: the canary took its time, while the flip is over before the next requests come.
    assert canary["switch_s"] > 8
    assert back["switch_s"] < 0.5


def assert_traffic(table: dict[str, Any]) -> None:
    """The users never stopped, and only the bad release's requests failed."""
    assert table["passed"] is True
    assert table["problems"] == []
    assert table["failed_elsewhere"] == 0
    assert table["pages_of_two_releases"] == 0
    assert table["users"] == 200
    assert table["sent"] > 1000
    assert table["sent"] == table["succeeded"] + table["failed_of_bad_release"]
    one, two, three, four, five = table["releases"]
    assert (one["failed"], two["failed"], one["router"]["errors"], two["router"]["errors"]) == (0, 0, 0, 0)
    assert one["answers"] == one["router"]["requests"]
    assert two["answers"] == two["router"]["requests"]
    assert three["answers"] < two["answers"]
    assert four["failed"] > 0
    assert five["answers"] > 0
    assert five["failed"] == 0
    quiet = [index for index, second in enumerate(table["seconds"][:-1]) if not second["answers"]]
    assert quiet == [], "seconds in which nobody was answered"


def test_each_bad_release_is_found(temporary: Path, tmp_path: Path) -> None:
    """Whatever is wrong with a release, it goes back by itself at 5 %, and the table says how soon."""
    table = told_table(tmp_path, "--verdicts")
    assert (table["passed"], table["failed_elsewhere"]) == (True, 0)
    _, *bad = table["changes"]
    found = table["findings"]["found"]
    assert [change["phase"] for change in bad] == ["aborted"] * len(found)
    assert {change["exposure_reached_percent"] for change in bad} == {5.0}
    for change, finding in zip(bad, found, strict=True):
        assert (finding["title"], finding["sentence"]) == (change["name"], change["detail"])
        assert finding["reason"] in ("worse", *CRASHING)
        assert 0 < finding["exposed_s"] <= change["took_s"]
        assert finding["users_hit"] <= min(change["users_reached"], finding["bad_requests"])
        for other in finding["others"]:
            assert other["seconds"] is None or other["seconds"] > finding["exposed_s"]
            assert other["seconds"] is None or other["bad_requests"] > finding["bad_requests"]
    assert found[0]["bad_requests"] <= 15
    assert_nothing_left(temporary)


@contextmanager
def telling(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The demo as it runs, its standard error mixed into its output."""
    told = subprocess.Popen(
        [TIDE, "demo"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield told
    finally:
        told.kill()
        told.communicate()


def read_to(told: subprocess.Popen[str], words: str) -> None:
    """Wait for a line with these words."""
    assert told.stdout is not None
    assert any(words in line for line in told.stdout), f"the demo ended before it said {words!r}"


def arguments(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


@pytest.mark.parametrize(
    ("line", "number", "status"),
    [
        ("A control plane of its own", signal.SIGINT, 130),
        ("A good release", signal.SIGINT, 130),
        ("A good release", signal.SIGTERM, 143),
    ],
)
def test_interrupted_demo_leaves_nothing(
    temporary: Path, tmp_path: Path, line: str, number: signal.Signals, status: int
) -> None:
    """Ctrl-C and SIGTERM, early or in the middle of it, end everything, and the exit status says so."""
    with telling(tmp_path) as told:
        read_to(told, line)
        told.send_signal(number)
        rest, _ = told.communicate(timeout=60)
    assert told.returncode == status, rest
    assert "Traceback" not in rest
    assert_nothing_left(temporary)


def test_killed_control_plane_leaves_nothing(temporary: Path, tmp_path: Path) -> None:
    """Router and apps outlive a control plane: the demo misses its own, and ends them."""
    with telling(tmp_path) as told:
        read_to(told, "The first release")
        (pid,) = (pid for pid in using(temporary) if b"tidegate.daemon" in arguments(pid))
        read_to(told, "A good release")
        os.kill(pid, signal.SIGKILL)
        rest, _ = told.communicate(timeout=150)
    assert told.returncode == 1
    assert "control plane" in rest
    assert "Traceback" not in rest
    assert_nothing_left(temporary)

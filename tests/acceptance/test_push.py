"""git push: one commit, built once, through the whole pipeline; and everything that can come in its way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import sample
from tests.support.repository import Repository
from tests.support.tide import Tide, is_alive, kill, wait_for
from tidegate import client

pytestmark = [pytest.mark.real, pytest.mark.slow]

BUILD = "mkdir -p dist && cp app.py conduct.json dist/ && echo built by $(id -u) && cat note"


class Shop:
    """An app with a repository that is pushed to Tidegate."""

    def __init__(self, tide: Tide, *, options: tuple[str, ...] = (), environments: Any = None) -> None:
        self.tide = tide
        self.repository = Repository(tide.root / "shop")
        self.environments = environments or {
            name: {"services": {"web": {"route": f"{name}.test"}}, "strategy": "switch"}
            for name in ("test", "staging", "production")
        }
        self.ok("source", "add", *options)
        self.path = Path(self.ok("source", "show", "--json").json["repository"])
        self.repository.git("remote", "add", "tide", str(self.path))

    def ok(self, *words: object) -> Any:
        return self.tide.ok("--app", "shop", *words)

    def commit(self, note: str, build: str = BUILD) -> str:
        web = sample.service("web")
        whole = {
            "app": "shop",
            "artifact": {"build": build, "package": "dist/"},
            "services": {"web": web},
            "environments": self.environments,
        }
        self.repository.folder.joinpath("tidegate.yaml").write_text(sample.text(whole), "utf-8")
        sample.write_package(self.repository.folder, {"note": note})
        return self.repository.commit(note=f"{note}\n")

    def push(self, *words: str, environment: dict[str, str] | None = None) -> tuple[int, str]:
        return self.repository.run("push", "tide", *(words or ("main",)), environment=environment)

    def pushes(self) -> list[dict[str, Any]]:
        with client.Client(self.tide.socket) as connection:
            return connection.pushes("shop")

    def wait_push(self, state: str, number: int | None = None) -> dict[str, Any]:
        """The newest push, or that of the number, when it has come so far."""

        def looked() -> dict[str, Any] | None:
            found = [p for p in self.pushes() if number in (None, p["id"])]
            return found[0] if found and found[0]["state"] == state else None

        found = wait_for(looked, seconds=40, why=self.tide.log())
        assert found is not None
        return found

    def live(self, environment: str) -> str | None:
        return self.tide.get("/", host=f"{environment}.test").release


@pytest.fixture
def shop(tide: Tide) -> Shop:
    return Shop(tide)


def test_one_push_goes_through_the_whole_pipeline(shop: Shop) -> None:
    """`git push` builds once, and the same digest becomes live in test, staging and production."""
    revision = shop.commit("one")
    status, said = shop.push()
    assert status == 0, said
    assert "remote:   built by" in said
    for environment in ("test", "staging", "production"):
        assert f"remote:   {environment}" in said
        assert shop.live(environment) == "r1"
    assert "remote: r1 is live in shop/production." in said
    assert len(shop.ok("releases", "--json").json) == 1
    (push,) = shop.pushes()
    assert (push["state"], push["revision"], push["release"], push["to"]) == (
        "released",
        revision,
        1,
        "production",
    )
    assert "built by" in shop.ok("pushes", "1").out
    assert shop.ok("pushes", "1", "-f").out.count("r1 is live in shop/production") == 1
    assert list((shop.tide.home / "builds").iterdir()) == []


def test_failing_build_fails_the_push_and_its_fix_goes_on(shop: Shop) -> None:
    """A build that fails ends `git push` with 1 and says why; nothing runs, and the mended commit goes on."""
    shop.commit("one", build="echo no such header >&2; exit 3")
    status, said = shop.push()
    assert status == 1
    assert "remote:   no such header" in said
    assert "! [remote rejected] main -> main (The build command failed with exit status 3.)" in said
    (push,) = shop.pushes()
    assert (push["state"], push["release"]) == ("failed", None)
    shop.commit("two")
    assert shop.push()[0] == 0
    assert shop.live("production") == "r1"


def test_hanging_build_is_ended_with_everything_it_started(tide: Tide) -> None:
    """A build that does not end is killed at its time limit, and whatever it left behind too."""
    shop = Shop(tide, options=("--time-limit", "2s"))
    pids = shop.tide.root / "pids"
    pids.touch()
    pids.chmod(0o666)
    stray = f"(setsid sleep 300 & echo $! >> {pids}); echo waiting; sleep 300"
    shop.commit("one", build=stray)
    status, said = shop.push()
    assert status == 1
    assert "did not end within 2 s" in said
    left = [int(line) for line in pids.read_text().split()]
    assert left
    wait_for(lambda: not any(is_alive(pid) for pid in left))


@pytest.mark.uncounted
def test_control_plane_killed_in_a_build_builds_it_again(shop: Shop) -> None:
    """After a kill -9 in the middle of a build it is built again from clean, once; the pusher sees both."""
    gate = shop.tide.root / "gate"
    shop.commit("one", build=f"{BUILD}; echo be''gun; while [ ! -e {gate} ]; do sleep 0.05; done")
    pushing = shop.repository.begin("push", "tide", "main")
    assert pushing.stderr is not None
    seen = ""
    while "begun" not in seen:
        seen += pushing.stderr.readline()
    (room,) = wait_for(lambda: list((shop.tide.home / "builds").iterdir()))
    kill(shop.tide.pid)
    shop.tide.up()
    wait_for(lambda: shop.pushes()[0]["attempt"] == 2)
    assert not room.exists()
    gate.touch()
    out, err = pushing.communicate(timeout=50)
    assert pushing.returncode == 0, err
    assert "the build begins again" in err
    assert out == ""
    (push,) = shop.pushes()
    assert (push["attempt"], push["release"]) == (2, 1)
    assert len(shop.ok("releases", "--json").json) == 1
    assert shop.live("production") == "r1"


def test_whoever_stops_looking_changes_nothing(shop: Shop) -> None:
    """A pusher who presses Ctrl-C in the middle of the build gets their release all the same."""
    gate = shop.tide.root / "gate"
    shop.commit("one", build=f"{BUILD}; while [ ! -e {gate} ]; do sleep 0.05; done")
    pushing = subprocess.Popen(
        ["git", "push", "tide", "main"],
        cwd=shop.repository.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    shop.wait_push("building")
    os.killpg(pushing.pid, signal.SIGINT)
    pushing.wait(20)
    gate.touch()
    shop.wait_push("released")
    wait_for(lambda: shop.live("production") == "r1", seconds=40)


@pytest.mark.uncounted
def test_two_pushes_at_once_are_both_safe(shop: Shop) -> None:
    """Of two pushes of one branch at once one is told to fetch; both branches at once are built in turn."""
    shop.ok("source", "add", "--branch", "main", "--branch", "other")
    first = shop.commit("one")
    shop.repository.git("checkout", "--quiet", "-b", "other")
    second = shop.commit("two")
    results: list[tuple[int, str]] = []
    threads = [
        threading.Thread(target=lambda b=branch: results.append(shop.push(b))) for branch in ("main", "other")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pushes = shop.pushes()
    assert {push["revision"] for push in pushes} == {first, second}
    assert {push["state"] for push in pushes} == {"released"}
    assert {push["release"] for push in pushes} == {1, 2}
    newest = max(pushes, key=lambda push: push["id"])
    wait_for(lambda: shop.live("production") == f"r{newest['release']}", seconds=40, why=results)


@pytest.mark.uncounted
def test_same_branch_cannot_be_moved_twice_at_once(shop: Shop) -> None:
    """Two different commits for one branch at once: one is taken, the other is told to fetch first."""
    first = shop.commit("one")
    second = shop.commit("two")
    results: list[tuple[int, str]] = []
    threads = [
        threading.Thread(target=lambda r=revision: results.append(shop.push(f"{r}:refs/heads/main")))
        for revision in (first, second)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    head = shop.repository.git("--git-dir", str(shop.path), "rev-parse", "refs/heads/main")
    assert head in (first, second)
    pushes = shop.pushes()
    assert head in {push["revision"] for push in pushes}
    assert len(pushes) in (1, 2)
    wait_for(lambda: shop.live("production") is not None, seconds=40, why=results)


def test_other_branches_are_stored_and_not_built(shop: Shop) -> None:
    """A branch that is not named is stored, said to be so, and builds nothing; it can be removed again."""
    shop.commit("one")
    status, said = shop.push("main:feature/x")
    assert status == 0, said
    assert "remote: feature/x is stored, and not built: built are main." in said
    assert shop.pushes() == []
    assert shop.push(":feature/x")[0] == 0


@pytest.mark.uncounted
def test_force_push_is_built(shop: Shop) -> None:
    """History may be rewritten: the branch is what counts."""
    shop.commit("one")
    assert shop.push()[0] == 0
    shop.repository.git("commit", "--quiet", "--amend", "--message", "rewritten")
    (shop.repository.folder / "note").write_text("two\n")
    shop.repository.git("commit", "--quiet", "--all", "--amend", "--message", "rewritten")
    assert shop.push()[0] == 1
    assert shop.push("--force", "main")[0] == 0
    assert len(shop.pushes()) == 2


@pytest.mark.uncounted
def test_nothing_is_stored_while_no_control_plane_is_up(shop: Shop) -> None:
    """Without a control plane a push is refused with one clear sentence, and works when it is up again."""
    shop.commit("one")
    shop.tide.ok("down")
    status, said = shop.push()
    assert status == 1
    assert "Nothing was stored: start it with `tide up`, and push again." in said
    assert shop.repository.git("--git-dir", str(shop.path), "for-each-ref") == ""
    shop.tide.up()
    assert shop.push()[0] == 0
    assert shop.live("production") == "r1"


HOSTILE = (
    "refs/heads/$(touch executed)",
    "refs/heads/-x",
    "refs/heads/a\u202eb",
    "refs/heads/`id`;rm",
    "refs/heads/main'",
    'refs/heads/"main',
    "refs/tidegate/keep/" + "0" * 40,
    "refs/replace/" + "0" * 40,
    "refs/notes/x",
)


@pytest.mark.parametrize("ref", HOSTILE, ids=ascii)
def test_hostile_ref_runs_nothing_and_builds_nothing(hostile: Shop, ref: str) -> None:
    """A ref with a name for a shell, a terminal or git itself is stored at most, and never acted upon."""
    _, said = hostile.push(f"main:{ref}")
    assert "Traceback" not in said
    assert "\u202e" not in said.replace(f"main:{ref}", "").partition("To ")[0]
    assert hostile.pushes() == []
    for folder in (hostile.path, hostile.repository.folder, hostile.tide.root):
        assert not (folder / "executed").exists()


@pytest.fixture(scope="module")
def hostile(shared: Tide) -> Shop:
    """One control plane for all hostile names; they change nothing."""
    made = Shop(shared)
    made.commit("one")
    return made


@pytest.mark.uncounted
def test_variables_of_the_pusher_do_not_count(shop: Shop) -> None:
    """Variables of Python and git in a pusher's environment lead the hooks nowhere else."""
    evil = shop.tide.root / "evil"
    evil.mkdir()
    (evil / "sitecustomize.py").write_text(f"open({str(evil / 'executed')!r}, 'w')\n")
    (evil / "tidegate.py").write_text(f"open({str(evil / 'executed')!r}, 'w')\n")
    shop.commit("one")
    (evil / "pre-receive").write_text(f"#!/bin/sh\ntouch {evil / 'executed'}\n")
    (evil / "pre-receive").chmod(0o755)
    status, said = shop.push(
        environment={
            "PYTHONPATH": str(evil),
            "PYTHONSTARTUP": str(evil / "sitecustomize.py"),
            "TIDEGATE_HOME": str(evil),
            "TIDEGATE_TOKEN": "tide_" + "x" * 43,
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": "core.hooksPath",
            "GIT_CONFIG_VALUE_0": str(evil),
        }
    )
    assert status == 0, said
    assert "r1 is live in shop/production" in said
    assert not (evil / "executed").exists()


@pytest.mark.uncounted
def test_hooks_path_of_the_user_does_not_turn_the_hooks_off(shop: Shop, tmp_path: Path) -> None:
    """A user's own core.hooksPath, as many have for checks before a commit, changes nothing here."""
    configuration = tmp_path / "gitconfig"
    configuration.write_text(f"[core]\n\thooksPath = {tmp_path}\n")
    shop.commit("one")
    status, said = shop.push(environment={"GIT_CONFIG_GLOBAL": str(configuration)})
    assert status == 0, said
    assert "r1 is live in shop/production" in said


def test_push_over_ssh_works(shop: Shop) -> None:
    """Over ssh the same hooks run: as sshd would, a program with a bare environment starts git's server."""
    ssh = shop.tide.root / "ssh"
    ssh.write_text('#!/bin/sh\nfor last; do :; done\nexec env -i PATH="$PATH" HOME=/nowhere sh -c "$last"\n')
    ssh.chmod(0o755)
    shop.commit("one")
    shop.repository.git("remote", "set-url", "tide", f"ssh://tide@server{shop.path}")
    status, said = shop.push(environment={"GIT_SSH": str(ssh), "GIT_SSH_VARIANT": "ssh"})
    assert status == 0, said
    assert "remote: r1 is live in shop/production." in said


def test_build_sees_nothing_of_the_control_plane(shop: Shop) -> None:
    """A build has an environment of its own, and cannot read the keys of the control plane."""
    keys = shop.tide.home / "keys"
    shop.commit("one", build=f"{BUILD}; env; ls {keys} {shop.tide.home / 'state'} && echo RE''AD")
    _, said = shop.push()
    assert "TIDEGATE_TOKEN" not in said
    assert "HOME=" in said
    if os.geteuid() == 0:
        assert "READ" not in said


@pytest.mark.uncounted
def test_superseding_push_ends_the_build_before_it(tide: Tide) -> None:
    """Where a source supersedes, a newer push ends the build of the older one, whose pusher is told."""
    shop = Shop(tide, options=("--on-push", "supersede"))
    shop.commit("one", build="echo begun; sleep 300")
    pushing: Callable[[], Any] = shop.repository.begin("push", "tide", "main").communicate
    shop.wait_push("building")
    shop.commit("two")
    status, said = shop.push()
    assert status == 0, said
    _, told = pushing()
    assert "superseded by push #2" in told
    assert [push["state"] for push in shop.pushes()] == ["released", "superseded"]


def test_source_is_shown_and_removed(shop: Shop) -> None:
    """What was added is listed, and what is removed builds nothing more."""
    assert "shop" in shop.tide.ok("source", "list").out
    (kept,) = json.loads(shop.tide.ok("source", "list", "--json").out)
    assert kept["branches"] == ["main"]
    shop.ok("source", "rm", "--yes")
    assert shop.tide.run("--app", "shop", "source", "show").status == 2
    shop.commit("one")
    assert shop.push()[0] != 0


def test_same_commit_is_built_again_on_request(shop: Shop) -> None:
    """`tide source build` builds what the branch leads to once more: the same digest is the same release."""
    shop.commit("one")
    assert shop.push()[0] == 0
    done = shop.ok("source", "build")
    assert "release  r1" in done.out
    assert [push["release"] for push in shop.pushes()] == [1, 1]

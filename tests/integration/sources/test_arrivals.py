"""Real git: what is pushed, told and found, and what never comes of it."""

from __future__ import annotations

import dataclasses
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.repository import Repository
from tidegate import errors
from tidegate.pushes import Forge, How, PushState, Source
from tidegate.sources import forges, refs
from tidegate.sources.arrivals import Arrivals
from tidegate.sources.checkouts import Checkouts
from tidegate.sources.keys import Keys
from tidegate.sources.repositories import KEPT, Repositories
from tidegate.store.sources import SqliteSources
from tidegate.store.sqlite import SqliteStore

pytestmark = pytest.mark.real
MAIN = "refs/heads/main"


class World:
    """Sources on a real store and a real disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = SqliteStore(folder / "tidegate.db", ballast_bytes=0)
        self.lease = self.store.acquire("test", ttl_s=60.0)
        self.rows = SqliteSources(self.store)
        self.repositories = Repositories(folder / "repositories")
        self.refused: list[str] = []
        self.arrivals = Arrivals(
            store=self.rows,
            lease=self.lease,
            repositories=self.repositories,
            keys=Keys(folder / "keys"),
            now=lambda: 7.0,
            refused=lambda _app, reason, _detail: self.refused.append(reason),
        )
        self.there = Repository(folder / "there")
        self.first = self.there.commit(a="1")

    def watch(self, **changes: Any) -> Source:
        source = dataclasses.replace(
            Source(app="shop", remote=str(self.there.folder), poll_s=60.0, hook=Forge.GITHUB), **changes
        )
        self.arrivals.add(source)
        return source

    def tell(self, revision: str, *, ref: str = MAIN, delivery: str = "") -> bool:
        """A webhook that was believed."""
        name = delivery or f"{revision}-{ref}"
        told = forges.Told(delivery=name, body=f"hash of {name}", ref=ref, revision=revision)
        return self.arrivals.hear(self.arrivals.known("shop"), told)

    def store_silently(self, *specs: str) -> None:
        """Refs of our repository move, and nobody tells the control plane."""
        bare = str(self.repositories.path("shop"))
        self.there.git("--git-dir", bare, "fetch", "--quiet", str(self.there.folder), *specs)

    def look(self, *, everything: bool = False) -> list[tuple[str, How]]:
        return [(push.revision, push.how) for push in self.arrivals.look("shop", everything=everything)]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def test_polling_finds_each_new_commit_once(world: World) -> None:
    """A commit of a watched branch is queued when it is first seen, and never again."""
    world.watch()
    assert world.look(everything=True) == [(world.first, How.POLL)]
    assert world.look(everything=True) == []
    second = world.there.commit(a="2")
    assert world.look(everything=True) == [(second, How.POLL)]


def test_tags_of_before_are_the_past(world: World) -> None:
    """Tags that were there when somebody first looked are not built, later ones are."""
    world.there.git("tag", "v1")
    world.watch(tags=("v*",))
    assert world.look(everything=True) == [(world.first, How.POLL)]
    second = world.there.commit(a="2")
    world.there.git("tag", "--annotate", "--message", "two", "v2")
    assert sorted(push.ref for push in world.arrivals.look("shop", everything=True)) == [MAIN, "refs/tags/v2"]
    assert {push.revision for push in world.rows.newest("shop", limit=2)} == {second}


def test_webhook_makes_somebody_look(world: World) -> None:
    """What a webhook names is not built: what the branch leads to is, and that once."""
    world.watch()
    second = world.there.commit(a="2")
    third = world.there.commit(a="3")
    assert world.tell(second)
    assert world.look() == [(third, How.WEBHOOK)]
    assert world.tell(third)
    assert world.look() == []
    assert world.refused == []


def test_old_webhook_brings_nothing_back(world: World) -> None:
    """A webhook of an old commit, sent late or forged by who knows the secret, builds nothing old."""
    world.watch()
    second = world.there.commit(a="2")
    assert world.look(everything=True) == [(second, How.POLL)]
    assert world.tell(world.first)
    assert world.look() == []


def test_commit_that_is_not_on_the_branch_is_refused(world: World) -> None:
    """A webhook that names a commit of elsewhere, or none that exists, is refused and written down."""
    world.watch()
    world.there.git("checkout", "--quiet", "--orphan", "stray")
    stray = world.there.commit(a="evil")
    assert world.tell(stray)
    assert world.tell("e" * 40)
    assert world.look() == []
    assert world.refused == ["not-on-branch", "not-on-branch"]
    assert world.rows.hints() == ()


def test_replayed_webhook_is_refused(world: World) -> None:
    """A webhook of a known id is refused, and so is a known body under a new id."""
    world.watch()
    source = world.arrivals.known("shop")
    told = forges.Told(delivery="d-1", body="hash", ref=MAIN, revision=world.first)
    assert world.arrivals.hear(source, told)
    assert not world.arrivals.hear(source, told)
    assert not world.arrivals.hear(source, dataclasses.replace(told, delivery="d-2"))
    assert not world.arrivals.hear(source, dataclasses.replace(told, body="other"))
    assert world.refused == ["replayed"] * 3


def test_webhook_of_another_branch_is_no_reason_to_look(world: World) -> None:
    """Only named branches and tags count, and a replay is one all the same."""
    world.watch()
    assert world.tell(world.first, ref="refs/heads/other", delivery="d-1")
    assert world.rows.hints() == ()
    assert not world.tell(world.first, ref="refs/heads/other", delivery="d-1")


def test_webhook_survives_a_remote_that_does_not_answer(world: World) -> None:
    """What was heard is looked after when the remote is there again."""
    world.watch()
    world.tell(world.first)
    world.there.folder.rename(world.folder / "away")
    with pytest.raises(errors.SourceError):
        world.look()
    (world.folder / "away").rename(world.there.folder)
    assert world.look() == [(world.first, How.WEBHOOK)]


def test_force_push_builds_what_the_branch_leads_to(world: World) -> None:
    """History that is rewritten is followed."""
    world.watch()
    world.there.commit(a="2")
    world.look(everything=True)
    world.there.git("reset", "--quiet", "--hard", world.first)
    other = world.there.commit(a="other")
    assert world.look(everything=True) == [(other, How.POLL)]


def test_pushed_commit_is_queued_for_who_pushed(world: World) -> None:
    """A branch of our own repository is built where it is named, and only there."""
    world.arrivals.add(Source(app="shop"))
    world.store_silently("main:main", "main:other")
    push = world.arrivals.receive("shop", MAIN, by="ada")
    assert push is not None
    assert (push.revision, push.by, push.how) == (world.first, "ada", How.PUSH)
    assert world.arrivals.receive("shop", MAIN, by="ada") is None
    assert world.arrivals.receive("shop", "refs/heads/other", by="ada") is None


def test_push_that_nobody_queued_is_found_at_the_start(world: World) -> None:
    """A branch that was moved while the control plane died is built when it is up again."""
    world.arrivals.add(Source(app="shop"))
    world.store_silently("main:main")
    assert world.arrivals.recover() == ()
    assert [push.revision for push in world.rows.waiting()] == [world.first]
    world.arrivals.recover()
    assert len(world.rows.waiting()) == 1


def test_kept_commit_survives_force_push_and_collection(world: World) -> None:
    """A commit that waits to be built is there when its turn comes."""
    world.watch()
    second = world.there.commit(a="2")
    world.look(everything=True)
    world.there.git("reset", "--quiet", "--hard", world.first)
    world.there.commit(a="3")
    world.look(everything=True)
    bare = world.repositories.path("shop")
    world.there.git("--git-dir", str(bare), "gc", "--quiet", "--prune=now")
    assert world.repositories.file("shop", second, "a") == "2"
    world.repositories.unpin("shop", but=())
    world.there.git("--git-dir", str(bare), "gc", "--quiet", "--prune=now")
    with pytest.raises(errors.SourceError):
        world.repositories.file("shop", second, "a")


def test_changed_hooks_are_written_again(world: World) -> None:
    """A hook that was changed, made unexecutable or added is put right, and said."""
    world.arrivals.add(Source(app="shop"))
    folder = world.repositories.path("shop") / "hooks"
    (folder / "pre-receive").write_text("#!/bin/sh\nexit 0\n")
    (folder / "proc-receive").chmod(0o644)
    (folder / "post-update").write_text("#!/bin/sh\n")
    assert set(world.repositories.verify("shop")) == {"pre-receive", "proc-receive", "post-update"}
    assert sorted(path.name for path in folder.iterdir()) == ["pre-receive", "proc-receive"]
    for path in folder.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o755
        assert path.read_text().startswith("#!/")
    assert world.repositories.verify("shop") == ()


def test_interpreter_that_no_hook_can_name_is_refused(tmp_path: Path) -> None:
    """A path with a space would start another program: nothing is made."""
    repositories = Repositories(tmp_path, Path("/opt/my tools/python"))
    with pytest.raises(errors.RequestError):
        repositories.create("shop")
    assert not repositories.path("shop").exists()


def test_variables_of_git_do_not_lead_elsewhere(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever GIT_* says in our environment, our own repository is meant."""
    world.watch()
    for name, value in {
        "GIT_DIR": "/nowhere",
        "GIT_WORK_TREE": "/nowhere",
        "GIT_OBJECT_DIRECTORY": "/nowhere",
        "GIT_QUARANTINE_PATH": "/nowhere",
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": "core.fsmonitor",
        "GIT_CONFIG_VALUE_0": f"touch {world.folder / 'executed'}",
        "GIT_SSH_COMMAND": f"touch {world.folder / 'executed'}",
    }.items():
        monkeypatch.setenv(name, value)
    assert [push.revision for push in world.arrivals.look("shop", everything=True)] == [world.first]
    assert not (world.folder / "executed").exists()


def test_checkout_has_exactly_the_commit_and_no_hooks(world: World) -> None:
    """A build gets the commit's files, a repository of its own, and nothing that runs later."""
    world.watch()
    (world.there.folder / "run").write_text("#!/bin/sh\n")
    (world.there.folder / "run").chmod(0o755)
    second = world.there.commit(a="2")
    world.look(everything=True)
    checkouts = Checkouts(root=world.folder / "builds", repositories=world.repositories)
    room = checkouts.make("shop", second)
    assert (room.source / "a").read_text() == "2"
    assert os.access(room.source / "run", os.X_OK)
    assert not (room.source / ".git" / "hooks").exists()
    assert not (room.source / ".git" / "objects" / "info" / "alternates").exists()
    assert stat.S_IMODE(room.root.stat().st_mode) == 0o700
    assert room.committed_at > 0
    (room.home / "locked").mkdir(mode=0o500)
    checkouts.remove(room.root)
    assert list((world.folder / "builds").iterdir()) == []


def test_manifest_that_is_a_link_leads_nowhere(world: World) -> None:
    """A commit cannot make us read a file of this machine by calling a link tidegate.yaml."""
    world.watch()
    (world.there.folder / "tidegate.yaml").symlink_to("/etc/hostname")
    revision = world.there.commit(a="2")
    world.look(everything=True)
    with pytest.raises(errors.NotFoundError):
        world.repositories.file("shop", revision, "tidegate.yaml")


def test_ref_of_the_remote_with_a_hostile_name_is_passed_over(world: World) -> None:
    """A server can name its refs as it likes: strange ones are not fetched."""
    world.watch(branches=("*",))
    packed = world.there.folder / ".git" / "packed-refs"
    packed.write_text(
        f"{world.first} refs/heads/--upload-pack=x\n{world.first} refs/heads/a\u202eb\n", "utf-8"
    )
    assert [push.ref for push in world.arrivals.look("shop", everything=True)] == [MAIN]
    assert list(world.repositories.heads("shop")) == [MAIN]


def test_same_commit_can_be_built_again_by_hand(world: World) -> None:
    """A failure that was not the commit's fault needs no empty commit."""
    world.watch()
    world.look(everything=True)
    push = world.arrivals.build("shop", "", by="ada")
    assert (push.revision, push.how, push.state) == (world.first, How.ASKED, PushState.QUEUED)
    with pytest.raises(errors.RequestError):
        world.arrivals.build("shop", "refs/heads/other", by="ada")


def test_two_secrets_are_valid_at_once(world: World) -> None:
    """A new secret keeps the one before valid, until the next; nobody else can read them."""
    source = world.watch()
    keys = world.arrivals.keys
    (first,) = keys.valid("shop")
    second = world.arrivals.rotate("shop").encode()
    assert keys.valid("shop") == (second, first)
    third = world.arrivals.rotate("shop").encode()
    assert keys.valid("shop") == (third, second)
    assert stat.S_IMODE((world.folder / "keys" / "shop").stat().st_mode) == 0o600
    assert world.arrivals.add(source) == ""


def test_secret_is_not_in_the_database(world: World) -> None:
    """The database holds no secret of a webhook."""
    world.watch()
    (key,) = world.arrivals.keys.valid("shop")
    for path in world.folder.glob("tidegate.db*"):
        assert key not in path.read_bytes()


def test_removed_source_leaves_nothing_behind(world: World) -> None:
    """Its repository and its secrets are gone, its history stays."""
    world.watch()
    world.look(everything=True)
    world.arrivals.remove("shop")
    assert not world.repositories.path("shop").exists()
    assert world.arrivals.keys.valid("shop") == ()
    assert [push.state for push in world.rows.newest("shop")] == [PushState.SUPERSEDED]
    with pytest.raises(errors.NotFoundError):
        world.arrivals.known("shop")


@pytest.mark.parametrize(
    "wrong",
    [
        {"branches": (), "tags": ()},
        {"branches": ("-x",)},
        {"remote": "ext::sh -c id"},
        {"remote": "", "poll_s": 60.0, "hook": None},
        {"poll_s": None, "hook": None},
        {"manifest": "../tidegate.yaml"},
        {"manifest": "/etc/passwd"},
        {"credentials": "/a;b"},
    ],
    ids=str,
)
def test_source_that_cannot_be_meant_is_refused(world: World, wrong: dict[str, Any]) -> None:
    """What is wrong is said before anything is kept."""
    with pytest.raises(errors.RequestError):
        world.watch(**wrong)
    assert world.rows.sources() == ()


def test_kept_refs_are_not_for_pushing(world: World) -> None:
    """Nobody can push to the refs that keep commits."""
    world.arrivals.add(Source(app="shop"))
    bare = str(world.repositories.path("shop"))
    status, said = world.there.run("push", bare, f"main:{KEPT}{world.first}")
    assert status != 0
    assert "refused" in said.lower() or "hidden" in said.lower() or "rejected" in said.lower(), said
    assert refs.OWN not in "".join(world.repositories.heads("shop"))


def test_git_is_asked_for_its_version(world: World) -> None:
    """The git of this machine is new enough, and says which it is."""
    assert world.repositories.require_git().startswith("2.")


def test_git_that_is_too_old_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A git that knows no proc-receive would store pushes without telling anybody."""
    old = world.folder / "bin"
    old.mkdir()
    (old / "git").write_text("#!/bin/sh\necho git version 2.28.9\n")
    (old / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{old}:{os.environ['PATH']}")
    with pytest.raises(errors.MissingProgramError, match=r"2\.28\.9"):
        world.arrivals.add(Source(app="mail"))
    assert world.rows.source("mail") is None

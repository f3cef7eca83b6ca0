"""Pushes are carried on by the rows alone: one at a time, in their order, and again after a crash."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest

from tests.support import sample
from tidegate import errors, ports
from tidegate.core import model
from tidegate.engine import builds, workshop
from tidegate.engine.operations import Asked
from tidegate.manifest import Manifest
from tidegate.pushes import How, OnPush, Push, PushState, Source
from tidegate.store.sources import SqliteSources
from tidegate.store.sqlite import SqliteStore

SHOP = Source(app="shop", to="production")
MANIFEST = sample.text(
    {
        "app": "shop",
        "artifact": {"build": "make", "package": "dist/"},
        "services": {"web": sample.service("web")},
        "environments": {"test": {}, "production": {}},
    }
)


@dataclass
class Room:
    root: Path
    committed_at: int = 7

    @property
    def source(self) -> Path:
        return self.root / "source"

    @property
    def home(self) -> Path:
        return self.root / "home"


@dataclass
class Shop:
    """A workshop's outside: commits are texts, a build writes what it is told to."""

    folder: Path
    digests: dict[str, str] = field(default_factory=dict)
    """By revision; default: one of its own."""
    breaks: dict[str, errors.TidegateError] = field(default_factory=dict)
    during: Callable[[], None] = lambda: None
    manifests: dict[str, str] = field(default_factory=dict)
    rooms: list[Path] = field(default_factory=list)
    built: list[str] = field(default_factory=list)
    environments: list[dict[str, str]] = field(default_factory=list)
    ended: list[int | None] = field(default_factory=list)
    added: list[str] = field(default_factory=list)
    bad_scripts: dict[str, errors.TidegateError] = field(default_factory=dict)
    """By revision."""
    cleared: int = 0
    _revision: str = ""

    def manifest(self, _app: str, revision: str, _path: str) -> str:
        return self.manifests.get(revision, MANIFEST)

    def make(self, _app: str, revision: str, *, owner: tuple[int, int] | None = None) -> Room:
        assert owner is None
        room = Room(self.folder / f"room-{len(self.built)}")
        (room.source / "dist").mkdir(parents=True)
        self.rooms.append(room.root)
        self._revision = revision
        return room

    def remove(self, root: Path) -> None:
        self.rooms.remove(root)

    def clear(self) -> None:
        self.cleared += 1

    def build(
        self,
        command: str,
        *,
        folder: Path,
        env: Any,
        log: Callable[[str], None],
        timeout_s: float,
        account: Any = None,
    ) -> None:
        self.built.append(self._revision)
        self.environments.append(dict(env))
        log(f"{command} says hello")
        self.during()
        if self._revision in self.breaks:
            raise self.breaks[self._revision]

    def pack(self, _folder: Path, archive: IO[bytes]) -> Any:
        archive.write(b"packed")
        digest = self.digests.get(self._revision, f"sha256:{self._revision[:8]:0>64}")
        return dataclasses.make_dataclass("P", ["digest", "size_bytes", "files"])(digest, 6, 1)

    def scripts(self, folder: Path, _manifest: Manifest) -> None:
        assert folder.name == "dist"
        if self._revision in self.bad_scripts:
            raise self.bad_scripts[self._revision]

    def add(self, stream: IO[bytes], *, digest: str | None = None) -> object:
        assert stream.read() == b"packed"
        self.added.append(digest or "")
        return None


@dataclass
class Lines:
    """Output that is kept in memory."""

    kept: dict[int, list[str]] = field(default_factory=dict)

    def begin(self, push: int, attempt: int) -> Any:
        lines = self.kept[push] = [f"attempt {attempt}"]

        class Writer:
            def __call__(self, line: str) -> None:
                lines.append(line)

            def close(self) -> None:
                lines.append("closed")

        return Writer()


class World:
    """The queue on a real store, with everything else scripted; builds run at once, or when they are let."""

    def __init__(self, folder: Path) -> None:
        self.store = SqliteStore(folder / "tidegate.db", ballast_bytes=0)
        self.lease = self.store.acquire("test", ttl_s=60.0)
        self.rows = SqliteSources(self.store)
        self.rows.keep(self.lease, SHOP)
        self.shop = Shop(folder)
        self.lines = Lines()
        self.delivered: list[tuple[int, str, Asked, bool]] = []
        self.refuses: errors.TidegateError | None = None
        self.refused_releases: set[int] = set()
        """Those that a rollout stands in the way of."""
        self.held: list[Callable[[], None]] = []
        self.hold = False
        self.now = 100.0
        self.builds = self.restarted()

    def restarted(self) -> builds.Builds:
        """A control plane that knows nothing but the rows."""
        shop = workshop.Workshop(
            checkouts=self.shop,
            build=self.shop.build,
            pack=self.shop.pack,
            content=self.shop,
            scripts=self.shop.scripts,
            marks=workshop.Marks(variable="MARK", value=str, end=self.shop.ended.append),
        )
        parts = builds.Parts(
            pushes=self.rows,
            source=self.rows.source,
            lease=self.lease,
            now=lambda: self.now,
            workshop=shop,
            outputs=self.lines,
            add_release=self._add,
            release=self.store.release,
            deliver=self._deliver,
        )
        self.builds = builds.Builds(parts, spawn=self._spawn)
        return self.builds

    def _spawn(self, work: Callable[[], None]) -> None:
        if self.hold:
            self.held.append(work)
        else:
            work()

    def _add(self, release: model.Release, origin: ports.Origin) -> model.Release:
        assert (origin.how, origin.command) == ("built", "make")
        return self.store.add_release(self.lease, release)

    def _deliver(self, app: str, release: int, to: str, asked: Asked, *, supersede: bool) -> int:
        if self.refuses is not None:
            raise self.refuses
        if release in self.refused_releases:
            raise errors.RefusedError("Busy.", reason=model.Refusal.BUSY.value)
        self.delivered.append((release, to, asked, supersede))
        return len(self.delivered)

    def push(self, letter: str, *, app: str = "shop", ref: str = "refs/heads/main") -> Push:
        made = Push(
            app=app,
            ref=ref,
            revision=letter * 40,
            to="production",
            by="ada",
            how=How.PUSH,
            queued_at=self.now,
        )
        queued = self.rows.enqueue(self.lease, made)
        assert queued is not None
        return queued

    def steps(self, count: int = 3) -> None:
        for _ in range(count):
            self.builds.step()

    def look(self, push: Push) -> Push:
        found = self.rows.push(push.id)
        assert found is not None
        return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.store.close()


def test_push_is_built_released_and_delivered(world: World) -> None:
    """A commit becomes a release, which is handed on for whoever pushed it, under the push's own key."""
    push = world.push("a")
    world.steps()
    seen = world.look(push)
    assert (seen.state, seen.release, seen.promotion, seen.attempt) == (PushState.RELEASED, 1, "1", 1)
    ((release, to, asked, supersede),) = world.delivered
    assert (release, to, asked.by, asked.key, supersede) == (1, "production", "ada", f"push-{push.id}", False)
    assert world.lines.kept[push.id][-2:] == ["release  r1", "closed"]
    assert world.shop.rooms == []


def test_failed_build_says_why_and_holds_up_nobody(world: World) -> None:
    """A build that fails ends its push with the reason, and the next one is built."""
    bad, good = world.push("a"), world.push("b")
    world.shop.breaks["a" * 40] = errors.BuildError(
        "The build command failed with exit status 3. Its last lines:\n  x"
    )
    world.steps(4)
    seen = world.look(bad)
    assert (seen.state, seen.detail) == (
        PushState.FAILED,
        "The build command failed with exit status 3.",
    )
    assert seen.release is None
    assert world.look(good).promotion is not None
    assert world.shop.rooms == []
    assert bad.id in world.shop.ended


def test_bad_scripts_end_a_push_before_anything_is_kept(world: World) -> None:
    """The push says all that is wrong with the migrations; there is no package and no release of it."""
    problems = (errors.Problem("0001_a", "has no up script"), errors.Problem("0002_b", "has no down script"))
    world.shop.bad_scripts["a" * 40] = errors.MigrationError(problems)
    bad, good = world.push("a"), world.push("b")
    world.steps(4)
    seen = world.look(bad)
    assert (seen.state, seen.release) == (PushState.FAILED, None)
    assert "0001_a: has no up script" in seen.detail
    assert any("0002_b: has no down script" in line for line in world.lines.kept[bad.id])
    assert world.look(good).release == 1
    assert len(world.shop.added) == 1
    assert world.shop.rooms == []


def test_one_push_of_an_app_is_built_at_a_time(world: World) -> None:
    """The second push waits for the first; another app's does not."""
    world.rows.keep(world.lease, Source(app="mail", to="production"))
    world.hold = True
    first, second, other = world.push("a"), world.push("b"), world.push("c", app="mail")
    world.steps()
    states = [world.look(push).state for push in (first, second, other)]
    assert states == [PushState.BUILDING, PushState.QUEUED, PushState.BUILDING]


def test_no_more_builds_than_the_machine_bears(world: World) -> None:
    """Of many apps a few are built at once."""
    world.hold = True
    for number in range(builds.AT_ONCE + 2):
        world.rows.keep(world.lease, Source(app=f"app{number}"))
        world.push("a", app=f"app{number}")
    world.steps()
    assert len(world.held) == builds.AT_ONCE


def test_killed_control_plane_builds_again_from_clean(world: World) -> None:
    """After a crash in a build everything left is cleared, and the same commit is the same release."""
    world.hold = True
    push = world.push("a")
    world.steps()
    assert world.look(push).state is PushState.BUILDING
    world.hold = False
    again = world.restarted()
    again.start()
    again.stop()
    world.restarted().step()
    world.steps()
    seen = world.look(push)
    assert (seen.state, seen.attempt, world.shop.cleared) == (PushState.RELEASED, 2, 1)
    assert len(world.delivered) == 1


def test_killed_between_release_and_row_is_the_same_release(world: World) -> None:
    """A release that was numbered before the crash is found again: nothing is doubled."""
    push = world.push("a")
    world.steps()
    with world.store.transaction(world.lease) as connection:
        connection.execute("update pushes set state = 'building', release = null, promotion = null")
    world.restarted().step()
    world.steps()
    assert world.look(push).release == 1
    assert len(world.store.releases("shop")) == 1
    assert {asked.key for _, _, asked, _ in world.delivered} == {f"push-{push.id}"}


def test_build_that_kills_the_control_plane_is_given_up(world: World) -> None:
    """A push is not begun for ever."""
    push = world.push("a")
    with world.store.transaction(world.lease) as connection:
        connection.execute("update pushes set state = 'building', attempt = ?", (builds.ATTEMPTS_MAX,))
    world.rows.restart(world.lease, attempts_max=builds.ATTEMPTS_MAX, at=5.0)
    seen = world.look(push)
    assert (seen.state, seen.ended_at) == (PushState.FAILED, 5.0)
    assert "the control plane ended 5 times" in seen.detail


def test_newer_push_supersedes_what_was_not_delivered(world: World) -> None:
    """Where a source supersedes, only the newest of those that wait is built and delivered."""
    world.rows.keep(world.lease, dataclasses.replace(SHOP, on_push=OnPush.SUPERSEDE))
    first, second = world.push("a"), world.push("b")
    world.steps()
    assert world.look(first).state is PushState.SUPERSEDED
    assert world.look(first).detail == f"superseded by push {second.name}"
    assert world.shop.built == ["b" * 40]
    assert [supersede for *_, supersede in world.delivered] == [True]


def test_superseded_build_is_ended_and_never_delivered(world: World) -> None:
    """A build that runs when a newer push comes is killed; what it would have become is nothing."""
    world.rows.keep(world.lease, dataclasses.replace(SHOP, on_push=OnPush.SUPERSEDE))
    first = world.push("a")
    newer: list[Push] = []

    def meanwhile() -> None:
        if not newer:
            newer.append(world.push("b"))
            world.builds.step()
            assert world.shop.ended == [first.id]
            raise errors.BuildError("The build command was killed by SIGKILL.")

    world.shop.during = meanwhile
    world.steps(4)
    assert world.look(first).state is PushState.SUPERSEDED
    assert world.look(newer[0]).state is PushState.RELEASED
    assert [asked.key for _, _, asked, _ in world.delivered] == [f"push-{newer[0].id}"]


def test_refusal_that_passes_is_waited_for_in_order(world: World) -> None:
    """While a rollout is in progress the pushes wait, and then go on in their order."""
    first, second = world.push("a"), world.push("b")
    world.refuses = errors.RefusedError("Busy.", reason=model.Refusal.BUSY.value)
    world.steps(4)
    assert [world.look(push).promotion for push in (first, second)] == [None, None]
    world.refuses = None
    world.steps(1)
    assert [release for release, *_ in world.delivered] == [1, 2]


def test_push_does_not_overtake_one_that_waits(world: World) -> None:
    """A release that could be delivered at once waits for the older one of its app before it."""
    first, second = world.push("a"), world.push("b")
    world.refused_releases = {1}
    world.steps(4)
    assert world.look(second).state is PushState.RELEASED
    assert [world.look(push).promotion for push in (first, second)] == [None, None]
    world.refused_releases = set()
    world.steps(1)
    assert [release for release, *_ in world.delivered] == [1, 2]


def test_refusal_for_good_ends_the_push(world: World) -> None:
    """A release that can never be delivered is said to have failed, and why."""
    push = world.push("a")
    world.refuses = errors.RefusedError("No.", reason=model.Refusal.UNKNOWN_ENVIRONMENT.value)
    world.steps()
    assert (world.look(push).state, world.look(push).detail) == (PushState.FAILED, "No.")


def test_full_disk_at_delivery_is_tried_again(world: World) -> None:
    """What the machine cannot do now is done later."""
    push = world.push("a")
    world.steps(1)
    world.refuses = errors.StorageError("Full.")
    with pytest.raises(errors.StorageError):
        world.builds.step()
    world.refuses = None
    world.steps(1)
    assert world.look(push).promotion == "1"


def test_environment_of_a_build_is_an_allow_list(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the control plane's own environment reaches a build but what finds programs."""
    monkeypatch.setenv("TIDEGATE_TOKEN", "tide_secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    world.push("a")
    world.steps()
    (environment,) = world.shop.environments
    assert set(environment) <= {*workshop.INHERITED, "HOME", "TMPDIR", "CI", "SOURCE_DATE_EPOCH", "MARK"}
    assert environment["SOURCE_DATE_EPOCH"] == "7"


def test_commit_of_another_app_is_refused(world: World) -> None:
    """A repository builds the app that it belongs to."""
    push = world.push("a")
    world.shop.manifests["a" * 40] = MANIFEST.replace('"app": "shop"', '"app": "mail"')
    world.steps()
    assert world.look(push).state is PushState.FAILED
    assert "of the app mail" in world.look(push).detail
    assert world.shop.built == []


def test_target_that_the_commit_does_not_name_is_refused_before_the_build(world: World) -> None:
    """An hour of building is not spent on what cannot be delivered."""
    push = world.push("a")
    world.shop.manifests["a" * 40] = MANIFEST.replace('"production"', '"live"')
    world.steps()
    assert "does not name the environment production" in world.look(push).detail
    assert world.shop.built == []


def test_package_folder_that_leads_out_is_refused(world: World, tmp_path: Path) -> None:
    """A link in the commit cannot bring other files of this machine into a package."""
    push = world.push("a")

    def swap() -> None:
        dist = world.shop.rooms[0] / "source" / "dist"
        dist.rmdir()
        dist.symlink_to(tmp_path)

    world.shop.during = swap
    world.steps()
    assert world.look(push).state is PushState.FAILED
    assert "leads out of the checkout" in world.look(push).detail
    assert world.shop.added == []


def test_removed_source_builds_nothing_more(world: World) -> None:
    """What waits when a source is removed is superseded."""
    push = world.push("a")
    world.rows.drop(world.lease, "shop", at=7.0)
    world.steps()
    assert world.look(push).state is PushState.SUPERSEDED
    assert world.shop.built == []

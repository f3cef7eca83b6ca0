"""When a remote is looked at: as often as a source says, after webhooks, and less often while it fails."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from tidegate import errors
from tidegate.pushes import Forge, Hint, Source
from tidegate.sources import watching

HINT = Hint(id=1, app="shop", delivery="d", body="b", ref="refs/heads/main", revision="a" * 40, at=0.0)


class World:
    """A clock, sources, and remotes that fail as they are told to."""

    def __init__(self, *sources: Source) -> None:
        self.now = 0.0
        self.all = sources
        self.waiting: tuple[Hint, ...] = ()
        self.looks: list[tuple[float, str, bool]] = []
        self.broken: set[str] = set()
        self.held: list[Callable[[], None]] = []
        self.hold = False
        self.watching = watching.Watching(self, self.look, lambda: self.now, spawn=self.spawn)

    def sources(self) -> tuple[Source, ...]:
        return self.all

    def hints(self) -> tuple[Hint, ...]:
        return self.waiting

    def look(self, app: str, *, everything: bool) -> None:
        self.looks.append((self.now, app, everything))
        if app in self.broken:
            raise errors.SourceError("It does not answer.")

    def spawn(self, work: Callable[[], None]) -> None:
        if self.hold:
            self.held.append(work)
        else:
            work()

    def pass_time(self, seconds: int) -> None:
        for _ in range(seconds):
            self.watching.step()
            self.now += 1


def polled(app: str = "shop", poll_s: float | None = 60.0) -> Source:
    return Source(app=app, remote="/srv/shop.git", poll_s=poll_s, hook=Forge.GITHUB)


def test_remote_is_polled_as_often_as_it_says() -> None:
    """Every minute is every minute."""
    world = World(polled())
    world.pass_time(181)
    assert [at for at, *_ in world.looks] == [0, 60, 120, 180]


def test_pushed_source_is_never_looked_at() -> None:
    """Where there is no remote there is nothing to look at."""
    world = World(Source(app="shop"))
    world.pass_time(100)
    assert world.looks == []


def test_webhook_is_looked_after_at_once() -> None:
    """A webhook makes somebody look at what it names, without polling."""
    world = World(polled(poll_s=None))
    world.pass_time(10)
    world.waiting = (HINT,)
    world.watching.step()
    assert world.looks == [(10, "shop", False)]


def test_failing_remote_is_asked_less_and_less() -> None:
    """A remote that fails is tried after 5, 10, 20 seconds and so on, never less than once an hour."""
    world = World(polled())
    world.broken = {"shop"}
    world.pass_time(3 * 3600)
    times = [at for at, *_ in world.looks]
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert pauses[:5] == [5, 10, 20, 40, 80]
    assert pauses == sorted(pauses)
    assert max(pauses) <= watching.PAUSE_S_MAX
    assert world.watching.trouble("shop") == "It does not answer."


def test_mended_remote_is_polled_as_before() -> None:
    """After the first answer everything is as it was."""
    world = World(polled())
    world.broken = {"shop"}
    world.pass_time(100)
    world.broken = set()
    before = len(world.looks)
    world.pass_time(300)
    later = [at for at, *_ in world.looks[before:]]
    assert [b - a for a, b in itertools.pairwise(later)] == [60] * (len(later) - 1)
    assert len(later) > 3
    assert world.watching.trouble("shop") == ""


def test_failing_remote_is_not_hurried_by_webhooks() -> None:
    """Webhooks that wait do not make a remote that is down be asked all the time."""
    world = World(polled(poll_s=None))
    world.broken, world.waiting = {"shop"}, (HINT,)
    world.pass_time(60)
    assert [at for at, *_ in world.looks] == [0, 5, 15, 35]


def test_one_look_of_an_app_at_a_time() -> None:
    """A remote that takes long is not asked once more meanwhile, and holds up no other."""
    world = World(polled(poll_s=5.0), polled("mail", 5.0))
    world.hold = True
    world.pass_time(30)
    assert len(world.held) == 2
    world.hold = False
    for work in world.held:
        work()
    world.pass_time(6)
    assert {app for _, app, _ in world.looks} == {"shop", "mail"}
    assert len(world.looks) > 2

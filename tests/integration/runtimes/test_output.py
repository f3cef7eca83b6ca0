"""What instances print, while they run and afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from tests.integration.runtimes.world import World, wait_for
from tidegate import ports

pytestmark = pytest.mark.real


def texts(lines: Iterator[ports.LogLine | None]) -> list[str]:
    return [line.text for line in lines if line is not None]


def test_logs_gives_the_last_lines_of_each_instance(world: World) -> None:
    """Oldest first, marked with the instance, whatever bytes they hold."""
    program = "import sys, time\nfor n in range(5): print('line', n, flush=True)\n"
    program += "sys.stdout.buffer.write(b'\\xff\\xfe!\\r\\n')\n"
    group = world.worker(program + "sys.stdout.flush()\ntime.sleep(300)", instances=2)
    world.start(group)
    wait_for(lambda: len(list(world.runtime.logs(group.id, tail=9))) == 12)
    lines = list(world.runtime.logs(group.id, tail=2))
    assert [(one.index, one.text) for one in lines if one] == [
        (index, text) for index in (0, 1) for text in ("line 4", "\N{REPLACEMENT CHARACTER}" * 2 + "!")
    ]


def test_output_is_turned_over_and_bounded(world: World) -> None:
    """A file that grew too large is turned over; the oldest part is dropped, the newest lines are kept."""
    world.runtime = world.new_runtime(log_bytes=20_000, log_files=3)
    group = world.group()
    world.start(group)
    folder = world.instance_folder(group)
    inodes: set[int] = set()

    def turned_over() -> bool:
        world.ask("/say?text=filling-the-file-&count=800")
        if (folder / "output.log.1").exists():
            inodes.add((folder / "output.log.1").stat().st_ino)
        return (folder / "output.log.2").exists() and len(inodes) >= 3

    wait_for(turned_over, seconds=20)
    assert not (folder / "output.log.3").exists()
    world.ask("/say?text=the-last-&count=1")
    assert world.runtime.last_output(group.id, 1) == ("the-last-0",)


def test_followed_output_survives_turning_over_and_ends_with_the_group(world: World) -> None:
    """A follower sees each line once and in order, gets None in between, and ends when the group is gone."""
    world.runtime = world.new_runtime(log_bytes=20_000)
    group = world.group()
    world.start(group)
    older = world.instance_folder(group) / "output.log.1"

    def inode() -> int | None:
        return older.stat().st_ino if older.exists() else None

    def changed(before: int | None) -> bool:
        return inode() != before

    lines = world.runtime.logs(group.id, tail=0, follow=True)
    assert next(lines) is None
    seen: list[str] = []
    for number in range(3):
        before = inode()
        world.ask(f"/say?text=part{number}-&count=2500")
        wait_for(partial(changed, before))
        for line in lines:
            if line is None:
                break
            seen.append(line.text)
    world.runtime.remove(group.id, key="k")
    wait_for(world.gone)
    seen.extend(texts(lines))
    printed = [text for text in seen if text.startswith("part")]
    assert printed == [f"part{part}-{count}" for part in range(3) for count in range(2500)]


def test_output_of_a_removed_group_is_kept_and_bounded(world: World) -> None:
    """The output of an aborted rollout can be read afterwards; only so many groups' are kept."""
    world.runtime = world.new_runtime(kept_logs=2)
    program = "import time; print('the reason', flush=True); time.sleep(300)"

    def printed(group_id: str) -> bool:
        return "the reason" in world.runtime.last_output(group_id)

    for placement in (1, 2, 3):
        group = world.worker(program, placement=placement)
        world.start(group)
        wait_for(partial(printed, group.id))
        world.runtime.remove(group.id, key="k")
        wait_for(world.gone)
    kept = {path.name for path in (world.folder / "logs").iterdir()}
    assert kept == {"shop.production.2.api", "shop.production.3.api"}
    assert "the reason" in texts(world.runtime.logs("shop.production.3.api", tail=5, follow=True))

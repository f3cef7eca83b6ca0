"""One universe: a while of faults and wishes, then calm, then rest."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from tests.simulation.pipeline.checker import Checker
from tests.simulation.pipeline.people import People
from tests.simulation.pipeline.plane import ControlPlane
from tests.simulation.pipeline.world import KEYS, Violation, World

#: Seconds of faults and wishes.
BUSY_S: Final = (15, 30, 60)
#: Seconds of calm in which everything must come to rest.
REST_S: Final = 240
#: After so many seconds at rest it is looked once more.
SETTLED_S: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What came of a seed."""

    seed: int
    violation: str
    reached: Counter[str]
    trace: tuple[str, ...]
    seconds: float


def run(seed: int) -> Result:
    """Live through one universe."""
    world = World(seed)
    plane = ControlPlane(world)
    people = People(world, plane)
    world.checker = Checker(world)
    violation = ""
    try:
        _live(world, plane, people)
    except Violation as found:
        violation = str(found)
    return Result(
        seed=seed,
        violation=violation,
        reached=world.reached,
        trace=tuple(world.trace),
        seconds=world.clock.elapsed,
    )


def _live(world: World, plane: ControlPlane, people: People) -> None:
    for _ in range(world.rng.choice(BUSY_S)):
        world.clock.advance(1.0)
        _misfortunes(world)
        plane.strike()
        people.tamper()
        people.tick()
        plane.tick()
    world.calm = True
    world.note("faults have stopped")
    rested = 0
    for _ in range(REST_S):
        world.clock.advance(1.0)
        plane.strike()
        people.tick()
        plane.tick()
        rested = rested + 1 if people.is_content and world.checker.is_at_rest() else 0
        if rested >= SETTLED_S:
            break
    world.checker.at_the_end()


def _misfortunes(world: World) -> None:
    rates, rng = world.faults, world.rng
    if world.strikes(rates.wall_jump):
        world.reached["wall clock jumps"] += 1
        world.clock.jump(rng.uniform(-20.0, 60.0))
    if world.strikes(rates.instance):
        live = [world.store.load(key).state.live for key in KEYS]
        for key, placement in zip(KEYS, live, strict=True):
            name = f"{key.app}.{key.environment}.{placement.id}.web" if placement else ""
            if placement and world.runtime.instances(name) and rng.random() < 0.5:
                world.reached["instance hangs"] += 1
                world.runtime.hang(name, 0, seconds=rng.uniform(1.0, 10.0))

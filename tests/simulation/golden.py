"""Saved states: taken from simulations, and brought to rest by today's code.

`python -m tests.simulation.golden` writes one state per phase that `tests/golden` has none of yet from a
simulation, as `simulation-<phase>.json`. `brought_to_rest` is the other direction: a control plane of today
finds a saved state of any version, an empty machine and a router that knows nothing, and must come to rest.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.golden import write as golden
from tests.simulation import scenario
from tests.simulation.checkers.base import Checker
from tests.simulation.universe import Result, Universe
from tidegate.core import model
from tidegate.core.model import Phase
from tidegate.store import codec

#: A canary over two services of one environment, which is what the saved states are most useful about.
SEED = 3
PROFILES = ("buttons", "checks", "migrations")


class _Collector(Checker):
    """Keeps the first state of each phase."""

    def __init__(self, found: dict[str, model.EnvironmentState], universe: Universe) -> None:
        super().__init__(universe.world)
        self._found = found

    def on_commit(
        self,
        key: model.EnvironmentKey,
        before: model.EnvironmentState,
        after: model.EnvironmentState,
        events: tuple[model.Event, ...],
    ) -> None:
        for rollout in (after.rollout, after.last):
            if rollout is not None and (rollout.phase not in self._found):
                self._found[rollout.phase] = after


def states() -> dict[str, model.EnvironmentState]:
    """By phase, of one universe after the other until every phase was seen."""
    found: dict[str, model.EnvironmentState] = {}
    seed = SEED
    while len(found) < len(Phase):
        universe = Universe(seed, PROFILES[seed % len(PROFILES)])
        universe.world.checkers.append(_Collector(found, universe))
        universe.run()
        seed += 1
    return found


def write_missing(folder: Path) -> list[Path]:
    """Write the files that are not there yet; none is ever replaced."""
    written = []
    for phase, state in sorted(states().items()):
        path = folder / f"simulation-{phase}.json"
        if not path.exists():
            path.write_text(codec.STATE.encode(state), encoding="utf-8")
            written.append(path)
    return written


def brought_to_rest(state: model.EnvironmentState) -> Result:
    """Hand the state to a control plane on an empty machine, and wait until it is quiet."""
    universe = Universe(0, "calm", keys=(state.key,))
    world = universe.world
    world.runtime.start_revision(state.seen_runtime)
    world.router.start_revision(state.seen_router)
    requests = [rollout.request for rollout in (state.rollout, state.last) if rollout is not None]
    requests += [state.pending] if state.pending is not None else []
    known = [(p.digest, p.release, p.spec) for p in state.placements]
    known += [(request.digest, request.release, request.spec) for request in requests]
    for digest, number, spec in known:
        world.releases[digest] = scenario.Release(number=number, spec=spec, character=scenario.GOOD)
    world.excuse_capacity(state.key)
    universe.begin_with(state)
    # Halted on purpose by the version that saved it: then it must stay as it is.
    world.restored = bool(state.halted)
    return universe.run_quiet()


if __name__ == "__main__":
    for written in write_missing(golden.FOLDER / f"schema-{codec.SCHEMA}"):
        sys.stdout.write(f"{written}\n")

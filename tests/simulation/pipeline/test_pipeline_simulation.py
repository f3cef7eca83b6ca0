"""Whole pipelines in universes of faults: nothing that must never happen does, and every rule is missed."""

from __future__ import annotations

from collections import Counter
from typing import Final

import pytest

from tests.simulation.mutants import Mutant
from tests.simulation.pipeline import mutants
from tests.simulation.pipeline.__main__ import replay_hint
from tests.simulation.pipeline.runner import run_one
from tests.simulation.pipeline.universe import Result

SEEDS: Final = 300
CHUNK: Final = 50
REACHED_SEEDS: Final = 130
#: What the first universes must have seen: half of what they saw when this was written, or less.
MINIMUMS: Final = {
    "approved": 30,
    "blind": 10,
    "checks fail": 15,
    "commit refused": 60,
    "conflict": 100,
    "crash after a commit": 10,
    "crash after a rollout has begun": 1,
    "crash before a commit": 10,
    "crash before a rollout begins": 1,
    "deposed": 5,
    "emergency": 5,
    "ended: arrived": 50,
    "ended: failed": 15,
    "ended: superseded": 100,
    "ended: withdrawn": 1,
    "entered with approval": 10,
    "fenced": 3,
    "instance hangs": 10,
    "passed": 60,
    "refused: may-not-approve": 15,
    "rolled back": 1,
    "rollout aborted: superseded": 3,
    "rollout aborted: verify-failed": 2,
    "sent home": 50,
    "soaked": 40,
    "stalled": 10,
    "suspended": 10,
    "tampered: copied": 2,
    "tampered: forged": 2,
    "tampered: moved": 2,
    "tampering found": 3,
    "waits: approval": 80,
    "waits: busy": 30,
    "waits: freeze": 15,
    "waits: soak": 150,
    "wall clock jumps": 20,
}


#: What has broken a rule in a long run, and what it found.
BROKE_ONCE: Final = (
    1853,  # a wall clock that was put back made an old look new
)


def failures(results: list[Result]) -> str:
    return "\n".join(f"{r.violation}\n  {replay_hint(r.seed)}" for r in results if r.violation)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_nothing_happens_that_must_never_happen(first: int) -> None:
    """No rule of the checker is violated, and everything comes to rest."""
    said = failures([run_one(seed) for seed in range(first, first + CHUNK)])
    assert not said, said


@pytest.mark.slow
@pytest.mark.parametrize("seed", BROKE_ONCE)
def test_what_broke_once_stays_whole(seed: int) -> None:
    """A universe in which a rule did not hold is gone through again in every run."""
    said = failures([run_one(seed)])
    assert not said, said


@pytest.mark.slow
def test_universes_reach_what_they_are_about() -> None:
    """Each kind of fault, wait and ending occurs often enough for a clean run to mean something."""
    reached: Counter[str] = Counter()
    for seed in range(REACHED_SEEDS):
        reached.update(run_one(seed).reached)
    missed = {name: (reached[name], least) for name, least in MINIMUMS.items() if reached[name] < least}
    assert not missed, f"{missed} of {sorted(reached.items())}"


@pytest.mark.slow
@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.name)
def test_rule_that_is_switched_off_is_noticed(mutant: Mutant) -> None:
    """Without the rule, something happens within the stated seeds that must never happen."""
    results = (run_one(seed, mutant.name) for seed in range(mutant.seeds))
    caught = next((result for result in results if result.violation), None)
    assert caught is not None, f"{mutant.name} lived through {mutant.seeds} seeds"
    rule = caught.violation.split(":")[0]
    assert not mutant.caught_by or rule in mutant.caught_by, caught.violation


def test_the_same_seed_is_the_same_universe() -> None:
    """A failure can be replayed by its number."""
    one, other = (run_one(7) for _ in range(2))
    assert (one.trace, one.reached, one.violation) == (other.trace, other.reached, other.violation)

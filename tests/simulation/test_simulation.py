"""Thousands of universes, none of which may see what must never happen; and proof that they would notice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from tests.golden import write as golden
from tests.simulation import golden as golden_states
from tests.simulation import mutants
from tests.simulation.__main__ import replay_hint, summary
from tests.simulation.runner import results, run_one, work
from tidegate.store import codec

#: Every run of the tests goes through the same universes; `python -m tests.simulation` goes through others.
SEEDS = 2_000
CHUNK = 40
#: What the first seeds must have reached, or the simulation proves nothing (reliability.md 2.4, coverage).
REACHED_SEEDS = 180
REACHED_LOOPS = 60
REACHED_CHECKS = 40
REACHED_MIGRATIONS = 40
MINIMUMS = {
    "aborted: aborted-by-user": 20,
    "aborted: all-unready": 5,
    "aborted: crash-loop": 20,
    "aborted: never-ready": 20,
    "aborted: superseded": 50,
    "aborted: verify-failed": 20,
    "aborted: worse": 20,
    "auto-rollback": 1,
    "blind look": 500,
    "checks begin": 40,
    "control plane death": 200,
    "crash after commit": 10,
    "crash before commit": 10,
    "drain deadline": 20,
    "effect crash_effect": 20,
    "effect depose": 10,
    "effect late": 200,
    "effect lost": 50,
    "effect partial": 30,
    "effect twice": 50,
    "event: migrated": 50,
    "event: paused": 10,
    "evidence is complete": 300,
    "event: promoted": 10,
    "event: requests-held": 10,
    "event: schema-settled": 3,
    "event: verified": 20,
    "fast-forward": 1,
    "flip of a warm standby": 3,
    "halted": 5,
    "instance crash": 50,
    "late commit refused": 10,
    "late effect landed": 300,
    "reboot": 20,
    "migration down": 5,
    "migration fails": 20,
    "requests": 20_000,
    "restore": 5,
    "rollback asked for": 5,
    "router kill": 20,
    "router reload": 100,
    "sleeper fenced": 10,
    "stage held": 200,
    "stale look": 200,
    "stale route refused": 50,
    "stall": 20,
    "succeeded: complete": 200,
    "suspend": 20,
    "tampered": 2,
    "wall clock jump": 50,
}
#: What has broken an invariant in a long run, rarely: most found a rule, of the loop or of a checker, that
#: did not know how old a look or a state can be.
BROKE_ONCE = (
    (24122, "reboot"),  # after a reset, a server got the name of a worker that had been stopped before it
    (24512, "swarm"),  # the same
    (109029, "swarm"),  # readiness of a standby that was taken over, seen 6 s late
    (113720, "clock"),  # the machine was suspended right after a look
    (120968, "stale"),  # a new leader was shown once more what had been committed as seen
    (126687, "swarm"),  # the same
    (130533, "restore"),  # a look from before the backup's unknown instances
    (211839, "restore"),  # addresses in a backup that another environment had been given since
    (220799, "reboot"),  # a release that loops after a reboot keeps down what needs it
    (226350, "swarm"),  # an instance that was ready after the backup, and hung when it was restored
    (236217, "swarm"),  # the same
)
GOLDEN = sorted(golden.FOLDER.glob("schema-*/*.json"))


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_nothing_happens_that_must_never_happen(first: int) -> None:
    """No invariant of reliability.md 2.4 is violated in these universes."""
    failed = [result for result in results(work(first, CHUNK, "")) if result.violation]
    assert not failed, "\n".join(f"{result.detail}\n  {replay_hint(result)}" for result in failed)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "profile"), BROKE_ONCE)
def test_what_broke_once_stays_whole(seed: int, profile: str) -> None:
    """A universe in which an invariant did not hold is gone through again in every run."""
    result = run_one((seed, profile, ""))
    assert not result.violation, f"{result.detail}\n  {replay_hint(result)}"


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_universes_reach_what_they_are_about() -> None:
    """Each kind of fault, phase and ending occurs often enough for a clean run to mean something."""
    reached: Counter[str] = Counter()
    for result in results(
        [
            *work(0, REACHED_SEEDS, ""),
            *work(0, REACHED_LOOPS, "loops"),
            *work(0, REACHED_CHECKS, "checks"),
            *work(0, REACHED_MIGRATIONS, "migrations-fail"),
        ]
    ):
        reached.update(result.reached)
    missed = {name: (reached[name], least) for name, least in MINIMUMS.items() if reached[name] < least}
    assert not missed, "\n".join([str(missed), *summary(reached)])


@pytest.mark.slow
@pytest.mark.parametrize("mutant", mutants.CAUGHT, ids=lambda mutant: mutant.name)
def test_rule_that_is_switched_off_is_noticed(mutant: mutants.Mutant) -> None:
    """Without the rule, something happens within the stated seeds that must never happen."""
    items = ((seed, mutant.profile, mutant.name) for seed in range(mutant.seeds))
    caught = next((result for result in map(run_one, items) if result.violation), None)
    assert caught is not None, f"{mutant.name} lived through {mutant.seeds} seeds of {mutant.profile}"
    assert not mutant.caught_by or caught.violation in mutant.caught_by, caught.detail


@pytest.mark.slow
@pytest.mark.parametrize("mutant", mutants.SURVIVORS, ids=lambda mutant: mutant.name)
def test_rule_that_has_a_second_guard_says_which(mutant: mutants.Mutant) -> None:
    """A survivor survives, and its reason is written down."""
    assert len(mutant.survives_because) > 40
    items = ((seed, mutant.profile, mutant.name) for seed in range(mutant.seeds))
    caught = next((result for result in map(run_one, items) if result.violation), None)
    assert caught is None, f"{mutant.name} is caught after all: {caught.detail}"


@pytest.mark.slow
def test_a_universe_is_the_same_in_every_process() -> None:
    """The trace does not depend on the hash seed: nothing iterates over a set of strings."""
    digests = []
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-m", "tests.simulation", "--seeds", "12", "--digests", "--processes", "1"]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        root = Path(__file__).parents[2]
        answer = subprocess.run(
            command, env=environment, cwd=root, check=True, capture_output=True, text=True, timeout=50
        )
        digests.append(answer.stdout)
    assert digests[0] == digests[1]
    assert len(digests[0].splitlines()) == 12


def test_the_same_seed_is_the_same_universe() -> None:
    """A failure can be replayed by its number."""
    one, other = (run_one((7, "swarm", "")) for _ in range(2))
    assert one.digest == other.digest
    assert one.reached == other.reached


def test_a_failure_says_how_to_replay_it() -> None:
    """The hint names the seed and the profile, and the replay fails in the same way."""
    mutant = mutants.by_name("stage-skipped")
    failed = next(
        result
        for result in (run_one((seed, "swarm", mutant.name)) for seed in range(20))
        if result.violation == "STAGES"
    )
    assert replay_hint(failed) == f"make sim SEED={failed.seed} PROFILE=swarm"
    again = run_one((failed.seed, "swarm", mutant.name))
    assert (again.violation, again.trace) == (failed.violation, failed.trace)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_saved_state_of_any_version_comes_to_rest(path: Path) -> None:
    """Today's control plane finds a saved state on an empty machine and brings it to a quiet end."""
    result = golden_states.brought_to_rest(codec.STATE.decode(path.read_text(encoding="utf-8")))
    assert not result.violation, "\n".join([*islice(result.trace, 40), result.detail])

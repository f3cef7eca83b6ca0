"""Runs one universe, whole or with a rule switched off: apart from `__main__`, for workers to import."""

from __future__ import annotations

from tests.simulation.mutants import switched_off
from tests.simulation.pipeline import mutants, universe


def run_one(seed: int, mutant: str = "") -> universe.Result:
    """One universe, with one rule switched off if a mutant is named."""
    if not mutant:
        return universe.run(seed)
    with switched_off(mutants.by_name(mutant)):
        return universe.run(seed)

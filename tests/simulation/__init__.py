"""Whole universes of Tidegate in virtual time: the real core and loop, fakes, faults, and what must never happen.

One seed is one universe. `python -m tests.simulation --help` runs them; `make sim SEED=n PROFILE=name` replays one.
"""

"""Whole universes of Tidegate in virtual time: the real core and loop, and faults on the way to fakes.

One seed is one universe. `python -m tests.simulation --help` says how to run them; `make sim SEED=n
PROFILE=name` replays one.
"""

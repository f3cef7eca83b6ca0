"""Simulation of whole pipelines: real gates, deliveries and operations upon a world of faults and of people.

`python -m tests.simulation.pipeline --seeds 1000` runs universes, `--seed 7 --trace` replays one. Apart from
the simulation of single environments beside it, which knows more of what can happen to a rollout.
"""

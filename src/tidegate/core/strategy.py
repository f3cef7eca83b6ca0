"""Strategies as lists of stages: the hard switch is a canary with one stage.

Neighbours: `manifest` builds strategies from what the user wrote, `advance` walks through the stages.
"""

from __future__ import annotations

from tidegate.core import model
from tidegate.core.model import FULL_EXPOSURE, Stage, Strategy, StrategyKind

#: Everybody at once: one flip, seen in force, no hold.
SWITCH = Strategy(kind=StrategyKind.SWITCH, stages=(Stage(exposure_bps=FULL_EXPOSURE, hold_s=0.0),))


def canary(steps: tuple[Stage, ...]) -> Strategy:
    """A canary of these stages, with full exposure behind them.

    Raises ValueError unless steps grow strictly within 1 to 9 999 basis points, held for 0 s or more.
    """
    shares = [step.exposure_bps for step in steps]
    if not steps or sorted(set(shares)) != shares or shares[0] < 1 or shares[-1] >= FULL_EXPOSURE:
        raise ValueError(f"canary steps must grow from above 0 % to below 100 %, not {shares}")
    if any(step.hold_s is not None and step.hold_s < 0 for step in steps):
        raise ValueError("a stage cannot be held for a negative time")
    return Strategy(kind=StrategyKind.CANARY, stages=(*steps, SWITCH.stages[0]))


def for_first_release(strategy: Strategy) -> Strategy:
    """What a first deployment uses: with nothing to compare with and nobody served, it is a switch."""
    return strategy if strategy.kind is StrategyKind.SWITCH else SWITCH


def describe(strategy: Strategy) -> str:
    """For people, e.g. `canary 1 % 2m, 5 % 2m, then everybody`."""
    if strategy.kind is StrategyKind.SWITCH:
        return "switch: everybody at once"
    steps = [f"{stage.exposure_bps / 100:g} % {hold(stage)}" for stage in strategy.stages[:-1]]
    return f"canary {', '.join(steps)}, then everybody"


def hold(stage: model.Stage) -> str:
    """A stage's hold time for people."""
    if stage.hold_s is None:
        return "until promoted"
    return f"for {stage.hold_s:g} s"

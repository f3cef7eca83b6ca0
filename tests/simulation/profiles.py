"""Which faults a universe has, and how often: drawn per seed, so that some runs are calm and some are mad.

Uniformly random faults miss rare conjunctions (reliability.md 2.4): the profile `swarm` turns a few faults
up to extremes and others off; directed profiles turn one kind up in every seed. A rate is a probability per
opportunity (effect, look, commit) or per simulated second, as its comment says.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Rates of one universe; all at zero is a calm one."""

    # per effect
    crash_effect: float = 0.0
    """Control plane dies before or after it."""
    late: float = 0.0
    """Answered as done or as timed out, and done up to 25 s later."""
    lost: float = 0.0
    """Never done, answered as done or as failed."""
    twice: float = 0.0
    """Done now and once more later."""
    refused: float = 0.0
    partial: float = 0.0
    """A route command stops between two of its parts."""
    depose: float = 0.0
    """The leader hangs: this effect and those after it come late, another leader takes over."""
    # per commit
    crash_commit: float = 0.0
    hang_commit: float = 0.0
    """The leader hangs before this commit, which is tried up to 60 s later, when another leads."""
    # per look
    blind_runtime: float = 0.0
    blind_router: float = 0.0
    stale: float = 0.0
    """An earlier answer, with its earlier revision."""
    lag: float = 0.0
    """Probability per second that looks begin to lag some seconds behind for a while."""
    # per second
    crash: float = 0.0
    stall: float = 0.0
    """The control plane does nothing for up to 20 s and goes on as if nothing had been."""
    instance_crash: float = 0.0
    instance_exit: float = 0.0
    instance_hang: float = 0.0
    reload: float = 0.0
    router_kill: float = 0.0
    reboot: float = 0.0
    wall_jump: float = 0.0
    suspend: float = 0.0
    tamper: float = 0.0
    press: float = 0.0
    """Somebody presses a button: pause, resume, promote, abort, or the deploy button once more."""
    deploy: float = 0.04
    """Somebody asks for a rollout, forward or back."""
    # per universe
    bad_release: float = 0.3
    restore: float = 0.0
    """The state goes back to a backup, once."""
    two_environments: float = 0.3
    verify: float = 0.0
    """Probability that a release has checks of its own."""
    migrations: float = 0.0
    """Probability that a release brings migrations; 0: there is no database."""
    migration_fails: float = 0.0
    """Per job: it fails at its end."""


#: Of each fault, what is a lot without being hopeless.
EXTREME: Final[Mapping[str, float]] = {
    "crash_effect": 0.15,
    "late": 0.6,
    "lost": 0.4,
    "twice": 0.5,
    "refused": 0.4,
    "partial": 0.3,
    "depose": 0.05,
    "crash_commit": 0.06,
    "hang_commit": 0.03,
    "blind_runtime": 0.5,
    "blind_router": 0.5,
    "stale": 0.4,
    "lag": 0.05,
    "crash": 0.1,
    "stall": 0.05,
    "instance_crash": 0.08,
    "instance_exit": 0.04,
    "instance_hang": 0.04,
    "reload": 0.2,
    "router_kill": 0.03,
    "reboot": 0.015,
    "wall_jump": 0.1,
    "suspend": 0.04,
    "tamper": 0.02,
    "press": 0.12,
}

CALM: Final = Faults()

#: What directed profiles turn up in every seed; everything else is drawn as in `mild`.
DIRECTED: Final[Mapping[str, Mapping[str, float]]] = {
    "late": {"late": 0.7, "twice": 0.3, "press": 0.06},
    "reload": {"reload": 0.2},
    "blind": {"blind_runtime": 0.5, "blind_router": 0.5},
    "stale": {"stale": 0.5, "lag": 0.03},
    "crash": {"crash_effect": 0.2, "crash_commit": 0.1, "crash": 0.05},
    "deposed": {"depose": 0.14, "hang_commit": 0.06},
    "reboot": {"reboot": 0.02, "router_kill": 0.02},
    "buttons": {"press": 0.25, "deploy": 0.08},
    "loops": {"bad_release": 0.7, "deploy": 0.06},
    "clock": {"wall_jump": 0.2, "suspend": 0.06, "stall": 0.06},
    "restore": {"restore": 1.0, "deploy": 0.06},
    "instances": {"instance_crash": 0.1, "instance_exit": 0.05, "instance_hang": 0.05},
    "tamper": {"tamper": 0.05},
    "checks": {"verify": 0.7, "deploy": 0.06},
    "migrations": {"migrations": 0.7, "deploy": 0.06},
    "migrations-late": {"migrations": 0.7, "depose": 0.15, "late": 0.3, "press": 0.15, "deploy": 0.1},
    "migrations-fail": {"migrations": 0.7, "migration_fails": 0.2, "deploy": 0.06},
}

PROFILES: Final = ("swarm", "calm", *DIRECTED)


def draw(profile: str, rng: random.Random) -> Faults:
    """The faults of one universe. Raises KeyError for an unknown profile."""
    if profile == "calm":
        return replace(CALM, bad_release=0.0)
    if profile == "swarm":
        return replace(CALM, restore=0.03, **_swarm(rng))
    directed = DIRECTED[profile]
    if rng.random() < 0.5:
        return replace(CALM, **directed)
    others = _swarm(rng) if profile in ("checks", "migrations-fail") else _mild(rng)
    return replace(CALM, **(others | dict(directed)))


def _swarm(rng: random.Random) -> dict[str, float]:
    rates: dict[str, float] = {}
    for name, extreme in EXTREME.items():
        dice = rng.random()
        if dice < 0.55:
            continue
        rates[name] = extreme * (rng.uniform(0.5, 1.0) if dice > 0.9 else rng.uniform(0.02, 0.2))
    return rates


def _mild(rng: random.Random) -> dict[str, float]:
    return {name: extreme * 0.1 for name, extreme in EXTREME.items() if rng.random() < 0.4}

"""The same journey in two processes is the same journey: no order of a set, no hash, no clock."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

from tests.meta import sources
from tests.properties.core.journeys import GOOD, Ask, Look, Steps, Tick, deployed, travel
from tests.support.builders import spec

JOURNEY: Steps = (
    *deployed(1, spec()),
    *deployed(2, spec()),
    *[GOOD] * 30,
    Look(fates=("looping", "fine", "missing"), servers=("busy", "unknown")),
    *[GOOD] * 10,
    Ask(what="start", release=3, wanted=spec(keep_warm_s=0.0), supersede=True),
    *[Look(fates=("fine", "unready"), lingering=True)] * 8,
    Ask(what="abort"),
    *[GOOD] * 20,
)


def fingerprint() -> str:
    """Of every state, event and effect of the journey."""
    told = [
        repr((step.after, step.outcome.events, step.effects)) if isinstance(step, Tick) else repr(step.after)
        for step in travel(JOURNEY)
    ]
    return hashlib.sha256("\n".join(told).encode()).hexdigest()


def test_journey_is_the_same_in_every_process() -> None:
    """Under other hash seeds the same states, events and effects come in the same order."""
    command = [sys.executable, "-c", f"from {__name__} import fingerprint; print(fingerprint())"]
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        ended = subprocess.run(
            command, cwd=sources.ROOT, env=environment, capture_output=True, text=True, check=True, timeout=50
        )
        assert ended.stdout.strip() == fingerprint()

"""The state machine of a rollout: every phase, every trigger, one table.

Theory of operation
-------------------
A rollout is data. Each tick, `advance` looks at the committed rollout and at the world, and fires at
most one trigger. What is not in `TRANSITIONS` is illegal: it raises and changes nothing.

    queued     waits for a router slot; nothing of it exists in the world
    migrating  the schema of its database is made ready for it; none of its instances runs
    starting   its instances start in dependency order; no user is exposed
    verifying  all of it is ready; the release's own checks try it before any user is exposed
    shifting   the committed exposure of the stage is on its way into the router
    holding    the exposure was seen in force; the stage's hold time passes
    finishing  everybody is exposed; services without traffic are replaced
    aborting   the old route is on its way back into the router, behind a new fence
    succeeded, aborted   the end

Two rules shape the table. Going home needs no gate: every phase before the end can be aborted, whatever
the world looks like. And success is the point of no return: after it only a new rollout goes back,
and its target is a release id, not a role name.
"""

from __future__ import annotations

import enum
from dataclasses import replace
from typing import Final

from tidegate.core import model
from tidegate.core.model import Phase


class Trigger(enum.StrEnum):
    """What can happen to a rollout."""

    PLACED = "placed"
    MIGRATE = "migrate"
    MIGRATED = "migrated"
    VERIFY = "verify"
    READY = "ready"
    EXPOSED = "exposed"
    NEXT_STAGE = "next-stage"
    FULLY_EXPOSED = "fully-exposed"
    FINISHED = "finished"
    ABORT = "abort"
    BACK_HOME = "back-home"


TRANSITIONS: Final[dict[tuple[Phase, Trigger], Phase]] = {
    (Phase.QUEUED, Trigger.PLACED): Phase.STARTING,
    (Phase.QUEUED, Trigger.MIGRATE): Phase.MIGRATING,
    (Phase.QUEUED, Trigger.ABORT): Phase.ABORTING,
    (Phase.MIGRATING, Trigger.MIGRATED): Phase.STARTING,
    (Phase.MIGRATING, Trigger.ABORT): Phase.ABORTING,
    (Phase.STARTING, Trigger.READY): Phase.SHIFTING,
    (Phase.STARTING, Trigger.VERIFY): Phase.VERIFYING,
    (Phase.STARTING, Trigger.ABORT): Phase.ABORTING,
    (Phase.VERIFYING, Trigger.READY): Phase.SHIFTING,
    (Phase.VERIFYING, Trigger.ABORT): Phase.ABORTING,
    (Phase.SHIFTING, Trigger.EXPOSED): Phase.HOLDING,
    (Phase.SHIFTING, Trigger.FULLY_EXPOSED): Phase.FINISHING,
    (Phase.SHIFTING, Trigger.NEXT_STAGE): Phase.SHIFTING,
    (Phase.SHIFTING, Trigger.ABORT): Phase.ABORTING,
    (Phase.HOLDING, Trigger.NEXT_STAGE): Phase.SHIFTING,
    (Phase.HOLDING, Trigger.ABORT): Phase.ABORTING,
    (Phase.FINISHING, Trigger.FINISHED): Phase.SUCCEEDED,
    (Phase.FINISHING, Trigger.ABORT): Phase.ABORTING,
    (Phase.ABORTING, Trigger.BACK_HOME): Phase.ABORTED,
}


class IllegalTransitionError(ValueError):
    """A trigger fired in a phase that does not know it; nothing was changed."""


def fire(rollout: model.Rollout, trigger: Trigger) -> model.Rollout:
    """The rollout after the trigger, its phase counters at zero. Raises IllegalTransitionError."""
    phase = TRANSITIONS.get((rollout.phase, trigger))
    if phase is None:
        raise IllegalTransitionError(f"{trigger} in phase {rollout.phase} of rollout {rollout.id}")
    return replace(rollout, phase=phase, phase_s=0.0, held_s=0.0, unready_s=0.0)


def allows(phase: Phase, trigger: Trigger) -> bool:
    """Whether the trigger is legal in the phase."""
    return (phase, trigger) in TRANSITIONS


def diagram() -> str:
    """The table as a Mermaid state diagram, for the documentation."""
    lines = ["stateDiagram-v2", "    [*] --> queued"]
    lines += [f"    {source} --> {target}: {trigger}" for (source, trigger), target in TRANSITIONS.items()]
    lines += [f"    {phase} --> [*]" for phase in Phase if phase.ended]
    return "\n".join(lines)

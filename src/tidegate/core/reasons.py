"""Why: every reason of a decision and every reason of a refusal, as stable words.

They are stored, shown in CLI, dashboard, history and alerts, and matched by programs: add, never rename.
"""

from __future__ import annotations

import enum


class Reason(enum.StrEnum):
    """Why a decision was taken. Shown unchanged in CLI, dashboard, history and alerts."""

    REQUESTED = "requested"
    READY = "ready"
    HELD = "held"
    PROMOTED = "promoted"
    FAST_FORWARD = "stable-is-down"
    COMPLETE = "complete"
    PAUSED = "paused"
    RESUMED = "resumed"
    USER_ABORT = "aborted-by-user"
    SUPERSEDED = "superseded"
    NEVER_READY = "never-ready"
    CRASH_LOOP = "crash-loop"
    ALL_UNREADY = "all-unready"
    STUCK = "stuck"
    HOME = "back-home"
    AUTO_ROLLBACK = "crash-loop-after-success"
    COOLED = "standby-ended"
    EVICTED = "standby-made-room"
    GONE = "stopped"
    WENT_BACK_IN_TIME = "state-older-than-world"
    CORRECTED = "changed-from-outside"


class Refusal(enum.StrEnum):
    """Why a request was refused."""

    BUSY = "rollout-in-progress"
    NO_ROLLOUT = "no-rollout-in-progress"
    ENDED = "rollout-has-ended"
    NOTHING_TO_GO_BACK_TO = "nothing-to-go-back-to"
    NOT_KEPT = "release-not-kept"
    HALTED = "observe-only"
    NOT_PAUSED = "not-paused"
    HOST_TAKEN = "host-taken"
    NO_PORTS = "no-internal-ports-left"
    UNKNOWN_ENVIRONMENT = "unknown-environment"
    STALE = "state-changed"

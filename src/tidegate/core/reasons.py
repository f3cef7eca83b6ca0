"""Why: every reason of a decision and every reason of a refusal, as stable words.

They are stored, shown in CLI, dashboard, history and alerts, and matched by programs: add, never rename.
"""

from __future__ import annotations

import enum


class Reason(enum.StrEnum):
    """Why a decision was taken. Shown unchanged in CLI, dashboard, history and alerts."""

    REQUESTED = "requested"
    """Somebody asked for a rollout; it was opened."""
    READY = "ready"
    """All instances that take traffic are ready; the first stage begins."""
    VERIFYING = "verifying"
    """All instances that take traffic are ready; the release's own checks try it now."""
    VERIFIED = "verified"
    """Its own checks have passed; the first stage begins."""
    VERIFY_FAILED = "verify-failed"
    """Its own checks have failed, or did not end in time; nobody was exposed."""
    HELD = "held"
    """The stage's hold time is over; the next one begins."""
    NO_WORSE = "shown-no-worse"
    """The new release was shown to be no worse, and the policy lets the stage end early."""
    LITTLE_EVIDENCE = "little-evidence"
    """The stage's hold time is over with little evidence, and the policy says to ask: the rollout is
    paused."""
    PROMOTED = "promoted"
    """Somebody ended the hold time with `tide promote`."""
    FAST_FORWARD = "stable-is-down"
    """A service of the live release has no ready instance, the incoming release has: everybody goes there
    at once."""
    COMPLETE = "complete"
    """The release is live."""
    PAUSED = "paused"
    """Somebody paused the rollout."""
    RESUMED = "resumed"
    """Somebody let it go on."""
    USER_ABORT = "aborted-by-user"
    """Somebody aborted it with `tide abort`."""
    SUPERSEDED = "superseded"
    """A newer request took its place (`--supersede`)."""
    NEVER_READY = "never-ready"
    """Instances were not ready within their deadlines."""
    CRASH_LOOP = "crash-loop"
    """An instance of the incoming release crashed three times."""
    ALL_UNREADY = "all-unready"
    """No instance of a service of the incoming release was ready for three seconds, while those of the
    live release were."""
    WORSE = "worse"
    """The traffic shows that the new release is worse than the live one; the detail says in what, on how
    many requests, and how sure."""
    STUCK = "stuck"
    """A step was not seen in force in time: the router did not show it, or nobody could look."""
    AUTO_ROLLBACK = "crash-loop-after-success"
    """A release that had become live crashed in a loop within `keep_warm`; everybody goes back."""
    COOLED = "standby-ended"
    """`keep_warm` is over; the old instances are drained and stopped."""
    EVICTED = "standby-made-room"
    """The old instances made room for a new rollout before `keep_warm` was over."""
    GONE = "stopped"
    """The last instance of a placement has stopped, and its slot is free."""
    WENT_BACK_IN_TIME = "state-older-than-world"
    """Instances run that this state does not know: a backup was restored. The environment is observed
    only."""
    CORRECTED = "changed-from-outside"
    """Somebody changed the route in HAProxy; it was put back."""


class Refusal(enum.StrEnum):
    """Why a request was refused."""

    BUSY = "rollout-in-progress"
    """A rollout is in progress. Wait, `tide abort`, or `--supersede`."""
    NO_ROLLOUT = "no-rollout-in-progress"
    """There is nothing to steer."""
    ENDED = "rollout-has-ended"
    """The rollout that was meant has ended, or is going home."""
    NOTHING_TO_GO_BACK_TO = "nothing-to-go-back-to"
    """No other release was ever live here."""
    NOT_KEPT = "release-not-kept"
    """The release was never live here, or its package is no longer on this machine."""
    HALTED = "observe-only"
    """The environment is observed only, because its state is older than what runs."""
    HOST_TAKEN = "host-taken"
    """Another environment answers to that host name."""
    NO_PORTS = "no-internal-ports-left"
    """All loopback ports for calls between services are given out."""
    UNKNOWN_ENVIRONMENT = "unknown-environment"
    """The release's tidegate.yaml does not name that environment."""
    STALE = "state-changed"
    """What was asked does not fit the state any more, e.g. a promotion before anybody is exposed."""
    NOT_SET = "secret-not-set"
    """The release needs a secret that is not set in that environment, or a version that was removed."""
    UNTRUSTED = "untrusted-signature"
    """No trusted key has signed where the artifact comes from, or the signature is of something else."""

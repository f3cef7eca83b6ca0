"""What is to be told of a rollout: written in the commit that makes it true, delivered later.

Hides which rollouts are told of, and under which key. Invariant: per rollout one `started` and one
`ended` message, however often its state is committed: the key is unique in every store.

Neighbours: the stores keep the messages, a notifier takes them in order and marks them delivered.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from tidegate.core import model

#: Topic of all messages about rollouts.
ROLLOUTS: Final = "rollouts"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """Something to be told."""

    key: str
    """`<app>/<environment>/<rollout id>/<started|ended>`: idempotency key, the same at every delivery."""
    topic: str
    payload: str
    """JSON object, without anything secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboxRecord:
    """A message of the outbox, in the order of the commits."""

    sequence: int
    at: float
    """Unix seconds of the commit."""
    message: Message


def messages(key: model.EnvironmentKey, rollout: model.Rollout) -> tuple[Message, ...]:
    """All that there is to tell of the rollout so far, oldest first."""
    started = _message(key, rollout, "started")
    return (started, _message(key, rollout, "ended")) if rollout.phase.ended else (started,)


def _message(key: model.EnvironmentKey, rollout: model.Rollout, what: str) -> Message:
    payload = {
        "app": key.app,
        "environment": key.environment,
        "rollout": rollout.id,
        "what": what,
        "kind": rollout.request.kind,
        "release": rollout.request.release,
        "previous_release": rollout.previous_release,
        "by": rollout.request.by,
        "why": rollout.request.why,
        "automatic": rollout.request.automatic,
        "phase": rollout.phase,
        "reason": rollout.reason,
        "detail": rollout.detail,
    }
    return Message(key=f"{key}/{rollout.id}/{what}", topic=ROLLOUTS, payload=json.dumps(payload))

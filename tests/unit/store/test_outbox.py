"""What is told of a rollout."""

from __future__ import annotations

import json
from dataclasses import replace

from tests.golden import write as golden
from tidegate.core import model
from tidegate.store import outbox


def test_messages_say_who_what_and_why_and_nothing_secret() -> None:
    """A message names the rollout, its asker and its reason; configuration and preview token stay out."""
    rollout = golden.states()[model.Phase.ABORTED].last
    assert rollout is not None
    rollout = replace(
        rollout,
        request=replace(
            rollout.request, preview="token", spec=replace(rollout.request.spec, config=(("K", "v"),))
        ),
    )
    started, ended = outbox.messages(golden.KEY, rollout)
    assert (started.key, ended.key) == ("shop/production/3/started", "shop/production/3/ended")
    payload = json.loads(ended.payload)
    assert {name: payload[name] for name in ("what", "release", "by", "phase", "reason", "detail")} == {
        "what": "ended",
        "release": 2,
        "by": "ada",
        "phase": "aborted",
        "reason": "crash-loop",
        "detail": "web: exit status 1",
    }
    assert "token" not in ended.payload
    assert "config" not in ended.payload

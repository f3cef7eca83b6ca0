"""The `tide` command.

common     what every command shares: options, the client, errors, output
machine    up, down, doctor, backup, init, schema, completion
release    deploy, rollback, promote, pause, resume, abort, plan
look       status, history, events, releases, show, logs, preview
migrate    what is applied to a database
live       the picture of a rollout in progress
"""

from __future__ import annotations

from tidegate.cli.main import main

__all__ = ["main"]

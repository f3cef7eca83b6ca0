"""The tidegate.yaml that `tide init` writes: short, commented, and valid as it stands.

Hides the text. Values that were found in a folder are data: they are quoted, never pasted.

Neighbours: `cli` looks at the folder and writes the file; a test parses every form of the text.
"""

from __future__ import annotations

from dataclasses import dataclass

_TEMPLATE = """\
# How {app} is built, run and released.
# Every key is in docs/reference/manifest.md; `tide schema` prints a JSON schema for your editor.
app: {app}

artifact:
  # Any command that makes the folder; it runs once per release.
  {build}
  # The folder that is shipped: the same bytes for every environment.
  package: {package}

services:
  web:
    # It must listen on $PORT of 127.0.0.1. No shell reads the command.
    run: {run}
    # Requests for this host come here; "*" is every host.
    route: {route}
    # An instance is ready when this path answers 2xx; without it, when the port answers.
    {health}
    # One can crash, or be replaced, while the other answers.
    instances: 2
  # No route and no health check: a worker. It has no port and is replaced after web.
  # worker:
  #   run: ./bin/worker

# Scripts that change the database, each with its way back: docs/how-to/migrations.md
# migrations: migrations/

# A release passes them in this order.
environments:
  # Everybody moves at once. Each environment needs its own host.
  test:
    services:
      web: {{route: {test_route}, instances: 1}}
  # A growing share of users, always the same ones; back to the old release by itself if the new one crashes,
  # or is shown to fail more requests or to be slower.
  production:
    strategy:
      canary: {{steps: [1%, 5%, 25%, 50%], every: 2m}}
    # analysis: {{max_p99: 2s}}   # and whatever the old one needs: docs/how-to/judge-a-canary.md
    # Variables of all services in this environment.
    config:
      LOG_LEVEL: info
    # Their values come from `tide secret set`; migrations find the database by this one.
    # secrets: [DATABASE_URL]
"""

_ANY_HOST = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Detected:
    """What a folder tells about its app."""

    run: str = "./bin/web"
    """Command, as one would type it."""
    package: str = "."
    """Folder that is shipped."""
    build: str | None = None
    health: str | None = None
    """HTTP path that answers 200."""
    route: str = "localhost"


def example(app: str, detected: Detected | None = None) -> str:
    """A commented tidegate.yaml for this app. Valid if `app` is a valid name and the values are."""
    found = detected or Detected()
    host = "localhost" if found.route == _ANY_HOST else found.route
    return _TEMPLATE.format(
        app=app,
        build="# build: make dist" if found.build is None else f"build: {_quoted(found.build)}",
        package=_quoted(found.package),
        run=_quoted(found.run),
        route=_quoted(found.route),
        health="# health: /healthz" if found.health is None else f"health: {_quoted(found.health)}",
        test_route=_quoted(f"test.{host}"),
    )


def _quoted(value: str) -> str:
    """A double-quoted scalar. JSON's would do, but for letters that it writes in two halves."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return (
        '"' + "".join(letter if letter.isprintable() else f"\\U{ord(letter):08x}" for letter in escaped) + '"'
    )

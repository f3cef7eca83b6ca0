"""Commands about where releases come from: the source of an app, and the pushes that came of it."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from tidegate import client, errors
from tidegate.cli.common import Tide, command, plain, safe
from tidegate.client import Json

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
FORGES = ("github", "gitlab", "gitea", "forgejo")
SHOWN_REVISION = 12


def seconds(_context: click.Context, _parameter: click.Parameter, value: str | None) -> float | None:
    """`60s`, `5m`, `1h` as seconds."""
    if value is None:
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,5})([smhd])", value)
    if found is None:
        raise click.BadParameter(f"{plain(value)} is no length of time; write 60s, 5m or 1h")
    return int(found[1]) * UNITS[found[2]]


def push_number(_context: click.Context, _parameter: click.Parameter, value: str | None) -> int | None:
    """`#12` or `12`, as a number."""
    if value is None:
        return None
    found = re.fullmatch(r"#?([1-9][0-9]{0,14})", value)
    if found is None:
        raise click.BadParameter(f"{plain(value)} is not a push; write 12 or '#12'")
    return int(found[1])


def _app(tide: Tide) -> str:
    """Which app is meant. Raises RequestError when that is not clear."""
    if tide.app is not None:
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,39}", tide.app):
            raise errors.RequestError(f"{plain(tide.app)} is not the name of an app.")
        return tide.app
    if tide.file.exists():
        return tide.manifest().app
    raise errors.RequestError(
        f"Which app? There is no {tide.file} here.",
        hint="Name it before the command: tide --app NAME source.",
    )


@click.group("source")
def source() -> None:
    """Where releases come from: a repository that is pushed to, or one elsewhere that is watched."""


@source.command("add")
@click.option(
    "--branch", "branches", multiple=True, help="Branch that is built, * and ? stand for any. [main]"
)
@click.option("--tag", "tags", multiple=True, help="Tags that are built, e.g. 'v*'.")
@click.option("--to", metavar="ENV", default="", help="Target; default: the last environment of the commit.")
@click.option(
    "--on-push",
    type=click.Choice(["queue", "supersede"]),
    default="queue",
    show_default=True,
    help="A push during a build or a rollout waits, or takes its place.",
)
@click.option(
    "--remote", metavar="URL", default="", help="A repository elsewhere, https, ssh or a local path."
)
@click.option(
    "--credentials",
    metavar="FILE",
    default="",
    help="For the remote: git's credential store (https), or a private key (ssh).",
)
@click.option(
    "--poll", "poll_s", metavar="TIME", callback=seconds, help="Look at the remote so often, e.g. 60s."
)
@click.option(
    "--hook", type=click.Choice(FORGES), help="Take this forge's webhooks (`tide up --hooks-port`)."
)
@click.option("--manifest", default="tidegate.yaml", show_default=True, help="Path in the repository.")
@click.option(
    "--time-limit", "time_limit_s", metavar="TIME", default="1h", callback=seconds, show_default=True,
    help="Of a build.",
)  # fmt: skip
@click.option("--status", type=click.Choice(FORGES), help="Report commits' states to this forge.")
@click.option("--status-url", metavar="URL", default="", help="Its API, e.g. https://api.github.com.")
@click.option("--status-project", metavar="OWNER/NAME", default="", help="The project there.")
@click.option(
    "--status-token-file", metavar="FILE", default="", help="A token for it, in a file of mode 0600."
)
@command
def add(tide: Tide, **given: Any) -> None:
    """Build commits of this app, and say how they get here; again: change it."""
    app = _app(tide)
    body = _body(given)
    with tide.connected() as connection:
        kept = connection.keep_source(app, body)
    _say_added(tide, kept)
    tide.print_json(kept)


def _body(given: dict[str, Any]) -> Json:
    status = {
        name: given.pop(name) for name in ("status", "status_url", "status_project", "status_token_file")
    }
    body: Json = {
        **given,
        "branches": list(given["branches"]) or ([] if given["tags"] else ["main"]),
        "tags": list(given["tags"]),
        "hook": _forge(given["hook"]),
        "credentials": str(Path(given["credentials"]).absolute()) if given["credentials"] else "",
    }
    if status["status"] is not None:
        if not (status["status_url"] and status["status_project"] and status["status_token_file"]):
            raise errors.RequestError(
                "Status reports need --status-url, --status-project and --status-token-file."
            )
        body["report"] = {
            "forge": _forge(status["status"]),
            "url": status["status_url"],
            "project": status["status_project"],
            "token_file": str(Path(status["status_token_file"]).absolute()),
        }
    elif any(status.values()):
        raise errors.RequestError("Which forge are the reports for?", hint="Name it with --status.")
    return body


def _forge(name: str | None) -> str | None:
    """Forgejo speaks as Gitea does."""
    return "gitea" if name == "forgejo" else name


def _say_added(tide: Tide, kept: Json) -> None:
    tide.out.print(
        f"{kept['app']} is built from {safe(_described(kept))}, for {kept['to'] or 'the last environment'}."
    )
    if not kept["remote"]:
        tide.out.print(f"  git remote add tide {safe(kept['repository'])}", soft_wrap=True)
        branch = next((b for b in kept["branches"] if not set("*?") & set(b)), "BRANCH")
        tide.out.print(f"  git push tide {safe(branch)}")
    if kept["hook_path"]:
        tide.out.print(
            f"Webhooks of {kept['hook']} go to {kept['hook_path']} of the port of `tide up --hooks-port`."
        )
    _say_secret(tide, kept)


def _say_secret(tide: Tide, kept: Json) -> None:
    if kept["hook_secret"]:
        tide.out.print("Their secret, shown this once:")
        tide.out.print(f"  {kept['hook_secret']}", soft_wrap=True)


def _described(kept: Json) -> str:
    refs = ", ".join([*kept["branches"], *(f"tag {tag}" for tag in kept["tags"])])
    return f"{refs} of {kept['remote'] or 'what is pushed'}"


@source.command("list")
@command
def list_sources(tide: Tide) -> None:
    """All apps that have a source."""
    with tide.connected() as connection:
        found = connection.sources()
    if not found:
        tide.out.print("No app has a source. `tide source add` makes one.")
    for kept in found:
        trouble = f"  [red]{safe(kept['trouble'])}[/red]" if kept["trouble"] else ""
        tide.out.print(f"[bold]{kept['app']}[/bold]  {safe(_described(kept))}{trouble}")
    tide.print_json(found)


@source.command("show")
@command
def show(tide: Tide) -> None:
    """One source, with everything that was set."""
    app = _app(tide)
    with tide.connected() as connection:
        kept = connection.source(app)
    table = Table.grid(padding=(0, 2))
    for name, value in kept.items():
        if value not in ("", None, []):
            table.add_row(
                name.replace("_", " "), safe(", ".join(value) if isinstance(value, list) else value)
            )
    tide.out.print(table)
    tide.print_json(kept)


@source.command("rm")
@click.option("--yes", is_flag=True, help="Do not ask: the repository and its secrets are removed.")
@command
def remove(tide: Tide, yes: bool) -> None:  # noqa: FBT001 - click's
    """Take no more commits of this app; its repository is removed, what runs goes on."""
    app = _app(tide)
    if not yes:
        click.confirm(f"Remove the source of {app}, with its repository?", abort=True, err=True)
    with tide.connected() as connection:
        removed = connection.remove_source(app)
    tide.out.print(f"{app} has no source any more. Its releases, and what runs, stay.")
    tide.print_json(removed)


@source.command("secret")
@command
def secret(tide: Tide) -> None:
    """A new secret for the webhooks; the one before stays valid until the next."""
    app = _app(tide)
    with tide.connected() as connection:
        kept = connection.act_on_source(app, "secret")
    _say_secret(tide, kept)
    tide.print_json(kept)


@source.command("build")
@click.argument("ref", metavar="[BRANCH]", default="")
@click.option("--no-wait", is_flag=True, help="Return at once; `tide pushes N -f` looks on.")
@command
def build(tide: Tide, ref: str, no_wait: bool) -> int:  # noqa: FBT001 - click's
    """Build what a branch leads to now, once more: after a failure that was not the commit's fault."""
    app = _app(tide)
    if ref and not ref.startswith("refs/"):
        ref = f"refs/heads/{ref}"
    with tide.connected() as connection:
        push = connection.act_on_source(app, "build", ref=ref)
        return 0 if no_wait and _begun(tide, push) else _follow(tide, connection, push)


def _begun(tide: Tide, push: Json) -> bool:
    tide.out.print(f"Push #{push['id']} is queued.")
    tide.print_json(push)
    return True


def _follow(tide: Tide, connection: client.Client, push: Json) -> int:
    from tidegate.cli import arriving

    try:
        why = arriving.Following(
            connection, lambda text: tide.out.print(safe(text), soft_wrap=True)
        ).to_the_end(push)
    except KeyboardInterrupt:
        tide.out.print(f"\nIt goes on. `tide pushes {push['id']} -f` looks on.")
        return 0
    tide.print_json(connection.push(push["app"], push["id"]))
    return 1 if why else 0


@click.command("pushes")
@click.argument("number", metavar="[N]", required=False, callback=push_number)
@click.option("-f", "--follow", is_flag=True, help="Show the output of push N until it has arrived.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many.")
@command
def pushes(tide: Tide, number: int | None, follow: bool, limit: int) -> int:  # noqa: FBT001 - click's
    """Commits on their way to be releases, newest first; with N what its build printed."""
    with tide.connected() as connection:
        app = _app(tide) if tide.app is not None or tide.file.exists() else None
        if number is None:
            return _list(tide, connection.pushes(app, limit=limit))
        push = _found(connection, app, number)
        return _follow(tide, connection, push) if follow else _output(tide, connection, push)


def _found(connection: client.Client, app: str | None, number: int) -> Json:
    if app is not None:
        return connection.push(app, number)
    found = next((push for push in connection.pushes(limit=1000) if push["id"] == number), None)
    if found is None:
        raise errors.NotFoundError(f"There is no push #{number}.", hint="`tide pushes` lists them.")
    return found


def _list(tide: Tide, found: list[Json]) -> int:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bright_black")
    for column in ("push", "app", "ref", "commit", "to", "state", "release", "by", "when", ""):
        table.add_column(column)
    for push in found:
        table.add_row(*(safe(cell) for cell in _cells(push)))
    tide.out.print(table if found else "Nothing was pushed yet.")
    tide.print_json(found)
    return 0


def _cells(push: Json) -> tuple[str, ...]:
    return (
        f"#{push['id']}",
        push["app"],
        push["ref"].removeprefix("refs/heads/").replace("refs/tags/", "tag ", 1),
        push["revision"][:SHOWN_REVISION],
        push["to"],
        push["state"],
        f"r{push['release']}" if push["release"] else "",
        push["by"] or push["how"],
        time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(push["queued_at"])),
        push["detail"].partition("\n")[0],
    )


def _output(tide: Tide, connection: client.Client, push: Json) -> int:
    lines = [json.loads(line) for line in connection.push_output(push["app"], push["id"])]
    for line in lines:
        tide.out.print(safe(line["text"]), soft_wrap=True)
    tide.out.print(f"[bold]{push['state']}[/bold] {safe(push['detail'])}")
    tide.print_json({**push, "output": [line["text"] for line in lines]})
    return 0


COMMANDS = (source, pushes)

"""Commands that only look."""

from __future__ import annotations

import json
import time
from typing import Any

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from tidegate import client, errors
from tidegate.cli import charts, evidence, live
from tidegate.cli.common import Tide, command, environment_argument, log_text, release_number, safe
from tidegate.client import Json


@click.command("status")
@environment_argument
@click.option("--watch", is_flag=True, help="Go on until Ctrl-C.")
@command
def status(tide: Tide, environment: str | None, watch: bool) -> None:  # noqa: FBT001 - click's
    """What runs where, who is served by what, and what is in progress."""
    with tide.connected() as connection:
        if environment is None and not watch and not tide.has_one_environment():
            _all(tide, connection)
            return
        place = tide.place(environment, connection)
        if watch and not tide.as_json:
            _watch(connection, place, tide.out)
            return
        found = connection.environment(place)
    tide.out.print(live.picture(found))
    compared = evidence.comparison(found["rollout"]) if found["rollout"] else None
    if compared is not None:
        tide.out.print(compared)
    if noise := evidence.noise(found):
        tide.out.print(safe(noise), soft_wrap=True)
    if found["hosts"]:
        names = ", ".join("every host" if host == "*" else host for host in found["hosts"])
        tide.out.print(f"answers to {safe(names)}, at {safe(found['url'])}", soft_wrap=True)
    _services(tide.out, found)
    tide.print_json(found)


def _all(tide: Tide, connection: client.Client) -> None:
    found = connection.status()
    tide.out.print(
        f"Tidegate {found['version']}, listening on {found['listen']}, data in {safe(found['home'])}"
    )
    for environment in found["environments"]:
        tide.out.print(live.picture(environment))
    if not found["environments"]:
        tide.out.print("Nothing is deployed yet: `tide deploy`.")
    tide.print_json(found)


def _watch(connection: client.Client, place: client.Place, out: Console) -> None:
    try:
        with Live(console=out, refresh_per_second=8) as picture:
            while True:
                picture.update(live.picture(connection.environment(place)))
                time.sleep(live.LOOK_INTERVAL_S)
    except KeyboardInterrupt:
        return


def _services(out: Console, environment: Json) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bright_black")
    columns = ("service", "release", "#", "state", "ready", "pid", "port", "crashes", "ended last", "check")
    for column in columns:
        table.add_column(column)
    for placement in environment["placements"]:
        for service in placement["services"]:
            for instance in service["instances"]:
                ready = {True: "yes", False: "no", None: "not asked yet"}[instance["ready"]]
                table.add_row(
                    service["name"],
                    f"r{placement['release']}",
                    *(str(instance[k]) for k in ("index", "state")),
                    ready,
                    *(str(instance[k] or "") for k in ("pid", "port", "crashes")),
                    safe(instance["exit"]),
                    "" if instance["ready"] else safe(instance["check"]),
                )
    if table.row_count:
        out.print(table)


def when(at: float | None) -> str:
    """Local time for people."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if at else ""


@click.command("history")
@environment_argument
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@command
def history(tide: Tide, environment: str | None, limit: int) -> None:
    """The rollouts of ENV, newest first: who, when, what, why, and how they ended."""
    with tide.connected() as connection:
        rollouts = connection.history(tide.place(environment, connection), limit=limit)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bright_black")
    for column in ("#", "when", "what", "release", "from", "by", "outcome", "traffic", "why"):
        table.add_column(column)
    for rollout in rollouts:
        outcome = f"{rollout['phase']}: {rollout['reason']}"
        # A terminal has no room for the sentence about the traffic beside the words about it.
        detail = "" if tide.out.is_terminal and rollout["reason"] == "worse" else rollout["detail"]
        table.add_row(
            str(rollout["id"]),
            when(rollout["started_at"]),
            f"{rollout['kind']} ({rollout['strategy']})",
            f"r{rollout['release']}",
            f"r{rollout['previous_release']}" if rollout["previous_release"] else "",
            safe(rollout["by"]),
            safe(f"{outcome} {detail}".strip()),
            safe(evidence.short(rollout)),
            safe(rollout["why"]),
        )
    tide.out.print(table if rollouts else "No rollout yet.")
    tide.print_json(rollouts)


@click.command("events")
@environment_argument
@click.option(
    "--after", metavar="N", type=click.IntRange(min=0), default=0, help="Only those with a larger number."
)
@click.option("-f", "--follow", is_flag=True, help="Go on as decisions are made; with --json one per line.")
@command
def events(tide: Tide, environment: str | None, after: int, follow: bool) -> None:  # noqa: FBT001 - click's
    """Every decision about ENV, with its reason, oldest first."""
    with tide.connected() as connection:
        place = tide.place(environment, connection)
        if follow:
            _follow(tide, connection, place, after)
            return
        found = list(live.all_events(connection, place, after))
    for event in found:
        tide.out.print(_numbered(event), soft_wrap=True)
    if not found:
        tide.out.print("No decision yet." if after == 0 else f"No decision after {after}.")
    tide.print_json(found)


def _follow(tide: Tide, connection: client.Client, place: client.Place, after: int) -> None:
    try:
        for event in live.followed_events(connection, place, after):
            if tide.as_json:
                click.echo(json.dumps(event))
            tide.out.print(_numbered(event), soft_wrap=True)
    except KeyboardInterrupt:
        return


def _numbered(event: Json) -> str:
    """A decision with its number, for --after, and its day."""
    return f"{event['sequence']:>5}  {when(event['at'])[:10]} {live.event_line(event)}"


@click.command("releases")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@command
def releases(tide: Tide, limit: int) -> None:
    """The releases of the app, newest first."""
    with tide.connected() as connection:
        app = app_of(tide, connection)
        found = connection.releases(app, limit=limit)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bright_black")
    for column in ("release", "made", "digest", "revision", "by", "package"):
        table.add_column(column)
    for release in found:
        table.add_row(
            f"r{release['number']}",
            when(release["created_at"]),
            release["digest"][:19],
            safe(release["revision"][:20]),
            safe(release["created_by"]),
            "here" if release["kept"] else "no longer here",
        )
    tide.out.print(table if found else "No release yet.")
    tide.print_json(found)


@click.command("show")
@click.argument("release", metavar="rN", callback=release_number)
@command
def show(tide: Tide, release: int) -> None:
    """One release: what it is made of, and every rollout of it.

    Of each, what its traffic showed; and of the newest one in each environment, how that came about.
    """
    with tide.connected() as connection:
        app = app_of(tide, connection)
        found = connection.release(app, release)
        environments = [e for e in connection.status()["environments"] if e["app"] == app]
        rollouts = [
            {"environment": environment["environment"], **rollout}
            for environment in environments
            for rollout in connection.history(client.Place(app, environment["environment"]), limit=1000)
            if rollout["release"] == release
        ]
        for rollout in newest_judged(rollouts):
            rollout["points"] = connection.points(client.Place(app, rollout["environment"]), rollout["id"])
    tide.out.print(f"[bold]{app} r{release}[/bold]  {found['digest']}")
    source = safe(found["revision"]) or "an unknown revision"
    tide.out.print(f"made {when(found['created_at'])} by {safe(found['created_by'])} from {source}")
    for rollout in rollouts:
        shown(tide.out, rollout)
    tide.print_json({"release": found, "rollouts": rollouts})


def newest_judged(rollouts: list[Json]) -> list[Json]:
    """The newest canary of each environment; they come newest first."""
    judged = [rollout for rollout in rollouts if rollout.get("evidence") is not None]
    return list({rollout["environment"]: rollout for rollout in reversed(judged)}.values())


def shown(out: Console, rollout: Json) -> None:
    """A rollout in a line, what its traffic showed, and its charts if its points were asked for."""
    out.print(
        f"{rollout['environment']}  #{rollout['id']}  {when(rollout['started_at'])}  {rollout['kind']}  "
        f"{rollout['phase']}: {rollout['reason']} {safe(rollout['detail'])}"
    )
    found = evidence.found(rollout)
    if found and found != rollout["detail"]:
        out.print(safe(found), soft_wrap=not out.is_terminal)
    width = out.width if out.is_terminal else charts.WIDTH
    for line in charts.drawn(rollout.get("points", ()), rollout, width=width):
        out.print(line)


def app_of(tide: Tide, connection: client.Client) -> str:
    """The app that is meant. Raises RequestError when that is not clear."""
    if tide.app is not None:
        return tide.app
    if tide.file.exists():
        return tide.manifest().app
    apps = sorted({environment["app"] for environment in connection.status()["environments"]})
    if len(apps) != 1:
        raise errors.RequestError(
            "Which app?", hint=f"Name it with --app; deployed are: {', '.join(apps) or 'none'}."
        )
    return str(apps[0])


@click.command("logs")
@environment_argument
@click.option("--service", help="Only this service.")
@click.option(
    "--tail", type=click.IntRange(0, 100_000), default=100, show_default=True, help="Lines per instance."
)
@click.option("-f", "--follow", is_flag=True, help="Go on as lines come.")
@click.option("--placement", type=int, help="Instances of one placement, also of one that has ended.")
@command
def logs(tide: Tide, environment: str | None, **wanted: Any) -> None:
    """What the instances print."""
    with tide.connected() as connection:
        place = tide.place(environment, connection)
        try:
            for line in connection.logs(place, **wanted):
                click.echo(line if tide.as_json else log_text(line))
        except KeyboardInterrupt:
            return


@click.command("preview")
@environment_argument
@command
def preview(tide: Tide, environment: str | None) -> None:
    """How to see the incoming release before the users do."""
    with tide.connected() as connection:
        place = tide.place(environment, connection)
        found = connection.preview(place)
    tide.out.print("Send this header, or the cookie, to see the incoming release at any exposure:")
    tide.out.print(f"  {found['header']}: {found['token']}", soft_wrap=True)
    tide.out.print(f"  Cookie: {found['cookie']}={found['token']}", soft_wrap=True)
    if found["address"]:
        host = f" -H 'Host: {safe(found['host'])}'" if found["host"] else ""
        tide.out.print(
            f"  curl{host} -H '{found['header']}: {found['token']}' {found['address']}/", soft_wrap=True
        )
    tide.print_json(found)


COMMANDS = (status, history, events, releases, show, logs, preview)

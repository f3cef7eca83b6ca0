"""The pipeline on the terminal: where each release is, what waits for whom, approvals.

Neighbours: `release` has `tide deploy`, which follows a promotion with `follow`; `live` shows each rollout.
"""

from __future__ import annotations

import time

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tidegate import client
from tidegate.cli import live
from tidegate.cli.common import Tide, command, environment_argument, plain, release_number, safe
from tidegate.cli.look import app_of, when
from tidegate.client import Json

#: What a promotion waits for until a person, or the calendar, lets it go on: nobody watches that.
FOR_SOMEBODY = ("approval", "freeze")
STYLES = {"arrived": "green", "failed": "red", "superseded": "yellow", "withdrawn": "yellow"}
ARROW = " → "


def follow(connection: client.Client, app: str, promotion: Json, out: Console) -> Json:
    """Show a promotion until it has ended or waits for somebody; the promotion as it is then.

    Leaving with Ctrl-C leaves it alone.
    """
    told = ""
    shown: set[tuple[str, int]] = set()
    while True:
        place = client.Place(app, promotion["environment"])
        rollout = promotion["rollout"]
        if rollout is not None and (place.environment, rollout) not in shown:
            shown.add((place.environment, rollout))
            out.print(f"[bold]{safe(place.environment)}[/bold]  rollout #{rollout}")
            live.follow(connection, place, rollout, out)
        elif promotion["ended"] is not None:
            return promotion
        elif promotion["waits"] in (*FOR_SOMEBODY, "busy", "soak", "needs"):
            line = f"{place.environment}: {promotion['waits']}"
            if line != told:
                told = line
                out.print(f"[bold]{safe(place.environment)}[/bold]  {safe(promotion['detail'])}")
            if promotion["waits"] in FOR_SOMEBODY:
                return promotion
        time.sleep(live.LOOK_INTERVAL_S)
        promotion = live.patiently(lambda: connection.promotion(app, int(promotion["id"])))  # noqa: B023


@click.command("pipeline")
@command
def pipeline(tide: Tide) -> None:
    """The environments in their order: which release is where, and what waits for what."""
    with tide.connected() as connection:
        found = connection.pipeline(app_of(tide, connection))
    tide.print_json(found)
    out = tide.out
    out.print(picture(found))
    for station in found["stations"]:
        if station["emergency"]:
            came = f"r{station['live']} came into {station['environment']} past the gates"
            out.print(f"[bold red]! {came}[/bold red]: {safe(station['emergency'])}")
        if station["frozen"]:
            out.print(f"[cyan]* {safe(station['frozen'])}[/cyan]")
    if found["failure"]:
        out.print(f"[red]! {safe(found['failure'])}[/red]")
    for promotion in found["promotions"]:
        out.print(_line(promotion))
    for promotion in found["ended"]:
        out.print(_line(promotion), style="bright_black")


def picture(found: Json) -> Table:
    """Environments side by side, each with what is live in it and who stands before it."""
    table = Table.grid(padding=(0, 1))
    names: list[Text] = []
    below: list[Text] = []
    for index, station in enumerate(found["stations"]):
        waiting = [p for p in found["promotions"] if p["environment"] == station["environment"]]
        names += [
            Text(ARROW if index else "", style="bright_black"),
            Text(station["environment"], style="bold"),
        ]
        below += [Text(""), _station(station, waiting)]
    table.add_row(*names)
    table.add_row(*below)
    return table


def _station(station: Json, waiting: list[Json]) -> Text:
    text = Text()
    if station["live"] is None:
        text.append("nothing yet", style="bright_black")
    else:
        mark = " ✓" if station["passed"] else ""
        style = "red" if station["emergency"] else "green" if station["passed"] else ""
        text.append(f"r{station['live']}{mark}", style=style)
        if not station["passed"] and station["soak_s"]:
            text.append(f" soaks {station['soaked_s']:.0f}/{station['soak_s']:g} s")
    for promotion in waiting:
        text.append(f"\n▶ r{promotion['release']} {promotion['waits'] or ''}", style="cyan")
    return text


def _line(promotion: Json) -> str:
    state = promotion["ended"] or promotion["waits"] or "on its way"
    style = STYLES.get(state, "cyan")
    back = "back to " if promotion["kind"] == "rollback" else ""
    return (
        f"{back}r{promotion['release']}{ARROW}{promotion['target']}  [{style}]{state}[/{style}]  "
        f"{safe(promotion['detail'])}  (by {safe(promotion['by'] or 'somebody')}, {when(promotion['at'])})"
    )


release_option = click.option(
    "--release", metavar="rN", callback=release_number, help="Which, if several wait; default: the newest."
)


@click.command("approve")
@environment_argument
@release_option
@command
def approve(tide: Tide, environment: str | None, release: int | None) -> None:
    """Let the release that waits enter ENV. Needs the role approver. Without ENV: where one waits."""
    with tide.connected() as connection:
        place = _gate(tide, connection, environment, "approval")
        approved = connection.act(place, "approve", release=release)
    tide.print_json(approved)
    count = len([one for one in approved["approvals"] if one["environment"] == place.environment])
    tide.out.print(
        f"r{approved['release']} may enter {plain(place.environment)}: approval {count}. "
        "It goes on by itself when nothing else keeps it; `tide pipeline` shows."
    )


@click.command("withdraw")
@environment_argument
@release_option
@command
def withdraw(tide: Tide, environment: str | None, release: int | None) -> None:
    """Take back a release that waits before ENV, or soaks in it. What is live stays."""
    with tide.connected() as connection:
        place = _gate(tide, connection, environment)
        ended = connection.act(place, "withdraw", release=release)
    tide.print_json(ended)
    tide.out.print(f"r{ended['release']} goes no further than where it is live.")


def _gate(tide: Tide, connection: client.Client, environment: str | None, *waits: str) -> client.Place:
    """The environment that is meant: the only one where something waits (so), if none is named."""
    if environment is None:
        app = app_of(tide, connection)
        under_way = connection.pipeline(app)["promotions"]
        there = {p["environment"] for p in under_way if not waits or p["waits"] in waits}
        if len(there) == 1:
            return client.Place(app, there.pop())
    return tide.place(environment, connection)


COMMANDS = (pipeline, approve, withdraw)

"""A group of apps that goes back together: what it would do, and how it goes.

Neighbours: `release` has `tide rollback`, `pipeline` follows each app.
"""

from __future__ import annotations

from tidegate import client
from tidegate.cli import pipeline
from tidegate.cli.common import Tide, console, safe
from tidegate.client import Json


def plan(tide: Tide, connection: client.Client, place: client.Place) -> int:
    """Show what would be, changing nothing."""
    planned = connection.act(place, "plan-rollback-group")
    tide.print_json(planned)
    for number, step in enumerate(planned["steps"], 1):
        tide.out.print(f"{number:>2}. {_line(step)}")
    return 0


def roll_back(
    tide: Tide, connection: client.Client, place: client.Place, *, wait: bool, **asked: object
) -> int:
    """Begin, and follow each app to its end; exit status 1 unless all are home."""
    begun = connection.act(place, "rollback-group", **asked)
    for step in begun["steps"]:
        tide.out.print(_line(step))
    if not wait:
        tide.print_json(begun)
        return 0
    ended = []
    try:
        for step in begun["steps"]:
            tide.out.print(f"[bold]{safe(step['app'])}[/bold]")
            ended.append(pipeline.follow(connection, step["app"], step["promotion"], tide.out))
    except KeyboardInterrupt:
        tide.out.print("\nThe group goes on back. `tide pipeline` of each app shows it.")
        return 0
    steps = [step | {"promotion": promotion} for step, promotion in zip(begun["steps"], ended, strict=True)]
    tide.print_json({"steps": steps})
    failed = [step for step in steps if step["promotion"]["ended"] != "arrived"]
    out = console(stderr=True, quiet=tide.as_json)
    for step in failed:
        out.print(
            f"[red]{safe(step['app'])} did not go back to r{step['back_to']}[/red]: "
            f"{safe(step['promotion']['detail'])}"
        )
    if not failed:
        tide.out.print(f"[green]The group is back: {len(steps)} apps in {place.environment}.[/green]")
    return 1 if failed else 0


def _line(step: Json) -> str:
    """For example `accounts/production: r3 back to r2, after shop`."""
    after = f", after {safe(', '.join(step['after']))}" if step["after"] else ""
    return (
        f"{safe(step['app'])}/{safe(step['environment'])}: r{step['live']} back to r{step['back_to']}{after}"
    )

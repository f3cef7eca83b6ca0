"""`tide migrate`: what is applied to a database, what a release would do to it, what only people can say."""

from __future__ import annotations

import click
from rich.table import Table

from tidegate import errors
from tidegate.cli.common import Tide, command, environment_argument, release_number, safe
from tidegate.cli.look import when
from tidegate.client import Json

_EVENTS_SHOWN = 5
_COLOURS = {"exact": "green", "lossy": "yellow"}


@click.group("migrate")
def migrate() -> None:
    """Databases: what is applied, what would run, and what nobody but you can know.

    Migrations run with a rollout: `tide deploy` applies them, `tide rollback` reverts them.
    """


@migrate.command("status")
@environment_argument
@command
def status(tide: Tide, environment: str | None) -> int:
    """What is applied to the database of ENV. Exit status 1 if it is not as Tidegate left it."""
    with tide.connected() as connection:
        place = tide.place(environment, connection)
        found = connection.schema(place)
    _show(tide, f"{place.app}/{place.environment}", found)
    tide.print_json(found)
    return 1 if found["drifted"] else 0


def _show(tide: Tide, name: str, found: Json) -> None:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bright_black")
    for column in ("migration", "of", "phase", "way back", "state", "by", "when"):
        table.add_column(column)
    for row in found["applied"]:
        colour = _COLOURS.get(row["revert"], "red")
        half = f" ({row['done']} statements are done)" if row["state"] != "applied" else ""
        doubt = ", the next one is in doubt" if row["doubtful"] else ""
        table.add_row(
            safe(row["id"]),
            f"r{row['release']}",
            row["phase"],
            f"[{colour}]{row['revert']}[/{colour}]",
            f"{row['state']}{half}{doubt}",
            safe(row["by"]),
            when(row["at"]),
        )
    tide.out.print(table if found["applied"] else f"Nothing is applied to the database of {name}.")
    for id_ in found["pending"]:
        tide.out.print(f"{safe(id_)} is not applied yet.")
    if found["drifted"]:
        tide.out.print(
            "[red]The schema is not as Tidegate left it: somebody else has changed it.[/red] Nothing runs "
            "until it is as before, or `tide migrate adopt` takes it as it is."
        )
    for event in found["events"][:_EVENTS_SHOWN]:
        said = " ".join(part for part in (event["id"], event["what"], event["detail"]) if part)
        tide.out.print(f"{when(event['at'])}  {safe(said)}", style="bright_black")


@migrate.command("plan")
@environment_argument
@click.option(
    "--release", metavar="rN", callback=release_number, required=True, help="To which release, back or forth."
)
@command
def plan(tide: Tide, environment: str | None, release: int) -> int:
    """What a rollout of a release would do to the database of ENV. Exit status 1 if it would be refused."""
    with tide.connected() as connection:
        place = tide.place(environment, connection)
        found = connection.schema_plan(place, release)
    tide.out.print(f"r{release} by [bold]{found['way']}[/bold]: {safe(found['sentence'])}")
    if found["refusal"]:
        tide.out.print(f"[red]It would be refused:[/red] {safe(found['refusal'])}")
    tide.print_json(found)
    return 1 if found["refusal"] else 0


@migrate.command("resolve")
@click.argument("migration")
@environment_argument
@click.option("--done", is_flag=True, help="The statement has taken effect.")
@click.option("--not-done", is_flag=True, help="It has not: it will run again.")
@command
def resolve(tide: Tide, environment: str | None, migration: str, *, done: bool, not_done: bool) -> None:
    """Say what became of a statement whose end nobody saw, and which the schema does not show."""
    if done is not_done:
        raise errors.RequestError("Say one of --done and --not-done.", hint="Look at the data first.")
    with tide.connected() as connection:
        place = tide.place(environment, connection)
        found = connection.act(place, "schema/resolve", id=migration, done=done)
    _show(tide, f"{place.app}/{place.environment}", found)
    tide.print_json(found)


@migrate.command("adopt")
@environment_argument
@click.option("--why", required=True, help="Who changed it, and why: it stays in the ledger.")
@command
def adopt(tide: Tide, environment: str | None, why: str) -> None:
    """Take the schema as it is, though somebody else than Tidegate has changed it."""
    with tide.connected() as connection:
        place = tide.place(environment, connection)
        found = connection.act(place, "schema/adopt", why=why)
    _show(tide, f"{place.app}/{place.environment}", found)
    tide.print_json(found)


COMMANDS = (migrate,)

"""`tide audit`: who did what, or tried to; and whether that is still what was written."""

from __future__ import annotations

import re
from typing import Any

import click
from rich.table import Table

from tidegate.cli.common import Tide, command, plain, safe
from tidegate.cli.look import when
from tidegate.client import Json

_OUTCOMES = ("accepted", "refused", "found", "asked")
_COLOURS = {"refused": "red", "found": "yellow", "asked": "yellow"}


def _checkpoint(_context: click.Context, _parameter: click.Parameter, value: str | None) -> Any:
    """`COUNT:HEAD` as the two members of the request."""
    if value is None:
        return {}
    found = re.fullmatch(r"([0-9]{1,15}):([0-9a-f]{64})", value)
    if found is None:
        raise click.BadParameter(f"{plain(value)} is not COUNT:HEAD, as `tide audit verify` shows it")
    return {"count": int(found[1]), "head": found[2]}


@click.group("audit", invoke_without_command=True)
@click.option("--app", "of_app", metavar="APP", help="Only of this app.")
@click.option("--environment", metavar="ENV", help="Only of environments of this name.")
@click.option("--by", metavar="NAME", help="Only of this user or token.")
@click.option("--outcome", type=click.Choice(_OUTCOMES), help="Only what ended like this.")
@click.option("--before", metavar="N", type=click.IntRange(min=1), help="Only entries before this one.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Answer with one JSON object, for programs.")
@click.pass_context
def audit(context: click.Context, /, **wanted: Any) -> None:
    """Who did what, or tried to, newest first: changes, refusals, and what Tidegate found by itself."""
    if context.invoked_subcommand is None:
        context.invoke(_entries, **wanted)


@command
def _entries(tide: Tide, of_app: str | None, **wanted: Any) -> None:
    asked = {"app": of_app or tide.app, **wanted}
    with tide.connected() as connection:
        found = connection.audit(**{name: value for name, value in asked.items() if value is not None})
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bright_black")
    for column in ("#", "when", "by", "role", "what", "where", "release", "outcome", ""):
        table.add_column(column)
    for entry in found:
        colour = _COLOURS.get(entry["outcome"])
        outcome = f"[{colour}]{entry['outcome']}[/{colour}]" if colour else entry["outcome"]
        table.add_row(
            str(entry["sequence"]),
            when(entry["at"]),
            safe(entry["by"] or "nobody known"),
            safe(entry["role"]),
            safe(entry["action"]),
            safe("/".join(part for part in (entry["app"], entry["environment"]) if part)),
            f"r{entry['release']}" if entry["release"] else "",
            outcome,
            safe(_said(entry)),
        )
    tide.out.print(table if found else "Nothing of that kind was written down.")
    tide.print_json(found)


def _said(entry: Json) -> str:
    return f"{entry['reason']}: {entry['detail']}" if entry["reason"] else str(entry["detail"])


@audit.command("verify")
@click.option(
    "--after",
    metavar="N",
    type=click.IntRange(min=0),
    default=0,
    help="Faults up to this entry are known: leave them out.",
)
@click.option(
    "--checkpoint",
    metavar="COUNT:HEAD",
    callback=_checkpoint,
    help="A checkpoint that was kept elsewhere: the log must contain it.",
)
@command
def verify(tide: Tide, after: int, checkpoint: dict[str, Any]) -> int:
    """Whether every entry is as it was written, and none is missing.

    Names the entries that were changed, taken out, moved, or cut off at the end; exit status 1.
    """
    with tide.connected() as connection:
        proof = connection.verify_audit(after=after, **checkpoint)
    for fault in proof["faults"]:
        tide.out.print(f"[red]{_rows(fault)}[/red] {fault['what']}: {safe(fault['detail'])}", soft_wrap=True)
    if proof["ok"]:
        tide.out.print(f"Nothing is wrong with the log: {proof['count']} in all.")
    tide.out.print(f"checkpoint {proof['count']}:{proof['head']}", soft_wrap=True)
    tide.print_json(proof)
    return 0 if proof["ok"] else 1


def _rows(fault: Json) -> str:
    if fault["first"] == fault["last"]:
        return f"entry {fault['first']}"
    return f"entries {fault['first']} to {fault['last']}"


COMMANDS = (audit,)

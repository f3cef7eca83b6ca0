"""Commands about tokens: who may ask from elsewhere, for what, where, and until when.

Invariant: a token is printed once, alone on standard output, and is never an argument.
"""

from __future__ import annotations

import re
import time
from typing import Any

import click
from rich.table import Table

from tidegate.cli.common import Tide, command, console, plain, safe
from tidegate.cli.look import when
from tidegate.core import roles

_UNITS_S = {"m": 60.0, "h": 3600.0, "d": 24 * 3600.0, "w": 7 * 24 * 3600.0}


def _lifetime(_context: click.Context, _parameter: click.Parameter, value: str) -> float | None:
    """Seconds; None: for ever."""
    if value == "never":
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,5})([mhdw])", value)
    if found is None:
        raise click.BadParameter(f"{plain(value)} is not a time; write e.g. 12h, 90d, 52w, or never")
    return int(found[1]) * _UNITS_S[found[2]]


@click.group("token")
def token() -> None:
    """Tokens: who may ask the control plane, for what, where, and until when."""


@token.command("create")
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice([role.value for role in roles.Role]),
    required=True,
    help="What it may do; each role may do what those before it may.",
)
@click.option(
    "--environment",
    "environments",
    metavar="APP/ENV",
    multiple=True,
    default=("*/*",),
    help="Where, e.g. 'shop/*' or 'shop/staging'; may be given several times. Default: everywhere.",
)
@click.option(
    "--expires",
    "expires_s",
    metavar="TIME",
    default="90d",
    show_default=True,
    callback=_lifetime,
    help="Until when, from now on: e.g. 12h, 90d, 52w, or never.",
)
@command
def create(tide: Tide, name: str, role: str, environments: tuple[str, ...], expires_s: float | None) -> None:
    """Make a token and print it: this is the only time that it is shown.

    Give it to a program, which puts it into the environment variable TIDEGATE_TOKEN.
    """
    with tide.connected() as connection:
        made = connection.create_token(name, role=role, environments=list(environments), expires_s=expires_s)
    about = made["about"]
    if not tide.as_json:
        click.echo(made["token"])
    until = f"until {when(about['expires_at'])}" if about["expires_at"] else "for ever"
    console(stderr=True, quiet=tide.as_json).print(
        f"{safe(about['name'])}: {about['role']} of {safe(', '.join(about['environments']))} {until}. "
        "It is not shown again; for TIDEGATE_TOKEN.",
        soft_wrap=True,
    )
    tide.print_json(made)


@token.command("list")
@click.option("--all", "everything", is_flag=True, help="Those too that have expired or were revoked.")
@command
def every(tide: Tide, everything: bool) -> None:  # noqa: FBT001 - click's
    """The tokens that there are, newest first; never their texts."""
    with tide.connected() as connection:
        found = [one for one in connection.tokens() if everything or _is_in_force(one, time.time())]
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bright_black")
    for column in ("name", "role", "where", "expires", "last used", "made", "by", ""):
        table.add_column(column)
    for one in found:
        revoked = f"revoked {when(one['revoked_at'])} by {one['revoked_by']}" if one["revoked_at"] else ""
        table.add_row(
            safe(one["name"]),
            one["role"],
            safe(", ".join(one["environments"])),
            when(one["expires_at"]) or "never",
            when(one["used_at"])[:13] or "never",
            when(one["created_at"]),
            safe(one["created_by"]),
            safe(revoked),
        )
    tide.out.print(table if found else "No token yet: `tide token create`.")
    tide.print_json(found)


def _is_in_force(one: dict[str, Any], now: float) -> bool:
    return not one["revoked_at"] and (not one["expires_at"] or one["expires_at"] > now)


@token.command("revoke")
@click.argument("name")
@command
def revoke(tide: Tide, name: str) -> None:
    """The token counts no more, from this moment on."""
    with tide.connected() as connection:
        revoked = connection.revoke_token(name)
    tide.out.print(f"The token {safe(revoked['name'])} counts no more.")
    tide.print_json(revoked)


COMMANDS = (token,)

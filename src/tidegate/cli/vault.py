"""Commands that need a key: secrets, keys, what is configured where, and what is proved of a release.

Invariant: a value of a secret comes from standard input or a hidden prompt, never from the command line,
where everybody on the machine can read it; and it is never printed.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import IO

import click
from rich.table import Table

from tidegate import client, errors
from tidegate.cli.common import Tide, command, console, environment_argument, plain, release_number, safe
from tidegate.cli.look import app_of, when
from tidegate.cli.release import chunks
from tidegate.client import Json

#: More than any secret may have: what is longer is refused without being read to its end.
VALUE_BYTES_MAX = 128 * 1024
TICK, CROSS = "[green]✓[/green]", "[red]✗[/red]"


# --- secrets ---------------------------------------------------------------------------------------


@click.group("secret")
def secret() -> None:
    """Values that only the services of one environment are given."""


@secret.command("set")
@click.argument("environment", metavar="ENV")
@click.argument("name", metavar="NAME")
@click.option("--raw", is_flag=True, help="Keep a line break at the end of what comes in.")
@command
def set_secret(tide: Tide, environment: str, name: str, raw: bool) -> None:  # noqa: FBT001 - click's
    """Set a secret of ENV, from standard input or a hidden prompt.

    What runs goes on with the value that it has: a new one is a changed configuration, and comes with the
    next rollout.
    """
    with tide.connected() as connection:
        place = tide.place(environment, connection)
        changed = connection.set_secret(place, name, read_value(raw=raw))
    tide.out.print(f"{safe(name)} is set in {place.environment}, version {changed['version']}.")
    if not changed["redacted"]:
        tide.out.print("It is too short to be hidden where an app prints it: choose a longer one if you can.")
    _say_outdated(tide, place, name, changed["outdated"])
    tide.print_json(changed)


def read_value(*, raw: bool) -> str:
    """From standard input, or a hidden prompt. Raises RequestError, which says nothing of what came in."""
    if sys.stdin.isatty():
        return str(click.prompt("Value", hide_input=True, confirmation_prompt=True, err=True))
    content = sys.stdin.buffer.read(VALUE_BYTES_MAX + 1)
    if len(content) > VALUE_BYTES_MAX:
        raise errors.RequestError(
            "That is too long for a secret.", hint="Keep large files elsewhere, and the key to them here."
        )
    try:
        text = content.decode()
    except UnicodeDecodeError:
        raise errors.RequestError(
            "The value is no text.", hint="Encode it, e.g. with base64, and decode it in the app."
        ) from None
    return text if raw else text.removesuffix("\n").removesuffix("\r")


def _say_outdated(tide: Tide, place: client.Place, name: str, outdated: list[Json]) -> None:
    """What goes on with another value, and how the new one is rolled out."""
    for user in outdated:
        tide.out.print(
            f"r{user['release']} ({user['role']}) goes on with version {user['version']} of {safe(name)}."
        )
    live = next((user for user in outdated if user["role"] == "live"), None)
    if live is not None:
        tide.out.print(
            f"`tide deploy {place.environment} --release r{live['release']}` rolls the change out."
        )


@secret.command("list")
@environment_argument
@command
def list_secrets(tide: Tide, environment: str | None) -> None:
    """The secrets of ENV: names, versions, when, by whom, and what runs with them; never a value."""
    with tide.connected() as connection:
        place = tide.place(environment, connection)
        found = connection.secrets(place)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bright_black")
    for column in ("secret", "version", "set", "by", "kept", "used by"):
        table.add_column(column)
    for one in found:
        newest = one["versions"][-1]
        users = ", ".join(f"r{u['release']} ({u['role']}): version {u['version']}" for u in one["users"])
        kept = len(one["versions"])
        table.add_row(
            safe(one["name"]),
            str(newest["version"]),
            when(newest["at"]),
            safe(newest["by"]),
            f"{kept} version{'s' if kept != 1 else ''}",
            users,
        )
    tide.out.print(table if found else f"No secret is set in {place.environment}.")
    tide.print_json(found)


@secret.command("rm")
@click.argument("environment", metavar="ENV")
@click.argument("name", metavar="NAME")
@command
def remove_secret(tide: Tide, environment: str, name: str) -> None:
    """Forget all versions of a secret of ENV.

    What runs keeps what it was given, until it starts again. A rollback to a release that used it is refused.
    """
    with tide.connected() as connection:
        place = tide.place(environment, connection)
        changed = connection.remove_secret(place, name)
    tide.out.print(f"{safe(name)} is removed from {place.environment}, with all its versions.")
    for user in changed["outdated"]:
        tide.out.print(f"r{user['release']} ({user['role']}) was given it and cannot start again without it.")
    tide.print_json(changed)


@secret.command("rotate")
@click.argument("environment", metavar="ENV")
@command
def rotate_secrets(tide: Tide, environment: str) -> None:
    """Seal all secrets of ENV with a new key, and destroy the old one. The values stay as they are."""
    with tide.connected() as connection:
        place = tide.place(environment, connection)
        sealed = connection.rotate_secrets(place)
    tide.out.print(f"{sealed['versions']} values of {place.environment} are sealed with a new key.")
    tide.print_json(sealed)


# --- configuration ---------------------------------------------------------------------------------


@click.group("config")
def config() -> None:
    """What releases are configured with."""


@config.command("diff")
@click.argument("left", metavar="ENV")
@click.argument("right", metavar="ENV")
@click.option(
    "--release", metavar="rN", callback=release_number, help="Of this release, instead of what is live."
)
@command
def diff(tide: Tide, left: str, right: str, release: int | None) -> None:
    """What is configured otherwise in two environments. Of secrets only names are compared, never values."""
    with tide.connected() as connection:
        sides = [connection.configuration(tide.place(name, connection), release) for name in (left, right)]
    found = differences(*sides)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bright_black")
    for column in ("", *(f"{side['environment']} (r{side['release']})" for side in sides)):
        table.add_column(column)
    for one in found:
        table.add_row(safe(one["name"]), *(_side(one, side) for side in ("left", "right")))
    tide.out.print(table if found else f"{left} and {right} are configured alike.")
    tide.print_json({"left": sides[0], "right": sides[1], "differences": found})


def _side(difference: Json, side: str) -> str:
    value = difference[side]
    return "[bright_black]is not there[/bright_black]" if value is None else safe(value)


def differences(left: Json, right: Json) -> list[Json]:
    """Variables that are in one of two configurations only, or have another value there, sorted by name."""
    one, other = (_variables(side) for side in (left, right))
    return [
        {"name": name, "secret": secret, "left": one.get((name, secret)), "right": other.get((name, secret))}
        for name, secret in sorted(one.keys() | other.keys())
        if one.get((name, secret)) != other.get((name, secret))
    ]


def _variables(side: Json) -> dict[tuple[str, bool], str]:
    found = {(one["name"], False): str(one["value"]) for one in side["config"]}
    for one in side["secrets"]:
        how = "secret, as a file" if one["as_file"] else "secret"
        found[one["name"], True] = how if one["version"] is not None else f"{how}, not set"
    return found


# --- proofs ----------------------------------------------------------------------------------------


@click.command("verify")
@click.argument("release", metavar="rN", callback=release_number)
@click.option("--repair", is_flag=True, help="First unpack it again, from the archive that came with it.")
@command
def verify(tide: Tide, release: int, repair: bool) -> int:  # noqa: FBT001 - click's
    """Prove a release: every byte of it, where it comes from, what it passed.

    Exit status 1 if something is wrong; then it says what to do about it.
    """
    with tide.connected() as connection:
        proof = connection.proof(app_of(tide, connection), release, repair=repair)
    for finding in proof["findings"]:
        tide.out.print(
            f"{TICK if finding['ok'] else CROSS} [bold]{safe(finding['name'])}[/bold]  "
            f"{safe(finding['detail'])}",
            soft_wrap=True,
        )
        if not finding["ok"] and finding["hint"]:
            tide.out.print(f"  {safe(finding['hint'])}", soft_wrap=True)
    tide.print_json(proof)
    return 0 if proof["ok"] else 1


@click.group("release")
def release() -> None:
    """Hand releases from one control plane to another."""


@release.command("export")
@click.argument("release", metavar="rN", callback=release_number)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@command
def export(tide: Tide, release: int, file: Path) -> None:
    """Write a release into one file: package, manifest, and the signed statement where it comes from."""
    with tide.connected() as connection:
        size = _written(file, connection, app_of(tide, connection), release)
    tide.out.print(f"r{release} is in {safe(file)}, {size / 1e6:.1f} MB.", soft_wrap=True)
    tide.print_json({"file": str(file.absolute()), "size_bytes": size})


def _written(file: Path, connection: client.Client, app: str, number: int) -> int:
    """The size. The file appears whole, or not at all; one that is there already stays."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with partial.open("xb") as output:
            for piece in connection.export_release(app, number):
                output.write(piece)
            size = output.tell()
        os.link(partial, file)
    except FileExistsError as error:
        raise errors.RequestError(
            f"{plain(file)} is there already.", hint="Choose a name that is free."
        ) from error
    except OSError as error:
        raise errors.StorageError(f"{plain(file)} cannot be written: {error.strerror}.") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    return size


@release.command("import")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@command
def take(tide: Tide, file: Path) -> None:
    """Take in a release that was exported elsewhere, if a key that you trust has signed it.

    It enters the pipeline at its first environment, as every release does.
    """
    try:
        with file.open("rb") as content, tide.connected() as connection:
            found = connection.import_release(chunks(content))
    except OSError as error:
        raise errors.RequestError(f"{plain(file)} cannot be read: {error.strerror}.") from error
    tide.out.print(f"[bold]release[/bold]  r{found['number']} of {safe(found['app'])}, {found['digest']}")
    tide.print_json(found)


# --- keys ------------------------------------------------------------------------------------------


@click.group("key")
def key() -> None:
    """Keys that sign, and whose word is believed."""


@key.command("list")
@command
def list_keys(tide: Tide) -> None:
    """The control plane's own public keys, and those that are trusted."""
    with tide.connected() as connection:
        found = connection.public_keys()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bright_black")
    for column in ("key", "whose", ""):
        table.add_column(column)
    for one in found:
        about = "signs" if one["in_use"] else "replaced" if one["own"] else "trusted"
        table.add_row(one["id"], safe(one["name"]), about)
    tide.out.print(table)
    tide.print_json(found)


@key.command("show")
@click.argument("name", default="own")
@command
def show(tide: Tide, name: str) -> None:
    """Print a public key, for `tide key trust` elsewhere: our own, or the one that is trusted as NAME."""
    with tide.connected() as connection:
        found = next((one for one in connection.public_keys() if one["name"] == name), None)
    if found is None:
        raise errors.NotFoundError(f"No key is trusted as {plain(name)}.", hint="`tide key list` shows them.")
    if not tide.as_json:
        click.echo(found["pem"], nl=False)
        console(stderr=True).print(f"key {found['id']}", soft_wrap=True)
    tide.print_json(found)


@key.command("trust")
@click.argument("name", metavar="NAME")
@click.argument("file", type=click.File("r", encoding="utf-8", errors="replace"))
@command
def trust(tide: Tide, name: str, file: IO[str]) -> None:
    """Believe what the public key in FILE (`-`: standard input) says of where artifacts come from.

    No more than that: what passed here, and what may enter an environment, only this control plane's own key
    can say.
    """
    with tide.connected() as connection:
        trusted = connection.trust_key(name, file.read(VALUE_BYTES_MAX))
    tide.out.print(f"{safe(name)} is trusted: key {trusted['id']}.", soft_wrap=True)
    tide.out.print("Compare it with what `tide key list` says there, by another way than the file came.")
    tide.print_json(trusted)


@key.command("distrust")
@click.argument("name", metavar="NAME")
@command
def distrust(tide: Tide, name: str) -> None:
    """Believe a key no more. Nothing that only it has signed starts again."""
    with tide.connected() as connection:
        gone = connection.distrust_key(name)
    tide.out.print(f"{safe(name)} is trusted no more.")
    tide.print_json(gone)


@key.command("rotate")
@command
def rotate_key(tide: Tide) -> None:
    """Sign with a new key from now on. What was signed with the old one stays valid."""
    with tide.connected() as connection:
        found = connection.rotate_key()
    tide.out.print(f"New statements are signed with key {found['id']}.", soft_wrap=True)
    tide.print_json(found)


COMMANDS = (verify, release, secret, config, key)

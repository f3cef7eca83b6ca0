"""Commands about this machine: the control plane, its health, and what an editor or shell wants."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.shell_completion import get_completion_class

from tidegate import client, errors
from tidegate.cli.common import Tide, command, safe

if TYPE_CHECKING:
    from tidegate.launcher import Settings

STOP_LIMIT_S = 90.0
PORT_MAX = 65535


@click.command("up")
@click.option("--listen", metavar="HOST:PORT", help="Where users' requests arrive. Default: 127.0.0.1:8080.")
@click.option(
    "--run-as", help="User for the apps when started as root: auto (one uid per app), same, or a name."
)
@click.option(
    "--hooks-port", type=click.IntRange(0, PORT_MAX), help="Take webhooks on this port of loopback; 0: none."
)
@click.option("--foreground", is_flag=True, help="Stay in this terminal, and log there.")
@command
def up(
    tide: Tide,
    listen: str | None,
    run_as: str | None,
    hooks_port: int | None,
    foreground: bool,  # noqa: FBT001 - click's
) -> None:
    """Start the control plane. Apps that run already are found again."""
    from tidegate import launcher

    answering = _answering(tide)
    if answering is not None and foreground:
        raise errors.LeaseHeldError(
            f"A control plane runs already (pid {answering['pid']}), and another would have nothing to do.",
            hint="Stop it with `tide down`; the apps go on serving.",
        )
    if answering is not None:
        tide.out.print(f"The control plane runs already (pid {answering['pid']}).")
        tide.print_json(answering)
        return
    settings = _settings(tide, listen, run_as, hooks_port)
    if foreground:
        from tidegate import daemon

        daemon.serve(tide.home, settings, on_ready=lambda: _say_up(tide, os.getpid(), settings))
        return
    pid = launcher.start_detached(tide.home, settings)
    _say_up(tide, pid, settings)
    if tide.as_json:
        with tide.connected() as connection:
            tide.print_json(connection.status())


def _say_up(tide: Tide, pid: int, settings: Settings) -> None:
    tide.out.print(f"The control plane is up (pid {pid}), data in {safe(tide.home.root)}.")
    tide.out.print(f"Users' requests arrive at http://{settings.host}:{settings.port}.")
    if settings.hooks_port:
        tide.out.print(f"Webhooks arrive at http://127.0.0.1:{settings.hooks_port}/hooks/APP.")


def _settings(tide: Tide, listen: str | None, run_as: str | None, hooks_port: int | None) -> Settings:
    from tidegate import launcher

    settings = launcher.load_settings(tide.home)
    if listen is not None:
        host, _, port = listen.rpartition(":")
        if not port.isascii() or not port.isdigit() or not 1 <= int(port) <= PORT_MAX:
            raise errors.RequestError(f"{listen!r} is not HOST:PORT.", hint="For example 0.0.0.0:80.")
        settings = dataclasses.replace(settings, host=host or "127.0.0.1", port=int(port))
    if run_as is not None:
        settings = dataclasses.replace(settings, run_as=run_as)
    if hooks_port is not None:
        settings = dataclasses.replace(settings, hooks_port=hooks_port)
    return settings


@click.command("down")
@click.option("--all", "everything", is_flag=True, help="Stop the apps and the router too.")
@command
def down(tide: Tide, everything: bool) -> None:  # noqa: FBT001 - click's
    """Stop the control plane. The apps go on running and serving."""
    with tide.connected() as connection:
        pid = int(connection.status()["pid"])
        connection.shutdown(apps=everything)
    deadline = time.monotonic() + STOP_LIMIT_S
    while _alive(pid):
        if time.monotonic() > deadline:
            raise errors.UnreachableError(
                f"The control plane (pid {pid}) has not ended after {STOP_LIMIT_S:g} s."
            )
        time.sleep(0.05)
    tide.out.print(
        "Everything is stopped." if everything else "The control plane is down; the apps go on serving."
    )
    tide.print_json({"stopped": True, "apps": everything})


@click.command("backup")
@click.argument("file", type=click.Path(path_type=Path))
@command
def backup(tide: Tide, file: Path) -> None:
    """Write the state (releases, environments, history) into a new file, while everything goes on."""
    target = file.absolute()
    try:
        str(target).encode()
    except UnicodeEncodeError as error:
        raise errors.RequestError(f"{str(file)!r} is not a name in UTF-8.", hint="Choose another.") from error
    with tide.connected() as connection:
        written = connection.back_up(target)
    tide.out.print(f"Wrote {safe(written['file'])} ({written['size_bytes'] / 1000:.0f} kB).", soft_wrap=True)
    tide.out.print(
        f"Not in it: the packages, which never change once they are in {safe(tide.home.packages)} (copy that "
        "folder too if another machine shall go back to these releases), and the router's files, which are "
        "made anew from the state.",
        soft_wrap=True,
    )
    tide.print_json(written)


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        return False
    return state not in ("Z", "X")


def _answering(tide: Tide) -> client.Json | None:
    try:
        with tide.connected() as connection:
            return connection.status()
    except errors.UnreachableError:
        return None


@click.command("doctor")
@command
def doctor(tide: Tide) -> int:
    """Check this machine and say what is missing."""
    from tidegate import daemon

    try:
        with tide.connected() as connection:
            findings = connection.findings()
    except errors.UnreachableError:
        findings = [dataclasses.asdict(finding) for finding in daemon.doctor(tide.home)]
    for finding in findings:
        mark = "[green]ok [/green]" if finding["ok"] else "[red]bad[/red]"
        tide.out.print(f"{mark} {safe(finding['name'])}: {safe(finding['detail'])}")
        if not finding["ok"] and finding["hint"]:
            tide.out.print(f"    {safe(finding['hint'])}")
    tide.out.print(f"    The control plane logs to {safe(tide.home.log)}.")
    tide.print_json(findings)
    return 0 if all(finding["ok"] for finding in findings) else 1


@click.command("init")
@click.option("--force", is_flag=True, help="Overwrite a manifest that is there.")
@command
def init(tide: Tide, force: bool) -> None:  # noqa: FBT001 - click's
    """Write a commented tidegate.yaml for this folder."""
    from tidegate import manifest

    if tide.file.exists() and not force:
        raise errors.RequestError(f"{tide.file} is there already.", hint="Use --force to write a new one.")
    text = manifest.example(manifest.name_from(tide.file.absolute().parent.name))
    try:
        tide.file.write_text(text, "utf-8")
    except OSError as error:
        raise errors.StorageError(f"{tide.file} cannot be written: {error.strerror}.") from error
    tide.out.print(
        f"Wrote {safe(tide.file)}. Read it, change what is not right, then: tide up, tide deploy ENV."
    )
    tide.print_json({"file": str(tide.file)})


@click.command("schema")
def schema() -> None:
    """Print the JSON Schema of tidegate.yaml, for editors."""
    from tidegate import manifest

    sys.stdout.write(json.dumps(manifest.json_schema(), indent=2) + "\n")


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the completion script of a shell, e.g. `tide completion bash >> ~/.bashrc`."""
    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"no completion for {shell}")
    root = context.find_root().command
    sys.stdout.write(found(root, {}, "tide", "_TIDE_COMPLETE").source() + "\n")


COMMANDS = (up, down, doctor, backup, init, schema, completion)

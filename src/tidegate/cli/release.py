"""Commands that change what runs: deploy, roll back, and steer what is in progress."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import click
from rich.console import Console

from tidegate import client, errors
from tidegate.cli import group, live, pipeline
from tidegate.cli.common import (
    Tide,
    command,
    console,
    environment_argument,
    log_text,
    release_number,
    safe,
)
from tidegate.client import Json

CHUNK_BYTES = 1024 * 1024
OUTPUT_LINES = 20
#: Reasons of an abort whose cause may stand in what the instances have printed.
FAILED_BY_ITSELF = ("never-ready", "crash-loop", "all-unready", "worse", "verify-failed")
#: Name of the service that holds the output of a release's own checks.
VERIFY = "_verify"

release_option = click.option(
    "--release", metavar="rN", callback=release_number, help="A release that is here already."
)
emergency_option = click.option(
    "--emergency",
    metavar="WHY",
    default="",
    help="Past every gate, for this reason. Needs the role admin; stands in history and on every screen.",
)
why_option = click.option("--why", default="", help="Reason, for the history.")
supersede_option = click.option("--supersede", is_flag=True, help="Abort the rollout in progress first.")
no_wait_option = click.option(
    "--no-wait", is_flag=True, help="Return at once; `tide status --watch` looks on."
)
key_option = click.option(
    "--key", default="", help="Idempotency key: asked twice under one key is asked once."
)


@click.command("deploy")
@environment_argument
@release_option
@supersede_option
@emergency_option
@why_option
@key_option
@no_wait_option
@click.option(
    "--accept-irreversible",
    "accepted",
    metavar="MIGRATION",
    multiple=True,
    help="Let this migration go forward though there is no exact way back from it.",
)
@click.option("--build-timeout", type=click.IntRange(min=1), default=3600, show_default=True, help="Seconds.")
@command
def deploy(
    tide: Tide, environment: str | None, release: int | None, build_timeout: int, **asked: object
) -> int:
    """Build once, and bring the release into ENV, through all environments that stand before it.

    Shows it until it is live there, or waits for somebody. Without ENV: the last one of the pipeline.
    """
    with tide.connected() as connection:
        place = tide.target(environment, connection)
        if release is None:
            connection.status()  # not after a long build: say now that nobody answers
            release = int(_released(tide, connection, build_timeout)["number"])
        no_wait = bool(asked.pop("no_wait"))
        asked["key"] = asked["key"] or secrets.token_hex(8)
        accepted = connection.act(place, "deploy", release=release, **asked)
        if accepted["promotion"] is not None:
            return _promoted(tide, connection, place, accepted["promotion"], wait=not no_wait)
        return _followed(tide, connection, place, accepted, release, wait=not no_wait)


def _released(tide: Tide, connection: client.Client, build_timeout_s: float) -> Json:
    """Build, pack, send and number what the manifest describes."""
    from tidegate.artifacts import builder, package
    from tidegate.migrators import brought

    found = tide.manifest()
    folder = tide.file.absolute().parent
    if found.artifact.build is not None:
        tide.out.print(f"[bold]build[/bold]  {safe(found.artifact.build)}")
        builder.build(
            found.artifact.build,
            folder=folder,
            env=dict(os.environ),
            log=lambda line: tide.out.print(f"       {safe(line)}", style="bright_black"),
            timeout_s=build_timeout_s,
        )
    brought.check(folder / found.artifact.package, found.environments)
    with tempfile.TemporaryFile() as archive:
        packed = package.pack(folder / found.artifact.package, archive)
        size = f"{packed.files} files, {packed.size_bytes / 1e6:.1f} MB"
        tide.out.print(f"[bold]package[/bold]  {size}, {packed.digest[:19]}…")
        if not connection.has_package(packed.digest):
            archive.seek(0)
            connection.upload(chunks(archive), digest=packed.digest)
    release = connection.add_release(
        manifest=tide.file.read_text("utf-8"),
        digest=packed.digest,
        revision=_revision(folder),
        repository=_repository(folder),
    )
    tide.out.print(f"[bold]release[/bold]  r{release['number']}")
    return release


def chunks(archive: IO[bytes]) -> Iterator[bytes]:
    """A file piece by piece."""
    while chunk := archive.read(CHUNK_BYTES):
        yield chunk


def _revision(folder: Path) -> str:
    """The commit of the folder, marked when it has changes; empty outside a git checkout."""
    return _git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")[:200]


def _repository(folder: Path) -> str:
    """Where the folder was cloned from, without what somebody logs in with; empty if it was not."""
    url = _git(folder, "config", "--get", "remote.origin.url")
    return re.sub(r"^([a-z+]+://)[^/@]*@", r"\1", url)[:500]


def _git(folder: Path, *arguments: str) -> str:
    """What git answers; empty if it cannot."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _followed(
    tide: Tide, connection: client.Client, place: client.Place, accepted: Json, release: int, *, wait: bool
) -> int:
    """Follow an accepted request to its end; exit status 1 unless the release is live then."""
    name = f"{place.app}/{place.environment}"
    if accepted["no_op"] and accepted["rollout"] is None:
        tide.out.print(f"r{release} is live in {name} already, with the same configuration: nothing to do.")
        tide.print_json(accepted)
        return 0
    if not wait:
        tide.out.print(f"Rollout of r{release} into {name} has begun.")
        tide.print_json(accepted)
        return 0
    try:
        ended = live.follow(connection, place, accepted["rollout"], tide.out, after=_newest(accepted))
    except KeyboardInterrupt:
        tide.out.print("\nThe rollout goes on. `tide status --watch` looks on, `tide abort` ends it.")
        return 0
    last = ended["last"]
    tide.print_json({"rollout": last, "environment": ended})
    if last["phase"] == "succeeded" and last["release"] == release:
        tide.out.print(f"[green]r{release} is live in {name}.[/green]")
        return 0
    out = console(stderr=True, quiet=tide.as_json)
    if last["release"] != release:
        asked = f"r{last['release']} was asked for meanwhile, by {safe(last['by'])}"
        out.print(f"[red]r{release} was not deployed[/red]: {asked}.")
        return 1
    explain_abort(connection, place, last, out)
    return 1


def _promoted(
    tide: Tide, connection: client.Client, place: client.Place, promotion: Json, *, wait: bool
) -> int:
    """Follow a promotion to its end, or to where it waits for somebody; exit status 1 unless it arrives."""
    name = f"r{promotion['release']}"
    tide.out.print(f"{name} goes {' → '.join(promotion['path'])}.")
    goes_on = f"{name} goes on by itself. `tide pipeline` shows it, `tide withdraw` takes it back."
    if wait:
        try:
            promotion = pipeline.follow(connection, place.app, promotion, tide.out)
        except KeyboardInterrupt:
            tide.out.print(f"\n{goes_on}")
            return 0
    tide.print_json({"promotion": promotion})
    if promotion["ended"] is None:
        tide.out.print(goes_on)
        return 0
    if promotion["ended"] == "arrived":
        tide.out.print(f"[green]{name} is live in {place.app}/{place.environment}.[/green]")
        return 0
    out = console(stderr=True, quiet=tide.as_json)
    stopped = f"{name} did not get to {place.environment}"
    out.print(f"[red]{stopped}[/red] ({promotion['ended']}): {safe(promotion['detail'])}")
    there = client.Place(place.app, promotion["environment"])
    for rollout in connection.history(there):
        if rollout["id"] == promotion["rollout"] and rollout["phase"] == "aborted":
            explain_abort(connection, there, rollout, out)
    return 1


def _newest(accepted: Json) -> int:
    """Id of the newest rollout when the request was accepted."""
    known = (accepted["environment"]["last"], accepted["environment"]["rollout"])
    return max((rollout["id"] for rollout in known if rollout), default=0)


def explain_abort(connection: client.Client, place: client.Place, rollout: Json, out: Console) -> None:
    """Why it ended, who is served by what now, and the last output of the instances that failed."""
    aborted = (
        f"[red]Rollout #{rollout['id']} of r{rollout['release']} was aborted[/red] ({rollout['reason']})"
    )
    if rollout["reason"] == "worse":
        out.print(f"[bold]{safe(rollout['detail'])}[/bold]")
        out.print(f"{aborted}.")
    else:
        out.print(f"{aborted}: {safe(rollout['detail'])}")
    previous = rollout["previous_release"]
    reached = rollout["exposure_reached_bps"] / 100
    out.print(f"Everybody is served by r{previous}." if previous else "No release is live.")
    out.print(f"At most {reached:g} % of users had been exposed." if reached else "No user had been exposed.")
    if rollout["reason"] in FAILED_BY_ITSELF and rollout["placement"] is not None:
        service = VERIFY if rollout["reason"] == "verify-failed" else None
        lines = list(
            connection.logs(place, service=service, placement=rollout["placement"], tail=OUTPUT_LINES)
        )
        if lines:
            out.print("Last output:")
        for line in lines[-OUTPUT_LINES:]:
            out.print(f"  {safe(log_text(line))}", style="bright_black")


@click.command("rollback")
@environment_argument
@click.option(
    "--to", metavar="rN", callback=release_number, help="Any release that was live; default: the one before."
)
@click.option("--canary", is_flag=True, help="By the release's own strategy instead of a switch.")
@click.option(
    "--accept-loss",
    "accepted",
    metavar="MIGRATION",
    multiple=True,
    help="Revert this migration though rows are lost by it.",
)
@click.option("--group", "grouped", is_flag=True, help="With all apps that need each other, in order.")
@click.option("--dry-run", is_flag=True, help="With --group: what it would do, changing nothing.")
@supersede_option
@why_option
@key_option
@no_wait_option
@command
def rollback(
    tide: Tide,
    environment: str | None,
    to: int | None,
    *,
    grouped: bool,
    dry_run: bool,
    **asked: object,
) -> int:
    """Go back to a release that was live, with its configuration as it was."""
    alone = to is not None or asked["canary"] or asked["accepted"]
    if (grouped and alone) or (dry_run and not grouped):
        raise errors.RequestError(
            "--group goes back to what was live before, by a switch: it takes no --to, no --canary and no "
            "--accept-loss; --dry-run goes with --group alone.",
            hint="`tide rollback ENV --group --dry-run` shows what it would do.",
        )
    with tide.connected() as connection:
        place = tide.place(environment, connection)
        no_wait = bool(asked.pop("no_wait"))
        asked["key"] = asked["key"] or secrets.token_hex(8)
        if dry_run:
            return group.plan(tide, connection, place)
        if grouped:
            asked.pop("canary")
            asked.pop("accepted")
            return group.roll_back(tide, connection, place, wait=not no_wait, **asked)
        accepted = connection.act(place, "rollback", to=to, **asked)
        current = accepted["environment"]["rollout"]
        target = current["release"] if current else to or accepted["environment"]["live"]
        if accepted["environment"]["pending_release"] is not None:
            target = accepted["environment"]["pending_release"]
        return _followed(tide, connection, place, accepted, int(target), wait=not no_wait)


def _steer(tide: Tide, environment: str | None, action: str, said: str, **body: object) -> None:
    with tide.connected() as connection:
        place = tide.place(environment, connection)
        accepted = connection.act(place, action, **body)
    already = " already" if accepted["no_op"] else ""
    tide.out.print(f"Rollout #{accepted['rollout']} of {place.app}/{place.environment} is{already} {said}.")
    tide.print_json(accepted)


@click.command("abort")
@environment_argument
@click.option("--no-wait", is_flag=True, help="Return when it is decided, not when it is done.")
@command
def abort(tide: Tide, environment: str | None, no_wait: bool) -> None:  # noqa: FBT001 - click's
    """Send everybody back to the release that was live."""
    with tide.connected() as connection:
        place = tide.place(environment, connection)
        accepted = connection.act(place, "abort")
        if not no_wait:
            ended = live.follow(connection, place, accepted["rollout"], tide.out)
            tide.print_json({"rollout": ended["last"], "environment": ended})
            tide.out.print("Everybody is back home.")
            return
    tide.out.print(f"Rollout #{accepted['rollout']} is going home.")
    tide.print_json(accepted)


@click.command("pause")
@environment_argument
@command
def pause(tide: Tide, environment: str | None) -> None:
    """Stay at this exposure: no stage ends, no deadline counts. Crashes still abort."""
    _steer(tide, environment, "pause", "paused")


@click.command("resume")
@environment_argument
@command
def resume(tide: Tide, environment: str | None) -> None:
    """Go on after a pause."""
    _steer(tide, environment, "resume", "going on")


@click.command("promote")
@environment_argument
@click.option("--full", is_flag=True, help="To everybody at once, not just to the next stage.")
@command
def promote(tide: Tide, environment: str | None, full: bool) -> None:  # noqa: FBT001 - click's
    """End this stage's hold time now."""
    _steer(
        tide, environment, "promote", "going to everybody" if full else "going to its next stage", full=full
    )


@click.command("plan")
@environment_argument
@release_option
@supersede_option
@command
def plan(tide: Tide, environment: str | None, release: int | None, supersede: bool) -> None:  # noqa: FBT001 - click's
    """What a deploy would do, changing nothing. Without --release: the newest release."""
    with tide.connected() as connection:
        place = tide.place(environment, connection)
        if release is None:
            newest = connection.releases(place.app, limit=1)
            if not newest:
                raise errors.NotFoundError(
                    f"{place.app} has no release yet.", hint="`tide deploy` makes the first."
                )
            release = int(newest[0]["number"])
        planned = connection.act(place, "plan", release=release, supersede=supersede)
    for gate in planned["gates"]:
        if gate["environment"] == place.environment and not gate["waits"]:
            continue
        passed = "[green]passed already[/green]" if gate["passed"] else ""
        tide.out.print(f"[bold]{safe(gate['environment'])}[/bold]  {passed}")
        for number, step in enumerate(gate["plan"]["steps"] if gate["plan"] else (), 1):
            if gate["environment"] != place.environment:
                tide.out.print(f"  {number:>2}. {safe(step)}")
        for waits in gate["waits"]:
            tide.out.print(f"  [cyan]{safe(waits)}[/cyan]")
    if len(planned["gates"]) > 1:
        tide.out.print(f"[bold]{safe(place.environment)}[/bold]")
    if planned["no_op"]:
        tide.out.print(f"r{release} is live already: nothing to do.")
    for number, step in enumerate(planned["steps"], 1):
        tide.out.print(f"{number:>2}. {safe(step)}")
    if planned.get("judged"):
        tide.out.print(safe(planned["judged"]))
    tide.print_json(planned)


COMMANDS = (deploy, rollback, promote, pause, resume, abort, plan)

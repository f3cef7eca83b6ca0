"""The picture of a rollout in progress: stages, exposure, evidence, instances, requests and errors.

In a terminal it is redrawn in place; elsewhere each decision is one line. Hides how often it looks.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tidegate import client, errors
from tidegate.cli import evidence
from tidegate.cli.common import plain, safe
from tidegate.client import Json

T = TypeVar("T")

LOOK_INTERVAL_S = 0.2
#: A control plane that is restarted (an upgrade in mid-rollout) is waited for this long.
GAP_LIMIT_S = 60.0
ENDED = ("succeeded", "aborted")
COLOURS = {"live": "green", "incoming": "cyan", "standby": "yellow", "retiring": "bright_black"}


def follow(
    connection: client.Client, place: client.Place, rollout: int | None, out: Console, *, after: int = 0
) -> Json:
    """Show a rollout until it has ended; the environment as it is then, with this rollout as its `last`.

    `rollout`: None waits for the first one with an id above `after` (when that one has gone home). Leaving
    with Ctrl-C leaves the rollout alone.
    """
    shown = 0 if rollout is None else _events_before(connection, place, rollout)
    awaited = _Awaited(rollout, after)
    seen: Json = {}
    if out.is_terminal and not out.quiet:
        with Live(console=out, refresh_per_second=8) as live:
            for seen in _looks(connection, place, awaited):
                live.update(picture(seen))
    else:
        for seen in _looks(connection, place, awaited):  # noqa: B007 - the last look is the answer
            shown = _print_events(connection, place, shown, out)
        _print_events(connection, place, shown, out)
    return {**seen, "last": _record(connection, place, awaited.rollout) or seen["last"]}


def _record(connection: client.Client, place: client.Place, rollout: int | None) -> Json | None:
    """A rollout of the history: the environment's last may be a newer one that superseded it."""
    return next((found for found in connection.history(place) if found["id"] == rollout), None)


@dataclass(slots=True)
class _Awaited:
    """Which rollout is followed."""

    rollout: int | None
    after: int

    def has_ended(self, environment: Json) -> bool:
        """Nothing is to come of it. A rollout may begin and end between two looks."""
        ids = [found["id"] for found in (environment["last"], environment["rollout"]) if found]
        if self.rollout is None:
            self.rollout = min((number for number in ids if number > self.after), default=None)
        if self.rollout is None:
            return False
        last = environment["last"]
        return bool(last) and last["id"] >= self.rollout and not _is_current(environment, self.rollout)


def _events_before(connection: client.Client, place: client.Place, rollout: int) -> int:
    """Sequence of the last event before the rollout began."""
    before = 0
    for event in all_events(connection, place, 0):
        if event["rollout"] == rollout:
            break
        before = event["sequence"]
    return before


def all_events(connection: client.Client, place: client.Place, after: int) -> Iterator[Json]:
    """Decisions after the one of that sequence number, oldest first."""
    while page := connection.events(place, after=after):
        yield from page
        after = page[-1]["sequence"]


def followed_events(connection: client.Client, place: client.Place, after: int) -> Iterator[Json]:
    """The same, and then each as it is made; never ends by itself."""
    while True:
        page = patiently(functools.partial(connection.events, place, after=after))
        yield from page
        if page:
            after = page[-1]["sequence"]
        else:
            time.sleep(LOOK_INTERVAL_S)


def patiently(look: Callable[[], T]) -> T:
    """Look; while the control plane is being restarted, again and again, up to `GAP_LIMIT_S`."""
    lost_at: float | None = None
    while True:
        try:
            return look()
        except errors.UnreachableError:
            lost_at = lost_at or time.monotonic()
            if time.monotonic() - lost_at > GAP_LIMIT_S:
                raise
            time.sleep(LOOK_INTERVAL_S)


def _looks(connection: client.Client, place: client.Place, awaited: _Awaited) -> Iterator[Json]:
    """Looks at the environment until the rollout has ended; the last look shows its end."""
    while True:
        environment = patiently(functools.partial(connection.environment, place))
        yield environment
        if awaited.has_ended(environment):
            return
        time.sleep(LOOK_INTERVAL_S)


def _is_current(environment: Json, rollout: int) -> bool:
    return bool(environment["rollout"]) and environment["rollout"]["id"] == rollout


def _print_events(connection: client.Client, place: client.Place, after: int, out: Console) -> int:
    try:
        for event in all_events(connection, place, after):
            out.print(event_line(event))
            after = event["sequence"]
    except errors.UnreachableError:
        return after  # it is being restarted: the next look says more
    return after


def event_line(event: Json) -> str:
    """One decision, e.g. `12:00:05  r42  holding  5 %  held for 120 s`."""
    at = time.strftime("%H:%M:%S", time.localtime(event["at"]))
    release = f"r{event['release']}" if event["release"] else ""
    exposure = f"{event['exposure_bps'] / 100:g} %" if event["exposure_bps"] is not None else ""
    parts = (at, release, event["phase"] or "", exposure, event["reason"], event["detail"])
    return "  ".join(safe(part) for part in parts if part)


def picture(environment: Json) -> Group:
    """The environment now, drawn."""
    lines: list[Text | Table] = [_heading(environment)]
    rollout = environment["rollout"]
    if rollout:
        lines.append(_stages(environment, rollout))
        lines += evidence.lines(rollout)
    if environment["placements"]:
        lines.append(_placements(environment))
    lines += [Text(f"! {plain(failure)}", style="red") for failure in environment["failures"]]
    if environment.get("emergency"):
        why = plain(environment["emergency"])
        lines.append(Text(f"! r{environment['live']} came past the gates: {why}", style="bold red"))
    if environment["migrating"]:
        lines.append(Text(f"database: {plain(environment['migrating'])}", style="cyan"))
    if environment["halted"]:
        lines.append(Text(f"! observed only: {plain(environment['halted'])}", style="bold red"))
    return Group(*lines)


def _heading(environment: Json) -> Text:
    name = f"{environment['app']}/{environment['environment']}"
    live = f"r{environment['live']} is live" if environment["live"] else "nothing is live yet"
    text = Text.assemble((name, "bold"), f"  {live}")
    rollout, last = environment["rollout"], environment["last"]
    if rollout:
        paused = " (paused)" if rollout["paused"] else ""
        text.append(
            f", rollout #{rollout['id']} of r{rollout['release']} is {rollout['phase']}{paused}", style="cyan"
        )
    elif last:
        style = "green" if last["phase"] == "succeeded" else "red"
        text.append(
            f", rollout #{last['id']} of r{last['release']} {last['phase']}: {last['reason']}", style=style
        )
        if last["detail"]:
            text.append(f" ({plain(last['detail'])})")
    return text


def _stages(environment: Json, rollout: Json) -> Table:
    """The tide: one cell a stage, the current one with its hold time passing."""
    table = Table.grid(padding=(0, 2))
    cells = []
    for index, stage in enumerate(rollout["stages"]):
        share = f"{stage['exposure_bps'] / 100:g} %"
        if index < rollout["stage"] or rollout["phase"] in ("finishing", *ENDED):
            cells.append(Text(f"✓ {share}", style="green"))
        elif index == rollout["stage"] and rollout["phase"] in ("shifting", "holding"):
            cells.append(Text(f"▶ {share}{_held(rollout, stage)}", style="bold cyan"))
        else:
            cells.append(Text(f"· {share}", style="bright_black"))
    bar = ProgressBar(total=10_000, completed=environment["exposure_bps"], width=30)
    table.add_row(bar, *cells)
    return table


def _held(rollout: Json, stage: Json) -> str:
    if rollout["phase"] != "holding":
        return ""
    if stage["hold_s"] is None:
        return " until promoted"
    return f" {rollout['held_s']:.0f}/{stage['hold_s']:g} s"


def _placements(environment: Json) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bright_black")
    for column in ("release", "role", "users", "instances", "requests/s", "errors/s", "requests", "errors"):
        table.add_column(column, justify="left" if column in ("release", "role", "instances") else "right")
    for placement in environment["placements"]:
        traffic = placement["traffic"]
        ready = ", ".join(f"{s['name']} {s['ready']}/{s['wanted']}" for s in placement["services"])
        table.add_row(
            f"r{placement['release']}",
            Text(placement["role"], style=COLOURS.get(placement["role"], "")),
            f"{placement['exposure_bps'] / 100:g} %",
            plain(ready),
            f"{traffic['requests_per_second']:.0f}",
            Text(f"{traffic['errors_per_second']:.0f}", style="red" if traffic["errors_per_second"] else ""),
            str(traffic["requests"]),
            str(traffic["errors"]),
        )
    return table

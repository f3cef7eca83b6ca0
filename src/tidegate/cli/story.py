"""`tide demo`: its stories on a sample app, told in the terminal, each with its table at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tidegate import client
from tidegate.cli import live
from tidegate.cli.common import Tide, command, plain, safe
from tidegate.client import Json

if TYPE_CHECKING:
    from tidegate.demo.findings import Findings
    from tidegate.demo.report import Report
    from tidegate.demo.rivals import Computed

INTERRUPTED = 130
LEVELS = " ▁▂▃▄▅▆▇█"


@dataclass(slots=True)
class TerminalTeller:
    """Tells the story on a console; silent with a quiet one."""

    out: Console
    number: int = 0

    def act(self, title: str, text: str) -> None:
        self.number += 1
        heading(self.out, f"{self.number}. {title}")
        self.out.print(safe(text))

    def say(self, text: str) -> None:
        self.out.print(f"[bright_black]·[/bright_black] {safe(text)}", soft_wrap=True)

    def output(self, lines: tuple[str, ...]) -> None:
        for line in lines:
            self.out.print(Text(f"    {plain(line)}", style="bright_black"), soft_wrap=True)

    def table(self, report: Report) -> None:
        table(self.out, report)

    def follow(self, connection: client.Client, place: client.Place, rollout: int) -> Json:
        return live.follow(connection, place, rollout, self.out)


@click.command("demo")
@click.option(
    "--keep", is_flag=True, help="Leave everything running at the end, and say how to look and stop."
)
@click.option(
    "--verdicts",
    is_flag=True,
    help="Another story: releases that fail, are slow, crash or hang, and how soon each is found.",
)
@command
def demo(tide: Tide, keep: bool, verdicts: bool) -> int:  # noqa: FBT001 - click's
    """Show it all on a sample app: a good release, then bad ones that go back by themselves.

    Takes one to two minutes. Needs nothing but this machine and leaves nothing behind. Exit status 1 when a
    request failed that no bad release had a part in.
    """
    from tidegate.demo import story
    from tidegate.demo import verdicts as comparison

    teller = TerminalTeller(tide.out)
    try:
        if verdicts:
            told = comparison.tell(teller, keep=keep)
            found(tide.out, told.findings)
            report, answer = told.report, told.as_json()
        else:
            report = story.tell(teller, keep=keep)
            answer = report.as_json()
    except KeyboardInterrupt:
        tide.out.print("\nStopped; nothing is left running, and no folder.")
        return INTERRUPTED
    tide.print_json(answer)
    return 0 if report.passed else 1


def heading(out: Console, text: str) -> None:
    """With a line to the edge of the terminal, where there is one."""
    out.print()
    if out.is_terminal:
        out.rule(f"[bold]{safe(text)}[/bold]", align="left", style="bright_black")
    else:
        out.print(safe(text))


def table(out: Console, report: Report) -> None:
    """The final table, with every second of the users' traffic above it."""
    heading(out, "What the users saw")
    for release in report.releases:
        out.print(_tide(report, f"r{release.release}"))
    out.print(_releases(report))
    out.print()
    out.print(_changes(report))
    out.print(
        "took: from the command to its end. overlap: from the first request that the new release answered to "
        "the last that the old one did, or that the bad one did.",
        style="bright_black",
    )
    out.print()
    _sums(out, report)


def _tide(report: Report, release: str) -> Text:
    """A release's share of the answers, one column a second."""
    shares = [
        second.answers.get(release, 0) / max(1, sum(second.answers.values())) for second in report.seconds
    ]
    # The smallest share is still seen; nothing is nothing.
    levels = [0 if share == 0 else max(1, round(share * (len(LEVELS) - 1))) for share in shares]
    return Text(f"{release} {''.join(LEVELS[level] for level in levels)}", style="cyan", no_wrap=True)


def _releases(report: Report) -> Table:
    """What users got from each release; `routed` and `failed` are the router's own count of the same."""
    found = _columns("release", "users", "answers", "first", "last", "p50", "p99", "routed", "failed")
    for line in report.releases:
        found.add_row(
            f"r{line.release}",
            *(str(value) for value in (line.users, line.answers)),
            *(_unit(value, "s", 1) for value in (line.first_s, line.last_s)),
            *(_unit(value, "ms", 0) for value in (line.p50_ms, line.p99_ms)),
            *(str(value) for value in (line.router.requests, line.router.errors)),
        )
    return found


def _changes(report: Report) -> Table:
    found = _columns("change", "users", "took", "overlap", "ended")
    for line in report.changes:
        overlap = line.exposed_s if line.phase == "aborted" else line.switch_s
        found.add_row(
            f"{f'r{line.old}' if line.old else '  '} → r{line.new}  {line.name}",
            str(line.users_reached),
            _unit(line.took_s, "s", 2),
            _unit(overlap, "s", 3),
            f"{line.phase}: {line.reason}",
        )
    return found


def _columns(first: str, *others: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bright_black")
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="left" if name == "ended" else "right")
    return table


def _unit(value: float | None, unit: str, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f} {unit}"


def _sums(out: Console, report: Report) -> None:
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.failures.items())
    out.print(
        f"{report.sent} requests of {report.users} users in {report.duration_s:.0f} s: "
        f"{report.succeeded} answered, {report.failed} failed{f' ({kinds})' if kinds else ''}."
    )
    if report.failed_of_bad_release:
        out.print(
            f"{report.failed_of_bad_release} of them are the bad releases' own: answered so by them, or "
            "asked when both of their instances had crashed. With one alive, a request is tried again there."
        )
    out.print(f"Failed without a bad release's part in it: [bold]{report.failed_elsewhere}[/bold].")
    out.print(f"Pages made by two releases at once: {report.pages_of_two_releases}.")
    if report.passed:
        out.print("[green]Passed: nobody but the bad releases' few users saw anything but the shop.[/green]")
    for problem in report.problems:
        out.print(f"[red]{safe(problem)}[/red]")


def found(out: Console, findings: Findings) -> None:
    """What was found wrong with each bad release, beside what others would have needed."""
    rules = [rule.name for rule in findings.rules]
    heading(out, "What the judge found")
    lines = _columns(
        "a release that", "bad requests", "users hit", "found in", *(f"{name}*" for name in rules)
    )
    for one in findings.found:
        lines.add_row(
            one.title,
            str(one.bad_requests),
            str(one.users_hit),
            _unit(one.exposed_s, "s", 1),
            *(_computed(other) for other in one.others),
        )
    out.print(lines)
    out.print(
        "found in: from the first exposure to its end. users hit: those with at least one bad request.",
        style="bright_black",
    )
    out.print(
        "* by their documented rules, computed, not run: bad requests and time on the same stream. "
        + " ".join(f"{rule.name} {rule.settings}." for rule in findings.rules),
        style="bright_black",
    )
    out.print()
    for one in findings.found:
        out.print(f"[cyan]r{one.release}[/cyan] {one.title} ({one.reason}): {safe(one.sentence)}")


def _computed(other: Computed) -> str:
    if other.seconds is None:
        return "not found"
    return f"{other.bad_requests} in {other.seconds / 60:.0f} min"


COMMANDS = (demo,)

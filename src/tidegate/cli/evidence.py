"""What a canary's traffic shows, for people: bars towards the bounds, both releases side by side, a sentence.

Pure: from the API's objects to lines. The judge's own sentences are shown unchanged; here stands only what a
rollout that has ended says instead of "so far". A control plane of the version before says nothing of
evidence: while it is being upgraded, none is shown.

Neighbours: `live` and `look` show it, `charts` draws how it came about.
"""

from __future__ import annotations

from typing import Final

from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tidegate.cli.common import plain
from tidegate.client import Json
from tidegate.core import words

#: Leaves room for the longest odds in 80 columns.
BAR_WIDTH: Final = 24
_ALARMING: Final = 0.5  # of the way to the bound, in nats: odds of 10 to 1 where 100 to 1 abort

_ENDED: Final = ("succeeded", "aborted")


def lines(rollout: Json) -> list[Text | Table]:
    """The evidence of a rollout in progress; nothing if there is none."""
    evidence = rollout.get("evidence")
    if evidence is None:
        return []
    found: list[Text | Table] = [_bars(evidence), Text(plain(evidence["sentence"]))]
    if rollout["paused"] and rollout["reason"] == "little-evidence":
        ask = "Little evidence, and the hold time is over: `tide resume` goes on, `tide abort` goes back."
        found.append(Text(ask, style="yellow"))
    elif evidence["waits"] and not rollout["paused"]:
        wait = "The hold time is over; more evidence is waited for. `tide promote` goes on without."
        found.append(Text(wait, style="yellow"))
    return found


def _bars(evidence: Json) -> Table:
    table = Table.grid(padding=(0, 2))
    harm = evidence["combined"] / evidence["abort_bound"]
    style = "red" if harm >= 1 else "yellow" if harm >= _ALARMING else "cyan"
    bounds = (
        ("harm", harm, style, evidence["combined"], f"{words.odds(evidence['abort_bound'])} aborts"),
        (
            "no worse",
            evidence["no_worse"] / evidence["promote_bound"],
            "green",
            evidence["no_worse"],
            f"{words.odds(evidence['promote_bound'])} is enough",
        ),
    )
    for name, part, colour, reached, bound in bounds:
        table.add_row(name, _bar(part, colour), f"{words.odds(reached)}, {bound}")
    return table


def _bar(part: float, style: str) -> ProgressBar:
    """Evidence for the contrary is an empty bar: it can only be won back."""
    completed = 100 * min(max(part, 0.0), 1.0)
    return ProgressBar(
        total=100, completed=completed, width=BAR_WIDTH, complete_style=style, finished_style=style
    )


def comparison(rollout: Json) -> Table | None:
    """Canary beside stable release, since users were exposed."""
    evidence = rollout.get("evidence")
    if evidence is None:
        return None
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bright_black")
    table.add_column("compared")
    for column in ("requests", "errors", "share", "95 % interval", "median", "99th percentile"):
        table.add_column(column, justify="right")
    releases = (("canary", rollout["release"]), ("stable", rollout["previous_release"]))
    for side, release in releases:
        seen = evidence[side]
        table.add_row(
            f"r{release} {side}",
            str(seen["requests"]),
            Text(str(seen["errors"]), style="red" if seen["errors"] else ""),
            words.percent(seen["share"]),
            words.interval(seen["low"], seen["high"]),
            milliseconds(seen["p50_ms"]),
            milliseconds(seen["p99_ms"]),
        )
    return table


def noise(environment: Json) -> str:
    """What was learned of the live release's errors, for the next canary; empty if nothing was."""
    learned = environment.get("noise")
    return f"noise: {learned}" if learned else ""


def milliseconds(value: float | None) -> str:
    """Empty if nothing was measured."""
    return "" if value is None else f"{value:.3g} ms"


def found(rollout: Json) -> str:
    """What the traffic showed, on how many requests, and how sure; empty if nothing was compared."""
    evidence = rollout.get("evidence")
    if evidence is None:
        return ""
    if not _nothing_found(rollout):
        return str(evidence["sentence"])
    canary = evidence["canary"]
    if canary["requests"] == 0:
        return "The canary had no request that could be compared: nothing is known of it."
    return (
        f"Nothing was found against it: {canary['errors']} of {canary['requests']} requests failed. "
        f"Evidence of harm {words.odds(evidence['combined'])}; {words.odds(evidence['abort_bound'])} aborts."
    )


def _nothing_found(rollout: Json) -> bool:
    """It has ended without a verdict: what is missing now does not matter any more."""
    evidence = rollout["evidence"]
    ended = rollout["phase"] in _ENDED
    return ended and evidence["verdict"] == "continue" and evidence["finding"] != "analysis-off"


def short(rollout: Json) -> str:
    """The same for a cell of a table."""
    evidence = rollout.get("evidence")
    if evidence is None or evidence["finding"] == "analysis-off":
        return ""
    requests = f"{evidence['canary']['requests']} requests"
    if evidence["verdict"] == "abort":
        return f"{evidence['metric']}: {words.odds(evidence['combined'])}, {requests}"
    if evidence["verdict"] == "promote":
        return f"no worse: {words.odds(evidence['no_worse'])}, {requests}"
    return f"nothing found, {requests}"

"""The story of `tide demo --verdicts`: one bad release after the other, each by canary, each found by itself.

Hides the plot. Neighbours: `play` plays it; `releases` has what is wrong with each; `findings` adds it up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from tidegate.demo import traffic
from tidegate.demo.findings import Fault, Findings, findings
from tidegate.demo.play import Play, Teller, must_be, played
from tidegate.demo.report import Act, Report

#: More users than in the other story, because who waits for an answer for ever asks no more.
USERS: Final = 500
REQUESTS_PER_SECOND: Final = 100.0

#: The one that hangs is the last: its instances end when the last of its users has lost patience.
FAULTS: Final = (
    Fault(title="fails every request", change="no_discount", failed_share=1.0),
    Fault(title="fails every fifth request", change="discount", failed_share=0.2),
    Fault(title="fails every twentieth request", change="rare_discount", failed_share=0.05),
    Fault(title="is about three times slower", change="stock", failed_share=0.0, slow=True),
    Fault(title="crashes again and again", change="leak", failed_share=None),
    Fault(title="hangs", change="lock", failed_share=1.0, hangs=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """How it went."""

    report: Report
    findings: Findings

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {**self.report.as_json(), "findings": self.findings.as_json()}


def tell(teller: Teller, *, keep: bool = False) -> Told:
    """Play it; the table. `keep` and errors as of the other story."""
    acts: list[tuple[Fault, Act]] = []
    done = played(teller, _load, lambda play: _perform(play, acts), keep=keep)
    return Told(report=done.report, findings=findings(done.samples, tuple(acts)))


def _load(port: int) -> traffic.Load:
    return traffic.Load(port=port, users=USERS, requests_per_second=REQUESTS_PER_SECOND)


def _perform(play: Play, acts: list[tuple[Fault, Act]]) -> None:
    play.teller.act(
        "A good release",
        f"When it is live, {USERS} users begin to ask, {REQUESTS_PER_SECOND:.0f} times a second, "
        "and do not stop until the end.",
    )
    must_be(play, play.roll("first release", "first", "deploy", release=play.publish()), "succeeded")
    play.users.start()
    play.settle()
    acts.extend((fault, _bad(play, fault)) for fault in FAULTS)


def _bad(play: Play, fault: Fault) -> Act:
    play.teller.act(f"A release that {fault.title}", "5 % of the users get it. Its health check is fine.")
    release = play.publish(fault.change, every="10m")
    kind = "hanging" if fault.hangs else "bad"
    act = must_be(play, play.roll(fault.title, kind, "deploy", release=release), "aborted")
    play.teller.say(f"Back by itself ({act.reason}): {act.detail.rstrip('.')}. Everybody is served by r1.")
    play.settle()
    return act

"""What both stories of the demo are played with: the teller, a control plane with users, and its rollouts.

Hides how an act is asked for, watched and measured. Everything is asked through `client`, as a user's
commands ask it. What is expected of an act is checked: a story that goes another way is an error, not a
table. Neighbours: `story` and `verdicts` are the plots; `control` is the stage; `traffic` the users;
`report` the table.
"""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import FrameType
from typing import Final, Protocol

from tidegate import client, errors
from tidegate.client import Json
from tidegate.demo import control as control_plane
from tidegate.demo import publish, traffic
from tidegate.demo.control import Control
from tidegate.demo.report import Act, Count, Report, report
from tidegate.demo.samples import Samples

PLACE: Final = client.Place("shop", "production")
#: How long the users go on before and after an act, so that the picture is seen to stand still.
SETTLE_S: Final = 1.5
OUTPUT_LINES: Final = 8
ENDED: Final = ("succeeded", "aborted")
INTERRUPTIONS: Final = (signal.SIGTERM, signal.SIGHUP)


class Teller(Protocol):
    """Tells the story to whoever looks on."""

    def act(self, title: str, text: str) -> None:
        """A new act begins."""

    def say(self, text: str) -> None:
        """One thing that happened."""

    def output(self, lines: tuple[str, ...]) -> None:
        """What an app wrote."""

    def table(self, report: Report) -> None:
        """The end of the story."""

    def follow(self, connection: client.Client, place: client.Place, rollout: int) -> Json:
        """Show a rollout until it has ended; the environment as it is then."""


@dataclass(slots=True, kw_only=True)
class Play:
    """What the acts of a story share."""

    teller: Teller
    control: Control
    connection: client.Client
    users: traffic.Traffic
    acts: list[Act] = field(default_factory=list)
    counts: dict[int, tuple[int, Count]] = field(default_factory=dict)
    """By placement: its release, and what the router counted."""

    def publish(self, change: str = "", *, every: str = publish.EVERY) -> int:
        """Make and send a release with a change of `releases`; its number. Raises TidegateError."""
        folder = self.control.work / (change or "shop")
        made = publish.release(self.connection, change, folder, every=every)
        self.teller.say(f"r{made['number']} is packed and sent: {made['digest'][:19]}…")
        return int(made["number"])

    def roll(self, name: str, kind: str, action: str, **asked: object) -> Act:
        """Ask for a rollout and show it to its end."""
        old = self.connection.environment(PLACE)["live"] if self.acts else None
        asked_at_s = time.monotonic()
        accepted = self.connection.act(PLACE, action, **asked)
        ended = self.teller.follow(self.connection, PLACE, int(accepted["rollout"]))
        ended_at_s = time.monotonic()
        self.look(ended)
        last = ended["last"]
        act = Act(
            name=name,
            kind=kind,
            old=old,
            new=int(last["release"]),
            phase=last["phase"],
            reason=last["reason"],
            detail=last["detail"],
            exposure_reached_bps=last["exposure_reached_bps"],
            asked_at_s=asked_at_s,
            ended_at_s=ended_at_s,
            exposed_s=self._exposed_s(int(accepted["rollout"])),
        )
        self.acts.append(act)
        return act

    def _exposed_s(self, rollout: int) -> float | None:
        """From the first exposure's decision to the moment that its end was seen in the router."""
        events = [event for event in self._events() if event["rollout"] == rollout]
        began = next((event["at"] for event in events if event["exposure_bps"]), None)
        ended = next((event["at"] for event in events if event["phase"] in ENDED), None)
        return None if began is None or ended is None else float(ended - began)

    def _events(self) -> Iterator[Json]:
        after = 0
        while page := self.connection.events(PLACE, after=after):
            yield from page
            after = page[-1]["sequence"]

    def look(self, environment: Json) -> None:
        """Keep what the router counted; counts only grow, and end with their placement."""
        for placement in environment["placements"]:
            seen = placement["traffic"]
            count = Count(requests=seen["requests"], errors=seen["errors"])
            self.counts[placement["id"]] = (placement["release"], count)

    def settle(self) -> None:
        """Let the users go on for a while."""
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline:
            self.look(self.connection.environment(PLACE))
            time.sleep(0.2)

    def last_output(self, act: Act) -> tuple[str, ...]:
        """What the instances of an act's release wrote last."""
        placement = self.connection.environment(PLACE)["last"]["placement"]
        tree = re.compile(re.escape(str(self.control.home.packages)) + "/[0-9a-f]{64}/tree/")
        lines = [json.loads(line) for line in self.connection.logs(PLACE, placement=placement, tail=50)]
        shown = [f"{line['service']} r{act.new} | {tree.sub('', line['text'])}" for line in lines]
        return tuple(shown[-OUTPUT_LINES:])

    def router_counts(self) -> dict[int, Count]:
        """By release."""
        added: dict[int, Count] = {}
        for release, count in self.counts.values():
            before = added.get(release, Count())
            added[release] = Count(
                requests=before.requests + count.requests, errors=before.errors + count.errors
            )
        return added


@contextmanager
def interruptions() -> Iterator[None]:
    """SIGTERM and SIGHUP end the story like Ctrl-C does, by an exception: everything is cleaned up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _interrupt) for number in INTERRUPTIONS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, _frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """A story that was told to its end."""

    report: Report
    samples: Samples
    acts: tuple[Act, ...]


def played(
    teller: Teller, load: Callable[[int], traffic.Load], perform: Callable[[Play], None], *, keep: bool
) -> Played:
    """Play a story from an empty control plane to its table. `load`: for a port.

    `keep`: leave everything running at the end, and say how to look and how to stop. Raises TidegateError
    when an act does not end as it should; nothing is left behind then, nor after an interruption.
    """
    begun_s = time.monotonic()
    teller.act(
        "A control plane of its own",
        "It runs in a temporary folder and on free ports, started exactly as `tide up` would start it.",
    )
    with interruptions(), control_plane.temporary() as control:
        teller.say(f"Users' requests arrive at http://127.0.0.1:{control.port}.")
        users = traffic.Traffic(load(control.port))
        with control.connect() as connection:
            play = Play(teller=teller, control=control, connection=connection, users=users)
            try:
                perform(play)
            finally:
                samples = users.stop()
            play.settle()  # the router's counts come a moment later
        acts = tuple(play.acts)
        table = report(samples, acts, play.router_counts(), duration_s=time.monotonic() - begun_s)
        teller.table(table)
        control.keep = keep
        if keep:
            _say_how_to_go_on(teller, control)
    if control.left_behind:
        problem = f"{len(control.left_behind)} processes did not end when they were told to, and were killed."
        teller.say(problem)
        table = replace(table, problems=(*table.problems, problem))
    return Played(report=table, samples=samples, acts=acts)


def must_be(play: Play, act: Act, phase: str) -> Act:
    """The act, if it ended so; else MachineError, after what its release wrote last."""
    if act.phase == phase:
        return act
    play.teller.output(play.last_output(act))
    raise errors.MachineError(
        f"The rollout of r{act.new} should have {phase}, but {act.phase} ({act.reason}): {act.detail}",
        hint="`tide doctor` checks this machine; is it very busy?",
    )


def _say_how_to_go_on(teller: Teller, control: Control) -> None:
    home = control.home.root
    teller.act("Everything goes on running", "Only the users have stopped.")
    teller.say(f"Shop:  http://127.0.0.1:{control.port}")
    teller.say(f"Look:  tide --home {home} --app shop status --watch")
    teller.say(f"Stop:  tide --home {home} down --all && chmod -R u+w {home.parent} && rm -r {home.parent}")

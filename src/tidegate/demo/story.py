"""The acts, one after the other, while the users never stop asking.

Hides the plot. What is expected of each act is checked: a story that goes another way is an error, not a
table. Everything is asked through `client`, as a user's commands ask it.
Neighbours: `cli` gives the teller; `control` the stage; `traffic` the users; `report` the table.
"""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from collections.abc import Iterator
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

PLACE: Final = client.Place("shop", "production")
#: How long the users go on before and after an act, so that the picture is seen to stand still.
SETTLE_S: Final = 1.5
OUTPUT_LINES: Final = 8
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
class _Play:
    """What the acts share."""

    teller: Teller
    control: Control
    connection: client.Client
    users: traffic.Traffic
    acts: list[Act] = field(default_factory=list)
    counts: dict[int, tuple[int, Count]] = field(default_factory=dict)
    """By placement: its release, and what the router counted."""

    def publish(self, number: int) -> None:
        """Make and send a release. Raises TidegateError."""
        made = publish.release(self.connection, number, self.control.work / f"r{number}")
        self.teller.say(f"r{made['number']} is packed and sent: {made['digest'][:19]}…")

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
        )
        self.acts.append(act)
        return act

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


def tell(teller: Teller, *, keep: bool = False) -> Report:
    """Play the whole story; the final table.

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
        users = traffic.Traffic(traffic.Load(port=control.port))
        with control.connect() as connection:
            play = _Play(teller=teller, control=control, connection=connection, users=users)
            try:
                _perform(play)
            finally:
                samples = users.stop()
            play.settle()  # the router's counts come a moment later
        table = report(samples, tuple(play.acts), play.router_counts(), duration_s=time.monotonic() - begun_s)
        teller.table(table)
        control.keep = keep
        if keep:
            _say_how_to_go_on(teller, control)
    if control.left_behind:
        problem = f"{len(control.left_behind)} processes did not end when they were told to, and were killed."
        teller.say(problem)
        table = replace(table, problems=(*table.problems, problem))
    return table


def _perform(play: _Play) -> None:
    _first(play)
    _canary(play)
    _bad(play)
    _rollback(play)


def _first(play: _Play) -> None:
    play.teller.act(
        "The first release",
        "A shop in two services: web needs api, so api starts first. Two instances each. "
        "When it is live, 200 users begin to ask, 150 times a second, and do not stop until the end.",
    )
    play.publish(1)
    _must_be(play, play.roll("first release", "first", "deploy", release=1), "succeeded")
    play.users.start()
    play.settle()


def _canary(play: _Play) -> None:
    play.teller.act(
        "A good release, by canary",
        "r2 starts beside r1. First 5 % of the users get it, then 25 %, 50 %, and everybody: "
        "always the same users, web and api together. r1 stays warm.",
    )
    play.publish(2)
    _must_be(play, play.roll("canary", "canary", "deploy", release=2), "succeeded")
    play.settle()


def _bad(play: _Play) -> None:
    play.teller.act(
        "A bad release",
        "r3 is healthy when it starts, and worked for whoever tried it. Under traffic its web instances "
        "crash. Nobody has to watch: it goes back by itself.",
    )
    play.publish(3)
    act = _must_be(play, play.roll("bad release", "bad", "deploy", release=3), "aborted")
    play.teller.say(f"Aborted by itself ({act.reason}): {act.detail}. Everybody is served by r{act.old}.")
    play.teller.say("The last that r3 wrote:")
    play.teller.output(play.last_output(act))
    play.settle()


def _rollback(play: _Play) -> None:
    play.teller.act(
        "The way back",
        "`tide rollback` to r1. Its instances are still warm, so nothing has to start: "
        "it is one flip in the router.",
    )
    _must_be(play, play.roll("rollback", "rollback", "rollback", to=1), "succeeded")
    play.settle()


def _must_be(play: _Play, act: Act, phase: str) -> Act:
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

"""The story of `tide demo`: the acts, one after the other, while the users never stop asking.

Hides the plot. Neighbours: `play` plays it; `releases` has what changes from act to act; `cli` is the teller.
"""

from __future__ import annotations

from typing import Final

from tidegate.demo import traffic
from tidegate.demo.play import Play, Teller, must_be, played
from tidegate.demo.report import Act, Report

USERS: Final = 200
REQUESTS_PER_SECOND: Final = 150.0


def tell(teller: Teller, *, keep: bool = False) -> Report:
    """Play the whole story; the final table.

    `keep`: leave everything running at the end, and say how to look and how to stop. Raises TidegateError
    when an act does not end as it should; nothing is left behind then, nor after an interruption.
    """
    return played(teller, _load, _perform, keep=keep).report


def _load(port: int) -> traffic.Load:
    return traffic.Load(port=port, users=USERS, requests_per_second=REQUESTS_PER_SECOND)


def _perform(play: Play) -> None:
    _first(play)
    _canary(play)
    _crashing(play)
    _failing(play)
    _slow(play)
    _rollback(play)


def _first(play: Play) -> None:
    play.teller.act(
        "The first release",
        "A shop in two services: web needs api, so api starts first. Two instances each. "
        f"When it is live, {USERS} users begin to ask, {REQUESTS_PER_SECOND:.0f} times a second, "
        "and do not stop until the end.",
    )
    must_be(play, play.roll("first release", "first", "deploy", release=play.publish()), "succeeded")
    play.users.start()
    play.settle()


def _canary(play: Play) -> None:
    play.teller.act(
        "A good release, by canary",
        "r2 starts beside r1. First 5 % of the users get it, then 25 %, 50 %, and everybody: "
        "always the same users, web and api together. r1 stays warm.",
    )
    release = play.publish("delivery")
    must_be(play, play.roll("canary", "canary", "deploy", release=release), "succeeded")
    play.settle()


def _crashing(play: Play) -> None:
    play.teller.act(
        "A release that crashes",
        "r3 is healthy when it starts, and worked for whoever tried it. Under traffic its web instances "
        "crash. Nobody has to watch: it goes back by itself.",
    )
    act = _bad(play, "crashes", "presents")
    play.teller.say(f"The last that r{act.new} wrote:")
    play.teller.output(play.last_output(act))


def _failing(play: Play) -> None:
    play.teller.act(
        "A release that fails every fifth request",
        "r4 does not crash, and its health check is fine. But its users' answers are compared with those "
        "that the others get from r2 in the same seconds.",
    )
    _bad(play, "fails", "discount")


def _slow(play: Play) -> None:
    play.teller.act(
        "A release that is slower",
        "r5 answers every request, but asks api three times for each. The first two seconds of its answers "
        "do not count: caches and connections are cold then.",
    )
    _bad(play, "is slower", "stock")


def _bad(play: Play, name: str, change: str) -> Act:
    act = must_be(play, play.roll(name, "bad", "deploy", release=play.publish(change)), "aborted")
    play.teller.say(
        f"Back by itself ({act.reason}): {act.detail.rstrip('.')}. Everybody is served by r{act.old}."
    )
    play.settle()
    return act


def _rollback(play: Play) -> None:
    play.teller.act(
        "The way back",
        "`tide rollback` to r1. Its instances are still warm, so nothing has to start: "
        "it is one flip in the router.",
    )
    must_be(play, play.roll("rollback", "rollback", "rollback", to=1), "succeeded")
    play.settle()

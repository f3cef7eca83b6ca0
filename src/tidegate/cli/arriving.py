"""Shows a push until it is where it was sent to: its build, then its rollouts, a line for each decision.

Hides how often it looks, and that a control plane may be restarted meanwhile. Neighbours: `receive` shows it
to who pushes, `source` to who asks.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, TypeVar

from tidegate import client, errors
from tidegate.cli import live
from tidegate.cli.common import plain
from tidegate.client import Json

LOOK_S: Final = 0.2
#: A control plane that is restarted (an upgrade, a crash) is waited for so long.
GAP_S: Final = live.GAP_LIMIT_S
#: What nobody has to watch: it lasts until somebody comes, or the window is over.
FOR_SOMEBODY: Final = ("approval", "freeze")
#: What is watched for a while.
FOR_TIME: Final = ("soak", "busy")
STILL_S: Final = 120.0

T = TypeVar("T")


@dataclass(slots=True)
class Following:
    """One push, for somebody who looks on."""

    connection: client.Client
    say: Callable[[str], None]
    _lost_at: float | None = None
    _after: dict[str, int] = field(default_factory=dict)
    """By environment: the last event that was shown."""

    def to_the_end(self, push: Json) -> str:
        """Show all of it; why it did not arrive, or nothing if it did."""
        ref = push["ref"].removeprefix("refs/heads/").replace("refs/tags/", "tag ", 1)
        self.say(f"push #{push['id']}: {ref} at {push['revision'][:12]}, to {push['to'] or 'its release'}")
        built = self._built(push)
        while built["state"] == "released" and built["promotion"] is None:
            time.sleep(LOOK_S)
            built = self._patiently(functools.partial(self._push, built))
        if built["state"] != "released":
            self.say(f"{built['state']}: {built['detail']}")
            return str(built["detail"] or built["state"])
        return self._arrived(built)

    def build(self, push: Json) -> Json:
        """Show its build alone; the push as it is then."""
        return self._built(push)

    # --- the build --------------------------------------------------------------------------------

    def _built(self, push: Json) -> Json:
        attempt = after = 0
        while True:
            try:
                lines = self.connection.push_output(
                    push["app"], push["id"], attempt=attempt, after=after, follow=True
                )
                for line in lines:
                    entry = json.loads(line)
                    if not entry:
                        continue
                    if attempt and entry["attempt"] != attempt:
                        self.say("the control plane was restarted: the build begins again")
                    attempt, after = entry["attempt"], entry["number"]
                    self.say(f"  {entry['text']}")
                now = self._push(push)
            except errors.UnreachableError:
                self._bear()
                continue
            self._lost_at = None
            if now["state"] not in ("queued", "building"):
                return now
            time.sleep(LOOK_S)

    def _push(self, push: Json) -> Json:
        return self.connection.push(push["app"], push["id"])

    # --- the way through the pipeline -------------------------------------------------------------

    def _arrived(self, push: Json) -> str:
        """Show its way until it has arrived, or waits for somebody; why it ended elsewhere, or nothing."""
        app = push["app"]
        shown, still_since = ("", "", ""), time.monotonic()
        while True:
            promotion = self._patiently(
                functools.partial(self.connection.promotion, app, int(push["promotion"]))
            )
            self._show_events(push, promotion)
            if promotion["ended"] is not None:
                return self._verdict(push, promotion)
            now = (promotion["environment"], promotion["waits"] or "", promotion["detail"])
            if now != shown:
                shown, still_since = now, time.monotonic()
                if promotion["waits"] not in (None, "rollout"):
                    self.say(f"  {now[0]}  waits for {now[1]}: {plain(now[2])}")
            if promotion["waits"] in FOR_SOMEBODY or (
                promotion["waits"] in FOR_TIME and time.monotonic() - still_since > STILL_S
            ):
                self.say("It goes on by itself: `tide pipeline` shows it.")
                return ""
            time.sleep(LOOK_S)

    def _show_events(self, push: Json, promotion: Json) -> None:
        """Decisions on its release, in the environments that it has come to."""
        for name in promotion["path"]:
            place = client.Place(push["app"], name)
            if name not in self._after:
                self._after[name] = self._before(place, push)
            for event in self._events(place, self._after[name]):
                self._after[name] = event["sequence"]
                if event["release"] == push["release"]:
                    self.say(f"  {name}  {plain(_line(event))}")
            if name == promotion["environment"]:
                return

    def _before(self, place: client.Place, push: Json) -> int:
        """The last event that is older than the push."""
        events = self._events(place, 0)
        return max((e["sequence"] for e in events if e["at"] < push["queued_at"]), default=0)

    def _events(self, place: client.Place, after: int) -> list[Json]:
        return self._patiently(lambda: list(live.all_events(self.connection, place, after)))

    def _verdict(self, push: Json, promotion: Json) -> str:
        if promotion["ended"] == "arrived":
            self.say(f"r{push['release']} is live in {push['app']}/{promotion['target']}.")
            return ""
        place = f"{push['app']}/{promotion['environment']}"
        why = f"r{push['release']} {promotion['ended']} at {place}: {promotion['detail']}"
        self.say(why)
        return why

    # --- patience ---------------------------------------------------------------------------------

    def _patiently(self, look: Callable[[], T]) -> T:
        while True:
            try:
                found = look()
            except errors.UnreachableError:
                self._bear()
            else:
                self._lost_at = None
                return found

    def _bear(self) -> None:
        """Once more without an answer. Raises UnreachableError when that has lasted too long."""
        now = time.monotonic()
        if self._lost_at is None:
            self._lost_at = now
        if now - self._lost_at > GAP_S:
            raise errors.UnreachableError(
                "The control plane does not answer. What was pushed is stored, and goes on when it does."
            )
        time.sleep(LOOK_S)


def _line(event: Json) -> str:
    """A decision, without the markup of the terminal."""
    at = time.strftime("%H:%M:%S", time.localtime(event["at"]))
    exposure = f"{event['exposure_bps'] / 100:g} %" if event["exposure_bps"] is not None else ""
    parts = (at, f"r{event['release']}", event["phase"] or "", exposure, event["reason"], event["detail"])
    return "  ".join(str(part) for part in parts if part)

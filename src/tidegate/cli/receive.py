"""What the hooks of our repositories run: the far end of `git push`.

`pre-receive` asks the control plane before anything is stored; without one nothing is. `proc-receive` moves
the branch, lets the push be queued, and shows its build and its rollouts until they have ended, so that `git
push` ends with 0 only if the release is where it was sent to. Invariants: the branch is moved before the push
is queued, and a control plane that dies in between finds the moved branch when it starts; whoever stops
looking changes nothing.

Names of refs come from whoever pushes: they are printed escaped, and nothing else is done with them before
the control plane has agreed. Neighbours: `sources.hooks` writes the hooks, `web.sources` answers, git speaks
the protocol of gitprotocol-pack(5) and githooks(5).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from tidegate import client, errors, paths, pushes
from tidegate.cli import arriving
from tidegate.cli.common import plain
from tidegate.sources import refs
from tidegate.sources.repositories import Repositories

#: Whom a push is for, where everybody pushes as one user of this machine: set by the ssh server.
PUSHER: Final = "TIDEGATE_FOR"
#: A packet's length in four hexadecimal digits, itself included (gitprotocol-common(5)).
_LENGTH_BYTES: Final = 4
_REASON_CHARACTERS_MAX: Final = 200
REFS_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class Update:
    """A ref that is pushed."""

    old: str
    new: str
    ref: str


def main(program: str) -> int:
    """Run the hook of that path; its exit status."""
    path = Path(program).resolve()
    repository = path.parents[1]
    home = paths.Home(repository.parents[1])
    app = repository.name.removesuffix(".git")
    try:
        with client.Client(home.socket, on_behalf_of=os.environ.get(PUSHER, "")) as connection:
            if path.name == "pre-receive":
                return _check(connection, app, _updates(sys.stdin.buffer))
            receiver = Receiver(connection, app, Repositories(home.repositories))
            return receiver.run(sys.stdin.buffer, sys.stdout.buffer)
    except errors.UnreachableError as error:
        say(f"{error.message} Nothing was stored: start it with `tide up`, and push again.")
        return 1
    except errors.TidegateError as error:
        say(f"Refused: {error}")
        return 1
    except (BrokenPipeError, KeyboardInterrupt):
        return 1  # whoever pushed has gone; what was queued goes on


def say(text: str) -> None:
    """To whoever pushes: git shows it behind `remote:`."""
    for line in text.splitlines() or [""]:
        sys.stderr.write(f"{plain(line)}\n")
    sys.stderr.flush()


def _updates(lines: IO[bytes]) -> tuple[Update, ...]:
    return tuple(_update(line) for line in lines)


def _update(line: bytes) -> Update:
    """`old new ref`. Bytes that are no UTF-8 become backslashes, which no accepted name has."""
    old, new, ref = line.decode("utf-8", "backslashreplace").rstrip("\n").split(" ", 2)
    return Update(old, new, ref)


def _check(connection: client.Client, app: str, updates: tuple[Update, ...]) -> int:
    if len(updates) > REFS_MAX:
        say(f"Refused: more than {REFS_MAX} branches and tags at once.")
        return 1
    answer = connection.act_on_source(app, "check", refs=[update.ref for update in updates])
    for sentence in answer["refusals"]:
        say(f"Refused: {sentence}")
    return 1 if answer["refusals"] else 0


class Receiver:
    """One `git push`."""

    def __init__(self, connection: client.Client, app: str, repositories: Repositories) -> None:
        self._connection, self._app, self._repositories = connection, app, repositories

    def run(self, heard: IO[bytes], answer: IO[bytes]) -> int:
        """Speak with receive-pack: versions, updates, what became of each."""
        for _ in _packets(heard):
            pass  # its version and what else it could do
        _write(answer, b"version=1")
        _flush(answer)
        updates = tuple(_update(line) for line in _packets(heard))
        source = self._connection.source(self._app)
        meant = pushes.Source(app=self._app, branches=tuple(source["branches"]), tags=tuple(source["tags"]))
        for update in updates:
            if refs.is_nothing(update.new):
                _fall_through(answer, update)
            elif not refs.is_meant(meant, update.ref):
                built = ", ".join([*meant.branches, *(f"tag {tag}" for tag in meant.tags)])
                say(f"{refs.short(update.ref)} is stored, and not built: built are {built}.")
                _fall_through(answer, update)
            else:
                self._report(answer, update, self._received(update))
        _flush(answer)
        return 0

    def _report(self, answer: IO[bytes], update: Update, why: str) -> None:
        ref = update.ref.encode("utf-8")
        if why:
            reason = plain(why.partition("\n")[0])[:_REASON_CHARACTERS_MAX]
            _write(answer, b"ng " + ref + b" " + reason.encode())
        else:
            _write(answer, b"ok " + ref)

    def _received(self, update: Update) -> str:
        """Move the branch, queue the push and show it to its end; why it did not end well, or nothing."""
        try:
            self._repositories.move(self._app, update.ref, to=update.new, was=update.old)
        except errors.SourceError:
            return "somebody else has moved it meanwhile: fetch, and push again"
        try:
            answer = self._connection.act_on_source(self._app, "receive", ref=update.ref)
        except errors.UnreachableError:
            return "stored, and built when the control plane is up again"
        push = answer["push"]
        if push is None:
            say(f"{refs.short(update.ref)} at {update.new[:12]} was queued before: `tide pushes` shows it.")
            return ""
        try:
            why = arriving.Following(self._connection, say).to_the_end(push)
        except errors.UnreachableError as error:
            say(error.message)
            return "stored, and goes on when the control plane is up again"
        if why:
            say("The commit is stored: push the mended one as usual, or `tide source build` this one again.")
        return why


def _fall_through(answer: IO[bytes], update: Update) -> None:
    """Let git do what it would have done without us."""
    _write(answer, b"ok " + update.ref.encode("utf-8"))
    _write(answer, b"option fall-through")


def _packets(heard: IO[bytes]) -> Iterator[bytes]:
    """Up to the next flush, or the end."""
    while True:
        head = heard.read(_LENGTH_BYTES)
        if len(head) < _LENGTH_BYTES:
            return
        length = int(head, 16)
        if length < _LENGTH_BYTES:
            return
        yield heard.read(length - _LENGTH_BYTES).rstrip(b"\n")


def _write(answer: IO[bytes], line: bytes) -> None:
    answer.write(b"%04x" % (len(line) + _LENGTH_BYTES + 1) + line + b"\n")
    answer.flush()


def _flush(answer: IO[bytes]) -> None:
    answer.write(b"0000")
    answer.flush()

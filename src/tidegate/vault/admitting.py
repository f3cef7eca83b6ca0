"""What must be proved before an instance starts: its bytes, where they come from, and that they were let in.

    content      every byte of the package is what was packed; what was changed on disk never runs: it is put
                 aside and unpacked again, if the archive still has the digest
    provenance   somebody we trust signed where exactly this digest comes from
    admission    we ourselves let this release, with this digest, these commands and this configuration,
                 into this environment

Checked whenever the runtime starts something: who changes a file, a row or a key afterwards starts nothing.
Invariants: what is missing is refused like what is wrong; every finding is told, once for each group until it
is seen well again. Neighbours: the runtime asks for a group's content just before it starts it, `origins`
proves provenances, the daemon hears the findings and writes them into the audit log.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

from tidegate import errors, ports
from tidegate.core import model, promotions
from tidegate.vault import origins, statements


class Content(Protocol):
    """Packages on this machine."""

    def verify(self, digest: str) -> None:
        """Raises StorageError unless every byte is as it was packed."""

    def repair(self, digest: str) -> None:
        """Unpack the archive again beside what was changed. Raises ArtifactError if it is damaged too."""

    def path(self, digest: str) -> Path:
        """The unpacked tree."""


#: Variables that the core adds to the configuration: addresses of services, and what it says of itself.
LINK_SUFFIX: Final = "_URL"
LOOPBACK: Final = "http://127.0.0.1:"
OWN: Final = "TIDEGATE_"

Check = Callable[[model.InstanceGroup], object]
"""Raises an error when the group may not run."""

Found = Callable[[model.InstanceGroup, str, str], None]
"""Told of what was found: of which group, in a word, in a sentence."""


class Admitting:
    """The content of a group, when all is proved. Threads may share it."""

    def __init__(self, content: Content, checks: Sequence[Check], *, found: Found) -> None:
        """`checks`: what else must be proved, cheap ones first. `found`: is told each finding once."""
        self._content: Final = content
        self._checks: Final = tuple(checks)
        self._found: Final = found
        self._turn: Final = threading.Lock()
        self._told: set[str] = set()

    def __call__(self, group: model.InstanceGroup) -> Path:
        """The read-only tree of its package. Raises SealError, StorageError, ArtifactError, NotFoundError."""
        try:
            self._prove(group)
        except errors.TidegateError as error:
            self._tell_once(group, f"{group.id} was not started. {error}")
            raise
        with self._turn:
            self._told.discard(group.id)
        return self._content.path(group.digest)

    def _prove(self, group: model.InstanceGroup) -> None:
        """The bytes last: nothing is unpacked for what may not run."""
        for check in self._checks:
            check(group)
        try:
            self._content.verify(group.digest)
        except errors.StorageError as changed:
            self._repair(group, changed)

    def _repair(self, group: model.InstanceGroup, changed: errors.StorageError) -> None:
        try:
            self._content.repair(group.digest)
            self._content.verify(group.digest)
        except errors.ArtifactError as error:
            raise errors.SealError(
                f"{changed.message} Its archive is damaged too: {error.message}",
                hint="Nothing of it is started. Deploy its source again, or restore the package store.",
            ) from error
        self._found(group, "repaired", f"{changed.message} It was put aside and unpacked again.")

    def _tell_once(self, group: model.InstanceGroup, sentence: str) -> None:
        """The loop asks again every second, and says the same."""
        with self._turn:
            known = group.id in self._told
            self._told.add(group.id)
        if not known:
            self._found(group, "refused", sentence)


def with_provenance(proved: Callable[[str, int, str], object]) -> Check:
    """A check that a trusted key says where the digest of the group's release comes from."""
    return lambda group: proved(group.key.app, group.release, group.digest)


def with_admission(seals: ports.Seals) -> Check:
    """A check that the group was let in by this control plane."""
    return lambda group: admitted(seals, group)


def admitted(seals: ports.Seals, group: model.InstanceGroup) -> None:
    """This very release may run there. Raises SealError."""
    name = f"r{group.release} has no admission to {group.key}"
    if not group.admission:
        raise errors.SealError(
            f"{name}: nothing starts without one.",
            hint="Deploy it: the gate admits what has passed. `--emergency` needs a role and a reason.",
        )
    claims = seals.opened(statements.ADMISSION, group.admission)
    wanted = {
        "app": group.key.app,
        "environment": group.key.environment,
        "release": group.release,
        "digest": group.digest,
    }
    wrong = differences(claims, wanted)
    if wrong:
        raise errors.SealError(
            f"{name}: the one that it shows is for {wrong}. Somebody changed the database.",
            hint=origins.RESTORE,
        )
    more = _beyond(group, claims.get("may"))
    if more:
        raise errors.SealError(
            f"r{group.release} was let into {group.key} without {more}. Somebody changed the database.",
            hint=origins.RESTORE,
        )


def _beyond(group: model.InstanceGroup, may: ports.Claim | None) -> str:
    """What the group would run, or run with, that its admission does not name; empty if there is nothing."""
    named = set(may) if isinstance(may, tuple) else set()
    if promotions.command_line(group.service, group.run, group.check.command) not in named:
        return f"the command of {group.service} that it would run now"
    for variable, value in group.environment:
        own = variable.endswith(LINK_SUFFIX) and value.startswith(LOOPBACK)
        own = own or (variable, value) == (model.CONNECTION_NAME, group.connection_name)
        if (
            not own
            and not variable.startswith(OWN)
            and promotions.variable_line(variable, value) not in named
        ):
            return f"the variable {variable} as it is now"
    return ""


def differences(claims: ports.Claims, wanted: Mapping[str, object]) -> str:
    """What a statement says instead of what was wanted, in words; empty if it says just that."""
    wrong = [what for what, value in wanted.items() if claims.get(what) != value]
    return ", ".join(f"{what} {str(claims.get(what))[:80]}" for what in wrong)

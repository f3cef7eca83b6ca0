"""Which user an app runs as.

Hides how numeric users are given out: one for each app and environment, so that staging cannot read what
belongs to production, derived from their names and the control plane's folder, and kept in a file, so that it
is the same for ever. They lie in the range that systemd uses for dynamic users, where no account of a person
is. Two control planes of a machine do not share one: when a build ends, all that its user runs is ended.

Neighbours: process.py, which asks under the runtime's lock.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
from dataclasses import dataclass
from pathlib import Path

from tidegate import errors
from tidegate.core import model
from tidegate.runtimes import procfs

FIRST_USER = 61_184
LAST_USER = 65_519

#: `run_as`: an own user for each app if we may switch users, the same user if not.
AUTO = "auto"

#: `run_as`: the user that Tidegate itself runs as.
SAME = "same"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A numeric user and group."""

    user: int
    group: int


def separates(run_as: str) -> bool:
    """Whether apps run as another user than Tidegate."""
    return os.geteuid() == 0 and run_as != SAME


def account(run_as: str, key: model.EnvironmentKey, register: Path) -> Account | None:
    """The account for an app in an environment; None: the same as ours.

    `register`: the file that remembers which numbers were given out. Raises MachineError, StorageError.
    """
    if run_as == SAME or (run_as == AUTO and os.geteuid() != 0):
        return None
    if run_as == AUTO:
        return _own_account(str(key), register)
    try:
        entry = pwd.getpwnam(run_as)
    except KeyError:
        raise errors.MachineError(
            f"There is no user {run_as!r} on this machine to run apps as.",
            hint="Create it, or set run_as to auto.",
        ) from None
    if entry.pw_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        raise errors.MachineError(
            f"Apps cannot run as user {run_as!r}: only root may switch users.",
            hint=f"Start `tide up` as root or as {run_as}, or set run_as to same.",
        )
    return Account(user=entry.pw_uid, group=entry.pw_gid)


def _own_account(name: str, register: Path) -> Account:
    try:
        given: dict[str, int] = json.loads(register.read_bytes()) if register.exists() else {}
    except (OSError, ValueError) as error:
        raise errors.StorageError(
            f"{register} cannot be read: {error}.", hint="It says which user each app runs as; restore it."
        ) from error
    if name not in given:
        given[name] = _free_number(f"{register.absolute()}:{name}", set(given.values()))
        temporary = register.with_suffix(".new")
        temporary.write_text(json.dumps(given, indent=1, sort_keys=True), encoding="utf-8")
        temporary.replace(register)
    return Account(user=given[name], group=given[name])


def _free_number(name: str, given: set[int]) -> int:
    taken = given | procfs.owners()
    count = LAST_USER - FIRST_USER + 1
    start = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) % count
    for offset in range(count):
        number = FIRST_USER + (start + offset) % count
        if number not in taken and not _is_account(number):
            return number
    raise errors.MachineError("There is no free user number left for another app on this machine.")


def _is_account(number: int) -> bool:
    try:
        pwd.getpwuid(number)
    except KeyError:
        return False
    return True

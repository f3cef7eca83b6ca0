"""Secrets of webhooks: one file per app, two valid at once, so that they can be changed without a gap.

Hides the files. Invariants: a secret is made here, shown once, and read by nobody but us: 0600, in a folder
of 0700; making a new one keeps the one before valid, and no older one. Neighbours: `web.hooks` compares with
them, `arrivals` makes them.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tidegate import errors
from tidegate.sources.repositories import APP

VALID: Final = 2
BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Keys:
    """Of all apps, in one folder."""

    root: Path

    def make(self, app: str) -> str:
        """A new secret, valid beside the newest one. Raises StorageError."""
        made = secrets.token_urlsafe(BYTES)
        kept = [made, *(key.decode() for key in self.valid(app))][:VALID]
        path = self._path(app)
        fresh = path.with_suffix(".new")
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh.unlink(missing_ok=True)
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write("".join(f"{key}\n" for key in kept))
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        except OSError as error:
            raise errors.StorageError(f"The secret {path} cannot be written: {error.strerror}.") from error
        return made

    def valid(self, app: str) -> tuple[bytes, ...]:
        """Newest first; none if there are none. Raises StorageError."""
        try:
            return tuple(self._path(app).read_bytes().split())[:VALID]
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise errors.StorageError(f"A webhook's secret cannot be read: {error.strerror}.") from error

    def drop(self, app: str) -> None:
        """Remove all of an app."""
        self._path(app).unlink(missing_ok=True)

    def _path(self, app: str) -> Path:
        if not APP.fullmatch(app):
            raise errors.NotFoundError("There is no app of that name.")
        return self.root / app

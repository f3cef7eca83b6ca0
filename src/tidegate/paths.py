"""Where Tidegate keeps what: the layout of the data folder, in one place.

    <home>/             0711  others may pass through, to the packages that they run
      settings.json     how the control plane was started
      state/            0700  the state store, and the series of past traffic
      packages/         0711  unpacked, read-only
      instances/        0700  one folder per instance: what it was started with, and its state
      data/             0711  one folder per app and environment that is its user's: survives releases
      tmp/              0711  one folder per instance that is its user's: does not
      logs/             0700  output of instances that are gone
      keys/             0700  of the control plane: what it seals, signs and chains with
      repositories/     0700  git repositories that are pushed to or watched, and what builds have printed
      builds/           0711  one folder per build that is under way, of the user who builds
      router/           0711  HAProxy's boot files; its unprivileged processes pass through, to their sockets
      control-plane.log

The runtime makes data, tmp and logs beside its instances. Modes here are those of `runtimes.instances` and
`haproxy.boot`: a folder that is in use must not change, not even for a moment.

Unix sockets lie in a folder of their own, because their paths are limited to 107 bytes.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tidegate import errors

#: `sun_path` holds 108 bytes with its final zero (unix(7)); some room is left for names of temporary files.
SOCKET_PATH_BYTES_MAX = 90


@dataclass(frozen=True, slots=True)
class Home:
    """The data folder of one control plane."""

    root: Path

    @property
    def settings(self) -> Path:
        return self.root / "settings.json"

    @property
    def state(self) -> Path:
        return self.root / "state"

    @property
    def database(self) -> Path:
        return self.state / "tidegate.db"

    @property
    def series(self) -> Path:
        """What was answered when: may be removed while no control plane runs."""
        return self.state / "series.db"

    @property
    def packages(self) -> Path:
        return self.root / "packages"

    @property
    def instances(self) -> Path:
        return self.root / "instances"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def repositories(self) -> Path:
        return self.root / "repositories"

    @property
    def builds(self) -> Path:
        return self.root / "builds"

    @property
    def router(self) -> Path:
        return self.root / "router"

    @property
    def log(self) -> Path:
        return self.root / "control-plane.log"

    @property
    def socket(self) -> Path:
        """Of the API: beside the state if the path is short enough, else in a private temporary folder."""
        direct = self.root / "api.sock"
        if len(os.fsencode(direct)) <= SOCKET_PATH_BYTES_MAX:
            return direct
        name = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"tidegate-{os.getuid()}-{name}" / "api.sock"

    def create(self) -> None:
        """Make the folders. Raises StorageError, naming the folder, when that is not possible."""
        for folder, mode in (
            (self.root, 0o711),
            (self.state, 0o700),
            (self.packages, 0o711),
            (self.instances, 0o700),
            (self.keys, 0o700),
            (self.repositories, 0o700),
            (self.builds, 0o711),
            (self.router, 0o711),
            (self.socket.parent, 0o711 if self.socket.parent == self.root else 0o700),
        ):
            _create_folder(folder, mode)


def _create_folder(folder: Path, mode: int) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if folder.stat().st_uid != os.getuid():
            raise errors.StorageError(
                f"The folder {folder} belongs to another user.",
                hint="Start Tidegate as that user, or choose a folder with --home.",
            )
        folder.chmod(mode)
    except OSError as error:
        raise errors.StorageError(
            f"The data folder {folder} cannot be written: {error.strerror}.",
            hint="Choose a folder that you may write with --home or TIDEGATE_HOME.",
        ) from error


def default_home() -> Home:
    """`TIDEGATE_HOME`, else /var/lib/tidegate for root, else the user's data folder (XDG)."""
    chosen = os.environ.get("TIDEGATE_HOME")
    if chosen:
        return Home(Path(chosen).expanduser().absolute())
    if os.getuid() == 0:
        return Home(Path("/var/lib/tidegate"))
    data = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Home(Path(data).expanduser().absolute() / "tidegate")

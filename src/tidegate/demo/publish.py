"""The shop's releases: copied, changed by one file, packed, sent and numbered, as `tide deploy` does it.

Hides the copies. Neighbours: `shop/` and `releases/` hold the files; `client` takes the package.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from tidegate import client, errors, manifest
from tidegate.artifacts import package

SHOP: Final = Path(__file__).with_name("shop")
RELEASES: Final = Path(__file__).with_name("releases")
#: The file that differs from release to release.
CHANGING: Final = Path("shop") / "offer.py"
CHUNK_BYTES: Final = 1024 * 1024


def release(connection: client.Client, number: int, folder: Path) -> client.Json:
    """Make and send release `number` of the shop; `folder`: where the copy goes, must not be there yet.

    Raises TidegateError.
    """
    source = copy(number, folder)
    with tempfile.TemporaryFile(dir=folder.parent) as archive:
        packed = package.pack(source, archive)
        archive.seek(0)
        if not connection.has_package(packed.digest):
            connection.upload(_chunks(archive), digest=packed.digest)
    text = (source / manifest.FILE_NAME).read_text("utf-8")
    return connection.add_release(manifest=text, digest=packed.digest, revision=f"demo, release {number}")


def copy(number: int, folder: Path) -> Path:
    """The shop's files as they are in this release. Raises StorageError."""
    changed = RELEASES / f"r{number}.py"
    try:
        shutil.copytree(SHOP, folder, ignore=shutil.ignore_patterns("__pycache__"))
        if changed.exists():
            shutil.copyfile(changed, folder / CHANGING)
    except OSError as error:
        raise errors.StorageError(f"The sample app cannot be copied to {folder}: {error}.") from error
    return folder


def _chunks(archive: IO[bytes]) -> Iterator[bytes]:
    while chunk := archive.read(CHUNK_BYTES):
        yield chunk

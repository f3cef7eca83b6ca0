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
#: How long each step of the shop's canary is held.
EVERY: Final = "4s"
CHUNK_BYTES: Final = 1024 * 1024


def release(connection: client.Client, change: str, folder: Path, *, every: str = EVERY) -> client.Json:
    """Make and send a release of the shop; `folder`: where the copy goes, must not be there yet.

    Raises TidegateError.
    """
    source = copy(change, folder, every=every)
    with tempfile.TemporaryFile(dir=folder.parent) as archive:
        packed = package.pack(source, archive)
        archive.seek(0)
        if not connection.has_package(packed.digest):
            connection.upload(_chunks(archive), digest=packed.digest)
    text = (source / manifest.FILE_NAME).read_text("utf-8")
    return connection.add_release(
        manifest=text, digest=packed.digest, revision=f"demo, {change or 'the shop'}"
    )


def copy(change: str, folder: Path, *, every: str = EVERY) -> Path:
    """The shop's files with this change of `releases`; empty: as they are. Raises StorageError.

    `every`: how long each step of its canary is held.
    """
    try:
        shutil.copytree(SHOP, folder, ignore=shutil.ignore_patterns("__pycache__"))
        if change:
            shutil.copyfile(RELEASES / f"{change}.py", folder / CHANGING)
        settings = folder / manifest.FILE_NAME
        text = settings.read_text("utf-8")
        settings.write_text(text.replace(f"every: {EVERY}", f"every: {every}"), "utf-8")
    except OSError as error:
        raise errors.StorageError(f"The sample app cannot be copied to {folder}: {error}.") from error
    return folder


def _chunks(archive: IO[bytes]) -> Iterator[bytes]:
    while chunk := archive.read(CHUNK_BYTES):
        yield chunk

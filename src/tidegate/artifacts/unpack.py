"""From a hostile archive to a read-only tree.

The reader has refused every member whose name or kind is wrong before it comes here; this writes so that it
would not matter: each name is made new (`O_EXCL`), never followed (`O_NOFOLLOW`), in a folder that was
opened step by step from the root, and no link exists before everything else is there.
Invariant: nothing is written outside the root.
Neighbours: `archive` reads, `content` gives the root and removes it when something was refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import closing

from tidegate.artifacts import disk
from tidegate.artifacts.archive import ArchiveReader
from tidegate.artifacts.folder import SEALED_FOLDER_MODE, sealed_mode
from tidegate.artifacts.members import Kind, Member


def unpack(reader: ArchiveReader, root_fd: int) -> None:
    """Write all members into an open, empty folder, then make them read-only.

    Raises:
        ArtifactError: from the reader; what was written so far stays for the caller to remove.
        OSError: from the disk.
    """
    with closing(_OpenFolders(root_fd)) as folders:
        for member, content in reader.members():
            folder_fd, name = folders.holding(member.path)
            if member.kind is Kind.FILE:
                _write_file(folder_fd, name, member, content)
            elif member.kind is Kind.FOLDER:
                os.mkdir(name, 0o700, dir_fd=folder_fd)
    for path, target in reader.census.links:
        parent, _, name = path.rpartition("/")
        with disk.opened_below(root_fd, parent) as folder_fd:
            os.symlink(target, name, dir_fd=folder_fd)
    for path in (*reversed(reader.census.folders), ""):
        with disk.opened_below(root_fd, path) as folder_fd:
            os.fchmod(folder_fd, SEALED_FOLDER_MODE)


class _OpenFolders:
    """The open folders from the root to the last member; members come depth first, so one path is enough."""

    def __init__(self, root_fd: int) -> None:
        self._levels = [("", os.dup(root_fd))]

    def holding(self, path: str) -> tuple[int, str]:
        """The open folder that holds a member, and the member's name in it."""
        cut = path.rfind("/") + 1
        wanted, name = path[:cut], path[cut:]
        while not wanted.startswith(self._levels[-1][0]):
            os.close(self._levels.pop()[1])
        here, descriptor = self._levels[-1]
        if here != wanted:
            # A folder that is not open yet is a child of the last one that is.
            descriptor = os.open(wanted[len(here) : -1], disk.FOLDER_FLAGS, dir_fd=descriptor)
            self._levels.append((wanted, descriptor))
        return descriptor, name

    def close(self) -> None:
        for _, descriptor in self._levels:
            os.close(descriptor)


def _write_file(folder_fd: int, name: str, member: Member, content: Iterator[bytes]) -> None:
    with disk.opened(name, disk.NEW_FILE_FLAGS, dir_fd=folder_fd) as descriptor:
        for piece in content:
            disk.write_all(descriptor, piece)
        os.fchmod(descriptor, sealed_mode(member))

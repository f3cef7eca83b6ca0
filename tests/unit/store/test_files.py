"""Which file system a folder is on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidegate.store import files

MOUNTS = r"""22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:27 / /srv rw shared:1 master:2 - nfs4 server:/srv rw
31 30 0:28 / /srv/fast rw - xfs /dev/vdb rw
32 22 0:29 / /home/ada/my\040cloud rw - fuse.sshfs ada@host: rw
33 22 0:30 / /data rw - ext4 /dev/vdc rw
34 22 0:31 / /data rw - cifs //server/data rw
broken line
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/tidegate", "ext4"),
        ("/srv/tidegate", "nfs4"),
        ("/srv", "nfs4"),
        ("/srvother", "ext4"),
        ("/srv/fast/tidegate", "xfs"),
        ("/home/ada/my cloud/x", "fuse.sshfs"),
        ("/data/x", "cifs"),
    ],
)
def test_innermost_and_newest_mount_decides(path: str, kind: str) -> None:
    """The deepest mount point above a folder says its file system; of two upon one point, the later."""
    assert files.filesystem_type(MOUNTS, Path(path)) == kind


def test_unknown_mounts_are_unknown() -> None:
    """Without a mount table the file system is unknown, and not refused."""
    assert files.filesystem_type("", Path("/data")) == ""
    assert not files.is_network("")


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "fuse", "fuse.sshfs", "ceph"])
def test_network_file_systems_are_known(kind: str) -> None:
    """What keeps its files on another machine, or may, cannot hold a write-ahead log."""
    assert files.is_network(kind)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuseblk"])
def test_local_file_systems_are_accepted(kind: str) -> None:
    """Disks of this machine are fit."""
    assert not files.is_network(kind)

"""From a folder to a package: the same content has the same digest; what must not go in is named."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import socket
import subprocess
import tarfile
from pathlib import Path

import pytest
import zstandard

from tidegate.artifacts.members import PackageLimits
from tidegate.artifacts.package import Package, pack
from tidegate.errors import ArtifactError, StorageError


def packed(source: Path) -> tuple[Package, bytes]:
    """The package and its archive, decompressed."""
    out = io.BytesIO()
    package = pack(source, out)
    return package, zstandard.ZstdDecompressor().decompressobj().decompress(out.getvalue())


def refused(source: Path, limits: PackageLimits | None = None) -> str:
    with pytest.raises(ArtifactError) as caught:
        pack(source, io.BytesIO(), limits=limits)
    return str(caught.value)


def test_the_digest_is_that_of_the_archive_before_compression(source: Path) -> None:
    """The identity does not depend on the compressor."""
    package, tar = packed(source)
    assert package.digest == f"sha256:{hashlib.sha256(tar).hexdigest()}"
    assert package.files == 2
    assert package.size_bytes == len(b"#!/bin/sh\nexec true\n") + len(b"<h1>hello</h1>\n")


def test_a_package_can_be_read_by_tar(source: Path) -> None:
    """Members come in order, with normal permissions, and nothing of the builder's machine."""
    _, tar = packed(source)
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        names = [(info.name, info.mode, info.linkname) for info in archive]
    assert names == [
        ("bin", 0o755, ""),
        ("bin/api", 0o755, ""),
        ("bin/start", 0o755, "api"),
        ("current", 0o755, "bin"),
        ("empty", 0o755, ""),
        ("index.html", 0o644, ""),
    ]


def test_time_owner_and_permissions_do_not_change_the_digest(source: Path) -> None:
    """What differs from machine to machine is not part of the identity."""
    before, _ = packed(source)
    for path in source.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o077 | 0o1000 * path.is_dir())
        if os.geteuid() == 0:
            os.chown(path, 12_345, 54_321, follow_symlinks=False)
    assert packed(source)[0] == before


def test_only_the_owners_bit_makes_a_program(source: Path) -> None:
    """What group and others may do depends on the builder's umask and is not part of the identity."""
    before, _ = packed(source)
    (source / "index.html").chmod(0o655)
    (source / "bin" / "api").chmod(0o700)
    assert packed(source)[0] == before


@pytest.mark.parametrize("change", ["byte", "name", "executable", "link", "folder"])
def test_what_matters_changes_the_digest(source: Path, change: str) -> None:
    """Content, names, the executable bit, links and empty folders are part of the identity."""
    before, _ = packed(source)
    if change == "byte":
        (source / "index.html").write_bytes(b"<h1>Hello</h1>\n")
    elif change == "name":
        (source / "index.html").rename(source / "index.htm")
    elif change == "executable":
        (source / "bin" / "api").chmod(0o644)
    elif change == "link":
        (source / "current").unlink()
        (source / "current").symlink_to("./bin")
    else:
        (source / "empty").rmdir()
    assert packed(source)[0].digest != before.digest


def test_hard_links_become_files(source: Path) -> None:
    """Two names of one file are two files, so that the digest does not depend on how the build made them."""
    (source / "copy").write_bytes((source / "index.html").read_bytes())
    separate, _ = packed(source)
    (source / "copy").unlink()
    (source / "copy").hardlink_to(source / "index.html")
    assert packed(source)[0] == separate


def test_the_folder_may_be_named_through_a_link(source: Path, tmp_path: Path) -> None:
    """Only what is inside the folder is checked for links, not the way to it."""
    (tmp_path / "latest").symlink_to(source)
    assert packed(tmp_path / "latest")[0] == packed(source)[0]


def test_a_file_appears_when_it_is_complete(source: Path, tmp_path: Path) -> None:
    """Packing into a path writes beside it first and leaves nothing else there."""
    out = tmp_path / "packages"
    out.mkdir()
    (out / "app.tar.zst").write_bytes(b"old")
    package = pack(source, out / "app.tar.zst")
    assert [path.name for path in out.iterdir()] == ["app.tar.zst"]
    tar = zstandard.ZstdDecompressor().decompressobj().decompress((out / "app.tar.zst").read_bytes())
    assert package.digest == f"sha256:{hashlib.sha256(tar).hexdigest()}"


def test_a_refused_folder_leaves_the_old_file(source: Path, tmp_path: Path) -> None:
    """If packing fails, what was at the path stays, and no part of the new one is left."""
    out = tmp_path / "packages"
    out.mkdir()
    (out / "app.tar.zst").write_bytes(b"old")
    (source / "out").symlink_to("/etc")
    with pytest.raises(ArtifactError, match="absolute path '/etc'"):
        pack(source, out / "app.tar.zst")
    assert [path.name for path in out.iterdir()] == ["app.tar.zst"]
    assert (out / "app.tar.zst").read_bytes() == b"old"


def test_a_package_is_not_written_into_itself(source: Path) -> None:
    """A target inside the folder that is packed is refused, because it would be part of itself."""
    with pytest.raises(ArtifactError, match="part of itself"):
        pack(source, source / "bin" / "app.tar.zst")
    assert not (source / "bin" / "app.tar.zst").exists()


def test_progress_counts_up_to_the_archive(source: Path) -> None:
    """The callback sees growing numbers that end at the size of the archive before compression."""
    seen: list[int] = []
    out = io.BytesIO()
    pack(source, out, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[-1] == len(packed(source)[1])


def test_missing_and_empty_folders_are_refused_with_a_hint(tmp_path: Path) -> None:
    """The usual mistake is a build that writes elsewhere, and the message asks for it."""
    assert "No such file or directory" in refused(tmp_path / "nothing")
    (tmp_path / "file").write_bytes(b"")
    assert "Not a directory" in refused(tmp_path / "file")
    (tmp_path / "empty").mkdir()
    assert "it is empty" in refused(tmp_path / "empty")
    assert "artifact.package" in refused(tmp_path / "empty")


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("/usr/bin/python3", "a link to the absolute path '/usr/bin/python3'"),
        ("../../outside", "leads out of the package"),
        ("nowhere", "'nowhere', which is not in the package"),
        ("python", "round in a circle"),
    ],
)
def test_links_out_of_the_folder_are_refused_with_what_to_do(source: Path, target: str, why: str) -> None:
    """The link is named; for those that can be replaced by what they point to, the hint says so."""
    (source / "bin" / "python").symlink_to(target)
    message = refused(source)
    assert "'bin/python'" in message
    assert why in message
    assert target == "python" or "opy " in message


def test_special_files_are_refused(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets and named pipes are named, and a pipe does not block the packing."""
    os.mkfifo(source / "pipe")
    assert "'pipe' is a named pipe" in refused(source)
    (source / "pipe").unlink()
    monkeypatch.chdir(source)  # a socket's path is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
        assert "'socket' is a socket" in refused(source)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_devices_are_refused(source: Path) -> None:
    """Device nodes are named."""
    try:
        os.mknod(source / "null", 0o20666, os.makedev(1, 3))
    except OSError as error:
        if error.errno != errno.EPERM:
            raise
        pytest.skip("devices are not allowed here")
    assert "'null' is a character device" in refused(source)


def test_names_that_would_be_refused_on_arrival_are_refused_on_departure(source: Path) -> None:
    """Not UTF-8, control characters, other case: the same rules, while the builder can still rename."""
    for name in (b"caf\xe9", b"a\nb", b"INDEX.HTML"):
        path = source / os.fsdecode(name)
        path.write_bytes(b"")
        assert "ename" in refused(source)
        path.unlink()


def test_limits_hold_when_packing(source: Path) -> None:
    """A folder over a limit is refused before it becomes a release."""
    assert "one member too many" in refused(source, PackageLimits(members_max=5))
    assert "'.' holds more than 3 members" in refused(source, PackageLimits(members_max=3))
    assert "bigger than 1000 bytes" in refused(source, PackageLimits(bytes_max=1000))
    (source / "a").write_bytes(bytes(3_000_000))
    assert "'a' has 3000000 bytes and makes" in refused(source, PackageLimits(bytes_max=1_000_000))
    assert "times as much is allowed" in refused(source, PackageLimits(ratio_free_bytes=1_000_000))


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_files_are_named(source: Path) -> None:
    """A file that the builder cannot read is named with what to do."""
    (source / "index.html").chmod(0)
    assert "'index.html' cannot be read (Permission denied)" in refused(source)


def test_a_file_that_changes_while_it_is_packed_is_refused(source: Path) -> None:
    """A build that still writes into the folder is noticed instead of packed half."""
    (source / "index.html").write_bytes(b"x" * 3_000_000)

    def truncate(done_bytes: int) -> None:
        if done_bytes > 1_000_000:
            os.truncate(source / "index.html", 10)

    with pytest.raises(ArtifactError, match=r"'index\.html' changed while it was read"):
        pack(source, io.BytesIO(), progress=truncate)


class FullDisk(io.BytesIO):
    name = "packages/app.tar.zst"

    def write(self, data: object, /) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_is_not_the_builders_fault(source: Path) -> None:
    """An error of the output is a storage error, told from those of the folder."""
    with pytest.raises(
        StorageError, match=r"Cannot write packages/app.tar.zst: the disk is full\. Free some"
    ):
        pack(source, FullDisk())


def test_the_target_folder_must_be_there(source: Path, tmp_path: Path) -> None:
    """A missing folder for the output is a storage error with a sentence."""
    with pytest.raises(StorageError, match=r"Cannot write .*: it is not there\."):
        pack(source, tmp_path / "missing" / "app.tar.zst")


@pytest.mark.real
def test_gnu_tar_unpacks_a_package(source: Path, tmp_path: Path) -> None:
    """The archive is an ordinary one for whoever wants to look into it."""
    (source / ("long" * 40)).write_bytes(b"long")
    (source / "größe").write_bytes(b"large")
    _, tar = packed(source)
    subprocess.run(["tar", "-xf", "-", "-C", str(tmp_path)], input=tar, check=True, env={"LC_ALL": "C.UTF-8"})
    assert (tmp_path / ("long" * 40)).read_bytes() == b"long"
    assert (tmp_path / "größe").read_bytes() == b"large"
    assert (tmp_path / "bin" / "start").read_bytes() == b"#!/bin/sh\nexec true\n"

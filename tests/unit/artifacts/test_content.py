"""The store on a real disk: whole or not at all, read-only, checked, repaired, collected."""

from __future__ import annotations

import errno
import io
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.artifacts import archives
from tidegate.artifacts import content
from tidegate.artifacts.content import ContentStore
from tidegate.artifacts.package import Package, pack
from tidegate.errors import ArtifactError, NotFoundError, StorageError

UNKNOWN = f"sha256:{'0' * 64}"


def packed(source: Path) -> tuple[Package, bytes]:
    out = io.BytesIO()
    return pack(source, out), out.getvalue()


@pytest.fixture
def package(store: ContentStore, source: Path) -> Package:
    """The small app, in the store."""
    return store.add(io.BytesIO(packed(source)[1]))


def numbered(number: int) -> bytes:
    """A small archive, another one for each number."""
    return archives.archive(archives.file(b"number", b"%d" % number))


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """What somebody with enough rights does to a sealed folder, its mode put back afterwards."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    folder.chmod(0o755)
    yield
    folder.chmod(mode)


def test_a_package_comes_out_as_it_went_in(store: ContentStore, source: Path) -> None:
    """The unpacked tree has the content, links and executable bits of the folder that was packed."""
    before, data = packed(source)
    package = store.add(io.BytesIO(data), digest=before.digest)
    assert package == before
    assert store.digests() == (package.digest,)
    tree = store.path(package.digest)
    assert pack(tree, io.BytesIO()) == package
    assert (tree / "bin" / "start").readlink() == Path("api")
    assert os.access(tree / "current" / "start", os.X_OK)
    assert store.archive(package.digest).read_bytes() == data
    store.verify(package.digest)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077], ids=oct)
def test_permissions_do_not_depend_on_the_umask(root: Path, source: Path, umask: int) -> None:
    """Trees are read-only for all, folders on the way are passable but not listable, archives are private."""
    data = packed(source)[1]
    before = os.umask(umask)
    try:
        root.parent.mkdir(mode=0o755, exist_ok=True)
        root.parent.chmod(0o755)
        store = ContentStore(root)
        package = store.add(io.BytesIO(data))
    finally:
        os.umask(before)
    tree = store.path(package.digest)
    modes = {
        root: 0o711,
        tree.parent: 0o711,
        tree: 0o555,
        tree / "empty": 0o555,
        tree / "bin" / "api": 0o555,
        tree / "index.html": 0o444,
        store.archive(package.digest): 0o400,
    }
    assert {path: stat.S_IMODE(path.lstat().st_mode) for path in modes} == modes
    store.remove(package.digest)


def test_adding_twice_changes_nothing(
    store: ContentStore, root: Path, source: Path, package: Package
) -> None:
    """The second time the stream is checked and thrown away."""
    before = archives.everything_below(root)
    assert store.add(io.BytesIO(packed(source)[1])) == package
    assert archives.everything_below(root) == before


def test_another_digest_than_announced_is_refused(store: ContentStore, root: Path, source: Path) -> None:
    """A sound package that is not the one expected does not get in."""
    data = packed(source)[1]
    with pytest.raises(ArtifactError, match=f"not {UNKNOWN} as announced"):
        store.add(io.BytesIO(data), digest=UNKNOWN)
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    "digest",
    [
        "",
        "sha256:",
        "0" * 64,
        f"sha512:{'0' * 64}",
        f"sha256:{'A' * 64}",
        f"sha256:{'0' * 63}",
        "sha256:../../x",
    ],
)
def test_only_digests_are_digests(store: ContentStore, digest: str) -> None:
    """Whatever else is asked for is refused before it touches a path."""
    calls: list[Callable[[], object]] = [
        lambda: store.path(digest),
        lambda: store.archive(digest),
        lambda: store.verify(digest),
        lambda: store.repair(digest),
        lambda: store.remove(digest),
        lambda: store.collect([digest]),
        lambda: store.add(io.BytesIO(), digest=digest),
    ]
    for call in calls:
        with pytest.raises(ArtifactError, match="is not a digest"):
            call()


def test_what_is_not_here_is_said_to_be_not_here(store: ContentStore) -> None:
    """An unknown digest is a not-found error with what to do; removing it is done already."""
    for call in (store.path, store.archive, store.verify, store.repair):
        with pytest.raises(
            NotFoundError, match=f"{UNKNOWN} is not on this machine. Deploy its release again"
        ):
            call(UNKNOWN)
    store.remove(UNKNOWN)
    assert store.digests() == ()


def change_byte(tree: Path) -> None:
    with writable(tree / "index.html"):
        (tree / "index.html").write_bytes(b"<h1>h3llo</h1>\n")
    (tree / "index.html").chmod(0o444)


def change_size(tree: Path) -> None:
    (tree / "index.html").chmod(0o644)
    (tree / "index.html").write_bytes(b"")
    (tree / "index.html").chmod(0o444)


def change_root_mode(tree: Path) -> None:
    tree.chmod(0o755)


def change_file_mode(tree: Path) -> None:
    (tree / "index.html").chmod(0o644)


def set_user_bit(tree: Path) -> None:
    (tree / "bin" / "api").chmod(0o4555)


def take_executable_bit(tree: Path) -> None:
    (tree / "bin" / "api").chmod(0o444)


def change_folder_mode(tree: Path) -> None:
    (tree / "empty").chmod(0o777)


def remove_file(tree: Path) -> None:
    with writable(tree):
        (tree / "index.html").unlink()


def remove_folder(tree: Path) -> None:
    with writable(tree):
        (tree / "empty").rmdir()


def add_file(tree: Path) -> None:
    with writable(tree / "empty"):
        (tree / "empty" / "cache").write_bytes(b"")
    (tree / "empty" / "cache").chmod(0o444)


def add_folder(tree: Path) -> None:
    with writable(tree / "bin"):
        (tree / "bin" / "__pycache__").mkdir()
        (tree / "bin" / "__pycache__" / "api.pyc").write_bytes(b"")
    (tree / "bin" / "__pycache__").chmod(0o555)


def add_pipe(tree: Path) -> None:
    with writable(tree):
        os.mkfifo(tree / "pipe")


def add_bad_name(tree: Path) -> None:
    with writable(tree):
        (tree / os.fsdecode(b"\xff\n")).write_bytes(b"")


def turn_link(tree: Path) -> None:
    with writable(tree / "bin"):
        (tree / "bin" / "start").unlink()
        (tree / "bin" / "start").symlink_to("/bin/sh")


def turn_link_elsewhere_inside(tree: Path) -> None:
    with writable(tree):
        (tree / "current").unlink()
        (tree / "current").symlink_to("./bin")


def file_for_folder(tree: Path) -> None:
    with writable(tree):
        (tree / "empty").rmdir()
        (tree / "empty").write_bytes(b"")


DAMAGE: dict[Callable[[Path], None], str] = {
    change_byte: "'index.html' has other content",
    change_size: "'index.html' has 0 bytes, not 15",
    change_root_mode: "its root folder has another mode",
    change_file_mode: "'index.html' has mode 0644, not 0444",
    set_user_bit: "'bin/api' has mode 4555, not 0555",
    take_executable_bit: "'bin/api' has mode 0444, not 0555",
    change_folder_mode: "'empty' has mode 0777, not 0555",
    remove_file: "'index.html' is missing",
    remove_folder: "'empty' is missing",
    add_file: "'empty/cache' was added",
    add_folder: "'bin/__pycache__' was added",
    add_pipe: "'pipe' was added",
    add_bad_name: r"'\\xff\n' was added",
    turn_link: "(Package refused: 'bin/start' is a link to the absolute path '/bin/sh'.)",
    turn_link_elsewhere_inside: "'current' points to './bin', not to 'bin'",
    file_for_folder: "'empty' is a file, not a folder",
}


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_every_change_of_the_tree_is_found_named_and_repaired(
    store: ContentStore, package: Package, damage: Callable[[Path], None]
) -> None:
    """Content, permissions, kinds, missing and added members: verify names it, repair undoes it."""
    tree = store.path(package.digest)
    damage(tree)
    with pytest.raises(StorageError) as caught:
        store.verify(package.digest)
    assert caught.value.message.endswith(f"{DAMAGE[damage]}.")
    assert f"The package {package.digest} on this machine is not what was built: " in caught.value.message
    assert "Repair it" in str(caught.value)
    store.repair(package.digest)
    store.verify(package.digest)
    assert pack(tree, io.BytesIO()) == package


def test_many_changes_are_named_in_part(store: ContentStore, package: Package) -> None:
    """The message stays short when everything is gone."""
    tree = store.path(package.digest)
    with writable(tree):
        for number in range(7):
            (tree / f"extra{number}").write_bytes(b"")
    with pytest.raises(StorageError, match="'extra4' was added; and more"):
        store.verify(package.digest)


def test_a_missing_tree_is_found_and_repaired(store: ContentStore, package: Package) -> None:
    """Also when a crash has interrupted a repair between its two renames."""
    tree = store.path(package.digest)
    tree.chmod(0o755)
    tree.rename(tree.with_name("gone"))
    with pytest.raises(StorageError, match="its files are missing"):
        store.verify(package.digest)
    store.repair(package.digest)
    store.verify(package.digest)


def test_a_tree_that_is_a_link_is_not_followed(store: ContentStore, package: Package, tmp_path: Path) -> None:
    """A tree replaced by a link to a good copy is still not the tree."""
    tree = store.path(package.digest)
    tree.chmod(0o755)
    tree.rename(tree.with_name("elsewhere"))
    tree.with_name("elsewhere").chmod(0o555)
    tree.symlink_to("elsewhere")
    with pytest.raises(StorageError, match="Cannot check the package"):
        store.verify(package.digest)
    store.repair(package.digest)
    store.verify(package.digest)


def test_repair_leaves_running_instances_their_files(store: ContentStore, package: Package) -> None:
    """What was opened through the damaged tree stays readable until the package is removed."""
    tree = store.path(package.digest)
    descriptor = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)
    try:
        change_byte(tree)
        store.repair(package.digest)
        assert os.stat("index.html", dir_fd=descriptor).st_nlink == 1
        store.remove(package.digest)
        with pytest.raises(FileNotFoundError):
            os.stat("index.html", dir_fd=descriptor)
    finally:
        os.close(descriptor)
    assert store.digests() == ()


def test_damage_of_the_archive_is_told_apart(store: ContentStore, root: Path, package: Package) -> None:
    """If the archive is damaged too, nothing is repaired from it and the tree stays as it is."""
    archive = store.archive(package.digest)
    archive.chmod(0o600)
    archive.write_bytes(archive.read_bytes()[:-1])
    store.verify(package.digest)
    change_byte(store.path(package.digest))
    with pytest.raises(StorageError, match="its archive is damaged too"):
        store.verify(package.digest)
    before = archives.everything_below(root)
    with pytest.raises(ArtifactError, match="cut short"):
        store.repair(package.digest)
    assert archives.everything_below(root) == before


def test_archive_is_checked_by_itself(store: ContentStore, package: Package) -> None:
    """Whole, cut short, of something else, and gone: before anything relies on it."""
    store.verify_archive(package.digest)
    archive = store.archive(package.digest)
    archive.chmod(0o600)
    content = archive.read_bytes()
    archive.write_bytes(content[:-1])
    with pytest.raises(ArtifactError, match="cut short"):
        store.verify_archive(package.digest)
    archive.write_bytes(numbered(1))
    with pytest.raises(ArtifactError, match="holds another package"):
        store.verify_archive(package.digest)
    archive.unlink()
    with pytest.raises(StorageError):
        store.verify_archive(package.digest)
    with pytest.raises(NotFoundError):
        store.verify_archive(UNKNOWN)


def test_an_exchanged_archive_does_not_repair(store: ContentStore, root: Path, package: Package) -> None:
    """A sound archive of something else is refused by its digest."""
    archive = store.archive(package.digest)
    archive.chmod(0o600)
    archive.write_bytes(numbered(1))
    with pytest.raises(ArtifactError, match="its digest is"):
        store.repair(package.digest)
    store.verify(package.digest)


def test_collect_removes_only_what_nothing_can_go_back_to(store: ContentStore, root: Path) -> None:
    """What is kept stays, what is not goes, and the answer says what went."""
    digests = [store.add(io.BytesIO(numbered(number))).digest for number in range(5)]
    gone = store.collect([digests[1], digests[3], UNKNOWN], grace_s=0)
    assert gone == tuple(sorted({digests[0], digests[2], digests[4]}))
    assert store.digests() == tuple(sorted({digests[1], digests[3]}))
    assert len(list(root.iterdir())) == 2
    store.verify(digests[1])


def test_collect_spares_what_was_just_added(store: ContentStore) -> None:
    """A package whose release is not recorded yet is young; adding it again makes it young again."""
    old, young, renewed = (store.add(io.BytesIO(numbered(number))).digest for number in range(3))
    for digest in (old, renewed):
        os.utime(store.path(digest).parent, (1, 1))
    store.add(io.BytesIO(numbered(2)))
    assert store.collect([], grace_s=60) == (old,)
    assert store.digests() == tuple(sorted({young, renewed}))


def test_collect_with_a_mistake_in_keep_removes_nothing(store: ContentStore, package: Package) -> None:
    """A digest that cannot be read must not cost the package that it meant."""
    with pytest.raises(ArtifactError, match="is not a digest"):
        store.collect([package.digest.upper()], grace_s=0)
    assert store.digests() == (package.digest,)


def test_a_start_removes_what_a_crash_left_and_nothing_else(
    store: ContentStore, root: Path, package: Package
) -> None:
    """Leftover folders without a lock go, also read-only ones; packages and strange files stay."""
    left = root / "incoming-crashed"
    (left / "package" / "tree" / "sealed").mkdir(parents=True)
    (left / "package" / "tree" / "sealed" / "file").write_bytes(b"")
    (left / "package" / "tree" / "sealed").chmod(0o555)
    (left / "package" / "tree" / "out").symlink_to("/")
    (root / "lost+found").mkdir()
    ContentStore(root)
    assert {path.name for path in root.iterdir()} == {package.digest.removeprefix("sha256:"), "lost+found"}
    store.verify(package.digest)


class Watched(io.BytesIO):
    """A stream that does something when it is read for the first time, and again at its end."""

    def __init__(self, data: bytes, action: Callable[[], object]) -> None:
        super().__init__(data)
        self._action = action

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(size)
        self._action()
        return piece


def test_a_start_leaves_the_work_of_others_alone(store: ContentStore, root: Path, source: Path) -> None:
    """A second process that starts while a package comes in does not remove what the first is filling."""
    package = store.add(Watched(packed(source)[1], lambda: ContentStore(root)))
    store.verify(package.digest)


def test_a_sweep_that_is_faster_than_the_lock_is_noticed(root: Path, store: ContentStore) -> None:
    """A new folder that was taken or removed before it could be locked is not worked in."""
    place = root / "incoming-new"
    assert content._lock_own(place) is None
    place.mkdir()
    descriptor = content._lock_own(place)
    assert descriptor is not None
    try:
        assert content._lock_own(place) is None
        store.sweep()
        assert place.exists()
    finally:
        os.close(descriptor)
    store.sweep()
    assert not place.exists()


def test_two_adds_of_the_same_package_at_once_end_in_one(
    store: ContentStore, root: Path, source: Path
) -> None:
    """Both have everything written before either publishes; both succeed, and there is one package."""
    before, data = packed(source)
    barrier = threading.Barrier(2, timeout=30)
    results: list[Package] = []

    def add() -> None:
        results.append(store.add(Watched(data, barrier.wait)))

    threads = [threading.Thread(target=add) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert results == [before, before]
    assert [path.name for path in root.iterdir()] == [before.digest.removeprefix("sha256:")]
    store.verify(before.digest)


class Broken(io.BytesIO):
    """A stream that breaks off after a while."""

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(100)
        if not piece:
            raise ConnectionResetError(errno.ECONNRESET, "Connection reset by peer")
        return piece


def test_a_stream_that_breaks_off_is_not_the_disks_fault(
    store: ContentStore, root: Path, source: Path
) -> None:
    """An error of the sender is an artifact error, and nothing is left."""
    with pytest.raises(ArtifactError, match=r"could not be read to its end \(Connection reset by peer\)"):
        store.add(Broken(packed(source)[1][:-10]))
    assert list(root.iterdir()) == []


def test_an_interrupt_leaves_nothing(store: ContentStore, root: Path, source: Path) -> None:
    """Also when somebody presses Ctrl-C in the middle."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.add(Watched(packed(source)[1], interrupt))
    assert list(root.iterdir()) == []


def test_a_store_needs_a_folder(tmp_path: Path) -> None:
    """A file where the store should be is a storage error with a sentence."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="Cannot use the package store"):
        ContentStore(tmp_path / "file")
    with pytest.raises(StorageError, match=r"it is not a folder\. Move that file away"):
        ContentStore(tmp_path / "file" / "store")


def test_a_store_that_lost_its_folder_says_so(store: ContentStore, root: Path, source: Path) -> None:
    """If the folder disappears under a running store, each call fails with a sentence."""
    root.rmdir()
    calls: list[Callable[[], object]] = [
        store.digests,
        store.sweep,
        lambda: store.add(io.BytesIO(packed(source)[1])),
        lambda: store.remove(UNKNOWN),
    ]
    for call in calls:
        with pytest.raises(StorageError, match="it is not there"):
            call()
    root.mkdir()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_without_rights_says_so(store: ContentStore, root: Path, source: Path) -> None:
    """A folder that cannot be written is a storage error that says whose folder it must be."""
    data = packed(source)[1]
    root.chmod(0o500)
    try:
        with pytest.raises(StorageError, match=r"permission denied\. Let the user who runs Tidegate own"):
            store.add(io.BytesIO(data))
    finally:
        root.chmod(0o700)
    assert list(root.iterdir()) == []

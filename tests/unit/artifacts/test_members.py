"""The rules of what may be in a package, on values."""

from __future__ import annotations

import time

import pytest

from tidegate.artifacts.members import Census, Kind, Member, PackageLimits, shown, vet_path, vet_target
from tidegate.errors import ArtifactError

LIMITS = PackageLimits()


def file(path: str, size_bytes: int = 0) -> Member:
    return Member(path=path, kind=Kind.FILE, size_bytes=size_bytes)


def folder(path: str) -> Member:
    return Member(path=path, kind=Kind.FOLDER)


def link(path: str, target: str) -> Member:
    return Member(path=path, kind=Kind.LINK, target=target)


def census(*members: Member, limits: PackageLimits = LIMITS) -> Census:
    taken = Census(limits)
    for member in members:
        taken.admit(member)
    taken.finish()
    return taken


@pytest.mark.parametrize(
    "path",
    [
        "a",
        "bin/api",
        "...",
        "..a",
        "a..",
        "-rf",
        "with space",
        "back\\slash",
        "größe/日本語",
        "~",
        "a:b",
        "x" * 255,
    ],
)
def test_plain_names_are_taken_as_they_are(path: str) -> None:
    """A name that can only mean a place below the root is taken unchanged."""
    assert vet_path(path.encode(), LIMITS) == path


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "empty name"),
        (b"/", "absolute"),
        (b"/etc/passwd", "absolute"),
        (b"//etc/passwd", "absolute"),
        (b"..", "climbs out"),
        (b"../a", "climbs out"),
        (b"a/../../b", "climbs out"),
        (b"a/..", "climbs out"),
        (b".", "empty part or '.'"),
        (b"./a", "empty part or '.'"),
        (b"a/./b", "empty part or '.'"),
        (b"a//b", "empty part or '.'"),
        (b"a/", "empty part or '.'"),
        (b"a\nb", "control character"),
        (b"a\x1b[2Jb", "control character"),
        (b"a\x7fb", "control character"),
        (b"a\0b", "control character"),
        ("a\u0085b".encode(), "control character"),
        ("a\u2028b".encode(), "control character"),
        ("gpj.\u202eexe".encode(), "turns text around"),
        (b"caf\xe9", "not UTF-8"),
        (b"\xed\xa0\x80", "not UTF-8"),
        (b"\xc0\xafetc", "not UTF-8"),
        (b"x" * 256, "longer than 255 bytes"),
        ("é".encode() * 128, "longer than 255 bytes"),
        (b"/".join([b"x" * 200] * 6), "1205 bytes; 1024 are allowed"),
        (b"/".join([b"d"] * 65), "65 folders deep; 64 are allowed"),
    ],
)
def test_names_that_mean_something_else_are_refused(raw: bytes, why: str) -> None:
    """A name that leaves the root, lies, or does not fit is refused with the reason."""
    with pytest.raises(ArtifactError) as caught:
        vet_path(raw, LIMITS)
    assert why in caught.value.message


def test_an_error_shows_a_hostile_name_without_obeying_it() -> None:
    """A name in a message is quoted, escaped and shortened, so that it cannot steer a terminal."""
    assert shown(b"a\x1b[2J\xff\n\xe2\x80\xae") == repr("a\x1b[2J\\xff\n\u202e")
    assert "\x1b" not in shown(b"\x1b[2J")
    assert "\u202e" not in shown("\u202e")
    assert len(shown(b"x" * 100_000)) < 200


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"", "empty link target"),
        (b"/usr/bin/python3", "link to the absolute path '/usr/bin/python3'"),
        (b"a\nb", "control character in its link target"),
        (b"\xff", "link target that is not UTF-8"),
        (b"x/" * 600, "link target of 1200 bytes"),
    ],
)
def test_link_targets_are_vetted_like_names(raw: bytes, why: str) -> None:
    """A link's target is relative, printable and bounded; the error names the link."""
    with pytest.raises(ArtifactError) as caught:
        vet_target("bin/python", raw, LIMITS)
    assert why in caught.value.message
    assert "'bin/python'" in caught.value.message


@pytest.mark.parametrize(
    "members",
    [
        [file("a"), link("b", "a")],
        [folder("bin"), file("bin/api"), link("bin/start", "api"), link("run", "bin/start")],
        [link("a", "b/c"), folder("b"), file("b/c")],
        [folder("a"), link("a/up", ".."), file("b")],
        [folder("a"), link("a/up", ".."), link("b", "a/./up//a/up/a/")],
        [link("a", "b"), link("b", "c"), link("c", "d"), file("d")],
        [folder("lib"), file("lib/x"), link("lib64", "lib"), link("y", "lib64/x")],
        [folder("a"), folder("a/b"), link("a/b/up", "../../a/b/../../a")],
        [folder("a"), link("self", ".")],
        [link("a", "b/.."), link("b", "c"), folder("c")],
    ],
    ids=range(10),
)
def test_links_that_end_inside_the_tree_are_taken(members: list[Member]) -> None:
    """A link may go up, down and through other links, as long as it ends at a member or the root."""
    links = [(member.path, member.target) for member in members if member.kind is Kind.LINK]
    assert list(census(*members).links) == links


CHAIN = [link(f"l{number:02}", f"l{number + 1:02}") for number in range(41)]


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([link("a", "..")], "'a' is a link that leads out"),
        ([link("a", "../a")], "'a' is a link that leads out"),
        ([folder("d"), link("d/a", "../../etc")], "'d/a' is a link that leads out"),
        ([folder("d"), link("d/a", "../d/../../d")], "'d/a' is a link that leads out"),
        ([link("a", "b"), folder("b"), link("b/c", "../..")], "'b/c' is a link that leads out"),
        (
            [folder("c"), folder("c/d"), link("e", "c/d"), link("f", "e/../../..")],
            "'f' is a link that leads out",
        ),
        ([link("a", "b")], "'a' is a link to 'b', which is not in the package"),
        ([link("a", "b/../c"), file("c")], "'a' is a link to 'b', which is not in the package"),
        ([link("a", "a")], "'a' goes through more than 40 links"),
        ([link("a", "b"), link("b", "a")], "'a' goes through more than 40 links"),
        ([link("a", "b/x"), link("b", "a/y")], "'a' goes through more than 40 links"),
        ([*CHAIN, file("l41")], "goes through more than 40 links"),
        ([link("a", "b/"), file("b")], "'a' is a link through 'b', which is not a folder"),
        ([link("a", "b/../b"), file("b")], "'a' is a link through 'b', which is not a folder"),
        ([link("a", "b/."), link("b", "c"), file("c")], "'a' is a link through 'c', which is not a folder"),
    ],
    ids=range(15),
)
def test_links_are_followed_as_the_kernel_would(members: list[Member], why: str) -> None:
    """A link that leads out, in a circle, through a file or to nothing is refused, however it is wrapped."""
    with pytest.raises(ArtifactError) as caught:
        census(*members)
    assert why in caught.value.message


def test_forty_links_in_a_row_are_taken() -> None:
    """As many links as Linux follows may lie between a link and its end, in whatever order they come."""
    census(*CHAIN[1:], file("l41"))
    backwards = [link(f"l{number:02}", f"l{number - 1:02}") for number in range(1, 42)]
    census(file("l00"), *backwards[:40])
    with pytest.raises(ArtifactError, match="'l41' goes through more than 40 links"):
        census(file("l00"), *backwards)


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([file("a"), file("a")], "'a' is there twice"),
        ([folder("a"), file("a")], "'a' is there twice"),
        ([file("a"), file("b"), file("a")], "'a' is there twice"),
        ([file("b"), file("a")], "'a' is out of order"),
        ([folder("a"), file("b"), file("a/c")], "'a/c' is out of order"),
        ([file("a/b")], "'a/b' lies in 'a', which is missing"),
        ([file("a"), file("a/b")], "'a/b' lies in 'a', which is a file"),
        ([link("a", "b"), file("a/b"), folder("b")], "'a/b' lies in 'a', which is a link"),
        ([file("README"), file("readme")], "'readme' and its neighbour 'README'"),
        ([folder("A"), file("A/x"), folder("a")], "'a' and its neighbour 'A'"),
        ([file("Cafe\u0301"), file("caf\u00e9")], "differ only in case or in Unicode form"),
        ([file("STRASSE"), file("straße")], "differ only in case or in Unicode form"),
        ([], "it is empty"),
    ],
    ids=range(13),
)
def test_a_tree_has_one_order_and_no_ambiguous_name(members: list[Member], why: str) -> None:
    """Members that repeat, jump, hang in the air or look the same to some file system are refused."""
    with pytest.raises(ArtifactError) as caught:
        census(*members)
    assert why in caught.value.message


def test_the_order_is_depth_first_by_bytes() -> None:
    """A folder's content follows it at once, before a sibling whose name sorts between them as text."""
    census(folder("a"), file("a/z"), file("a-b"), file("a.b"), file("é"), file("\U0001f600"))


def test_equal_names_in_different_folders_do_not_collide() -> None:
    """Only names in one folder are compared."""
    census(folder("a"), file("a/x"), folder("b"), file("b/X"), folder("c"), folder("c/x"), file("c/x/X"))


@pytest.mark.parametrize(
    ("limits", "members", "why"),
    [
        (PackageLimits(members_max=1), [file("a"), file("b")], "'b' is one member too many; 1 are allowed"),
        (PackageLimits(links_max=1), [file("a"), link("b", "a"), link("c", "a")], "'c' is one link too many"),
        (PackageLimits(bytes_max=10), [file("a", 11)], "'a' has 11 bytes"),
        (PackageLimits(bytes_max=10), [file("a", 6), file("b", 5)], "'b' has 5 bytes"),
        (PackageLimits(bytes_max=2**40), [file("a", 2**33)], "'a' has 8589934592 bytes"),
    ],
    ids=["members", "links", "one file", "all files", "size field"],
)
def test_limits_name_the_first_member_beyond(limits: PackageLimits, members: list[Member], why: str) -> None:
    """A tree over a limit is refused at the member that goes over it."""
    with pytest.raises(ArtifactError) as caught:
        census(*members, limits=limits)
    assert why in caught.value.message


def test_a_tree_at_its_limits_is_taken() -> None:
    """Limits are inclusive."""
    limits = PackageLimits(members_max=3, links_max=1, bytes_max=10)
    taken = census(file("a", 6), file("b", 4), link("c", "a"), limits=limits)
    assert (taken.files, taken.content_bytes) == (2, 10)


def test_many_long_links_cost_bounded_time() -> None:
    """Links through links are walked once each, so that a tangle of them cannot keep the store busy."""
    turns = "d/../" * 200
    ends = ("d" if number % 40 == 0 else f"l{number - 1:05}" for number in range(2_000))
    tangle = [folder("d"), *(link(f"l{number:05}", turns + end) for number, end in enumerate(ends))]
    started = time.process_time()
    assert len(census(*tangle).links) == 2_000
    assert time.process_time() - started < 5

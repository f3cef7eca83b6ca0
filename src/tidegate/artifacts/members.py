"""What may be in a package: names, links, sizes, and the order in which members come.

Pure: no disk, no bytes of archives. The same rules hold for the folder that is packed and for the archive
that arrives, so that what was packed here is accepted there, and nothing else is.

Invariants of an admitted tree: members come in one order only (depth first, names by their UTF-8 bytes), a
folder before what is in it; no name means two things on any file system; every link ends, inside the tree,
at something that exists. Neighbours: `archive` and `folder` make members, `unpack` writes them.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from enum import Enum

from tidegate.errors import ArtifactError

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

FILE_BYTES_MAX = 8 * GIB - 1
"""A tar header has 11 octal digits for a size; a second way to write it would be a second archive."""

HOPS_MAX = 40
"""Links that Linux follows before it calls a path a loop (MAXSYMLINKS)."""

SHOWN_CHARACTERS_MAX = 160
"""Of a hostile name, in a message: enough to find the member, too little to flood a terminal."""

CONTROL_CATEGORIES = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories that steer a terminal or a log instead of naming anything."""

DIRECTION_CHARACTERS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""They make `exe.sh` look like `hs.exe`."""


class Kind(Enum):
    """The three things that a package can hold."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageLimits:
    """How big a package may be. A build that needs more says so; a bomb is stopped by the first it meets."""

    bytes_max: int = 4 * GIB
    """Of the archive, and of what it unpacks to, headers included. A service with its libraries has some
    hundred MiB; a machine-learning model that is bigger than this belongs on a volume."""
    members_max: int = 200_000
    """A big node_modules has about 100 000. Bounds memory (about 200 bytes each) and inodes."""
    links_max: int = 20_000
    """A big pnpm store has some thousand. Each one costs a walk through the tree."""
    depth_max: int = 64
    """Folders inside folders; node_modules reaches about 30. Bounds the open file descriptors."""
    path_bytes_max: int = 1024
    """Linux allows 4095 for a whole path; the store's own folder and files made beside need the rest."""
    name_bytes_max: int = 255
    """What ext4, xfs, btrfs and overlayfs allow for one name."""
    ratio_max: int = 250
    """Unpacked bytes per archive byte. Text reaches 20, repetitive JSON 100, a bomb of zeros 30 000."""
    ratio_free_bytes: int = 64 * MIB
    """The ratio counts from here on: a smaller bomb does no harm, and a small test file may be all zeros."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One file, folder or link of a package."""

    path: str
    """Relative to the package's root, parts joined by `/`, nothing at the end."""
    kind: Kind
    executable: bool = False
    """Of a file: may be run. No other permission is kept."""
    size_bytes: int = 0
    """Of a file."""
    target: str = ""
    """Of a link, exactly as it is stored."""


def shown(name: str | bytes) -> str:
    """A hostile name, quoted for a message: control characters escaped, shortened in the middle."""
    text = name if isinstance(name, str) else name.decode("utf-8", "backslashreplace")
    quoted = repr(text)
    if len(quoted) <= SHOWN_CHARACTERS_MAX:
        return quoted
    half = SHOWN_CHARACTERS_MAX // 2
    return f"{quoted[:half]}[...]{quoted[-half:]}"


def refusal(name: str | bytes, what: str, hint: str | None = None) -> ArtifactError:
    """The error that names the member: `'etc/passwd' is ...`."""
    return ArtifactError(f"Package refused: {shown(name)} {what}.", hint=hint)


def vet_path(raw: bytes, limits: PackageLimits) -> str:
    """The path of a member as text, if it can only mean a place below the root.

    Raises:
        ArtifactError: naming the path and what is wrong with it.
    """
    path = _vet_text(raw, "name", raw, limits)
    if path.startswith("/"):
        raise refusal(raw, "is an absolute path", "Members are named relative to the package's root.")
    parts = path.split("/")
    if ".." in parts:
        raise refusal(raw, "climbs out with '..'", "Members are named relative to the package's root.")
    if "" in parts or "." in parts:
        raise refusal(raw, "is not a plain path: it has an empty part or '.'")
    if len(parts) > limits.depth_max:
        raise refusal(raw, f"lies {len(parts)} folders deep; {limits.depth_max} are allowed")
    for part in parts:
        if len(part.encode()) > limits.name_bytes_max:
            raise refusal(raw, f"has a name longer than {limits.name_bytes_max} bytes")
    return path


def vet_target(path: str, raw: bytes, limits: PackageLimits) -> str:
    """What a link points to, as text, if it is relative. Where it ends is seen by `Census.finish`.

    Raises:
        ArtifactError: naming the link and what is wrong with it.
    """
    target = _vet_text(raw, "link target", path, limits)
    if target.startswith("/"):
        raise refusal(
            path,
            f"is a link to the absolute path {shown(target)}",
            "That path is not part of the package: copy the file into the folder, or link to it relatively.",
        )
    return target


def _vet_text(raw: bytes, what: str, name: str | bytes, limits: PackageLimits) -> str:
    if not raw:
        raise refusal(name, f"has an empty {what}")
    if len(raw) > limits.path_bytes_max:
        raise refusal(name, f"has a {what} of {len(raw)} bytes; {limits.path_bytes_max} are allowed")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise refusal(name, f"has a {what} that is not UTF-8", "Rename it.") from error
    for character in text:
        if unicodedata.category(character) in CONTROL_CATEGORIES:
            raise refusal(name, f"has a control character in its {what}", "Rename it.")
        if character in DIRECTION_CHARACTERS:
            raise refusal(name, f"has a character in its {what} that turns text around", "Rename it.")
    return text


def same_name_key(name: str) -> str:
    """Equal for two names that some file system takes for one: other case, other Unicode form."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


class Census:
    """Admits the members of one tree one by one, and knows the whole tree at the end.

    Memory: one dictionary entry per member, names once more for the folders on the path to the last one.
    """

    def __init__(self, limits: PackageLimits) -> None:
        self._limits = limits
        self._kinds: dict[str, Kind] = {}
        self._targets: dict[str, str] = {}
        self._ends: dict[str, tuple[str, int]] = {}
        self._last: list[str] = []
        self._siblings: list[dict[str, str]] = [{}]
        self.files = 0
        self.content_bytes = 0

    @property
    def folders(self) -> tuple[str, ...]:
        """Paths of all folders, each before what is in it."""
        return tuple(path for path, kind in self._kinds.items() if kind is Kind.FOLDER)

    @property
    def links(self) -> tuple[tuple[str, str], ...]:
        """Path and target of every link."""
        return tuple(self._targets.items())

    def admit(self, member: Member) -> None:
        """Take the next member.

        Raises:
            ArtifactError: it breaks a limit, the order, or means the same as an earlier one.
        """
        self._count(member)
        self._place(member.path)
        self._kinds[member.path] = member.kind
        if member.kind is Kind.LINK:
            self._targets[member.path] = member.target

    def _count(self, member: Member) -> None:
        limits = self._limits
        if len(self._kinds) >= limits.members_max:
            raise refusal(member.path, f"is one member too many; {limits.members_max} are allowed")
        if member.kind is Kind.LINK and len(self._targets) >= limits.links_max:
            raise refusal(member.path, f"is one link too many; {limits.links_max} are allowed")
        size_max = min(limits.bytes_max - self.content_bytes, FILE_BYTES_MAX)
        if member.size_bytes > size_max:
            raise refusal(
                member.path,
                f"has {member.size_bytes} bytes and makes the package bigger than {limits.bytes_max} bytes",
                "Leave out what the service does not need to run, or raise the limit.",
            )
        self.files += member.kind is Kind.FILE
        self.content_bytes += member.size_bytes

    def _place(self, path: str) -> None:
        if path in self._kinds:
            raise refusal(path, "is there twice")
        parts = path.split("/")
        parent, _, name = path.rpartition("/")
        parent_kind = self._kinds.get(parent) if parent else Kind.FOLDER
        if parent_kind is not Kind.FOLDER:
            found = "missing" if parent_kind is None else f"a {parent_kind.value}"
            raise refusal(path, f"lies in {shown(parent)}, which is {found}, not a folder before it")
        # Code points sort as their UTF-8 bytes do, and lists of parts sort depth first.
        if parts <= self._last:
            raise refusal(path, "is out of order", "Pack the folder with Tidegate.")
        del self._siblings[len(parts) :]
        twin = self._siblings[-1].setdefault(same_name_key(name), name)
        if twin != name:
            raise refusal(
                path,
                f"and its neighbour {shown(twin)} have names that differ only in case or in Unicode form",
                "On some file systems they are one file: rename one of them.",
            )
        self._siblings.append({})
        self._last = parts

    def finish(self) -> None:
        """All members are there: check what only the whole tree can show.

        Raises:
            ArtifactError: the tree is empty, or a link does not end inside it.
        """
        if not self._kinds:
            raise ArtifactError(
                "Package refused: it is empty.",
                hint="Does the build write into the folder that `artifact.package` names?",
            )
        for path in self._targets:
            self._end_of(path, path, 0)

    def _end_of(self, link: str, asked: str, hops: int) -> tuple[str, int]:
        """Where a link ends (`""` is the root) and how many links lie on the way, as the kernel counts.

        `asked` is the link that is named when it goes wrong. Every link is walked once.
        """
        known = self._ends.get(link)
        if known is not None:
            return known
        hops += 1
        if hops > HOPS_MAX:
            raise refusal(asked, f"goes through more than {HOPS_MAX} links, or round in a circle")
        place = link.rpartition("/")[0]
        followed = 1
        parts = self._targets[link].split("/")
        for position, part in enumerate(parts):
            if self._kinds.get(place, Kind.FOLDER) is not Kind.FOLDER:
                raise refusal(asked, f"is a link through {shown(place)}, which is not a folder")
            place = self._step(place, part, asked)
            if self._kinds.get(place) is Kind.LINK:
                place, more = self._end_of(place, asked, hops)
                followed += more
            if followed > HOPS_MAX:
                raise refusal(asked, f"goes through more than {HOPS_MAX} links")
            if place and place not in self._kinds:
                rest = "/".join(parts[: position + 1])
                raise refusal(
                    asked,
                    f"is a link to {shown(rest)}, which is not in the package",
                    "Copy what it points to into the folder, or leave the link out.",
                )
        self._ends[link] = (place, followed)
        return place, followed

    @staticmethod
    def _step(place: str, part: str, asked: str) -> str:
        if part in {"", "."}:
            return place
        if part != "..":
            return f"{place}/{part}" if place else part
        if not place:
            raise refusal(
                asked,
                "is a link that leads out of the package",
                "Copy what it points to into the folder, or leave the link out.",
            )
        return place.rpartition("/")[0]

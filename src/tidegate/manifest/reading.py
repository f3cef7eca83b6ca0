"""YAML as far as tidegate.yaml needs it: text to mappings, lists and scalars that know their place.

Hides the YAML library. Scalars are *not* typed here: `no` stays the text "no" and 1.10 stays "1.10", because
only the key that they stand under knows what they are. That is what keeps YAML 1.1's guesses (`no` is false,
1_000 is a number, 12:30 is 750, 010 is 8) out of the file.

Invariants: time and memory are bounded before anything is built: bytes, nodes (with aliases counted as often
as they are used) and depth. Nothing but YAML's own three kinds of values comes out: a tag is a fault.

Neighbours: `scalars` gives values a meaning, `definition` says which keys there are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import yaml

from tidegate.core.spec import Fault, Where

BYTES_MAX: Final = 1 << 20
NODES_MAX: Final = 20_000  # a file of 200 services with 50 lines each has half of that
DEPTH_MAX: Final = 24  # the deepest place that has a meaning is 8

# The C scanner reads a file of the largest size in a fraction of a second; the Python one needs a minute.
_LOADER: Final[Any] = yaml.CSafeLoader if yaml.__with_libyaml__ else yaml.SafeLoader

_NULLS = frozenset({"", "~", "null", "Null", "NULL"})


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Line and column, from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scalar:
    """A value as it is written."""

    text: str
    plain: bool = True
    """Without quotes."""
    place: Place = Place(1, 1)

    @property
    def empty(self) -> bool:
        """No value at all, or one of the words for that."""
        return self.plain and self.text in _NULLS


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """A list."""

    items: tuple[Node, ...]
    place: Place
    size: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Mapping:
    """Keys with their values, in the order of the file."""

    entries: dict[str, tuple[Place, Node]]
    place: Place
    size: int
    height: int


Node = Scalar | Listing | Mapping


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacedFault:
    """A fault whose place is known better than its path tells: the second of two equal keys."""

    place: Place
    fault: Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """What a file holds, and what could be read but should not be there."""

    root: Mapping
    faults: tuple[PlacedFault, ...]


class UnreadableError(ValueError):
    """The file cannot be read to its end: nothing more can be said about it."""

    def __init__(self, message: str, hint: str = "", *, place: Place | None = None) -> None:
        super().__init__(message)
        self.message, self.hint, self.place = message, hint, place or Place(1, 1)


def read(text: str) -> Document:
    """The document in the text. Raises UnreadableError."""
    try:
        if len(text.encode()) > BYTES_MAX:
            raise UnreadableError(f"is larger than {BYTES_MAX // 1024} KiB", "describe services, not data")
        return _Builder(text.removeprefix("\ufeff")).document()
    except UnicodeEncodeError as error:
        raise UnreadableError("holds a character that is no text", "save the file as UTF-8") from error
    except yaml.YAMLError as error:
        raise _syntax_error(error) from error


def _syntax_error(error: yaml.YAMLError) -> UnreadableError:
    """What the scanner says, with what people most often meant."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return UnreadableError("holds a control character", "save the file as plain UTF-8 text")
    place = Place(error.problem_mark.line + 1, error.problem_mark.column + 1)
    problem = error.problem or "cannot be understood"
    hint = "check indentation, colons and quotes on this line and the one before"
    if "alias" in (error.context or ""):
        hint = 'a value that begins with * needs quotes: "*"'
    elif "cannot start any token" in problem or "tab character" in problem:
        hint = "indent with spaces, not with tabs; a value that begins with @, ` or % needs quotes"
    elif "mapping values" in problem:
        hint = "a value that holds a colon and a space needs quotes"
    return UnreadableError(f"is not YAML: {problem}", hint, place=place)


class _Builder:
    """Turns the scanner's events into nodes; recursion is bounded by DEPTH_MAX."""

    def __init__(self, text: str) -> None:
        self._events: Iterator[Any] = yaml.parse(text, Loader=_LOADER)
        self._anchors: dict[str, Node | None] = {}
        self._faults: list[PlacedFault] = []
        self._count = 0

    def document(self) -> Document:
        next(self._events)  # the stream begins
        if isinstance(next(self._events), yaml.StreamEndEvent):
            raise UnreadableError("is empty", "`tide init` writes one to start with")
        root = self._node(next(self._events), ())
        next(self._events)  # the document ends
        after = next(self._events)
        if not isinstance(after, yaml.StreamEndEvent):
            raise UnreadableError("holds a second document", "remove the line ---", place=_place(after))
        if isinstance(root, Scalar) and root.empty:
            raise UnreadableError("is empty", "`tide init` writes one to start with")
        if not isinstance(root, Mapping):
            raise UnreadableError("should begin with keys such as app: my-app", place=root.place)
        return Document(root=root, faults=tuple(self._faults))

    def _node(self, event: Any, where: Where) -> Node:
        place = _place(event)
        self._count_in(1, 1, where, place)
        if isinstance(event, yaml.AliasEvent):
            return self._aliased(str(event.anchor), where, place)
        if event.tag is not None:
            message = f"should have no tag ({shortened(event.tag)})"
            self._faults.append(
                PlacedFault(
                    place=place, fault=Fault(where=where, message=message, hint="write the value alone")
                )
            )
        if event.anchor is not None:
            self._anchors[event.anchor] = None  # until it is complete, nothing may refer to it
        node = self._content(event, where, place)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _content(self, event: Any, where: Where, place: Place) -> Node:
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(where, place)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._listing(where, place)
        return Scalar(text=event.value, plain=event.implicit[0], place=place)

    def _aliased(self, anchor: str, where: Where, place: Place) -> Node:
        node = self._anchors.get(anchor)
        if node is None:
            what = (
                "refers to itself" if anchor in self._anchors else "refers to an anchor that is not above it"
            )
            raise UnreadableError(f"*{shortened(anchor)} {what}", 'did you mean "*" in quotes?', place=place)
        if not isinstance(node, Scalar):
            self._count_in(node.size, node.height, where, place)
        return node

    def _count_in(self, size: int, height: int, where: Where, place: Place) -> None:
        self._count += size
        if self._count > NODES_MAX:
            raise UnreadableError(
                f"holds more than {NODES_MAX} values", "describe services, not data", place=place
            )
        if len(where) + height > DEPTH_MAX:
            raise UnreadableError(f"is nested deeper than {DEPTH_MAX} levels", place=place)

    def _mapping(self, where: Where, place: Place) -> Mapping:
        entries: dict[str, tuple[Place, Node]] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, where)
            if not isinstance(key, Scalar):
                raise UnreadableError("a key should be a name, not a list or a mapping", place=key.place)
            value = self._node(next(self._events), (*where, key.text))
            if key.text in entries:
                self._written_twice((*where, key.text), entries[key.text][0], key.place)
            else:
                entries[key.text] = (key.place, value)
        values = [value for _, value in entries.values()]
        return Mapping(entries=entries, place=place, size=_size(values), height=_height(values))

    def _written_twice(self, where: Where, first: Place, second: Place) -> None:
        fault = Fault(where=where, message=f"is written twice, first on line {first.line}", hint="keep one")
        self._faults.append(PlacedFault(place=second, fault=fault))

    def _listing(self, where: Where, place: Place) -> Listing:
        items: list[Node] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._node(event, (*where, len(items))))
        return Listing(items=tuple(items), place=place, size=_size(items), height=_height(items))


def _place(event: Any) -> Place:
    return Place(event.start_mark.line + 1, event.start_mark.column + 1)


def _size(nodes: list[Node]) -> int:
    return 1 + sum(1 if isinstance(node, Scalar) else node.size for node in nodes)


def _height(nodes: list[Node]) -> int:
    return 1 + max((1 if isinstance(node, Scalar) else node.height for node in nodes), default=0)


def shortened(text: str, length_max: int = 40) -> str:
    """For messages: bounded, and no control character reaches the terminal."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in text[: length_max + 1])
    return printable if len(printable) <= length_max else f"{printable[:length_max]}..."


def as_values(node: Node) -> Any:
    """The node as fresh dicts and lists with `Scalar` leaves."""
    if isinstance(node, Mapping):
        return {key: as_values(value) for key, (_, value) in node.entries.items()}
    if isinstance(node, Listing):
        return [as_values(item) for item in node.items]
    return node


def locate(root: Mapping, where: Where) -> Place:
    """Place of the key or item at `where`, or of the nearest thing around it that is in the file."""
    place = root.place
    current: Node = root
    for key in where:
        if isinstance(current, Mapping) and isinstance(key, str) and key in current.entries:
            place, current = current.entries[key]
        elif isinstance(current, Listing) and isinstance(key, int) and key < len(current.items):
            current = current.items[key]
            place = current.place
        else:
            break
    return place


def exists(root: Mapping, where: Where) -> bool:
    """Whether there is something at `where`."""
    current: Node = root
    for key in where:
        if isinstance(current, Mapping) and isinstance(key, str) and key in current.entries:
            current = current.entries[key][1]
        elif isinstance(current, Listing) and isinstance(key, int) and key < len(current.items):
            current = current.items[key]
        else:
            return False
    return True

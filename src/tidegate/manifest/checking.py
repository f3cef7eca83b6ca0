"""From what is written to a valid definition, or to everything that is wrong with it.

Hides pydantic: its errors become faults in the user's words, ordered as the file is. To find the mistakes
*between* values in the same run, values that are wrong alone are cut out and the rest is looked at: one run
tells all, and nothing is reported only because something else was.

Invariants: any document leads to a definition, to faults, or to both; the number of faults that are spelled
out is bounded, and so is the time, whatever the document holds.

Neighbours: `reading` gives the document, `definition` the keys, `resolving` uses the result.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from tidegate.core.spec import Fault, Where, suggestion
from tidegate.manifest.definition import ELSEWHERE, ManifestSection
from tidegate.manifest.reading import Document, Mapping, PlacedFault, Scalar, as_values, exists, locate
from tidegate.manifest.scalars import Mistake
from tidegate.manifest.section import Section

#: More mistakes than these are counted, not spelled out: a file of another program has thousands.
FAULTS_MAX: Final = 100

_PASSES_MAX = 6  # of cutting: keys, then what lay behind the mistakes of their values
_KEYS_SHOWN_MAX = 12

_PLACEHOLDERS: Final[dict[str, Any]] = {
    "app": "app",
    "artifact": {"package": "."},
    "package": ".",
    "path": ".",
    "run": "run",
    "share": "1%",
    "services": {"placeholder": {"run": "run"}},
}
"""Stand in for what is missing while the rest is checked; the result is not used."""


def check(document: Document) -> tuple[ManifestSection | None, tuple[PlacedFault, ...]]:
    """The definition without the values that are wrong alone, and the faults of these values, unordered.

    None: so much is wrong that nothing can be said about the rest.
    """
    written = as_values(document.root)
    try:
        return ManifestSection.model_validate(written), ()
    except ValidationError as error:
        details = [detail for detail in _details(error) if not _only_invalid_items(detail, written)]
    root = document.root
    placed = sorted(((locate(root, _where(detail)), detail) for detail in details), key=lambda pair: pair[0])
    shown = placed[:FAULTS_MAX]
    faults = [PlacedFault(place=place, fault=_fault(detail, root, written)) for place, detail in shown]
    if len(placed) > len(shown):
        faults.append(PlacedFault(place=shown[-1][0], fault=_uncounted(len(placed) - len(shown))))
    return _without_mistakes(written, details), tuple(faults)


def _details(error: ValidationError) -> list[ErrorDetails]:
    return error.errors(include_url=False, include_input=False)


def _only_invalid_items(detail: ErrorDetails, written: Any) -> bool:
    """Called empty because no item is valid: each item has its own fault already."""
    return detail["type"] == "too_short" and bool(_at(written, _where(detail)))


def _uncounted(count: int) -> Fault:
    return Fault(
        where=(), message=f"has {count} more mistakes that are not shown", hint="is it the right file?"
    )


def _where(detail: ErrorDetails) -> Where:
    return tuple(part for part in detail["loc"] if part != "[key]")


def _as_written(root: Mapping, fault: Fault) -> Fault:
    """Of `health: nonsense` the file has no key `health.path`, though that is where it was read."""
    where = fault.where
    while where and not exists(root, where):
        where = where[:-1]
    return replace(fault, where=where)


# --- cutting ---------------------------------------------------------------------------------------


def _without_mistakes(written: Any, details: list[ErrorDetails]) -> ManifestSection | None:
    for _ in range(_PASSES_MAX):
        for detail in details:
            _cut(written, _where(detail), missing=detail["type"] == "missing")
        try:
            return ManifestSection.model_validate(written)
        except ValidationError as error:
            details = _details(error)
    return None


def _cut(written: Any, where: Where, *, missing: bool) -> None:
    """Take the key at `where` out, of a list the whole; put something in for a missing one."""
    node = written
    for depth, key in enumerate(where):
        if not isinstance(node, dict) or not isinstance(key, str):
            return
        child = node.get(key)
        if depth == len(where) - 1 or not isinstance(child, dict):
            node.pop(key, None)
            if missing and key in _PLACEHOLDERS:
                node[key] = _PLACEHOLDERS[key]
            return
        node = child


# --- wording ---------------------------------------------------------------------------------------


def _fault(detail: ErrorDetails, root: Mapping, written: Any) -> Fault:
    where = _where(detail)
    error = detail.get("ctx", {}).get("error")
    if isinstance(error, Mistake):
        return _as_written(root, Fault(where=where, message=error.message, hint=error.hint))
    found = _described(_at(written, where))
    kind = detail["type"]
    if kind == "missing":
        return _missing(where)
    if kind == "extra_forbidden":
        return _unknown(where)
    if kind == "dict_type":
        hint = "each name on a line of its own below it"
        return Fault(where=where, message=f"should be a mapping of names, not {found}", hint=hint)
    if kind == "tuple_type":
        example = (_field(where).examples or [""])[0]
        return Fault(where=where, message=f"should be a list, not {found}", hint=f"for example {example}")
    if kind == "too_short":
        return Fault(where=where, message="is empty: it should have at least one")
    if kind == "too_long":
        return Fault(where=where, message=f"has too many: at most {detail['ctx']['max_length']}")
    hint = f"write keys such as {next(iter(section_at(where).by_key()))}: below it"
    return Fault(where=where, message=f"should be a mapping, not {found}", hint=hint)


def _field(where: Where) -> FieldInfo:
    return section_at(where[:-1]).by_key()[str(where[-1])]


def _missing(where: Where) -> Fault:
    field = _field(where)
    example = (field.examples or [""])[0]
    hint = f"{_first_sentence(field.description or '')}, for example {where[-1]}: {example}"
    return Fault(where=where, message="is missing", hint=hint)


def _unknown(where: Where) -> Fault:
    section, key = section_at(where[:-1]), str(where[-1])
    if key in section.later:
        hint = section.hints.get(key, "remove it")
        return Fault(where=where, message="is not in this version of Tidegate", hint=hint)
    if key in ELSEWHERE:
        return Fault(where=where, message="does not stand here", hint=ELSEWHERE[key])
    message = "there is no such key"
    if key in section.hints:
        return Fault(where=where, message=message, hint=section.hints[key])
    if key == "<<":
        hint = "keys cannot be merged: write them out, or use an alias for a whole value"
        return Fault(where=where, message=message, hint=hint)
    if close := suggestion(key, section.by_key()):
        return Fault(where=where, message=message, hint=f"did you mean {close}?")
    known = ", ".join([*section.by_key()][:_KEYS_SHOWN_MAX])
    return Fault(where=where, message=message, hint=f"known here: {known}")


def _first_sentence(description: str) -> str:
    """As part of a sentence."""
    sentence = re.split(r"[.;:](?: |$)", description, maxsplit=1)[0]
    return sentence[:1].lower() + sentence[1:]


def _described(node: Any) -> str:
    if isinstance(node, Scalar):
        return "empty" if node.empty else "a single value"
    return "a list" if isinstance(node, list) else "a mapping"


def _at(written: Any, where: Where) -> Any:
    node = written
    for key in where:
        node = _child(node, key)
    return node


def _child(node: Any, key: str | int) -> Any:
    if isinstance(node, dict):
        return node.get(key)
    return node[key] if isinstance(node, list) and isinstance(key, int) else node


def section_at(where: Iterable[str | int]) -> type[Section]:
    """The section that stands at this place of a file; the nearest one around it if none does."""
    current: type[Section] = ManifestSection
    hint: Any = current
    for key in where:
        if isinstance(hint, type) and issubclass(hint, Section):
            field = hint.by_key().get(str(key))
            hint = None if field is None else _inner(field.annotation)
        else:
            hint = _element(hint)
        if isinstance(hint, type) and issubclass(hint, Section):
            current = hint
    return current


def _inner(annotation: Any) -> Any:
    """The annotation without `Annotated` and `| None`."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _inner(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return _inner(next(part for part in typing.get_args(annotation) if part is not types.NoneType))
    return annotation


def _element(annotation: Any) -> Any:
    """What a dict or a tuple holds."""
    parts = [part for part in typing.get_args(annotation) if part is not Ellipsis]
    return _inner(parts[-1]) if parts else None

"""Makes docs/reference/json.md from the API's answers: `python -m tests.meta.json_page`; a test compares.

Fields and meanings stand in `tidegate.web.schemas` and nowhere else.
"""

from __future__ import annotations

import inspect
import types
import typing
from typing import Final

from pydantic.fields import FieldInfo

from tests.meta import sources
from tidegate.web import pipeline_schemas, schema, schemas

PAGE: Final = sources.ROOT / "docs" / "reference" / "json.md"

_NAMES: Final = {str: "text", int: "number", float: "number", bool: "true or false", types.NoneType: "null"}

_HEAD: Final = """\
<!-- Made by `python -m tests.meta.json_page`; a test keeps it in step. Do not edit. -->

# JSON objects

What commands print with `--json` ([which prints which](cli.md)), and what the control plane's API answers on
its Unix socket. Fields may be added; none is renamed or removed. "None" is `null`. Shares of users are in
basis points (`_bps`): 10 000 is everybody. Names that end in `_s` are seconds, `_at` Unix seconds.

    curl --unix-socket ~/.local/share/tidegate/api.sock http://tidegate/v1/status
"""


def answers() -> list[type[schemas.Answer]]:
    """Every object that is answered, in the order of the modules."""
    found = [one for module in (schemas, pipeline_schemas, schema) for one in vars(module).values()]
    answered = [a for a in found if isinstance(a, type) and issubclass(a, schemas.Answer)]
    return [answer for answer in dict.fromkeys(answered) if answer is not schemas.Answer]


def page() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *(_section(answer) for answer in answers())])


def _section(answer: type[schemas.Answer]) -> str:
    rows = "\n".join(_row(name, field) for name, field in answer.model_fields.items())
    meaning = inspect.getdoc(answer)
    return f"## {answer.__name__}\n\n{meaning}\n\n| field | is | meaning |\n|---|---|---|\n{rows}\n"


def _row(name: str, field: FieldInfo) -> str:
    return f"| `{name}` | {_kind(field.annotation)} | {field.description} |"


def _kind(annotation: object) -> str:
    """A type in words, with a link to objects of this page."""
    if isinstance(annotation, type) and issubclass(annotation, schemas.Answer):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    parts = typing.get_args(annotation)
    if typing.get_origin(annotation) is list:
        return f"list of {_kind(parts[0])}"
    if parts:
        return " or ".join(_kind(part) for part in parts)
    return next(word for kind, word in _NAMES.items() if kind is annotation)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")

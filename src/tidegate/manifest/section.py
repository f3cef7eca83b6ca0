"""What every section of tidegate.yaml is: a mapping of known keys, each with a meaning and examples.

Invariants: a section rejects keys that it does not know, and says in `later` which belong to later versions;
a section in which nothing is written is one without keys. Neighbours: `definition` and `gate_sections`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.fields import FieldInfo

from tidegate.manifest.reading import Scalar


def key(
    description: str,
    *examples: str,
    default: Any = ...,
    min_length: int | None = None,
    max_length: int | None = None,
    alias: str | None = None,
) -> Any:
    """A key: what it means, and values as they are written."""
    return Field(
        default,
        description=description,
        examples=list(examples),
        validate_default=True,
        min_length=min_length,
        max_length=max_length,
        alias=alias,
    )


class Section(BaseModel):
    """A mapping of known keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    later: ClassVar[frozenset[str]] = frozenset()
    """Keys that a later version has."""
    hints: ClassVar[Mapping[str, str]] = {}
    """Keys that are looked for here in vain, with what to do instead."""

    @classmethod
    def by_key(cls) -> dict[str, FieldInfo]:
        """All keys by the name that a file has for them: some are words that Python keeps for itself."""
        return {field.alias or name: field for name, field in cls.model_fields.items()}

    @model_validator(mode="before")
    @classmethod
    def _nothing_written(cls, value: Any) -> Any:
        """A key with nothing below it (all lines commented out) is a section without keys."""
        return widened_empty(value)


def widened_empty(value: Any) -> Any:
    """A mapping without keys, where there is a key with nothing below it."""
    return {} if isinstance(value, Scalar) and value.empty else value

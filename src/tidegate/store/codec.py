"""The written form of every record: strict JSON that says which schema it was written by.

Hides pydantic, and how a record of an older schema becomes one of today's. Invariants:

- what is decoded equals what was encoded, explicit zeros and empty texts included: every field is
  written, the default ones too;
- nothing is dropped in silence: an unknown field, a text where a number belongs, an infinity (JSON has
  none) or half a surrogate pair is an error, not a guess;
- a record of a newer schema is refused as such, and one of an older schema passes through every upcaster
  in between, one schema at a time.

When a value in `core.model` changes so that older records no longer read as themselves: raise `SCHEMA`
and register the upcaster `dict -> dict` from the schema before, for each kind of record that changed.
A new field with a default needs an upcaster only if the default is not what old records mean.

Neighbours: `sqlite` stores the texts, `tests/golden` holds saved ones that must stay readable for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

import pydantic
import pydantic_core

from tidegate import errors
from tidegate.core import model, promotions

#: Schema of what this version writes.
SCHEMA: Final = 2

Value = TypeVar("Value")

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]
"""Turns the record of one schema into the record of the next one."""

Environments = tuple[tuple[str, model.EnvironmentSpec], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Codec(Generic[Value]):
    """Encodes and decodes one kind of record: `{"schema": 1, "<kind>": ...}`."""

    kind: str
    """What it is called in the text and in errors, e.g. `state`."""
    adapter: pydantic.TypeAdapter[Value]
    schema: int = SCHEMA
    upcasters: Mapping[int, Upcaster] = field(default_factory=dict)
    """By the schema that they read; a schema without one changed nothing for this kind of record."""

    def encode(self, value: Value) -> str:
        """The text of the value, read back once before it is handed out.

        Raises StoreError if the value has no exact text: a wrong type, an infinity. A text that nobody
        can read would be a lost state; refusing the commit loses nothing.
        """
        try:
            body = self.adapter.dump_json(value, warnings="none")
            exact = self.adapter.validate_json(body, strict=True, extra="forbid") == value
        except pydantic.ValidationError as error:
            raise self._unwritable(_first_problem(error)) from error
        except (pydantic_core.PydanticSerializationError, ValueError, TypeError) as error:
            raise self._unwritable("it holds something that JSON has no word for") from error
        if not exact:
            raise self._unwritable("it would not be read back as itself")
        return f'{{"schema":{self.schema},"{self.kind}":{body.decode()}}}'

    def decode(self, text: str) -> Value:
        """The value of the text. Raises NewerStateError, or StorageError if it is no such record."""
        schema, record = self._open(text)
        if schema > self.schema:
            raise errors.NewerStateError(
                f"A stored {self.kind} has schema {schema}, and this Tidegate reads up to {self.schema}: a "
                "newer Tidegate wrote it. Nothing was touched.",
                hint="Upgrade this Tidegate, or restore the backup from before the upgrade.",
            )
        try:
            for older in range(schema, self.schema):
                upcaster = self.upcasters.get(older)
                record = upcaster(record) if upcaster else record
            return self.adapter.validate_json(pydantic_core.to_json(record), strict=True, extra="forbid")
        except pydantic.ValidationError as error:
            raise self._unreadable(_first_problem(error)) from error
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise self._unreadable(f"it is not as schema {schema} would have written it") from error

    def _open(self, text: str) -> tuple[int, Any]:
        try:
            data = pydantic_core.from_json(text, allow_inf_nan=False)
        except ValueError as error:
            raise self._unreadable(str(error)) from error
        schema = data.get("schema") if isinstance(data, dict) else None
        if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
            raise self._unreadable("it does not say its schema")
        if schema <= self.schema and set(data) != {"schema", self.kind}:
            raise self._unreadable(f"it is not a {self.kind}")
        return schema, data.get(self.kind)

    def _unwritable(self, why: str) -> errors.StoreError:
        return errors.StoreError(
            f"This {self.kind} cannot be written down, so it was not stored: {why}.",
            hint="This is a defect of Tidegate: please report it.",
        )

    def _unreadable(self, why: str) -> errors.StorageError:
        return errors.StorageError(
            f"A stored {self.kind} cannot be read: {why}. Nothing was changed.",
            hint="If the database was edited by hand or the disk is failing, restore the last backup.",
        )


def _first_problem(error: pydantic.ValidationError) -> str:
    """Where and what, without the value: it may come from anywhere and goes into logs."""
    problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
    path = ".".join(str(part) for part in problem["loc"])
    return f"at {path or 'the top'}: {problem['msg']}"


STATE: Final[Codec[model.EnvironmentState]] = Codec(
    kind="state", adapter=pydantic.TypeAdapter(model.EnvironmentState)
)
RELEASE: Final[Codec[Environments]] = Codec(kind="release", adapter=pydantic.TypeAdapter(Environments))
"""What a release says about its environments; its other fields are columns."""
ROLLOUT: Final[Codec[model.Rollout]] = Codec(kind="rollout", adapter=pydantic.TypeAdapter(model.Rollout))
PIPELINE: Final[Codec[promotions.PipelineState]] = Codec(
    kind="pipeline", adapter=pydantic.TypeAdapter(promotions.PipelineState)
)
PROMOTION: Final[Codec[promotions.Promotion]] = Codec(
    kind="promotion", adapter=pydantic.TypeAdapter(promotions.Promotion)
)
PASS: Final[Codec[promotions.Pass]] = Codec(kind="pass", adapter=pydantic.TypeAdapter(promotions.Pass))
EVENT: Final[Codec[model.Event]] = Codec(kind="event", adapter=pydantic.TypeAdapter(model.Event))

"""The part of JSON schema that `tide schema` uses, so that tests can ask it about files.

A keyword that it does not know is an error: a test cannot pass because a rule was skipped.
"""

from __future__ import annotations

import re
from typing import Any

TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
}
NOTES = {"$schema", "$defs", "title", "description", "examples", "default"}
#: Read together with the keyword beside them.
WITH_OTHERS = {"patternProperties", "additionalProperties"}


def accepts(schema: dict[str, Any], value: Any, root: dict[str, Any] | None = None) -> bool:
    """Whether the schema allows the value, as far as the keywords tell that are used here."""
    whole = schema if root is None else root
    return all(
        _KEYWORDS[keyword](limit, value, schema, whole)
        for keyword, limit in schema.items()
        if keyword not in NOTES | WITH_OTHERS
    ) and _knows_keys(schema, value, whole)


def _of_type(wanted: Any, value: Any, *_: Any) -> bool:
    names = wanted if isinstance(wanted, list) else [wanted]
    return any(
        isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))
        for name in names
    )


def _properties(known: Any, value: Any, _schema: Any, root: Any) -> bool:
    return all(accepts(known[key], item, root) for key, item in value.items() if key in known)


def _knows_keys(schema: Any, value: Any, root: Any) -> bool:
    if not isinstance(value, dict) or schema.get("type") != "object":
        return True
    patterns = schema.get("patternProperties", {})
    for key, item in value.items():
        matching = [inner for pattern, inner in patterns.items() if re.search(pattern, key)]
        if not all(accepts(inner, item, root) for inner in matching):
            return False
        if (
            not matching
            and key not in schema.get("properties", {})
            and schema["additionalProperties"] is False
        ):
            return False
    return True


def _reference(name: Any, value: Any, _schema: Any, root: Any) -> bool:
    return accepts(root["$defs"][name.removeprefix("#/$defs/")], value, root)


_KEYWORDS: dict[str, Any] = {
    "$ref": _reference,
    "anyOf": lambda options, value, _, root: any(accepts(option, value, root) for option in options),
    "type": _of_type,
    "const": lambda wanted, value, *_: value is wanted,
    "enum": lambda allowed, value, *_: value in allowed,
    "pattern": lambda pattern, value, *_: not isinstance(value, str) or re.search(pattern, value) is not None,
    "minLength": lambda limit, value, *_: not isinstance(value, str) or len(value) >= limit,
    "minItems": lambda limit, value, *_: not isinstance(value, list) or len(value) >= limit,
    "maxItems": lambda limit, value, *_: not isinstance(value, list) or len(value) <= limit,
    "minProperties": lambda limit, value, *_: not isinstance(value, dict) or len(value) >= limit,
    "maxProperties": lambda limit, value, *_: not isinstance(value, dict) or len(value) <= limit,
    "minimum": lambda limit, value, *_: not isinstance(value, int | float) or value >= limit,
    "maximum": lambda limit, value, *_: not isinstance(value, int | float) or value <= limit,
    "exclusiveMinimum": lambda limit, value, *_: not isinstance(value, int | float) or value > limit,
    "required": lambda keys, value, *_: not isinstance(value, dict) or all(key in value for key in keys),
    "properties": lambda known, value, schema, root: (
        not isinstance(value, dict) or _properties(known, value, schema, root)
    ),
    "items": lambda inner, value, _, root: (
        not isinstance(value, list) or all(accepts(inner, item, root) for item in value)
    ),
}

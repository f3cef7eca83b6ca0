"""The JSON schema of tidegate.yaml, for editors; `tide schema` prints it.

Hides how pydantic describes models. It is made from `definition`, so that it accepts what the parser does, as
far as a schema can tell: rules between values (circles of needs, hosts given twice) are the parser's alone.
"""

from __future__ import annotations

from typing import Any

import yaml

from tidegate.manifest.definition import ManifestSection


def json_schema() -> dict[str, Any]:
    """A schema of draft 2020-12."""
    schema: dict[str, Any] = _as_written(ManifestSection.model_json_schema())
    definitions = schema["$defs"]
    # The mapping form of a strategy says canary; without it there is only the word.
    definitions["StrategySection"]["required"] = ["canary"]
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "tidegate.yaml",
    }


def _as_written(node: Any) -> Any:
    """Without what is pydantic's alone: null for keys that are not written, titles, names of any form."""
    if isinstance(node, list):
        return [_as_written(item) for item in node]
    if not isinstance(node, dict):
        return node
    shown = {key: _as_written(value) for key, value in node.items() if not _internal(key, value)}
    if "patternProperties" in shown:
        shown["additionalProperties"] = False
    if "examples" in shown and isinstance(shown["examples"], list):
        shown["examples"] = [yaml.safe_load(example) for example in shown["examples"]]
    alternatives = shown.get("anyOf")
    if isinstance(alternatives, list) and {"type": "null"} in alternatives:
        alternatives.remove({"type": "null"})
        if len(alternatives) == 1:
            del shown["anyOf"]
            shown = {**alternatives[0], **shown}
    return shown


def _internal(key: str, value: Any) -> bool:
    return (key == "title" and isinstance(value, str)) or (key == "default" and value is None)

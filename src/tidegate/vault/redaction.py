"""Values that must not be shown: what leaves the control plane passes here, and `***` stands in their place.

An app writes what it likes into its own output; that file is the app's. What Tidegate reads from it, or from
a check or an exit, is cleaned when it is read, so that it is in no state, no history, no log and no answer.

Hides in which other ways of writing a value is known. Invariants: a value that was ever opened by this
process is replaced from then on; what is too short to be told from other text is not (`LENGTH_MIN`).
Neighbours: `secrets` tells every value it opens; the daemon puts this between the runtime and all others.
"""

from __future__ import annotations

import base64
import json
import threading
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, TypeVar

from tidegate import errors, ports
from tidegate.core import model

STARS: Final = "***"
#: Shorter ones occur by chance: replacing them would tell more than it hides.
LENGTH_MIN: Final = 6

Value = TypeVar("Value")


class Redactor:
    """Knows all values, and takes them out of texts. Threads may share it."""

    def __init__(self) -> None:
        self._turn: Final = threading.Lock()
        self._known: frozenset[str] = frozenset()
        self._longest_first: tuple[str, ...] = ()

    def add(self, value: bytes) -> None:
        """Never show this value from now on."""
        forms = frozenset(_forms(value.decode(errors="replace")))
        if forms <= self._known:
            return
        with self._turn:
            self._known |= forms
            self._longest_first = tuple(sorted(self._known, key=lambda form: (-len(form), form)))

    def clean(self, text: str) -> str:
        """The text with every known value replaced."""
        for form in self._longest_first:
            if form in text:
                text = text.replace(form, STARS)
        return text

    def cleaned(self, value: Value) -> Value:
        """The same in every text of a value made of dictionaries, lists, tuples and texts."""
        return self._cleaned(value)  # type: ignore[no-any-return] # of the same type, as it keeps the form

    def _cleaned(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.clean(value)
        if isinstance(value, dict):
            return {self._cleaned(name): self._cleaned(inner) for name, inner in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._cleaned(inner) for inner in value)
        return value

    def processor(self, _logger: object, _method: str, event: Mapping[str, Any]) -> Mapping[str, Any]:
        """For a chain of `structlog`, after what turns exceptions into texts."""
        return self.cleaned(dict(event))

    @contextmanager
    def in_errors(self) -> Iterator[None]:
        """What is raised in the block says no value either."""
        try:
            yield
        except errors.TidegateError as error:
            error.message = self.clean(error.message)
            error.hint = None if error.hint is None else self.clean(error.hint)
            error.args = tuple(self._cleaned(part) for part in error.args)
            raise


def _forms(value: str) -> Iterator[str]:
    """The value as programs print it; of several lines, each by itself too: that is how output is read."""
    for text in {value, value.strip(), *value.splitlines()}:
        stripped = text.strip()
        if len(stripped) < LENGTH_MIN:
            continue
        yield stripped
        yield json.dumps(stripped)[1:-1]
        yield json.dumps(stripped, ensure_ascii=False)[1:-1]
        yield repr(stripped)[1:-1]
        yield urllib.parse.quote(stripped, safe="")
        yield urllib.parse.quote(stripped)
        yield urllib.parse.quote_plus(stripped)
    if len(value) >= LENGTH_MIN:
        # Without its end, which depends on what follows the value.
        encoded = value.encode(errors="replace")
        yield base64.b64encode(encoded[: len(encoded) // 3 * 3]).decode()
        yield base64.urlsafe_b64encode(encoded[: len(encoded) // 3 * 3]).decode()


class RedactedRuntime:
    """`ports.Runtime` that says no value of a secret."""

    def __init__(self, runtime: ports.Runtime, redactor: Redactor) -> None:
        """`runtime`: what is asked, and cleaned after."""
        self._runtime: Final = runtime
        self._redactor: Final = redactor

    def apply(self, group: model.InstanceGroup, *, key: str) -> None:
        with self._redactor.in_errors():
            self._runtime.apply(group, key=key)

    def observe(self, environment: model.EnvironmentKey) -> model.RuntimeState:
        with self._redactor.in_errors():
            seen = self._runtime.observe(environment)
        return replace(seen, groups=tuple(self._group(group) for group in seen.groups))

    def remove(self, group_id: str, *, key: str) -> None:
        with self._redactor.in_errors():
            self._runtime.remove(group_id, key=key)

    def logs(self, group_id: str, *, tail: int, follow: bool = False) -> Iterator[ports.LogLine | None]:
        for line in self._runtime.logs(group_id, tail=tail, follow=follow):
            yield line and replace(line, text=self._redactor.clean(line.text))

    def check(self) -> tuple[ports.Finding, ...]:
        return self._runtime.check()

    def _group(self, group: model.GroupStatus) -> model.GroupStatus:
        return replace(group, instances=tuple(self._instance(instance) for instance in group.instances))

    def _instance(self, instance: model.InstanceStatus) -> model.InstanceStatus:
        clean = self._redactor.clean
        if not instance.exit and not instance.check:
            return instance
        return replace(instance, exit=clean(instance.exit), check=clean(instance.check))

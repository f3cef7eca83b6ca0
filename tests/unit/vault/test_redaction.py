"""Values are replaced wherever they could be shown, in each way in which programs write them."""

from __future__ import annotations

import base64
import json
import shlex
import urllib.parse
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate import errors, ports
from tidegate.core import model
from tidegate.testing.fakes import FakeRuntime
from tidegate.vault.redaction import LENGTH_MIN, RedactedRuntime, Redactor

VALUE = 'p\u00e4ss "w0rd" & more/='
KEY = model.EnvironmentKey(app="shop", environment="production")


@pytest.fixture
def redactor() -> Redactor:
    made = Redactor()
    made.add(VALUE.encode())
    return made


@pytest.mark.parametrize(
    "write",
    [
        lambda value: f"TOKEN={value};",
        lambda value: json.dumps({"token": value}),
        lambda value: json.dumps({"token": value}, ensure_ascii=False),
        lambda value: repr({"token": value}),
        lambda value: f"https://x/?t={urllib.parse.quote(value, safe='')}",
        lambda value: f"https://x/?t={urllib.parse.quote_plus(value)}",
        lambda value: f"https://x/{urllib.parse.quote(value)}",
        lambda value: f"Basic {base64.b64encode(value.encode()).decode()}",
        shlex.quote,
        lambda value: value * 3,
    ],
    ids=["plain", "json", "json-utf8", "repr", "url", "form", "path", "base64", "shell", "again-and-again"],
)
def test_value_is_replaced_however_it_is_written(redactor: Redactor, write: Callable[[str], str]) -> None:
    """Nothing is left of it, and what stands around it stays."""
    said = redactor.clean(f"before {write(VALUE)} after")
    assert "***" in said
    assert "w0rd" not in said
    assert said.startswith("before ")
    assert said.endswith(" after")


def test_each_line_of_a_value_of_several_is_hidden_by_itself() -> None:
    """Output is read line by line, and a key in PEM has many."""
    redactor = Redactor()
    redactor.add(b"-----BEGIN KEY-----\nMIIEvQIBADANBg\nkqhkiG9w0BAQEF\n-----END KEY-----\n")
    assert redactor.clean("read MIIEvQIBADANBg ok") == "read *** ok"
    assert redactor.clean("kqhkiG9w0BAQEF") == "***"


def test_the_longer_of_two_values_is_hidden_whole() -> None:
    """Else a value that begins as another one would show its end."""
    redactor = Redactor()
    redactor.add(b"secret-value")
    redactor.add(b"secret-value-and-its-end")
    assert redactor.clean("x secret-value-and-its-end y") == "x *** y"


def test_what_is_too_short_is_left_alone() -> None:
    """To replace every `1` would make all output useless, and tell what the value is."""
    redactor = Redactor()
    redactor.add(b"1")
    redactor.add(b"x" * (LENGTH_MIN - 1))
    redactor.add(b"\n\n  \n")
    assert redactor.clean("1 xxxxx \n\n  \n") == "1 xxxxx \n\n  \n"


@given(value=st.text(min_size=LENGTH_MIN, max_size=30).filter(lambda text: len(text.strip()) >= LENGTH_MIN))
def test_no_value_is_left_in_what_was_cleaned(value: str) -> None:
    """Whatever its letters."""
    redactor = Redactor()
    redactor.add(value.encode(errors="replace"))
    shown = value.encode(errors="replace").decode().strip()
    assert shown not in redactor.clean(f"a {shown} b") or shown in "***"


def test_log_events_are_cleaned_to_their_last_text(redactor: Redactor) -> None:
    """Names, lists and what lies deeper; numbers and flags stay what they are."""
    event = {"event": VALUE, "more": {"list": [VALUE, 1, ("x", VALUE)], VALUE: None}, "ok": True}
    assert redactor.processor(None, "info", event) == {
        "event": "***",
        "more": {"list": ["***", 1, ("x", "***")], "***": None},
        "ok": True,
    }


def test_errors_say_no_value(redactor: Redactor) -> None:
    """Neither message nor hint nor what a traceback prints; its kind stays."""
    with pytest.raises(errors.RuntimeAdapterError) as caught, redactor.in_errors():
        raise errors.RuntimeAdapterError(f"cannot run ./app {VALUE}", hint=f"not with {VALUE}")
    assert (caught.value.message, caught.value.hint) == ("cannot run ./app ***", "not with ***")
    assert str(caught.value) == "cannot run ./app *** not with ***"


class Talking(FakeRuntime):
    """Its instances print, fail and end with what they were given."""

    def observe(self, environment: model.EnvironmentKey) -> model.RuntimeState:
        instances = (
            model.InstanceStatus(
                index=0, state=model.InstanceState.EXITED, exit=f"exit {VALUE}", check=f"said {VALUE}"
            ),
            model.InstanceStatus(index=1, state=model.InstanceState.RUNNING),
        )
        group = model.GroupStatus(id="a.b.1.web", placement=1, service="web", instances=instances)
        return model.RuntimeState(revision=1, groups=(group,))

    def logs(self, group_id: str, *, tail: int, follow: bool = False) -> Iterator[ports.LogLine | None]:
        yield ports.LogLine(group_id=group_id, index=0, text=f"I got {VALUE}")
        yield None

    def remove(self, group_id: str, *, key: str) -> None:
        raise errors.RuntimeAdapterError(f"cannot stop {VALUE}")


def test_what_an_app_says_of_its_secret_does_not_reach_the_control_plane(redactor: Redactor) -> None:
    """Output, exits, checks and errors are cleaned where they are read, before anything keeps them."""
    runtime = RedactedRuntime(Talking(), redactor)
    told, silent = runtime.observe(KEY).groups[0].instances
    assert (told.exit, told.check) == ("exit ***", "said ***")
    assert silent == model.InstanceStatus(index=1, state=model.InstanceState.RUNNING)
    line, nothing = runtime.logs("a.b.1.web", tail=1)
    assert line is not None
    assert (line.text, nothing) == ("I got ***", None)
    with pytest.raises(errors.RuntimeAdapterError, match=r"cannot stop \*\*\*"):
        runtime.remove("a.b.1.web", key="k")

"""What differs between two environments, and a secret that comes in by a pipe."""

from __future__ import annotations

import io
from typing import Any

import pytest

from tidegate import errors
from tidegate.cli import vault


def configured(config: dict[str, str], *secrets: tuple[str, int | None]) -> dict[str, Any]:
    return {
        "config": [{"name": name, "value": value} for name, value in config.items()],
        "secrets": [{"name": name, "version": version, "as_file": False} for name, version in secrets],
    }


def test_only_what_differs_is_named() -> None:
    """A variable that one has not, one of another value, one that is secret in one of them alone."""
    left = configured({"A": "1", "SAME": "x", "B": "2"}, ("TOKEN", 1), ("KEY", 2))
    right = configured({"A": "9", "SAME": "x", "KEY": "plain"}, ("TOKEN", 7))
    assert vault.differences(left, right) == [
        {"name": "A", "secret": False, "left": "1", "right": "9"},
        {"name": "B", "secret": False, "left": "2", "right": None},
        {"name": "KEY", "secret": False, "left": None, "right": "plain"},
        {"name": "KEY", "secret": True, "left": "secret", "right": None},
    ]


def test_secret_that_is_not_set_differs_from_one_that_is() -> None:
    """Which version is set, and to what, is no difference: values are never compared."""
    left, right = configured({}, ("TOKEN", None)), configured({}, ("TOKEN", 3))
    assert vault.differences(left, right) == [
        {"name": "TOKEN", "secret": True, "left": "secret, not set", "right": "secret"}
    ]
    assert vault.differences(right, configured({}, ("TOKEN", 9))) == []


class Pipe(io.TextIOWrapper):
    """Standard input that is no terminal."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))


@pytest.mark.parametrize(
    ("content", "value"),
    [(b"x", "x"), (b"x\n", "x"), (b"x\r\n", "x"), (b"x\n\n", "x\n"), (b"\nx", "\nx"), (b"x ", "x ")],
    ids=["none", "one", "windows", "two", "before", "space"],
)
def test_one_line_break_at_the_end_is_taken_off(
    monkeypatch: pytest.MonkeyPatch, content: bytes, value: str
) -> None:
    """`echo` and editors add it; nothing else of a value is touched."""
    monkeypatch.setattr("sys.stdin", Pipe(content))
    assert vault.read_value(raw=False) == value
    monkeypatch.setattr("sys.stdin", Pipe(content))
    assert vault.read_value(raw=True) == content.decode()


@pytest.mark.parametrize(
    "content", [b"\xff\xfesecret", b"s" * (vault.VALUE_BYTES_MAX + 1)], ids=["bytes", "long"]
)
def test_value_that_cannot_be_one_is_refused_unsaid(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """The sentence says why, and nothing of what came in, nor does what it is chained to."""
    monkeypatch.setattr("sys.stdin", Pipe(content))
    with pytest.raises(errors.RequestError) as refused:
        vault.read_value(raw=False)
    assert "sss" not in str(refused.value)
    assert refused.value.__cause__ is None

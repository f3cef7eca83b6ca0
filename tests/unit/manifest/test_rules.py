"""Rules between values of the desired state, asked without a file."""

from __future__ import annotations

import pytest

from tidegate.core import spec
from tidegate.core.model import CheckKind


@pytest.mark.parametrize(
    ("needs", "order"),
    [
        ({}, ()),
        ({"a": (), "b": ()}, ("a", "b")),
        ({"a": ("b",), "b": ()}, ("b", "a")),
        ({"a": ("c",), "b": (), "c": ()}, ("b", "c", "a")),
        ({"a": ("x",), "b": ()}, ("a", "b")),
        ({"a": ("b",), "b": ("a",), "c": ("a",), "d": ()}, ("d",)),
        ({"a": ("b", "c"), "b": ("d",), "c": ("d",), "d": ()}, ("d", "b", "c", "a")),
    ],
)
def test_dependency_order(needs: dict[str, tuple[str, ...]], order: tuple[str, ...]) -> None:
    """Each name stands after its needs, else as given; what is in a circle or behind one is left out."""
    assert spec.dependency_order(needs) == order


@pytest.mark.parametrize(
    ("needs", "circles"),
    [
        ({"a": ("b",), "b": ()}, ()),
        ({"a": ("a",)}, ()),
        ({"a": ("b",), "b": ("a",)}, (("a", "b"),)),
        ({"a": ("b",), "b": ("c",), "c": ("b",)}, (("b", "c"),)),
        ({"a": ("c",), "b": ("a",), "c": ("b",)}, (("a", "c", "b"),)),
        ({"a": ("b",), "b": ("a",), "c": ("d",), "d": ("c", "a")}, (("a", "b"), ("c", "d"))),
    ],
)
def test_cycles(needs: dict[str, tuple[str, ...]], circles: tuple[tuple[str, ...], ...]) -> None:
    """Circles begin with the name that was written first, and do not share names."""
    assert spec.cycles(needs) == circles


def test_long_circles_are_cut() -> None:
    """The message about a long circle can be read."""
    services = [spec.DeclaredService(name=f"s{i}", needs=(f"s{(i + 1) % 30}",)) for i in range(30)]
    names = frozenset(service.name for service in services)
    (fault,) = spec.service_faults(services, names)
    assert fault.message.endswith(": s0 -> s1 -> s2 -> s3 -> s4 -> s5 -> s6 -> s7 -> s8 -> s9 -> ... -> s0")


def test_link_variables_tell_services_apart() -> None:
    """Two services never share the variable of their address."""
    assert spec.link_variable("user-api") == "USER_API_URL"
    assert spec.link_variable("userapi") == "USERAPI_URL"


def test_a_port_as_written_wins() -> None:
    """What is written about a port is not guessed again."""
    worker = spec.DeclaredService(name="a", port=False)
    assert not spec.serves(worker, frozenset({"a"}))
    assert spec.check_kind(worker, frozenset()) is CheckKind.ALIVE


def test_needing_oneself_gives_no_port() -> None:
    """A mistaken need of itself does not count as being needed."""
    assert spec.needed_names([spec.DeclaredService(name="a", needs=("a",))]) == frozenset()


@pytest.mark.parametrize(("word", "meant"), [("healt", "health"), ("xyz", ""), ("", ""), ("h" * 100, "")])
def test_suggestion(word: str, meant: str) -> None:
    """A near word is suggested, a far or endless one is not."""
    assert spec.suggestion(word, ["health", "route"]) == meant

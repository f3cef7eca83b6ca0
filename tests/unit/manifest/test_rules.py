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


@pytest.mark.parametrize(
    ("service", "message", "hint"),
    [
        (
            spec.DeclaredService(name="web", foreign=("shop/api",)),
            "shop/api is a service of this app",
            "write api",
        ),
        (
            spec.DeclaredService(name="accounts-api", foreign=("accounts/api",)),
            "the addresses of accounts/api and accounts-api would both be ACCOUNTS_API_URL",
            "rename one of the two services",
        ),
        (
            spec.DeclaredService(name="web", foreign=("a-b/c", "a/b-c")),
            "the addresses of a/b-c and a-b/c would both be A_B_C_URL",
            "rename one of the two services",
        ),
    ],
)
def test_needs_of_other_apps_are_of_others_and_have_addresses_of_their_own(
    service: spec.DeclaredService, message: str, hint: str
) -> None:
    """Each with a sentence that says what to write."""
    (fault,) = spec.foreign_faults("shop", [service])
    assert (fault.where, fault.message, fault.hint) == (("services", service.name, "needs"), message, hint)


def test_two_services_may_need_the_same_of_another_app() -> None:
    """They find it at the same address."""
    services = [spec.DeclaredService(name=name, foreign=("accounts/api",)) for name in ("web", "api")]
    assert list(spec.foreign_faults("shop", services)) == []


def test_address_of_another_app_cannot_be_configured() -> None:
    """The service would call somebody else."""
    (fault,) = spec.config_faults("test", ["ACCOUNTS_API_URL"], frozenset({"accounts/api"}))
    assert fault.message == "ACCOUNTS_API_URL is set by Tidegate: it is the address of accounts/api"

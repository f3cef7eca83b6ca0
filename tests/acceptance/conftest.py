"""Fixtures: a control plane of a test's own, or one that the tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.tide import Tide


@pytest.fixture
def idle() -> Iterator[Tide]:
    """A home where no control plane was started yet."""
    made = Tide()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def tide(idle: Tide) -> Tide:
    """A control plane that this test may kill."""
    idle.up()
    return idle


@pytest.fixture(scope="module")
def shared() -> Iterator[Tide]:
    """A control plane of all tests of a module; each has an app and a host name of its own."""
    made = Tide()
    try:
        made.up()
        yield made
    finally:
        made.close()

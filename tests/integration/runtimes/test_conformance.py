"""The process runtime keeps what every runtime promises."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.runtimes.world import World, wait_for
from tidegate.testing import conformance

pytestmark = pytest.mark.real


@pytest.fixture
def make(world: World) -> conformance.MakeRuntime:
    """Makes the one runtime of the test, over the package of its world."""

    def wait(holds: Callable[[], bool], text: str) -> None:
        try:
            wait_for(holds)
        except AssertionError as error:
            raise AssertionError(text) from error

    def harness() -> conformance.RuntimeHarness:
        served = world.group()
        return conformance.RuntimeHarness(
            runtime=world.runtime, wait=wait, run=served.run, digest=served.digest
        )

    return harness


@pytest.mark.parametrize("check", conformance.RUNTIME_CHECKS, ids=lambda check: check.__name__)
def test_runtime(check: Callable[[conformance.MakeRuntime], None], make: conformance.MakeRuntime) -> None:
    """Processes keep the promise."""
    check(make)

"""Hygiene for every test: no setting of the developer's shell leaks in, and random examples can be replayed.

Fixtures belong to the folder whose tests need them; nothing else lives here.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.meta import coverage_files

# Before any test module is imported: a TIDEGATE_ variable of the shell (a data folder, a server, a token)
# would let tests reach the developer's own control plane. Processes that tests start inherit the clean state.
for _name in [name for name in os.environ if name.startswith("TIDEGATE_")]:
    del os.environ[_name]

# No deadline per example: on a busy machine it measures the neighbours. `print_blob` prints what replays
# a failure.
settings.register_profile(
    "default", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
# In CI the examples are fixed, so that a red run is about the change; fresh ones come with developers' runs.
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, database=None)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default"))

ACCEPTANCE = Path(__file__).parent / "acceptance"
SIMULATION = Path(__file__).parent / "simulation"


@pytest.hookimpl(tryfirst=True)  # xdist reads the marks in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep each module of stories on one worker, in its order; simulate without measuring coverage.

    The tests of a story share a control plane and build on each other's releases; two workers would make two.
    Counting lines makes the simulation six times slower, and other tests reach every line of the core.
    """
    for item in items:
        if item.path.is_relative_to(ACCEPTANCE):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
        if item.path.is_relative_to(SIMULATION):
            item.add_marker(pytest.mark.uncounted)


@pytest.hookimpl(wrapper=True, trylast=True)  # inside of pytest-cov's own wrapper, which combines the files
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Take away what killed processes left of their measurements, before the others are combined."""
    result = yield
    if session.config.pluginmanager.hasplugin("_cov") and not hasattr(session.config, "workerinput"):
        for file in coverage_files.torn(session.config.rootpath):
            file.unlink()
            reporter = session.config.pluginmanager.getplugin("terminalreporter")
            reporter.write_line(f"{file.name}: torn, its process was killed; its lines are not counted")
    return result

"""Starting is cheap: the core brings nothing with it, and a command only what it needs."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from tests.meta import purity, sources

CORE_MODULES = sorted(
    source.path.removeprefix("src/").removesuffix(".py").replace("/", ".")
    for source in sources.python_sources()
    if source.path.startswith(purity.CORE) and not source.path.endswith("__init__.py")
)
# Command lines and control planes import it at every start; ten times what was measured, for slow machines.
IMPORT_CPU_S_MAX = 1.0


def python(program: str) -> float:
    """Run a program in a fresh interpreter; CPU seconds that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", program], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_the_core_brings_no_library_with_it() -> None:
    """Importing all of the core loads nothing from outside the standard library, not even indirectly."""
    imports = f"import {', '.join(CORE_MODULES)}"
    look = "foreign = {name.partition('.')[0] for name in sys.modules if name not in before}"
    check = "foreign -= sys.stdlib_module_names; assert foreign == {'tidegate'}, foreign"
    python(f"import sys; before = set(sys.modules); {imports}; {look}; {check}")


def test_command_does_not_import_the_control_plane_that_it_starts() -> None:
    """Whoever types `tide up` waits for its import once, in the process that needs it."""
    python(
        "import sys; from tidegate import launcher; from tidegate.cli import machine; "
        "assert not {'fastapi', 'uvicorn', 'tidegate.daemon'} & set(sys.modules)"
    )


@pytest.mark.serial
def test_importing_the_core_takes_little_time() -> None:
    """The whole core is imported in far less than a second of CPU."""
    assert python(f"import {', '.join(CORE_MODULES)}") < IMPORT_CPU_S_MAX

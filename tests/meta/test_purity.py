"""The core is pure, and each way to make it impure is caught."""

from __future__ import annotations

import pytest

from tests.meta import purity, sources

PATH = "src/tidegate/core/gate.py"


def rules_broken(code: str, path: str = PATH) -> list[str]:
    """Rules that made-up source breaks, in order."""
    return [violation.rule for violation in purity.violations([sources.source(path, code)])]


def test_the_core_is_pure() -> None:
    """No module of the core imports, reads or orders what could differ between two runs."""
    found = [str(violation) for violation in purity.violations(sources.python_sources())]
    assert not found, "\n" + "\n".join(found)


def test_the_core_is_looked_at() -> None:
    """The rules see the core's modules: a moved folder would make the test above pass on nothing."""
    assert any(source.path == f"{purity.CORE}model.py" for source in sources.python_sources())


@pytest.mark.parametrize(
    "code",
    [
        "import time",
        "import os.path",
        "from pathlib import Path",
        "import asyncio, json",
        "def f():\n    import random",
        "import pydantic",
        "from tidegate import store",
        "from tidegate.manifest import load",
        "from .. import ports",
        "import tidegate.corelike",
    ],
)
def test_an_import_of_the_world_is_caught_wherever_it_stands(code: str) -> None:
    """Clocks, I/O, libraries and upper layers cannot be imported, not even inside a function."""
    assert rules_broken(code) == ["import"]


@pytest.mark.parametrize(
    "code",
    [
        "from __future__ import annotations",
        "import math, enum",
        "from collections.abc import Mapping",
        "from tidegate import errors",
        "from tidegate.core import model",
        "import tidegate.core.model",
        "from . import model",
    ],
)
def test_pure_imports_pass(code: str) -> None:
    """The core may use pure standard modules, itself and the errors."""
    assert rules_broken(code) == []


@pytest.mark.parametrize("code", ["datetime.now()", "datetime.datetime.utcnow()", "datetime.date.today()"])
def test_the_wall_clock_is_caught(code: str) -> None:
    """A date type may be used, its clock may not."""
    assert rules_broken(code) == ["wall-clock"]


@pytest.mark.parametrize("code", ["hash(name)", "id(name)", "open(name)", "print(name)", "eval(name)"])
def test_builtins_that_differ_between_processes_are_caught(code: str) -> None:
    """Hash randomisation and addresses would reach a decision; so would the world."""
    assert rules_broken(code) == ["builtin"]


@pytest.mark.parametrize(
    "code",
    [
        "for name in {'a', 'b'}: pass",
        "for name in frozenset(names): pass",
        "[name for name in set(names)]",
        "{name: 1 for name in {n for n in names}}",
        "list(set(names))",
        "tuple(frozenset(names))",
        "','.join({'a', 'b'})",
        "dict.fromkeys(set(names))",
        "[*{'a', 'b'}]",
        "f(*set(names))",
        "sum(set(names))",
        "next(iter({'a', 'b'}))",
        "set(names).pop()",
        "for name in set(a) | b: pass",
        "for name in a.keys() - set(b): pass",
        "for name in set(a).union(b): pass",
        "for name in (set(a) if a else ()): pass",
        "def f(seen: frozenset[str]):\n    return [x for x in seen]",
        "def f():\n    seen = set()\n    for x in seen: pass",
        "def f():\n    yield from set(names)",
        "SEEN: Final[frozenset[str]] = x\ndef f():\n    return tuple(SEEN)",
        "class A:\n    seen: frozenset[str]\ndef f(a):\n    return tuple(a.seen)",
        "def seen() -> set[str]: ...\ndef f():\n    return list(seen())",
        "class A:\n    @property\n    def seen(self) -> set[str]: ...\ndef f(a):\n    return list(a.seen)",
        "def f(seen: frozenset[str] | None):\n    return list(seen)",
    ],
)
def test_iteration_over_a_set_is_caught(code: str) -> None:
    """Wherever the order of a set could reach a result, it is found."""
    assert set(rules_broken(code)) == {"set-order"}


@pytest.mark.parametrize(
    "code",
    [
        "for name in sorted({'b', 'a'}): pass",
        "name in {'a', 'b'}",
        "all(check(name) for name in set(names))",
        "sorted(len(name) for name in set(names))",
        "{name for name in set(names)}",
        "len(set(names)) == max({1, 2})",
        "for name in dict.fromkeys(names): pass",
        "for name in ('a', 'b'): pass",
        "items.pop()",
        "def f():\n    seen = set()\ndef g(seen: tuple[str, ...]):\n    return list(seen)",
    ],
)
def test_uses_of_a_set_that_do_not_show_its_order_pass(code: str) -> None:
    """Membership, sizes, sorting and order-free questions are what sets are for."""
    assert rules_broken(code) == []


def test_fields_of_another_module_are_known() -> None:
    """A field declared as a set in one module of the core is a set in all of them."""
    declared = sources.source(f"{purity.CORE}a.py", "class A:\n    seen: frozenset[str]")
    walked = sources.source(f"{purity.CORE}b.py", "def f(a):\n    return tuple(a.seen)")
    assert [violation.path for violation in purity.violations([declared, walked])] == [walked.path]


def test_other_layers_are_left_alone() -> None:
    """Outside the core, clocks and sets are nobody's business here."""
    assert rules_broken("import time\nfor name in {'a', 'b'}: pass", "src/tidegate/engine/loop.py") == []

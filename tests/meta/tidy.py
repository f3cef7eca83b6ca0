"""The house style as rules over one module each: sizes, docstrings, words that must not appear.

Invariants: a rule is a pure function from a Source to violations; it knows no exception. Exceptions are
in ratchet.json, can only shrink, and are compared in `ratchet`. Words that a rule forbids are put
together from parts here, so that this file obeys its own rules.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import TypeGuard

from tests.meta.sources import Source, Violation

FUNCTION_LINES_MAX = 60  # body lines; holds for 96 to 100 % of the functions of the projects we learn from
MODULE_LINES_MAX = 600
PARAMETERS_MAX = 6  # more belong together in a frozen value

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef

_UNFINISHED = re.compile(r"\b(" + "|".join(("TO" + "DO", "FIX" + "ME", "XX" + "X")) + r")\b")
# Folders of a developer's or a build machine, as an absolute path.
_MACHINE_PATH = re.compile(r"(?<![\w.}])/(?:wo" + r"rk|ro" + r"ot)/")
_REGISTRY_HOSTS = tuple(
    ".".join(labels)
    for labels in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("proxy", "golang", "org"),
        ("crates", "io"),
        ("deb", "debian", "org"),
        ("repo", "maven", "apache", "org"),
    )
)
# A sentence ends and another begins.
_SECOND_SENTENCE = re.compile(r"[.!?]\s+[A-Z]")
_HINTS = {
    "patching": "use a fake of tidegate.testing or a real server: a patch pins the code, not the behaviour",
    "shell": "pass an argument list: no shell reads our strings",
    "print": "log it, or return it to tidegate.cli",
    "unfinished": "do it or file an issue",
    "machine-path": "this path exists on one machine only",
    "registry-host": "name the package, not the registry: users have mirrors",
}
_PRINTING_MODULES = ("src/tidegate/cli.py", "src/tidegate/cli/", "src/tidegate/demo.py", "src/tidegate/demo/")


def violations(source: Source) -> Iterator[Violation]:
    """Everything that one module does against the style."""
    yield from module_rules(source)
    for symbol, function in functions(source.tree):
        yield from function_rules(source, symbol, function)
    yield from forbidden_code(source)
    yield from forbidden_text(source.path, source.text)


def module_rules(source: Source) -> Iterator[Violation]:
    """Size and docstring of the module."""
    lines = len(source.text.splitlines())
    if lines > MODULE_LINES_MAX:
        yield _violation(
            source, "module-lines", "", lines, f"at most {MODULE_LINES_MAX} lines: split it in two"
        )
    if not ast.get_docstring(source.tree) and not _only_makes_a_package(source):
        hint = "say what the module hides, its invariants, its neighbours"
        yield _violation(source, "module-docstring", "", 1, hint)


def function_rules(source: Source, symbol: str, function: FunctionNode) -> Iterator[Violation]:
    """Sizes of one function, and the sentence of a test."""
    lines = body_lines(function)
    if lines > FUNCTION_LINES_MAX:
        hint = f"at most {FUNCTION_LINES_MAX} body lines: find the part that has a name of its own"
        yield _violation(source, "function-lines", symbol, lines, hint)
    count = parameters(function)
    if count > PARAMETERS_MAX:
        hint = f"at most {PARAMETERS_MAX} parameters: put what belongs together into a frozen value"
        yield _violation(source, "parameters", symbol, count, hint)
    if _is_test(source.path, function) and not is_one_sentence(ast.get_docstring(function)):
        hint = "state the behaviour in one sentence with a full stop; more may follow after an empty line"
        yield _violation(source, "test-sentence", symbol, 1, hint)


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, FunctionNode]]:
    """Every function with its dotted name inside the module, nested ones and methods too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, FunctionNode):
            yield f"{prefix}{node.name}", node
            yield from functions(node, f"{prefix}{node.name}.")
        elif isinstance(node, ast.ClassDef):
            yield from functions(node, f"{prefix}{node.name}.")
        else:
            yield from functions(node, prefix)


def body_lines(function: FunctionNode) -> int:
    """Lines from the first statement after the docstring to the end."""
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    if not body:
        return 0
    last = function.end_lineno or body[-1].lineno
    return last - body[0].lineno + 1


def parameters(function: FunctionNode) -> int:
    """How many values a caller must think of: `self` and `cls` are not counted."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args]
    bound = 1 if named and named[0].arg in ("self", "cls") else 0
    starred = sum(1 for argument in (arguments.vararg, arguments.kwarg) if argument)
    return len(named) - bound + len(arguments.kwonlyargs) + starred


def is_one_sentence(docstring: str | None) -> bool:
    """Whether the first paragraph is one sentence."""
    first = " ".join((docstring or "").strip().split("\n\n", 1)[0].split())
    return first.endswith((".", "!", "?")) and not _SECOND_SENTENCE.search(first)


def forbidden_code(source: Source) -> Iterator[Violation]:
    """Patching, shells built from strings, prints outside the terminal's modules."""
    lines: dict[str, list[int]] = {}
    for node in ast.walk(source.tree):
        if _patches(node):
            lines.setdefault("patching", []).append(node.lineno)
        elif isinstance(node, ast.keyword) and node.arg == "shell" and not _is_false(node.value):
            lines.setdefault("shell", []).append(node.lineno)
        elif _is_silent(source.path) and _prints(node):
            lines.setdefault("print", []).append(node.lineno)
    yield from _per_rule(source.path, lines)


def forbidden_text(path: str, text: str) -> Iterator[Violation]:
    """Unfinished business, paths of somebody's machine, hosts of package registries; for any text file."""
    lines: dict[str, list[int]] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if _UNFINISHED.search(line):
            lines.setdefault("unfinished", []).append(number)
        if _MACHINE_PATH.search(line):
            lines.setdefault("machine-path", []).append(number)
        if any(host in line for host in _REGISTRY_HOSTS):
            lines.setdefault("registry-host", []).append(number)
    yield from _per_rule(path, lines)


def _per_rule(path: str, lines: dict[str, list[int]]) -> Iterator[Violation]:
    """One violation per rule, its size the number of places, so that its key survives edits above them."""
    for rule, numbers in lines.items():
        where = ", ".join(str(number) for number in sorted(numbers))
        hint = f"{_HINTS[rule]} (line {where})"
        yield Violation(rule=rule, path=path, symbol="", size=len(numbers), hint=hint)


def _violation(source: Source, rule: str, symbol: str, size: int, hint: str) -> Violation:
    return Violation(rule=rule, path=source.path, symbol=symbol, size=size, hint=hint)


def _only_makes_a_package(source: Source) -> bool:
    is_init = source.path.startswith("tests/") and source.path.endswith("/__init__.py")
    return is_init and not source.text.strip()


def _is_test(path: str, function: FunctionNode) -> bool:
    in_test_module = path.startswith("tests/") and path.rpartition("/")[2].startswith("test_")
    return in_test_module and function.name.startswith("test")


def _patches(node: ast.AST) -> TypeGuard[ast.ImportFrom | ast.Attribute]:
    if isinstance(node, ast.ImportFrom):
        return node.module in ("mock", "unittest.mock") and any(name.name == "patch" for name in node.names)
    if isinstance(node, ast.Attribute) and node.attr == "patch":
        owner = node.value
        return (isinstance(owner, ast.Name) and owner.id in ("mock", "mocker")) or (
            isinstance(owner, ast.Attribute) and owner.attr == "mock"
        )
    return False


def _prints(node: ast.AST) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"


def _is_silent(path: str) -> bool:
    return path.startswith("src/") and not path.startswith(_PRINTING_MODULES)


def _is_false(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is False

"""The core's purity as rules on its syntax: what it may import, no clock, no order of a set.

import-linter keeps the same wall from the outside and follows indirect imports; these rules see inside
the functions. Types are guessed from literals, annotations and names, which is enough to find iteration
over a set: the leak that once made a simulation differ between two processes (hash randomisation).
A rule is a pure function from a Source to violations, as in `tidy`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from tests.meta.sources import Source, Violation

CORE = "src/tidegate/core/"

# Pure parts of the standard library. Another module may join if its functions depend on their arguments only.
PURE_MODULES = frozenset(
    {
        "__future__",
        "abc",
        "base64",
        "bisect",
        "collections",
        "copy",
        "dataclasses",
        "datetime",
        "decimal",
        "difflib",
        "enum",
        "fractions",
        "functools",
        "graphlib",
        "hashlib",
        "heapq",
        "ipaddress",
        "itertools",
        "json",
        "math",
        "operator",
        "re",
        "statistics",
        "string",
        "struct",
        "textwrap",
        "types",
        "typing",
        "typing_extensions",
        "unicodedata",
        "zlib",
    }
)
OWN_MODULES = ("tidegate.core", "tidegate.errors")
CLOCK_CALLS = frozenset({"now", "utcnow", "today"})
# hash and id differ from process to process; the others touch the world.
IMPURE_BUILTINS = frozenset(
    {"__import__", "breakpoint", "eval", "exec", "hash", "id", "input", "open", "print"}
)
# What they return does not depend on the order in which they see their argument.
ORDER_FREE = frozenset({"all", "any", "frozenset", "len", "max", "min", "set", "sorted"})
ORDERED = frozenset({"enumerate", "filter", "iter", "list", "map", "next", "reversed", "sum", "tuple", "zip"})
SET_TYPES = frozenset({"AbstractSet", "FrozenSet", "MutableSet", "Set", "frozenset", "set"})
SET_METHODS = frozenset({"difference", "intersection", "symmetric_difference", "union"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SetNames:
    """Names that hold or return a set: fields and functions of the whole core, variables of one function."""

    fields: frozenset[str]
    functions: frozenset[str]
    variables: frozenset[str] = frozenset()


def violations(sources: Iterable[Source]) -> Iterator[Violation]:
    """Everything impure in the modules of the core."""
    core = tuple(source for source in sources if source.path.startswith(CORE))
    fields, functions = _declared_sets(core)
    for source in core:
        yield from imports(source)
        yield from impure_calls(source)
        yield from set_order(source, SetNames(fields=fields, functions=functions))


def imports(source: Source) -> Iterator[Violation]:
    """Imports of anything but pure modules, the core itself and the errors."""
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = _imported_from(node)
        else:
            continue
        for module in modules:
            if not _is_pure(module):
                hint = "the core sees values only: let the engine look, and hand in what it saw"
                yield _violation(source, "import", f"{module} (line {node.lineno})", hint)


def impure_calls(source: Source) -> Iterator[Violation]:
    """The wall clock, and builtins that touch the world or differ between processes."""
    for node in ast.walk(source.tree):
        if not isinstance(node, ast.Call):
            continue
        function = node.func
        if isinstance(function, ast.Attribute) and function.attr in CLOCK_CALLS and _is_date(function.value):
            hint = "time is an argument: advance gets the seconds that were observed"
            yield _violation(source, "wall-clock", f"{ast.unparse(function)} (line {node.lineno})", hint)
        elif isinstance(function, ast.Name) and function.id in IMPURE_BUILTINS:
            hint = "not the same in every process, or not a value: leave it to the engine"
            yield _violation(source, "builtin", f"{function.id} (line {node.lineno})", hint)


def set_order(source: Source, declared: SetNames) -> Iterator[Violation]:
    """Iteration over a set where the order can reach the result."""
    top_level, *inside = _scopes(source.tree)
    shared = _set_variables(top_level)
    for scope in (top_level, *inside):
        names = replace(declared, variables=shared | _set_variables(scope))
        for walked in _order_dependent(scope):
            if is_set(walked, names):
                hint = "the order of a set differs between processes: sort it, or keep a tuple"
                yield _violation(source, "set-order", f"{ast.unparse(walked)} (line {walked.lineno})", hint)


def is_set(node: ast.AST, names: SetNames) -> bool:
    """Whether an expression surely is a set, as far as its text and the core's annotations tell."""
    match node:
        case ast.Set() | ast.SetComp():
            return True
        case ast.Name(id=name):
            return name in names.variables
        case ast.Attribute(attr=name):
            return name in names.fields
        case ast.BinOp(left=left, op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor(), right=right):
            return is_set(left, names) or is_set(right, names)
        case ast.IfExp(body=body, orelse=orelse):
            return is_set(body, names) or is_set(orelse, names)
        case ast.Call(func=ast.Name(id=name)):
            return name in ("set", "frozenset") or name in names.functions
        case ast.Call(func=ast.Attribute(value=owner, attr=name)):
            return name in names.functions or (name in SET_METHODS and is_set(owner, names))
    return False


def _scopes(tree: ast.Module) -> Iterator[tuple[ast.AST, ...]]:
    """The nodes outside all functions, then those of each outermost function or method."""
    outside: list[ast.AST] = []
    functions: list[ast.AST] = []
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            functions.append(node)
        else:
            outside.append(node)
            waiting.extend(ast.iter_child_nodes(node))
    yield tuple(outside)
    yield from (tuple(ast.walk(function)) for function in functions)


def _order_dependent(scope: Iterable[ast.AST]) -> Iterator[ast.expr]:
    """Expressions whose order matters to what is around them."""
    nodes = tuple(scope)
    harmless = {id(argument) for node in nodes for argument in _order_free_arguments(node)}
    for node in nodes:
        if id(node) not in harmless:
            yield from _walked(node)


def _walked(node: ast.AST) -> Iterator[ast.expr]:
    """The expressions that this node walks through in their order."""
    match node:
        case ast.For(iter=walked) | ast.Starred(value=walked) | ast.YieldFrom(value=walked):
            yield walked
        case ast.ListComp() | ast.GeneratorExp() | ast.DictComp():
            yield from (generator.iter for generator in node.generators)
        case ast.Call(func=ast.Name(id=name), args=arguments) if name in ORDERED:
            yield from arguments
        case ast.Call(func=ast.Attribute(attr="join" | "fromkeys" | "extend"), args=arguments):
            yield from arguments
        case ast.Call(func=ast.Attribute(attr="pop", value=owner), args=[]):
            yield owner


def _order_free_arguments(node: ast.AST) -> Iterable[ast.expr]:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ORDER_FREE:
        return node.args
    return ()


def _declared_sets(sources: Iterable[Source]) -> tuple[frozenset[str], frozenset[str]]:
    """Fields annotated as sets, and functions annotated to return one; properties count as fields too."""
    fields: set[str] = set()
    functions: set[str] = set()
    for source in sources:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef):
                fields.update(_annotated_sets(node.body))
            elif isinstance(node, ast.FunctionDef) and _is_set_annotation(node.returns):
                is_property = any(ast.unparse(decorator) == "property" for decorator in node.decorator_list)
                (fields if is_property else functions).add(node.name)
    return frozenset(fields), frozenset(functions)


def _annotated_sets(body: Iterable[ast.stmt]) -> Iterator[str]:
    for statement in body:
        if isinstance(statement, ast.AnnAssign) and _is_set_annotation(statement.annotation):
            yield ast.unparse(statement.target)


def _set_variables(scope: Iterable[ast.AST]) -> frozenset[str]:
    """Parameters annotated as sets, and names that are given a set."""
    nothing = SetNames(fields=frozenset(), functions=frozenset())
    names: set[str] = set()
    for node in scope:
        match node:
            case ast.arg(arg=name, annotation=annotation) if _is_set_annotation(annotation):
                names.add(name)
            case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation) if _is_set_annotation(
                annotation
            ):
                names.add(name)
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if is_set(value, nothing):
                names.add(name)
            case ast.NamedExpr(target=ast.Name(id=name), value=value) if is_set(value, nothing):
                names.add(name)
    return frozenset(names)


def _is_set_annotation(annotation: ast.expr | None) -> bool:
    match annotation:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in SET_TYPES
        case ast.Subscript(value=ast.Name(id="Final" | "ClassVar"), slice=inner):
            return _is_set_annotation(inner)
        case ast.Subscript(value=generic):
            return _is_set_annotation(generic)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _is_set_annotation(left) or _is_set_annotation(right)
    return False


def _imported_from(node: ast.ImportFrom) -> list[str]:
    if node.level:
        return ["tidegate.core"] if node.level == 1 else ["a relative import above the core"]
    if node.module == "tidegate":
        return [f"tidegate.{alias.name}" for alias in node.names]
    return [node.module or ""]


def _is_pure(module: str) -> bool:
    own = any(module == name or module.startswith(f"{name}.") for name in OWN_MODULES)
    return own or module.split(".", 1)[0] in PURE_MODULES


def _is_date(node: ast.AST) -> bool:
    return ast.unparse(node).rpartition(".")[2] in ("datetime", "date")


def _violation(source: Source, rule: str, symbol: str, hint: str) -> Violation:
    return Violation(rule=rule, path=source.path, symbol=symbol, size=1, hint=hint)

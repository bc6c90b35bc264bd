"""The statements of the recorded source files: which line assigns which arrays.

The recorded files are those of numpyvit/layers, vit.py and losses.py. Everything here
is read from their source and does not depend on the values of a run.
"""

import ast
import functools
import importlib
import inspect
import linecache
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np

PACKAGE = Path(__file__).parents[1]


@dataclass(frozen=True)
class Statement:
    """A statement of a recorded file.

    line: its first line. text: the statement on one line, with its comments. node: its
    syntax tree. targets: the names that it assigns, or whose arrays it changes.
    returns: names for the values that it returns (see returned_names), None if it is
    not a return statement. reserves: whether it reserves memory for an array and does
    not fill it yet.
    """

    line: int
    text: str
    node: ast.stmt
    targets: tuple[str, ...]
    returns: tuple[str, ...] | None
    reserves: bool


@functools.cache
def recorded_files() -> frozenset[str]:
    """Return the paths of the files whose lines are recorded."""
    files = [*(PACKAGE / "layers").glob("*.py"), PACKAGE / "vit.py", PACKAGE / "losses.py"]
    return frozenset(str(path) for path in files)


@functools.cache
def cached_functions() -> frozenset[CodeType]:
    """Return the functions of the recorded files whose results are cached.

    They make constant tables. Their lines are not recorded, because they run only if
    the table is not in the cache yet, and the steps must not depend on that.
    """
    found = set()
    for file in recorded_files():
        name = Path(file).relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".")
        module = importlib.import_module(f"{__package__.rpartition('.')[0]}.{name}")
        for item in vars(module).values():
            if hasattr(item, "cache_info"):
                found.add(inspect.unwrap(item).__code__)
    return frozenset(found)


def is_recorded(code: CodeType) -> bool:
    """Return whether the lines of this function are recorded."""
    return code.co_filename in recorded_files() and code not in cached_functions()


@functools.cache
def file_of(code: CodeType) -> str:
    """Return the path of a function's file, relative to the package."""
    return Path(code.co_filename).relative_to(PACKAGE).as_posix()


@functools.cache
def statements(file: str) -> dict[int, Statement]:
    """Return, for each line of a file, the simple statement that it belongs to."""
    lines = linecache.getlines(file)
    found: dict[int, Statement] = {}
    for node in ast.walk(ast.parse("".join(lines))):
        if isinstance(node, ast.stmt) and not hasattr(node, "body"):
            end = node.end_lineno or node.lineno
            text = " ".join(line.strip() for line in lines[node.lineno - 1 : end])
            value = getattr(node, "value", None)
            function = value.func if isinstance(value, ast.Call) else None
            reserves = isinstance(function, ast.Attribute) and function.attr.startswith("empty")
            statement = Statement(
                line=node.lineno,
                text=text,
                node=node,
                targets=tuple(targets_of(node)),
                returns=returned_names(node.value) if isinstance(node, ast.Return) else None,
                reserves=reserves,
            )
            found |= dict.fromkeys(range(node.lineno, end + 1), statement)
    return found


def targets_of(node: ast.stmt) -> Iterator[str]:
    """Yield the names that a statement assigns, or whose arrays it changes in place."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = list(node.targets)
    elif isinstance(node, ast.AugAssign | ast.AnnAssign):
        targets = [node.target]
    for call in ast.walk(node):
        if isinstance(call, ast.Call):
            targets += [word.value for word in call.keywords if word.arg == "out"]
    while targets:
        target = targets.pop(0)
        if isinstance(target, ast.Name):
            yield target.id
        elif isinstance(target, ast.Tuple):
            targets += target.elts
        elif isinstance(target, ast.Subscript):
            targets.append(target.value)


def returned_names(value: ast.expr | None) -> tuple[str, ...]:
    """Return a name for each value that a return statement returns.

    It is "return", or "return 1", "return 2" and so on for the others of several
    values, and "" for a value that is a variable and therefore has a name already. The
    values of a tuple inside a tuple, such as a cache, count like the others.
    """
    parts = list(leaves(value, value))
    names = ["return", *(f"return {i}" for i in range(1, len(parts)))]
    pairs = zip(names, parts, strict=True)
    return tuple("" if isinstance(part, ast.Name) else name for name, (part, _) in pairs)


def leaves(node: ast.expr | None, value: Any) -> Iterator[tuple[ast.expr | None, Any]]:
    """Yield the expressions of a tuple and of the tuples in it, each with its value.

    value: the value of the whole expression; for values that do not matter, the node.
    """
    if not isinstance(node, ast.Tuple):
        yield node, value
        return
    values = value.elts if value is node else value
    for part, part_value in zip(node.elts, values, strict=True):
        yield from leaves(part, part_value)


def returned_values(statement: Statement, result: Any) -> dict[str, Any]:
    """Return what a return statement has returned, by the names in statement.returns.

    Without the values that are variables.
    """
    node = statement.node
    if not isinstance(node, ast.Return):
        return {}
    values = [value for _, value in leaves(node.value, result)]
    found = dict(zip(statement.returns or (), values, strict=True))
    found.pop("", None)
    return found


def assigned_arrays(statement: Statement, frame: FrameType, result: Any) -> dict[str, np.ndarray]:
    """Return the arrays that a statement has assigned, changed or returned, by name.

    frame: that of its function, after the statement. result: what the function returns,
    if this is its return statement, otherwise None.
    """
    found = {}
    if statement.targets:
        variables = frame.f_locals
        found = {name: variables[name] for name in statement.targets if name in variables}
    if result is not None:
        found |= returned_values(statement, result)
    return {name: x for name, x in found.items() if isinstance(x, np.ndarray)}


def recorded_calls(statement: Statement, frame: FrameType) -> tuple[bool, ...]:
    """Return, for each call in a statement, whether it calls a recorded function.

    frame: that of the statement. The calls are in the order in which they return.
    """
    flags = []
    for function in called_functions(statement):
        try:
            found = function and eval(function, frame.f_globals, frame.f_locals)
        except (NameError, AttributeError, TypeError):
            found = None
        code = getattr(inspect.unwrap(found), "__code__", None) if callable(found) else None
        flags.append(code is not None and is_recorded(code))
    return tuple(flags)


@functools.cache
def called_functions(statement: Statement) -> tuple[CodeType | None, ...]:
    """Return the expression of the function of each call in a statement.

    None for an expression that contains a call itself, such as `get_xp(x).exp`: it is
    never one of the recorded functions.
    """
    found: list[CodeType | None] = []
    for call in calls_in(statement.node):
        is_plain = not any(isinstance(part, ast.Call) for part in ast.walk(call.func))
        expression = ast.Expression(call.func)
        found.append(compile(expression, "<function>", "eval") if is_plain else None)
    return tuple(found)


def calls_in(node: ast.AST) -> Iterator[ast.Call]:
    """Yield the calls inside a syntax tree, in the order in which they return."""
    for child in ast.iter_child_nodes(node):
        yield from calls_in(child)
    if isinstance(node, ast.Call):
        yield node


def without_calls(statement: Statement, flags: tuple[bool, ...]) -> ast.stmt:
    """Return a copy of a statement with names for some calls: <call 0>, <call 1>, ...

    flags: which calls, as recorded_calls returns them.
    """
    copy = ast.parse(ast.unparse(statement.node)).body[0]
    chosen = [call for call, flag in zip(calls_in(copy), flags, strict=True) if flag]
    numbers = {id(call): n for n, call in enumerate(chosen)}

    class Replace(ast.NodeTransformer):
        def visit_Call(self, call: ast.Call) -> ast.expr:
            self.generic_visit(call)
            n = numbers.get(id(call))
            return call if n is None else ast.Name(f"<call {n}>", ast.Load())

    return Replace().visit(copy)

"""The types of our components' knobs, read from their source: a wrong value is refused before torch is imported.

An annotation is an expression over Python's types, `typing`, `runner.schema` and `runner.relations`, so it can be read
without running the file that it stands in. What this reader does not know (a user's component, another expression) is
left to the check after the import, by the same function.
"""

from __future__ import annotations

import ast
import typing
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import runner
from runner import relations, schema

PACKAGE = Path(runner.__file__).parent
PLAIN = {kind.__name__: kind for kind in (int, float, bool, str, list, dict)}
OF_ONE = (schema.Range, schema.Pattern, schema.NotEmpty, schema.Pair)
IN_WORDS = (relations.Whole, relations.OneOf, relations.Regular)
OF_SEVERAL = (relations.Fields, relations.Divides, relations.AtMost, relations.Leaves, relations.With)
RULES = {rule.__name__: rule for rule in (*OF_ONE, *IN_WORDS, *OF_SEVERAL)}


class Unread(Exception):
    """An annotation that only the import can tell."""


@cache
def annotation(kind: str, option: str, knob: str) -> Any:
    """Return the type of a knob of a component of ours, None where only the import can tell it."""
    for path in sources(kind):
        if option in text(path) and (function := registered(path, kind, option)):
            for argument in function.args.kwonlyargs:
                if argument.arg == knob and argument.annotation:
                    try:
                        return read(argument.annotation, path)
                    except Unread:
                        return None
    return None


def sources(kind: str) -> Iterator[Path]:
    """Yield the files that may define the components of a kind."""
    home = PACKAGE / ("tasks" if kind == "task" else f"components/{kind}")
    yield from [home.with_suffix(".py")] if home.with_suffix(".py").is_file() else sorted(home.rglob("*.py"))


@cache
def text(path: Path) -> str:
    """Return what a file holds."""
    return path.read_text(encoding="utf-8")


@cache
def body(path: Path) -> list[ast.stmt]:
    """Return the statements of a file."""
    return ast.parse(text(path)).body


def registered(path: Path, kind: str, option: str) -> ast.FunctionDef | None:
    """Return the function that a file registers under a kind and name."""
    functions = {node.name: node for node in body(path) if isinstance(node, ast.FunctionDef)}
    found = [(name, call) for name, node in functions.items() for call in node.decorator_list]
    for node in body(path):
        match node:
            case ast.Expr(ast.Call(func=ast.Call() as call, args=[ast.Name(id=name)])):  # register(kind, word)(name)
                found.append((name, call))
    return next((functions[name] for name, call in found if words(call, name) == (kind, option)), None)


def words(call: ast.expr, name: str) -> tuple[Any, Any] | None:
    """Return kind and name that a call of `register` gives a function."""
    match call:
        case ast.Call(func=ast.Name(id="register"), args=[ast.Constant(kind)], keywords=[]):
            return kind, name.lower()
        case ast.Call(func=ast.Name(id="register"), args=[ast.Constant(kind), ast.Constant(word)]):
            return kind, word
        case ast.Call(
            func=ast.Name(id="register"), args=[ast.Constant(kind)], keywords=[ast.keyword("name", ast.Constant(word))]
        ):
            return kind, word
    return None


def read(node: ast.expr, path: Path) -> Any:
    """Return the value of an annotation, or of a part of one, that stands in a file; raises Unread."""
    match node:
        case ast.Constant(value):
            return value
        case ast.Name(id=name):
            return named(name, path)
        case ast.Tuple(parts):
            return tuple(read(part, path) for part in parts)
        case ast.Subscript(outer, inner):
            return read(outer, path)[read(inner, path)]
        case ast.BinOp(left, ast.BitOr(), right):
            return read(left, path) | read(right, path)
        case ast.BinOp(left, ast.Div(), right):
            return read(left, path) / read(right, path)
        case ast.Call(ast.Name(id=name), arguments, keywords) if name in RULES:
            named_ones = {str(each.arg): read(each.value, path) for each in keywords}
            return RULES[name](*(read(each, path) for each in arguments), **named_ones)
    raise Unread


def named(name: str, path: Path) -> Any:
    """Return what a name stands for in a file: its own alias, one that it imports, or a type of Python's."""
    for node in body(path):
        match node:
            case ast.Assign([ast.Name(id=target)], value) if target == name:
                return read(value, path)
            case ast.ImportFrom(module=str(module), names=imported):
                for alias in imported:
                    if (alias.asname or alias.name) == name:
                        return brought(module, alias.name)
    if name in PLAIN:
        return PLAIN[name]
    raise Unread


def brought(module: str, name: str) -> Any:
    """Return what `from module import name` brings, of modules that need no import here."""
    if module in ("typing", "runner.schema"):
        return getattr(typing if module == "typing" else schema, name)
    path = PACKAGE.parent / f"{module.replace('.', '/')}.py"
    if module.startswith("runner.") and path.is_file():
        return named(name, path)
    raise Unread

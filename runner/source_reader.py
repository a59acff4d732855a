"""Read functions, types and marks from a source file with `ast`. Nothing is run, so no torch is imported.

The annotation of a knob is an expression over Python's types, `typing`, `runner.schema`, `runner.relations` and
`runner.roles`. Every other expression raises `UnknownAnnotation`.
"""

from __future__ import annotations

import ast
import typing
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import runner
from runner import batch_sizes, relations, roles, schema

PACKAGE = Path(runner.__file__).parent
_TYPES = {kind.__name__: kind for kind in (int, float, bool, str, list, dict)}
_RULES = {
    rule.__name__: rule
    for rule in (
        *(schema.Range, schema.Pattern, schema.NotEmpty, schema.Pair),
        *(relations.Whole, relations.OneOf, relations.Regular, relations.OfLength),
        *(relations.Fields, relations.Divides, relations.AtMost, relations.Leaves, relations.With),
        *(relations.InRun, relations.Window),
        *(roles.FilePath, roles.Verbatim, roles.Unnamed, roles.Unswept, roles.ReadBy),
    )
}
# Modules whose types are taken as they are
_MODULES: dict[str, Any] = {"typing": typing, "runner.schema": schema, "runner.batch_sizes": batch_sizes}
_ENUMS = {"Role": roles.Role, "Aspect": roles.Aspect}
# The parameter of a knob, and its file
_Knob = tuple[ast.arg, Path]


class UnknownAnnotation(Exception):
    """The annotation is an expression that this reader does not support."""


@cache
def source_text(path: Path) -> str:
    """Return the text of a file."""
    return path.read_text(encoding="utf-8")


@cache
def statements(path: Path) -> list[ast.stmt]:
    """Return the top-level statements of a file."""
    return ast.parse(source_text(path)).body


def registered_function(path: Path, kind: str, option: str) -> ast.FunctionDef | None:
    """Return the function that a file registers under a kind and name, None if there is none."""
    functions = {node.name: node for node in statements(path) if isinstance(node, ast.FunctionDef)}
    calls = [(name, call) for name, node in functions.items() for call in node.decorator_list]
    for node in statements(path):
        match node:
            # register(kind, option)(name)
            case ast.Expr(ast.Call(func=ast.Call() as call, args=[ast.Name(id=name)])):
                calls.append((name, call))
    return next((functions[name] for name, call in calls if _registration(call, name) == (kind, option)), None)


def decorators_of(path: Path, kind: str, option: str) -> frozenset[str] | None:
    """Return the names of the decorators of the function or class that a file registers under a kind and name.

    None if there is none.
    """
    for node in statements(path):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            calls = node.decorator_list
            if any(_registration(call, node.name) == (kind, option) for call in calls):
                names = [each.func if isinstance(each, ast.Call) else each for each in calls]
                return frozenset(ast.unparse(each).rpartition(".")[2] for each in names)
    return None


def _registration(call: ast.expr, name: str) -> tuple[Any, Any] | None:
    """Return the kind and the option that a call of `register` gives the function `name`."""
    match call:
        case ast.Call(func=ast.Name(id="register"), args=[ast.Constant(kind)], keywords=[]):
            return kind, name.lower()
        case ast.Call(func=ast.Name(id="register"), args=[ast.Constant(kind), ast.Constant(option)]):
            return kind, option
        case ast.Call(
            func=ast.Name(id="register"),
            args=[ast.Constant(kind)],
            keywords=[ast.keyword("name", ast.Constant(option))],
        ):
            return kind, option
    return None


def knobs_of(function: ast.FunctionDef, path: Path) -> Iterator[_Knob]:
    """Yield the knobs of a function, and of the `@shared_knobs` classes that it asks for, with the file of each."""
    yield from ((argument, path) for argument in function.args.kwonlyargs)
    for argument in function.args.args:
        if isinstance(argument.annotation, ast.Name) and (found := _shared_class(argument.annotation.id, path)):
            yield from knobs_of(*found)


def _shared_class(name: str, path: Path) -> tuple[ast.FunctionDef, Path] | None:
    """Return the constructor, and its file, of a `@shared_knobs` class that a file defines or imports from `runner`."""
    for node in statements(path):
        match node:
            case ast.ClassDef(name=defined) if defined == name:
                return next(((each, path) for each in constructors(node)), None)
            case ast.ImportFrom(module=str(module), names=imported) if home := _file_of(module):
                for alias in imported:
                    if (alias.asname or alias.name) == name:
                        return _shared_class(alias.name, home)
    return None


def constructors(node: ast.ClassDef) -> Iterator[ast.FunctionDef]:
    """Yield the constructor of a `@shared_knobs` class; nothing for another class."""
    match node.decorator_list:
        case [ast.Name(id="shared_knobs")]:
            yield from (each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__")


def read_type(node: ast.expr, path: Path) -> Any:
    """Return the value of an annotation in a file, or of a part of one.

    Raises:
        UnknownAnnotation: This reader does not support the expression.
    """
    match node:
        case ast.Constant(value):
            return value
        case ast.UnaryOp(ast.USub(), ast.Constant(int() | float() as value)):
            return -value
        case ast.Name(id=name):
            return _value_of(name, path)
        case ast.Attribute(ast.Name(id=enum), member) if member in getattr(_ENUMS.get(enum), "__members__", ()):
            return _ENUMS[enum][member]
        case ast.Tuple(parts):
            return tuple(read_type(part, path) for part in parts)
        case ast.Subscript(outer, inner):
            return read_type(outer, path)[read_type(inner, path)]
        case ast.BinOp(left, ast.BitOr(), right):
            return read_type(left, path) | read_type(right, path)
        case ast.BinOp(left, ast.Div(), right):
            return read_type(left, path) / read_type(right, path)
        case ast.Call(ast.Name(id=name), arguments, keywords) if name in _RULES:
            options = {str(each.arg): read_type(each.value, path) for each in keywords}
            return _RULES[name](*(read_type(each, path) for each in arguments), **options)
    raise UnknownAnnotation


def read_marks(node: ast.expr | None, path: Path) -> Iterator[roles.Mark | relations.Fields]:
    """Yield the marks of an annotation, also through an alias of its file, and the fields of its entries.

    The type itself is not read.
    """
    match node:
        case ast.Name(id=name):
            for each in statements(path):
                match each:
                    case ast.Assign([ast.Name(id=target)], value) if target == name:
                        yield from read_marks(value, path)
        case ast.Subscript(ast.Name(id="Annotated"), ast.Tuple([kind, *rules])):
            yield from read_marks(kind, path)
            for rule in rules:
                with suppress(UnknownAnnotation):
                    if isinstance(rule, (ast.Attribute, ast.Call)):
                        mark = read_type(rule, path)
                        if isinstance(mark, roles.Mark | relations.Fields):
                            yield mark
        case ast.Subscript(ast.Name(id="list"), inner):
            yield from (mark for mark in read_marks(inner, path) if isinstance(mark, relations.Fields))


def _value_of(name: str, path: Path) -> Any:
    """Return the value of a name in a file: an alias that the file defines or imports, or a built-in type."""
    for node in statements(path):
        match node:
            case ast.Assign([ast.Name(id=target)], value) if target == name:
                return read_type(value, path)
            case ast.ImportFrom(module=str(module), names=imported):
                for alias in imported:
                    if (alias.asname or alias.name) == name:
                        return _imported_value(module, alias.name)
    if name in _TYPES:
        return _TYPES[name]
    raise UnknownAnnotation


def _imported_value(module: str, name: str) -> Any:
    """Return what `from module import name` gives."""
    if module in _MODULES:
        return getattr(_MODULES[module], name)
    if path := _file_of(module):
        return _value_of(name, path)
    raise UnknownAnnotation


def _file_of(module: str) -> Path | None:
    """Return the file of a module of `runner`, None for other modules."""
    path = PACKAGE.parent / f"{module.replace('.', '/')}.py"
    return path if module.startswith("runner.") and path.is_file() else None

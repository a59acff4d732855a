"""The types and marks of components' knobs, read from their source: they are known before torch is imported.

An annotation is an expression over Python's types, `typing`, `runner.schema`, `runner.relations` and `runner.roles`, so
it can be read without running its file. Values whose type this reader does not know (a user's component, another
expression) are checked after the import, by the same function.
"""

from __future__ import annotations

import ast
import itertools
import re
import sys
import typing
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cache, partial
from pathlib import Path
from typing import Any

import runner
from runner import relations, roles, schema
from runner.registry import shipped
from runner.roles import NO_MARKS, Marks, marks_of

PACKAGE = Path(runner.__file__).parent
PLAIN = {kind.__name__: kind for kind in (int, float, bool, str, list, dict)}
OF_ONE = (schema.Range, schema.Pattern, schema.NotEmpty, schema.Pair)
IN_WORDS = (relations.Whole, relations.OneOf, relations.Regular, relations.OfLength)
OF_SEVERAL = (relations.Fields, relations.Divides, relations.AtMost, relations.Leaves, relations.With)
MARKS = (roles.FilePath, roles.Verbatim, roles.Unnamed, roles.Unswept, roles.ReadBy)
RULES = {rule.__name__: rule for rule in (*OF_ONE, *IN_WORDS, *OF_SEVERAL, *MARKS)}
ENUMS = {"Role": roles.Role, "Aspect": roles.Aspect}
_NO_KNOBS: Mapping[str, Marks] = {}
_NAME = re.compile(r"[A-Za-z_]\w{0,99}")
_MODULE = re.compile(r"[A-Za-z_]\w{0,99}(\.[A-Za-z_]\w{0,99}){0,9}")
# A config may name any installed package as a plugin: reading one must not take long
_MOST_FILES = 200


class Unread(Exception):
    """An annotation that only the import can tell."""


@cache
def annotation(kind: str, option: str, knob: str) -> Any:
    """Return the type of a knob of a component of ours, None where only the import can tell it."""
    for path in sources(kind):
        if option in text(path) and (function := registered(path, kind, option)):
            for argument, home in _knobs_of(function, path):
                if argument.arg == knob and argument.annotation:
                    try:
                        return read(argument.annotation, home)
                    except Unread:
                        return None
    return None


def _knobs_of(function: ast.FunctionDef, path: Path) -> Iterator[tuple[ast.arg, Path]]:
    """Yield the knobs of a function, and of the `@shared_knobs` classes that it asks for, with the file of each."""
    yield from ((argument, path) for argument in function.args.kwonlyargs)
    for argument in function.args.args:
        if isinstance(argument.annotation, ast.Name) and (found := _shared_class(argument.annotation.id, path)):
            yield from _knobs_of(*found)


def _shared_class(name: str, path: Path) -> tuple[ast.FunctionDef, Path] | None:
    """Return the constructor, and its file, of a `@shared_knobs` class that a file defines or imports from ours."""
    for node in body(path):
        match node:
            case ast.ClassDef(name=defined, decorator_list=[ast.Name(id="shared_knobs")]) if defined == name:
                made = (each for each in node.body if isinstance(each, ast.FunctionDef) and each.name == "__init__")
                return next(((each, path) for each in made), None)
            case ast.ImportFrom(module=str(module), names=imported):
                if (home := _file_of(module)) and any((each.asname or each.name) == name for each in imported):
                    real = next(each.name for each in imported if (each.asname or each.name) == name)
                    return _shared_class(real, home)
    return None


def context_of(kind: str, option: str) -> list[str]:
    """Return the context that a component of ours asks for by parameter name; empty for other components."""
    for path in sources(kind):
        if option in text(path) and (function := registered(path, kind, option)):
            return [argument.arg for argument in function.args.args]
    return []


@cache
def marks(kind: str, option: str, plugins: tuple[str, ...] = ()) -> Mapping[str, Marks]:
    """Return the marked knobs of a component.

    A user's component is looked for in the source of the `plugins`. Of one that is not found there, a knob has the
    marks that our components of this kind give to a knob of its name.
    """
    if kind in kinds() and _NAME.fullmatch(option) and (shipped() / kind / f"{option}.yaml").is_file():
        return _first_marked(_marked_sources(kind), kind, option) or {}
    found = _first_marked(_sources_of_plugins(plugins, option), kind, option)
    return marks_of_kind(kind) if found is None else found


@cache
def marks_of_kind(kind: str) -> Mapping[str, Marks]:
    """Return the marked knobs of all our components of a kind; a name has the same marks in each of them."""
    if kind not in kinds():
        return _NO_KNOBS
    found: dict[str, Marks] = {}
    for path in _marked_sources(kind):
        for node in body(path):
            if isinstance(node, ast.FunctionDef):
                found = _marks_of(node, path) | found
    return found


@cache
def kinds() -> frozenset[str]:
    """Return the kinds that we have components of."""
    return frozenset({path.stem for path in (PACKAGE / "components").iterdir()} | {"task"})


def _first_marked(paths: Iterable[Path], kind: str, option: str) -> dict[str, Marks] | None:
    """Return the marked knobs of a component that one of some files registers, None if none does."""
    functions = ((path, registered(path, kind, option)) for path in paths if _may_define(path, option))
    return next((_marks_of(function, path) for path, function in functions if function), None)


def _may_define(path: Path, option: str) -> bool:
    """Return True unless a file, which need not be parsed then, registers no component of a name."""
    return f"def {option}(" in text(path) or f'"{option}"' in text(path)


def _marked_sources(kind: str) -> Iterator[Path]:
    """Yield the files of a kind that have marks at all: most have none, and need not be parsed for them."""
    yield from (path for path in sources(kind) if "runner.roles" in text(path))


def _marks_of(function: ast.FunctionDef, path: Path) -> dict[str, Marks]:
    """Return the marked knobs of a function."""
    arguments = ((argument, home) for argument, home in _knobs_of(function, path) if argument.annotation)
    found = {each.arg: marks_of(list(_marks_in(each.annotation, home))) for each, home in arguments}
    return {knob: each for knob, each in found.items() if each != NO_MARKS}


def _marks_in(node: ast.expr | None, path: Path) -> Iterator[roles.Mark]:
    """Yield the marks of an annotation, or of the alias in its file that it names; the type itself is not read."""
    match node:
        case ast.Name(id=name):
            for each in body(path):
                match each:
                    case ast.Assign([ast.Name(id=target)], value) if target == name:
                        yield from _marks_in(value, path)
        case ast.Subscript(ast.Name(id="Annotated"), ast.Tuple([kind, *rules])):
            yield from _marks_in(kind, path)
            for rule in rules:
                with suppress(Unread):
                    if isinstance(rule, (ast.Attribute, ast.Call)) and isinstance(mark := read(rule, path), roles.Mark):
                        yield mark


def _sources_of_plugins(modules: Iterable[str], option: str) -> Iterator[Path]:
    """Yield the files of a user's modules that mention an option; they are found as for an import, but not imported."""
    for module in filter(_MODULE.fullmatch, modules):
        places = (Path(folder or ".") / module.replace(".", "/") for folder in sys.path)
        for place in places:
            if (place / "__init__.py").is_file():
                yield from filter(partial(_mentions, option), itertools.islice(place.rglob("*.py"), _MOST_FILES))
                break
            if place.with_suffix(".py").is_file():
                yield from filter(partial(_mentions, option), [place.with_suffix(".py")])
                break


def _mentions(option: str, path: Path) -> bool:
    """Return True if a file can be parsed and mentions an option."""
    try:
        return option in text(path) and bool(body(path))
    except (OSError, SyntaxError, ValueError, RecursionError):
        return False


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
        case ast.Attribute(ast.Name(id=enum), member) if member in getattr(ENUMS.get(enum), "__members__", ()):
            return ENUMS[enum][member]
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
    if path := _file_of(module):
        return named(name, path)
    raise Unread


def _file_of(module: str) -> Path | None:
    """Return the file of a module of ours."""
    path = PACKAGE.parent / f"{module.replace('.', '/')}.py"
    return path if module.startswith("runner.") and path.is_file() else None

"""Types and marks of the components' knobs, read from the source files so that they are known without torch.

Where `runner.source_reader` does not support an annotation (of a user's component, for example), the same function
checks the value after the import.
"""

from __future__ import annotations

import ast
import itertools
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from runner.errors import ConfigError
from runner.plain_yaml import conf_folder
from runner.roles import NO_MARKS, Marks, marks_of
from runner.source_reader import (
    PACKAGE,
    UnknownAnnotation,
    constructors,
    decorators_of,
    knobs_of,
    read_marks,
    read_type,
    registered_function,
    source_text,
    statements,
)
from runner.user_paths import full, is_file

_NO_KNOBS: Mapping[str, Marks] = {}
_NAME = re.compile(r"[A-Za-z_]\w{0,99}")
_MODULE = re.compile(r"[A-Za-z_]\w{0,99}(\.[A-Za-z_]\w{0,99}){0,9}")
# A config may name any installed package as a plugin, and reading it must not take long.
_MOST_FILES = 200


@cache
def annotation(kind: str, option: str, knob: str) -> Any:
    """Return the type of a knob of a built-in component, None if it is known only after the import."""
    for function, path in _functions(_sources(kind), kind, option):
        for argument, home in knobs_of(function, path):
            if argument.arg == knob and argument.annotation:
                try:
                    return read_type(argument.annotation, home)
                except UnknownAnnotation:
                    return None
    return None


def context_of(kind: str, option: str) -> list[str]:
    """Return the context that a built-in component asks for by parameter name; empty for other components."""
    functions = (function for function, _ in _functions(_sources(kind), kind, option))
    return next(([argument.arg for argument in function.args.args] for function in functions), [])


@cache
def marks(kind: str, option: str, plugins: tuple[str, ...] = ()) -> Mapping[str, Marks]:
    """Return the marked knobs of a component.

    A user's component is searched in the source of the `plugins`. If it is not there, its knobs have the marks that
    knobs of the same name have in the built-in components of this kind.
    """
    if kind in _kinds() and _NAME.fullmatch(option) and (conf_folder() / kind / f"{option}.yaml").is_file():
        return _first_marked(_marked_sources(kind), kind, option) or {}
    found = _first_marked(_plugin_sources(plugins, option), kind, option)
    return marks_of_kind(kind) if found is None else found


@cache
def marks_of_kind(kind: str) -> Mapping[str, Marks]:
    """Return the marked knobs of all built-in components of a kind; a knob has the same marks in each of them."""
    if kind not in _kinds():
        return _NO_KNOBS
    found: dict[str, Marks] = {}
    for path in filter(_has_marks, _sources(kind)):
        for node in statements(path):
            for function in constructors(node) if isinstance(node, ast.ClassDef) else [node]:
                if isinstance(function, ast.FunctionDef):
                    found = _marks_of(function, path) | found
    return found


@cache
def lower_is_better(metric: str, plugins: tuple[str, ...] = ()) -> bool | None:
    """Return True if the component of a metric is under `@lower_is_better`, None if no source of it is found.

    A user's component is searched in the source of the `plugins`.
    """
    files = itertools.chain(_sources("metric"), _plugin_sources(plugins, metric))
    found = (decorators_of(path, "metric", metric) for path in files if _may_define(path, metric))
    return next(("lower_is_better" in names for names in found if names is not None), None)


@cache
def _kinds() -> frozenset[str]:
    """Return the kinds of the built-in components."""
    return frozenset({path.stem for path in (PACKAGE / "components").iterdir()} | {"task"})


def _functions(paths: Iterable[Path], kind: str, option: str) -> Iterator[tuple[ast.FunctionDef, Path]]:
    """Yield the functions that some files register under a kind and name, with the file of each."""
    for path in paths:
        if _may_define(path, option) and (function := registered_function(path, kind, option)):
            yield function, path


def _may_define(path: Path, option: str) -> bool:
    """Return False if the text of a file shows that it does not register an option, so it need not be parsed."""
    text, name = source_text(path).lower(), option.lower()
    return any(f"{before}{name}{after}" in text for before, after in (("def ", "("), ('"', '"'), ("'", "'")))


def _first_marked(paths: Iterable[Path], kind: str, option: str) -> dict[str, Marks] | None:
    """Return the marked knobs of a component from the first file that registers it, None if no file does."""
    return next((_marks_of(function, path) for function, path in _functions(paths, kind, option)), None)


def _marks_of(function: ast.FunctionDef, path: Path) -> dict[str, Marks]:
    """Return the marked knobs of a function."""
    knobs = ((argument, home) for argument, home in knobs_of(function, path) if argument.annotation)
    found = {argument.arg: marks_of(list(read_marks(argument.annotation, home))) for argument, home in knobs}
    return {knob: each for knob, each in found.items() if each != NO_MARKS}


def _sources(kind: str) -> Iterator[Path]:
    """Yield the files that may define the built-in components of a kind."""
    home = PACKAGE / ("tasks" if kind == "task" else f"components/{kind}")
    yield from [home.with_suffix(".py")] if home.with_suffix(".py").is_file() else sorted(home.rglob("*.py"))


def _marked_sources(kind: str) -> Iterator[Path]:
    """Yield the files of a kind that may have marks; most have none and need not be parsed."""
    files = list(_sources(kind))
    marked = list(filter(_has_marks, files))
    # Shared knobs are marked in one file, and any other may use them
    yield from files if any("@shared_knobs" in source_text(path) for path in marked) else marked


def _has_marks(path: Path) -> bool:
    """Return True if a file may have marks."""
    return "runner.roles" in source_text(path)


def _plugin_sources(modules: Iterable[str], option: str) -> Iterator[Path]:
    """Yield the files of a user's modules that mention an option; the import path is searched, nothing is imported."""
    for module in filter(_MODULE.fullmatch, modules):
        for folder in sys.path:
            place = Path(full(folder or ".")) / module.replace(".", "/")
            package = _is_there(place / "__init__.py")
            if package or _is_there(place.with_suffix(".py")):
                files = itertools.islice(place.rglob("*.py"), _MOST_FILES) if package else [place.with_suffix(".py")]
                yield from (path for path in files if _mentions(path, option))
                break


def _is_there(path: Path) -> bool:
    """Return True if there is a file; Python's import also takes what it may not look at as missing."""
    try:
        return is_file(path)
    except ConfigError:
        return False


def _mentions(path: Path, option: str) -> bool:
    """Return True if a file can be parsed and mentions an option."""
    try:
        return option in source_text(path) and bool(statements(path))
    except (OSError, SyntaxError, ValueError, RecursionError):
        return False

"""Import the user's plugins before a task runs, and recognize errors in their code."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from runner.engine.interruption import Interrupted
from runner.engine.user_code import user_files
from runner.errors import PLUGIN, PluginError, RunnerError, describe, first_line, text_of, type_name
from runner.registry import MAIN
from runner.status import PLUGINS_IN_USE
from runner.tasks.out_of_memory import out_of_memory
from runner.user_paths import near

# Exceptions of a chain whose tracebacks are shown
_MOST_CAUSES = 10


def load_plugins(modules: Sequence[str]) -> None:
    """Import the modules that `plugins=[...]` names on the command line, so that their components are registered.

    Raises:
        PluginError: in one line, with the plugin's file and line, if one cannot be imported.
    """
    for name in modules:
        try:
            importlib.import_module(name)
        except BaseException as error:
            if issubclass(type(error), RunnerError) or _is_interrupt(error):
                raise
            place = _place(error, modules)
            if issubclass(type(error), SyntaxError):
                text = f"{type_name(error)}: {text_of(vars(SyntaxError)['msg'].__get__(error), str)}"
            else:
                text = first_line(error) if issubclass(type(error), ImportError) else describe(error)
            where = f" ({place})" if place else ""
            lines = _users_traceback(error, modules) if place else ()
            raise PluginError(f"plugins: cannot import '{name}': {text}{where}", lines) from error


def known_cause(error: BaseException, plugins: Sequence[str], config: Mapping[str, Any] | None = None) -> BaseException:
    """Return a one-line error if the cause is a size that exceeds the memory, or a plugin; else `error`.

    An error is a plugin's if the traceback contains its code, even if torch or runner raised the error. With the
    `config` of a run, the line about memory has its batch.
    """
    if issubclass(type(error), RunnerError) or _is_interrupt(error):
        return error
    if refused := out_of_memory(error, config):
        return refused
    if place := _place(error, plugins):
        return PluginError(f"{PLUGIN}{place}: {describe(error)}", _users_traceback(error, plugins))
    if plugins:
        # The notes of an exception may be anything
        with suppress(Exception):
            error.add_note(f"{PLUGINS_IN_USE}{', '.join(plugins)}")
    return error


def _is_interrupt(error: BaseException) -> bool:
    """Return True if a signal ended the work: a plugin may have a subclass of KeyboardInterrupt for its own ends."""
    return type(error) in (KeyboardInterrupt, Interrupted)


def _place(error: BaseException, plugins: Sequence[str]) -> str | None:
    """Return `file:line` of the innermost code of the user that an error passed through, None if there is none."""
    is_users = _users_code(error, plugins)
    frames: list[tuple[str, int | None]] = []
    main = _main(plugins)
    for frame, number in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        if frame.f_globals is main:
            # A cell of a notebook has no file
            frames.append((f"{MAIN}.{code.co_qualname}", number - code.co_firstlineno + 1))
        else:
            frames.append((code.co_filename, number))
    if issubclass(type(error), SyntaxError):
        # A subclass cannot replace these attributes
        file, line = (vars(SyntaxError)[name].__get__(error) for name in ("filename", "lineno"))
        frames += [(file, line)] if isinstance(file, str) else []
    for file, line in reversed(frames):
        if file.startswith(f"{MAIN}."):
            return f"{file}, line {line}"
        if is_users(file):
            return f"{near(file)}:{line}"
    return None


def _main(plugins: Sequence[str]) -> dict[str, object] | None:
    """Return the names of the module that a notebook or script is, None if it is no plugin."""
    return vars(sys.modules[MAIN]) if MAIN in plugins else None


def _users_traceback(error: BaseException, plugins: Sequence[str]) -> tuple[str, ...]:
    """Return the lines of a traceback from the first frame of the user's code on, empty if it cannot be shown."""
    is_users = _users_code(error, plugins)
    try:
        found = traceback.TracebackException.from_exception(error)
        each: traceback.TracebackException | None = found
        for _ in range(_MOST_CAUSES):
            if each is None:
                break
            # A file that cannot be parsed is in no frame, but in the text of the error
            none = len(each.stack) if each is found and issubclass(type(error), SyntaxError) else 0
            first = next((i for i, frame in enumerate(each.stack) if is_users(frame.filename)), none)
            del each.stack[:first]
            each = each.__cause__ or each.__context__
        return tuple("".join(found.format()).rstrip("\n").split("\n"))
    except BaseException as failure:
        return (f"the traceback of {type_name(error)} cannot be shown ({describe(failure)})",)


def _users_code(error: BaseException, plugins: Sequence[str]) -> Callable[[str], bool]:
    """Return a function that is True for files of the plugins and of the user's modules that they import."""
    roots, main = list(_plugin_paths(plugins)), _main(plugins)
    frames = (frame for frame, _ in traceback.walk_tb(error.__traceback__))
    files = user_files(plugins) | {frame.f_code.co_filename for frame in frames if frame.f_globals is main}
    return lambda file: file in files or any(Path(file).is_relative_to(root) for root in roots)


def _plugin_paths(plugins: Sequence[str]) -> Iterator[str]:
    """Yield the files and package folders of the plugins' code."""
    for name in {name.partition(".")[0] for name in plugins} - {"runner", MAIN}:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            continue
        if spec is not None:
            yield from spec.submodule_search_locations or ([spec.origin] if spec.origin else [])

"""Import the user's plugins before a task runs, and recognize errors in their code."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from runner.engine.interruption import Interrupted
from runner.errors import ConfigError, PluginError, RunnerError, describe, first_line, text_of, type_name
from runner.registry import MAIN
from runner.tasks.out_of_memory import out_of_memory
from runner.user_paths import relative


def load_plugins(modules: Sequence[str]) -> None:
    """Import the modules that `plugins=[...]` names on the command line, so that their components are registered.

    Raises:
        ConfigError: in one line, with the plugin's file and line, if one cannot be imported.
    """
    for name in modules:
        try:
            importlib.import_module(name)
        except BaseException as error:
            if issubclass(type(error), RunnerError) or _is_interrupt(error):
                raise
            where = f" ({place})" if (place := _place(error, modules)) else ""
            if issubclass(type(error), SyntaxError):
                text = f"{type_name(error)}: {text_of(vars(SyntaxError)['msg'].__get__(error), str)}"
            else:
                text = first_line(error) if issubclass(type(error), ImportError) else describe(error)
            raise ConfigError(f"plugins: cannot import '{name}': {text}{where}") from error


def known_cause(error: BaseException, plugins: Sequence[str], config: Mapping[str, Any] | None = None) -> BaseException:
    """Return a one-line error if the cause is a size that exceeds the memory, or a plugin; else `error`.

    An error is a plugin's if the traceback contains its code, even if torch or runner raised the error. With the `config`
    of a run, the line about memory has its batch.
    """
    if issubclass(type(error), RunnerError) or _is_interrupt(error):
        return error
    if refused := out_of_memory(error, config):
        return refused
    if place := _place(error, plugins):
        return PluginError(f"plugin {place}: {describe(error)}")
    if plugins:
        # The notes of an exception may be anything
        with suppress(Exception):
            error.add_note(f"plugins in use: {', '.join(plugins)}")
    return error


def _is_interrupt(error: BaseException) -> bool:
    """Return True if a signal ended the work: a plugin may have a subclass of KeyboardInterrupt for its own ends."""
    return type(error) in (KeyboardInterrupt, Interrupted)


def _place(error: BaseException, plugins: Sequence[str]) -> str | None:
    """Return `file:line` of the innermost plugin code that an error passed through, None if there is none."""
    roots = list(_plugin_paths(plugins))
    frames: list[tuple[str, int | None]] = []
    main = vars(sys.modules[MAIN]) if MAIN in plugins else None
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
        if any(Path(file).is_relative_to(root) for root in roots):
            return f"{_near(file)}:{line}"
    return None


def _near(file: str) -> str:
    """Return the path of a file from the working folder, if it is below one."""
    try:
        near = relative(file)
    except OSError:
        # The working folder was removed
        return file
    return file if near.startswith("..") else near


def _plugin_paths(plugins: Sequence[str]) -> Iterator[str]:
    """Yield the files and package folders of the plugins' code."""
    for name in {name.partition(".")[0] for name in plugins} - {"runner", MAIN}:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            continue
        if spec is not None:
            yield from spec.submodule_search_locations or ([spec.origin] if spec.origin else [])

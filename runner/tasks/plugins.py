"""Import the user's plugins before a task runs, and recognize errors in their code."""

from __future__ import annotations

import importlib
import importlib.util
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from runner.errors import ConfigError, PluginError, RunnerError, too_large
from runner.user_paths import relative


def load_plugins(modules: Sequence[str]) -> None:
    """Import the modules that `plugins=[...]` names on the command line, so that their components are registered.

    Raises:
        ConfigError: in one line, with the plugin's file and line, if one cannot be imported.
    """
    for name in modules:
        try:
            importlib.import_module(name)
        except RunnerError:
            raise
        except (Exception, SystemExit) as error:
            kind = "" if isinstance(error, ImportError) else f"{type(error).__name__}: "
            where = f" ({place})" if (place := _place(error, modules)) else ""
            text = error.msg if isinstance(error, SyntaxError) else _first_line(error)
            raise ConfigError(f"plugins: cannot import '{name}': {kind}{text}{where}") from error


def known_cause(error: BaseException, plugins: Sequence[str]) -> BaseException:
    """Return a one-line error if the cause is a size that exceeds the memory, or a plugin; else `error`.

    An error is a plugin's if the traceback contains its code, even if torch or runner raised the error.
    """
    if isinstance(error, (RunnerError, KeyboardInterrupt)):
        return error
    if refused := too_large(error):
        return refused
    if place := _place(error, plugins):
        return PluginError(f"plugin {place}: {type(error).__name__}: {_first_line(error)}")
    if plugins:
        error.add_note(f"plugins in use: {', '.join(plugins)}")
    return error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), "")


def _place(error: BaseException, plugins: Sequence[str]) -> str | None:
    """Return `file:line` of the innermost plugin code that an error passed through, None if there is none."""
    roots = list(_plugin_paths(plugins))
    frames = [(frame.filename, frame.lineno) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        frames.append((error.filename, error.lineno))
    for file, line in reversed(frames):
        if any(Path(file).is_relative_to(root) for root in roots):
            near = relative(file)
            return f"{file if near.startswith('..') else near}:{line}"
    return None


def _plugin_paths(plugins: Sequence[str]) -> Iterator[str]:
    """Yield the files and package folders of the plugins' code."""
    for name in {name.partition(".")[0] for name in plugins} - {"runner"}:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            continue
        if spec is not None:
            yield from spec.submodule_search_locations or ([spec.origin] if spec.origin else [])

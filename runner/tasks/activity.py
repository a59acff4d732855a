"""The work of this process: one call of the Python API, or one task, at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from runner.errors import ConfigError

_guard = threading.Lock()
# The calls and tasks that run in this process, the outermost first
_running: list[str] = []


@contextmanager
def claimed(what: str) -> Iterator[None]:
    """Refuse to run the body while this process runs a task, or another body: torch's settings are those of a process.

    Raises:
        ConfigError: In one line, if it does.

    """
    with _guard:
        if _running:
            raise ConfigError(
                f"{what}: cannot start, because this process runs {_running[0]}; wait for its end "
                "(a sweep runs several trials at the same time)"
            )
        _running.append(what)
    try:
        yield
    finally:
        _running.remove(what)


@contextmanager
def noted(what: str) -> Iterator[None]:
    """Note that this process runs a task while the body runs; tasks may start others."""
    _running.append(what)
    try:
        yield
    finally:
        _running.remove(what)

"""One call of the Python API: what it sets in this process, and sets back when it ends."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.global_hydra import GlobalHydra

from runner import plain_yaml, source_reader, user_paths
from runner.annotations import annotation, marks, marks_of_kind
from runner.door import naming, options
from runner.engine.interruption import Interrupted, raising, repeats_raise
from runner.engine.rendezvous import place_in
from runner.errors import ConfigError, PluginError, RunnerError
from runner.printing import in_notebook
from runner.status import ending
from runner.tasks.activity import claimed
from runner.user_folders import check_working_folder

# Calls that train or write; others may be made in each of several processes
_OF_ONE_PROCESS = ("runner.train", "runner.run", "runner.sweep")
_Value = TypeVar("_Value")

# What is kept of the user's files, which may change between two calls
_OF_FILES: tuple[Any, ...] = (
    options.read_yaml,
    plain_yaml.loaded_config,
    source_reader.source_text,
    source_reader.statements,
    annotation,
    marks,
    marks_of_kind,
    naming.trial_folders,
)


def _refuse_several(what: str) -> None:
    """Raise ConfigError in one of several processes, each of which would do the whole work."""
    if (place := place_in(os.environ)) is not None:
        raise ConfigError(
            f"{what}: this is one of {place.size} processes of {place.starter}; train in several with "
            "torchrun or srun ... -m runner, or unset its variables"
        )


def call(what: str, body: Callable[[], _Value], opened: Callable[[], Path | None] = lambda: None) -> _Value:
    """Run the body of a call as a command and return its value; leave this process as it was.

    Args:
        what: The name of the call.
        body: What to do.
        opened: Returns the folder of the run, for an error; None as long as there is none.

    Raises:
        RunnerError: As the command line prints it, in one line, and without the frames inside runner; `folder` is set.
        Interrupted: After SIGINT, SIGTERM or SIGHUP.

    """
    try:
        with claimed(what), _session():
            if what in _OF_ONE_PROCESS:
                _refuse_several(what)
            return body()
    except KeyboardInterrupt as error:
        # Python's own: a second Ctrl-C, which did not wait for the run
        interrupted = error if isinstance(error, Interrupted) else Interrupted(signal.SIGINT)
        interrupted.folder = _absolute(opened())
        raise interrupted.with_traceback(None) from None
    except RunnerError as error:
        error.folder = _absolute(opened())
        # As on the command line: without passwords and control characters
        error.args = (str(ending(error).reason),)
        # What a plugin raised is of use to its author
        raise error.with_traceback(None) from (error.__cause__ if isinstance(error, PluginError) else None)


@contextlib.contextmanager
def _session() -> Iterator[None]:
    for each in _OF_FILES:
        each.cache_clear()
    with contextlib.ExitStack() as held:
        # Libraries draw from Python's generator
        held.callback(random.setstate, random.getstate())
        held.callback(_restore_environment, dict(os.environ))
        held.enter_context(_own_hydra())
        held.enter_context(user_paths.returning())
        held.enter_context(user_paths.anchored())
        held.enter_context(_one_stream_in_notebooks())
        held.enter_context(repeats_raise())
        held.enter_context(raising())
        check_working_folder()
        yield


def _absolute(folder: Path | None) -> Path | None:
    """Return the folder of a run in full: the working folder of a notebook may change."""
    return None if folder is None else Path(user_paths.absolute(folder))


def _restore_environment(before: dict[str, str]) -> None:
    """Set the environment variables to earlier values; torch and the folders of libraries add some."""
    for name in {*before, *os.environ}:
        if name not in before:
            del os.environ[name]
        elif os.environ.get(name) != before[name]:
            os.environ[name] = before[name]


@contextlib.contextmanager
def _own_hydra() -> Iterator[None]:
    """Let the body initialize Hydra, which the program that calls may have done for itself."""
    before, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        yield
    finally:
        # Hydra has replaced the object
        GlobalHydra.instance().hydra = before


@contextlib.contextmanager
def _one_stream_in_notebooks() -> Iterator[None]:
    """Print progress to standard output while the body runs in a notebook, which shows standard error as an alarm."""
    if in_notebook(sys.stderr) and in_notebook(sys.stdout):
        with contextlib.redirect_stderr(sys.stdout):
            yield
    else:
        yield


def import_matplotlib() -> None:
    """Import matplotlib with the settings of the user, who may draw in this process too.

    Figures of runs ignore these settings, so runner's own import hides them (`runner.engine.figures.picture`).
    """
    with contextlib.suppress(Exception):
        import matplotlib  # noqa: F401

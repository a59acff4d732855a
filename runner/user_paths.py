"""The user's paths: what they mean, and facts about them.

A relative path counts from the folder in which the command was started, wherever a plugin moves the process later
(`os.chdir`). Messages and files keep the text as typed, so paths become absolute here, where the disk is asked.

A fact about a path (`is_dir`, `listed`, ...) is returned, or an error says in one line why it is not known: no
permission, a name that is too long, a loop of links, a failing disk. `Path.is_dir` and `os.path.isdir` raise an OSError
for some of these, or say False for all, depending on the version of Python. `tests/hostile/test_path_gate.py` checks
that no other module asks the disk.
"""

from __future__ import annotations

import contextlib
import glob
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from runner.errors import KEY, ConfigError, RunnerError, brief, escaped

_Path = str | os.PathLike[str]
_Error = type[RunnerError]

# The folder in which the command was started; None: the working folder, as for users of the Python modules
_start: str | None = None


@contextlib.contextmanager
def anchored(folder: str | None = None) -> Iterator[None]:
    """Let relative paths count from a folder, by default the working folder of this moment, until the end."""
    global _start
    before = _start
    if folder is None:
        # A working folder that was deleted has no name
        with contextlib.suppress(OSError):
            folder = os.getcwd()  # noqa: PTH109
    _start = folder
    try:
        yield
    finally:
        _start = before


def anchor(folder: str | None) -> None:
    """Let relative paths count from a folder for the rest of this process: a worker, or the server of trials."""
    global _start
    _start = folder


def start_folder() -> str | None:
    """Return the folder from which relative paths count, None if it was deleted."""
    if _start is not None:
        return _start if os.path.isdir(_start) else None  # noqa: PTH112
    with contextlib.suppress(OSError):
        return os.getcwd()  # noqa: PTH109
    return None


@contextlib.contextmanager
def in_start_folder() -> Iterator[None]:
    """Make the start folder the working folder while the body runs: new processes ask for it and inherit it."""
    if _start is None:
        yield
        return
    with returning():
        with contextlib.suppress(OSError):
            os.chdir(_start)
        yield


@contextlib.contextmanager
def returning() -> Iterator[None]:
    """Go back to the working folder at the end, wherever the body went."""
    # Open, because the folder to return to may be deleted; O_PATH also opens one that may not be read
    with contextlib.ExitStack() as held:
        with contextlib.suppress(OSError):
            here = os.open(".", getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC)
            held.callback(os.close, here)
            held.callback(_go_back, here)
        yield


def _go_back(folder: int) -> None:
    """Make an open folder the working folder, if that is allowed."""
    with contextlib.suppress(OSError):
        os.fchdir(folder)


def full(path: _Path) -> str:
    """Return a path that means the same in every working folder; links and `..` stay in it."""
    text = os.fspath(path)
    return text if _start is None else os.path.join(_start, text)  # noqa: PTH118


def absolute(path: _Path) -> str:
    """Return a path in full, without `.` and `..`; links stay in it."""
    return os.path.abspath(full(path))  # noqa: PTH100


def real(path: _Path) -> Path:
    """Return a path in full without links, `.` and `..`; a loop of links stays as it is."""
    return Path(os.path.realpath(full(path)))


def leads_up(path: _Path) -> bool:
    """Return True for a link to a folder that it is in: below it a search goes round, or through a whole disk."""
    place = full(path)
    if not os.path.islink(place):  # noqa: PTH114
        return False
    holder = os.path.realpath(os.path.dirname(place))  # noqa: PTH120
    return os.path.join(holder, "").startswith(os.path.join(os.path.realpath(place), ""))  # noqa: PTH118


def relative(path: _Path, start: _Path = ".") -> str:
    """Return the path that leads from a folder to another path."""
    return os.path.relpath(full(path), full(start))


def near(path: _Path) -> str:
    """Return a path from the start folder if it is below that, else as it is."""
    try:
        found = relative(path)
    except (OSError, ValueError):
        # The working folder was removed
        return os.fspath(path)
    return os.fspath(path) if found.startswith("..") else found


def status(path: _Path, *, error: _Error = ConfigError, key: str = "", links: bool = True) -> os.stat_result | None:
    """Return the status of what is at a path, None if nothing is there; `links` follows a link.

    Raises:
        RunnerError: Of the kind `error`, about `key`, if the system does not say.
    """
    try:
        return os.stat(full(path), follow_symlinks=links)  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as problem:
        raise path_error(path, problem, error=error, key=key) from problem


def is_dir(path: _Path, *, error: _Error = ConfigError, key: str = "", links: bool = True) -> bool:
    """Return True if a path leads to a folder; raises like `status`."""
    found = status(path, error=error, key=key, links=links)
    return found is not None and stat.S_ISDIR(found.st_mode)


def is_file(path: _Path, *, error: _Error = ConfigError, key: str = "") -> bool:
    """Return True if a path leads to a regular file; raises like `status`."""
    found = status(path, error=error, key=key)
    return found is not None and stat.S_ISREG(found.st_mode)


def exists(path: _Path, *, error: _Error = ConfigError, key: str = "", links: bool = True) -> bool:
    """Return True if something is at a path; raises like `status`."""
    return status(path, error=error, key=key, links=links) is not None


def listed(folder: _Path, *, error: _Error = ConfigError, key: str = "") -> list[str]:
    """Return the sorted names in a folder, none if there is no folder; raises like `status`."""
    try:
        # A tenth of the time of `Path.iterdir`
        return sorted(os.listdir(full(folder)))  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return []
    except (OSError, ValueError) as problem:
        raise path_error(folder, problem, error=error, key=key) from problem


def walk(top: _Path, onerror: Callable[[OSError], object] | None = None) -> Iterator[tuple[str, list[str], list[str]]]:
    """Yield folder, subfolders and files as `os.walk` does, with the folders as typed; links are not followed."""
    typed, base = os.fspath(top), full(top)

    def report(problem: OSError) -> None:
        if onerror is not None:
            if isinstance(problem.filename, str) and problem.filename.startswith(base):
                problem.filename = typed + problem.filename[len(base) :]
            onerror(problem)

    for place, below, files in os.walk(base, onerror=report):
        yield typed + place[len(base) :], below, files


def matching(pattern: str) -> list[Path]:
    """Return the sorted paths that a pattern names, as it is typed: relative ones stay relative."""
    return sorted(map(Path, glob.glob(pattern, root_dir=_start, recursive=True)))  # noqa: PTH207


def path_error(path: _Path, problem: Exception, *, error: _Error = ConfigError, key: str = "") -> RunnerError:
    """Return the error for a path that the system refuses: key, path and reason."""
    reason = (problem.strerror if isinstance(problem, OSError) else None) or str(problem) or type(problem).__name__
    return error(f"{f'{key}: ' if key else ''}{brief(escaped(os.fspath(path)), KEY)}: {reason}")

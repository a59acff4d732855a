"""The user's home folder, and a folder for caches: one can be found even where there is no home.

A container may run as a user whom the system does not know, without HOME or with one that cannot be written to.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from runner.errors import ConfigError, StorageError

# No file can be below it, so a cache there is never kept
_NOWHERE = Path(os.devnull)
# Folders for libraries that would fail, or keep their caches for one run only, without a home that can be written to
_LIBRARY_FOLDERS = {
    "MPLCONFIGDIR": "matplotlib",
    "TORCH_HOME": "torch",
    "TORCHINDUCTOR_CACHE_DIR": "torchinductor",
    "TRITON_CACHE_DIR": "triton",
    "HF_HOME": "huggingface",
}


def _home() -> str | None:
    """Return the user's home folder, from HOME or else as the system knows it; None if it is not known."""
    given = os.environ.get("HOME", "")
    if Path(given).is_absolute():
        return given
    # Few systems lack it, and few command lines need it
    import pwd

    try:
        found = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        return None
    return found if Path(found).is_absolute() else None


def expand_home(path: str | Path) -> Path:
    """Return a path with a leading `~` or `~user` replaced by the home folder; ConfigError if it is not known."""
    text = str(path)
    if not text.startswith("~"):
        return Path(path)
    user, slash, rest = text.partition("/")
    folder = _home() if user == "~" else _home_of(user)
    if folder is None:
        raise ConfigError("your home folder is not known: set HOME, or write the whole path")
    if folder.startswith("~"):
        raise ConfigError("there is no such user; ./~ is a folder of that name")
    return Path(f"{folder}{slash}{rest}")


def _home_of(user: str) -> str:
    """Return the home folder of `~user`, or the text itself if there is no such user."""
    try:
        return os.path.expanduser(user)  # noqa: PTH111  (Path's raises RuntimeError)
    except ValueError:  # a name with NUL
        return user


def check_working_folder() -> None:
    """Raise StorageError if the working folder does not exist: no relative path would mean anything."""
    try:
        os.getcwd()  # noqa: PTH109
    except OSError as error:
        raise StorageError(f"the working folder cannot be used ({error.strerror}); change to another one") from error


def cache_folder() -> Path:
    """Return the folder for the caches of this package.

    That is `runner` below XDG_CACHE_HOME or `~/.cache`; where neither can be written to, one in the folder for
    temporary files that is the user's alone; where that cannot be either, one in which nothing can be kept.
    """
    return usual_cache_folder() or _temporary_folder() or _NOWHERE / "runner"


def usual_cache_folder() -> Path | None:
    """Return `runner` below XDG_CACHE_HOME or `~/.cache`, None if neither can be written to."""
    return _first_usable("XDG_CACHE_HOME", ".cache", "runner")


def set_library_folders() -> None:
    """Tell libraries of folders for their caches where the usual ones cannot be written to or have no name."""
    for variable in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"):
        # Libraries would write below the working folder
        if not Path(os.environ.get(variable, "/")).is_absolute():
            del os.environ[variable]
    if not _first_usable("XDG_CONFIG_HOME", ".config", "matplotlib"):
        _set_folder("MPLCONFIGDIR")
    if not usual_cache_folder():
        for name in _LIBRARY_FOLDERS:
            _set_folder(name)
    elif not _has_user_name():
        # The usual one has the name of the user
        _set_folder("TORCHINDUCTOR_CACHE_DIR")


def _set_folder(variable: str) -> None:
    """Set an environment variable that names the folder of a library, if it is not set."""
    folder = cache_folder()
    if _NOWHERE not in folder.parents:
        os.environ.setdefault(variable, str(folder / _LIBRARY_FOLDERS[variable]))


def _first_usable(variable: str, below_home: str, name: str) -> Path | None:
    """Return a folder below the one that a variable names, else below the home folder, if it can be written to."""
    return next((path for path in _candidates(variable, below_home, name) if _is_usable(path)), None)


def _candidates(variable: str, below_home: str, name: str) -> Iterator[Path]:
    given = os.environ.get(variable, "")
    # The standard has relative paths ignored
    if Path(given).is_absolute():
        yield Path(given) / name
    if folder := _home():
        yield Path(folder) / below_home / name


def _is_usable(folder: Path) -> bool:
    """Return True if files can be created in a folder, which need not exist."""
    for path in (folder, *folder.parents):
        if os.path.lexists(path):
            return os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK)  # noqa: PTH112  (no error for any path)
    return False


def _temporary_folder() -> Path | None:
    """Return a folder for temporary files that only this user can change, None if there is none."""
    # Few users need it
    import tempfile

    try:
        folder = Path(tempfile.gettempdir()) / f"runner-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError:
        return None
    # Another user may have made it first
    mine = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o022
    return folder if mine and os.access(folder, os.W_OK | os.X_OK) else None


def _has_user_name() -> bool:
    """Return True if libraries find the user's name, as `getpass.getuser` does."""
    import pwd

    if any(os.environ.get(name) for name in ("LOGNAME", "USER", "LNAME", "USERNAME")):
        return True
    try:
        return bool(pwd.getpwuid(os.getuid()).pw_name)
    except KeyError:
        return False

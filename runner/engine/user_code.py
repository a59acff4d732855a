"""The modules of the user that a process has imported, each with a digest of its file. Imports no torch."""

from __future__ import annotations

import functools
import hashlib
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

import runner
from runner import user_paths
from runner.user_paths import full

# Entries of environment.json: the digests below; code and versions with which a run was continued
CODE, CONTINUED = "code", "continued"
_INSTALLED = ("site-packages", "dist-packages")
_LARGEST = 1 << 24  # bytes of a file that is digested


def imported_code(plugins: Sequence[str]) -> dict[str, str]:
    """Return the digests of the user's modules by name: the plugins, and all that they import outside of packages.

    Without plugins no code of the user is imported. A file is read once: forks have imported what their parent read.
    """
    return {name: digest for name, file in _user_modules(plugins) if (digest := _digest(file))}


def user_files(plugins: Sequence[str]) -> frozenset[str]:
    """Return the files of the user's modules that this process has imported, none without plugins."""
    return frozenset(file for _, file in _user_modules(plugins))


def _user_modules(plugins: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield name and file of the user's modules that this process has imported, sorted by name."""
    tops = {name.partition(".")[0] for name in plugins}
    for name, module in sorted(sys.modules.items()) if tops else ():
        # Asking a lazy module for an attribute that it lacks may import another one, and fail
        file = getattr(module, "__dict__", {}).get("__file__")
        if not isinstance(file, str) or not file.endswith(".py") or name.startswith(("__", "runner.")):
            continue
        if name.partition(".")[0] in tops or _is_users(file):
            yield name, file


def current_digest(name: str) -> str | None:
    """Return the digest of the file that a module of this name has now, found without importing it; None if none."""
    for folder in sys.path:
        place = Path(folder or ".") / name.replace(".", "/")
        for path in (place / "__init__.py", place.with_name(f"{place.name}.py")):
            if user_paths.is_file(path):
                return _digest_of(path)
    return None


@functools.cache
def _digest(file: str) -> str | None:
    """Return the digest of a file as it is at the first call."""
    return _digest_of(Path(file))


def _digest_of(path: Path) -> str | None:
    """Return 16 hex digits of a file's sha256, None if it cannot be read."""
    try:
        with Path(full(path)).open("rb") as stream:
            return hashlib.sha256(stream.read(_LARGEST)).hexdigest()[:16]
    except OSError:
        return None


@functools.cache
def _is_users(file: str) -> bool:
    """Return True if a file is neither of Python, nor of runner, nor of an installed package."""
    path = Path(file)
    if any(part in _INSTALLED for part in path.parts):
        return False
    places = [Path(sysconfig.get_path("stdlib")), Path(runner.__file__).parent]
    return not any(path.is_relative_to(place) for place in places)

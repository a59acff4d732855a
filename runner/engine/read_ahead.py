"""Ask the operating system to read files in the background."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable

from runner.user_paths import full

# Not on every platform.
_advise = getattr(os, "posix_fadvise", None)
# Bytes per request: Linux reads at most its read-ahead window of a request, and that is at least 128 KiB.
_PART = 1 << 17


def read_ahead(paths: Iterable[str | os.PathLike[str]]) -> None:
    """Ask the system to read regular files soon, without waiting for it.

    The disk then reads them in parallel instead of one after the other. Missing files and other kinds of files are
    skipped: their reader reports them.
    """
    if _advise is None:
        return
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            found = os.stat(full(path))  # noqa: PTH116  (a Path per file takes ten times as long)
            # Opening a pipe would block.
            if stat.S_ISREG(found.st_mode):
                file = os.open(full(path), os.O_RDONLY)
                try:
                    for start in range(0, found.st_size, _PART):
                        _advise(file, start, _PART, os.POSIX_FADV_WILLNEED)
                finally:
                    os.close(file)

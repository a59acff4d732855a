"""Files that the disk reads while this process does something else."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable

advise = getattr(os, "posix_fadvise", None)  # not everywhere
PART = 1 << 17  # bytes: of a larger part Linux reads no more than it reads ahead anyway, and 128 KiB it always does


def read_ahead(paths: Iterable[str | os.PathLike[str]]) -> None:
    """Ask the system to read regular files soon, and do not wait for it.

    They then come from many places of the disk at once, instead of one after the other. What is missing, or no file, is
    passed over: whoever reads it will say so.
    """
    if advise is None:
        return
    for path in paths:
        with contextlib.suppress(OSError, ValueError):
            found = os.stat(path)  # noqa: PTH116  (a Path per file takes ten times as long)
            if stat.S_ISREG(found.st_mode):  # a pipe would be waited for
                file = os.open(path, os.O_RDONLY)
                try:
                    for start in range(0, found.st_size, PART):
                        advise(file, start, PART, os.POSIX_FADV_WILLNEED)
                finally:
                    os.close(file)

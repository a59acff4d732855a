"""The memory of the machine that this process may still use, within the limit of its container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# Bytes, where the system does not say
_ASSUMED = 4 * 2**30
_GROUPS = Path("/sys/fs/cgroup")


def free_memory() -> int:
    """Return the bytes that the machine and the control groups of this process leave free; caches count as free."""
    return min(_available(), *_left_in_groups())


def _available() -> int:
    """Return the bytes that are free on the machine."""
    with suppress(OSError, ValueError, IndexError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) * 1024
    with suppress(ValueError, OSError):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return _ASSUMED


def _left_in_groups() -> Iterator[int]:
    """Yield what is left of the limit of each control group (version 2) that this process is in."""
    with suppress(OSError, ValueError):
        name = Path("/proc/self/cgroup").read_text().strip().rpartition("::")[2].lstrip("/")
        place = _GROUPS / name
        for folder in (place, *place.parents):
            with suppress(OSError, ValueError):
                # `max` is no number
                limit, used = (int((folder / f"memory.{each}").read_text()) for each in ("max", "current"))
                yield max(0, limit - used + _cached_in(folder))
            if folder == _GROUPS:
                break
    yield _available()


def _cached_in(group: Path) -> int:
    """Return the bytes of a control group that hold files, which the system drops when memory is short."""
    rows = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    return int(rows.get("inactive_file", 0))

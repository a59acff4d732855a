"""One process of a tracker at a time for a run: that of a killed session may still be carrying out its last request."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from runner.user_paths import full

# The locked folders of this process; the kernel unlocks them when it ends
_locked: dict[str, int] = {}


def wait_for_earlier_process(folder: Path) -> None:
    """Wait until no other process of a tracker has a folder, and lock it until this process ends.

    The process of a killed run ends after its request, at most 21 seconds after the run (`serve.py`). Where a file
    system has no locks, nothing is waited for.
    """
    with suppress(OSError):
        name = full(folder)
        if name not in _locked:
            _locked[name] = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
            fcntl.flock(_locked[name], fcntl.LOCK_EX)

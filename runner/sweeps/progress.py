"""What a running trial says in its log, and how long the sweep has still to go."""

from __future__ import annotations

import os
import re
from pathlib import Path

from runner.sweeps.outcome import LOG

TAIL = 2048  # bytes of a log that are looked at
LINE = re.compile(r"^epoch \d+/\d+  step .*$", re.MULTILINE)
WORD = re.compile(r"(\D+?) (\S+)(?:  |$)")


def progress(folder: Path) -> dict[str, str]:
    """Return the words of the last line in which a trial says how far it is: epoch, step, loss, val loss, left."""
    try:
        with (folder / LOG).open("rb") as log:
            log.seek(max(0, os.fstat(log.fileno()).st_size - TAIL))
            text = log.read().decode("utf-8", "replace")
    except OSError:
        return {}
    lines = LINE.findall(text)
    return dict(WORD.findall(lines[-1])) if lines else {}


def time_left(elapsed: float, ran: int, left: int) -> float | None:
    """Return the seconds that are left if the rest takes as long as what ran; None before anything has."""
    return elapsed / ran * left if ran else None

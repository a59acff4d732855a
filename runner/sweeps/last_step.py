"""How far a trial came whose process could not say so: from its curves, its checkpoints and its log."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from runner.engine.saving.manifest import FOLDER
from runner.engine.saving.rotation import steps_in
from runner.user_paths import full

_METRICS = "metrics.jsonl"
# Bytes read from the end of a file; a line of metrics has a few thousand
_TAIL_BYTES = 1 << 18
_PROGRESS = re.compile(rb"^epoch \d+/(?P<epochs>\d+)  step (?P<step>\d+)/(?P<steps>\d+) ", re.MULTILINE)


def last_step(folder: Path, log: str) -> tuple[int, float]:
    """Return the last known step of the run in a folder, and the same in epochs, 0 if that is unknown."""
    lines = list(_PROGRESS.finditer(_tail(folder / log)))
    steps = max(_last_metrics_step(folder), _last_checkpoint(folder), *(int(line["step"]) for line in lines[-1:]), 0)
    of = lines[-1] if lines else None
    epochs = steps * int(of["epochs"]) / int(of["steps"]) if of and int(of["steps"]) else 0.0
    return steps, round(epochs, 6)


def _last_metrics_step(folder: Path) -> int:
    """Return the step of the last complete line of the curves."""
    for line in reversed(_tail(folder / _METRICS).splitlines()):
        try:
            step = json.loads(line)["step"]
        except (ValueError, KeyError, TypeError):
            continue
        if isinstance(step, int) and step >= 0:
            return step
    return 0


def _last_checkpoint(folder: Path) -> int:
    """Return the step of the newest checkpoint."""
    try:
        return max(steps_in(os.listdir(full(folder / FOLDER))), default=0)  # noqa: PTH208  (no error for a name too long)
    except OSError:
        return 0


def _tail(path: Path) -> bytes:
    """Return the end of a file, nothing if it cannot be read."""
    try:
        with Path(full(path)).open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL_BYTES))
            return file.read()
    except OSError:
        return b""

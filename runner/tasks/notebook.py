"""task=notebook: the notebook of all runs, made again from their folders."""

from __future__ import annotations

import sys
from pathlib import Path

from runner.errors import ConfigError
from runner.notebook.book import NAME, rebuild
from runner.registry import register
from runner.tasks.job import Job


@register("task")
def notebook(job: Job) -> int:
    """Write `outputs/notebook.md` again: each run's date, question, what differs, status and scores.

    Each run updates the notebook at its end; use this after folders were moved or removed, or runs killed. Lines that
    begin with `>` stay with their entry. The old file is kept beside the new one.
    """
    outputs = Path(job.config["outputs"])
    if not outputs.is_dir():
        raise ConfigError(f"outputs: got '{job.config['outputs']}', must be a folder with runs")
    count = rebuild(outputs)
    sys.stdout.write(f"{count} runs in {outputs / NAME}\n")
    return 0

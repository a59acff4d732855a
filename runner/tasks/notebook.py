"""task=notebook: the notebook of all runs, made again from their folders."""

from __future__ import annotations

from pathlib import Path

from runner.comparing.runs import run_folders
from runner.engine.saving.storage import is_read_only, printable
from runner.errors import ConfigError, StorageError
from runner.notebook.book import NAME, rebuild, text_of
from runner.printing import counted, write_stderr, write_stdout
from runner.registry import register
from runner.tasks.job import Job
from runner.tasks.old_hparams import update_entry
from runner.user_paths import is_dir


@register("task")
def notebook(job: Job) -> int:
    """Write `outputs/notebook.md` again: each run's date, question, what differs, status and scores.

    Each run updates the notebook at its end; use this after folders were moved or removed, or runs killed. Lines that
    begin with `>` stay with their entry. The old file is kept beside the new one. If the folder is
    read-only, the text goes to standard output. Runs of older versions also get an entry on TensorBoard's HPARAMS page
    that fits beside those of this version.
    """
    outputs = Path(job.config["outputs"])
    if not is_dir(outputs, key="outputs"):
        raise ConfigError(f"outputs: got '{job.config['outputs']}', must be a folder with runs")
    try:
        count = rebuild(outputs)
    except StorageError as error:
        if not is_read_only(error):
            raise
        write_stdout(text_of(outputs))
        write_stderr(f"printed, not saved: {error}\n")
        return 0
    updated = sum(map(update_entry, run_folders(outputs)))
    entries = (
        f"; {updated} older {'entry' if updated == 1 else 'entries'} on TensorBoard's HPARAMS page updated"
        if updated
        else ""
    )
    write_stdout(f"{counted(count, 'run')} in {printable(outputs / NAME)}{entries}\n")
    return 0

"""The tracker `wandb`, in a process of its own; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb

from runner.engine.saving.storage import make_folders, read, write_unsynced
from runner.trackers.earlier_process import wait_for_earlier_process

_GOOD = ("done", "stopped", "pruned")
# Nothing but the rows and the config: no console, code, Git, hardware, packages or environment
_ONLY_ROWS: dict[str, Any] = {
    "console": "off",
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
    "disable_job_creation": True,
    "silent": True,
    "x_disable_stats": True,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
    # Seconds until a row is in the file
    "x_transaction_log_flush_interval": 1.0,
}


def make_wandb(*, project: str, mode: str) -> _WandbRun:
    """Return the tracker for a project; environment variables such as WANDB_MODE change neither."""
    return _WandbRun(project, mode)


class _WandbRun:
    """A run of Weights & Biases, whose files are in the run folder."""

    def __init__(self, project: str, mode: str) -> None:
        self._project, self._mode = project, mode
        self._run: Any = None

    def start(
        self, *, folder: str, name: str, group: str, sweep: str | None, config: Mapping[str, Any], key: str
    ) -> None:
        """Start a run, or continue the one of an earlier session."""
        files = Path(folder) / "wandb"
        make_folders(files)
        wait_for_earlier_process(files)
        self._sent = files / f"{key}.step"
        self._step = _number_in(self._sent)
        self._run = wandb.init(
            project=self._project,
            id=key,
            name=name,
            group=group,
            job_type="train",
            tags=[sweep[:64]] if sweep else [],
            dir=folder,
            config=dict(config),
            resume="allow",
            settings=wandb.Settings(**{**_ONLY_ROWS, "mode": self._mode}),
        )
        # The rows of a step arrive together, under the step of the run
        self._run.define_metric("*", step_metric="step")

    def log(self, *, rows: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        """Log rows, except those that a killed run has sent without learning of it."""
        for step, row in rows:
            if step > self._step:
                self._run.log({**row, "step": step}, step=step)
                self._step = step
        write_unsynced(self._sent, str(self._step).encode())

    def finish(self, *, status: str, scores: Mapping[str, float]) -> None:
        """Put the final scores into the summary, and end the run."""
        self._run.summary.update({**scores, "status": status})
        run, self._run = self._run, None
        run.finish(exit_code=0 if status in _GOOD else 1)

    def close(self) -> None:
        """End a run that did not finish, and the process of Weights & Biases."""
        if self._run is not None:
            self._run.finish(exit_code=1)
        wandb.teardown()


def _number_in(path: Path) -> int:
    """Return the number in a file, -1 if it cannot be read."""
    try:
        return int(read(path, 20))
    except (OSError, ValueError):
        return -1

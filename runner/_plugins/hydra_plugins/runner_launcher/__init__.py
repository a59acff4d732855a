"""Hydra's way to our launcher: `hydra/launcher=runner`, the default of `-m`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class RunnerLauncher(Launcher):
    """Runs the trials that a sweeper asks for, each in a process of its own; `runner.sweeps` does the work.

    Hydra imports this at every start, so nothing heavy is imported here.
    """

    def __init__(self, **knobs: Any) -> None:
        self._knobs = knobs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives."""
        self._context, self._config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run one batch of trials and return the score of each."""
        from runner.door.launch import launch

        return launch(self._context, self._config, self._knobs, job_overrides, initial_job_idx)

"""Hydra's way to our search: `hydra/sweeper=optuna`."""

from __future__ import annotations

from typing import Any

from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class RunnerOptuna(Sweeper):
    """Searches in batches over whichever launcher was chosen; over ours the front door searches without Hydra.

    Hydra imports this at every start, so nothing heavy is imported here.
    """

    def __init__(self, **knobs: Any) -> None:
        """Take what the front door has read and checked already."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Take what Hydra gives."""
        from hydra.core.plugins import Plugins

        self._launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Search for what the command line, which the front door has read, asks for."""
        from runner.door.searching import search_in_batches

        search_in_batches(self._launcher)

"""Trials that a sweeper of Hydra's asks for in batches, run by our launcher."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict

from runner.door.compose import resolved
from runner.door.jobs import trial_job
from runner.sweeps.knobs import read_knobs
from runner.sweeps.outcome import own
from runner.sweeps.run import run
from runner.sweeps.screen import screen
from runner.tasks.job import Job


def launch(
    context: HydraContext, config: DictConfig, knobs: Mapping[str, Any], overrides: Sequence[Sequence[str]], first: int
) -> list[JobReturn]:
    """Run one batch and return the score of each trial, nan for one without; ends the process if it is told to."""
    jobs = [composed(context, config, list(words), first + index) for index, words in enumerate(overrides)]
    ended, stopped = run(jobs, read_knobs(knobs), screen(0))
    if stopped:
        raise SystemExit(stopped)
    found = []
    for each, words in zip(ended, overrides, strict=True):
        value = JobReturn(overrides=list(words), status=JobStatus.COMPLETED)
        value.return_value = each.score if each.good else math.nan
        found.append(value)
    return found


def composed(context: HydraContext, config: DictConfig, words: list[str], number: int) -> Job:
    """Return the job that Hydra makes of overrides."""
    whole = context.config_loader.load_sweep_config(config, words)
    with open_dict(whole):
        whole.hydra.job.id = whole.hydra.job.num = number
    folder = Path(os.path.relpath(Path(str(whole.hydra.sweep.dir)) / str(whole.hydra.sweep.subdir)))
    task = [str(word).lstrip("+") for word in whole.hydra.overrides.task]
    plain = OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"])
    return own(trial_job(resolved(plain), task, folder))

"""The loop of runner, with its logs written to files."""

from __future__ import annotations

import gc
import tempfile
from contextlib import closing
from pathlib import Path

from torch import nn

from benchmarks.work import Pace, Work


def run(work: Work, pace: Pace, *more: str) -> nn.Module:
    """Train with the default probes and logs."""
    from benchmarks.experiments import experiment
    from runner.engine.logs.log import open_logs
    from runner.engine.train import train

    made = experiment([*work.overrides, f"steps={pace.steps + 1}", *more])
    stream = made.batches.stream
    made.batches.stream = lambda start, stop: pace(stream(0, pace.steps))  # type: ignore[method-assign]
    gc.collect()
    gc.freeze()  # as the command does before it trains, because imported objects are permanent
    with tempfile.TemporaryDirectory() as folder, closing(open_logs(Path(folder), positions=None, step=0)) as log:
        train(made.recipe, made.learner, made.batches, {}, log, lambda: None)
        assert log.flush()["train/loss"] >= 0
    return made.learner.model


def without_probes(work: Work, pace: Pace) -> nn.Module:
    """Train with logs and without probes."""
    return run(work, pace, "probe=[]")

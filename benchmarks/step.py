"""Step time of the loop, with default logging and probes, against a loop written by hand for the same model.

`python -m benchmarks.step [model=mlp 'model.hidden=[128,128]' ...]` takes overrides as `python -m runner` does. Both
see the same images and the same order and end with the same losses.
"""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import torch
from torch.nn import functional as F

from benchmarks.rounds import interleave, report
from runner.assemble import Experiment, assemble
from runner.door.compose import checked, compose_parts, hydra_opened
from runner.door.options import find_conf
from runner.door.overrides import read_overrides
from runner.engine.log import open_logs
from runner.engine.randomness import order
from runner.engine.train import train

STEPS = 1000
MLP = ["model=mlp", "model.hidden=[128,128]"]
PLAIN = ["augment=[]", "norm=none", "scheduler=constant", "seed=0", "validate_every=100000steps"]
PLAIN += ["checkpoint_every=100000steps", "average=none"]


def experiment(overrides: list[str]) -> Experiment:
    """Return a fresh experiment."""
    conf = find_conf()
    given = read_overrides(conf, overrides)
    with hydra_opened(conf):
        return assemble(checked(conf, compose_parts(conf, given), given))


def ours(overrides: list[str], losses: list[float]) -> float:
    """Return the seconds of STEPS steps of our loop, logs written."""
    made = experiment([*overrides, f"steps={STEPS + 1}"])
    with tempfile.TemporaryDirectory() as folder, closing(open_logs(Path(folder), positions=None, step=0)) as log:
        start = time.perf_counter()
        clipped = made.batches.stream(0, STEPS)
        made.batches.stream = lambda first, stop: clipped  # type: ignore[method-assign]
        train(made.recipe, made.learner, made.batches, {}, log, lambda: None)
        losses.append(log.flush()["train/loss"])
        return time.perf_counter() - start


def by_hand(overrides: list[str], losses: list[float]) -> float:
    """Return the seconds of STEPS steps of a loop that does the same and nothing else."""
    made = experiment([*overrides, f"steps={STEPS + 1}"])
    model, preprocess, batch = made.learner.model, made.learner.preprocess, made.batches.batch
    optimizer = made.learner.optimizer
    labels = made.batches.split.labels
    with torch.no_grad():
        images = preprocess(made.batches.split.fetch(torch.arange(len(labels))))
    start, step, epoch = time.perf_counter(), 0, 0
    while step < STEPS:
        visits = order(0, epoch, len(labels))
        for index in visits.split(batch):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images[index]), labels[index])
            loss.backward()
            optimizer.step()
            step += 1
            if step == STEPS:
                break
        epoch += 1
    losses.append(loss.item())
    return time.perf_counter() - start


def main(overrides: list[str], rounds: int = 7) -> None:
    """Print the ratio for the default MLP or the overrides given."""
    words = [*PLAIN, *(overrides or MLP)]
    losses: list[float] = []
    pairs = interleave(lambda: ours(words, losses), lambda: by_hand(words, losses), rounds)
    assert max(losses) - min(losses) < 1e-4, losses
    report(f"step, {' '.join(overrides or MLP)}", pairs, unit="us", scale=1e6 / STEPS)


if __name__ == "__main__":
    main(sys.argv[1:])

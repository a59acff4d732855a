"""BatchNorm statistics of averaged weights: computed from training data, because averages of statistics do not fit.

A BatchNorm normalizes by the mean and variance of its inputs, and these change when the weights before it are averaged
(Izmailov et al. 2018, arXiv 1803.05407, algorithm 1; `torch.optim.swa_utils.update_bn`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass

import torch
from torch import nn

from runner.engine.batches import TrainBatches
from runner.engine.interruption import Stop
from runner.engine.joint_statistics import BatchNorm, average_statistics, batch_norms
from runner.engine.learner import Learner
from runner.engine.parts import mode
from runner.engine.recipe import Recipe

# Log tag of the seconds that a pass takes
SECONDS = "time/statistics"
# Key of the random numbers of the pass, for dropout; steps have keys from 0, evaluations have -1
_KEY = -2


@dataclass(frozen=True)
class Recalibration:
    """Computes the statistics of the averaged model from the training batches of the current epoch.

    The statistics are the mean over batches, as in `torch.optim.swa_utils.update_bn`. The batches are augmented as in
    training, but not mixed. They depend only on the seed and the epoch, so that a resumed run has the same statistics.
    A frozen BatchNorm keeps its own.

    Args:
        recipe: The fixed part of the run.
        batches: The training batches.
        is_needed: Returns True if the average after a step is not the model itself.
    """

    recipe: Recipe
    batches: TrainBatches
    is_needed: Callable[[int], bool]

    def __call__(self, learner: Learner, stop: Stop) -> dict[str, float]:
        """Recompute the statistics before a validation; return the seconds by tag, nothing if there was no pass.

        If `stop` is set, the pass ends early and the statistics are meaningless.
        """
        norms = _unfrozen_norms(learner) if self.is_needed(learner.step) else []
        if not norms:
            return {}
        began = time.monotonic()
        self._pass(learner.average.module, norms, learner.step, stop)
        return {SECONDS: time.monotonic() - began}

    @torch.no_grad()
    def _pass(self, model: nn.Module, norms: list[BatchNorm], step: int, stop: Stop) -> None:
        """Run the batches of an epoch through a model whose other BatchNorms are in evaluation mode."""
        chosen, momenta = set(norms), [norm.momentum for norm in norms]
        per_epoch = self.batches.steps_per_epoch
        first = (step - 1) // per_epoch * per_epoch
        self.recipe.reseed(_KEY)
        with mode(model, training=True):
            for module in model.modules():
                module.training = module in chosen if isinstance(module, BatchNorm) else module.training
            for norm in norms:
                norm.reset_running_stats()
                # A cumulative mean over all batches
                norm.momentum = None
            try:
                with closing(self.batches.stream(first, first + per_epoch)) as stream:
                    for place, (images, labels) in enumerate(stream, first):
                        if stop.signal:
                            break
                        for part, _, _ in self.recipe.division.parts(images, labels, place):
                            with self.recipe.autocast():
                                model(part)
            finally:
                for norm, momentum in zip(norms, momenta, strict=True):
                    norm.momentum = momentum
        average_statistics(norms, self.batches.world)


def _unfrozen_norms(learner: Learner) -> list[BatchNorm]:
    """Return the BatchNorms of the averaged model that are not frozen in the trained model."""
    pairs = zip(batch_norms(learner.average.module), batch_norms(learner.model), strict=True)
    return [averaged for averaged, trained in pairs if trained.training]

"""Accuracy and loss of a model on the examples of a split."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from runner.engine.batches import EvalBatches
from runner.engine.interruption import NEVER, Stop
from runner.engine.learner import Learner
from runner.engine.parts import mode
from runner.engine.recipe import Recipe


def validate(recipe: Recipe, learner: Learner, validation: dict[str, EvalBatches], stop: Stop) -> dict[str, float]:
    """Return `<split>/accuracy` and `<split>/loss` of the averaged model for each split given."""
    return {
        f"{split}/{name}": value
        for split, batches in validation.items()
        for name, value in evaluate(recipe, learner, batches, stop).items()
    }


@torch.no_grad()
def evaluate(recipe: Recipe, learner: Learner, batches: EvalBatches, stop: Stop = NEVER) -> dict[str, float]:
    """Return accuracy in [0, 1] and mean negative log-likelihood of the predictions over all examples.

    With several processes each predicts its share of the examples, and all return the same. If `stop` is set, the
    evaluation ends early and its result is meaningless.
    """
    recipe.reseed(-1)
    totals = torch.zeros(2, device=batches.device)
    with mode(learner.average.module, training=False) as model:
        for images, labels in batches:
            if stop.signal:
                break
            with recipe.autocast():
                log_p = recipe.predict(model, images).float()
            correct = (log_p.argmax(1) == labels).sum()
            totals += torch.stack([correct.float(), F.nll_loss(log_p, labels, reduction="sum")])
    # In float64, on the CPU because MPS has none.
    totals = batches.world.sum(totals.cpu().double())
    accuracy, loss = (totals / len(batches)).tolist()
    return {"accuracy": accuracy, "loss": loss}

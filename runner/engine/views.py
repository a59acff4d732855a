"""Predictions that average several views of an image, or several passes of a model that draws at random."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from runner.engine.losses import Loss, Prediction, at_least_float32


@dataclass(frozen=True)
class MeanOverViews:
    """A prediction method that is the mean over views; calling it gives the mean.

    Attributes:
        logits: (model, images (B, C, H, W)) -> the logits (B, K) of each view.
        loss: The loss, which says what probabilities are.
        view: The word for a view: `view`, `crop`, `pass`.
    """

    logits: Callable[[nn.Module, Tensor], list[Tensor]]
    loss: Loss
    view: str

    def __call__(self, model: nn.Module, images: Tensor) -> Prediction:
        """Return the mean prediction over the views."""
        return mean_prediction(self.logits(model, images), self.loss)


def mean_prediction(outputs: list[Tensor], loss: Loss) -> Prediction:
    """Return the prediction over the logits (B, K) of several views: mean logits, and mean probabilities.

    The logarithm of the mean probability is stable for tiny probabilities.
    """
    views = [at_least_float32(logits) for logits in outputs]
    mean = views[0] if len(views) == 1 else torch.stack(views).mean(0)
    if loss.log_probabilities is None:
        return Prediction(mean, None)
    each = torch.stack([loss.log_probabilities(logits) for logits in views])
    return Prediction(mean, each.logsumexp(0) - math.log(len(views)))

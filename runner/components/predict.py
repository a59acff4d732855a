"""Prediction: `(model, images (B, C, H, W)) -> log-probabilities (B, K)` from a model in evaluation mode.

Where several views or passes are made, the probabilities are averaged (not the logits), and their logarithm returned.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from runner.engine.contracts import Predict
from runner.registry import register


@register("predict")
def plain() -> Predict:
    """Return the prediction from the images as they are."""
    return log_probabilities


@register("predict")
def tta(*, views: list[Literal["flip"]]) -> Predict:
    """Return the mean over the images as they are and the views named (flip: mirrored left to right).

    Test-time augmentation; Krizhevsky et al. 2012, section 4.1, average the same way.
    """

    def predict(model: nn.Module, images: Tensor) -> Tensor:
        seen = [images, images.flip(-1)] if "flip" in views else [images]
        return mean([log_probabilities(model, view) for view in seen])

    return predict


def log_probabilities(model: nn.Module, images: Tensor) -> Tensor:
    """Return the log-softmax of a model's logits, in at least float32."""
    logits: Tensor = model(images)
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(1)


def mean(predictions: list[Tensor]) -> Tensor:
    """Return the logarithm of the mean of the probabilities, stable where they are tiny."""
    return torch.stack(predictions).logsumexp(0) - math.log(len(predictions))

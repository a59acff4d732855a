"""Losses: `(logits (B, K), labels (B,) int64 or (B, K) soft) -> mean loss`, computed in at least float32."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from runner.engine.contracts import Loss
from runner.registry import register
from runner.schema import Unit


@register("loss")
def cross_entropy(*, label_smoothing: Unit) -> Loss:
    """Return softmax cross-entropy.

    Smoothing gives that share of every label, hard or soft, to all K classes evenly (arXiv 1512.00567, section 7).
    """

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(precise(logits), labels, label_smoothing=label_smoothing)

    return loss


def precise(logits: Tensor) -> Tensor:
    """Return logits in float32 where they came in half precision."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))

"""Model soups: weights averaged over models (Wortsman et al. 2022, arXiv 2203.05482), and the loss between two of them.

An average of weights is a good model only where the loss between the models is low, as after fine-tuning of one
pretrained model. A barrier is between models that began with different weights (Frankle et al. 2020, arXiv 1912.05671).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from runner.engine.state_dict import StateDict

# Places between two models at which the loss is measured
_PLACES = (0.25, 0.5, 0.75)


def averaged(states: Sequence[Mapping[str, Tensor]], weights: Sequence[float]) -> StateDict:
    """Return the weighted mean of tensors by name, computed in float64; integers are those of the first.

    The mean of equal tensors is theirs bit for bit.
    """
    first = states[0]
    found = StateDict((name, _mean([state[name] for state in states], weights)) for name in first)
    found.versions = first.versions if isinstance(first, StateDict) else None
    return found


def _mean(tensors: Sequence[Tensor], weights: Sequence[float]) -> Tensor:
    """Return the weighted mean of tensors of one shape."""
    first = tensors[0]
    if not first.is_floating_point():
        return first.clone()
    # Differences from the first, which are exactly 0 for equal tensors
    change = torch.zeros_like(first, dtype=torch.float64)
    for tensor, weight in zip(tensors, weights, strict=True):
        # Some buffers are infinite, such as an attention mask
        difference = tensor.double() - first.double()
        change += weight * difference.masked_fill(difference.isnan(), 0.0)
    return (first.double() + change / sum(weights)).to(first.dtype)


def loss_barrier(loss_at: Callable[[float], float], ends: tuple[float, float]) -> float:
    """Return how far the loss between two models is above the straight line between theirs, at the highest place.

    Args:
        loss_at: Returns the loss of the model at a place between 0 (the first model) and 1 (the second).
        ends: The losses of the two models.
    """
    return max(loss_at(place) - ((1 - place) * ends[0] + place * ends[1]) for place in _PLACES)

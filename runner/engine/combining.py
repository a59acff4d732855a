"""Combined log-probabilities: the weighted mean over models of their probabilities, or of their logits."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from runner.engine.saving.ensemble_file import Combine


def combine_log_p(log_p: Tensor, weights: Sequence[float], combine: Combine) -> Tensor:
    """Return the log-probabilities (B, K) of a weighted mean over members, from those (M, B, K) of each.

    Those of equal members are theirs bit for bit, whatever the weights. `runner.ensembles.statistics.combine` is the
    same on the CPU in float64.
    """
    return (_mean_probability if combine == "probabilities" else _mean_logit)(log_p, weights)


def _mean_probability(log_p: Tensor, weights: Sequence[float]) -> Tensor:
    """Return the logarithm of the weighted mean probability."""
    top = log_p.amax(0)
    # Of minus infinity nothing can be subtracted
    shift = top.masked_fill(top == -math.inf, 0.0)
    total, share = torch.zeros_like(top), top.new_zeros(())
    for each, weight in zip(log_p, weights, strict=True):
        total = total + weight * (each - shift).exp()
        # In the type of the total, so that the quotient of equal members is exactly 1
        share = share + top.new_full((), weight)
    return (total / share).log() + shift


def _mean_logit(log_p: Tensor, weights: Sequence[float]) -> Tensor:
    """Return the weighted mean of log-probabilities, with the total probability that the members have."""
    first = log_p[0]
    own, excluded = first.logsumexp(1, keepdim=True), (log_p == -math.inf).any(0)
    total, mass, share = torch.zeros_like(first), torch.zeros_like(own), math.fsum(weights)
    for each, weight in zip(log_p, weights, strict=True):
        # Differences from the first, which are exactly 0 for equal members
        total = total + weight * (each - first)
        mass = mass + weight * (each.logsumexp(1, keepdim=True) - own)
    mean = (first + total / share).masked_fill(excluded, -math.inf)
    found = mean - (mean.logsumexp(1, keepdim=True) - (own + mass / share))
    return torch.where(excluded.all(1, keepdim=True), -math.log(first.shape[1]), found)

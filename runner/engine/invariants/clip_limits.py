"""How far gradients are above the limit of their clipping, computed apart from the clipping."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from runner.engine.invariants.evidence import gradients_in, norms_of

# (model with gradients) -> the largest quotient () of a norm, or of a number, and the limit
Excess = Callable[[nn.Module], Tensor]
_SMALLEST = 1e-3


def norm_excess(limit: float) -> Excess:
    """Return the norm of all gradients by its limit."""
    return lambda model: torch.linalg.vector_norm(norms_of(gradients_in(model))) / limit


def value_excess(limit: float) -> Excess:
    """Return the largest number of a gradient by its limit."""
    return lambda model: norms_of(gradients_in(model), torch.inf).amax() / limit


def adaptive_excess(parameters: Sequence[nn.Parameter], limit: float) -> Excess:
    """Return the largest quotient of the norms of a unit's gradient and its weights by its limit."""

    @torch.no_grad()
    def excess(model: nn.Module) -> Tensor:
        found = [_unit_quotient(p, p.grad).amax() for p in parameters if p.grad is not None]
        return torch.stack(found).amax() / limit if found else torch.zeros(())

    return excess


def _unit_quotient(weight: Tensor, gradient: Tensor) -> Tensor:
    """Return for each unit, or for a whole vector, the norm of the gradient by that of the weights."""
    rows = (len(weight), -1) if weight.ndim > 1 else (1, -1)
    norms = [each.detach().reshape(rows).float().square().sum(1).sqrt() for each in (gradient, weight)]
    return norms[0] / norms[1].clamp(min=_SMALLEST)

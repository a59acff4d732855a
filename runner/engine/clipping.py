"""Gradient clipping: by the norm of all gradients together, by value, and adaptive (AGC).

Each clips the gradients of a model in place and never waits for the device. What it returns is in `Outcome.grad_norm`:
the norm before clipping () where all gradients are scaled by one factor, the norms (n,) of the n parameters with a
gradient otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

Clip = Callable[[nn.Module], Tensor | None]

# Smallest norm of a unit's weights that counts in AGC, so that weights of zero can grow (arXiv 2102.06171, section 4.1)
_SMALLEST_NORM = 1e-3


def no_clipping(model: nn.Module) -> None:
    """Leave the gradients as they are."""


def clip_norm(limit: float) -> Clip:
    """Return clipping by the joint L2 norm: above `limit`, all gradients are scaled by `limit / norm`."""
    return lambda model: nn.utils.clip_grad_norm_(model.parameters(), limit)


def clip_value(limit: float) -> Clip:
    """Return clipping of each number of a gradient to [-limit, limit]."""

    @torch.no_grad()
    def clip(model: nn.Module) -> Tensor:
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        norms = _norms(gradients)
        torch._foreach_clamp_min_(gradients, -limit)
        torch._foreach_clamp_max_(gradients, limit)
        # An infinite gradient is finite now. The check of the step finds it as a NaN in the first gradient.
        gradients[0].add_(norms.sum() * 0)
        return norms

    return clip


def clip_adaptive(parameters: Sequence[nn.Parameter], limit: float) -> Clip:
    """Return adaptive gradient clipping of these parameters (AGC, Brock et al. 2021, arXiv 2102.06171, equation 3).

    The gradient of each unit (the weights of one output of a layer; a whole bias or other vector) is scaled to
    `limit * max(|w|, 0.001)` where its L2 norm is above that, with the unit's weights w.
    """

    @torch.no_grad()
    def clip(model: nn.Module) -> Tensor:
        norms = _norms([p.grad for p in model.parameters() if p.grad is not None])
        for p in parameters:
            if p.grad is not None:
                largest = _unit_norms(p).clamp_(min=_SMALLEST_NORM).mul_(limit)
                p.grad.mul_(largest.div_(_unit_norms(p.grad)).clamp_(max=1))
        return norms

    return clip


def _norms(tensors: list[Tensor]) -> Tensor:
    """Return the L2 norm of each tensor (n,), in at least float32."""
    return torch.stack([norm.float() for norm in torch._foreach_norm(tensors, 2, dtype=_wide(tensors))])


def _unit_norms(tensor: Tensor) -> Tensor:
    """Return the L2 norm of the weights of each output, in a shape that scales the tensor; of a vector, its norm."""
    dims = tuple(range(1, tensor.ndim)) if tensor.ndim > 1 else None
    norms: Tensor = torch.linalg.vector_norm(tensor, 2, dims, keepdim=True, dtype=_wide([tensor]))
    return norms


def _wide(tensors: list[Tensor]) -> torch.dtype | None:
    """Return float32 for tensors of half precision, else None."""
    return torch.float32 if any(t.dtype in (torch.bfloat16, torch.float16) for t in tensors) else None

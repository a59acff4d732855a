"""Ways to make an optimizer step: how often, and at which weights, gradients are computed.

Every optimizer and every schedule works with each. Gradient clipping applies to the gradients of the step itself.
"""

from __future__ import annotations

from collections.abc import Generator

import torch
from torch import Tensor, nn

from runner.engine.contracts import Outcome
from runner.engine.learner import Learner
from runner.engine.recipe import Batch, Recipe, Update, apply_gradients, plain_update
from runner.registry import register
from runner.schema import Positive

# Keeps the perturbation zero where all gradients are
_SMALLEST_NORM = 1e-12


@register("update")
def plain() -> Update:
    """Return the usual step: the gradients at the current weights, once."""
    return plain_update


@register("update")
def sam(*, rho: Positive, adaptive: bool) -> Update:
    """Return sharpness-aware minimization (Foret et al. 2020, arXiv 2010.01412, equations 2 and 3).

    The step takes the gradients at `w + e` with `e = rho * g / |g|`, where g are the gradients at w and |g| is the L2
    norm of all of them. With `adaptive`, `e = rho * w ** 2 * g / | |w| * g |` (Kwon et al. 2021, arXiv 2102.11600,
    equation 8): weights of zero, such as new biases, are not moved.

    Both passes have the same batch, mix and dropout masks, and the penalties. Buffers, such as the statistics of
    BatchNorms, keep what the first pass made of them, as in the authors' code. The logged loss is that at w. With fp16
    the loss scaler's factor cancels out in e. Gradients at w that are not finite skip the step.
    """

    def update(recipe: Recipe, learner: Learner, images: Tensor, labels: Tensor) -> Generator[Batch, Tensor, Outcome]:
        mean_loss = yield images, labels
        weights: list[Tensor] = [p for p in learner.parameters.values() if p.grad is not None]
        with torch.no_grad():
            perturbation = _perturbation(weights, rho, adaptive=adaptive)
            tensors = [*weights, *learner.model.buffers()]
            before = [tensor.detach().clone() for tensor in tensors]
            torch._foreach_add_(weights, perturbation)
        try:
            yield images, labels
        finally:
            # Also where the second pass fails
            with torch.no_grad():
                torch._foreach_copy_(tensors, before)
        return apply_gradients(recipe, learner, mean_loss)

    return update


def _perturbation(weights: list[Tensor], rho: float, *, adaptive: bool) -> list[Tensor]:
    """Return e for each of the weights, which have gradients."""
    gradients: list[Tensor] = [p.grad for p in weights if p.grad is not None]
    if not adaptive:
        return list(torch._foreach_mul(gradients, _scale(gradients, rho)))
    sizes = torch._foreach_abs(weights)
    relative = list(torch._foreach_mul(gradients, sizes))
    return list(torch._foreach_mul(torch._foreach_mul(relative, sizes), _scale(relative, rho)))


def _scale(gradients: list[Tensor], rho: float) -> Tensor:
    """Return the factor () that gives all gradients together the L2 norm rho."""
    return rho / (nn.utils.get_total_norm(gradients) + _SMALLEST_NORM)

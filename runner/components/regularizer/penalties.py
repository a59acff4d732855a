"""Penalties on the weights, added to the loss, and a bound on them after each step.

All take the weight matrices and convolution kernels only: no bias, no norm. A penalty goes through the optimizer with
the rest of the gradient; `adamw` and its kin rescale it there, which decoupled weight decay is free of.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from runner.engine.contracts import Regularizer
from runner.engine.parts import is_norm
from runner.registry import register
from runner.schema import NonNegative, Positive


def weights(model: nn.Module) -> list[Tensor]:
    """Return the trainable tensors of two or more dimensions outside norms, each once."""
    found = [
        parameter
        for module in model.modules()
        if not is_norm(module)
        for parameter in module.parameters(recurse=False)
        if parameter.requires_grad and parameter.ndim >= 2
    ]
    return list(dict.fromkeys(found))


def absolute(model: nn.Module) -> Tensor:
    """Return the sum () of the absolute weights, 0 while all of them are frozen."""
    found = weights(model)
    return torch.stack(torch._foreach_norm(found, 1)).sum() if found else _zero(model)


def squared(model: nn.Module) -> Tensor:
    """Return the sum () of the squared weights, 0 while all of them are frozen."""
    found = weights(model)
    return torch.stack(torch._foreach_norm(found, 2)).square().sum() if found else _zero(model)


def _zero(model: nn.Module) -> Tensor:
    """Return 0 () where the model's weights are."""
    return next(model.parameters()).new_zeros(())


@register("regularizer")
def l1(*, strength: NonNegative) -> Regularizer:
    """Return the penalty `strength * sum |w|`; its gradient is `strength * sign(w)` (Tibshirani 1996)."""
    return Regularizer(penalty=lambda model: strength * absolute(model))


@register("regularizer")
def l2(*, strength: NonNegative) -> Regularizer:
    """Return the penalty `strength / 2 * sum w ** 2`; its gradient is `strength * w`.

    For `sgd`, `momentum` and `nesterov` the same as `optim.weight_decay=<strength>`; for `adamw` not.
    """
    return Regularizer(penalty=lambda model: strength / 2 * squared(model))


@register("regularizer")
def elastic_net(*, strength: NonNegative, beta: NonNegative) -> Regularizer:
    """Return the penalty `strength * sum(beta * w ** 2 + |w|)` (Zou and Hastie 2005); with beta 0 it is `l1`."""
    return Regularizer(penalty=lambda model: strength * (beta * squared(model) + absolute(model)))


@register("regularizer")
def max_norm(*, limit: Positive) -> Regularizer:
    """Return the constraint that no unit's incoming weights have an L2 norm above `limit`; longer ones are scaled down.

    Srivastava et al. 2014 (JMLR 15, section 5.1). A unit is a row of a matrix, or a kernel (in, h, w).
    """

    @torch.no_grad()
    def constrain(model: nn.Module) -> None:
        for weight in weights(model):
            weight.renorm_(2, 0, limit)

    return Regularizer(constrain=constrain)

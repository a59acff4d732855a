"""Penalties on the weights, added to the loss, and a constraint on them after each step.

They apply to the weights of layers (`runner.engine.weights`) as the layers apply them, also through a parametrization;
not to biases, norms, PReLU slopes, positions, class tokens and layer scale. The gradient of a penalty passes through
the optimizer, so that adaptive optimizers rescale it; decoupled weight decay (`adamw`) avoids that.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from runner.engine.contracts import Regularizer
from runner.engine.parts import TRANSPOSED
from runner.engine.weights import trainable_weights
from runner.registry import register
from runner.schema import NonNegative, Positive


def _l1_norm(model: nn.Module) -> Tensor:
    """Return the sum () of the absolute weights, 0 while all of them are frozen."""
    weights = [weight.read() for weight in trainable_weights(model)]
    return torch.stack(torch._foreach_norm(weights, 1)).sum() if weights else _zero(model)


def _squared_l2_norm(model: nn.Module) -> Tensor:
    """Return the sum () of the squared weights, 0 while all of them are frozen."""
    weights = [weight.read() for weight in trainable_weights(model)]
    return torch.stack(torch._foreach_norm(weights, 2)).square().sum() if weights else _zero(model)


def _zero(model: nn.Module) -> Tensor:
    """Return 0 () where the model's weights are."""
    return next(model.parameters()).new_zeros(())


@register("regularizer")
def l1(*, strength: NonNegative) -> Regularizer:
    """Return the L1 penalty `strength * sum |w|`, with gradient `strength * sign(w)` (Tibshirani 1996).

    Args:
        strength: Factor, >= 0.
    """
    return Regularizer(penalty=lambda model: strength * _l1_norm(model))


@register("regularizer")
def l2(*, strength: NonNegative) -> Regularizer:
    """Return the L2 penalty `strength / 2 * sum w ** 2`, with gradient `strength * w`.

    For `sgd`, `momentum` and `nesterov` this equals `optim.weight_decay=<strength>`; for `adamw` it does not.

    Args:
        strength: Factor, >= 0.
    """
    return Regularizer(penalty=lambda model: strength / 2 * _squared_l2_norm(model))


@register("regularizer")
def elastic_net(*, strength: NonNegative, beta: NonNegative) -> Regularizer:
    """Return the elastic net penalty `strength * sum(beta * w ** 2 + |w|)` (Zou and Hastie 2005).

    Args:
        strength: Factor of the whole penalty, >= 0.
        beta: Weight of the squared term, >= 0; 0 is `l1`.
    """
    return Regularizer(penalty=lambda model: strength * (beta * _squared_l2_norm(model) + _l1_norm(model)))


@register("regularizer")
def max_norm(*, limit: Positive) -> Regularizer:
    """Return max-norm: scale down a unit's incoming weights to an L2 norm of at most `limit` (Srivastava et al. 2014).

    A unit is a row of a matrix or a kernel (in, h, w). The constraint (section 5.1) is applied after each optimizer
    step.

    Args:
        limit: Largest norm, > 0.
    """

    @torch.no_grad()
    def constrain(model: nn.Module) -> None:
        for weight in trainable_weights(model):
            if weight.is_plain:
                _shorten(weight.module, weight.read(), limit)
            else:
                values = weight.read().clone()
                _shorten(weight.module, values, limit)
                weight.write(values)

    return Regularizer(constrain=constrain)


def _shorten(module: nn.Module, weight: Tensor, limit: float) -> None:
    """Scale down the incoming weights of each unit in place."""
    if not isinstance(module, TRANSPOSED):
        weight.renorm_(2, 0, limit)
        return
    # Inputs come first here: (in, out / groups, *kernel)
    for part in weight.chunk(module.groups):
        part.renorm_(2, 1, limit)

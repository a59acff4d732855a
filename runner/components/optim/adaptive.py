"""Optimizers with a step size per parameter, from torch.optim.

In all but `adamw` the weight decay is L2 regularization: `weight_decay * w` joins the gradient and is rescaled with it.
In `adamw` it is decoupled: `w <- w - lr * weight_decay * w`, apart from the gradient step (arXiv 1711.05101).

The package's docstring defines g, t, m, v, a and b. `eps` > 0 is added to the denominator.
"""

from __future__ import annotations

from typing import Annotated

from torch import nn
from torch.optim import Adagrad, Adam, Adamax, AdamW, NAdam, Optimizer, RMSprop

from runner.components.optim.groups import Groups
from runner.registry import register
from runner.schema import HalfOpenUnit, NonNegative, Pair, Positive

Betas = Annotated[list[HalfOpenUnit], Pair("two numbers [mean of g, mean of g squared]")]

# Largest number of weights for which stepping all tensors together is faster on a CPU (see `_foreach`)
_MAX_FOREACH_WEIGHTS = 300_000


def pair(betas: list[float]) -> tuple[float, float]:
    """Return the two decay rates of an Adam-like optimizer in torch's form."""
    return betas[0], betas[1]


def _foreach(model: nn.Module) -> bool | None:
    """Return True for models that foreach steps (all tensors per call) make faster on a CPU; None lets torch choose.

    Torch chooses foreach on GPUs and a loop over tensors on a CPU. There, foreach takes 0.7 to 0.9 of the loop's time
    up to 270,000 weights, and twice its time from 1.2 million on, because each call evicts the tensors from the cache
    before the next call reads them.
    """
    return True if sum(p.numel() for p in model.parameters()) <= _MAX_FOREACH_WEIGHTS else None


@register("optim")
def adam(groups: Groups, fused: bool | None, *, betas: Betas, eps: Positive) -> Optimizer:
    """Return Adam with bias correction (arXiv 1412.6980, algorithm 1); `weight_decay` is L2 in the gradient.

    `w <- w - lr * (m / (1 - a ** t)) / (sqrt(v / (1 - b ** t)) + eps)`.
    """
    return Adam(groups.param_groups(), lr=groups.lr, betas=pair(betas), eps=eps, fused=fused)


@register("optim")
def adamw(groups: Groups, fused: bool | None, *, betas: Betas, eps: Positive) -> Optimizer:
    """Return Adam with decoupled weight decay (arXiv 1711.05101, algorithm 2).

    `w <- w - lr * weight_decay * w`, then Adam's step.
    """
    return AdamW(groups.param_groups(), lr=groups.lr, betas=pair(betas), eps=eps, fused=fused)


@register("optim")
def adagrad(groups: Groups, fused: bool | None, *, eps: Positive) -> Optimizer:
    """Return Adagrad: `sum <- sum + g ** 2; w <- w - lr * g / (sqrt(sum) + eps)` (Duchi et al. 2011, JMLR 12)."""
    # Torch has a fused Adagrad on these devices only
    supported = all(p.device.type in ("cpu", "cuda") for p in groups.model.parameters())
    return Adagrad(groups.param_groups(), lr=groups.lr, eps=eps, fused=fused if supported else None)


@register("optim")
def rmsprop(groups: Groups, *, alpha: HalfOpenUnit, momentum: HalfOpenUnit, eps: Positive) -> Optimizer:
    """Return RMSProp: `cache <- alpha * cache + (1 - alpha) * g ** 2; w <- w - lr * g / (sqrt(cache) + eps)`.

    Tieleman and Hinton 2012, lecture 6.5. With `momentum`, the step is `v <- momentum * v + g / (sqrt(cache) + eps);
    w <- w - lr * v`.
    """
    foreach = _foreach(groups.model)
    return RMSprop(groups.param_groups(), lr=groups.lr, alpha=alpha, momentum=momentum, eps=eps, foreach=foreach)


@register("optim")
def nadam(groups: Groups, *, betas: Betas, eps: Positive, momentum_decay: NonNegative) -> Optimizer:
    """Return Adam with Nesterov momentum, under the momentum schedule of Dozat 2016.

    The momentum of step t is `a * (1 - 0.5 * 0.96 ** (t * momentum_decay))`.
    """
    parts, foreach = groups.param_groups(), _foreach(groups.model)
    return NAdam(parts, lr=groups.lr, betas=pair(betas), eps=eps, momentum_decay=momentum_decay, foreach=foreach)


@register("optim")
def adamax(groups: Groups, *, betas: Betas, eps: Positive) -> Optimizer:
    """Return Adam with the largest decayed |g| instead of the root mean square (arXiv 1412.6980, algorithm 2).

    `u <- max(b * u, |g| + eps); w <- w - lr * m / (1 - a ** t) / u`.
    """
    return Adamax(groups.param_groups(), lr=groups.lr, betas=pair(betas), eps=eps, foreach=_foreach(groups.model))

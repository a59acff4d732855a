"""Optimizers with a step size per parameter, from torch.optim.

In all but `adamw` and `adafactor` the weight decay is L2 regularization: `weight_decay * w` joins the gradient and is
rescaled with it. In these two it is decoupled: `w <- w - lr * weight_decay * w`, apart from the gradient step (arXiv
1711.05101).

The package's docstring defines g, t, m, v, a and b. `eps` > 0 is added to the denominator.
"""

from __future__ import annotations

from typing import Annotated

from torch import nn
from torch.optim import Adafactor, Adagrad, Adam, Adamax, AdamW, NAdam, Optimizer, RAdam, RMSprop

from runner.components.optim.groups import Groups
from runner.registry import register
from runner.schema import HalfOpenUnit, NonNegative, Pair, Positive, Range

Betas = Annotated[list[HalfOpenUnit], Pair("two numbers [mean of g, mean of g squared]")]

_Exponent = Annotated[float, Range(-1, 0)]

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
def adam(groups: Groups, fused: bool | None, *, betas: Betas, eps: Positive, amsgrad: bool) -> Optimizer:
    """Return Adam with bias correction (arXiv 1412.6980, algorithm 1); `weight_decay` is L2 in the gradient.

    `w <- w - lr * (m / (1 - a ** t)) / (sqrt(v / (1 - b ** t)) + eps)`. With `amsgrad`, v in the step is its largest
    value so far (Reddi et al. 2018, arXiv 1904.09237).
    """
    parts = groups.param_groups()
    return Adam(parts, lr=groups.lr, betas=pair(betas), eps=eps, amsgrad=amsgrad, fused=fused)


@register("optim")
def adamw(groups: Groups, fused: bool | None, *, betas: Betas, eps: Positive, amsgrad: bool) -> Optimizer:
    """Return Adam with decoupled weight decay (arXiv 1711.05101, algorithm 2).

    `w <- w - lr * weight_decay * w`, then Adam's step, with `amsgrad` as in `adam`.
    """
    parts = groups.param_groups()
    return AdamW(parts, lr=groups.lr, betas=pair(betas), eps=eps, amsgrad=amsgrad, fused=fused)


@register("optim")
def radam(groups: Groups, *, betas: Betas, eps: Positive) -> Optimizer:
    """Return Adam with a rectified start (Liu et al. 2019, arXiv 1908.03265, algorithm 2), which needs no warm-up.

    With `R = 2 / (1 - b) - 1` and `r = R - 2 * t * b ** t / (1 - b ** t)`, Adam's step is multiplied by `sqrt((r - 4) *
    (r - 2) * R / ((R - 4) * (R - 2) * r))` where r > 5. Before, it is `w <- w - lr * m / (1 - a ** t)`.
    """
    parts, foreach = groups.param_groups(), _foreach(groups.model)
    return RAdam(parts, lr=groups.lr, betas=pair(betas), eps=eps, foreach=foreach)


@register("optim")
def adafactor(
    groups: Groups, *, beta2_decay: _Exponent, threshold: Annotated[float, Range(1)], min_size: Positive
) -> Optimizer:
    """Return Adafactor without momentum (Shazeer and Stern 2018, arXiv 1804.04235, algorithm 4; torch.optim.Adafactor).

    v is the running mean of `g ** 2` with the weight `t ** beta2_decay` of the newest; of a matrix (the last two
    dimensions) only its row and column means are kept, whose outer product is v. With `u = g / sqrt(v)`, the step is
    `w <- w - min(lr, 1 / sqrt(t)) * max(min_size, rms(w)) * u / max(1, rms(u) / threshold)`, where rms is the root mean
    square over the tensor. So `lr` is relative to the size of the weights.
    """
    parts, eps = groups.param_groups(), (None, min_size)
    return Adafactor(parts, lr=groups.lr, beta2_decay=beta2_decay, eps=eps, d=threshold)


@register("optim")
def adagrad(groups: Groups, fused: bool | None, *, eps: Positive) -> Optimizer:
    """Return Adagrad: `sum <- sum + g ** 2; w <- w - lr * g / (sqrt(sum) + eps)` (Duchi et al. 2011, JMLR 12)."""
    # Torch has a fused Adagrad on these devices only
    supported = all(p.device.type in ("cpu", "cuda") for p in groups.model.parameters())
    return Adagrad(groups.param_groups(), lr=groups.lr, eps=eps, fused=fused if supported else None)


@register("optim")
def rmsprop(groups: Groups, *, alpha: HalfOpenUnit, momentum: HalfOpenUnit, eps: Positive, centered: bool) -> Optimizer:
    """Return RMSProp: `cache <- alpha * cache + (1 - alpha) * g ** 2; w <- w - lr * g / (sqrt(cache) + eps)`.

    Tieleman and Hinton 2012, lecture 6.5. With `momentum`, the step is `v <- momentum * v + g / (sqrt(cache) + eps);
    w <- w - lr * v`. With `centered`, the square root is that of the variance, `cache - mean ** 2`, where the mean of g
    is `mean <- alpha * mean + (1 - alpha) * g` (Graves 2013, arXiv 1308.0850, section 4).
    """
    parts, foreach = groups.param_groups(), _foreach(groups.model)
    return RMSprop(parts, lr=groups.lr, alpha=alpha, momentum=momentum, eps=eps, centered=centered, foreach=foreach)


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

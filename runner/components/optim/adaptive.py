"""Optimizers with a step size per parameter, from torch.optim.

In all but `adamw` the weight decay is L2 regularization: `weight_decay * w` joins the gradient and is rescaled with it.
In `adamw` it is decoupled: the weights shrink by `lr * weight_decay` beside the step (arXiv 1711.05101).
"""

from __future__ import annotations

from typing import Annotated

from torch import nn
from torch.optim import Adagrad, Adam, Adamax, AdamW, NAdam, Optimizer, RMSprop

from runner.components.optim.groups import NoDecay, Rules, groups
from runner.registry import register
from runner.schema import HalfOpenUnit, NonNegative, Pair, Positive

Betas = Annotated[list[HalfOpenUnit], Pair("two numbers [mean of g, mean of g squared]")]
TOGETHER = 300_000  # weights of the largest model whose tensors are stepped together on a CPU


def pair(betas: list[float]) -> tuple[float, float]:
    """Return the two decay rates of an Adam-like optimizer as torch wants them."""
    return betas[0], betas[1]


def together(model: nn.Module) -> bool | None:
    """Return True where stepping all tensors in a few calls pays on a CPU; None lets torch choose.

    Torch does so on GPUs, where it has no fused step, and goes from tensor to tensor on a CPU. Small models are faster
    together there (0.7 to 0.9 of the time up to 270,000 weights), large ones slower (twice the time from 1.2 million
    on: what one call leaves has left the cache when the next one wants it).
    """
    return True if sum(p.numel() for p in model.parameters()) <= TOGETHER else None


@register("optim")
def adam(
    model: nn.Module,
    fused: bool | None,
    *,
    lr: Positive,
    betas: Betas,
    eps: Positive,
    weight_decay: NonNegative,
    no_decay: NoDecay,
    rules: Rules,
) -> Optimizer:
    """Return Adam with bias correction (arXiv 1412.6980, algorithm 1); `weight_decay` is L2 in the gradient."""
    parts = groups(model, lr=lr, weight_decay=weight_decay, no_decay=no_decay, rules=rules)
    return Adam(parts, lr=lr, betas=pair(betas), eps=eps, fused=fused)


@register("optim")
def adamw(
    model: nn.Module,
    fused: bool | None,
    *,
    lr: Positive,
    betas: Betas,
    eps: Positive,
    weight_decay: NonNegative,
    no_decay: NoDecay,
    rules: Rules,
) -> Optimizer:
    """Return Adam with decoupled weight decay: `w <- w - lr * weight_decay * w - step` (arXiv 1711.05101)."""
    parts = groups(model, lr=lr, weight_decay=weight_decay, no_decay=no_decay, rules=rules)
    return AdamW(parts, lr=lr, betas=pair(betas), eps=eps, fused=fused)


@register("optim")
def adagrad(
    model: nn.Module,
    fused: bool | None,
    *,
    lr: Positive,
    eps: Positive,
    weight_decay: NonNegative,
    no_decay: NoDecay,
    rules: Rules,
) -> Optimizer:
    """Return Adagrad: each step is divided by the root of the sum of all squared gradients (Duchi et al. 2011)."""
    parts = groups(model, lr=lr, weight_decay=weight_decay, no_decay=no_decay, rules=rules)
    reached = all(p.device.type in ("cpu", "cuda") for p in model.parameters())  # torch fuses it nowhere else
    return Adagrad(parts, lr=lr, eps=eps, fused=fused if reached else None)


@register("optim")
def rmsprop(
    model: nn.Module,
    *,
    lr: Positive,
    alpha: HalfOpenUnit,
    momentum: HalfOpenUnit,
    eps: Positive,
    weight_decay: NonNegative,
    no_decay: NoDecay,
    rules: Rules,
) -> Optimizer:
    """Return RMSProp: `cache <- alpha * cache + (1 - alpha) * g ** 2; w <- w - lr * g / (sqrt(cache) + eps)`.

    Tieleman and Hinton 2012, lecture 6.5. `momentum` is a heavy ball over the divided gradients.
    """
    parts = groups(model, lr=lr, weight_decay=weight_decay, no_decay=no_decay, rules=rules)
    return RMSprop(parts, lr=lr, alpha=alpha, momentum=momentum, eps=eps, foreach=together(model))


@register("optim")
def nadam(
    model: nn.Module,
    *,
    lr: Positive,
    betas: Betas,
    eps: Positive,
    momentum_decay: NonNegative,
    weight_decay: NonNegative,
    no_decay: NoDecay,
    rules: Rules,
) -> Optimizer:
    """Return Adam with Nesterov's look ahead, under the momentum schedule of Dozat 2016."""
    parts = groups(model, lr=lr, weight_decay=weight_decay, no_decay=no_decay, rules=rules)
    return NAdam(parts, lr=lr, betas=pair(betas), eps=eps, momentum_decay=momentum_decay, foreach=together(model))


@register("optim")
def adamax(
    model: nn.Module,
    *,
    lr: Positive,
    betas: Betas,
    eps: Positive,
    weight_decay: NonNegative,
    no_decay: NoDecay,
    rules: Rules,
) -> Optimizer:
    """Return Adam with the largest decayed |g| in place of the root mean square (arXiv 1412.6980, algorithm 2)."""
    parts = groups(model, lr=lr, weight_decay=weight_decay, no_decay=no_decay, rules=rules)
    return Adamax(parts, lr=lr, betas=pair(betas), eps=eps, foreach=together(model))

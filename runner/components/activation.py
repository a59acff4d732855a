"""Activations: each call of a component makes one module; a model asks for one per place, so that none is shared.

None works in place: probes and hooks read what comes in.
"""

from __future__ import annotations

from torch import nn

from runner.registry import register
from runner.schema import Positive, Unit


class Itself(nn.Identity):
    """An activation that changes nothing; probes listen to it as to any other."""

    activation = True


@register("activation")
def relu() -> nn.Module:
    """Return max(x, 0)."""
    return nn.ReLU()


@register("activation")
def tanh() -> nn.Module:
    """Return the hyperbolic tangent, 2 sigmoid(2x) - 1."""
    return nn.Tanh()


@register("activation")
def sigmoid() -> nn.Module:
    """Return 1 / (1 + exp(-x))."""
    return nn.Sigmoid()


@register("activation")
def leaky_relu(*, slope: Unit) -> nn.Module:
    """Return x above zero, `slope` * x below (Maas et al. 2013)."""
    return nn.LeakyReLU(slope)


@register("activation")
def prelu(*, start: float) -> nn.Module:
    """Return x above zero, a * x below, with one learned `a` per place that begins at `start` (arXiv 1502.01852)."""
    return nn.PReLU(init=start)


@register("activation")
def elu(*, alpha: Positive) -> nn.Module:
    """Return x above zero, `alpha` * (exp(x) - 1) below (arXiv 1511.07289)."""
    return nn.ELU(alpha)


@register("activation")
def gelu(*, approximate: bool) -> nn.Module:
    """Return x * Phi(x), Phi the normal distribution's function (arXiv 1606.08415), or its tanh approximation."""
    return nn.GELU("tanh" if approximate else "none")


@register("activation")
def selu() -> nn.Module:
    """Return 1.0507 * ELU(x, 1.6733) (arXiv 1706.02515); self-normalizing with `init=lecun` and alpha dropout only."""
    return nn.SELU()


@register("activation")
def silu() -> nn.Module:
    """Return x * sigmoid(x), also called swish (arXiv 1702.03118)."""
    return nn.SiLU()


@register("activation")
def softplus(*, beta: Positive) -> nn.Module:
    """Return log(1 + exp(beta * x)) / beta, a smooth ReLU; torch gives x itself where beta * x > 20."""
    return nn.Softplus(beta)


@register("activation")
def hardswish() -> nn.Module:
    """Return x * min(max(x + 3, 0), 6) / 6, a swish without exponentials (arXiv 1905.02244)."""
    return nn.Hardswish()


@register("activation")
def identity() -> nn.Module:
    """Return x: layers collapse into one linear map, which shows what activations are for."""
    return Itself()

"""Activations: each call of a component makes one module; a model asks for one per place, so that none is shared.

None works in place: probes and hooks read what comes in.
"""

from __future__ import annotations

from torch import nn

from runner.registry import register
from runner.schema import Unit


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
def gelu(*, approximate: bool) -> nn.Module:
    """Return x * Phi(x), Phi the normal distribution's function (arXiv 1606.08415), or its tanh approximation."""
    return nn.GELU("tanh" if approximate else "none")


@register("activation")
def selu() -> nn.Module:
    """Return 1.0507 * ELU(x, 1.6733) (arXiv 1706.02515); self-normalizing with `init=lecun` and alpha dropout only."""
    return nn.SELU()

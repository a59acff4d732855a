"""Activation functions: each call returns a new module, so that a model has one module per activation.

None works in place, because probes and hooks read the input. All keep the shape of their input (any shape).
"""

from __future__ import annotations

from torch import nn

from runner.registry import register
from runner.schema import Positive, Unit


class IdentityActivation(nn.Identity):
    """Return the input unchanged; `activation = True` makes probes treat it as an activation."""

    activation = True


@register("activation")
def relu() -> nn.Module:
    """Return ReLU: max(x, 0) (Nair and Hinton 2010)."""
    return nn.ReLU()


@register("activation")
def tanh() -> nn.Module:
    """Return the hyperbolic tangent, 2 sigmoid(2x) - 1, in (-1, 1)."""
    return nn.Tanh()


@register("activation")
def sigmoid() -> nn.Module:
    """Return the logistic sigmoid: 1 / (1 + exp(-x)), in (0, 1)."""
    return nn.Sigmoid()


@register("activation")
def leaky_relu(*, slope: Unit) -> nn.Module:
    """Return leaky ReLU: x for x > 0, `slope * x` otherwise (Maas et al. 2013).

    Args:
        slope: Slope for negative inputs, in [0, 1].
    """
    return nn.LeakyReLU(slope)


@register("activation")
def prelu(*, start: float) -> nn.Module:
    """Return PReLU: x for x > 0, `a * x` otherwise, with a learned `a` (He et al. 2015, arXiv 1502.01852, eq. 1).

    Each activation of the model learns one slope, shared by its channels.

    Args:
        start: Initial slope.
    """
    return nn.PReLU(init=start)


@register("activation")
def elu(*, alpha: Positive) -> nn.Module:
    """Return ELU: x for x > 0, `alpha * (exp(x) - 1)` otherwise (Clevert et al. 2015, arXiv 1511.07289).

    Args:
        alpha: Saturation value for negative inputs is `-alpha`; > 0.
    """
    return nn.ELU(alpha)


@register("activation")
def gelu(*, approximate: bool) -> nn.Module:
    """Return GELU: x * Phi(x), where Phi is the standard normal CDF (Hendrycks and Gimpel 2016, arXiv 1606.08415).

    Args:
        approximate: Use the paper's tanh approximation instead of the exact CDF.
    """
    return nn.GELU("tanh" if approximate else "none")


@register("activation")
def selu() -> nn.Module:
    """Return SELU: 1.0507 * ELU(x, alpha=1.6733) (Klambauer et al. 2017, arXiv 1706.02515).

    Self-normalizing only with `norm=none`, `init=lecun` and `regularizer=[alpha_dropout]` (or no dropout).
    """
    return nn.SELU()


@register("activation")
def silu() -> nn.Module:
    """Return SiLU, also called Swish: x * sigmoid(x) (Elfwing et al. 2017, arXiv 1702.03118)."""
    return nn.SiLU()


@register("activation")
def softplus(*, beta: Positive) -> nn.Module:
    """Return softplus: log(1 + exp(beta * x)) / beta, a smooth ReLU.

    PyTorch returns x itself where beta * x > 20.

    Args:
        beta: Sharpness, > 0; larger values approach ReLU.
    """
    return nn.Softplus(beta)


@register("activation")
def hardswish() -> nn.Module:
    """Return hard swish: x * min(max(x + 3, 0), 6) / 6 (Howard et al. 2019, arXiv 1905.02244)."""
    return nn.Hardswish()


@register("activation")
def identity() -> nn.Module:
    """Return the identity: without an activation the layers collapse into one linear map."""
    return IdentityActivation()

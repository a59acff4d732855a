"""Dropout: units are zeroed at random in training; `p` is always the probability to drop."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from runner.components.regularizer.places import counted, fill_all
from runner.engine.contracts import Regularizer
from runner.registry import register
from runner.schema import HalfOpenUnit, NotEmpty

Where = Annotated[list[Literal["head", "fc", "block"]], NotEmpty()]


@register("regularizer")
def dropout(*, p: HalfOpenUnit, where: Where) -> Regularizer:
    """Return inverted dropout: what survives is divided by 1 - p in training, evaluation changes nothing.

    Srivastava et al. 2014 (JMLR 15), scaled in training as in their section 10. Raises ConfigError where the model
    lacks a place.
    """

    def rewire(model: nn.Module) -> str:
        places = fill_all("regularizer.dropout.where", model, where, lambda: nn.Dropout(p))
        return f"dropout {p:g} at {counted(places)} ({', '.join(where)})"

    return Regularizer(rewire=rewire)


class VanillaDropout(nn.Module):
    """Zero units with probability p in training, and scale all by 1 - p in evaluation."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return x with some zeros, or scaled."""
        return x * (torch.rand(x.shape, device=x.device) >= self.p) if self.training else x * (1 - self.p)

    def extra_repr(self) -> str:
        """Show p."""
        return f"p={self.p}"


@register("regularizer")
def dropout_vanilla(*, p: HalfOpenUnit, where: Where) -> Regularizer:
    """Return dropout as first published: nothing is scaled in training, evaluation multiplies by 1 - p.

    Hinton et al. 2012 (arXiv 1207.0580). Has the expectation of `dropout`, at 1 - p times its activations.
    """

    def rewire(model: nn.Module) -> str:
        places = fill_all("regularizer.dropout_vanilla.where", model, where, lambda: VanillaDropout(p))
        return f"vanilla dropout {p:g} at {counted(places)} ({', '.join(where)})"

    return Regularizer(rewire=rewire)


@register("regularizer")
def alpha_dropout(*, p: HalfOpenUnit, where: Where) -> Regularizer:
    """Return alpha dropout: units take SELU's saturation value, then mean and variance are restored (arXiv 1706.02515).

    Made for `activation=selu`. Evaluation changes nothing.
    """

    def rewire(model: nn.Module) -> str:
        places = fill_all("regularizer.alpha_dropout.where", model, where, lambda: nn.AlphaDropout(p))
        return f"alpha dropout {p:g} at {counted(places)} ({', '.join(where)})"

    return Regularizer(rewire=rewire)

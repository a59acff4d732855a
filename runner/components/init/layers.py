"""What an initialization walks over: the weights of linear and convolutional layers, their fans, and the classifier."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from runner.engine.contracts import Init
from runner.errors import ConfigError
from runner.schema import Positive

Head = Literal["zeros"] | Positive | None  # the classifier's weights: zeros, a standard deviation, or like the others


@dataclass(frozen=True)
class Layer:
    """A weight (out, in / groups, *kernel) with its bias; `weight[o]` makes output channel `o`."""

    name: str
    weight: Tensor
    bias: Tensor | None
    groups: int

    @property
    def fan_in(self) -> int:
        """Return the inputs that one output sums: K^2 * Cin / groups for a convolution."""
        return self.weight[0].numel()

    @property
    def fan_out(self) -> int:
        """Return the outputs that one input reaches: K^2 * Cout / groups for a convolution."""
        return self.weight.shape[0] * self.weight[0, 0].numel() // self.groups


def weighted(model: nn.Module) -> list[Layer]:
    """Return the linear and convolutional layers in order of definition."""
    return [
        Layer(name, m.weight, m.bias, m.groups if isinstance(m, nn.Conv2d) else 1)
        for name, m in model.named_modules()
        if isinstance(m, (nn.Linear, nn.Conv2d))
    ]


def classifier(model: nn.Module) -> nn.Linear:
    """Return the last linear layer, which gives the logits."""
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise ConfigError("init.head: this model has no fully connected classifier, must be null")
    return linear[-1]


def initialization(draw: Callable[[Layer], object], *, bias: float, head: Head) -> Init:
    """Return the Init that draws every layer's weight, sets its bias, and treats the classifier as `head` says."""

    @torch.no_grad()
    def init(model: nn.Module) -> None:
        for layer in weighted(model):
            draw(layer)
            if layer.bias is not None:
                layer.bias.fill_(bias)
        set_head(model, head)

    return init


def set_head(model: nn.Module, head: Head) -> None:
    """Set the classifier's weights: to zero, to normal numbers of a standard deviation, or (None) not at all."""
    if head is not None:
        nn.init.normal_(classifier(model).weight, std=0.0 if head == "zeros" else head)

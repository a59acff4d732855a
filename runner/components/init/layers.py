"""The layers that an initialization visits, with their fan-in and fan-out, and the classifier."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from runner.engine.contracts import Init
from runner.engine.parts import is_kept
from runner.errors import ConfigError
from runner.schema import Positive

# The classifier's weights: zeros, a standard deviation, or None for the same as other layers. With `prior` they are
# zeros, and assembly, which knows the class frequencies, sets the bias to their logarithms.
Head = Literal["zeros", "prior"] | Positive | None


@dataclass(frozen=True)
class WeightLayer:
    """A weight (out, in / groups, *kernel) with its bias; `weight[o]` computes output channel `o`."""

    weight: Tensor
    bias: Tensor | None
    groups: int = 1

    @property
    def fan_in(self) -> int:
        """Return the number of inputs of one output: K^2 * Cin / groups for a convolution."""
        return self.weight[0].numel()

    @property
    def fan_out(self) -> int:
        """Return the number of outputs that one input reaches: K^2 * Cout / groups for a convolution."""
        return self.weight.shape[0] * self.weight[0, 0].numel() // self.groups


def _weight_layers(model: nn.Module) -> Iterator[WeightLayer]:
    """Yield linear and convolutional layers in order of definition, without weights loaded from a file."""
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention) and module.in_proj_weight is not None:
            yield from _attention_projections(module)
        if isinstance(module, (nn.Linear, nn.Conv2d)) and not is_kept(module.weight):
            yield WeightLayer(module.weight, module.bias, getattr(module, "groups", 1))


def _attention_projections(attention: nn.MultiheadAttention) -> Iterator[WeightLayer]:
    """Yield the query, key and value projections of `nn.MultiheadAttention`, which share one weight."""
    if not is_kept(attention.in_proj_weight):
        biases = attention.in_proj_bias.chunk(3) if attention.in_proj_bias is not None else (None,) * 3
        for weight, bias in zip(attention.in_proj_weight.chunk(3), biases, strict=True):
            yield WeightLayer(weight, bias)


def make_init(draw: Callable[[WeightLayer], object], *, bias: float, head: Head) -> Init:
    """Return an Init that draws every layer's weight, sets its bias and treats the classifier as `head` says."""

    @torch.no_grad()
    def init(model: nn.Module) -> None:
        for layer in _weight_layers(model):
            draw(layer)
        set_biases(model, bias)
        set_head(model, head)

    return init


def set_biases(model: nn.Module, value: float) -> None:
    """Set the biases of all layers."""
    for layer in _weight_layers(model):
        if layer.bias is not None:
            nn.init.constant_(layer.bias, value)


def set_head(model: nn.Module, head: Head) -> None:
    """Set the classifier's weights to zero (a word) or to normal values of a standard deviation; None leaves them."""
    if head is not None:
        nn.init.normal_(classifier(model).weight, std=0.0 if isinstance(head, str) else head)


def classifier(model: nn.Module) -> nn.Linear:
    """Return the last linear layer, which computes the logits. Raises ConfigError if there is none."""
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    if not linear:
        raise ConfigError("init.head: must be null for a model without a fully connected classifier")
    return linear[-1]

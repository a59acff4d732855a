"""The layers that an initialization visits, with their fan-in and fan-out, and the classifier."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from math import prod
from typing import Literal

import torch
from torch import Tensor, nn

from runner.engine.contracts import Init
from runner.engine.parametrized import LayerWeight
from runner.engine.parts import CONVOLUTIONS, TRANSPOSED, add_note, is_kept
from runner.engine.weights import classifiers, layer_weights
from runner.errors import ConfigError
from runner.schema import Positive

# The classifier's weights: small, zeros, a standard deviation, or None for the same as other layers. With `prior` they
# are zeros, and assembly, which knows the class frequencies, sets the bias to their logarithms.
Head = Literal["small", "zeros", "prior"] | Positive | None

# Standard deviation of a small classifier, and that times the inputs: the smaller counts. With many inputs the first
# alone would start above the loss of a guess, ln(classes).
_SMALL, _SMALL_TIMES_INPUTS = 0.01, 10.0
# Layers whose weight and bias are called so
_BIASED = (nn.Linear, nn.Bilinear, *CONVOLUTIONS)
# A line lists so many names; of more it lists the first ones and counts the others
_LISTED, _FIRST = 10, 3


@dataclass(frozen=True)
class WeightLayer:
    """A layer's weight in the layout (out, in / groups, *kernel): `weight[o]` computes output channel `o`.

    `weight` is a copy to draw into; `store` writes it back, through a parametrization and in the layer's own layout.
    """

    weight: Tensor
    target: LayerWeight
    rows: slice  # of the target: attention has three projections in one weight

    @property
    def module(self) -> nn.Module:
        """Return the layer."""
        return self.target.module

    @property
    def groups(self) -> int:
        """Return the number of groups of a convolution, else 1."""
        return self.module.groups if isinstance(self.module, CONVOLUTIONS) else 1

    @property
    def fan_in(self) -> float:
        """Return the number of inputs of one output: K^2 * Cin / groups for a convolution.

        For a transposed convolution with a stride it is the mean over the outputs: K^2 * Cin / groups / stride^2.
        """
        stride = prod(self.module.stride) if isinstance(self.module, TRANSPOSED) else 1
        return self.weight[0].numel() / stride

    @property
    def fan_out(self) -> int:
        """Return the number of outputs that one input reaches: K^2 * Cout / groups for a convolution."""
        return self.weight.shape[0] * self.weight[0, 0].numel() // self.groups

    def store(self) -> bool:
        """Write the weight; return False if a parametrization changes it."""
        values = _transposed(self.weight, self.module)
        if self.rows == slice(None):
            return self.target.write(values)
        whole = self.target.read().detach().clone()
        whole[self.rows] = values
        return self.target.write(whole)


def _transposed(weight: Tensor, module: nn.Module) -> Tensor:
    """Swap the first two axes of a transposed convolution's weight, group by group; others stay as they are."""
    if not isinstance(module, TRANSPOSED):
        return weight
    return weight.reshape(module.groups, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)


def weight_layers(model: nn.Module) -> Iterator[WeightLayer]:
    """Yield linear, bilinear, convolutional and attention layers in order of definition, unless loaded from a file.

    Embeddings and recurrent layers are left as constructed: neither a table nor a gate has a fan.
    """
    for target in layer_weights(model):
        if target.is_kept or target.attribute not in _own_weights(target.module):
            continue
        weight = _transposed(target.read().detach(), target.module).clone(memory_format=torch.contiguous_format)
        if target.attribute != "in_proj_weight":
            yield WeightLayer(weight, target, slice(None))
        else:
            # Query, key and value
            for i, part in enumerate(weight.chunk(3)):
                yield WeightLayer(part, target, slice(i * len(part), (i + 1) * len(part)))


def _own_weights(module: nn.Module) -> tuple[str, ...]:
    """Return the names of the weights that an initialization draws."""
    if isinstance(module, nn.MultiheadAttention):
        return ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
    return ("weight",) if isinstance(module, _BIASED) else ()


def make_init(draw: Callable[[WeightLayer], object], *, bias: float, head: Head) -> Init:
    """Return an Init that draws every layer's weight, sets its bias and treats the classifier as `head` says."""

    @torch.no_grad()
    def init(model: nn.Module) -> None:
        changed = {}
        for layer in weight_layers(model):
            draw(layer)
            if not layer.store():
                changed[layer.target.name] = layer.target.how
        if changed:
            how = ", ".join(dict.fromkeys(changed.values()))
            add_note(model, f"init: {listed(changed)} drawn, then changed by the parametrization ({how})")
        set_biases(model, bias)
        set_head(model, head)

    return init


def listed(names: Collection[str]) -> str:
    """Return names as text: all of a few, else the first ones and the number of the others."""
    if len(names) <= _LISTED:
        return ", ".join(names)
    return f"{', '.join(list(names)[:_FIRST])} and {len(names) - _FIRST} more"


def set_biases(model: nn.Module, value: float) -> None:
    """Set the biases of all layers that can be drawn, except those loaded from a file."""
    for module in model.modules():
        name = "in_proj_bias" if isinstance(module, nn.MultiheadAttention) else "bias"
        found = module._parameters.get(name) if isinstance(module, (*_BIASED, nn.MultiheadAttention)) else None
        if found is not None and not is_kept(found):
            nn.init.constant_(found, value)


@torch.no_grad()
def set_head(model: nn.Module, head: Head, ratio: float = 1.0) -> None:
    """Set the classifier's weights to zero (`zeros`, `prior`) or to normal values; None leaves them, as does a file.

    The standard deviation is that of a classifier with `ratio` times fewer inputs, over `ratio`.

    Raises:
        ConfigError: The model has no classifier, and `head` is not the default.
    """
    if head is None:
        return
    found = classifiers(model)
    if found and all(weight.is_kept for weight in found):
        return
    if not found and head == "small":
        add_note(model, "init.head: the model has no linear or convolutional classifier, which would start small")
    elif not found:
        raise ConfigError(
            f"init.head: got '{head}', must be null or small for a model without a linear or convolutional classifier"
        )
    for weight in found:
        values = torch.empty_like(weight.read(), memory_format=torch.contiguous_format)
        std = _head_std(head, values[0].numel() / ratio) / ratio
        if not weight.write(nn.init.normal_(values, std=std)):
            add_note(model, f"init.head: {weight.name} drawn, then changed by the parametrization ({weight.how})")


def _head_std(head: Literal["small", "zeros", "prior"] | float, inputs: float) -> float:
    """Return the standard deviation of a classifier's weights."""
    if isinstance(head, str):
        return min(_SMALL, _SMALL_TIMES_INPUTS / inputs) if head == "small" else 0.0
    return head

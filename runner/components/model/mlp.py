"""Fully connected models."""

from __future__ import annotations

from math import prod

from torch import nn

from runner.components.model.layers import hidden_layers, named
from runner.engine.contracts import ActivationMaker, NormMaker
from runner.engine.parts import Slot
from runner.registry import register
from runner.schema import PositiveInt


@register("model")
def linear(shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Return one linear map from the pixels to the logits: softmax regression."""
    return named(flatten=nn.Flatten(), slot=Slot("head"), head=nn.Linear(prod(shape), num_classes))


@register("model")
def mlp(
    shape: tuple[int, int, int],
    num_classes: int,
    activation: ActivationMaker,
    norm: NormMaker,
    *,
    hidden: list[PositiveInt],
) -> nn.Module:
    """Return a multi-layer perceptron on the flattened image with hidden layers of these widths."""
    layers, features = hidden_layers(prod(shape), hidden, activation, norm)
    return named(flatten=nn.Flatten(), hidden=layers, slot=Slot("head"), head=nn.Linear(features, num_classes))

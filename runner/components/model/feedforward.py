"""Feedforward models: softmax regression, multi-layer perceptron, LeNet-like CNN and VGG."""

from __future__ import annotations

from math import prod
from typing import Annotated, Literal

from torch import nn

from runner.components.model.layers import check_halvings, conv_norm, hidden_layers, sequential
from runner.engine.contracts import ActivationMaker, NormMaker
from runner.engine.parts import Slot
from runner.registry import register
from runner.relations import Whole
from runner.schema import PositiveInt

_VGG_CONVS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
# Channels per stage in units of the first
_VGG_WIDTHS = (1, 2, 4, 8, 8)


@register("model")
def linear(shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """Build one linear layer from pixels to logits: softmax regression.

    Returns:
        Module (B, C, H, W) -> logits (B, K).
    """
    return sequential(flatten=nn.Flatten(), slot=Slot("head"), head=nn.Linear(prod(shape), num_classes))


@register("model")
def mlp(
    shape: tuple[int, int, int],
    num_classes: int,
    activation: ActivationMaker,
    norm: NormMaker,
    *,
    hidden: list[PositiveInt],
) -> nn.Module:
    """Build a multi-layer perceptron on the flattened image.

    Returns:
        Module (B, C, H, W) -> logits (B, K).
    """
    layers, features = hidden_layers(prod(shape), hidden, activation, norm)
    return sequential(flatten=nn.Flatten(), hidden=layers, slot=Slot("head"), head=nn.Linear(features, num_classes))


@register("model")
def cnn(
    shape: tuple[int, int, int],
    num_classes: int,
    activation: ActivationMaker,
    norm: NormMaker,
    *,
    channels: list[PositiveInt],
    kernel: Annotated[int, Whole("odd", first=1, step=2)],
    hidden: list[PositiveInt],
) -> nn.Module:
    """Build a LeNet-like CNN: convolution, norm, activation, 2x2 max pooling per block, then fully connected layers.

    LeNet-5 (LeCun et al. 1998) has channels [6, 16], kernel 5 and hidden [120, 84]; here convolutions keep the size.

    Returns:
        Module (B, C, H, W) -> logits (B, K).

    Raises:
        ConfigError: Images are smaller than 2^blocks.
    """
    check_halvings("cnn", shape, len(channels))
    blocks, cin = {}, shape[0]
    for i, cout in enumerate(channels, 1):
        conv, after = conv_norm(cin, cout, kernel, norm)
        blocks[f"block{i}"] = sequential(
            conv=conv, norm=after, act=activation(), pool=nn.MaxPool2d(2), slot=Slot("block")
        )
        cin = cout
    flat = cin * (shape[1] >> len(channels)) * (shape[2] >> len(channels))
    layers, features = hidden_layers(flat, hidden, activation, norm)
    head = nn.Linear(features, num_classes)
    return sequential(**blocks, flatten=nn.Flatten(), hidden=layers, slot=Slot("head"), head=head)


@register("model")
def vgg(
    shape: tuple[int, int, int],
    num_classes: int,
    activation: ActivationMaker,
    norm: NormMaker,
    *,
    depth: Literal[11, 13, 16, 19],
    width: PositiveInt,
    hidden: list[PositiveInt],
) -> nn.Module:
    """Build a VGG network (arXiv 1409.1556, table 1): five stages of 3x3 convolutions, then fully connected layers.

    Each stage ends in a 2x2 max pooling. The paper has width 64, hidden [4096, 4096], images of 224x224 and no norm.

    Returns:
        Module (B, C, H, W) -> logits (B, K).

    Raises:
        ConfigError: Images are smaller than 32x32.
    """
    check_halvings("vgg", shape, len(_VGG_WIDTHS))
    stages, cin = {}, shape[0]
    for i, (count, factor) in enumerate(zip(_VGG_CONVS[depth], _VGG_WIDTHS, strict=True), 1):
        stages[f"stage{i}"] = _vgg_stage(cin, width * factor, count, activation, norm)
        cin = width * factor
    pixels = (shape[1] // 32) * (shape[2] // 32)
    layers, features = hidden_layers(cin * pixels, hidden, activation, norm)
    head = nn.Linear(features, num_classes)
    return sequential(**stages, flatten=nn.Flatten(), hidden=layers, slot=Slot("head"), head=head)


def _vgg_stage(cin: int, cout: int, count: int, activation: ActivationMaker, norm: NormMaker) -> nn.Sequential:
    """Return `count` 3x3 convolutions with norm and activation, and a 2x2 max pooling."""
    layers: dict[str, nn.Module] = {}
    for i in range(1, count + 1):
        layers[f"conv{i}"], layers[f"norm{i}"] = conv_norm(cin, cout, 3, norm)
        layers[f"act{i}"] = activation()
        cin = cout
    return sequential(**layers, pool=nn.MaxPool2d(2), slot=Slot("block"))

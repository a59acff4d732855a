"""The networks of Simonyan and Zisserman: stages of 3x3 convolutions, each ended by a pooling."""

from __future__ import annotations

from typing import Literal

from torch import nn

from runner.components.model.layers import conv_norm, halvings, hidden_layers, named
from runner.engine.contracts import ActivationMaker, NormMaker
from runner.engine.parts import Slot
from runner.registry import register
from runner.schema import PositiveInt

CONVS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (1, 2, 4, 8, 8)  # channels of the stages, in units of the first


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
    """Return a VGG network (arXiv 1409.1556, table 1): five stages of convolutions and a pooling, then `hidden`.

    The paper's has width 64, hidden [4096, 4096], images of 224x224 and no norm.
    Raises ConfigError for images below 32x32.
    """
    halvings("vgg", shape, len(WIDTHS))
    stages, cin = {}, shape[0]
    for i, (count, factor) in enumerate(zip(CONVS[depth], WIDTHS, strict=True), 1):
        stages[f"stage{i}"] = stage(cin, width * factor, count, activation, norm)
        cin = width * factor
    pixels = (shape[1] // 32) * (shape[2] // 32)
    layers, features = hidden_layers(cin * pixels, hidden, activation, norm)
    head = nn.Linear(features, num_classes)
    return named(**stages, flatten=nn.Flatten(), hidden=layers, slot=Slot("head"), head=head)


def stage(cin: int, cout: int, count: int, activation: ActivationMaker, norm: NormMaker) -> nn.Sequential:
    """Return `count` 3x3 convolutions with norm and activation, and a 2x2 max pooling."""
    layers: dict[str, nn.Module] = {}
    for i in range(1, count + 1):
        layers[f"conv{i}"], layers[f"norm{i}"] = conv_norm(cin, cout, 3, norm)
        layers[f"act{i}"] = activation()
        cin = cout
    return named(**layers, pool=nn.MaxPool2d(2), slot=Slot("block"))

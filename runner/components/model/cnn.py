"""Plain convolutional models."""

from __future__ import annotations

from typing import Annotated

from torch import nn

from runner.components.model.layers import conv_norm, halvings, hidden_layers, named
from runner.engine.contracts import ActivationMaker, NormMaker
from runner.engine.parts import Slot
from runner.registry import register
from runner.relations import Whole
from runner.schema import PositiveInt


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
    """Return a LeNet-like model: convolution, norm, activation, 2x2 max pool per entry of `channels`, then `hidden`.

    LeNet-5 (LeCun et al. 1998) is channels [6, 16], kernel 5, hidden [120, 84]; here convolutions pad to keep the size.
    Raises ConfigError for images that its poolings would use up.
    """
    halvings("cnn", shape, len(channels))
    blocks, cin = {}, shape[0]
    for i, cout in enumerate(channels, 1):
        conv, after = conv_norm(cin, cout, kernel, norm)
        blocks[f"block{i}"] = named(conv=conv, norm=after, act=activation(), pool=nn.MaxPool2d(2), slot=Slot("block"))
        cin = cout
    flat = cin * (shape[1] >> len(channels)) * (shape[2] >> len(channels))
    layers, features = hidden_layers(flat, hidden, activation, norm)
    head = nn.Linear(features, num_classes)
    return named(**blocks, flatten=nn.Flatten(), hidden=layers, slot=Slot("head"), head=head)

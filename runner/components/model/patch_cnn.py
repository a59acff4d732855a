"""A plain network of few, wide layers behind a convolution over small patches, for fast training on small images."""

from __future__ import annotations

from torch import nn

from runner.components.model.layers import conv_norm, named
from runner.components.model.resnet9 import Scale
from runner.engine.contracts import ActivationMaker, NormMaker
from runner.engine.parts import Slot
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import Positive, PositiveInt


@register("model")
def patch_cnn(
    shape: tuple[int, int, int],
    num_classes: int,
    activation: ActivationMaker,
    norm: NormMaker,
    *,
    patch: PositiveInt,
    channels: list[PositiveInt],
    scale: Positive,
) -> nn.Module:
    """Return the network of the fastest CIFAR-10 runs (Jordan 2024, arXiv 2404.00498, section 3): 1.97M parameters.

    First a convolution over patches without padding, with two filters per value of a patch, which `init=whiten` can
    fill with both signs of every eigenvector. Then per entry of `channels` two 3x3 convolutions, the first one pooled
    (2x2) before its norm, where there is a quarter to normalize. Then the maximum over all places, and a classifier
    without a bias, whose logits are multiplied by `scale`. Raises ConfigError for images that this uses up.
    """
    check_size(shape, patch, len(channels))
    cin = 2 * shape[0] * patch**2
    stem = named(conv=nn.Conv2d(shape[0], cin, patch), act=activation())
    stages = {}
    for i, cout in enumerate(channels, 1):
        stages[f"stage{i}"] = stage(cin, cout, activation, norm)
        cin = cout
    return named(
        stem=stem,
        **stages,
        pool=nn.AdaptiveMaxPool2d(1),
        flatten=nn.Flatten(),
        slot=Slot("head"),
        head=nn.Linear(cin, num_classes, bias=False),
        scale=Scale(scale),
    )


def stage(cin: int, cout: int, activation: ActivationMaker, norm: NormMaker) -> nn.Sequential:
    """Return two 3x3 convolutions with norm and activation, the first one halved in height and width."""
    conv1, norm1 = conv_norm(cin, cout, 3, norm)
    conv2, norm2 = conv_norm(cout, cout, 3, norm)
    first = named(conv=conv1, pool=nn.MaxPool2d(2), norm=norm1, act=activation())
    return named(unit1=first, unit2=named(conv=conv2, norm=norm2, act=activation()), slot=Slot("block"))


def check_size(shape: tuple[int, int, int], patch: int, stages: int) -> None:
    """Raise ConfigError if the poolings would leave nothing of the image."""
    needed = 2**stages + patch - 1
    if min(shape[1:]) < needed:
        given = f"{shape[1]}x{shape[2]}"
        raise ConfigError(
            f"model=patch_cnn: images of {given} are too small, its patch and {stages} halvings need {needed}x{needed}"
        )

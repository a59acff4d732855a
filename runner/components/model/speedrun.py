"""Wide and shallow networks for fast training on small images: resnet9 and patch_cnn."""

from __future__ import annotations

from torch import Tensor, nn

from runner.components.model.layers import check_halvings, conv_norm, sequential
from runner.engine.contracts import ActivationMaker, NormMaker
from runner.engine.parts import Residual, Slot
from runner.errors import ConfigError
from runner.registry import register
from runner.schema import Positive, PositiveInt


@register("model")
def resnet9(
    shape: tuple[int, int, int],
    num_classes: int,
    activation: ActivationMaker,
    norm: NormMaker,
    *,
    width: PositiveInt,
    scale: Positive,
) -> nn.Module:
    """Build Page's residual network for fast training on CIFAR-10 ("How to train your ResNet", 2018).

    It has 6.57M parameters at width 64.     Residual branches end in an activation, so that `init=residual` is not
    supported with ReLU.

    Args:
        shape: Image shape (C, H, W).
        num_classes: Number of classes K.
        activation: Factory of activations.
        norm: Factory of norms.
        width: Channels of the first layer, >= 1; the last has eight times as many.
        scale: Factor on the logits, > 0.

    Returns:
        Module (B, C, H, W) -> logits (B, K).

    Raises:
        ConfigError: Images are smaller than 8x8.
    """
    check_halvings("resnet9", shape, 3)

    def unit(cin: int, cout: int) -> dict[str, nn.Module]:
        conv, after = conv_norm(cin, cout, 3, norm)
        return {"conv": conv, "norm": after, "act": activation()}

    def residual(channels: int) -> nn.Module:
        one, two = sequential(**unit(channels, channels)), sequential(**unit(channels, channels))
        return Residual(sequential(unit1=one, unit2=two, slot=Slot("residual")), nn.Identity(), nn.Identity())

    def stage(cin: int, cout: int, then: nn.Module) -> nn.Module:
        return sequential(**unit(cin, cout), pool=nn.MaxPool2d(2), residual=then, slot=Slot("block"))

    return sequential(
        stem=sequential(**unit(shape[0], width)),
        stage1=stage(width, 2 * width, residual(2 * width)),
        stage2=stage(2 * width, 4 * width, nn.Identity()),
        stage3=stage(4 * width, 8 * width, residual(8 * width)),
        pool=nn.AdaptiveMaxPool2d(1),
        flatten=nn.Flatten(),
        slot=Slot("head"),
        head=nn.Linear(8 * width, num_classes),
        scale=Scale(scale),
    )


class Scale(nn.Module):
    """Multiply by a constant: small initial logits let training start gently at a large learning rate."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Return `factor * x`."""
        return self.factor * x


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
    """Build the network of the fastest CIFAR-10 runs (Jordan 2024, arXiv 2404.00498, section 3): 1.97M parameters.

    The first convolution reads patches without padding and has two filters per value of a patch, which `init=whiten`
    can fill with both signs of every eigenvector. Each stage has two 3x3 convolutions; the first is max-pooled (2x2)
    before its norm, because a quarter of the values is left to normalize. A global max pooling and a classifier without
    bias follow.

    Args:
        shape: Image shape (C, H, W).
        num_classes: Number of classes K.
        activation: Factory of activations.
        norm: Factory of norms.
        patch: Side of a patch in pixels, >= 1.
        channels: Channels per stage, >= 1 each.
        scale: Factor on the logits, > 0.

    Returns:
        Module (B, C, H, W) -> logits (B, K).

    Raises:
        ConfigError: Images are too small for patch and poolings.
    """
    _check_patch_cnn_size(shape, patch, len(channels))
    cin = 2 * shape[0] * patch**2
    stem = sequential(conv=nn.Conv2d(shape[0], cin, patch), act=activation())
    stages = {}
    for i, cout in enumerate(channels, 1):
        stages[f"stage{i}"] = _patch_cnn_stage(cin, cout, activation, norm)
        cin = cout
    return sequential(
        stem=stem,
        **stages,
        pool=nn.AdaptiveMaxPool2d(1),
        flatten=nn.Flatten(),
        slot=Slot("head"),
        head=nn.Linear(cin, num_classes, bias=False),
        scale=Scale(scale),
    )


def _patch_cnn_stage(cin: int, cout: int, activation: ActivationMaker, norm: NormMaker) -> nn.Sequential:
    """Return two 3x3 convolutions with norm and activation; the first halves height and width."""
    conv1, norm1 = conv_norm(cin, cout, 3, norm)
    conv2, norm2 = conv_norm(cout, cout, 3, norm)
    first = sequential(conv=conv1, pool=nn.MaxPool2d(2), norm=norm1, act=activation())
    return sequential(unit1=first, unit2=sequential(conv=conv2, norm=norm2, act=activation()), slot=Slot("block"))


def _check_patch_cnn_size(shape: tuple[int, int, int], patch: int, stages: int) -> None:
    """Raise ConfigError if the poolings leave nothing of the image."""
    needed = 2**stages + patch - 1
    if min(shape[1:]) < needed:
        given = f"{shape[1]}x{shape[2]}"
        raise ConfigError(
            f"model=patch_cnn: images of {given} are too small, its patch and {stages} halvings need {needed}x{needed}"
        )

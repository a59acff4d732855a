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

    It has 6.57M parameters at width 64. Residual branches end in an activation, so that `init=residual` is not
    supported with ReLU.

    Returns:
        Module (B, C, H, W) -> logits (B, K).

    Raises:
        ConfigError: Images are smaller than 8x8.
    """
    check_halvings("resnet9", shape, 3)
    return sequential(
        stem=sequential(**_conv_norm_act(shape[0], width, activation, norm)),
        stage1=_resnet9_stage(width, 2 * width, activation, norm, residual=True),
        stage2=_resnet9_stage(2 * width, 4 * width, activation, norm, residual=False),
        stage3=_resnet9_stage(4 * width, 8 * width, activation, norm, residual=True),
        pool=nn.AdaptiveMaxPool2d(1),
        flatten=nn.Flatten(),
        slot=Slot("head"),
        head=nn.Linear(8 * width, num_classes),
        scale=Scale(scale),
    )


def _conv_norm_act(cin: int, cout: int, activation: ActivationMaker, norm: NormMaker) -> dict[str, nn.Module]:
    """Return a 3x3 convolution, its norm and an activation."""
    conv, after = conv_norm(cin, cout, 3, norm)
    return {"conv": conv, "norm": after, "act": activation()}


def _resnet9_stage(
    cin: int, cout: int, activation: ActivationMaker, norm: NormMaker, *, residual: bool
) -> nn.Sequential:
    """Return a convolution, a 2x2 max pooling and, if asked for, a residual block of two convolutions."""
    block: nn.Module = nn.Identity()
    # The residual block draws its random weights before the stage's own convolution: seeds keep their numbers
    if residual:
        one, two = (sequential(**_conv_norm_act(cout, cout, activation, norm)) for _ in range(2))
        block = Residual(sequential(unit1=one, unit2=two, slot=Slot("residual")), nn.Identity(), nn.Identity())
    layers = _conv_norm_act(cin, cout, activation, norm)
    return sequential(**layers, pool=nn.MaxPool2d(2), residual=block, slot=Slot("block"))


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
    before its norm, which is cheaper. A global max pooling and a classifier without bias follow.

    Returns:
        Module (B, C, H, W) -> logits (B, K).

    Raises:
        ConfigError: Images are too small for patch and poolings.
    """
    _check_patch_cnn_size(shape, patch, len(channels))
    cin = 2 * shape[0] * patch**2
    stages = {"stem": sequential(conv=nn.Conv2d(shape[0], cin, patch), act=activation())}
    for i, cout in enumerate(channels, 1):
        stages[f"stage{i}"] = _patch_cnn_stage(cin, cout, activation, norm)
        cin = cout
    return sequential(
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

"""The network of the speed runs: nine layers, wide and shallow."""

from __future__ import annotations

from torch import Tensor, nn

from runner.components.model.layers import conv_norm, halvings, named
from runner.engine.contracts import ActivationMaker, NormMaker
from runner.engine.parts import Residual, Slot
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
    """Return Page's residual network for fast training on CIFAR-10 ("How to train your ResNet", 2018; 6.57M at 64).

    Logits are multiplied by `scale`. Branches end in an activation, so `init=residual` does not fit with ReLU.
    Raises ConfigError for images below 8x8.
    """
    halvings("resnet9", shape, 3)

    def unit(cin: int, cout: int) -> dict[str, nn.Module]:
        conv, after = conv_norm(cin, cout, 3, norm)
        return {"conv": conv, "norm": after, "act": activation()}

    def residual(channels: int) -> nn.Module:
        one, two = named(**unit(channels, channels)), named(**unit(channels, channels))
        return Residual(named(unit1=one, unit2=two, slot=Slot("residual")), nn.Identity(), nn.Identity())

    def stage(cin: int, cout: int, then: nn.Module) -> nn.Module:
        return named(**unit(cin, cout), pool=nn.MaxPool2d(2), residual=then, slot=Slot("block"))

    return named(
        stem=named(**unit(shape[0], width)),
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
    """Multiplication by a constant: small logits at the start let a large learning rate begin softly."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Return `factor * x`."""
        return self.factor * x
